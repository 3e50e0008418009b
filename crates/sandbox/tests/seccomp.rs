//! System call filters: what is newer than a profile, and who is asked.
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
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use husk_sandbox::error::JobErrorKind;
use husk_sandbox::job::{Inherited, Job};
use husk_sandbox::process::Ended;
use libseccomp::{ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use support::{Lab, read_all, run, shell_process, wait};

/// The name under which a container runs this very program.
const CALLER: &str = "/srv/caller";

fn main() {
    if std::env::args().next().as_deref() == Some(CALLER) {
        return call();
    }
    run(&[
        (
            "a_call_newer_than_the_profile_is_not_there",
            a_call_newer_than_the_profile,
        ),
        (
            "a_listener_hears_of_init_and_exec",
            a_listener_hears_of_init_and_exec,
        ),
        (
            "a_listener_that_is_missing_is_said",
            a_listener_that_is_missing,
        ),
        (
            "a_number_that_no_answer_has_is_refused",
            a_number_that_no_answer_has,
        ),
    ]);
}

/// Runs in the container: makes the calls that its arguments are the numbers of.
fn call() {
    for number in std::env::args().skip(1) {
        let number: libc::c_long = number.parse().unwrap();
        // SAFETY: no call of these numbers does anything with such arguments.
        let answer = unsafe { libc::syscall(number, -1, 0, 0, 0, 0, 0) };
        let errno = nix::errno::Errno::last();
        println!(
            "{number} {}",
            if answer < 0 {
                format!("{errno:?}")
            } else {
                "done".into()
            }
        );
    }
}

/// Shows this program, and what it needs, to a container.
fn with_caller(spec: &mut Value) {
    let mounts = spec["mounts"].as_array_mut().unwrap();
    let program = std::env::current_exe().unwrap();
    mounts.push(json!({"destination": CALLER, "source": program, "options": ["bind", "ro"]}));
    for directory in ["/lib", "/lib64", "/usr/lib"] {
        if fs::metadata(directory).is_ok() {
            mounts.push(
                json!({"destination": directory, "source": directory, "options": ["rbind", "ro"]}),
            );
        }
    }
}

/// Names old calls, one with a condition, and close_range (436) as the newest.
fn profile() -> Value {
    let names = [
        "read",
        "write",
        "close",
        "mmap",
        "munmap",
        "mprotect",
        "brk",
        "execve",
        "exit_group",
        "openat",
        "open",
        "fstat",
        "newfstatat",
        "pread64",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "getrandom",
        "futex",
        "sigaltstack",
        "rt_sigaction",
        "rt_sigprocmask",
        "poll",
        "sched_getaffinity",
        "access",
        "lseek",
        "ioctl",
        "fcntl",
        "statx",
        "gettid",
        "getpid",
        "mremap",
        "madvise",
        "close_range",
        "no_such_call_yet",
    ];
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": names.as_slice(), "action": "SCMP_ACT_ALLOW"}],
    })
}

fn a_call_newer_than_the_profile(lab: &Lab) {
    // mount_setattr is 442, mseal 462; pivot_root 155 is older than the newest that is named.
    let calls = ["155", "435", "437", "442", "462", "1000"];
    let expected = "155 EPERM\n435 EPERM\n437 ENOSYS\n442 ENOSYS\n462 ENOSYS\n1000 ENOSYS\n";
    for no_new_privileges in [true, false] {
        let container = lab.create(|spec| {
            with_caller(spec);
            spec["process"]["args"] = json!([&[CALLER][..], &calls].concat());
            spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
            spec["linux"]["seccomp"] = if no_new_privileges {
                profile()
            } else {
                with(profile())
            };
        });
        let (ended, said) = container.run();
        assert_eq!((ended, said.as_str()), (Ended::Exited(0), expected));
    }
    // A default that lets calls pass is no list.
    let container = lab.create(|spec| {
        with_caller(spec);
        spec["process"]["args"] = json!([CALLER, "437"]);
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}],
        });
    });
    assert_ne!(container.run().1, "437 ENOSYS\n");
}

/// With what setting up needs after a filter that is loaded early.
fn with(mut profile: Value) -> Value {
    profile["syscalls"].as_array_mut().unwrap().push(json!({
        "names": ["capget", "capset", "prctl", "getcwd", "chdir", "stat", "lstat", "getuid", "geteuid",
                  "faccessat", "readlink", "rt_sigreturn", "readlinkat", "dup", "dup2"],
        "action": "SCMP_ACT_ALLOW",
    }));
    profile
}

/// What a listener was told, and the calls it is asked about from then on.
fn accept(listener: &UnixListener) -> (Value, OwnedFd) {
    let (socket, _) = listener.accept().unwrap();
    let mut bytes = [0; 4096];
    let mut control = nix::cmsg_space!(RawFd);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::empty(),
    )
    .unwrap();
    let fd = message
        .cmsgs()
        .unwrap()
        .find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        })
        .unwrap();
    let length = message.bytes;
    let mut text = bytes[..length].to_vec();
    let mut socket: UnixStream = socket;
    socket.read_to_end(&mut text).unwrap();
    // SAFETY: the kernel has just installed this descriptor for us; no one else owns it.
    (serde_json::from_slice(&text).unwrap(), unsafe {
        OwnedFd::from_raw_fd(fd)
    })
}

