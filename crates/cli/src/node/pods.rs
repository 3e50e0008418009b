//! What the records of this node's pods come to. Nothing is asked of a shim, which could keep the answer waiting.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use husk_node::process;
use husk_scope::record::{Pod, Process, Status};

use crate::inspect::cgroups::{Hierarchies, Paths, common_parent};

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// Pods by what becomes of them.
    pub(super) states: BTreeMap<&'static str, u64>,
    pub(super) containers: Vec<Status>,
    /// Bytes by what husk runs for pods.
    pub(super) memory: BTreeMap<&'static str, u64>,
    pub(super) links: usize,
    /// Since it was looked last.
    pub(super) restarts: u64,
    pub(super) oom_kills: u64,
}

/// What must be known of before to see what is new.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The process that each container had last, while its pod is on record.
    inits: BTreeMap<PodId, BTreeMap<String, Process>>,
    /// Where each pod was last, and how many were killed there.
    killed: BTreeMap<(PodId, Paths), u64>,
    /// What was there before is not counted.
    begun: bool,
}

/// A containerd namespace and a sandbox.
type PodId = (String, String);

impl Watch {
    pub(super) fn look(&mut self, pods: &[Pod], cgroups: &Hierarchies) -> Pods {
        let mut found = Pods {
            states: BTreeMap::from([("running", 0), ("ending", 0), ("lost", 0)]),
            memory: BTreeMap::from([("shim", 0), ("zygote", 0), ("relay", 0)]),
            ..Pods::default()
        };
        let mut there = BTreeSet::new();
        for pod in pods {
            let id = (pod.namespace.clone(), pod.id.clone());
            *found.states.entry(state(pod)).or_default() += 1;
            found
                .containers
                .extend(pod.containers.iter().map(|it| it.status));
            found.links += pod.relays.iter().map(|it| it.links.len()).sum::<usize>();
            let relays = pod.relays.iter().map(|it| ("relay", it.process));
            let own = [("shim", pod.shim), ("zygote", pod.zygote)];
            for (name, process) in own.into_iter().chain(relays) {
                *found.memory.entry(name).or_default() += process.map_or(0, private);
            }
            found.restarts += self.restarts(&id, pod);
            self.notice(&id, pod, cgroups);
            there.insert(id);
        }
        self.inits.retain(|id, _| there.contains(id));
        self.killed.retain(|(id, _), _| there.contains(id));
        found.oom_kills = self.oom_kills(cgroups);
        self.begun = true;
        found
    }

    fn restarts(&mut self, id: &PodId, pod: &Pod) -> u64 {
        let inits = self.inits.entry(id.clone()).or_default();
        let now = pod
            .containers
            .iter()
            .filter_map(|it| Some((&it.name, it.init?)));
        let again = now.filter(|(name, init)| {
            let before = inits.insert((*name).clone(), *init);
            before.is_some_and(|before| before != *init)
        });
        u64::try_from(again.count()).unwrap_or(u64::MAX)
    }

    /// Notices where a pod is: its cgroup is there for longer than those of its containers.
    fn notice(&mut self, id: &PodId, pod: &Pod, cgroups: &Hierarchies) {
        let all: Vec<_> = pod.containers.iter().map(|it| &it.cgroups).collect();
        let is_v1 = |paths: &Paths| {
            let mut names = paths.keys().flat_map(|it| it.split(','));
            names.any(|it| it == "memory")
        };
        // A cgroup of v1 does not count what happens below it; and outside Kubernetes what is above a
        // container may be others' too.
        let places: Vec<Paths> = if pod.uid.is_empty() || all.iter().any(|it| is_v1(it)) {
            all.into_iter().cloned().collect()
        } else {
            vec![common_parent(&all)]
        };
        for place in places.into_iter().filter(|it| !it.is_empty()) {
            let begun = self.begun;
            self.killed
                .entry((id.clone(), place))
                .or_insert_with_key(|(_, place)| {
                    let before = || cgroups.read(place)?.oom_kills;
                    if begun { 0 } else { before().unwrap_or(0) }
                });
        }
    }

