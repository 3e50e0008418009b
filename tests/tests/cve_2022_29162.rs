//! CVE-2022-29162: no process begins with inheritable capabilities that nobody asked for: a file with
//! inheritable capabilities of its own would turn them into permitted ones.
use husk_tests::containerd::Containerd;

const OF_NOBODY: &str = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";

#[test]
fn no_process_begins_with_inheritable_capabilities() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let words = ["grep", "-E", "Cap(Inh|Amb)", "/proc/self/status"];
    assert_eq!(container.run(&words).ok(), OF_NOBODY);

    for flags in [&[][..], &["--cap-add=CAP_SYS_PTRACE"], &["--privileged"]] {
        let mut container = containerd.ctr().container();
        for flag in flags {
            container = container.flag(flag);
        }
        container.start(&["sleep", "1000000"]);
        assert_eq!(container.exec(&words).ok(), OF_NOBODY, "{flags:?}");
    }
}
