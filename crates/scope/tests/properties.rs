//! What holds for every spec, every assignment and every ceiling.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod pod;

use std::collections::HashMap;
use std::path::Path;

use husk_scope::{
    Assignment, Ceiling, EditError, Kind, Offset, Offsets, Plan, REQUEST, Scope, Width, requested,
};
use libcontainer::validator::Validator;
use oci_spec::runtime::{
    Linux, LinuxIdMapping, LinuxNamespace, LinuxNetDevice, LinuxTimeOffset, Mount, Process, Spec,
};
use pod::{NODE, OTHER, POD_SHM, Pod, SANDBOX, entry, mount};
use proptest::collection::{hash_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

const SYSCTLS: [&str; 10] = [
    "net.ipv4.ip_unprivileged_port_start",
    "net/ipv4/ping_group_range",
    "kernel.shmmax",
    "kernel.shm_rmid_forced",
    "kernel/sem",
    "fs.mqueue.msg_max",
    "kernel.domainname",
    "kernel.hostname",
    "user.max_user_namespaces",
    "vm.swappiness",
];

/// A pod, what containerd sent for one of its containers, and what was decided.
#[derive(Clone, Debug)]
struct Case {
    spec: Spec,
    assignments: Vec<Assignment>,
    limits: Vec<(Kind, Width, bool)>,
    sandbox_in_node: Vec<Kind>,
    shm: bool,
    other_in_node: bool,
}

impl Case {
    fn pod(&self) -> Pod {
        Pod {
            sandbox_in_node: self.sandbox_in_node.clone(),
            shm: self.shm,
            other_in_node: self.other_in_node,
        }
    }

    fn ceiling(&self) -> Ceiling {
        let mut ceiling = Ceiling::default();
        for (kind, widest, requests) in &self.limits {
            ceiling.set(*kind, *widest);
            if *requests {
                ceiling.bind_requests(*kind);
            }
        }
        ceiling
    }

    fn plan(&self) -> Option<Plan> {
        let requested = requested(&self.spec, &self.pod()).ok()?;
        let plan = Plan::new(&requested, &self.assignments, &self.ceiling()).ok()?;
        Some(plan.with_offsets(Offsets {
            boottime: Some(Offset {
                secs: 60,
                nanosecs: 0,
            }),
            monotonic: None,
        }))
    }

    fn edited(&self) -> Option<(Plan, Spec)> {
        let plan = self.plan()?;
        let mut spec = self.spec.clone();
        plan.edit(&mut spec, &self.pod()).ok()?;
        Some((plan, spec))
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    select(Kind::ALL.to_vec())
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        4 => Just(Scope::Container),
        3 => Just(Scope::Pod),
        2 => Just(Scope::Node),
        2 => select(vec!["other", "gone", ""]).prop_map(|name| Scope::Target(name.into())),
        2 => select(vec!["group", "gone", ""]).prop_map(|name| Scope::Group(name.into())),
    ]
}

fn assignments() -> impl Strategy<Value = Vec<Assignment>> {
    let by = select(vec!["configuration", "policy a", "policy b"]);
    let assignment = (kind(), scope(), by).prop_map(|(kind, scope, by)| Assignment {
        kind,
        scope,
        by: by.to_owned(),
    });
    vec(assignment, 0..4)
}

/// The entry of one kind, as sent by some containerd, or by nobody in their right mind.
fn namespace(kind: Kind) -> BoxedStrategy<Option<LinuxNamespace>> {
    let own = Just(Some(entry(kind, None)));
    match kind {
        Kind::Mount => prop_oneof![15 => own, 1 => Just(Some(entry(kind, Some(SANDBOX))))].boxed(),
        Kind::User => prop_oneof![4 => Just(None), 1 => own].boxed(),
        _ => {
            let sandbox_without_process = format!("/proc/0/ns/{}", kind.proc_name());
            prop_oneof![
                4 => Just(None),
                4 => own,
                3 => Just(Some(entry(kind, Some(SANDBOX)))),
                1 => Just(Some(entry(kind, Some(OTHER)))),
                1 => Just(Some(entry(kind, Some(NODE)))),
                1 => Just(Some(entry(kind, Some("")))),
                1 => Just(Some(entry(kind, Some(&sandbox_without_process)))),
            ]
            .boxed()
        }
    }
}

fn namespaces() -> impl Strategy<Value = Vec<LinuxNamespace>> {
    Kind::ALL
        .map(namespace)
        .to_vec()
        .prop_map(|entries| entries.into_iter().flatten().collect::<Vec<_>>())
        .prop_shuffle()
}

fn mounts() -> impl Strategy<Value = Vec<Mount>> {
    let pool = vec![
        mount("/proc", "proc", "proc", &["nosuid"]),
        mount("/dev", "tmpfs", "tmpfs", &["mode=755"]),
        mount("/dev/shm", "tmpfs", "shm", &["size=1g"]),
        mount("/dev/shm", "bind", POD_SHM, &["rbind", "rw"]),
        mount("/dev/shm", "bind", "/dev/shm", &["rbind"]),
        mount("/dev/shm", "bind", "/var/lib/volume", &["rbind", "ro"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid"]),
        mount("/sys", "sysfs", "sysfs", &["ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "rw"]),
        mount("/sys/fs/cgroup", "cgroup2", "cgroup", &["ro"]),
        mount("/data", "bind", "/srv", &["rbind", "rw"]),
    ];
    let all = pool.len();
    subsequence(pool, 0..=all)
}

fn linux() -> impl Strategy<Value = Linux> {
    let sysctl = prop_oneof![
        3 => Just(HashMap::new()),
        1 => hash_map(select(SYSCTLS.to_vec()), "[0-9]{1,3}", 1..3),
    ];
    let offsets = prop_oneof![
        16 => Just(None),
        1 => Just(Some(HashMap::new())),
        1 => Just(Some(HashMap::from([("monotonic".to_owned(), LinuxTimeOffset::default())]))),
    ];
    let maps = prop_oneof![
        12 => Just(None),
        1 => Just(Some(vec![])),
        1 => Just(Some(vec![LinuxIdMapping::default()])),
    ];
    let devices = prop_oneof![12 => Just(false), 1 => Just(true)];
    (namespaces(), sysctl, offsets, maps, devices).prop_map(
        |(namespaces, sysctl, offsets, maps, devices)| {
            let mut linux = Linux::default();
            let sysctl: HashMap<String, String> = sysctl
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect();
            linux
                .set_namespaces(Some(namespaces))
                .set_sysctl((!sysctl.is_empty()).then_some(sysctl))
                .set_time_offsets(offsets)
                .set_uid_mappings(maps.clone())
                .set_gid_mappings(maps)
                .set_net_devices(
                    devices
                        .then(|| HashMap::from([("eth7".to_owned(), LinuxNetDevice::default())])),
                );
            linux
        },
    )
}

fn spec() -> impl Strategy<Value = Spec> {
    (
        linux(),
        option::of(mounts()),
        option::of("[a-z]{1,8}"),
        option::of("[a-z]{1,8}"),
        option::of(any::<bool>()),
        hash_map("[a-z./]{1,10}", ".{0,10}", 0..3),
    )
        .prop_map(
            |(linux, mounts, hostname, domainname, no_new, annotations)| {
                let mut process = Process::default();
                process.set_no_new_privileges(no_new);
                let mut spec = Spec::default();
                spec.set_linux(Some(linux))
                    .set_mounts(mounts)
                    .set_hostname(hostname)
                    .set_domainname(domainname)
                    .set_process(Some(process))
                    .set_annotations(Some(annotations));
                spec
            },
        )
}

fn case() -> impl Strategy<Value = Case> {
    let width = select(Width::ALL.to_vec());
    let limits = prop_oneof![
        2 => Just(vec![]),
        1 => vec((kind(), width, any::<bool>()), 1..4),
    ];
    let sandbox_in_node = prop_oneof![
        2 => Just(vec![]),
        1 => vec(kind(), 1..3),
    ];
    (
        spec(),
        assignments(),
        limits,
        sandbox_in_node,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(spec, assignments, limits, sandbox_in_node, shm, other_in_node)| Case {
                spec,
                assignments,
                limits,
                sandbox_in_node,
                shm,
                other_in_node,
            },
        )
}

/// The spec without what the table of scopes covers.
fn outside_the_table(spec: &Spec) -> Spec {
    let mut spec = spec.clone();
    spec.set_hostname(None).set_domainname(None);
    if let Some(linux) = spec.linux_mut() {
        linux.set_namespaces(None).set_time_offsets(None);
        linux.set_uid_mappings(None).set_gid_mappings(None);
    }
    if let Some(process) = spec.process_mut() {
        process.set_no_new_privileges(None);
    }
    let mounts = spec.mounts_mut().get_or_insert_default();
    mounts.retain(|mount| mount.destination() != Path::new("/dev/shm"));
    for mount in mounts {
        if matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2")) {
            mount.set_options(None);
        } else if let Some(options) = mount.options_mut() {
            options.retain(|option| option != "idmap");
        }
    }
    spec
}

/// What containerd sends and libcontainer takes as it is: no path of a sandbox without a process,
/// nor of the node, and so on.
fn plain(mut spec: Spec) -> Spec {
    let linux = spec.linux_mut().as_mut().unwrap();
    let entries = linux.namespaces_mut().as_mut().unwrap();
    entries.retain(|entry| {
        let path = entry.path().as_deref().unwrap_or(Path::new(SANDBOX));
        path == Path::new(SANDBOX) || path == Path::new(OTHER)
    });
    let own_time = entries.contains(&entry(Kind::Time, None));
    let has_uts = entries.iter().any(|entry| entry.typ() == Kind::Uts.oci());
    if !own_time {
        linux.set_time_offsets(None);
    }
    if !has_uts {
        spec.set_hostname(None).set_domainname(None);
    }
    let process = spec.process_mut().as_mut().unwrap();
    process.set_no_new_privileges(process.no_new_privileges().filter(|no_new| *no_new));
    spec
}

fn same_for_all_but(kind: Kind, a: &Spec, b: &Spec) -> bool {
    Kind::ALL
        .into_iter()
        .filter(|other| *other != kind)
        .all(|other| pod::path_of(a, other) == pod::path_of(b, other))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn an_edited_spec_is_one_that_libcontainer_accepts(case in case()) {
        if let Some((plan, mut spec)) = case.edited() {
            let uts = plan.get(Kind::Uts);
            if uts.scope == Scope::Node && uts.requested == Scope::Node {
                // Names that are asked for without a namespace stay, to be refused when the
                // container is made.
                spec.set_hostname(None).set_domainname(None);
            }
            let verdict = Validator::validate_spec(&spec);
            prop_assert!(verdict.is_ok(), "{verdict:?}\n{plan:?}\n{spec:?}");
        }
    }

    #[test]
    fn an_edited_spec_requests_what_was_planned(case in case()) {
        let groups = |case: &Case| {
            case.assignments.iter().any(|a| matches!(a.scope, Scope::Group(_)))
        };
        if let Some((plan, spec)) = case.edited().filter(|_| !groups(&case)) {
            let again = requested(&spec, &case.pod()).unwrap();
            for (kind, planned) in plan.iter() {
                prop_assert_eq!(&again[kind], &planned.scope, "{}", kind);
            }
        }
    }

    #[test]
    fn nothing_outside_the_table_changes(case in case()) {
        if let Some((_, spec)) = case.edited() {
            prop_assert_eq!(outside_the_table(&spec), outside_the_table(&case.spec));
        }
    }

    #[test]
    fn one_assignment_changes_one_kind(case in case(), one in (kind(), scope())) {
        let (kind, scope) = one;
        let unassigned = Case { assignments: vec![], ..case.clone() };
        let assigned = Case { assignments: vec![pod::assign(kind, scope)], ..case };
        if let (Some((_, before)), Some((_, after))) = (unassigned.edited(), assigned.edited()) {
            prop_assert!(same_for_all_but(kind, &before, &after), "{before:?}\n{after:?}");
        }
    }

    #[test]
    fn editing_twice_is_editing_once(case in case()) {
        if let Some((plan, once)) = case.edited() {
            let mut twice = once.clone();
            plan.edit(&mut twice, &case.pod()).unwrap();
            prop_assert_eq!(twice, once);
        }
    }

    #[test]
    fn without_assignments_the_plan_is_the_request(mut case in case()) {
        case.assignments.clear();
        if let Some(plan) = case.plan() {
            let requested = requested(&case.spec, &case.pod()).unwrap();
            for (kind, planned) in plan.iter() {
                prop_assert_eq!(&planned.scope, &requested[kind]);
                prop_assert_eq!(&planned.requested, &requested[kind]);
                prop_assert_eq!(&planned.by, REQUEST);
            }
        }
    }

    #[test]
    fn a_spec_as_requested_stays_as_it_is(case in case()) {
        // Where the sandbox has a /dev/shm of the shim's, it is injected (contract 15).
        let case = Case { assignments: vec![], shm: false, spec: plain(case.spec.clone()), ..case };
        if let Some((plan, spec)) = case.edited().filter(|(plan, _)| {
            !matches!(plan.get(Kind::Ipc).scope, Scope::Target(_))
        }) {
            prop_assert_eq!(spec, case.spec, "{:?}", plan);
        }
    }

    #[test]
    fn no_assignment_gets_above_the_ceiling(case in case()) {
        if let Some(plan) = case.plan() {
            let ceiling = case.ceiling();
            for (kind, planned) in plan.iter() {
                let bounded = planned.is_assigned()
                    || case.limits.iter().any(|(k, _, requests)| *k == kind && *requests);
                if let Some(widest) = ceiling.widest(kind).filter(|_| bounded) {
                    prop_assert!(planned.scope.width() <= widest, "{kind}: {planned:?}");
                }
            }
        }
    }

    #[test]
    fn nobody_joins_the_node_but_by_the_word_node(case in case()) {
        if let Some((plan, spec)) = case.edited() {
            for (kind, planned) in plan.iter() {
                let joined = pod::path_of(&spec, kind).flatten();
                prop_assert_ne!(joined.as_deref(), Some(NODE), "{}: {:?}", kind, planned);
            }
        }
    }

    #[test]
    fn a_plan_survives_its_record(case in case()) {
        if let Some(plan) = case.plan() {
            let json = serde_json::to_string(&plan).unwrap();
            prop_assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
        }
    }
}

/// The properties above say nothing when nothing is ever edited.
#[test]
fn the_cases_are_worth_testing() {
    let mut runner = TestRunner::deterministic();
    let cases: Vec<Case> = (0..1000)
        .map(|_| case().new_tree(&mut runner).unwrap().current())
        .collect();
    let edited = cases.iter().filter_map(Case::edited);
    let changed = edited
        .clone()
        .filter(|(plan, _)| plan.iter().any(|(_, planned)| planned.is_changed()));
    let (edited, changed) = (edited.count(), changed.count());
    assert!(
        edited > 200 && changed > 80,
        "{edited} edited, {changed} changed"
    );
    let refused = |wanted: fn(&EditError) -> bool| {
        cases.iter().any(|case| {
            case.plan().is_some_and(|plan| {
                let error = plan.edit(&mut case.spec.clone(), &case.pod()).err();
                error.as_ref().is_some_and(wanted)
            })
        })
    };
    assert!(refused(|e| matches!(e, EditError::NoNamespace { .. })));
    assert!(refused(|e| matches!(e, EditError::NodeInDisguise { .. })));
    assert!(refused(|e| matches!(e, EditError::NodeSysctl { .. })));
    assert!(refused(|e| matches!(e, EditError::UnconfinedSysctl { .. })));
    assert!(refused(|e| matches!(e, EditError::HostnameSysctl)));
    assert!(refused(|e| matches!(e, EditError::NodeDevices { .. })));
    assert!(refused(|e| matches!(e, EditError::NodeMappings { .. })));
    assert!(refused(|e| matches!(e, EditError::Offsets { .. })));
    assert!(refused(|e| matches!(e, EditError::NoShm { .. })));
}
