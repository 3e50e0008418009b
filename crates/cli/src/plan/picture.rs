//! A plan as there is to be drawn: the pod as it is requested, and as it would be.
use husk_scope::links::{Direction, Peer, Protocol};
use husk_scope::{Kind, Scope};

use super::links::PlannedLink;
use super::report::{Part, Report};
use crate::picture::decided::{Decided, Deciders};
use crate::picture::model::{Cell, Column, End, Link, Owner, Picture, Scene, State};

/// The picture of a plan.
pub(super) fn picture(report: &Report) -> Picture {
    let mut deciders = Deciders::default();
    let mut before = scene(report, "requested", requested, &mut deciders);
    let mut after = scene(report, "planned", planned, &mut deciders);
    let sandboxes = [
        sandbox(report, &mut before, requested),
        sandbox(report, &mut after, planned),
    ];
    // Both scenes have the same boxes, so that what changes is seen where it is.
    let linked = links(report, &mut after, &mut deciders);
    if sandboxes.iter().any(|column| !column.cells.is_empty()) || linked.needs_sandbox {
        let [first, second] = sandboxes;
        before.columns.push(first);
        after.columns.push(second);
    }
    after.links = linked.links;
    let mut notes = linked.waiting;
    notes.extend(after.keep_links());
    let parts = std::iter::once(&report.sandbox).chain(&report.containers);
    let denied = parts.filter_map(|part| Some(format!("{}: {}", part.name, part.denied.as_ref()?)));
    Picture {
        title: format!("Pod {}", report.pod),
        facts: facts(report),
        warnings: denied.collect(),
        scenes: vec![before, after],
        cgroups: Vec::new(),
        deciders: deciders.done(),
        notes,
    }
}

fn facts(report: &Report) -> String {
    let policies = match report.plugins.as_slice() {
        [] => String::from("no policy is asked"),
        names => format!("policies asked: {}", names.join(", ")),
    };
    format!("namespace {}, {policies}", report.namespace)
}

/// What a part has of a kind; none where it is refused.
type Of = fn(&Part, Kind) -> Option<Scope>;

fn requested(part: &Part, kind: Kind) -> Option<Scope> {
    Some(part.requested[kind].clone())
}

fn planned(part: &Part, kind: Kind) -> Option<Scope> {
    Some(part.plan.as_ref()?.get(kind).scope.clone())
}

fn scene(report: &Report, heading: &str, of: Of, deciders: &mut Deciders) -> Scene {
    let mut scene = Scene {
        heading: heading.to_owned(),
        pod: report.pod.clone(),
        ..Scene::default()
    };
    let is_plan = heading == "planned";
    for part in &report.containers {
        let mut column = Column {
            name: part.name.clone(),
            state: State::Wanted,
            status: String::from("as requested"),
            title: format!("{}, {heading}", part.name),
            cells: Vec::new(),
        };
        for kind in Kind::ALL {
            let Some(owner) = owner(report, part, kind, of) else {
                continue;
            };
            let by = part.plan.as_ref().filter(|_| is_plan).and_then(|plan| {
                let planned = plan.get(kind);
                let decided = Decided {
                    kind,
                    container: &part.name,
                    requested: &planned.requested,
                    planned: &planned.scope,
                };
                deciders.scopes(&planned.by, &decided)
            });
            let space = space(&mut scene, part, kind, owner);
            let wrong = false;
            column.cells.push((kind, Cell { space, by, wrong }));
        }
        if is_plan {
            judge(part, &mut column);
        } else {
            column.status = String::from("requested");
        }
        scene.columns.push(column);
    }
    scene
}

/// Whether it would be, and whether otherwise than requested.
fn judge(part: &Part, column: &mut Column) {
    match (&part.denied, &part.plan) {
        (Some(denied), _) => {
            column.state = State::Refused;
            column.status = format!("refused: {denied}");
            column.title = format!("{} is refused: {denied}", part.name);
        }
        (None, Some(plan)) => {
            column.state = State::Running;
            if plan.iter().any(|(_, planned)| planned.is_changed()) {
                column.status = String::from("changed");
            }
        }
        (None, None) => column.state = State::Gone,
    }
}

/// The number of a namespace in a scene.
fn space(scene: &mut Scene, part: &Part, kind: Kind, owner: Owner) -> usize {
    let whose = match &owner {
        Owner::Node => String::from("the node's"),
        Owner::Pod => String::from("the pod's"),
        // Each container has another one.
        Owner::Own => format!("{}'s own", part.name),
        Owner::Some(name) => name.clone(),
    };
    scene.space(kind, owner, format!("{kind} namespace: {whose}"))
}

/// Whose it is; a target's is whose the target's is.
fn owner(report: &Report, part: &Part, kind: Kind, of: Of) -> Option<Owner> {
    let (at, scope) = resolved(report, part, kind, of)?;
    Some(match scope {
        Scope::Node => Owner::Node,
        Scope::Pod => Owner::Pod,
        Scope::Group(name) => Owner::Some(format!("group {name}")),
        Scope::Target(name) => Owner::Some(format!("of {name}")),
        Scope::Container => {
            let others = report
                .containers
                .iter()
                .filter(|other| other.name != part.name);
            let mut others = others.filter_map(|other| resolved(report, other, kind, of));
            if others.any(|(other, scope)| other == at && scope == Scope::Container) {
                Owner::Some(format!("of {at}"))
            } else {
                Owner::Own
            }
        }
    })
}

