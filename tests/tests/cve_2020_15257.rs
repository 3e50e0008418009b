//! CVE-2020-15257: a shim is not to be reached through an abstract socket, which a container that shares
//! the node's network could connect to.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use husk_tests::containerd::Containerd;
use husk_tests::process;

#[test]
fn a_container_on_the_nodes_network_sees_no_socket_of_a_shim() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container().flag("--net-host");
    container.start(&["sleep", "1000000"]);
    let listed = container.exec(&["cat", "/proc/net/unix"]).ok();
    let shims = process::shim_processes(std::slice::from_ref(&container.id));
    assert!(!shims.is_empty());
    let sockets = shims.iter().flat_map(|pid| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
            .filter_map(|to| {
                Some(
                    to.to_str()?
                        .strip_prefix("socket:[")?
                        .trim_end_matches(']')
                        .to_owned(),
                )
            })
            .collect::<Vec<_>>()
    });
    let mut listening = 0;
    for inode in sockets {
        let mut lines = listed
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let Some(line) = lines.find(|fields| fields.get(6) == Some(&inode.as_str())) else {
            continue;
        };
        let Some(name) = line.get(7) else { continue };
        assert!(name.starts_with('/'), "an abstract socket: {line:?}");
        let socket = fs::symlink_metadata(name).unwrap();
        assert_eq!(
            (socket.uid(), socket.permissions().mode() & 0o777),
            (0, 0o600),
            "{line:?}"
        );
        listening += 1;
    }
    assert!(listening > 0, "the shim's socket has a path: {listed}");
}
