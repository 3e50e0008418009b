//! A pod that lives long: its shim keeps no descriptor, no zombie and no memory of what is over.
use std::fs;

use husk_tests::containerd::Containerd;
use husk_tests::cri::{Container, Mode, Pod};
use husk_tests::process;
use nix::unistd::Pid;

in_both_modes!(
    execs_leave_nothing_in_the_shim,
    containers_leave_nothing_in_the_shim
);

/// What one process of the shim holds.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    children: usize,
}

fn held(pod: &Pod<'_>) -> Vec<Held> {
    let processes = process::shim_processes(&pod.ids()).into_iter();
    processes
        .map(|pid| Held {
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            children: process::descendants(pid).len(),
        })
        .collect()
}

/// Memory that belongs to the shim's processes alone, in KiB.
fn memory(pod: &Pod<'_>) -> u64 {
    let processes = process::shim_processes(&pod.ids()).into_iter();
    processes.map(private_dirty).sum()
}

fn private_dirty(pid: Pid) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Private_Dirty:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok())
        .unwrap_or(0)
}

/// Does this often, after a few times to warm up, and compares what the shim holds.
#[track_caller]
fn repeat(pod: &Pod<'_>, mut once: impl FnMut()) {
    for _ in 0..10 {
        once();
    }
    let (before, memory_before) = (held(pod), memory(pod));
    for _ in 0..60 {
        once();
    }
    // A descriptor or two may be in use at this very moment; one each time would be sixty.
    let after = held(pod);
    assert_eq!(before.len(), after.len(), "{before:?} {after:?}");
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.children, after.children, "{before:?} {after:?}");
        assert!(
            after.descriptors <= before.descriptors + 5,
            "{before:?} {after:?}"
        );
    }
    let grown = memory(pod).saturating_sub(memory_before);
    assert!(grown < 512, "{grown} KiB more than before");
}

fn execs_leave_nothing_in_the_shim(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let app = pod.sleeper("app");
    repeat(&pod, || {
        let _ = app.exec(&["true"]).ok();
    });
}

fn containers_leave_nothing_in_the_shim(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod(mode).run();
    let mut count = 0;
    repeat(&pod, || {
        count += 1;
        let app: Container<'_, '_> = pod.container(&format!("app-{count}"), &["true"]).start();
        assert_eq!(app.until_exited().exit_code, 0);
        app.remove();
    });
}
