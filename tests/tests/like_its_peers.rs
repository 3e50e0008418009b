//! A process of husk's is what runc and crun make of the same request: what it sees of itself is
//! compared, and each difference that stays is listed here, and in docs/isolation.md, with its reason.
//!
//! Where there is no C compiler these tests have nothing to look with, and are left out.
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use husk_tests::cgroup;
use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::cri::Mode;
use k8s_cri::v1::{
    ContainerConfig, LinuxContainerSecurityContext, Mount, NamespaceMode, SecurityProfile,
    security_profile::ProfileType,
};

/// A difference that stays: husk's line has the one in it, and the peer's the other.
struct Known {
    peers: &'static [Peer],
    part: &'static str,
    /// `None`: husk has no such line.
    husk: Option<&'static str>,
    /// `None`: the peer has none.
    peer: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Runc,
    Crun,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }
}

const BOTH: &[Peer] = &[Peer::Runc, Peer::Crun];
const CRUN: &[Peer] = &[Peer::Crun];

const fn known(
    peers: &'static [Peer],
    part: &'static str,
    husk: Option<&'static str>,
    peer: Option<&'static str>,
) -> Known {
    Known {
        peers,
        part,
        husk,
        peer,
    }
}

/// Whatever is not here is compared. The reasons are those of docs/isolation.md.
const KNOWN: &[Known] = &[
    // What the peers inherit from whoever started them.
    known(
        BOTH,
        "status",
        Some("SigIgn:\t0000000000000000"),
        Some("SigIgn:"),
    ),
    // The container's own /dev/null, opened so that no link is followed (0400000). Theirs is opened
    // without that, and for an exec's standard input to be read only.
    known(
        BOTH,
        "descriptors",
        Some(" /dev/null flags 0500002"),
        Some(" /dev/null flags "),
    ),
    // The tmpfs above v1's hierarchies is read-only if the spec says so.
    known(
        BOTH,
        "mounts",
        Some("/sys/fs/cgroup: tmpfs tmpfs / ro,nosuid,nodev,noexec"),
        Some("/sys/fs/cgroup: tmpfs "),
    ),
    // A table of descriptors grows with what was open before the program.
    known(BOTH, "status", Some("FDSize:"), Some("FDSize:")),
    known(
        CRUN,
        "devices",
        None,
        Some("/dev/core 120777 0:0 0:0 /proc/kcore"),
    ),
    // The terminal is mounted on /dev/console, by runc too; crun has a link there.
    known(
        CRUN,
        "devices",
        Some("/dev/console 20620"),
        Some("/dev/console 120777"),
    ),
    known(CRUN, "mounts", Some("/dev/console: devpts"), None),
    known(
        CRUN,
        "descriptors",
        Some(" /dev/pts/0 flags 02000002"),
        Some(" /dev/pts/0 flags 0100002"),
    ),
    // What masks is of the container's own filesystems, as with runc, not of the node's.
    known(
        CRUN,
        "mounts",
        Some("tmpfs tmpfs /null rw,nosuid"),
        Some("devtmpfs devtmpfs /null "),
    ),
    known(
        CRUN,
        "mounts",
        Some("tmpfs tmpfs / ro,relatime ro,size=4k,nr_inodes=1 []"),
        Some("/.empty-directory "),
    ),
    // Mounts are slaves unless the spec says more, as with runc, and the filesystem itself is
    // read-only where it is the container's own.
    known(
        CRUN,
        "mounts",
        Some("/sys/fs/cgroup"),
        Some("/sys/fs/cgroup"),
    ),
    known(
        CRUN,
        "mounts",
        Some("/sys: sysfs sysfs / ro,"),
        Some("/sys: sysfs sysfs / ro,"),
    ),
    known(CRUN, "mounts", Some("/self: "), Some("/self: ")),
    // An exec finds the keyring that init made.
    known(
        CRUN,
        "settings",
        Some("session keyring keyring;0;0;3f1b0000;_ses.ID"),
        Some("session keyring keyring;"),
    ),
    // A call that is newer than the profile: programs fall back if there is none, not if it is denied.
    known(
        CRUN,
        "calls",
        Some(" Function not implemented"),
        Some(" Operation not permitted"),
    ),
];

/// Where the container has the folder with the program and its reports.
const FOLDER: &str = "/self";

