//! Security modules: labels and profiles confine init and exec, or are refused.
//!
//! A kernel has one of them or none, and `HUSK_LSM` says which: `tests/lab/lsm` sets it in a guest
//! that was booted so.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test, though one with a runner of its own"
)]
mod support;

use std::ffi::{CStr, CString};
use std::fs;
use std::path::{Path, PathBuf};

use husk_sandbox::error::{JobError, JobErrorKind};
use husk_sandbox::process::Ended;
use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};
use support::{Container, Lab, Test, read_all, run, shell_process, wait};

const CONTAINER: &str = "system_u:system_r:container_t";
const FILES: &str = "system_u:object_r:container_file_t";
const SECRET: &str = "system_u:object_r:secret_t";
const PROFILE: &str = "husk-lab";

/// The name under which a container runs this very program.
const LOOKER: &str = "/srv/looker";

fn main() {
    if std::env::args().next().as_deref() == Some(LOOKER) {
        return look();
    }
    let module = std::env::var("HUSK_LSM").unwrap_or_default();
    let selinux: &[Test] = &[
        (
            "a_label_confines_init_and_exec",
            a_label_confines_init_and_exec,
        ),
        (
            "a_label_confines_without_new_privileges",
            a_label_confines_with_privileges,
        ),
        ("files_have_the_mount_label", files_have_the_mount_label),
        ("keys_have_the_process_label", keys_have_the_process_label),
        (
            "what_hides_the_attributes_does_not_unconfine",
            what_hides_the_attributes_of_selinux,
        ),
        (
            "a_label_that_is_none_is_refused",
            a_label_that_is_none_is_refused,
        ),
    ];
    let apparmor: &[Test] = &[
        (
            "a_profile_confines_init_and_exec",
            a_profile_confines_init_and_exec,
        ),
        (
            "what_hides_the_attributes_does_not_unconfine",
            what_hides_the_attributes_of_apparmor,
        ),
        (
            "a_profile_that_is_missing_is_refused",
            a_profile_that_is_missing_is_refused,
        ),
    ];
    let no_selinux: Test = ("without_selinux_a_label_is_refused", without_selinux);
    let no_apparmor: Test = ("without_apparmor_a_profile_is_refused", without_apparmor);
    let tests = match module.as_str() {
        "selinux" => [selinux, &[no_apparmor]].concat(),
        "apparmor" => [apparmor, &[no_selinux]].concat(),
        "" => vec![no_selinux, no_apparmor],
        other => panic!("HUSK_LSM is {other}"),
    };
    run(&tests);
}

fn refused(created: Result<Container, JobError>, words: &[&str]) {
    let error = created
        .err()
        .unwrap_or_else(|| panic!("not refused: {words:?}"));
    assert_eq!(error.kind, JobErrorKind::Invalid, "{error}");
    for word in words {
        assert!(error.message.contains(word), "{error}");
    }
}

fn without_selinux(lab: &Lab) {
    if Path::new("/sys/fs/selinux/enforce").exists() {
        return;
    }
    let words = ["selinuxLabel", CONTAINER, "not enabled"];
    refused(
        lab.try_create(|spec| spec["process"]["selinuxLabel"] = json!(CONTAINER)),
        &words,
    );
    let words = ["mountLabel", FILES, "not enabled"];
    refused(
        lab.try_create(|spec| spec["linux"]["mountLabel"] = json!(FILES)),
        &words,
    );
    let container = lab.shell("sleep 60", |spec| {
        spec["process"]["selinuxLabel"] = json!("")
    });
    let mut process = shell_process("true");
    process["selinuxLabel"] = json!(CONTAINER);
    let error = lab.exec(&container, process).unwrap_err();
    assert!(error.message.contains("selinuxLabel"), "{error}");
    container.kill();
}

fn without_apparmor(lab: &Lab) {
    let words = ["apparmorProfile", PROFILE, "not enabled"];
    refused(
        lab.try_create(|spec| spec["process"]["apparmorProfile"] = json!(PROFILE)),
        &words,
    );
    let container = lab.shell("sleep 60", |spec| {
        spec["process"]["apparmorProfile"] = json!("")
    });
    let mut process = shell_process("true");
    process["apparmorProfile"] = json!(PROFILE);
    let error = lab.exec(&container, process).unwrap_err();
    assert!(error.message.contains("apparmorProfile"), "{error}");
    container.kill();
}

