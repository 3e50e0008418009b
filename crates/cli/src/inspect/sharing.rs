//! Whose namespaces they really are, told from inodes, and whether that is what was planned.
use std::collections::BTreeMap;

use husk_scope::{Kind, Plan, Scope};

/// The namespaces of something, by kind; a kind the kernel does not have is missing.
pub(super) type Inodes = BTreeMap<Kind, u64>;

/// A container as far as namespaces go.
pub(super) struct Member<'a> {
    /// Its name in the pod.
    pub(super) name: &'a str,
    /// Whether it is the sandbox: others join its namespaces as POD.
    pub(super) is_sandbox: bool,
    /// What was planned.
    pub(super) plan: &'a Plan,
    /// Its init's namespaces; empty when its init is gone.
    pub(super) inodes: Inodes,
}

/// The namespaces of a pod and of what surrounds it.
#[derive(Default)]
pub(super) struct Namespaces<'a> {
    /// The node's.
    pub(super) node: Inodes,
    /// Those kept for the pod: kind, POD or GROUP, and inode.
    pub(super) kept: Vec<(Kind, Scope, u64)>,
    /// Its containers'.
    pub(super) members: Vec<Member<'a>>,
}

/// Whose a namespace really is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Actual {
    /// The inode.
    pub(super) inode: u64,
    /// Seen from the container that uses it.
    pub(super) scope: Scope,
    /// The names of the other containers that use it.
    pub(super) with: Vec<String>,
}

impl<'a> Namespaces<'a> {
    /// Whose this member's namespace of this kind is; `None` when it has none or is gone.
    pub(super) fn actual(&self, member: &Member<'a>, kind: Kind) -> Option<Actual> {
        let inode = *member.inodes.get(&kind)?;
        let with: Vec<_> = self.others(member, kind, inode).collect();
        let scope = if self.node.get(&kind) == Some(&inode) {
            Scope::Node
        } else if let Some((.., scope, _)) = self
            .kept
            .iter()
            .find(|kept| (kept.0, kept.2) == (kind, inode))
        {
            scope.clone()
        } else if with.is_empty() {
            Scope::Container
        } else if member.is_sandbox || with.iter().any(|other| other.is_sandbox) {
            Scope::Pod
        } else {
            owner(member, &with, kind)
        };
        let with = with.iter().map(|other| other.name.to_owned()).collect();
        Some(Actual { inode, scope, with })
    }

    /// What is wrong with this member's namespace of this kind, if it is not as planned.
    pub(super) fn difference(&self, member: &Member<'a>, kind: Kind) -> Option<String> {
        let found = self.actual(member, kind)?;
        if self.as_planned(member, kind, &found) {
            return None;
        }
        let planned = member.plan.get(kind);
        let shared = match found.with.as_slice() {
            [] => String::new(),
            names => format!(", shared with {}", names.join(", ")),
        };
        Some(format!(
            "{}: the {kind} namespace was to be {} (by {}) but is {}{shared}",
            member.name, planned.scope, planned.by, found.scope,
        ))
    }

    fn as_planned(&self, member: &Member<'a>, kind: Kind, found: &Actual) -> bool {
        let planned = &member.plan.get(kind).scope;
        match planned {
            Scope::Node => found.scope == Scope::Node,
            Scope::Target(name) => found.with.contains(name),
            Scope::Container => {
                let own = member.is_sandbox || found.scope == Scope::Container;
                own && found.scope != Scope::Node
                    && self
                        .others(member, kind, found.inode)
                        .all(|other| joins(other, kind, member))
            }
            Scope::Pod | Scope::Group(_) => {
                let mut kept = self
                    .kept
                    .iter()
                    .filter(|kept| (kept.0, &kept.1) == (kind, planned));
                match kept.next() {
                    Some((.., inode)) => *inode == found.inode,
                    // Nothing to compare with: the sandbox is a container, or is gone.
                    None => {
                        found.scope != Scope::Node
                            && self.with_sandbox(member, kind, planned, found)
                    }
                }
            }
        }
    }

    /// Whether a POD-scoped namespace is that of the container which is the sandbox, if one is.
    fn with_sandbox(
        &self,
        member: &Member<'a>,
        kind: Kind,
        planned: &Scope,
        found: &Actual,
    ) -> bool {
        let sandbox = self.members.iter().find(|other| other.is_sandbox);
        let inode = sandbox.and_then(|sandbox| sandbox.inodes.get(&kind));
        *planned != Scope::Pod
            || member.is_sandbox
            || inode.is_none_or(|inode| *inode == found.inode)
    }

    fn others(
        &self,
        member: &Member<'a>,
        kind: Kind,
        inode: u64,
    ) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(move |other| {
            !std::ptr::eq(*other, member) && other.inodes.get(&kind) == Some(&inode)
        })
    }
}

/// Whether `other` planned to use the namespace that `member` brought.
fn joins(other: &Member<'_>, kind: Kind, member: &Member<'_>) -> bool {
    match &other.plan.get(kind).scope {
        Scope::Pod => member.is_sandbox,
        Scope::Target(name) => name == member.name,
        _ => false,
    }
}

