//! The table of namespaces: a row per kind, a column per container.
use std::collections::BTreeSet;

use husk_scope::{Kind, Scope};

use super::report::{Container, Report, Use};
use super::units::{NAME, NOTHING, label, short_name};
use husk_terminal::page::{Cell, Page, Style, WIDTH, cell, cut};

/// Adds the table to a page; several when one would be too wide.
pub(super) fn namespaces(page: &mut Page, report: &Report) {
    let live = report.live();
    if live.is_empty() {
        return;
    }
    page.title("NAMESPACES", "by inode, and whose they are");
    let kept = report
        .sandbox
        .namespaces
        .iter()
        .any(|kept| kept.scope == Scope::Pod);
    let cells = live
        .iter()
        .flat_map(|container| &container.namespaces)
        .map(|usage| used(usage).text);
    let names = live.iter().map(|container| label(container, report));
    let widest = cells
        .chain(names)
        .map(|text| text.chars().count())
        .max()
        .unwrap_or(0);
    // The kind, the sandbox's inode and who decided take their part of the line.
    let room = WIDTH - 2 - 9 - if kept { 12 } else { 0 } - 26;
    for (index, part) in live.chunks((room / (widest + 2)).max(1)).enumerate() {
        if index > 0 {
            page.gap();
        }
        page.table(&part_of_namespaces(report, part, kept));
    }
    page.sentence("", Style::Dim, &legend(report));
}

fn part_of_namespaces(report: &Report, part: &[&Container], kept: bool) -> Vec<Vec<Cell>> {
    let mut header = vec![String::new()];
    if kept {
        header.push("sandbox".into());
    }
    header.extend(part.iter().map(|container| label(container, report)));
    header.push("decided by".into());
    let mut rows = vec![
        header
            .into_iter()
            .map(|text| cell(text).style(Style::Title))
            .collect(),
    ];
    for (row, kind) in Kind::ALL.into_iter().enumerate() {
        let usages: Vec<_> = part
            .iter()
            .filter_map(|container| container.namespaces.get(row))
            .collect();
        let mut cells = vec![cell(kind.name())];
        if kept {
            let inode = report
                .sandbox
                .namespaces
                .iter()
                .find(|kept| kept.kind == kind && kept.scope == Scope::Pod)
                .map(|kept| {
                    kept.inode
                        .map_or_else(|| "gone".into(), |inode| inode.to_string())
                });
            cells.push(cell(inode.unwrap_or_else(|| NOTHING.into())));
        }
        cells.extend(usages.iter().map(|usage| used(usage)));
        cells.push(cell(deciders(part, &usages)).style(Style::Dim));
        rows.push(cells);
    }
    rows
}

fn used(usage: &Use) -> Cell {
    let (Some(inode), Some(actual)) = (usage.inode, &usage.actual) else {
        return cell(NOTHING).style(Style::Dim);
    };
    if usage.as_planned {
        return cell(cut(&format!("{inode} {actual}"), 11 + NAME)).style(scope_style(actual));
    }
    cell(cut(&format!("{inode} {actual} !"), 11 + NAME)).style(Style::Red)
}

/// The colour of a scope, the same wherever it is shown.
pub(super) const fn scope_style(scope: &Scope) -> Style {
    match scope {
        Scope::Container => Style::Green,
        Scope::Pod => Style::Cyan,
        Scope::Node => Style::Yellow,
        Scope::Target(_) | Scope::Group(_) => Style::Magenta,
    }
}

/// Who decided a row: everybody's word if it is the same, else who did not leave it as requested.
fn deciders(part: &[&Container], usages: &[&Use]) -> String {
    let who: BTreeSet<_> = usages.iter().map(|usage| usage.by.as_str()).collect();
    if who.len() == 1 {
        return who.into_iter().collect();
    }
    let others = part
        .iter()
        .zip(usages)
        .filter(|(_, usage)| usage.planned != usage.requested || usage.by != "request");
    let texts: Vec<_> = others
        .map(|(container, usage)| format!("{} ({})", usage.by, short_name(&container.name)))
        .collect();
    texts.join(", ")
}

fn legend(report: &Report) -> String {
    let uses: Vec<_> = report
        .containers
        .iter()
        .flat_map(|container| &container.namespaces)
        .collect();
    let meaning = |scope: &Scope| match scope {
        Scope::Container => "CONTAINER its own",
        Scope::Pod => "POD the sandbox's",
        Scope::Node => "NODE the node's",
        Scope::Target(_) => "TARGET another container's",
        Scope::Group(_) => "GROUP some containers'",
    };
    let mut words = Vec::new();
    for scope in uses.iter().filter_map(|usage| usage.actual.as_ref()) {
        if !words.contains(&meaning(scope)) {
            words.push(meaning(scope));
        }
    }
    if uses.iter().any(|usage| !usage.as_planned) {
        words.push("! not as planned");
    }
    words.join(" · ")
}