/// Compiles the program into a folder; `None` without a compiler.
fn compile(folder: &Path) -> Option<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/self.c");
    fs::create_dir_all(folder).unwrap();
    // The program reports as whatever user it has.
    fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
    let compiled = Command::new("cc")
        .args(["-O2", "-static", "-o"])
        .args([&folder.join("self"), &source])
        .status();
    if !compiled.ok()?.success() {
        eprintln!("left out: cc cannot link a static program");
        return None;
    }
    Some(())
}

/// The lines of a report, by part.
type Report = BTreeMap<String, Vec<String>>;

/// Reads a report once it is there; these ids, which are each container's own, are taken out of it.
fn read(path: &Path, ids: &[String]) -> Report {
    until("the program has reported", || path.exists());
    let mut text = fs::read_to_string(path).unwrap();
    for id in ids {
        text = text.replace(id.as_str(), "ID");
    }
    let mut report = Report::new();
    let mut part = String::new();
    for line in text.lines() {
        match line.strip_prefix('@') {
            Some(name) => {
                name.clone_into(&mut part);
                report.insert(part.clone(), Vec::new());
            }
            None => {
                let line = match part.as_str() {
                    "mounts" => mount(line),
                    _ => line.to_owned(),
                };
                report.get_mut(&part).unwrap().push(line);
            }
        }
    }
    report
}

/// A line of mountinfo without its numbers, and without what is the image's.
fn mount(line: &str) -> String {
    let (mount, filesystem) = line.split_once(" - ").unwrap();
    let fields: Vec<&str> = mount.split(' ').collect();
    let [root, point, options] = fields[3..6] else {
        panic!("mountinfo has {line}");
    };
    let propagation: Vec<&str> = fields[6..]
        .iter()
        .map(|field| field.split(':').next().unwrap())
        .collect();
    let mut filesystem = filesystem.split(' ');
    let (kind, source) = (filesystem.next().unwrap(), filesystem.next().unwrap());
    let superblock = match kind {
        // Its layers are each container's own.
        "overlay" => "",
        _ => filesystem.next().unwrap(),
    };
    let propagation = propagation.join(",");
    format!("{point}: {kind} {source} {root} {options} {superblock} [{propagation}]")
}

/// The lines of one that the other has not, as often as it has not.
fn missing<'a>(these: &'a [String], those: &[String]) -> Vec<&'a String> {
    let mut those: Vec<&String> = those.iter().collect();
    these
        .iter()
        .filter(
            |line| match those.iter().position(|other| *other == *line) {
                Some(at) => {
                    those.swap_remove(at);
                    false
                }
                None => true,
            },
        )
        .collect()
}

