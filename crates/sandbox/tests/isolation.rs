//! Ways out of a container that were found in other runtimes.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test, though one with a runner of its own"
)]
mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use husk_sandbox::error::JobErrorKind;
use husk_sandbox::job::Create;
use husk_sandbox::process::Ended;
use serde_json::json;
use support::{Lab, run, shell_process, wait};

/// The name under which a container would run this very program.
const EVIL: &str = "/srv/evil";

fn main() {
    if std::env::args().nth(1).as_deref() == Some(EVIL) {
        return overwrite_the_runtime();
    }
    run(&[
        (
            "a_joining_process_cannot_be_looked_into",
            a_joining_process_cannot_be_looked_into,
        ),
        (
            "the_runtime_is_not_overwritten",
            the_runtime_is_not_overwritten,
        ),
        ("nothing_but_stdio_is_open", nothing_but_stdio_is_open),
        ("a_cwd_outside_is_refused", a_cwd_outside_is_refused),
        (
            "libraries_of_the_container_are_not_loaded",
            libraries_of_the_container,
        ),
        ("a_false_null_masks_nothing", a_false_null_masks_nothing),
        (
            "a_false_console_is_not_mounted_over",
            a_false_console_is_not_mounted_over,
        ),
        (
            "a_link_at_a_mounts_destination_stays_inside",
            a_link_at_a_mounts_destination_stays_inside,
        ),
        ("a_false_proc_is_refused", a_false_proc_is_refused),
        (
            "what_is_masked_or_read_only_stays_so",
            what_is_masked_or_read_only_stays_so,
        ),
        (
            "a_device_that_is_there_may_stay",
            a_device_that_is_there_may_stay,
        ),
    ]);
}

/// CVE-2016-9962, CVE-2019-5736: what is on its way into the container is still the shim's program,
/// with the shim's memory and descriptors.
fn a_joining_process_cannot_be_looked_into(lab: &Lab) {
    // Only builtins of the shell, to look often; a look at a program that is not the container's
    // counts when the process is still there after it.
    let spy = "while :; do for p in /proc/[0-9]*; do \
                 [ -e $p/exe ] && ! [ $p/exe -ef /bin/busybox ] && [ -e $p/exe ] && echo $p; \
               done; done";
    let mut container = lab.shell(&format!("echo spying; {spy}"), |spec| {
        let caps = json!([
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_KILL",
            "CAP_SETUID",
            "CAP_SETGID",
            "CAP_NET_RAW",
            "CAP_SYS_CHROOT",
            "CAP_MKNOD",
            "CAP_AUDIT_WRITE",
            "CAP_SETFCAP"
        ]);
        spec["process"]["capabilities"] =
            json!({"bounding": caps, "permitted": caps, "effective": caps});
    });
    container.expect("spying\n");
    for _ in 0..100 {
        assert_eq!(lab.exec_shell(&container, "exit 0").0, Ended::Exited(0));
    }
    let (_, seen) = container.kill();
    assert_eq!(seen, "", "it saw something of the node");
}

