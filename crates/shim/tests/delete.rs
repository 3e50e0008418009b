//! `delete` after the shim died: real processes, mounts, pins and cgroups, named by a record.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Node, connects, lives, process, signal, wait_until, wait_until_serving};
use containerd_shim_protos::protobuf::Message;
use husk_sandbox::cgroup::{Cgroup, Driver};
use husk_scope::{Ceiling, Kind, Plan, Scope, Scopes, record};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that sleeps, killed at the end of the test if nothing else did it.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        Self::with(Command::new("sleep").arg("600"))
    }

    fn with(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.process_group(0).spawn().unwrap())
    }

    fn process(&self) -> record::Process {
        process(self.0.id())
    }

    fn is_dead(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The directories of a container's cgroup, removed at the end of the test.
struct CgroupDirs {
    paths: BTreeMap<String, PathBuf>,
    dirs: Vec<PathBuf>,
}

impl CgroupDirs {
    fn new(node: &Node, id: &str) -> Self {
        let path = format!("/{}/{id}", node.namespace);
        let cgroup = Cgroup::named(Driver::Cgroupfs, Some(&path), id).unwrap();
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut dirs = Vec::new();
        for (controllers, path) in cgroup.paths() {
            let mount = mountinfo
                .lines()
                .find_map(|line| cgroup_mount(line, &controllers))
                .unwrap();
            let dir = mount.join(path.strip_prefix("/").unwrap());
            fs::create_dir_all(&dir).unwrap();
            dirs.push(dir);
        }
        Self {
            paths: cgroup.paths(),
            dirs,
        }
    }

    fn enter(&self, process: record::Process) {
        for dir in &self.dirs {
            // cpuset takes nobody in before it has CPUs and memory nodes.
            let _ = fs::write(dir.join("cgroup.procs"), process.pid.to_string());
        }
    }

    fn exist(&self) -> bool {
        self.dirs.iter().any(|dir| dir.exists())
    }
}

impl Drop for CgroupDirs {
    fn drop(&mut self) {
        for dir in &self.dirs {
            // What a test left in it is dropped after it: a sleeper is declared before its cgroup.
            for _ in 0..200 {
                let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                for pid in procs.lines().filter_map(|pid| pid.parse().ok()) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                if !dir.exists() || fs::remove_dir(dir).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let _ = fs::remove_dir(dir.parent().unwrap());
        }
    }
}

/// The mount point of the hierarchy with these controllers, if the line is about it.
fn cgroup_mount(line: &str, controllers: &str) -> Option<PathBuf> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut fields = filesystem.split(' ');
    let options: Vec<_> = match (fields.next()?, controllers) {
        ("cgroup2", "") => Vec::new(),
        ("cgroup", _) => fields.nth(1)?.split(',').collect(),
        _ => return None,
    };
    let all = controllers.split(',').filter(|name| !name.is_empty());
    all.into_iter()
        .all(|name| options.contains(&name))
        .then(|| PathBuf::from(mount.split(' ').nth(4).unwrap()))
}

fn mounted(path: &Path) -> bool {
    let path = path.to_str().unwrap();
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mountinfo
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(path))
}