/// Compares what an init and an exec see in husk's containers with what they see in each peer's.
fn compare(reports: impl Fn(&str) -> Option<BTreeMap<&'static str, Report>>) {
    let Some(husk) = reports("husk") else {
        return;
    };
    let mut differences = Vec::new();
    for peer in [Peer::Runc, Peer::Crun] {
        let its = reports(peer.name()).unwrap();
        for (who, ours) in &husk {
            let theirs = &its[who];
            assert_eq!(
                ours.keys().collect::<Vec<_>>(),
                theirs.keys().collect::<Vec<_>>()
            );
            for (part, ours) in ours {
                let theirs = &theirs[part];
                let husk = (missing(ours, theirs), "husk");
                let peers = (missing(theirs, ours), peer.name());
                let is_known = |line: &str, of: fn(&Known) -> Option<&'static str>| {
                    KNOWN.iter().any(|known| {
                        let is_here = known.part == part && known.peers.contains(&peer);
                        is_here && of(known).is_some_and(|text| line.contains(text))
                    })
                };
                for (lines, whose, of) in [
                    (husk.0, husk.1, (|known| known.husk) as fn(&Known) -> _),
                    (peers.0, peers.1, |known| known.peer),
                ] {
                    let unknown = lines.into_iter().filter(|line| !is_known(line, of));
                    differences.extend(unknown.map(|line| {
                        let peer = peer.name();
                        format!("{peer}, {who}, {part}, only {whose}: {line}")
                    }));
                }
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Compares containers of pods, made over CRI.
fn compare_pods(pid: NamespaceMode, edit: fn(&mut ContainerConfig)) {
    let containerd = Containerd::of_the_suite();
    compare(|handler| {
        let cri = containerd.cri();
        let mut asked = ContainerConfig::default();
        edit(&mut asked);
        let is_privileged = asked.linux.and_then(|linux| linux.security_context);
        let is_privileged = is_privileged.is_some_and(|context| context.privileged);
        let pod = cri
            .pod_of(handler, Mode::Podsandbox)
            .namespaces(|options| options.pid = pid.into())
            .security(|security| security.privileged = is_privileged)
            .run();
        let folder = PathBuf::from(&pod.config.log_directory).join("self");
        compile(&folder)?;
        let program = format!("{FOLDER}/self");
        let reported = format!("{FOLDER}/init");
        let container = pod
            .container("app", &[&program, &reported])
            .with(|config| {
                config.mounts.push(Mount {
                    container_path: FOLDER.into(),
                    host_path: folder.display().to_string(),
                    ..Default::default()
                });
            })
            .security(|context| {
                context.seccomp = Some(SecurityProfile {
                    profile_type: ProfileType::RuntimeDefault.into(),
                    localhost_ref: String::new(),
                });
            })
            .with(edit)
            .start();
        let init = read(&folder.join("init"), &pod.ids());
        let reported = format!("{FOLDER}/exec");
        let _ = container.exec(&[&program, &reported, "exit"]).ok();
        let exec = read(&folder.join("exec"), &pod.ids());
        if handler != "husk" {
            pod.stop();
            remove_cgroups(&[&container.id, &pod.id]);
        }
        Some(BTreeMap::from([("init", init), ("exec", exec)]))
    });
}

/// Removes what crun leaves where there is a folder `unified` beside the v1 hierarchies: a cgroup, or
/// folders and files that are none, if no such hierarchy is mounted there.
fn remove_cgroups(ids: &[&String]) {
    for folder in cgroup::below_roots(&|name| ids.iter().any(|id| name.contains(id.as_str()))) {
        fs::remove_dir(&folder)
            .or_else(|_| fs::remove_dir_all(&folder))
            .ok();
    }
}

fn context(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default()
}

#[test]
fn a_container_sees_what_it_sees_with_its_peers() {
    compare_pods(NamespaceMode::Container, |_| {});
}

#[test]
fn a_privileged_container_sees_what_it_sees_with_its_peers() {
    compare_pods(NamespaceMode::Container, |config| {
        context(config).privileged = true;
    });
}

#[test]
fn a_user_without_privileges_sees_what_it_sees_with_its_peers() {
    compare_pods(NamespaceMode::Container, |config| {
        let context = context(config);
        context.readonly_rootfs = true;
        context.no_new_privs = true;
        context.run_as_user = Some(k8s_cri::v1::Int64Value { value: 1000 });
        context.run_as_group = Some(k8s_cri::v1::Int64Value { value: 1001 });
        context.supplemental_groups = vec![1002, 1003];
    });
}

#[test]
fn a_container_with_a_terminal_sees_what_it_sees_with_its_peers() {
    compare_pods(NamespaceMode::Container, |config| {
        config.tty = true;
        config.stdin = true;
    });
}

#[test]
fn a_container_among_others_of_its_pod_sees_what_it_sees_with_its_peers() {
    compare_pods(NamespaceMode::Pod, |_| {});
}

#[test]
fn a_container_of_ctr_sees_what_it_sees_with_its_peers() {
    let containerd = Containerd::of_the_suite();
    compare(|peer| {
        let mut container = containerd.ctr().container();
        let folder = container.folder();
        compile(&folder)?;
        let mount = format!(
            "type=bind,src={},dst={FOLDER},options=rbind:rw",
            folder.display()
        );
        container = container.flag("--mount").flag(&mount);
        if peer != "husk" {
            let binary = containerd.lab().programs.join("bin").join(peer);
            let runtime = ["--runtime", "io.containerd.runc.v2", "--runc-binary"];
            container = runtime
                .into_iter()
                .fold(container, |it, flag| it.flag(flag));
            container = container.flag(&binary.display().to_string());
        }
        let program = format!("{FOLDER}/self");
        container.start(&[&program, &format!("{FOLDER}/init")]);
        let ids = [container.id.clone()];
        let init = read(&folder.join("init"), &ids);
        let reported = format!("{FOLDER}/exec");
        let _ = container.exec(&[&program, &reported, "exit"]).ok();
        let exec = read(&folder.join("exec"), &ids);
        if peer != "husk" {
            container.remove();
            remove_cgroups(&[&container.id]);
        }
        Some(BTreeMap::from([("init", init), ("exec", exec)]))
    });
}
