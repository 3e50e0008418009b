//! What `husk run` prints, and its exit status.
use crate::node::{Node, lines_of, stderr, stdout};

crate::under_each_shim!(
    lines_carry_the_container_s_name,
    the_first_failure_is_the_exit_status,
    both_streams_are_printed,
);

fn lines_carry_the_container_s_name(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  containers:\n\
         \x20 - {name: a, image: ROOTFS, command: [sh, -c, 'echo one; echo two']}\n\
         \x20 - {name: long-name, image: ROOTFS, command: [echo, three]}\n",
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let mut lines: Vec<_> = stdout(&output).lines().map(ToOwned::to_owned).collect();
    lines.sort();
    assert_eq!(
        lines,
        ["a         | one", "a         | two", "long-name | three"]
    );
    node.assert_nothing_left();
}

fn the_first_failure_is_the_exit_status(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  containers:\n\
         \x20 - {name: a, image: ROOTFS, command: [sh, -c, 'until test -e /dev/shm/b; do sleep 0.1; done; sleep 1; exit 9']}\n\
         \x20 - {name: b, image: ROOTFS, command: [sh, -c, 'touch /dev/shm/b; exit 7']}\n\
         \x20 - {name: c, image: ROOTFS, command: ['true']}\n",
    );
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("b | exited with status 7"),
        "{}",
        stderr(&output)
    );
    node.assert_nothing_left();
}

fn both_streams_are_printed(node: &Node) {
    let output = node.run(
        "  restartPolicy: Never\n  containers:\n\
         \x20 - {name: a, image: ROOTFS, command: [sh, -c, 'echo out; sleep 0.2; echo err >&2; sleep 0.2; printf end; sleep 0.5']}\n",
    );
    assert_eq!(lines_of(&output, "a"), ["out", "err", "end"]);
}
