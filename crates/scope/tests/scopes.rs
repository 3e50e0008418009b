//! The table of scopes, kind by kind, on specs as containerd sends them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod pod;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use husk_scope::{
    Assignment, Ceiling, EditError, Kind, Offset, Offsets, Plan, PlanError, RequestError, Scope,
    Scopes, Width, requested,
};
use oci_spec::runtime::{Linux, LinuxTimeOffset, Mount, Process, Spec};
use pod::{GROUP, NODE, OTHER, POD_SHM, Pod, SANDBOX, assign, entry, mount, path_of};

/// A container of a pod as CRI sends it: network, ipc and uts are the sandbox's, by this path.
fn cri_container(sandbox: &str) -> Spec {
    spec(
        &[
            (Kind::Pid, None),
            (Kind::Ipc, Some(sandbox)),
            (Kind::Uts, Some(sandbox)),
            (Kind::Mount, None),
            (Kind::Network, Some(sandbox)),
            (Kind::Cgroup, None),
        ],
        vec![
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "mode=755"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "rw"]),
            mount("/dev/shm", "bind", POD_SHM, &["rbind", "rprivate", "rw"]),
        ],
    )
}

/// A plain container, as `ctr run` sends it.
fn ctr_container() -> Spec {
    let kinds = [Kind::Pid, Kind::Ipc, Kind::Uts, Kind::Mount, Kind::Network];
    let mut spec = spec(
        &kinds.map(|kind| (kind, None)),
        vec![
            mount("/dev", "tmpfs", "tmpfs", &[]),
            mount("/dev/shm", "tmpfs", "shm", &["size=65536k"]),
        ],
    );
    spec.set_hostname(Some("box".to_owned()));
    spec
}

fn spec(entries: &[(Kind, Option<&str>)], mounts: Vec<Mount>) -> Spec {
    let mut linux = Linux::default();
    linux.set_namespaces(Some(
        entries
            .iter()
            .map(|(kind, path)| entry(*kind, *path))
            .collect(),
    ));
    let mut process = Process::default();
    process.set_no_new_privileges(None);
    let mut spec = Spec::default();
    spec.set_linux(Some(linux))
        .set_mounts(Some(mounts))
        .set_process(Some(process))
        .set_hostname(None);
    spec
}

/// Everything its own, in the node's user namespace.
fn all_its_own() -> Scopes {
    let mut scopes = Scopes::all(&Scope::Container);
    scopes[Kind::User] = Scope::Node;
    scopes
}

fn plan_of(spec: &Spec, pod: &Pod, assignments: &[Assignment]) -> Plan {
    Plan::new(
        &requested(spec, pod).unwrap(),
        assignments,
        &Ceiling::default(),
    )
    .unwrap()
}

fn edit(mut spec: Spec, pod: &Pod, assignments: &[Assignment]) -> Result<Spec, EditError> {
    plan_of(&spec, pod, assignments).edit(&mut spec, pod)?;
    Ok(spec)
}

fn edited(spec: Spec, kind: Kind, scope: Scope) -> Spec {
    edit(spec, &Pod::default(), &[assign(kind, scope)]).unwrap()
}

fn refusal(spec: Spec, kind: Kind, scope: Scope) -> String {
    let error = edit(spec, &Pod::default(), &[assign(kind, scope)]);
    error.unwrap_err().to_string()
}

fn shm(spec: &Spec) -> Vec<(String, String)> {
    let at_shm = |mount: &&Mount| mount.destination().ends_with("dev/shm");
    let mounts = spec.mounts().iter().flatten().filter(at_shm);
    mounts
        .map(|mount| {
            let source = mount.source().as_ref().unwrap().display().to_string();
            (mount.typ().clone().unwrap(), source)
        })
        .collect()
}

fn bind(source: &str) -> Vec<(String, String)> {
    vec![("bind".to_owned(), source.to_owned())]
}