fn mount_tmpfs(path: &Path) {
    fs::create_dir_all(path).unwrap();
    mount(
        Some("husk"),
        path,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
}

/// Pins the UTS namespace of a process.
fn pin(process: record::Process, path: &Path) {
    fs::write(path, "").unwrap();
    let namespace = format!("/proc/{}/ns/uts", process.pid);
    mount(
        Some(namespace.as_str()),
        path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
}

fn container(node: &Node, id: &str, init: &Sleeper, cgroup: &CgroupDirs) -> record::Container {
    let bundle = node.path().join(id);
    let dir = node.state().join("pod").join(id);
    fs::create_dir_all(&dir).unwrap();
    mount_tmpfs(&bundle.join("rootfs"));
    cgroup.enter(init.process());
    let requested = Scopes::all(&Scope::Container);
    record::Container {
        id: id.to_owned(),
        name: id.to_owned(),
        rootfs: bundle.join("rootfs"),
        bundle,
        dir,
        status: record::Status::Running,
        init: Some(init.process()),
        execs: BTreeMap::new(),
        cgroups: cgroup.paths.clone(),
        cgroups_path: format!("/{}/{id}", node.namespace),
        plan: Plan::new(&requested, &[], &Ceiling::default()).unwrap(),
        ids: None,
        exit: None,
    }
}

fn pod(node: &Node, containers: Vec<record::Container>) -> record::Pod {
    record::Pod {
        id: "pod".to_owned(),
        namespace: node.namespace.clone(),
        containers,
        ..record::Pod::default()
    }
}

/// Unmounts what a failed test leaves below the node's directories.
struct Mounts<'a>(&'a Node);

impl Drop for Mounts<'_> {
    fn drop(&mut self) {
        let _ = husk_sandbox::rootfs::unmount_all(self.0.path());
        let _ = husk_sandbox::rootfs::unmount_all(&self.0.state());
    }
}

#[test]
fn a_pod_s_delete_takes_everything_with_it() {
    let node = Node::new();
    let _mounts = Mounts(&node);
    let (mut app, mut side, mut exec, mut stray, mut holder) = (
        Sleeper::new(),
        Sleeper::new(),
        Sleeper::new(),
        Sleeper::new(),
        Sleeper::new(),
    );
    let mut unshared = Sleeper::with(Command::new("unshare").args(["--uts", "sleep", "600"]));
    let own = fs::read_link("/proc/self/ns/uts").unwrap();
    wait_until(|| {
        let theirs = fs::read_link(format!("/proc/{}/ns/uts", unshared.0.id()));
        theirs.is_ok_and(|theirs| theirs != own)
    });
    let (app_cgroup, side_cgroup) = (
        CgroupDirs::new(&node, "app"),
        CgroupDirs::new(&node, "side"),
    );
    let mut app_record = container(&node, "app", &app, &app_cgroup);
    app_record
        .execs
        .insert("e1".to_owned(), Some(exec.process()));
    app_record.execs.insert("e2".to_owned(), None);
    // A process that only its cgroup knows of.
    app_cgroup.enter(stray.process());
    let mut side_record = container(&node, "side", &side, &side_cgroup);
    // The shim died before it knew where the init is.
    side_record.status = record::Status::Creating;
    side_record.init = None;
    side_record.cgroups.clear();

    let mut record = pod(&node, vec![app_record.clone(), side_record.clone()]);
    let (shm, uts, pids) = (
        node.path().join("shm"),
        node.path().join("uts"),
        node.path().join("pid"),
    );
    mount_tmpfs(&shm);
    pin(unshared.process(), &uts);
    pin(holder.process(), &pids);
    let namespace = |kind, path: &Path, holder| record::Namespace {
        kind,
        scope: Scope::Pod,
        path: path.to_owned(),
        pinned: true,
        holder,
        shm: None,
        ids: None,
    };
    record.namespaces = vec![
        namespace(Kind::Uts, &uts, None),
        namespace(Kind::Pid, &pids, Some(holder.process())),
    ];
    record.mounts = vec![shm.clone()];
    record.sandbox_api = true;
    node.save(&record);

    let bundle = node.bundle("pod");
    let response = bundle.delete();
    assert_eq!(response.exit_status, 137);
    assert!(response.exited_at.is_some());
    for (what, sleeper) in [
        ("app", &mut app),
        ("side, found by its cgroup's name", &mut side),
        ("exec", &mut exec),
        ("stray", &mut stray),
        ("holder", &mut holder),
    ] {
        assert!(sleeper.is_dead(), "{what}");
    }
    assert!(
        !unshared.is_dead(),
        "not of the pod: only its namespace was pinned"
    );
    for path in [&app_record.rootfs, &side_record.rootfs, &shm, &uts, &pids] {
        assert!(!mounted(path), "{path:?}");
    }
    assert!(!uts.exists() && !pids.exists(), "pins are removed");
    assert!(
        !app_cgroup.exist() && !side_cgroup.exist(),
        "cgroups are removed"
    );
    assert!(!node.state().exists(), "nothing is on record");

    let again = bundle.delete();
    assert_eq!(
        (again.pid, again.exit_status),
        (0, 137),
        "delete is idempotent"
    );
}

