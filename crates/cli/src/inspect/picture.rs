//! What is known of a pod, as there is to be drawn.
use std::collections::BTreeMap;

use husk_scope::links::Network;
use husk_scope::record::Status;
use husk_scope::{Kind, Scope};

use super::cgroups::Cgroup;
use super::links::{Link, place, port};
use super::report::{Container, Report, Use};
use super::text;
use super::units::{bytes_text, cpu_time, short_name, short_path};
use crate::picture::decided::{Decided, Deciders};
use crate::picture::model::{self, Cell, Column, End, Owner, Picture, Scene, State, Usage};

/// Namespaces by their kinds and inodes: the numbers that the scene has for them.
type Known = BTreeMap<(Kind, u64), usize>;

/// The picture of a pod.
pub(super) fn picture(report: &Report) -> Picture {
    let mut deciders = Deciders::default();
    let mut scene = Scene {
        pod: text::name(report),
        ..Scene::default()
    };
    let mut known = Known::new();
    for container in &report.containers {
        let column = column(container, &mut scene, &mut known, &mut deciders);
        scene.columns.push(column);
    }
    sandbox(report, &mut scene, &known);
    let mut notes = Vec::new();
    for link in &report.links {
        match drawn(link, report, &scene) {
            Some(link) => scene.links.push(link),
            None => notes.push(format!(
                "not drawn, for an end of it is gone: {}",
                words(link)
            )),
        }
        deciders.links(&link.carried.by, words(link));
    }
    notes.extend(scene.keep_links());
    Picture {
        title: format!("Pod {}", text::name(report)),
        facts: text::state(report),
        warnings: report.warnings.clone(),
        cgroups: usages(report),
        deciders: deciders.done(),
        notes,
        scenes: vec![scene],
    }
}

fn column(
    container: &Container,
    scene: &mut Scene,
    known: &mut Known,
    deciders: &mut Deciders,
) -> Column {
    let mut column = Column {
        name: short_name(&container.name),
        state: match (container.exit, container.status) {
            (None, Status::Running) => State::Running,
            (Some(_), _) | (None, Status::Stopped) => State::Gone,
            (None, _) => State::Waiting,
        },
        status: text::condition(container),
        title: format!(
            "{}, {}, id {}",
            container.name,
            text::condition(container),
            container.id
        ),
        cells: Vec::new(),
    };
    if let Some(pid) = container.pid {
        column.status = format!("{} · pid {pid}", column.status);
    }
    if container.is_sandbox {
        column.name.push_str(" (sandbox)");
    }
    for usage in &container.namespaces {
        let Some(inode) = usage.inode else { continue };
        let space = *known.entry((usage.kind, inode)).or_insert_with(|| {
            scene.space(
                usage.kind,
                owner(usage, container),
                title(usage, inode, container),
            )
        });
        let decided = Decided {
            kind: usage.kind,
            container: &container.name,
            requested: &usage.requested,
            planned: &usage.planned,
        };
        let cell = Cell {
            space,
            by: deciders.scopes(&usage.by, &decided),
            wrong: !usage.as_planned,
        };
        column.cells.push((usage.kind, cell));
    }
    column
}

fn owner(usage: &Use, container: &Container) -> Owner {
    match &usage.actual {
        Some(Scope::Node) => Owner::Node,
        Some(Scope::Pod) => Owner::Pod,
        Some(Scope::Group(name)) => Owner::Some(format!("group {name}")),
        Some(Scope::Target(name)) => Owner::Some(format!("of {name}")),
        _ if usage.with.is_empty() => Owner::Own,
        _ => Owner::Some(format!("of {}", container.name)),
    }
}

fn title(usage: &Use, inode: u64, container: &Container) -> String {
    let mut names = vec![container.name.as_str()];
    names.extend(usage.with.iter().map(String::as_str));
    format!("{} namespace {inode}: {}", usage.kind, names.join(", "))
}

/// What is kept for the pod though no container uses it is the sandbox's.
fn sandbox(report: &Report, scene: &mut Scene, known: &Known) {
    let mut column = Column::sandbox();
    for kept in &report.sandbox.namespaces {
        let inode = kept
            .inode
            .filter(|inode| !known.contains_key(&(kept.kind, *inode)));
        let Some(inode) = inode else { continue };
        let owner = match &kept.scope {
            Scope::Group(name) => Owner::Some(format!("group {name}")),
            _ => Owner::Pod,
        };
        // One line has one band in a box: of several groups that nobody is in, the first.
        if column.cells.iter().all(|(kind, _)| *kind != kept.kind) {
            let title = format!("{} namespace {inode}, {}", kept.kind, kept.scope);
            let space = scene.space(kept.kind, owner, title);
            column.cells.push((
                kept.kind,
                Cell {
                    space,
                    by: None,
                    wrong: false,
                },
            ));
        }
    }
    if !column.cells.is_empty() {
        scene.columns.push(column);
    }
}

