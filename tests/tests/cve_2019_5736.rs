//! CVE-2019-5736: a container must not be able to overwrite the runtime's own program.
use std::fs;
use std::path::PathBuf;
use std::thread;

use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::process;

/// The programs that make containers here, with their contents.
fn programs(containerd: &Containerd, id: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let shims = process::shims(&[id.to_owned()]);
    let mut paths: Vec<PathBuf> = shims
        .into_iter()
        .map(|pid| fs::read_link(format!("/proc/{pid}/exe")).unwrap())
        .collect();
    paths.push(containerd.lab().programs.join("bin/runc"));
    paths
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn an_exec_of_proc_self_exe_runs_nothing_of_the_runtime() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    // Were the runtime still itself at the moment of execve, this would run the runtime.
    let output = container.run(&["/proc/self/exe", "--version"]);
    assert!(
        !output.stdout.contains("runc") && !output.stdout.contains("husk"),
        "{output:?}"
    );
}

#[test]
fn a_process_that_joins_cannot_be_written_through() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    // For every process that appears, this tries to open its program for writing.
    let script = "touch /ready; while :; do for exe in /proc/[0-9]*/exe; do
        case $exe in /proc/1/exe|/proc/$$/exe) continue;; esac
        ( exec 9>>$exe && echo overwritten >&9 && echo $exe >> /won ) 2>/dev/null
    done; done";
    container.start(&["sh", "-c", script]);
    until("the attack runs", || {
        container.exec(&["test", "-e", "/ready"]).code == 0
    });
    let before = programs(&containerd, &container.id);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..10 {
                    container.exec(&["/bin/true"]);
                }
            });
        }
    });
    for (path, contents) in before {
        assert!(
            fs::read(&path).unwrap() == contents,
            "{} was overwritten",
            path.display()
        );
    }
}