#[test]
fn a_holder_that_is_not_on_record_is_found_by_its_pin() {
    let node = Node::new();
    let _mounts = Mounts(&node);
    let mut holder = Sleeper::with(Command::new("unshare").args([
        "--pid",
        "--fork",
        "--kill-child",
        "sleep",
        "600",
    ]));
    let children = format!("/proc/{0}/task/{0}/children", holder.0.id());
    let inside: u32 = common::wait_for(|| fs::read_to_string(&children).ok()?.trim().parse().ok());
    let path = node.path().join("pid");
    fs::write(&path, "").unwrap();
    let namespace = format!("/proc/{inside}/ns/pid");
    mount(
        Some(namespace.as_str()),
        &path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    let mut record = pod(&node, Vec::new());
    record.namespaces = vec![record::Namespace {
        kind: Kind::Pid,
        scope: Scope::Pod,
        path: path.clone(),
        pinned: true,
        holder: None,
        shm: None,
        ids: None,
    }];
    record.cgroup_parent = format!("/{}", node.namespace);
    let lives_in = husk_sandbox::job::Holder {
        pin: path.clone(),
        join: Vec::new(),
        cgroup: Some(record.cgroup_parent.clone()),
        driver: Driver::Cgroupfs,
    };
    let name = lives_in.cgroups_path().unwrap();
    let cgroup = CgroupDirs::new(&node, name.rsplit('/').next().unwrap());
    cgroup.enter(process(inside));
    node.save(&record);
    node.bundle("pod").delete();
    wait_until(|| holder.is_dead());
    assert!(!cgroup.exist());
    assert!(!mounted(&path));
}

#[test]
fn one_container_s_delete_leaves_its_neighbours() {
    let node = Node::new();
    let _mounts = Mounts(&node);
    let (mut app, mut side, mut shim) = (Sleeper::new(), Sleeper::new(), Sleeper::new());
    let (app_cgroup, side_cgroup) = (
        CgroupDirs::new(&node, "app"),
        CgroupDirs::new(&node, "side"),
    );
    let app_record = container(&node, "app", &app, &app_cgroup);
    let side_record = container(&node, "side", &side, &side_cgroup);
    let mut record = pod(&node, vec![app_record.clone(), side_record.clone()]);
    record.shim = Some(shim.process());
    node.save(&record);

    let pid = app.0.id();
    let output = node.delete("app", &app_record.bundle);
    assert!(output.stderr.is_empty(), "{output:?}");
    let response = containerd_shim::api::DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!((response.pid, response.exit_status), (pid, 137));
    assert!(app.is_dead() && !app_cgroup.exist());
    assert!(!mounted(&app_record.rootfs) && !app_record.dir.exists());
    assert!(!side.is_dead() && side_cgroup.exist() && !shim.is_dead());
    assert!(mounted(&side_record.rootfs) && side_record.dir.exists());
    assert_eq!(
        node.record("pod").unwrap(),
        record,
        "a live shim's record is its own"
    );

    // The shim dies; with its last container the pod is gone.
    let _ = shim.0.kill();
    wait_until(|| shim.is_dead());
    let output = node.delete("side", &side_record.bundle);
    assert!(output.stderr.is_empty(), "{output:?}");
    assert!(side.is_dead() && !side_cgroup.exist());
    assert!(node.record("pod").is_some(), "app is still on record");
    node.delete("app", &app_record.bundle);
    assert!(node.record("pod").is_none());
}

#[test]
fn a_neighbour_in_the_same_cgroup_is_not_killed() {
    let node = Node::new();
    let _mounts = Mounts(&node);
    let (mut app, mut side) = (Sleeper::new(), Sleeper::new());
    let cgroup = CgroupDirs::new(&node, "both");
    let app_record = container(&node, "app", &app, &cgroup);
    let side_record = container(&node, "side", &side, &cgroup);
    node.save(&pod(&node, vec![app_record.clone(), side_record]));
    let output = node.delete("app", &app_record.bundle);
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(warning.contains("side"), "{warning}");
    assert!(app.is_dead());
    assert!(!side.is_dead() && cgroup.exist());
}

#[test]
fn another_process_with_the_pid_on_record_is_not_killed() {
    let node = Node::new();
    let _mounts = Mounts(&node);
    let mut bystander = Sleeper::new();
    let cgroup = CgroupDirs::new(&node, "app");
    let mut app = container(&node, "app", &bystander, &cgroup);
    // It is in no cgroup of the container's, and began later than what is on record.
    app.cgroups.clear();
    app.cgroups_path = format!("/{}/elsewhere", node.namespace);
    app.init = app.init.map(|init| record::Process {
        start_time: init.start_time - 1,
        ..init
    });
    let mut record = pod(&node, vec![app]);
    record.shim = record.containers[0].init;
    node.save(&record);
    node.bundle("pod").delete();
    assert!(!bystander.is_dead());
}

#[test]
fn a_root_filesystem_that_the_shim_did_not_mount_stays() {
    let node = Node::new();
    let _mounts = Mounts(&node);
    let cgroup = CgroupDirs::new(&node, "app");
    let mut app = container(&node, "app", &Sleeper::new(), &cgroup);
    let elsewhere = node.path().join("elsewhere");
    mount_tmpfs(&elsewhere);
    app.rootfs.clone_from(&elsewhere);
    node.save(&pod(&node, vec![app]));
    node.bundle("pod").delete();
    assert!(mounted(&elsewhere));
}

#[test]
fn an_exit_on_record_is_what_is_answered() {
    let node = Node::new();
    let _mounts = Mounts(&node);
    let cgroup = CgroupDirs::new(&node, "app");
    let mut app = container(&node, "app", &Sleeper::new(), &cgroup);
    app.exit = Some(record::Exit {
        code: 3,
        at_ms: 86_400_123,
    });
    let mut record = pod(&node, vec![app]);
    record.id = "app".to_owned();
    node.save(&record);
    let bundle = node.bundle("app-bundle");
    let output = node.delete("app", &bundle.path);
    let response = containerd_shim::api::DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!(response.exit_status, 3);
    assert_eq!(response.exited_at.seconds, 86_400);
    assert_eq!(response.exited_at.nanos, 123_000_000);
}

#[test]
fn without_a_record_the_bundle_is_still_cleared() {
    let node = Node::new();
    let _mounts = Mounts(&node);
    let bundle = node.bundle("unknown");
    let rootfs = bundle.path.join("rootfs");
    mount_tmpfs(&rootfs);
    mount_tmpfs(&rootfs.join("below"));
    let response = bundle.delete();
    assert_eq!((response.pid, response.exit_status), (0, 137));
    assert!(!mounted(&rootfs) && !mounted(&rootfs.join("below")));
}

#[test]
fn a_killed_shim_leaves_nothing() {
    let node = Node::new();
    let bundle = node.bundle("one");
    let socket = bundle.started();
    let record = node.live_record("one");
    wait_until_serving(record.shim.unwrap());
    signal(record.shim.unwrap(), Signal::SIGKILL);
    bundle.delete();
    assert!(!socket.exists() && !node.state().exists());
    assert!(!lives(record.shim.unwrap()) && !lives(record.zygote.unwrap()));
}

#[test]
fn a_shim_that_hangs_is_killed() {
    let node = Node::new();
    let bundle = node.bundle("one");
    let socket = bundle.started();
    let record = node.live_record("one");
    signal(record.shim.unwrap(), Signal::SIGSTOP);
    assert!(
        connects(&socket),
        "the backlog takes connections that nobody answers"
    );
    bundle.delete();
    assert!(!socket.exists() && !node.state().exists());
    assert!(!lives(record.shim.unwrap()) && !lives(record.zygote.unwrap()));
}
