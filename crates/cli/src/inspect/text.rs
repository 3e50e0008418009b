//! A pod on one page: what matters first, nothing wider than 120 columns.
use std::collections::BTreeSet;
use std::time::Duration;

use husk_scope::record::Status;
use husk_scope::{Kind, Scope};

use super::cgroups::Cgroup;
use super::page::{Cell, Page, Style, WIDTH, cell, cut};
use super::report::{Container, Kept, Report, Use, status};
use super::tree;

/// The longest name of a container that is shown in full.
const NAME: usize = 20;

/// How many processes of one container are listed.
const LISTED: usize = 12;

/// What stands where there is nothing to say.
pub(super) const NOTHING: &str = "–";

/// The page.
pub(super) fn render(report: &Report, colours: bool) -> String {
    let mut page = Page::new(colours);
    heading(&mut page, report);
    containers(&mut page, report);
    tree::sharing(&mut page, report);
    namespaces(&mut page, report);
    cgroups(&mut page, report);
    processes(&mut page, report);
    sandbox(&mut page, report);
    page.done()
}

fn heading(page: &mut Page, report: &Report) {
    let name = if report.name.is_empty() {
        short_id(&report.id)
    } else {
        report.name.clone()
    };
    let running = report
        .containers
        .iter()
        .filter(|container| container.status == Status::Running)
        .count();
    let note = format!(
        "{running} of {} running, {} old",
        plural(report.containers.len(), "container"),
        duration(report.age_seconds)
    );
    page.title(&format!("POD {name}"), &note);
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
    page.sentence("", Style::Dim, &facts.join(", "));
    for warning in &report.warnings {
        page.sentence("! ", Style::Red, warning);
    }
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
        let (word, style) = match container.exit {
            Some(exit) => (format!("exited {}", exit.code), Style::Yellow),
            None => (
                status(container.status).to_owned(),
                status_style(container.status),
            ),
        };
        rows.push(vec![
            cell(label(container, report)),
            cell(word).style(style),
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

const fn status_style(status: Status) -> Style {
    match status {
        Status::Running => Style::Green,
        Status::Creating | Status::Created | Status::Paused => Style::Yellow,
        Status::Stopped => Style::Dim,
    }
}

/// A row per kind, a column per container; several tables when one would be too wide.
fn namespaces(page: &mut Page, report: &Report) {
    let live: Vec<_> = report
        .containers
        .iter()
        .filter(|container| container.pid.is_some())
        .collect();
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
    for part in live.chunks((room / (widest + 2)).max(1)) {
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
        None => "containerd".into(),
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

/// The name of a container as the page shows it everywhere.
pub(super) fn label(container: &Container, report: &Report) -> String {
    let name = short_name(&container.name);
    if container.is_sandbox && report.containers.len() > 1 {
        return format!("{name} (sandbox)");
    }
    name
}

fn short_name(name: &str) -> String {
    if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return short_id(name);
    }
    cut(name, NAME)
}

/// As many digits of an id as people read aloud.
fn short_id(id: &str) -> String {
    id.chars().take(12).collect()
}

/// The end of a path says more than its beginning.
fn short_path(path: &str) -> String {
    let length = path.chars().count();
    if length <= 2 * NAME {
        return path.to_owned();
    }
    let end: String = path.chars().skip(length - 2 * NAME + 1).collect();
    format!("…{end}")
}

fn number<T: ToString>(value: Option<T>) -> Cell {
    maybe(value.map(|value| value.to_string()))
}

fn maybe(text: Option<String>) -> Cell {
    cell(text.unwrap_or_else(|| NOTHING.into())).right()
}

fn size(bytes: Option<u64>) -> Cell {
    maybe(bytes.map(bytes_text))
}

fn bytes_text(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in units {
        if bytes >> shift > 0 {
            let tenths = (u128::from(bytes) * 10) >> shift;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

fn cpu_time(time: Duration) -> String {
    if time.as_secs() >= 60 {
        duration(time.as_secs())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_at_a_glance() {
        let sizes = [0, 1023, 1024, 1536, 268_435_456, 5 << 30].map(bytes_text);
        assert_eq!(
            sizes,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "256.0 MiB",
                "5.0 GiB"
            ]
        );
        let times = [5, 65, 3725, 90_000].map(duration);
        assert_eq!(times, ["5 s", "1 min", "1 h 2 min", "1 d 1 h"]);
        assert_eq!(cpu_time(Duration::from_millis(1234)), "1.23 s");
        assert_eq!(short_name(&"ab".repeat(32)), "abababababab");
        assert_eq!(
            short_path(&format!("/{}/pod", "x".repeat(60)))
                .chars()
                .count(),
            40
        );
    }
}