/// Whose scope it comes to when targets are followed: the name of a container, and its scope.
fn resolved<'a>(
    report: &'a Report,
    part: &'a Part,
    kind: Kind,
    of: Of,
) -> Option<(&'a str, Scope)> {
    let mut at = part;
    // A target that leads in a circle ends somewhere in it.
    for _ in 0..=report.containers.len() {
        let scope = of(at, kind)?;
        let Scope::Target(name) = &scope else {
            return Some((&at.name, scope));
        };
        let mut containers = report.containers.iter();
        match containers.find(|other| other.name == *name) {
            Some(target) => at = target,
            None => return Some((&at.name, scope)),
        }
    }
    Some((&at.name, of(at, kind)?))
}

/// The pod's namespaces that no container is in.
fn sandbox(report: &Report, scene: &mut Scene, of: Of) -> Column {
    let mut column = Column::sandbox();
    for kind in Kind::ALL {
        let is_pod =
            |space: &crate::picture::model::Space| space.kind == kind && space.owner == Owner::Pod;
        let used = scene.spaces.iter().any(is_pod);
        if of(&report.sandbox, kind) == Some(Scope::Pod) && !used {
            let title = format!("{kind} namespace: the pod's");
            let space = scene.space(kind, Owner::Pod, title);
            let (by, wrong) = (None, false);
            column.cells.push((kind, Cell { space, by, wrong }));
        }
    }
    column
}

/// The links of a plan.
#[derive(Default)]
struct Linked {
    links: Vec<Link>,
    /// Those that would reach nobody, in words.
    waiting: Vec<String>,
    /// An end is the pod's network, in which no container is.
    needs_sandbox: bool,
}

fn links(report: &Report, scene: &mut Scene, deciders: &mut Deciders) -> Linked {
    let mut linked = Linked::default();
    for (index, part) in report.containers.iter().enumerate() {
        for PlannedLink { link, waits } in &part.links {
            let (own, peer) = (
                (part.name.as_str(), link.local),
                (name(&link.peer), link.port),
            );
            let (from, to) = match link.direction {
                Direction::To => (own, peer),
                Direction::From => (peer, own),
            };
            let written = |(_, port): (&str, u16)| port_of(link, port);
            let words = format!("{}:{} → {}:{}", from.0, written(from), to.0, written(to));
            deciders.links(&link.by, words.clone());
            if let Some(waits) = waits {
                linked.waiting.push(format!("not drawn: {words}: {waits}"));
                continue;
            }
            let mut end = |end: (&str, u16), peer: Option<&Peer>| End {
                columns: peer
                    .map_or_else(|| vec![index], |peer| linked.columns(report, scene, peer)),
                port: written(end),
            };
            let (from, to) = match link.direction {
                Direction::To => (end(from, None), end(to, Some(&link.peer))),
                Direction::From => (end(from, Some(&link.peer)), end(to, None)),
            };
            linked.links.push(Link {
                from,
                to,
                title: format!("{words}, decided by {}", link.by),
            });
        }
    }
    linked
}

impl Linked {
    /// The columns in the network of a peer; the sandbox's, which is to come, for a pod's without any.
    fn columns(&mut self, report: &Report, scene: &Scene, peer: &Peer) -> Vec<usize> {
        let columns = match peer {
            Peer::Pod => scene.in_network(&Owner::Pod),
            Peer::Container(name) => {
                let mut named = report.containers.iter();
                let at = named.position(|other| other.name == *name);
                return at.into_iter().collect();
            }
        };
        if columns.is_empty() {
            self.needs_sandbox = true;
            return vec![scene.columns.len()];
        }
        columns
    }
}

fn name(peer: &Peer) -> &str {
    match peer {
        Peer::Pod => "pod",
        Peer::Container(name) => name,
    }
}

/// A port as it is written: TCP's by its number alone.
fn port_of(link: &husk_scope::links::Link, port: u16) -> String {
    match link.protocol {
        Protocol::Tcp => port.to_string(),
        Protocol::Udp => format!("{port}/udp"),
    }
}

#[cfg(test)]
mod tests {
    use husk_scope::{Ceiling, Plan, Scopes};

    use super::*;

    fn part(name: &str, ipc: Scope) -> Part {
        let mut scopes = Scopes::all(&Scope::Container);
        scopes[Kind::Ipc] = ipc;
        let mut part = Part::new(name, scopes.clone());
        part.plan = Some(Plan::new(&scopes, &[], &Ceiling::default()).unwrap());
        part
    }

    fn report(containers: Vec<Part>) -> Report {
        Report {
            pod: "shop".into(),
            namespace: "default".into(),
            denied: false,
            plugins: Vec::new(),
            sandbox: part("sandbox", Scope::Container),
            containers,
        }
    }

    fn owners(report: &Report) -> Vec<Owner> {
        let picture = picture(report);
        let scene = &picture.scenes[1];
        let cells = scene.columns.iter().flat_map(|column| &column.cells);
        let of_ipc = cells.filter(|(kind, _)| *kind == Kind::Ipc);
        of_ipc
            .map(|(_, cell)| scene.spaces[cell.space].owner.clone())
            .collect()
    }

    #[test]
    fn a_target_s_namespace_is_one_band_with_its_owner() {
        let of = |name: &str| Owner::Some(format!("of {name}"));
        let target = |name: &str| Scope::Target(name.into());
        let report = report(vec![
            part("a", Scope::Container),
            part("b", target("a")),
            part("c", target("b")),
            part("d", Scope::Container),
            part("e", Scope::Node),
            part("f", target("e")),
        ]);
        let all = [
            of("a"),
            of("a"),
            of("a"),
            Owner::Own,
            Owner::Node,
            Owner::Node,
        ];
        assert_eq!(owners(&report), all);
    }

    #[test]
    fn targets_that_lead_nowhere_or_in_a_circle_end() {
        let target = |name: &str| Scope::Target(name.into());
        let report = report(vec![
            part("a", target("b")),
            part("b", target("a")),
            part("c", target("nobody")),
        ]);
        assert_eq!(owners(&report).len(), 3);
    }
}
