//! The page as a whole, and real processes.
use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use husk_node::process;
use husk_scope::record::{self, FILE, Status};
use husk_scope::{Kind, Plan, Scope};
use serde_json::Value;

use super::fixture::{self, plan};
use super::{find, links, picture, report, text};

#[test]
fn a_pod_is_shown_on_one_page() {
    let page = text::render(&fixture::report(), false);
    assert_eq!(page, include_str!("page.txt"));
}

#[test]
fn a_shim_that_cannot_be_asked_leaves_open_what_links_have_carried() {
    let dir = tempfile::tempdir().unwrap();
    let pod = record::Pod {
        socket: dir.path().join("nobody.sock"),
        ..record::Pod::default()
    };
    let mut report = fixture::report();
    let before = report.links.clone();
    links::count(&mut report, &pod);
    assert_eq!(report.links, before);
}

#[test]
fn no_line_is_wider_than_120_columns_or_ends_in_blanks() {
    let mut report = fixture::report();
    let long = "x".repeat(200);
    for number in 0..9 {
        let mut more = report.containers[0].clone();
        more.id = format!("more{number}");
        more.name = format!("{long}{number}");
        more.processes[0].command = long.clone();
        report.containers.push(more);
    }
    report
        .warnings
        .push(format!("{long} {long} {}", "word ".repeat(60)));
    report.sandbox.namespaces[0].path = format!("/{long}").into();
    for line in text::render(&report, false).lines() {
        // A single word that is too long is cut, as everything else.
        assert!(
            line.chars().count() <= 120,
            "{}: {line}",
            line.chars().count()
        );
        assert_eq!(line, line.trim_end());
    }
}

#[test]
fn colours_change_nothing_but_colours_and_a_container_cannot_write_its_own() {
    let report = fixture::report();
    let page = text::render(&report, true);
    assert!(page.contains("\x1b[36m4026532200 POD\x1b[0m"), "{page}");
    let mut bare = String::new();
    let mut rest = page.as_str();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        bare.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    bare.push_str(rest);
    assert_eq!(bare, text::render(&report, false));
    assert!(bare.contains("sh -c ?[2Jhello"));
}

#[test]
fn what_is_wrong_comes_first() {
    let mut report = fixture::report();
    report.containers[0].namespaces[0].as_planned = false;
    report.containers[0].namespaces[0].actual = Some(Scope::Node);
    report
        .warnings
        .push("app: the network namespace was to be POD".into());
    report.sandbox.processes[1].alive = false;
    let page = text::render(&report, false);
    let third = page.lines().nth(2).unwrap();
    assert_eq!(third, "  ! app: the network namespace was to be POD");
    assert!(page.contains("4026532200 NODE !"), "{page}");
    assert!(page.contains("! not as planned"), "{page}");
    assert!(
        page.lines()
            .any(|line| line.contains("zygote") && line.ends_with("gone")),
        "{page}"
    );
}

#[test]
fn json_has_what_the_page_has() {
    let json = serde_json::to_value(fixture::report()).unwrap();
    assert_eq!(json["containers"][1]["namespaces"][3]["requested"], "POD");
    assert_eq!(
        json["containers"][1]["namespaces"][3]["actual"],
        "CONTAINER"
    );
    assert_eq!(
        json["containers"][1]["namespaces"][3]["by"],
        "configuration"
    );
    assert_eq!(
        json["containers"][2]["namespaces"][0]["actual"],
        Value::Null
    );
    assert_eq!(json["containers"][2]["exit"]["code"], 137);
    assert_eq!(
        json["containers"][0]["cgroup"]["memory_limit_bytes"],
        256 << 20
    );
    assert_eq!(json["node"]["user"], 4_026_531_834_u64);
    assert_eq!(json["sandbox"]["processes"][0]["role"], "shim");
}