fn drawn(link: &Link, report: &Report, scene: &Scene) -> Option<model::Link> {
    let joined = &link.carried.link;
    let mut from = columns(&joined.from, report, scene);
    let mut to = columns(&joined.to, report, scene);
    // Of all that are in a network it is the port of the one that has the link, if that is in it.
    let mut containers = report.containers.iter();
    let owner = containers.rposition(|container| container.name == link.carried.container);
    for end in [&mut from, &mut to] {
        if let Some(owner) = owner.filter(|owner| end.contains(owner)) {
            *end = vec![owner];
        }
    }
    if from.is_empty() || to.is_empty() {
        return None;
    }
    Some(model::Link {
        from: End {
            columns: from,
            port: port(joined, joined.port),
        },
        to: End {
            columns: to,
            port: port(joined, joined.to_port),
        },
        title: said(link),
    })
}

/// The columns of those who are in a network.
fn columns(network: &Network, report: &Report, scene: &Scene) -> Vec<usize> {
    let found = match network {
        Network::Container(name) => {
            let containers = report.containers.iter();
            // The last one of a name is the one that is there now.
            let mut named = containers
                .enumerate()
                .filter(|(_, container)| container.name == *name);
            return named
                .next_back()
                .map(|(index, _)| index)
                .into_iter()
                .collect();
        }
        Network::Pod => scene.in_network(&Owner::Pod),
        Network::Group(name) => scene.in_network(&Owner::Some(format!("group {name}"))),
    };
    if found.is_empty() {
        // A pause container that is alone in the pod's network.
        let containers = report.containers.iter();
        return containers
            .take(1)
            .filter(|one| one.is_sandbox)
            .map(|_| 0)
            .collect();
    }
    found
}

fn words(link: &Link) -> String {
    let joined = &link.carried.link;
    format!(
        "{}:{} → {}:{}",
        place(&joined.from),
        port(joined, joined.port),
        place(&joined.to),
        port(joined, joined.to_port)
    )
}

/// The link, and what it has carried.
fn said(link: &Link) -> String {
    let mut said = format!("{}, decided by {}", words(link), link.carried.by);
    if let Some(counts) = &link.counts {
        said.push_str(&format!(
            "; {} open, {} in all, {} refused, {} sent, {} received",
            counts.open,
            counts.total,
            counts.refused,
            bytes_text(counts.bytes_to),
            bytes_text(counts.bytes_from)
        ));
    }
    said
}

fn usages(report: &Report) -> Vec<Usage> {
    let pod = report.sandbox.cgroup.as_ref();
    let pod = pod.map(|cgroup| (short_path(&cgroup.path.display().to_string()), true, cgroup));
    let containers = report.containers.iter().filter_map(|container| {
        let cgroup = container.cgroup.as_ref()?;
        Some((short_name(&container.name), false, cgroup))
    });
    pod.into_iter()
        .chain(containers)
        .map(|(name, above, cgroup)| usage(name, above, cgroup))
        .collect()
}

fn usage(name: String, above: bool, cgroup: &Cgroup) -> Usage {
    let used = cgroup.memory_bytes.zip(cgroup.memory_limit_bytes);
    let used = used.map(|(used, limit)| {
        let thousandths = u128::from(used) * 1000 / u128::from(limit.max(1));
        u64::try_from(thousandths).unwrap_or(u64::MAX)
    });
    let of = |used: Option<String>, limit: Option<String>| match (used, limit) {
        (Some(used), Some(limit)) => format!("{used} of {limit}"),
        (Some(used), None) => used,
        (None, Some(limit)) => format!("at most {limit}"),
        (None, None) => String::new(),
    };
    let time = cgroup
        .cpu_usec
        .map(std::time::Duration::from_micros)
        .map(cpu_time);
    let processors = cgroup.cpu_limit.map(|limit| format!("{limit:.2}"));
    let processor_time = match (time, processors) {
        (Some(time), Some(limit)) => format!("{time}, {limit} at once"),
        (time, limit) => of(time, limit.map(|limit| format!("{limit} at once"))),
    };
    Usage {
        name,
        above,
        used,
        words: [
            of(
                cgroup.memory_bytes.map(bytes_text),
                cgroup.memory_limit_bytes.map(bytes_text),
            ),
            processor_time,
            of(
                cgroup.pids.map(|pids| pids.to_string()),
                cgroup.pids_limit.map(|limit| limit.to_string()),
            ),
        ],
    }
}
