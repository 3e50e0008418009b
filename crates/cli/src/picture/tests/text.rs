//! Nothing that comes from a container is anything but text.
use husk_terminal::page::{Page, Style, cell};

use super::super::{page, svg};
use super::pods::{hostile, mixed};

/// The names of all tags, in order; panics where a `<` begins none.
fn tags(document: &str) -> Vec<&str> {
    let parts = document.split('<').skip(1);
    parts
        .map(|part| {
            let end = part.find(|c: char| c.is_whitespace() || c == '>');
            part[..end.expect("a tag ends")].trim_start_matches('/')
        })
        .collect()
}

/// What XML 1.0 may hold, and nothing that turns or hides text.
fn assert_clean(document: &str) {
    for c in document.chars() {
        let is_hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{feff}');
        assert!((c == '\n' || !c.is_control()) && !is_hidden, "{c:?}");
        assert!(!matches!(c, '\u{fffe}' | '\u{ffff}'), "{c:?}");
    }
}

#[test]
fn a_hostile_name_is_no_markup_in_a_picture() {
    let document = svg(&hostile());
    assert_clean(&document);
    let known = [
        "svg", "title", "desc", "style", "rect", "text", "polyline", "polygon",
    ];
    for tag in tags(&document) {
        assert!(known.contains(&tag), "{tag}");
    }
    assert!(document.contains("&lt;/text&gt;&lt;/svg&gt;&lt;script&gt;"));
    // The same elements as where the words are harmless: nothing was ended early.
    let balance = |tag: &str| {
        let opened = document.matches(&format!("<{tag} ")).count();
        let closed = document.matches(&format!("</{tag}>")).count();
        (opened, closed)
    };
    let (opened, closed) = balance("text");
    assert_eq!(opened, closed);
    assert_eq!(balance("svg"), (1, 1));
}

#[test]
fn a_hostile_command_line_is_no_markup_on_a_page() {
    let mut tables = Page::new(false);
    let words = "<img src=x onerror=alert(1)>\u{1b}[2J\u{0}";
    tables.title(words, words);
    tables.table(&[
        vec![cell("NAME").style(Style::Title)],
        vec![cell(words).style(Style::Red)],
    ]);
    tables.sentence("! ", Style::Red, words);
    let document = page(&hostile(), tables.blocks());
    assert_clean(&document);
    assert!(!tags(&document).contains(&"img"));
    assert!(!tags(&document).contains(&"script"));
    assert!(
        document.contains("<th scope=\"col\">NAME</th>"),
        "{document}"
    );
    assert!(
        document.contains("<td class=\"t-wrong\">&lt;img"),
        "{document}"
    );
}

#[test]
fn a_picture_needs_nothing_from_anywhere() {
    let document = page(&mixed(3), &[]);
    for word in [
        "href", "src=", "url(", "@import", "<script", "<image", "<use",
    ] {
        assert!(!document.contains(word), "{word}");
    }
    let addresses = document.matches("://").count();
    assert_eq!(addresses, 1, "only the name of SVG's namespace");
    assert!(document.contains("prefers-color-scheme:dark"));
}