#[test]
fn a_picture_has_what_the_page_has() {
    let picture = picture::picture(&fixture::report());
    let [scene] = picture.scenes.as_slice() else {
        panic!("{picture:?}")
    };
    let words = |column: usize| -> Vec<String> {
        let cells = scene.columns[column].cells.iter();
        cells
            .map(|(kind, cell)| format!("{kind} {:?}", scene.spaces[cell.space].owner))
            .collect()
    };
    let both = ["network Pod", "pid Own", "ipc Pod", "uts Pod", "user Node"];
    assert_eq!(words(0)[..5], both);
    assert_eq!(words(1)[3], "uts Own");
    assert!(words(2).is_empty(), "it has ended");
    assert_eq!(scene.columns[2].status, "exited 137");
    assert_eq!(scene.columns.len(), 3, "what is kept is used, too");
    // Who shares a namespace has the same one.
    let cell = |column: usize, kind: usize| scene.columns[column].cells[kind].1;
    assert_eq!(cell(0, 0).space, cell(1, 0).space);
    assert_ne!(cell(0, 1).space, cell(1, 1).space);
    assert_eq!(cell(1, 3).by, Some(0));
    assert_eq!(
        picture.deciders[0].said,
        [
            "uts of sidecar: POD → CONTAINER",
            "links sidecar:3128 → pod:8080, pod:9000 → sidecar:9000"
        ]
    );
    let ends = scene.links.iter().map(|link| (&link.from, &link.to));
    let ends: Vec<_> = ends
        .map(|(from, to)| (from.columns.clone(), to.columns.clone()))
        .collect();
    // The sidecar is in the pod's network, and the links are its own.
    assert_eq!(ends, [(vec![1], vec![1]), (vec![1], vec![1])]);
    assert_eq!(picture.cgroups.len(), 3);
    assert_eq!(picture.cgroups[1].words[0], "12.3 MiB of 256.0 MiB");
}

#[test]
fn what_is_kept_for_nobody_is_the_sandbox_s_and_links_reach_it() {
    let mut report = fixture::report();
    for (inode, container) in (1..).zip(&mut report.containers[..2]) {
        container.namespaces[0].inode = Some(inode);
        container.namespaces[0].actual = Some(Scope::Container);
        container.namespaces[0].with.clear();
    }
    report.links[1].carried.link.from = husk_scope::links::Network::Container("nobody".into());
    let picture = picture::picture(&report);
    let scene = &picture.scenes[0];
    assert_eq!(scene.columns[3].name, "sandbox");
    assert_eq!(scene.columns[3].cells.len(), 1);
    assert_eq!(scene.links.len(), 1);
    assert_eq!(scene.links[0].to.columns, [3]);
    assert!(
        picture.notes[0].contains("nobody:9000 → sidecar:9000"),
        "{picture:?}"
    );
    assert!(crate::picture::svg(&picture).contains(">sandbox</text>"));
}

/// A process that ends with the test.
struct Sleeper(Child);