fn own_shm() -> Vec<(String, String)> {
    vec![("tmpfs".to_owned(), "shm".to_owned())]
}

fn target() -> Scope {
    Scope::Target("other".to_owned())
}

fn group() -> Scope {
    Scope::Group("group".to_owned())
}

fn with_sysctl(mut spec: Spec, name: &str) -> Spec {
    let linux = spec.linux_mut().as_mut().unwrap();
    linux.set_sysctl(Some(HashMap::from([(name.to_owned(), "1".to_owned())])));
    spec
}

#[test]
fn requests_are_read_from_the_spec() {
    let scopes = requested(&cri_container(SANDBOX), &Pod::default()).unwrap();
    assert_eq!(scopes[Kind::Network], Scope::Pod);
    assert_eq!(scopes[Kind::Pid], Scope::Container);
    assert_eq!(scopes[Kind::Time], Scope::Node);
    let sent = spec(
        &[(Kind::Pid, Some(OTHER)), (Kind::Network, Some(""))],
        vec![],
    );
    let scopes = requested(&sent, &Pod::default()).unwrap();
    assert_eq!(scopes[Kind::Pid], target());
    assert_eq!(scopes[Kind::Network], Scope::Container);
}

#[test]
fn a_sandbox_in_the_nodes_network_makes_its_containers_node() {
    let pod = Pod {
        sandbox_in_node: vec![Kind::Network],
        ..Pod::default()
    };
    let sent = cri_container("/proc/0/ns/net");
    let scopes = requested(&sent, &pod).unwrap();
    assert_eq!(scopes[Kind::Network], Scope::Node);
    assert_eq!(scopes[Kind::Ipc], Scope::Pod);
    assert_eq!(
        path_of(&edit(sent, &pod, &[]).unwrap(), Kind::Network),
        None
    );
}

#[test]
fn a_spec_that_names_no_namespace_of_the_pod_is_refused() {
    let error = |entries: &[(Kind, Option<&str>)]| {
        requested(&spec(entries, vec![]), &Pod::default()).unwrap_err()
    };
    let unknown = error(&[(Kind::Ipc, Some("/proc/7/ns/ipc"))]);
    assert_eq!(
        unknown.to_string(),
        "the ipc namespace /proc/7/ns/ipc belongs to no container of this pod; it may be gone \
         with the process that held it"
    );
    let twice = error(&[(Kind::Pid, None), (Kind::Pid, Some(SANDBOX))]);
    assert!(matches!(twice, RequestError::Twice { kind: Kind::Pid }));
    let mut spec = Spec::default();
    spec.set_linux(None);
    let error = requested(&spec, &Pod::default()).unwrap_err();
    assert!(matches!(error, RequestError::NotLinux));
}

/// The table in the documentation of `plan`, as letters: Container, Pod, Node, Target, Group.
#[test]
fn the_table_of_scopes() {
    for (kind, allowed) in [
        (Kind::Network, "CPNTG"),
        (Kind::Pid, "CPNTG"),
        (Kind::Ipc, "CPNTG"),
        (Kind::Uts, "CPNTG"),
        (Kind::User, "CNG"),
        (Kind::Mount, "C"),
        (Kind::Cgroup, "CPNT"),
        (Kind::Time, "CPNTG"),
    ] {
        for (letter, scope) in [
            ('C', Scope::Container),
            ('P', Scope::Pod),
            ('N', Scope::Node),
            ('T', target()),
            ('G', group()),
        ] {
            let requested = requested(&cri_container(SANDBOX), &Pod::default()).unwrap();
            let plan = Plan::new(
                &requested,
                &[assign(kind, scope.clone())],
                &Ceiling::default(),
            );
            assert_eq!(plan.is_ok(), allowed.contains(letter), "{kind} {scope}");
            if let Err(error) = plan {
                let message = error.to_string();
                for part in [kind.name(), &scope.to_string(), "policy p"] {
                    assert!(message.contains(part), "{message}");
                }
                assert!(message.contains(&requested[kind].to_string()), "{message}");
            }
        }
    }
}