/// CVE-2019-5736: `#!/proc/self/exe` makes the joining process execute its own program once more,
/// now as one of the container, which may then open it.
fn the_runtime_is_not_overwritten(lab: &Lab) {
    let evil = lab.image().join("srv/evil");
    fs::write(&evil, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
    copy_libraries(&lab.image());
    let container = lab.shell("sleep 60", |_| {});
    let mut process = shell_process("");
    process["args"] = json!([EVIL]);
    let (process, mut output) = lab
        .exec(&container, process)
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(wait(&process), Ended::Exited(0));
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    let (opened, keyring) = said.trim().split_once(' ').unwrap();
    assert_eq!(
        opened, "ETXTBSY",
        "the shim's program is busy for as long as the pod is there"
    );
    assert_ne!(
        keyring,
        session_keyring().to_string(),
        "that of the shim may hold secrets"
    );
    container.kill();
}

/// Runs in the container, as the program of the shim.
fn overwrite_the_runtime() {
    let opened = nix::fcntl::open(
        "/proc/self/exe",
        nix::fcntl::OFlag::O_WRONLY,
        nix::sys::stat::Mode::empty(),
    );
    let opened = opened.map_or_else(|errno| format!("{errno:?}"), |_| "opened".to_owned());
    println!("{opened} {}", session_keyring());
}

/// The number of this process's session keyring, see keyctl_get_keyring_ID(3).
fn session_keyring() -> i64 {
    const GET_KEYRING_ID: i32 = 0;
    const SESSION_KEYRING: i32 = -3;
    // SAFETY: keyctl(2) takes integers here.
    unsafe { libc::syscall(libc::SYS_keyctl, GET_KEYRING_ID, SESSION_KEYRING, 0) }
}

/// What this program needs to be executed in the container.
fn copy_libraries(root: &Path) {
    let program = std::env::current_exe().unwrap();
    let list = std::process::Command::new("ldd")
        .arg(program)
        .output()
        .unwrap();
    for word in String::from_utf8(list.stdout)
        .unwrap()
        .split_ascii_whitespace()
    {
        if let Some(below) = word.strip_prefix('/') {
            let copy = root.join(below);
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(word, copy).unwrap();
        }
    }
}

/// CVE-2024-21626: a descriptor of the node is a way to the node.
fn nothing_but_stdio_is_open(lab: &Lab) {
    let list = "for fd in /proc/self/fd/*; do readlink $fd; done | sort -u; echo; sleep 60";
    let mut container = lab.shell(list, |_| {});
    let mut process = shell_process("");
    process["args"] = json!(["ls", "-l", "/proc/self/fd"]);
    let (process, output) = lab.exec(&container, process).unwrap();
    assert_eq!(wait(&process), Ended::Exited(0));
    let open = support::read_all(output);
    // The last one is the directory that ls itself reads.
    let open: Vec<_> = open
        .lines()
        .filter_map(|line| line.split_once(" -> "))
        .collect();
    let numbers: Vec<_> = open
        .iter()
        .map(|(fd, _)| fd.rsplit_once(' ').unwrap().1)
        .collect();
    assert_eq!(numbers, ["0", "1", "2"], "{open:?}");
    assert_eq!(open[0].1, "/dev/null");
    container.expect("\n\n");
    let fds = fs::read_dir(format!("/proc/{}/fd", container.init.pid)).unwrap();
    let fds: Vec<_> = fds
        .map(|fd| fd.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        fds.iter()
            .all(|fd| ["0", "1", "2", "10"].contains(&fd.as_str())),
        "{fds:?}"
    );
    container.kill();
}

/// CVE-2024-21626: so is a working directory through one.
fn a_cwd_outside_is_refused(lab: &Lab) {
    let container = lab.shell("sleep 60", |_| {});
    for fd in 3..20 {
        let mut process = shell_process("cat /proc/1/mountinfo");
        process["cwd"] = json!(format!("/proc/self/fd/{fd}"));
        let error = lab.exec(&container, process).unwrap_err();
        assert_ne!(error.kind, JobErrorKind::Failed, "{error}");
        assert!(error.message.contains(&format!("fd/{fd}")), "{error}");
        let created = lab.try_create(|spec| {
            spec["process"]["cwd"] = json!(format!("/proc/self/fd/{fd}"));
        });
        assert!(created.is_err(), "{fd}");
    }
    container.kill();
}

/// CVE-2019-14271 in spirit: a name service of the container's choice is code of its choice.
fn libraries_of_the_container(lab: &Lab) {
    let etc = lab.image().join("etc/nsswitch.conf");
    fs::write(&etc, "passwd: evil\n").unwrap();
    copy_libraries(&lab.image());
    let library = lab.image().join("lib/x86_64-linux-gnu/libnss_evil.so.2");
    fs::create_dir_all(library.parent().unwrap()).unwrap();
    // Whoever loads it opens it: a fifo would keep the loader waiting for a writer.
    nix::unistd::mkfifo(&library, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    let container = lab.shell("echo $HOME; sleep 60", |spec| {
        spec["process"]["user"] = json!({"uid": 4242, "gid": 0});
    });
    let mut process = shell_process("echo $HOME");
    process["user"] = json!({"uid": 4242, "gid": 0});
    let (process, output) = lab.exec(&container, process).unwrap();
    assert_eq!(wait(&process), Ended::Exited(0));
    assert_eq!(support::read_all(output), "/\n");
    fs::remove_file(library).unwrap();
    fs::remove_file(etc).unwrap();
    assert_eq!(container.kill().1, "/\n");
}

/// An image of its own for a test that changes /dev.
fn image_with(lab: &Lab, job: &mut Create, change: impl FnOnce(&Path)) {
    let image = job.dir.join("image");
    for directory in ["bin", "dev/pts", "etc", "proc", "tmp"] {
        fs::create_dir_all(image.join(directory)).unwrap();
    }
    fs::copy(lab.image().join("bin/busybox"), image.join("bin/busybox")).unwrap();
    for applet in ["cat", "sh", "sleep", "stat"] {
        std::os::unix::fs::symlink("busybox", image.join("bin").join(applet)).unwrap();
    }
    fs::write(image.join("etc/secret"), "secret").unwrap();
    change(&image);
    job.mounts[0].source = image.display().to_string();
}

/// CVE-2025-31133: paths are masked with the container's /dev/null, whatever that is.
fn a_false_null_masks_nothing(lab: &Lab) {
    let (mut job, output) = lab.create_job(|spec| {
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| mount["destination"] != "/dev");
        spec["linux"]["maskedPaths"] = json!(["/proc/version"]);
        spec["process"]["args"] = json!(["cat", "/proc/version"]);
    });
    image_with(lab, &mut job, |image| {
        std::os::unix::fs::symlink("/etc/secret", image.join("dev/null")).unwrap();
    });
    let dir = job.dir.clone();
    let Err(error) = lab.created(job, output) else {
        panic!("created with a false /dev/null")
    };
    assert!(error.message.contains("mknod"), "{error}");
    assert_eq!(
        fs::read_to_string(dir.join("image/etc/secret")).unwrap(),
        "secret"
    );
    fs::remove_dir_all(dir).unwrap();
}

/// CVE-2025-52565: the terminal is mounted at /dev/console, wherever that leads.
fn a_false_console_is_not_mounted_over(lab: &Lab) {
    let (mut job, output) = lab.create_job(|spec| {
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| mount["destination"] != "/dev");
        spec["process"]["terminal"] = json!(true);
        spec["process"]["args"] = json!(["sh", "-c", "stat -c %F /etc/secret"]);
    });
    image_with(lab, &mut job, |image| {
        std::os::unix::fs::symlink("/etc/secret", image.join("dev/console")).unwrap();
    });
    let dir = job.dir.clone();
    let Err(error) = lab.created(job, output) else {
        panic!("created with a false /dev/console")
    };
    assert!(error.message.contains("/dev/console"), "{error}");
    fs::remove_dir_all(dir).unwrap();
}

