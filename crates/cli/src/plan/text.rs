//! The plan as tables: a row for each kind of namespace, a column for each plugin.
use husk_plugin_host::Decision;
use husk_scope::Kind;

use super::links::PlannedLink;
use super::report::{Part, Report};
use husk_terminal::page::{Cell, Page, Style, cell};

/// Stands where nothing was said.
const NOTHING: &str = "–";

/// The functions whose answers are scopes, and so in the table.
const SCOPING: [&str; 2] = ["scope-sandbox", "scope-container"];

/// The function whose answers are links, and so below the table.
const LINKING: &str = "link-container";

pub(super) fn render(report: &Report, colours: bool) -> String {
    let mut page = Page::new(colours);
    let Report { pod, namespace, .. } = report;
    page.title(&format!("POD {pod}"), &format!("namespace {namespace}"));
    part(&mut page, "SANDBOX", report, &report.sandbox);
    for container in &report.containers {
        part(
            &mut page,
            &format!("CONTAINER {}", container.name),
            report,
            container,
        );
    }
    page.done()
}

fn part(page: &mut Page, title: &str, report: &Report, part: &Part) {
    let note = if part.without_image {
        "its image is not here: plugins were not told what it says of command, environment and user"
    } else {
        ""
    };
    page.title(title, note);
    page.table(&table(report, part));
    for PlannedLink { link, waits } in &part.links {
        page.sentence(
            "link: ",
            Style::Plain,
            &format!("{}, decided by {}", link.words(), link.by),
        );
        if let Some(waits) = waits {
            page.sentence("      ", Style::Yellow, waits);
        }
    }
    for decision in &part.decisions {
        let is_shown = SCOPING.contains(&decision.question)
            || (decision.question == LINKING && decision.counted && part.plan.is_some());
        if !is_shown || decision.denied {
            page.sentence("", style(decision), &words(decision));
        }
    }
    for (plugin, line) in &part.log {
        page.sentence("", Style::Dim, &format!("{plugin} logs: {line}"));
    }
    if let Some(denied) = &part.denied {
        page.sentence("DENIED: ", Style::Red, denied);
    }
}

fn table(report: &Report, part: &Part) -> Vec<Vec<Cell>> {
    let mut header = vec![cell(""), cell("requested")];
    header.extend(report.plugins.iter().map(cell));
    header.extend([cell("plan"), cell("decided by")]);
    let mut rows = vec![
        header
            .into_iter()
            .map(|cell| cell.style(Style::Title))
            .collect::<Vec<_>>(),
    ];
    for kind in Kind::ALL {
        let mut row = vec![cell(kind.name()), cell(part.requested[kind].to_string())];
        for plugin in &report.plugins {
            row.push(cell(said(part, plugin, kind)));
        }
        match part.plan.as_ref().map(|plan| plan.get(kind)) {
            Some(planned) => {
                let style = if planned.is_changed() {
                    Style::Yellow
                } else {
                    Style::Plain
                };
                row.push(cell(planned.scope.to_string()).style(style));
                row.push(cell(&planned.by).style(Style::Dim));
            }
            None => row.push(cell(NOTHING)),
        }
        rows.push(row);
    }
    rows
}

/// What a plugin said of a kind of namespace.
fn said(part: &Part, plugin: &str, kind: Kind) -> String {
    let mut asked = part
        .decisions
        .iter()
        .filter(|decision| decision.plugin == plugin && SCOPING.contains(&decision.question));
    let Some(decision) = asked.next() else {
        return NOTHING.to_owned();
    };
    let scope = match decision.scopes.get(&kind) {
        Some(scope) => scope.to_string(),
        None if decision.denied => "denied".to_owned(),
        None => return NOTHING.to_owned(),
    };
    if decision.counted {
        scope
    } else {
        format!("({scope})")
    }
}

fn words(decision: &Decision) -> String {
    let Decision {
        plugin,
        question,
        answer,
        ..
    } = decision;
    let weight = if decision.counted {
        ""
    } else {
        ", not counted"
    };
    format!("{plugin}, {question}{weight}: {answer}")
}

fn style(decision: &Decision) -> Style {
    match (decision.denied, decision.counted) {
        (true, true) => Style::Red,
        (true, false) => Style::Yellow,
        (false, _) => Style::Plain,
    }
}