#[test]
fn a_container_without_a_mount_namespace_is_refused_whoever_asked() {
    let mut requested = all_its_own();
    requested[Kind::Mount] = Scope::Node;
    let error = Plan::new(&requested, &[], &Ceiling::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "mount: containerd asked for NODE: a container has its own root filesystem and so its \
         own mount namespace; share a volume instead"
    );
}

#[test]
fn whose_the_pods_user_namespace_is_the_pod_says() {
    let requested = Scopes::all(&Scope::Container);
    let refusal = |scope| {
        let assigned = [assign(Kind::User, scope)];
        let error = Plan::new(&requested, &assigned, &Ceiling::default());
        error.unwrap_err().to_string()
    };
    assert!(refusal(Scope::Pod).contains("hostUsers"));
    assert!(refusal(group()).contains("has a user namespace already"));
    let same = [assign(Kind::User, Scope::Container)];
    assert!(Plan::new(&requested, &same, &Ceiling::default()).is_ok());
}

#[test]
fn a_user_namespace_of_ones_own_has_ids_and_maps_what_is_bound() {
    let mounts = vec![
        mount("/data", "bind", "/srv", &["rbind", "rw"]),
        mount("/dev/shm", "bind", POD_SHM, &["rbind", "rw"]),
        mount("/proc", "proc", "proc", &[]),
    ];
    let mut spec = spec(&[(Kind::Pid, None), (Kind::Mount, None)], mounts);
    for _ in 0..2 {
        let requested = requested(&spec, &Pod::default()).unwrap();
        let assigned = match requested[Kind::User] {
            Scope::Node => vec![assign(Kind::User, Scope::Container)],
            _ => Vec::new(),
        };
        let plan = Plan::new(&requested, &assigned, &Ceiling::default()).unwrap();
        plan.edit(&mut spec, &Pod::default()).unwrap();
    }
    assert_eq!(path_of(&spec, Kind::User), Some(None));
    let linux = spec.linux().as_ref().unwrap();
    let mapping = linux.uid_mappings().as_ref().unwrap()[0];
    assert_eq!(
        (mapping.container_id(), mapping.host_id(), mapping.size()),
        (0, 100_000, 65_536)
    );
    assert_eq!(linux.uid_mappings(), linux.gid_mappings());
    let options = |at: &str| {
        let mut mounts = spec.mounts().iter().flatten();
        let mount = mounts.find(|mount| mount.destination() == Path::new(at));
        mount
            .unwrap()
            .options()
            .clone()
            .unwrap_or_default()
            .join(",")
    };
    assert_eq!(options("/data"), "rbind,rw,idmap");
    assert_eq!(options("/dev/shm"), "rbind,rw");
    assert_eq!(options("/proc"), "");
}

#[test]
fn what_it_cannot_enter_from_a_user_namespace_is_refused() {
    let with = |requested: Scope, user: Scope, pid: Option<Scope>| {
        let mut scopes = all_its_own();
        scopes[Kind::Pid] = requested;
        let mut assigned = vec![assign(Kind::User, user)];
        assigned.extend(pid.map(|pid| assign(Kind::Pid, pid)));
        Plan::new(&scopes, &assigned, &Ceiling::default())
    };
    for pid in [Scope::Pod, Scope::Node, target()] {
        let error = with(pid, Scope::Container, None).unwrap_err().to_string();
        assert!(
            error.contains("pid") && error.contains("user namespace"),
            "{error}"
        );
    }
    let own = Scope::Container;
    assert!(with(own.clone(), Scope::Container, Some(group())).is_err());
    assert!(with(own.clone(), group(), Some(group())).is_ok());
    assert!(with(own.clone(), group(), None).is_ok());
}