impl Sleeper {
    /// Runs sleep(1) behind these commands, which exec one another.
    fn new(words: &[&str]) -> Self {
        let (program, arguments) = words.split_first().unwrap();
        let child = Command::new(program)
            .args(arguments)
            .args(["sleep", "600"])
            .spawn()
            .unwrap();
        let sleeper = Self(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while process::command(sleeper.pid()).as_deref() != Some("sleep 600") {
            assert!(Instant::now() < deadline, "{words:?} did not start");
            thread::sleep(Duration::from_millis(5));
        }
        sleeper
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn recorded(&self) -> record::Process {
        let start_time = process::stat(self.pid()).unwrap().start_time;
        record::Process {
            pid: self.pid(),
            start_time,
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn container(name: &str, init: &Sleeper, plan: Plan) -> record::Container {
    record::Container {
        id: format!("id-{name}"),
        name: name.into(),
        bundle: "/nowhere".into(),
        rootfs: "/nowhere".into(),
        dir: "/nowhere".into(),
        status: Status::Running,
        init: Some(init.recorded()),
        execs: Default::default(),
        cgroups: Default::default(),
        cgroups_path: String::new(),
        plan,
        ids: None,
        exit: None,
    }
}

/// Scopes of a container that has only these kinds to itself or from its pod.
fn scopes(some: &[(Kind, Scope)]) -> Plan {
    let mut all: Vec<_> = Kind::ALL
        .into_iter()
        .filter(|kind| *kind != Kind::Mount)
        .map(|kind| (kind, Scope::Node))
        .collect();
    all.extend(some.iter().cloned());
    plan(&all)
}

#[test]
fn real_processes_are_told_apart_by_their_namespaces() {
    let own = "--mount";
    let shim = Sleeper::new(&["env"]);
    let app = Sleeper::new(&["unshare", own, "--net", "--uts", "--ipc"]);
    let target = app.pid().to_string();
    let sidecar = Sleeper::new(&[
        "nsenter", "-t", &target, "--net", "--ipc", "unshare", own, "--uts",
    ]);
    let stray = Sleeper::new(&["unshare", own, "--net"]);
    let net = format!("/proc/{target}/ns/net");
    let pod = record::Pod {
        id: "f00dcafe".into(),
        namespace: "test".into(),
        name: "real".into(),
        sandbox_api: true,
        shim: Some(shim.recorded()),
        zygote: Some(record::Process {
            start_time: 1,
            ..shim.recorded()
        }),
        namespaces: vec![record::Namespace {
            kind: Kind::Network,
            scope: Scope::Pod,
            path: net.into(),
            pinned: false,
            holder: None,
            shm: None,
            ids: None,
        }],
        containers: vec![
            container(
                "app",
                &app,
                scopes(&[
                    (Kind::Network, Scope::Pod),
                    (Kind::Uts, Scope::Container),
                    (Kind::Ipc, Scope::Container),
                ]),
            ),
            container(
                "sidecar",
                &sidecar,
                scopes(&[
                    (Kind::Network, Scope::Pod),
                    (Kind::Uts, Scope::Container),
                    (Kind::Ipc, Scope::Target("app".into())),
                ]),
            ),
            container("stray", &stray, scopes(&[(Kind::Network, Scope::Pod)])),
        ],
        ..record::Pod::default()
    };
    let state = tempfile::tempdir().unwrap();
    let dir = state.path().join("test/f00dcafe");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(FILE), serde_json::to_vec(&pod).unwrap()).unwrap();

    let seen = report::look(&find::find(state.path(), None, Some("real")).unwrap());
    let scope = |container: usize, kind: Kind| {
        let uses = &seen.containers[container].namespaces;
        let found = uses.iter().find(|used| used.kind == kind).unwrap();
        format!(
            "{} {}",
            found.actual.as_ref().unwrap(),
            found.with.join(",")
        )
        .trim()
        .to_owned()
    };
    assert_eq!(scope(0, Kind::Network), "POD sidecar");
    assert_eq!(scope(1, Kind::Network), "POD app");
    assert_eq!(scope(2, Kind::Network), "CONTAINER");
    assert_eq!(scope(0, Kind::Ipc), "CONTAINER sidecar");
    assert_eq!(scope(1, Kind::Ipc), "TARGET(app) app");
    assert_eq!(scope(0, Kind::Uts), "CONTAINER");
    assert_eq!(scope(2, Kind::Uts), "NODE");
    assert_eq!(scope(0, Kind::Mount), "CONTAINER");
    assert_eq!(
        seen.warnings,
        [
            format!(
                "the zygote (pid {}) is gone: no container and no exec can be started",
                shim.pid()
            ),
            "stray: the network namespace was to be POD (by request) but is CONTAINER".into(),
        ]
    );
    let process = &seen.containers[1].processes[0];
    assert_eq!(
        (process.command.as_str(), process.role.as_str()),
        ("sleep 600", "init")
    );
    assert!(seen.sandbox.processes[0].rss_bytes.unwrap() > 0);

    let page = text::render(&seen, false);
    let line = |start: &str| {
        page.lines()
            .find(|line| line.trim_start().starts_with(start))
    };
    assert!(line("└─ pod").unwrap().contains("network"), "{page}");
    assert!(
        line("├─ of app").unwrap().ends_with("app, sidecar"),
        "{page}"
    );

    // An init that has died, though the record says that it runs.
    drop(stray);
    let seen = report::look(&pod);
    assert_eq!(seen.containers[2].pid, None);
    assert!(
        seen.warnings
            .iter()
            .any(|text| text.starts_with("stray: recorded as running, but"))
    );
}
