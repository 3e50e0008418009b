//! Who shares what, in one glance: the node, the pod in it, the containers in that.
use std::collections::BTreeMap;

use husk_scope::{Kind, Scope};

use super::matrix::scope_style;
use super::report::{Container, Report, Use};
use super::units::{NOTHING, label};
use husk_terminal::page::{Cell, Page, Style, cell};

/// How many names are listed before they are only counted.
const LISTED: usize = 4;

/// Adds the tree to a page.
pub(super) fn sharing(page: &mut Page, report: &Report) {
    let live = report.live();
    if live.is_empty() {
        return;
    }
    page.title("WHO SHARES WHAT", "");
    let mut rows = Vec::new();
    level(&mut rows, report, &live, &Scope::Node, "node", "│");
    level(&mut rows, report, &live, &Scope::Pod, "└─ pod", "   │");
    let mut leaves = groups(report, &live);
    leaves.extend(live.iter().map(|container| own(container, report)));
    let last = leaves.len() - 1;
    for (index, (name, kinds, users, style)) in leaves.into_iter().enumerate() {
        let branch = if index == last { "└─" } else { "├─" };
        rows.push(row(&format!("   {branch} {name}"), &kinds, &users, style));
    }
    page.table(&rows);
}

fn row(name: &str, kinds: &[Kind], users: &str, style: Style) -> Vec<Cell> {
    let kinds: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    let kinds = if kinds.is_empty() {
        NOTHING.into()
    } else {
        kinds.join(", ")
    };
    vec![
        cell(name),
        cell(kinds).style(style),
        cell(users).style(Style::Dim),
    ]
}

/// The rows of the node or of the pod: one for each set of containers that share the same kinds.
fn level(
    rows: &mut Vec<Vec<Cell>>,
    report: &Report,
    live: &[&Container],
    scope: &Scope,
    name: &str,
    next: &str,
) {
    let mut by_users: Vec<(Vec<&Container>, Vec<Kind>)> = Vec::new();
    for kind in Kind::ALL {
        let users: Vec<_> = live
            .iter()
            .copied()
            .filter(|container| {
                usage(container, kind).is_some_and(|usage| usage.actual.as_ref() == Some(scope))
            })
            .collect();
        match by_users
            .iter_mut()
            .find(|(same, _)| ids(same) == ids(&users))
        {
            _ if users.is_empty() => {}
            Some((_, kinds)) => kinds.push(kind),
            None => by_users.push((users, vec![kind])),
        }
    }
    if by_users.is_empty() {
        rows.push(row(name, &[], "", Style::Dim));
    }
    for (index, (users, kinds)) in by_users.iter().enumerate() {
        let name = if index == 0 { name } else { next };
        rows.push(row(
            name,
            kinds,
            &named(report, live, users),
            scope_style(scope),
        ));
    }
}

/// A leaf: its name, the kinds, who uses them, the colour.
type Leaf = (String, Vec<Kind>, String, Style);

/// What some containers share with each other: groups, and targets with those that joined them.
fn groups(report: &Report, live: &[&Container]) -> Vec<Leaf> {
    let mut found: BTreeMap<(String, Vec<&str>), Vec<Kind>> = BTreeMap::new();
    for kind in Kind::ALL {
        let mut by_inode: BTreeMap<u64, (String, Vec<&str>)> = BTreeMap::new();
        for container in live {
            let Some(used) = usage(container, kind) else {
                continue;
            };
            let (Some(inode), Some(actual)) = (used.inode, &used.actual) else {
                continue;
            };
            let name = match actual {
                Scope::Group(name) => format!("group {name}"),
                Scope::Target(name) => format!("of {name}"),
                Scope::Container if !used.with.is_empty() => format!("of {}", container.name),
                _ => continue,
            };
            by_inode
                .entry(inode)
                .or_insert_with(|| (name, Vec::new()))
                .1
                .push(&container.id);
        }
        for key in by_inode.into_values() {
            found.entry(key).or_default().push(kind);
        }
    }
    let leaf = |((name, users), kinds): ((String, Vec<&str>), Vec<Kind>)| {
        let users: Vec<_> = live
            .iter()
            .copied()
            .filter(|container| users.contains(&container.id.as_str()))
            .collect();
        (name, kinds, named(report, live, &users), Style::Magenta)
    };
    found.into_iter().map(leaf).collect()
}

/// What a container has to itself.
fn own(container: &Container, report: &Report) -> Leaf {
    let kinds = container
        .namespaces
        .iter()
        .filter(|usage| usage.actual == Some(Scope::Container) && usage.with.is_empty())
        .map(|usage| usage.kind);
    (
        label(container, report),
        kinds.collect(),
        "its own".into(),
        Style::Green,
    )
}

fn usage(container: &Container, kind: Kind) -> Option<&Use> {
    container.namespaces.iter().find(|usage| usage.kind == kind)
}

fn ids<'a>(containers: &[&'a Container]) -> Vec<&'a str> {
    containers
        .iter()
        .map(|container| container.id.as_str())
        .collect()
}

/// The names of containers, or how many they are.
fn named(report: &Report, live: &[&Container], users: &[&Container]) -> String {
    if users.len() > LISTED {
        let all = if users.len() == live.len() {
            "all "
        } else {
            ""
        };
        return format!("{all}{} containers", users.len());
    }
    let names: Vec<_> = users
        .iter()
        .map(|container| label(container, report))
        .collect();
    names.join(", ")
}
