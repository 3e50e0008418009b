//! CVE-2024-21626: no descriptor of the runtime's, and no working directory outside, leads from a
//! container to the node.
use husk_tests::command::run;
use husk_tests::containerd::Containerd;

#[test]
fn no_working_directory_leads_to_the_node() {
    let containerd = Containerd::of_the_suite();
    for descriptor in 3..16 {
        let cwd = format!("--cwd=/proc/self/fd/{descriptor}");
        let container = containerd.ctr().container().flag(&cwd);
        let output = container.run(&["sh", "-c", "cat ../../../../../../../../proc/1/comm; pwd"]);
        // Refused, or at least nowhere but in the container, whose first process is this shell.
        let is_inside = output.code == 0 && output.stdout.starts_with("sh\n");
        assert!(
            output.code != 0 || is_inside,
            "through descriptor {descriptor}: {output:?}"
        );
    }
}

#[test]
fn no_working_directory_of_an_exec_leads_to_the_node() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    for descriptor in 3..16 {
        let cwd = format!("/proc/self/fd/{descriptor}");
        let words = ["sh", "-c", "cat ../../../../../../../../proc/1/comm"];
        let output = run(&mut container.exec_command(&["--cwd", &cwd], &words));
        let is_inside = output.code == 0 && output.stdout == "sleep\n";
        assert!(
            output.code != 0 || is_inside,
            "through descriptor {descriptor}: {output:?}"
        );
    }
}

#[test]
fn a_container_inherits_three_descriptors_and_no_more() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let list = |pid: &str| container.exec(&["sh", "-c", &format!("ls {pid}")]).ok();
    assert_eq!(list("/proc/1/fd"), "0\n1\n2\n");
    // ls itself has one more, on the folder it lists.
    assert_eq!(list("/proc/self/fd"), "0\n1\n2\n3\n");
}
