//! Plans and a report for tests.
use std::collections::BTreeMap;

use husk_scope::links::{Joined, Network, Protocol};
use husk_scope::record::{Carried, Exit, Status};
use husk_scope::{Assignment, Ceiling, Kind, Plan, Scope, Scopes};

use super::cgroups::Cgroup;
use super::links::{Counts, Link};
use super::report::{Container, Kept, Part, Process, Report, Sandbox, Use};

/// A plan with these scopes requested, CONTAINER for the rest.
pub(super) fn plan(requested: &[(Kind, Scope)]) -> Plan {
    assigned(requested, &[])
}

/// The same with assignments by the configuration.
pub(super) fn assigned(requested: &[(Kind, Scope)], assigned: &[(Kind, Scope)]) -> Plan {
    let mut scopes = Scopes::all(&Scope::Container);
    for (kind, scope) in requested {
        scopes[*kind] = scope.clone();
    }
    let assignments: Vec<_> = assigned
        .iter()
        .map(|(kind, scope)| Assignment {
            kind: *kind,
            scope: scope.clone(),
            by: "configuration".into(),
        })
        .collect();
    Plan::new(&scopes, &assignments, &Ceiling::default()).unwrap()
}

fn usage(kind: Kind, actual: Scope, inode: u64, with: &[&str]) -> Use {
    Use {
        kind,
        requested: actual.clone(),
        planned: actual.clone(),
        by: "request".into(),
        actual: Some(actual),
        inode: Some(inode),
        with: with.iter().map(|name| (*name).to_owned()).collect(),
        as_planned: true,
    }
}

fn cgroup(path: &str, memory: u64, limit: Option<u64>) -> Cgroup {
    Cgroup {
        path: path.into(),
        memory_bytes: Some(memory),
        memory_limit_bytes: limit,
        oom_kills: Some(0),
        cpu_usec: Some(memory / 10),
        cpu_limit: limit.map(|_| 0.5),
        pids: Some(2),
        pids_limit: None,
    }
}

/// The pod that the documentation shows: an application and its sidecar, one of which the
/// configuration gave a host name of its own, and a third that has exited.
pub(super) fn report() -> Report {
    let container = |name: &str, other: &str, number: u64| {
        let own = |kind| {
            usage(
                kind,
                Scope::Container,
                4_026_532_300 + number * 10 + kind as u64,
                &[],
            )
        };
        let pod = |kind| usage(kind, Scope::Pod, 4_026_532_200 + kind as u64, &[other]);
        let node = |kind| usage(kind, Scope::Node, 4_026_531_830 + kind as u64, &[other]);
        Container {
            id: name.repeat(2),
            name: name.into(),
            is_sandbox: false,
            status: Status::Running,
            pid: Some(4000 + i32::try_from(number).unwrap() * 100),
            age_seconds: Some(185),
            exit: None,
            namespaces: vec![
                pod(Kind::Network),
                own(Kind::Pid),
                pod(Kind::Ipc),
                pod(Kind::Uts),
                node(Kind::User),
                own(Kind::Mount),
                own(Kind::Cgroup),
                node(Kind::Time),
            ],
            cgroup: Some(cgroup(
                &format!("/pods/p/{name}"),
                12_900_000 / number,
                Some(256 << 20),
            )),
            processes: vec![Process {
                pid: 4000 + i32::try_from(number).unwrap() * 100,
                inner_pid: Some(1),
                role: "init".into(),
                rss_bytes: Some(1 << 20),
                command: format!("/bin/{name} --listen 127.0.0.1:8080"),
            }],
        }
    };
    let app = container("app", "sidecar", 1);
    let mut sidecar = container("sidecar", "app", 2);
    sidecar.namespaces[3] = Use {
        requested: Scope::Pod,
        by: "configuration".into(),
        ..usage(Kind::Uts, Scope::Container, 4_026_532_777, &[])
    };
    sidecar.processes.push(Process {
        pid: 4299,
        inner_pid: Some(7),
        role: "exec probe".into(),
        rss_bytes: None,
        command: "sh -c \x1b[2Jhello".into(),
    });
    let mut done = container("migrate", "", 3);
    done.pid = None;
    done.age_seconds = None;
    done.status = Status::Stopped;
    done.exit = Some(Exit {
        code: 137,
        at_ms: 0,
    });
    done.processes.clear();
    done.cgroup = None;
    for usage in &mut done.namespaces {
        usage.actual = None;
        usage.inode = None;
        usage.with.clear();
    }
    let part = |role: &str, pid, rss: u64| Part {
        role: role.into(),
        pid,
        alive: true,
        rss_bytes: Some(rss),
        private_dirty_bytes: Some(rss / 4),
    };
    let kept = |kind: Kind, pinned| Kept {
        kind,
        scope: Scope::Pod,
        path: format!("/run/husk/k8s.io/0123456789abcdef/ns/{kind}").into(),
        inode: Some(4_026_532_200 + kind as u64),
        pinned,
        holder: None,
        shm: (kind == Kind::Ipc).then(|| "/run/husk/k8s.io/0123456789abcdef/shm".into()),
    };
    Report {
        id: "0123456789abcdef".into(),
        name: "web".into(),
        namespace: "k8s.io".into(),
        kubernetes_namespace: "default".into(),
        uid: "u-1".into(),
        sandbox_api: true,
        created_ms: 1_700_000_000_000,
        age_seconds: 190,
        warnings: vec![],
        node: BTreeMap::from([(Kind::User, 4_026_531_834)]),
        sandbox: Sandbox {
            namespaces: vec![
                kept(Kind::Network, false),
                kept(Kind::Ipc, true),
                kept(Kind::Uts, true),
            ],
            processes: vec![part("shim", 3900, 8 << 20), part("zygote", 3901, 2 << 20)],
            cgroup: Some(cgroup("/pods/p", 20_000_000, None)),
            mounts: vec![],
            socket: "/run/containerd/s/abc".into(),
        },
        containers: vec![app, sidecar, done],
        links: vec![
            link(
                Network::Container("sidecar".into()),
                3128,
                Network::Pod,
                8080,
            ),
            Link {
                counts: None,
                ..link(
                    Network::Pod,
                    9000,
                    Network::Container("sidecar".into()),
                    9000,
                )
            },
        ],
    }
}

fn link(from: Network, port: u16, to: Network, to_port: u16) -> Link {
    Link {
        carried: Carried {
            link: Joined {
                from,
                port,
                exposed: false,
                protocol: Protocol::Tcp,
                to,
                to_port,
            },
            container: "sidecar".into(),
            by: "configuration".into(),
        },
        relay: Some(3902),
        counts: Some(Counts {
            open: 2,
            total: 70,
            refused: 1,
            bytes_to: 5 << 20,
            bytes_from: 20,
        }),
    }
}