    fn oom_kills(&mut self, cgroups: &Hierarchies) -> u64 {
        let mut more = 0_u64;
        for ((_, place), before) in &mut self.killed {
            let now = cgroups.read(place).and_then(|it| it.oom_kills);
            if let Some(now) = now {
                more = more.saturating_add(now.saturating_sub(*before));
                *before = now;
            }
        }
        more
    }
}

fn state(pod: &Pod) -> &'static str {
    match pod.shim {
        _ if pod.ending => "ending",
        // It is being made.
        None => "running",
        Some(shim) if process::is_alive(shim) => "running",
        Some(_) => "lost",
    }
}

fn private(process: Process) -> u64 {
    let is_alive = process::is_alive(process);
    let memory = is_alive.then(|| process::memory(process.pid)).flatten();
    memory.map_or(0, |it| it.private_dirty)
}

/// The pods on record on a node, and where its cgroups are.
pub(super) fn of_node(state: &Path, root: &Path) -> (Vec<Pod>, Hierarchies) {
    (crate::shims::pods_in(state), Hierarchies::below(root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use husk_scope::record::Container;
    use husk_scope::{Assignment, Ceiling, Plan, Scope, Scopes};
    use std::fs;

    fn container(name: &str, init: i32) -> Container {
        let requested = Scopes::all(&Scope::Container);
        let none: [Assignment; 0] = [];
        Container {
            id: format!("{name}-{init}"),
            name: name.to_owned(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            dir: "/d".into(),
            status: Status::Running,
            init: Some(Process {
                pid: init,
                start_time: 1,
            }),
            execs: BTreeMap::new(),
            cgroups: BTreeMap::from([(String::new(), format!("/pod/{name}").into())]),
            cgroups_path: String::new(),
            plan: Plan::new(&requested, &none, &Ceiling::default()).unwrap(),
            ids: None,
            exit: None,
        }
    }

    fn pod(containers: Vec<Container>) -> Pod {
        Pod {
            id: "p".to_owned(),
            uid: "u".to_owned(),
            shim: process::this(),
            containers,
            ..Pod::default()
        }
    }

    #[test]
    fn restarts_and_kills_are_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let kills = |count: u64| {
            let at = dir.path().join("pod");
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("memory.events"), format!("oom_kill {count}\n")).unwrap();
            fs::write(at.join("memory.current"), "1\n").unwrap();
        };
        let cgroups = Hierarchies::v2(dir.path());
        let mut watch = Watch::default();
        kills(5);
        let found = watch.look(&[pod(vec![container("app", 10)])], &cgroups);
        // What was there before is nothing new.
        assert_eq!((found.restarts, found.oom_kills), (0, 0));
        assert_eq!(found.states["running"], 1);
        assert!(found.memory["shim"] > 0);

        // Killed, and gone from the record; its cgroup is gone, too, the pod's is not.
        kills(7);
        let found = watch.look(&[pod(vec![])], &cgroups);
        assert_eq!((found.restarts, found.oom_kills), (0, 2));
        let both = vec![container("app", 11), container("side", 12)];
        let found = watch.look(&[pod(both)], &cgroups);
        assert_eq!((found.restarts, found.oom_kills), (1, 0));

        // A pod that went leaves nothing.
        let _ = watch.look(&[], &cgroups);
        assert!(watch.inits.is_empty() && watch.killed.is_empty());
    }

    #[test]
    fn a_pod_whose_shim_is_gone_is_lost() {
        let mut gone = pod(vec![]);
        gone.shim = Some(Process {
            pid: 1,
            start_time: u64::MAX,
        });
        let found = Watch::default().look(&[gone], &Hierarchies::default());
        assert_eq!((found.states["lost"], found.states["running"]), (1, 0));
    }
}
