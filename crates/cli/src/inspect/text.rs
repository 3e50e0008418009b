//! A pod on one page: what matters first, nothing wider than 120 columns.
use std::time::Duration;

use husk_scope::record::Status;

use super::cgroups::Cgroup;
use super::links;
use super::matrix::{namespaces, scope_style};
use super::report::{Container, Kept, Report, status};
use super::tree::sharing;
use super::units::{
    NOTHING, cpu_time, duration, label, maybe, number, plural, short_id, short_path, size,
};
use husk_terminal::page::{Cell, Page, Style, cell};

/// How many processes of one container are listed.
const LISTED: usize = 12;

/// The text of the page.
pub(super) fn render(report: &Report, colours: bool) -> String {
    page(report, colours).done()
}

/// The page.
pub(super) fn page(report: &Report, colours: bool) -> Page {
    let mut page = Page::new(colours);
    heading(&mut page, report);
    containers(&mut page, report);
    sharing(&mut page, report);
    namespaces(&mut page, report);
    links::show(&mut page, report);
    cgroups(&mut page, report);
    processes(&mut page, report);
    sandbox(&mut page, report);
    page
}

fn heading(page: &mut Page, report: &Report) {
    page.title(&format!("POD {}", name(report)), &state(report));
    page.sentence("", Style::Dim, &facts(report));
    for warning in &report.warnings {
        page.sentence("! ", Style::Red, warning);
    }
}

/// The pod's name, or else the beginning of its id.
pub(super) fn name(report: &Report) -> String {
    if report.name.is_empty() {
        short_id(&report.id)
    } else {
        report.name.clone()
    }
}

/// How many of its containers run, and how old it is.
pub(super) fn state(report: &Report) -> String {
    let running = report
        .containers
        .iter()
        .filter(|container| container.status == Status::Running)
        .count();
    let containers = match report.containers.len() {
        0 => "no containers".to_owned(),
        count => format!("{running} of {} running", plural(count, "container")),
    };
    format!("{containers}, {} old", duration(report.age_seconds))
}

/// Where it is from.
fn facts(report: &Report) -> String {
    let mut facts = vec![
        format!("sandbox {}", report.id),
        format!("containerd namespace {}", report.namespace),
    ];
    if !report.kubernetes_namespace.is_empty() {
        facts.push(format!(
            "Kubernetes {}/{}",
            report.kubernetes_namespace, report.name
        ));
    }
    if report.sandbox_api {
        facts.push("made by the Sandbox API".into());
    }
    facts.join(", ")
}

fn containers(page: &mut Page, report: &Report) {
    if report.containers.is_empty() {
        return;
    }
    page.title("CONTAINERS", "");
    let mut rows = vec![headers(
        &["NAME", "STATUS", "PID", "PROCESSES", "AGE", "ID"],
        &[2, 3],
    )];
    for container in &report.containers {
        let style = match container.exit {
            Some(_) => Style::Yellow,
            None => status_style(container.status),
        };
        rows.push(vec![
            cell(label(container, report)),
            cell(condition(container)).style(style),
            number(container.pid),
            cell(container.processes.len().to_string()).right(),
            cell(
                container
                    .age_seconds
                    .map_or_else(|| NOTHING.into(), duration),
            ),
            cell(&container.id).style(Style::Dim),
        ]);
    }
    page.table(&rows);
}

/// Where a container is in its life, or how it ended.
pub(super) fn condition(container: &Container) -> String {
    match container.exit {
        Some(exit) => format!("exited {}", exit.code),
        None => status(container.status).to_owned(),
    }
}

const fn status_style(status: Status) -> Style {
    match status {
        Status::Running => Style::Green,
        Status::Creating | Status::Created | Status::Paused => Style::Yellow,
        Status::Stopped => Style::Dim,
    }
}

fn cgroups(page: &mut Page, report: &Report) {
    let of_containers: Vec<_> = report
        .containers
        .iter()
        .filter_map(|container| Some((container, container.cgroup.as_ref()?)))
        .collect();
    if of_containers.is_empty() {
        return;
    }
    page.title("CGROUPS", "limits and use");
    let names = [
        "CGROUP",
        "MEMORY",
        "LIMIT",
        "USED",
        "CPU TIME",
        "CPU LIMIT",
        "PIDS",
        "LIMIT",
    ];
    let mut rows = vec![headers(&names, &[1, 2, 3, 4, 5, 6, 7])];
    let pod = report.sandbox.cgroup.as_ref();
    if let Some(pod) = pod {
        rows.push(cgroup(&short_path(&pod.path.display().to_string()), pod));
    }
    let last = of_containers.len() - 1;
    for (index, (container, numbers)) in of_containers.into_iter().enumerate() {
        let name = label(container, report);
        let name = match (pod, index == last) {
            (None, _) => name,
            (Some(_), false) => format!("├─ {name}"),
            (Some(_), true) => format!("└─ {name}"),
        };
        rows.push(cgroup(&name, numbers));
    }
    page.table(&rows);
}

