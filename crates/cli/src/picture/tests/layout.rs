//! For any pod: nothing overlaps, every text fits, everything is on the canvas.
use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::arrange;
use super::super::layout::{Anchor, Layout, Line, Rect, Role, Text, rect};
use super::super::model::{Owner, Picture};
use super::pods::{Container, Joint, hostile, mixed, pod, usual};

/// Where a text is, as wide as it may be, and as high as letters are.
fn place(text: &Text) -> Rect {
    let width = text.font.width(&text.text);
    let x = match text.anchor {
        Anchor::Start => text.room.x,
        Anchor::Middle => text.room.middle() - width / 2,
        Anchor::End => text.room.right() - width,
    };
    let height = text.font.size;
    rect(x, text.room.y + (text.room.h - height) / 2, width, height)
}

fn overlap(one: Rect, other: Rect) -> bool {
    one.x < other.right()
        && other.x < one.right()
        && one.y < other.bottom()
        && other.y < one.bottom()
}

fn inside(inner: Rect, outer: Rect) -> bool {
    inner.x >= outer.x
        && inner.y >= outer.y
        && inner.right() <= outer.right()
        && inner.bottom() <= outer.bottom()
}

/// The straight parts of a line, as boxes that are one pixel wide where the line has no extent.
fn strokes(line: &Line) -> Vec<Rect> {
    let parts = line.points.windows(2).map(|ends| {
        let ((a, b), (c, d)) = (ends[0], ends[1]);
        rect(
            a.min(c),
            b.min(d),
            (a - c).abs().max(1),
            (b - d).abs().max(1),
        )
    });
    parts.collect()
}

fn all_is_on_the_canvas(layout: &Layout) {
    let canvas = rect(0, 0, layout.width, layout.height);
    for block in &layout.blocks {
        assert!(block.rect.w > 0 && block.rect.h > 0, "{block:?}");
        assert!(
            inside(block.rect, canvas),
            "{block:?} is not inside {canvas:?}"
        );
    }
    for line in &layout.lines {
        for stroke in strokes(line) {
            assert!(inside(stroke, canvas), "{line:?} is not inside {canvas:?}");
        }
    }
    for text in &layout.texts {
        assert!(
            inside(place(text), canvas),
            "{text:?} is not inside {canvas:?}"
        );
        assert!(
            inside(place(text), text.room),
            "{text:?} is larger than its room"
        );
    }
}

fn boxes_of_a_kind_do_not_overlap(layout: &Layout) {
    let nested = [Role::Frame, Role::Fill];
    for (index, one) in layout.blocks.iter().enumerate() {
        for other in &layout.blocks[index + 1..] {
            if one.role == other.role && !nested.contains(&one.role) {
                assert!(!overlap(one.rect, other.rect), "{one:?} overlaps {other:?}");
            }
            let small = [Role::Badge, Role::Chip, Role::Dot];
            if small.contains(&one.role) && small.contains(&other.role) {
                assert!(!overlap(one.rect, other.rect), "{one:?} overlaps {other:?}");
            }
        }
    }
}

fn texts_overlap_nothing(layout: &Layout) {
    for (index, text) in layout.texts.iter().enumerate() {
        for other in &layout.texts[index + 1..] {
            assert!(
                !overlap(place(text), place(other)),
                "{text:?} overlaps {other:?}"
            );
        }
        for block in &layout.blocks {
            let apart = !overlap(place(text), block.rect);
            assert!(
                apart || inside(place(text), block.rect),
                "{text:?} is half in {block:?}"
            );
            let bare = matches!(block.role, Role::Dot | Role::Track | Role::Fill);
            let own =
                matches!(block.role, Role::Badge | Role::Chip) && inside(text.room, block.rect);
            let holds = matches!(block.role, Role::Frame | Role::Card | Role::Band);
            assert!(
                apart || own || (holds && !bare),
                "{text:?} is over {block:?}"
            );
        }
    }
}

fn lines_cross_nothing_but_lines(layout: &Layout) {
    for line in layout.lines.iter().filter(|line| line.class == "link") {
        for stroke in strokes(line) {
            for text in &layout.texts {
                assert!(!overlap(stroke, place(text)), "{line:?} runs over {text:?}");
            }
            for block in &layout.blocks {
                if matches!(
                    block.role,
                    Role::Band | Role::Chip | Role::Badge | Role::Dot
                ) {
                    assert!(!overlap(stroke, block.rect), "{line:?} runs over {block:?}");
                }
            }
        }
    }
    for (index, one) in layout.lines.iter().enumerate() {
        for other in &layout.lines[index + 1..] {
            if one.title != other.title {
                assert!(!along(one, other), "{one:?} runs along {other:?}");
            }
        }
    }
}

/// Whether two lines have more than a point in common: one could not tell which goes where.
fn along(one: &Line, other: &Line) -> bool {
    let pairs = strokes(one).into_iter().flat_map(|one| {
        let others = strokes(other).into_iter();
        others.map(move |other| (one, other))
    });
    pairs.into_iter().any(|(one, other)| {
        let same_way = (one.w > 1) == (other.w > 1) && (one.h > 1) == (other.h > 1);
        same_way && overlap(one, other)
    })
}