#[test]
fn a_user_namespace_joins_no_namespace_it_does_not_own() {
    let mut requested = Scopes::all(&Scope::Container);
    requested[Kind::User] = Scope::Pod;
    for scope in [Scope::Pod, Scope::Node, target(), group()] {
        for kind in [Kind::Network, Kind::Pid, Kind::Ipc, Kind::Uts, Kind::Time] {
            let assigned = [assign(kind, scope.clone())];
            let error = Plan::new(&requested, &assigned, &Ceiling::default()).unwrap_err();
            assert!(matches!(error, PlanError::Impossible { .. }), "{error}");
        }
    }
    requested[Kind::Network] = Scope::Pod;
    for scope in [Scope::Pod, Scope::Container] {
        let assigned = [assign(Kind::Network, scope)];
        assert!(Plan::new(&requested, &assigned, &Ceiling::default()).is_ok());
    }
}

#[test]
fn a_scope_has_a_name_where_it_needs_one() {
    for scope in [Scope::Target(String::new()), Scope::Group(String::new())] {
        let requested = all_its_own();
        let plan = Plan::new(&requested, &[assign(Kind::Pid, scope)], &Ceiling::default());
        assert!(plan.unwrap_err().to_string().contains("has no name"));
    }
}

#[test]
fn two_that_disagree_are_both_named() {
    let requested = all_its_own();
    let by = |by: &str, scope| Assignment {
        by: by.to_owned(),
        ..assign(Kind::Ipc, scope)
    };
    let disagree = [by("policy a", Scope::Pod), by("policy b", Scope::Node)];
    assert_eq!(
        Plan::new(&requested, &disagree, &Ceiling::default())
            .unwrap_err()
            .to_string(),
        "ipc: policy a asked for POD and policy b for NODE; a namespace has one scope, so one of \
         the two must yield"
    );
    let agree = [by("policy a", Scope::Pod), by("policy b", Scope::Pod)];
    let plan = Plan::new(&requested, &agree, &Ceiling::default()).unwrap();
    assert_eq!(plan.get(Kind::Ipc).by, "policy a");
    assert_eq!(plan.get(Kind::Ipc).requested, Scope::Container);
}

#[test]
fn the_ceiling_bounds_assignments_and_where_asked_requests() {
    let mut requested = all_its_own();
    requested[Kind::Network] = Scope::Node;
    let mut ceiling = Ceiling::default();
    ceiling.set(Kind::Network, Width::Group);
    for (scope, allowed) in [
        (Scope::Container, true),
        (group(), true),
        (target(), false),
        (Scope::Pod, false),
        (Scope::Node, false),
    ] {
        let plan = Plan::new(
            &requested,
            &[assign(Kind::Network, scope.clone())],
            &ceiling,
        );
        assert_eq!(plan.is_ok(), allowed, "{scope}");
    }
    assert!(Plan::new(&requested, &[], &ceiling).is_ok());
    ceiling.bind_requests(Kind::Network);
    let error = Plan::new(&requested, &[], &ceiling).unwrap_err();
    assert_eq!(
        error.to_string(),
        "network: containerd asked for NODE: above the ceiling GROUP of the handler's \
         configuration"
    );
    // What an assignment narrows is no longer requested.
    let narrowed = [assign(Kind::Network, Scope::Container)];
    assert!(Plan::new(&requested, &narrowed, &ceiling).is_ok());
}

#[test]
fn a_spec_as_requested_stays_as_containerd_sent_it() {
    for sent in [cri_container(SANDBOX), ctr_container()] {
        for shm in [true, false] {
            let pod = Pod {
                shm,
                ..Pod::default()
            };
            assert_eq!(edit(sent.clone(), &pod, &[]).unwrap(), sent);
        }
    }
}

