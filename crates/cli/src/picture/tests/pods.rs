//! Pods to be drawn.
use husk_scope::Kind;

use super::super::model::{Cell, Column, Decider, End, Link, Owner, Picture, Scene, State, Usage};

/// In which namespace a container is: 0 the node's, 1 the pod's, 2 its own, 3 none, more a group's.
pub(super) type Choice = u8;

/// A container: its name, and its choice for each kind, in the order of [`Kind::ALL`].
pub(super) type Container = (String, [Choice; 8]);

/// A link: from which container to which, and a port that both ends are made of.
pub(super) type Joint = (usize, usize, u16);

/// A pod of these containers.
pub(super) fn pod(containers: &[Container], links: &[Joint]) -> Picture {
    let mut scene = Scene {
        pod: "web".into(),
        ..Scene::default()
    };
    for (number, container) in containers.iter().enumerate() {
        let column = column(number, container, &mut scene);
        scene.columns.push(column);
    }
    let there = links.iter().filter(|_| !containers.is_empty());
    scene.links = there.map(|joint| link(containers.len(), *joint)).collect();
    Picture {
        title: "Pod web".into(),
        facts: format!("{} containers, 3 min old", containers.len()),
        warnings: vec!["app: its limit may be too low".into()],
        scenes: vec![scene],
        cgroups: usages(containers),
        deciders: ["configuration", "policy isolate"]
            .map(|name| Decider {
                name: name.into(),
                said: vec!["network of agent, tools: POD → CONTAINER".into()],
            })
            .into(),
        notes: vec!["and 3 more links".into()],
    }
}

fn column(number: usize, (name, choices): &Container, scene: &mut Scene) -> Column {
    let mut column = Column {
        name: name.clone(),
        state: State::Running,
        status: format!("running · pid {}", 4100 + number),
        title: format!("container {number}"),
        cells: Vec::new(),
    };
    for (kind, choice) in Kind::ALL.into_iter().zip(choices) {
        let owner = match choice {
            0 => Owner::Node,
            1 => Owner::Pod,
            2 => Owner::Own,
            3 => continue,
            more => Owner::Some(format!("group {}", more - 3)),
        };
        let title = match owner {
            Owner::Own => format!("{kind} of {number}"),
            _ => format!("{kind} {choice}"),
        };
        let space = scene.space(kind, owner, title);
        let by = (number + usize::from(*choice))
            .is_multiple_of(3)
            .then_some(number);
        let wrong = (number + kind as usize).is_multiple_of(11);
        column.cells.push((kind, Cell { space, by, wrong }));
    }
    column
}

fn link(containers: usize, (from, to, port): Joint) -> Link {
    let end = |column: usize, port: u16| End {
        columns: vec![column % containers],
        port: if port.is_multiple_of(5) {
            format!("{port}/udp")
        } else {
            port.to_string()
        },
    };
    Link {
        from: end(from, port),
        to: end(to, port / 2),
        title: format!("link {from} {to} {port}"),
    }
}

fn usages(containers: &[Container]) -> Vec<Usage> {
    let of_containers = containers
        .iter()
        .enumerate()
        .map(|(number, (name, _))| Usage {
            name: name.clone(),
            above: false,
            used: Some(number as u64 * 60),
            words: [
                "1023.9 MiB of 1023.9 GiB".into(),
                "123 d 23 h, 128.00 at once".into(),
                "65535 of 65535".into(),
            ],
        });
    let parent = Usage {
        name: "…pods.slice/kubepods-burstable.slice/pod0".into(),
        above: true,
        used: None,
        words: ["19.0 MiB".into(), "2.00 s".into(), "4".into()],
    };
    std::iter::once(parent).chain(of_containers).collect()
}

/// So many containers of a Kubernetes pod: user and time are the node's; pid, mount and cgroup their own.
pub(super) fn usual(count: usize) -> Vec<Container> {
    let names = [
        "app",
        "credentials-proxy",
        "WWWWMMMMWWWWMMMMWWWWMMMM",
        "an-uncommonly-long-name-of-a-container",
    ];
    let container = |number: usize| {
        let name = format!("{}-{number}", names[number % names.len()]);
        (name, [1, 2, 1, 1, 0, 2, 2, 0])
    };
    (0..count).map(container).collect()
}

/// The same with namespaces shared by some, and links between all of them.
pub(super) fn mixed(count: usize) -> Picture {
    let mut containers = usual(count);
    for (number, (_, choices)) in containers.iter_mut().enumerate() {
        choices[0] = [1, 2, 4][number % 3];
        choices[1] = [2, 5, 2, 5, 0][number % 5];
        choices[2] = [1, 1, 6, 1, 0][number % 5];
        choices[6] = [2, 0][number % 2];
    }
    let joints: Vec<_> = (0..count.min(14))
        .zip((8000..8009).cycle())
        .map(|(number, port)| (number, number * 7 + 1, port))
        .filter(|(from, to, _)| from % count != to % count)
        .collect();
    pod(&containers, &joints)
}

/// A pod whose words all hold what would end a tag, an attribute, a section, a line.
pub(super) fn hostile() -> Picture {
    const WORDS: &str = "</text></svg><script>document.title='out'</script>&lt;]]>\"' onload=x \
                         <!--\u{0}\u{1b}[2J\r\n\u{202e}\u{feff}\u{ffff}\u{200d}";
    let mut picture = pod(
        &[(WORDS.to_owned(), [1; 8]), ("b".into(), [4; 8])],
        &[(0, 1, 8080)],
    );
    let scene = &mut picture.scenes[0];
    scene.pod = WORDS.into();
    scene.heading = WORDS.into();
    scene.columns[0].title = WORDS.into();
    scene.columns[0].status = WORDS.into();
    scene.links[0].title = WORDS.into();
    scene.links[0].to.port = WORDS.into();
    for space in &mut scene.spaces {
        space.title = WORDS.into();
        if let Owner::Some(name) = &mut space.owner {
            *name = WORDS.into();
        }
    }
    picture.title = WORDS.into();
    picture.facts = WORDS.into();
    picture.warnings = vec![WORDS.into()];
    picture.notes = vec![WORDS.into()];
    for decider in &mut picture.deciders {
        decider.name = WORDS.into();
        decider.said = vec![WORDS.into()];
    }
    for usage in &mut picture.cgroups {
        usage.name = WORDS.into();
        usage.words = [WORDS, WORDS, WORDS].map(Into::into);
    }
    picture
}
