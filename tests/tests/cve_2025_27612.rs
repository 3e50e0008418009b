//! CVE-2025-27612: what is executed in a container gets the capabilities that are asked for it, and not
//! those of the container on top, in any set.
use husk_tests::command::run;
use husk_tests::containerd::Containerd;

#[test]
fn an_exec_has_no_capability_that_the_container_has_not() {
    let containerd = Containerd::of_the_suite();
    for flags in [
        &[][..],
        &["--cap-drop=CAP_CHOWN"],
        &["--cap-add=CAP_SYS_TIME"],
    ] {
        let mut container = containerd.ctr().container();
        for flag in flags {
            container = container.flag(flag);
        }
        container.start(&["sleep", "1000000"]);
        let of = |who: &str| {
            let words = [
                "grep",
                "-E",
                "^(Cap|NoNewPrivs|Seccomp:)",
                &format!("/proc/{who}/status"),
            ];
            container.exec(&words).ok()
        };
        assert_eq!(of("self"), of("1"), "{flags:?}");
    }
}

#[test]
fn an_exec_as_a_user_has_no_capability_at_work() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let words = ["grep", "-E", "Cap(Inh|Prm|Eff|Amb)", "/proc/self/status"];
    let output = run(&mut container.exec_command(&["--user", "1000"], &words)).ok();
    let none = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|set| format!("{set}:\t{:016x}\n", 0));
    assert_eq!(output, none.concat());
}