/// Each container's box is crossed by the bands of its namespaces and by no other.
fn bands_go_through_their_members(picture: &Picture, layout: &Layout) {
    let scene = &picture.scenes[0];
    for column in &scene.columns {
        let card = layout
            .blocks
            .iter()
            .find(|block| block.role == Role::Card && block.title == column.title)
            .expect("each container has a box");
        let bands = layout
            .blocks
            .iter()
            .filter(|block| block.role == Role::Band);
        let crossing: BTreeSet<_> = bands
            .filter(|band| overlap(band.rect, card.rect))
            .map(|band| band.title.as_str())
            .collect();
        let own: BTreeSet<_> = column
            .cells
            .iter()
            .map(|(_, cell)| scene.spaces[cell.space].title.as_str())
            .collect();
        assert_eq!(crossing, own, "{}", column.title);
    }
}

/// What is the node's begins outside of the pod or is coloured so; all else is in the pod.
fn only_the_node_s_leaves_the_pod(picture: &Picture, layout: &Layout) {
    let frame = |class: &str| {
        let mut blocks = layout.blocks.iter();
        blocks.find(|block| block.class == class).unwrap().rect
    };
    let (node, pod) = (frame("frame node"), frame("frame pod"));
    assert!(inside(pod, node));
    let of_node: BTreeSet<_> = picture.scenes[0]
        .spaces
        .iter()
        .filter(|space| space.owner == Owner::Node)
        .map(|space| space.title.as_str())
        .collect();
    for band in layout
        .blocks
        .iter()
        .filter(|block| block.role == Role::Band)
    {
        assert!(inside(band.rect, node));
        let is_node = band.title.starts_with("the node's") || of_node.contains(band.title.as_str());
        assert_eq!(band.class == "band node", is_node, "{band:?}");
        assert!(is_node || inside(band.rect, pod), "{band:?} leaves {pod:?}");
    }
}

fn check(picture: &Picture) {
    let layout = arrange(picture);
    all_is_on_the_canvas(&layout);
    boxes_of_a_kind_do_not_overlap(&layout);
    texts_overlap_nothing(&layout);
    lines_cross_nothing_but_lines(&layout);
    bands_go_through_their_members(picture, &layout);
    only_the_node_s_leaves_the_pod(picture, &layout);
}

/// A name such as people give, or one of any characters at all.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,62}",
        vec(any::<char>(), 0..40).prop_map(String::from_iter),
    ]
}

fn containers() -> impl Strategy<Value = Vec<Container>> {
    vec((name(), proptest::array::uniform8(0_u8..9)), 0..=20)
}

fn joints() -> impl Strategy<Value = Vec<Joint>> {
    vec((0_usize..20, 0_usize..20, any::<u16>()), 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn nothing_overlaps_or_is_cut_whatever_is_shared(containers in containers(), joints in joints()) {
        check(&pod(&containers, &joints));
    }
}

#[test]
fn pods_of_each_size_have_their_place() {
    for count in 1..=20 {
        check(&pod(&usual(count), &[]));
        check(&mixed(count));
    }
}

#[test]
fn two_scenes_have_the_same_containers_in_the_same_order_and_do_not_overlap() {
    for count in [1, 3, 8, 20] {
        let mut picture = mixed(count);
        let mut before = pod(&usual(count), &[]).scenes.remove(0);
        before.heading = "requested".into();
        picture.scenes.insert(0, before);
        let layout = arrange(&picture);
        all_is_on_the_canvas(&layout);
        boxes_of_a_kind_do_not_overlap(&layout);
        texts_overlap_nothing(&layout);
        lines_cross_nothing_but_lines(&layout);
        let cards = layout
            .blocks
            .iter()
            .filter(|block| block.role == Role::Card);
        let titles = cards
            .filter(|card| !card.title.is_empty())
            .map(|card| &card.title);
        let titles: Vec<_> = titles.collect();
        assert_eq!(titles[..count], titles[count..]);
    }
}

#[test]
fn sharers_that_are_not_neighbours_have_bands_of_one_colour_and_one_label() {
    // 1 and 2 share the network, 0 and 2 the host name, 0 and 1 the queues: three in a row cannot.
    let choices = |network, ipc, uts| [network, 2, ipc, uts, 2, 2, 2, 2];
    let containers = [
        ("a".to_owned(), choices(2, 4, 5)),
        ("b".to_owned(), choices(6, 4, 2)),
        ("c".to_owned(), choices(6, 2, 5)),
    ];
    let layout = arrange(&pod(&containers, &[]));
    let bands = |title: &str| -> Vec<_> {
        let blocks = layout.blocks.iter();
        blocks
            .filter(|block| block.role == Role::Band && block.title == title)
            .collect()
    };
    let all = [bands("network 6"), bands("ipc 4"), bands("uts 5")];
    let broken = all
        .iter()
        .find(|bands| bands.len() == 2)
        .expect("one of the three is in two pieces");
    assert_eq!(broken[0].class, broken[1].class);
    assert!(broken[0].class.starts_with("band some"));
    let words = |band: Rect| -> Vec<_> {
        let texts = layout.texts.iter().filter(|text| inside(place(text), band));
        texts
            .filter(|text| text.class != "number")
            .map(|text| text.text.clone())
            .collect()
    };
    assert_eq!(words(broken[0].rect), words(broken[1].rect));
    assert_eq!(words(broken[0].rect).len(), 2);
}

#[test]
fn words_that_are_too_long_are_shortened_and_there_in_whole() {
    let layout = arrange(&hostile());
    all_is_on_the_canvas(&layout);
    texts_overlap_nothing(&layout);
    let layout = arrange(&pod(&usual(8), &[]));
    let long = layout
        .texts
        .iter()
        .find(|text| text.whole.is_some())
        .unwrap();
    assert!(long.text.ends_with('…'));
    let begin = long.text.trim_end_matches('…');
    assert!(long.whole.as_ref().unwrap().starts_with(begin), "{long:?}");
}