/// Some container brought what several share: the one that planned one of its own, or the first.
fn owner(member: &Member<'_>, with: &[&Member<'_>], kind: Kind) -> Scope {
    let brought = |user: &&Member<'_>| user.plan.get(kind).scope == Scope::Container;
    if brought(&member) {
        return Scope::Container;
    }
    let owner = with
        .iter()
        .copied()
        .find(brought)
        .or_else(|| with.first().copied());
    owner.map_or(Scope::Container, |owner| {
        Scope::Target(owner.name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::plan;
    use super::*;

    fn member<'a>(name: &'a str, plan: &'a Plan, ipc: u64, pid: u64) -> Member<'a> {
        Member {
            name,
            is_sandbox: false,
            plan,
            inodes: Inodes::from([(Kind::Ipc, ipc), (Kind::Pid, pid)]),
        }
    }

    fn node() -> Inodes {
        Inodes::from([(Kind::Ipc, 1), (Kind::Pid, 2)])
    }

    fn seen(all: &Namespaces<'_>, index: usize, kind: Kind) -> String {
        let found = all.actual(&all.members[index], kind).unwrap();
        format!("{} with {}", found.scope, found.with.join(","))
    }

    fn differences(all: &Namespaces<'_>) -> Vec<String> {
        let pairs = all
            .members
            .iter()
            .flat_map(|member| Kind::ALL.map(|kind| (member, kind)));
        pairs
            .filter_map(|(member, kind)| all.difference(member, kind))
            .collect()
    }

    #[test]
    fn a_kept_namespace_is_the_pods() {
        let own_pid = plan(&[(Kind::Ipc, Scope::Pod)]);
        let all = Namespaces {
            node: node(),
            kept: vec![(Kind::Ipc, Scope::Pod, 10)],
            members: vec![member("a", &own_pid, 10, 21), member("b", &own_pid, 10, 22)],
        };
        assert_eq!(seen(&all, 0, Kind::Ipc), "POD with b");
        assert_eq!(seen(&all, 0, Kind::Pid), "CONTAINER with ");
        assert_eq!(differences(&all), [""; 0]);
    }

    #[test]
    fn a_sandbox_may_be_a_container() {
        let own = plan(&[]);
        let joined = plan(&[(Kind::Ipc, Scope::Pod)]);
        let mut pause = member("pause", &own, 10, 20);
        pause.is_sandbox = true;
        let all = Namespaces {
            node: node(),
            kept: vec![],
            members: vec![pause, member("a", &joined, 10, 21)],
        };
        assert_eq!(seen(&all, 0, Kind::Ipc), "POD with a");
        assert_eq!(seen(&all, 1, Kind::Ipc), "POD with pause");
        assert_eq!(differences(&all), [""; 0]);
    }

    #[test]
    fn a_target_names_whose_it_is() {
        let own = plan(&[]);
        let debug = plan(&[(Kind::Pid, Scope::Target("a".into()))]);
        let all = Namespaces {
            node: node(),
            kept: vec![],
            members: vec![member("debug", &debug, 12, 21), member("a", &own, 11, 21)],
        };
        assert_eq!(seen(&all, 0, Kind::Pid), "TARGET(a) with a");
        assert_eq!(seen(&all, 1, Kind::Pid), "CONTAINER with debug");
        assert_eq!(differences(&all), [""; 0]);
    }

    #[test]
    fn a_pod_in_the_nodes_network_is_as_planned() {
        let pod = plan(&[(Kind::Ipc, Scope::Pod), (Kind::Pid, Scope::Node)]);
        let all = Namespaces {
            node: node(),
            kept: vec![(Kind::Ipc, Scope::Pod, 1)],
            members: vec![member("a", &pod, 1, 2)],
        };
        assert_eq!(seen(&all, 0, Kind::Ipc), "NODE with ");
        assert_eq!(differences(&all), [""; 0]);
    }

    #[test]
    fn what_is_not_as_planned_is_said() {
        let own = plan(&[]);
        let pod = plan(&[(Kind::Ipc, Scope::Pod)]);
        let group = plan(&[(Kind::Ipc, Scope::Group("g".into()))]);
        let target = plan(&[(Kind::Ipc, Scope::Target("own".into()))]);
        let node_pid = plan(&[(Kind::Ipc, Scope::Node)]);
        let all = Namespaces {
            node: node(),
            kept: vec![
                (Kind::Ipc, Scope::Pod, 10),
                (Kind::Ipc, Scope::Group("g".into()), 11),
            ],
            members: vec![
                member("own", &own, 10, 2),
                member("pod", &pod, 11, 22),
                member("group", &group, 10, 23),
                member("target", &target, 12, 24),
                member("node", &node_pid, 13, 25),
            ],
        };
        assert_eq!(
            differences(&all),
            [
                "own: the pid namespace was to be CONTAINER (by request) but is NODE",
                "own: the ipc namespace was to be CONTAINER (by request) but is POD, shared with group",
                "pod: the ipc namespace was to be POD (by request) but is GROUP(g)",
                "group: the ipc namespace was to be GROUP(g) (by request) but is POD, shared with own",
                "target: the ipc namespace was to be TARGET(own) (by request) but is CONTAINER",
                "node: the ipc namespace was to be NODE (by request) but is CONTAINER",
            ]
        );
    }

    #[test]
    fn two_containers_that_both_wanted_their_own_are_told_of() {
        let own = plan(&[]);
        let all = Namespaces {
            node: node(),
            kept: vec![],
            members: vec![member("a", &own, 11, 21), member("b", &own, 11, 22)],
        };
        let texts = differences(&all);
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(
            texts[0].ends_with("but is CONTAINER, shared with b"),
            "{texts:?}"
        );
    }
}