#[test]
fn a_sandbox_without_a_process_is_found_by_its_pins() {
    let spec = edit(cri_container("/proc/0/ns/ipc"), &Pod::default(), &[]).unwrap();
    for kind in [Kind::Network, Kind::Ipc, Kind::Uts] {
        assert_eq!(
            path_of(&spec, kind),
            Some(Some(SANDBOX.to_owned())),
            "{kind}"
        );
    }
    // Pid 10 is not pid 0.
    let mut requested = all_its_own();
    requested[Kind::Network] = Scope::Pod;
    let plan = Plan::new(&requested, &[], &Ceiling::default()).unwrap();
    let path = "/proc/10/ns/net";
    let mut spec = cri_container(path);
    plan.edit(&mut spec, &Pod::default()).unwrap();
    assert_eq!(path_of(&spec, Kind::Network), Some(Some(path.to_owned())));
}

#[test]
fn namespaces_are_made_joined_or_left_out() {
    for kind in [Kind::Network, Kind::Pid, Kind::Ipc, Kind::Uts, Kind::Time] {
        for (scope, path) in [
            (Scope::Container, Some(None)),
            (Scope::Pod, Some(Some(SANDBOX.to_owned()))),
            (Scope::Node, None),
            (target(), Some(Some(OTHER.to_owned()))),
            (group(), Some(Some(GROUP.to_owned()))),
        ] {
            for sent in [cri_container(SANDBOX), ctr_container()] {
                let spec = edited(sent, kind, scope.clone());
                assert_eq!(path_of(&spec, kind), path, "{kind} {scope}");
            }
        }
    }
}

#[test]
fn a_namespace_that_is_not_there_is_named() {
    assert_eq!(
        refusal(ctr_container(), Kind::Pid, Scope::Target("gone".into())),
        "pid: policy p asked for TARGET(gone), but there is no such namespace in the pod; is the \
         container it belongs to running?"
    );
}

#[test]
fn a_target_that_uses_the_nodes_namespace_is_no_way_around_the_ceiling() {
    let pod = Pod {
        other_in_node: true,
        sandbox_in_node: vec![Kind::Network],
        ..Pod::default()
    };
    for (kind, scope) in [(Kind::Pid, target()), (Kind::Network, Scope::Pod)] {
        let error = edit(ctr_container(), &pod, &[assign(kind, scope.clone())]);
        let expected = EditError::NodeInDisguise {
            kind,
            scope,
            by: "policy p".to_owned(),
            path: PathBuf::from(NODE),
        };
        assert_eq!(error.unwrap_err(), expected);
    }
}

#[test]
fn sysctls_of_the_node_are_refused() {
    assert_eq!(
        refusal(
            with_sysctl(ctr_container(), "net/ipv4/ip_forward"),
            Kind::Network,
            Scope::Node
        ),
        "network: policy p asked for NODE, so the sysctl net.ipv4.ip_forward would change the \
         node; drop the sysctl, or give the container a network namespace"
    );
    for name in [
        "kernel.shmmax",
        "kernel.msgmnb",
        "kernel.sem",
        "fs.mqueue.msg_max",
    ] {
        let message = refusal(with_sysctl(ctr_container(), name), Kind::Ipc, Scope::Node);
        assert!(
            message.starts_with("ipc: policy p asked for NODE, so"),
            "{message}"
        );
    }
}

#[test]
fn sysctls_of_a_shared_namespace_are_the_senders_business() {
    for scope in [Scope::Container, Scope::Pod, target(), group()] {
        let sent = with_sysctl(ctr_container(), "net.ipv4.ip_forward");
        let spec = edited(sent.clone(), Kind::Network, scope);
        let sysctls = |spec: &Spec| spec.linux().as_ref().unwrap().sysctl().clone();
        assert_eq!(sysctls(&spec), sysctls(&sent));
    }
}