/// CVE-2021-30465, without the race: where a link leads is looked up inside the root.
fn a_link_at_a_mounts_destination_stays_inside(lab: &Lab) {
    let (mut job, output) = lab.create_job(|spec| {
        for destination in ["/data", "/up/tmp", "/up/new/place"] {
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": destination, "type": "tmpfs", "source": "tmpfs",
            }));
        }
        spec["process"]["args"] = json!(["cat", "/proc/self/mounts"]);
    });
    image_with(lab, &mut job, |image| {
        std::os::unix::fs::symlink("/etc", image.join("data")).unwrap();
        std::os::unix::fs::symlink("../../../../../..", image.join("up")).unwrap();
    });
    let container = lab.created(job, output).unwrap();
    let (_, mounts) = container.run();
    for inside in [" /etc ", " /tmp ", " /new/place "] {
        assert!(mounts.contains(inside), "no {inside} in {mounts}");
    }
    assert!(!Path::new("/new/place").exists());
}

/// CVE-2019-16884, CVE-2019-19921: what is masked must be what the kernel shows.
fn a_false_proc_is_refused(lab: &Lab) {
    let (mut job, output) = lab.create_job(|_| {});
    image_with(lab, &mut job, |image| {
        fs::remove_dir(image.join("proc")).unwrap();
        std::os::unix::fs::symlink("tmp", image.join("proc")).unwrap();
    });
    let dir = job.dir.clone();
    let Err(error) = lab.created(job, output) else {
        panic!("created with a link at /proc")
    };
    assert!(error.message.contains("ordinary directory"), "{error}");
    fs::remove_dir_all(dir).unwrap();

    for destination in ["/proc", "/proc/sys/kernel", "/tmp/../proc/self/attr"] {
        let created = lab.try_create(|spec| {
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": destination, "source": "/tmp", "options": ["rbind"],
            }));
        });
        let Err(error) = created else {
            panic!("created with a mount over {destination}")
        };
        assert_eq!(error.kind, JobErrorKind::Invalid, "{error}");
        assert!(error.message.contains(destination), "{error}");
    }
}

fn what_is_masked_or_read_only_stays_so(lab: &Lab) {
    let script = "cat /etc/passwd /srv/secret 2>&1; ls /root; ls /srv/hidden; \
                  for file in /srv/x /etc/x /dev/x /root/x; do \
                  (echo > $file) 2>/dev/null && echo wrote $file; done; \
                  echo > /tmp/x; echo none > /dev/null; cat /tmp/x /no/such/path 2>/dev/null; echo end";
    let hidden = lab.image().join("srv/hidden");
    fs::create_dir(&hidden).unwrap();
    fs::write(hidden.join("file"), "").unwrap();
    fs::write(lab.image().join("srv/secret"), "secret").unwrap();
    let container = lab.shell(script, |spec| {
        spec["linux"]["maskedPaths"] = json!([
            "/etc/passwd",
            "/srv/secret",
            "/srv/hidden",
            "/root",
            "/no/such/path"
        ]);
        spec["linux"]["readonlyPaths"] = json!(["/etc", "/no/such/path"]);
        spec["root"]["readonly"] = json!(true);
        spec["mounts"][1]["options"] = json!(["nosuid", "ro", "mode=755"]);
    });
    assert_eq!(container.finish(), (Ended::Exited(0), "\nend\n".to_owned()));
    fs::remove_dir_all(hidden).unwrap();
    fs::remove_file(lab.image().join("srv/secret")).unwrap();
}

/// As in an image that was copied from a running system.
fn a_device_that_is_there_may_stay(lab: &Lab) {
    let (mut job, output) = lab.create_job(|spec| {
        spec["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| mount["destination"] != "/dev");
        spec["process"]["args"] = json!(["stat", "-c", "%F", "/dev/null", "/dev/zero"]);
    });
    image_with(lab, &mut job, |image| {
        let null = nix::sys::stat::makedev(1, 3);
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
        let kind = nix::sys::stat::SFlag::S_IFCHR;
        nix::sys::stat::mknod(&image.join("dev/null"), kind, mode, null).unwrap();
    });
    let container = lab.created(job, output).unwrap();
    let device = "character special file\n";
    assert_eq!(container.run().1, device.repeat(2));
}