/// A volume with a secret, below the lab.
struct Secret(PathBuf);

impl Secret {
    fn new(lab: &Lab, options: Option<&str>) -> Self {
        let path = lab.run_dir().join("secret");
        fs::create_dir(&path).unwrap();
        mount(
            Some("secret"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            options,
        )
        .unwrap();
        fs::write(path.join("file"), "secret\n").unwrap();
        Self(path)
    }

    fn show(&self, spec: &mut Value) {
        let mount = json!({"destination": "/srv/secret", "source": self.0, "options": ["rbind"]});
        spec["mounts"].as_array_mut().unwrap().push(mount);
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        umount(&self.0).unwrap();
        fs::remove_dir(&self.0).unwrap();
    }
}

/// Who the process is, and what it may read.
const SCRIPT: &str = "cat /proc/self/attr/current; echo; cat /srv/secret/file 2>&1; \
                      cat /etc/passwd > /dev/null && echo the rest; echo > /tmp/x && echo end";

/// Runs the script as init and by exec, confined by `field`.
fn confine(lab: &Lab, field: &str, value: &str, edit: impl Fn(&mut Value)) {
    let script = format!("{SCRIPT}; sleep 60");
    let mut container = lab.shell(&script, |spec| {
        spec["process"][field] = json!(value);
        edit(spec);
    });
    let init = container.read_until("end\n");
    let mut process = shell_process(SCRIPT);
    process[field] = json!(value);
    process["noNewPrivileges"] = json!(true);
    let (process, output) = lab
        .exec(&container, process)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(wait(&process), Ended::Exited(0));
    for said in [init, read_all(output)] {
        assert!(said.starts_with(value), "{said}");
        assert!(
            said.contains("ermission denied") && !said.contains("secret\n"),
            "{said}"
        );
        assert!(said.contains("the rest\nend\n"), "{said}");
    }
    // Whoever asks for nothing is not confined.
    let (_, said) = lab.exec_shell(&container, SCRIPT);
    assert!(said.contains("secret\n"), "{said}");
    container.kill();
}

fn labelled(lab: &Lab) -> Secret {
    Secret::new(lab, Some(&format!("context=\"{SECRET}\"")))
}

fn a_label_confines_init_and_exec(lab: &Lab) {
    let secret = labelled(lab);
    confine(lab, "selinuxLabel", CONTAINER, |spec| secret.show(spec));
}

fn a_label_confines_with_privileges(lab: &Lab) {
    let secret = labelled(lab);
    confine(lab, "selinuxLabel", CONTAINER, |spec| {
        secret.show(spec);
        spec["process"]["noNewPrivileges"] = json!(false);
    });
}

/// CVE-2025-52881, CVE-2019-16884: what is written goes to the kernel, whatever /proc shows.
fn hide_attributes(spec: &mut Value) {
    spec["linux"]["maskedPaths"] = json!([
        "/proc/self/attr",
        "/proc/1/attr",
        "/proc/thread-self/attr",
        "/proc/1/task/1/attr"
    ]);
}

fn what_hides_the_attributes_of_selinux(lab: &Lab) {
    let secret = labelled(lab);
    let container = lab.shell(SCRIPT, |spec| {
        secret.show(spec);
        hide_attributes(spec);
        spec["process"]["selinuxLabel"] = json!(CONTAINER);
    });
    let said = container.finish().1;
    assert!(
        said.contains("ermission denied") && !said.contains("secret\n"),
        "{said}"
    );
}

fn files_have_the_mount_label(lab: &Lab) {
    let container = lab.create(|spec| {
        with_looker(spec);
        spec["linux"]["mountLabel"] = json!(FILES);
        spec["linux"]["maskedPaths"] = json!(["/root"]);
        spec["mounts"].as_array_mut().unwrap().push(json!(
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": []}
        ));
    });
    let said = container.run().1;
    for place in ["/dev", "/tmp", "/dev/pts", "/dev/mqueue", "/root"] {
        assert!(
            said.contains(&format!("{place} {FILES}\n")),
            "{place} in {said}"
        );
    }
    let context = format!("context={FILES}");
    let with_context = said.lines().filter(|line| line.contains(&context)).count();
    assert_eq!(
        with_context, 4,
        "tmpfs of /dev, /tmp and /root, and devpts: {said}"
    );
}

fn keys_have_the_process_label(lab: &Lab) {
    let container = lab.create(|spec| {
        with_looker(spec);
        spec["process"]["selinuxLabel"] = json!(CONTAINER);
    });
    let said = container.run().1;
    assert!(said.contains(&format!("session {CONTAINER}\n")), "{said}");
}

fn a_label_that_is_none_is_refused(lab: &Lab) {
    let words = ["selinuxLabel", "no_such_label"];
    refused(
        lab.try_create(|spec| spec["process"]["selinuxLabel"] = json!("no_such_label")),
        &words,
    );
    let created = lab.try_create(|spec| spec["linux"]["mountLabel"] = json!("no_such_label"));
    assert!(created.is_err());
}

fn a_profile_confines_init_and_exec(lab: &Lab) {
    let secret = Secret::new(lab, None);
    confine(lab, "apparmorProfile", PROFILE, |spec| secret.show(spec));
}

fn what_hides_the_attributes_of_apparmor(lab: &Lab) {
    let secret = Secret::new(lab, None);
    let container = lab.shell(SCRIPT, |spec| {
        secret.show(spec);
        hide_attributes(spec);
        spec["process"]["apparmorProfile"] = json!(PROFILE);
    });
    let said = container.finish().1;
    assert!(
        said.contains("ermission denied") && !said.contains("secret\n"),
        "{said}"
    );
}

fn a_profile_that_is_missing_is_refused(lab: &Lab) {
    let words = ["apparmorProfile", "no-such-profile", "not loaded"];
    refused(
        lab.try_create(|spec| spec["process"]["apparmorProfile"] = json!("no-such-profile")),
        &words,
    );
    let container = lab.shell("sleep 60", |_| {});
    let mut process = shell_process("true");
    process["apparmorProfile"] = json!("no-such-profile");
    let error = lab.exec(&container, process).unwrap_err();
    assert!(error.message.contains("not loaded"), "{error}");
    container.kill();
}

/// Has the container run this program, and shows it what that needs.
fn with_looker(spec: &mut Value) {
    let program = std::env::current_exe().unwrap();
    spec["process"]["args"] = json!([LOOKER]);
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": LOOKER, "source": program, "options": ["bind", "ro"]}));
    for directory in ["/lib", "/lib64", "/usr/lib"] {
        if fs::metadata(directory).is_ok() {
            mounts.push(
                json!({"destination": directory, "source": directory, "options": ["rbind", "ro"]}),
            );
        }
    }
}

/// Runs in the container: says the labels of places, of the session keyring, and all mounts.
fn look() {
    const GET_SECURITY: libc::c_int = 17;
    const SESSION: libc::c_int = -3;
    for place in ["/dev", "/tmp", "/dev/pts", "/dev/mqueue", "/root"] {
        let path = CString::new(place).unwrap();
        let mut label = [0u8; 256];
        // SAFETY: both names are strings, and the kernel writes no more than the buffer's length.
        let read = unsafe {
            libc::getxattr(
                path.as_ptr(),
                c"security.selinux".as_ptr(),
                label.as_mut_ptr().cast(),
                255,
            )
        };
        if read > 0 {
            println!(
                "{place} {}",
                CStr::from_bytes_until_nul(&label)
                    .unwrap()
                    .to_str()
                    .unwrap()
            );
        }
    }
    let mut label = [0u8; 256];
    // SAFETY: the kernel writes no more than the buffer's length.
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            GET_SECURITY,
            SESSION,
            label.as_mut_ptr(),
            255,
        )
    };
    println!(
        "session {}",
        CStr::from_bytes_until_nul(&label)
            .unwrap()
            .to_str()
            .unwrap()
    );
    println!("{}", fs::read_to_string("/proc/self/mountinfo").unwrap());
}