#[test]
fn a_shared_uts_namespace_keeps_its_names() {
    for scope in [Scope::Pod, Scope::Node, target(), group()] {
        let mut sent = ctr_container();
        sent.set_domainname(Some("example".to_owned()));
        let spec = edited(sent, Kind::Uts, scope.clone());
        assert_eq!(
            (spec.hostname(), spec.domainname()),
            (&None, &None),
            "{scope}"
        );
    }
}

#[test]
fn an_own_uts_namespace_starts_with_the_pods_host_name() {
    let spec = edited(cri_container(SANDBOX), Kind::Uts, Scope::Container);
    assert_eq!(spec.hostname().as_deref(), Some("pod-host"));
    let spec = edited(ctr_container(), Kind::Uts, Scope::Container);
    assert_eq!(spec.hostname().as_deref(), Some("box"));
}

#[test]
fn shared_memory_follows_the_ipc_scope() {
    for sent in [cri_container(SANDBOX), ctr_container()] {
        let shm_of = |scope| shm(&edited(sent.clone(), Kind::Ipc, scope));
        assert_eq!(shm_of(Scope::Container), own_shm());
        assert_eq!(shm_of(Scope::Pod), bind(POD_SHM));
        assert_eq!(shm_of(Scope::Node), bind("/dev/shm"));
        assert_eq!(shm_of(target()), bind("/run/husk/other-shm"));
        assert_eq!(shm_of(group()), bind("/run/husk/group-shm"));
    }
}

#[test]
fn shared_memory_is_mounted_where_nothing_was_sent() {
    let bare = |mounts| spec(&[(Kind::Mount, None)], mounts);
    let spec = edited(bare(vec![]), Kind::Ipc, Scope::Container);
    assert_eq!(shm(&spec), own_shm());
    let dev = mount("/dev", "tmpfs", "tmpfs", &[]);
    let inside = mount("/dev/shm/cache", "bind", "/srv", &["bind"]);
    let spec = edited(bare(vec![dev, inside]), Kind::Ipc, Scope::Pod);
    let order: Vec<String> = spec
        .mounts()
        .iter()
        .flatten()
        .map(|mount| mount.destination().display().to_string())
        .collect();
    assert_eq!(order, ["/dev", "/dev/shm", "/dev/shm/cache"]);
}

#[test]
fn a_sandbox_made_by_the_shim_brings_its_own_shared_memory() {
    let mut sent = cri_container("/proc/0/ns/ipc");
    let mounts = sent.mounts_mut().as_mut().unwrap();
    mounts.pop();
    mounts.push(mount("/dev/shm", "tmpfs", "shm", &["size=65536k"]));
    let spec = edit(sent, &Pod::default(), &[]).unwrap();
    assert_eq!(shm(&spec), bind(POD_SHM));
}

#[test]
fn a_volume_at_dev_shm_is_the_authors() {
    let mut sent = cri_container(SANDBOX);
    let mounts = sent.mounts_mut().as_mut().unwrap();
    mounts.pop();
    mounts.push(mount(
        "/dev/shm",
        "bind",
        "/var/lib/kubelet/volume",
        &["rbind"],
    ));
    for scope in [Scope::Container, Scope::Pod, Scope::Node, group()] {
        let spec = edited(sent.clone(), Kind::Ipc, scope);
        assert_eq!(shm(&spec), bind("/var/lib/kubelet/volume"));
    }
}

#[test]
fn shared_memory_that_fits_the_scope_keeps_its_options() {
    let mut sent = cri_container(SANDBOX);
    let large = mount("/dev/shm", "tmpfs", "shm", &["size=1g"]);
    *sent.mounts_mut().as_mut().unwrap().last_mut().unwrap() = large.clone();
    let spec = edited(sent, Kind::Ipc, Scope::Container);
    assert_eq!(spec.mounts().as_ref().unwrap().last(), Some(&large));
}

