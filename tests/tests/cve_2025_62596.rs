//! CVE-2025-62596 (youki): the file that a profile is written to, /proc/self/attr/apparmor/exec, may be
//! something else, and the container runs unconfined. Here nothing may be mounted there, not by way of a
//! link either; that the profile is written to the kernel whatever is there is tested where there is
//! AppArmor, in a guest.
use std::fs;
use std::os::unix::fs::symlink;

use husk_tests::containerd::Containerd;

#[test]
fn nothing_is_mounted_where_profiles_are_written() {
    let containerd = Containerd::of_the_suite();
    for destination in [
        "/proc/self/attr",
        "/proc/self/attr/exec",
        "/proc/thread-self/attr/apparmor/exec",
        "/proc/1/attr/current",
        "/attributes/exec",
        "/srv/../proc/self/attr/exec",
    ] {
        let container = containerd.ctr().container();
        let folder = container.folder();
        let (rootfs, fake) = (folder.join("rootfs"), folder.join("fake"));
        fs::create_dir_all(&rootfs).unwrap();
        husk_tests::image::rootfs(&rootfs).unwrap();
        symlink("/proc/self/attr", rootfs.join("attributes")).unwrap();
        fs::write(&fake, "").unwrap();
        let mount = format!(
            "--mount=type=bind,src={},dst={destination},options=rbind:rw",
            fake.display()
        );
        let output = container
            .rootfs(&rootfs.to_string_lossy())
            .flag(&mount)
            .run(&["true"]);
        assert_ne!(output.code, 0, "{destination}: {output:?}");
        assert_eq!(fs::read_to_string(&fake).unwrap(), "");
    }
}