fn cgroup(name: &str, numbers: &Cgroup) -> Vec<Cell> {
    let percent = numbers
        .memory_bytes
        .zip(numbers.memory_limit_bytes)
        .and_then(|(used, limit)| {
            let percent = u64::try_from(u128::from(used) * 100 / u128::from(limit.max(1))).ok()?;
            let style = if percent >= 90 {
                Style::Red
            } else {
                Style::Plain
            };
            Some(cell(format!("{percent} %")).style(style).right())
        });
    vec![
        cell(name),
        size(numbers.memory_bytes),
        size(numbers.memory_limit_bytes),
        percent.unwrap_or_else(|| cell(NOTHING).right()),
        maybe(
            numbers
                .cpu_usec
                .map(|micros| cpu_time(Duration::from_micros(micros))),
        ),
        maybe(numbers.cpu_limit.map(|limit| format!("{limit:.2}"))),
        number(numbers.pids),
        number(numbers.pids_limit),
    ]
}

fn processes(page: &mut Page, report: &Report) {
    if report
        .containers
        .iter()
        .all(|container| container.processes.is_empty())
    {
        return;
    }
    page.title("PROCESSES", "");
    let mut rows = vec![headers(
        &["CONTAINER", "PID", "INSIDE", "RSS", "ROLE", "COMMAND"],
        &[1, 2, 3],
    )];
    for container in &report.containers {
        for (index, process) in container.processes.iter().take(LISTED).enumerate() {
            let name = if index == 0 {
                label(container, report)
            } else {
                String::new()
            };
            rows.push(vec![
                cell(name),
                number(Some(process.pid)),
                number(process.inner_pid),
                size(process.rss_bytes),
                cell(&process.role),
                cell(&process.command),
            ]);
        }
        if container.processes.len() > LISTED {
            let more = format!(
                "and {} more; --json lists all",
                container.processes.len() - LISTED
            );
            let mut row = vec![Cell::default(); 5];
            row.push(cell(more).style(Style::Dim));
            rows.push(row);
        }
    }
    page.table(&rows);
}

fn sandbox(page: &mut Page, report: &Report) {
    let sandbox = &report.sandbox;
    page.title("SANDBOX", "what serves the pod");
    let mut rows = vec![headers(
        &["PROCESS", "PID", "RSS", "PRIVATE DIRTY", ""],
        &[1, 2, 3],
    )];
    for part in &sandbox.processes {
        let gone = if part.alive {
            cell("")
        } else {
            cell("gone").style(Style::Red)
        };
        rows.push(vec![
            cell(&part.role),
            number(Some(part.pid)),
            size(part.rss_bytes),
            size(part.private_dirty_bytes),
            gone,
        ]);
    }
    if rows.len() > 1 {
        page.table(&rows);
    }
    if sandbox.namespaces.is_empty() {
        return;
    }
    page.title("KEPT FOR THE POD", "");
    let mut rows = vec![headers(
        &["NAMESPACE", "SCOPE", "INODE", "KEPT BY", "PATH"],
        &[],
    )];
    for kept in &sandbox.namespaces {
        let inode = kept.inode.map_or_else(
            || cell("gone").style(Style::Red),
            |inode| cell(inode.to_string()),
        );
        rows.push(vec![
            cell(kept.kind.name()),
            cell(kept.scope.to_string()).style(scope_style(&kept.scope)),
            inode,
            cell(keeper(kept)),
            cell(kept.path.display().to_string()).style(Style::Dim),
        ]);
        if let Some(shm) = &kept.shm {
            let shm = cell(format!("/dev/shm: {}", shm.display())).style(Style::Dim);
            rows.push(vec![cell(""), cell(""), cell(""), cell(""), shm]);
        }
    }
    page.table(&rows);
}

fn keeper(kept: &Kept) -> String {
    match kept.holder {
        Some(holder) => format!("holder {holder}"),
        None if kept.pinned => "a pin".into(),
        None if kept.path.starts_with("/proc") => "a process".into(),
        None => "the caller".into(),
    }
}

fn headers(names: &[&str], right: &[usize]) -> Vec<Cell> {
    let heads = names.iter().enumerate().map(|(column, name)| {
        let head = cell(*name).style(Style::Title);
        if right.contains(&column) {
            head.right()
        } else {
            head
        }
    });
    heads.collect()
}
