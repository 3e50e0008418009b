//! What cannot be done is refused with a reason, and leaves nothing.
use husk_tests::containerd::Containerd;

/// Runs a container that must be refused, and gives the reason. Its drop counts what is left.
#[track_caller]
fn refused(flags: &[&str], words: &[&str]) -> String {
    let containerd = Containerd::of_the_suite();
    let mut container = containerd.ctr().container();
    for flag in flags {
        container = container.flag(flag);
    }
    let output = container.run(words);
    assert_ne!(output.code, 0, "{output:?}");
    assert_eq!(output.stdout, "");
    output.stderr
}

#[test]
fn a_program_that_does_not_exist() {
    let reason = refused(&[], &["/no/such/program"]);
    assert!(reason.contains("/no/such/program"), "{reason}");
}

#[test]
fn a_program_that_is_not_on_the_path() {
    let reason = refused(&[], &["nosuchprogram"]);
    assert!(reason.contains("nosuchprogram"), "{reason}");
}

#[test]
fn a_file_that_is_not_executable() {
    let reason = refused(&[], &["/etc/passwd"]);
    assert!(reason.contains("/etc/passwd"), "{reason}");
}

#[test]
fn a_directory_instead_of_a_program() {
    let reason = refused(&[], &["/etc"]);
    assert!(reason.contains("/etc"), "{reason}");
}

#[test]
fn a_root_filesystem_that_is_not_there() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container().rootfs("/no/such/rootfs");
    let output = container.run(&["true"]);
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("/no/such/rootfs"), "{output:?}");
}

#[test]
fn a_namespace_that_is_gone() {
    let reason = refused(&["--with-ns=network:/run/netns/gone"], &["true"]);
    assert!(reason.contains("/run/netns/gone"), "{reason}");
}

#[test]
fn a_namespace_of_another_kind_than_said() {
    let reason = refused(&["--with-ns=network:/proc/self/ns/uts"], &["true"]);
    assert!(!reason.is_empty());
}

#[test]
fn a_cgroup_that_cannot_be_made() {
    let reason = refused(&["--cgroup=/cgroup.procs/below-a-file"], &["true"]);
    assert!(reason.contains("cgroup"), "{reason}");
}

#[test]
fn a_mount_whose_source_is_not_there() {
    let mount = "--mount=type=bind,src=/no/such/source,dst=/mnt,options=rbind:ro";
    let reason = refused(&[mount], &["true"]);
    assert!(
        reason.contains("/no/such/source") || reason.contains("/mnt"),
        "{reason}"
    );
}

#[test]
fn a_working_directory_that_is_a_file() {
    let reason = refused(&["--cwd=/etc/passwd"], &["true"]);
    assert!(!reason.is_empty());
}

#[test]
fn a_spec_without_a_process() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let config = container.folder().join("config.json");
    let spec =
        serde_json::json!({ "ociVersion": "1.2.0", "root": { "path": "rootfs" }, "linux": {} });
    std::fs::write(&config, spec.to_string()).unwrap();
    let mut command = containerd.ctr().command();
    command.args([
        "run",
        "--rm",
        "--runtime",
        &containerd.lab().runtime,
        "--config",
    ]);
    let output = husk_tests::command::run(command.arg(&config).arg(&container.id));
    assert_ne!(output.code, 0, "{output:?}");
}

#[test]
fn an_id_that_is_taken() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let second = container.task(&["start"]);
    assert!(second.stderr.contains("already exists"), "{second:?}");
    assert_eq!(container.exec(&["echo", "alive"]).ok(), "alive\n");
}