/// Answers one call with an error that no kernel has for it.
fn answer_one(fd: &OwnedFd) {
    let request = ScmpNotifReq::receive(fd.as_raw_fd()).unwrap();
    ScmpNotifResp::new_error(request.id, -libc::EUCLEAN, ScmpNotifRespFlags::empty())
        .respond(fd.as_raw_fd())
        .unwrap();
}

fn asking(lab: &Lab) -> (UnixListener, Value) {
    let path = lab.run_dir().join("listener.sock");
    let _ = fs::remove_file(&path);
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "of the test",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    });
    (UnixListener::bind(&path).unwrap(), profile)
}

fn a_listener_hears_of_init_and_exec(lab: &Lab) {
    let script = "mkdir /tmp/x 2>&1";
    for no_new_privileges in [true, false] {
        let (listener, profile) = asking(lab);
        let agent = thread::spawn(move || {
            let (said, fd) = accept(&listener);
            answer_one(&fd);
            (said, listener)
        });
        let mut container = lab.shell(&format!("{script}; echo asked; sleep 60"), |spec| {
            spec["linux"]["seccomp"] = profile.clone();
            spec["annotations"] = json!({"a": "b"});
            spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        });
        let output = container.read_until("asked\n");
        assert!(output.contains("tructure needs cleaning"), "{output}");
        let (said, listener) = agent.join().unwrap();
        let state = json!({
            "ociVersion": "1.2.0", "fds": ["seccompFd"], "pid": container.init.pid,
            "metadata": "of the test",
            "state": {
                "ociVersion": "1.2.0", "id": container.id, "status": "creating",
                "pid": container.init.pid, "bundle": container.dir, "annotations": {"a": "b"},
            },
        });
        assert_eq!(said, state);

        let agent = thread::spawn(move || {
            let (said, fd) = accept(&listener);
            answer_one(&fd);
            said
        });
        let mut process = shell_process(script);
        process["noNewPrivileges"] = json!(no_new_privileges);
        let (mut job, output) = support::exec_job(&container.id, container.init.pid, process, None);
        job.container = Box::new(Inherited {
            bundle: container.dir.clone(),
            seccomp: serde_json::from_value(profile).unwrap(),
            ..*job.container
        });
        let process = lab.perform(Job::Exec(job)).unwrap().process.unwrap();
        assert_eq!(wait(&process), Ended::Exited(1));
        assert!(read_all(output).contains("tructure needs cleaning"));
        let said = agent.join().unwrap();
        assert_eq!(said["state"]["status"], "running");
        assert_eq!(
            (&said["pid"], &said["state"]["pid"]),
            (&json!(process.pid), &json!(container.init.pid))
        );
        container.kill();
        fs::remove_file(lab.run_dir().join("listener.sock")).unwrap();
    }
}

fn a_listener_that_is_missing(lab: &Lab) {
    let nowhere = lab.run_dir().join("nowhere.sock");
    for (path, name) in [
        (json!(nowhere), "mkdir"),
        (Value::Null, "mkdir"),
        (json!(nowhere), "write"),
    ] {
        let refused = lab.try_create(|spec| {
            spec["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
                "syscalls": [{"names": [name], "action": "SCMP_ACT_NOTIFY"}],
            });
        });
        let error = refused.err().expect("nobody would answer");
        assert_ne!(error.kind, JobErrorKind::Failed, "{error}");
        assert!(error.message.contains("linux.seccomp"), "{error}");
    }
}

fn a_number_that_no_answer_has(lab: &Lab) {
    let rule = |action: &str, errno: u32| {
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": action, "errnoRet": errno}],
        })
    };
    for (profile, words) in [
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            ["defaultErrnoRet", "SCMP_ACT_ALLOW"],
        ),
        (rule("SCMP_ACT_KILL_PROCESS", 1), ["errnoRet", "mkdir"]),
        (rule("SCMP_ACT_LOG", 0), ["errnoRet", "mkdir"]),
        (rule("SCMP_ACT_ERRNO", 4096), ["4096", "4095"]),
        (rule("SCMP_ACT_TRACE", 65536), ["65536", "65535"]),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "for nobody"}),
            ["listenerMetadata", "listenerPath"],
        ),
    ] {
        let refused = lab.try_create(|spec| spec["linux"]["seccomp"] = profile.clone());
        let error = refused
            .err()
            .unwrap_or_else(|| panic!("{profile} was taken"));
        assert_eq!(error.kind, JobErrorKind::Invalid, "{error}");
        for word in words {
            assert!(error.message.contains(word), "no {word:?} in {error}");
        }
    }
    let container = lab.shell("mkdir /tmp/x 2>&1; true", |spec| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
            "syscalls": [{
                "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EUCLEAN,
            }],
        });
    });
    let said = container.finish().1;
    assert!(said.contains("tructure needs cleaning"), "{said}");
}