#[test]
fn an_unknown_bind_mount_at_dev_shm_yields_to_isolation() {
    let pod = Pod {
        shm: false,
        ..Pod::default()
    };
    let private = [assign(Kind::Ipc, Scope::Container)];
    let spec = edit(cri_container(SANDBOX), &pod, &private).unwrap();
    assert_eq!(shm(&spec), own_shm());
    let shared = [assign(Kind::Ipc, Scope::Pod)];
    let error = edit(ctr_container(), &pod, &shared).unwrap_err();
    assert!(matches!(error, EditError::NoShm { .. }), "{error}");
}

#[test]
fn the_cgroup_filesystem_is_read_only_in_an_assigned_namespace() {
    let options = |spec: &Spec| {
        let mounts = spec.mounts().as_ref().unwrap();
        let cgroup = mounts.iter().find(|m| m.typ().as_deref() == Some("cgroup"));
        cgroup.unwrap().options().clone().unwrap()
    };
    for scope in [Scope::Pod, Scope::Node, target()] {
        let spec = edited(cri_container(SANDBOX), Kind::Cgroup, scope);
        assert_eq!(options(&spec), ["nosuid", "ro"]);
    }
    let spec = edited(cri_container(SANDBOX), Kind::Cgroup, Scope::Container);
    assert_eq!(options(&spec), ["nosuid", "rw"]);
}

#[test]
fn clocks_are_offset_in_a_new_time_namespace_only() {
    let offsets = Offsets {
        monotonic: Some(Offset {
            secs: -1,
            nanosecs: 500_000_000,
        }),
        boottime: None,
    };
    let edit = |scope| {
        let mut spec = ctr_container();
        let pod = Pod::default();
        let plan = plan_of(&spec, &pod, &[assign(Kind::Time, scope)]).with_offsets(offsets);
        plan.edit(&mut spec, &pod).unwrap();
        spec.linux().as_ref().unwrap().time_offsets().clone()
    };
    let sent = edit(Scope::Container).unwrap();
    assert_eq!(sent.len(), 1);
    let monotonic = sent.get("monotonic").unwrap();
    assert_eq!(
        (monotonic.secs(), monotonic.nanosecs()),
        (Some(-1), Some(500_000_000))
    );
    for scope in [Scope::Pod, Scope::Node, target(), group()] {
        assert_eq!(edit(scope), None);
    }
}

#[test]
fn offsets_that_no_namespace_can_take_are_refused() {
    let mut sent = spec(&[(Kind::Time, None), (Kind::Mount, None)], vec![]);
    let offsets = HashMap::from([("boottime".to_owned(), LinuxTimeOffset::default())]);
    let linux = sent.linux_mut().as_mut().unwrap();
    linux.set_time_offsets(Some(offsets));
    for scope in [Scope::Pod, Scope::Node] {
        let message = refusal(sent.clone(), Kind::Time, scope.clone());
        assert!(
            message.starts_with(&format!("time: policy p asked for {scope}")),
            "{message}"
        );
    }
    assert_eq!(edit(sent.clone(), &Pod::default(), &[]).unwrap(), sent);
}

#[test]
fn no_new_privileges_is_said_or_absent() {
    for (sent, expected) in [(Some(false), None), (Some(true), Some(true)), (None, None)] {
        let mut spec = ctr_container();
        let process = spec.process_mut().as_mut().unwrap();
        process.set_no_new_privileges(sent);
        let spec = edit(spec, &Pod::default(), &[]).unwrap();
        assert_eq!(
            spec.process().as_ref().unwrap().no_new_privileges(),
            expected
        );
    }
}

#[test]
fn only_a_pid_namespace_of_its_own_may_be_killed_whole() {
    for (scope, owns) in [
        (Scope::Container, true),
        (Scope::Pod, false),
        (Scope::Node, false),
        (target(), false),
        (group(), false),
    ] {
        let plan = plan_of(
            &ctr_container(),
            &Pod::default(),
            &[assign(Kind::Pid, scope)],
        );
        assert_eq!(plan.owns_pid_namespace(), owns);
    }
}
