//! What a container's life costs in CPU time: `life BUNDLE COUNT [EXECS | RUNTIME]`.
//!
//! The bundle's container, which must end by itself, is created, started, waited for and deleted
//! COUNT times, either by the zygote as the shim has it done, or by an OCI runtime's `run`. With
//! EXECS, its init is replaced by a `sleep`, in which its program is executed so many times. All
//! processes are waited for, so that their times are in this one's; run it as root.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement that cannot be made fails by panicking"
)]
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use husk_sandbox::cgroup::{Cgroup, Driver};
use husk_sandbox::job::{Create, Done, Exec, Inherited, Job, Stdio};
use husk_sandbox::process::Pidfd;
use husk_sandbox::rootfs::{Mount, unmount_all};
use husk_sandbox::zygote::Zygote;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use oci_spec::runtime::Spec;

fn main() {
    let mut args = std::env::args().skip(1);
    let bundle = PathBuf::from(args.next().expect("BUNDLE"));
    let count: u32 = args.next().expect("COUNT").parse().expect("a number");
    let last = args.next();
    let execs = last.as_deref().and_then(|text| text.parse::<u32>().ok());
    let began = Instant::now();
    let lives = match (&last, execs) {
        (_, Some(execs)) => {
            let before = by_husk(&bundle, 1, 0);
            let after = by_husk(&bundle, 1, execs);
            println!(
                "exec: {:.2} ms of CPU each",
                (after - before) / f64::from(execs)
            );
            return;
        }
        (Some(runtime), None) => by_runtime(&bundle, count, runtime),
        (None, None) => by_husk(&bundle, count, 0),
    };
    let count = f64::from(count);
    println!(
        "{}: {:.2} ms of CPU, {:.2} ms each",
        last.as_deref().unwrap_or("husk"),
        lives / count,
        began.elapsed().as_secs_f64() * 1000.0 / count
    );
}

/// CPU time of this process and all it has waited for, in milliseconds.
fn cpu() -> f64 {
    let of = |who| {
        let usage = getrusage(who).expect("getrusage(2)");
        [usage.user_time(), usage.system_time()]
            .iter()
            .map(|time| time.tv_sec() as f64 * 1000.0 + time.tv_usec() as f64 / 1000.0)
            .sum::<f64>()
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}

fn by_runtime(bundle: &Path, count: u32, runtime: &str) -> f64 {
    let before = cpu();
    for number in 0..count {
        let status = Command::new(runtime)
            .arg("run")
            .arg("--bundle")
            .arg(bundle)
            .arg(format!("life-{}-{number}", std::process::id()))
            .status();
        assert!(status.expect("run").success());
    }
    cpu() - before
}

fn by_husk(bundle: &Path, count: u32, execs: u32) -> f64 {
    nix::sys::prctl::set_child_subreaper(true).expect("prctl(2)");
    let before = cpu();
    let zygote = Zygote::fork().expect("a zygote");
    for number in 0..count {
        live(&zygote, bundle, number, execs);
    }
    let process = Pidfd::open(zygote.process().pid).expect("pidfd_open(2)");
    drop(zygote);
    wait(&process);
    cpu() - before
}

fn live(zygote: &Zygote, bundle: &Path, number: u32, execs: u32) {
    let text = fs::read(bundle.join("config.json")).expect("config.json");
    let mut spec: Spec = serde_json::from_slice(&text).expect("a spec");
    let id = format!("life-{}-{number}", std::process::id());
    let dir = std::env::temp_dir().join(&id);
    let rootfs = dir.join("rootfs");
    fs::create_dir_all(&dir).expect("a directory");
    if let Some(root) = spec.root_mut() {
        root.set_path(rootfs.clone());
    }
    let cgroups_path = format!("/life/{id}");
    if let Some(linux) = spec.linux_mut() {
        linux.set_cgroups_path(Some(PathBuf::from(&cgroups_path)));
    }
    let process = spec.process().clone().expect("a process");
    let seccomp = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().clone());
    if let Some(process) = spec.process_mut().as_mut().filter(|_| execs > 0) {
        process.set_args(Some(["/bin/sleep", "1000"].map(str::to_owned).into()));
    }
    fs::write(
        dir.join("config.json"),
        serde_json::to_vec(&spec).expect("JSON"),
    )
    .expect("config.json");
    let mount = Mount {
        kind: "bind".to_owned(),
        source: bundle.join("rootfs").display().to_string(),
        target: String::new(),
        options: vec!["rbind".to_owned()],
    };
    let made = perform(
        zygote,
        Job::Create(Create {
            id: id.clone(),
            bundle: bundle.to_owned(),
            dir: dir.clone(),
            rootfs: rootfs.clone(),
            mounts: vec![mount],
            maps_rootfs: false,
            stdio: Stdio::default(),
            driver: Driver::Cgroupfs,
            loopback: true,
        }),
    );
    let init = made.process.expect("an init");
    husk_sandbox::start(&dir).expect("a start");
    let mut reason = String::new();
    let mut started = File::from(made.started.expect("a pipe"));
    started.read_to_string(&mut reason).expect("a pipe");
    assert_eq!(reason, "");
    for _ in 0..execs {
        let job = Job::Exec(Exec {
            container: Box::new(Inherited {
                seccomp: seccomp.clone(),
                ..Inherited::default()
            }),
            init: init.pid,
            process: process.clone(),
            stdio: Stdio::default(),
        });
        wait(&perform(zygote, job).process.expect("a process"));
    }
    if execs > 0 {
        init.signal(9).expect("a signal");
    }
    wait(&init);
    unmount_all(&rootfs).expect("umount(2)");
    fs::remove_dir_all(&dir).expect("rmdir(2)");
    let cgroup = Cgroup::named(Driver::Cgroupfs, Some(&cgroups_path), &id).expect("a cgroup");
    cgroup.remove().expect("rmdir(2)");
}

fn perform(zygote: &Zygote, job: Job) -> Done {
    zygote.send(1, job).expect("a zygote");
    loop {
        if let Some((_, result)) = zygote.receive().expect("a zygote") {
            return result.expect("a container");
        }
        readable(zygote);
    }
}

fn wait(process: &Pidfd) {
    readable(&process.fd);
    process.try_wait().expect("waitid(2)");
}

fn readable(fd: &impl std::os::fd::AsFd) {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::NONE).expect("poll(2)");
}
