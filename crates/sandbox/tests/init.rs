//! What init is given of its spec, and what of a spec is left aside, as the specification has it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test, though one with a runner of its own"
)]
mod support;

use std::fs;

use husk_sandbox::process::Ended;
use serde_json::{Value, json};
use support::{Lab, run};

fn main() {
    run(&[
        ("its_limits_are_those_of_the_spec", its_limits),
        (
            "it_has_the_priorities_of_the_spec",
            it_has_the_priorities_of_the_spec,
        ),
        (
            "its_oom_score_stays_if_none_is_asked_for",
            its_oom_score_stays,
        ),
        ("default_devices_and_links_are_there", default_devices),
        (
            "a_device_of_any_type_is_made_as_asked",
            a_device_of_any_type_is_made,
        ),
        (
            "a_device_that_is_another_is_refused",
            a_device_that_is_another_is_refused,
        ),
        ("its_names_are_those_of_the_spec", its_names),
        ("its_clocks_have_their_offsets", its_clocks),
        (
            "a_size_without_a_terminal_is_ignored",
            a_size_without_a_terminal,
        ),
        (
            "properties_that_nobody_knows_are_ignored",
            properties_that_nobody_knows,
        ),
        (
            "a_spec_that_changes_after_the_create_changes_nothing",
            a_spec_that_changes,
        ),
    ]);
}

fn says(lab: &Lab, script: &str, edit: impl FnOnce(&mut Value)) -> String {
    let (ended, said) = lab.shell(script, edit).finish();
    assert_eq!(ended, Ended::Exited(0), "{said}");
    said
}

fn its_limits(lab: &Lab) {
    let names = [
        ("RLIMIT_CPU", "Max cpu time", 1000, 2000),
        ("RLIMIT_FSIZE", "Max file size", 1_000_000, 2_000_000),
        ("RLIMIT_DATA", "Max data size", 100_000_000, 200_000_000),
        ("RLIMIT_STACK", "Max stack size", 4_000_000, 8_000_000),
        ("RLIMIT_CORE", "Max core file size", 0, 5),
        ("RLIMIT_RSS", "Max resident set", 1000, 2000),
        ("RLIMIT_NPROC", "Max processes", 400, 500),
        ("RLIMIT_NOFILE", "Max open files", 100, 200),
        ("RLIMIT_MEMLOCK", "Max locked memory", 5000, 6000),
        ("RLIMIT_AS", "Max address space", 500_000_000, 600_000_000),
        ("RLIMIT_LOCKS", "Max file locks", 7, 8),
        ("RLIMIT_SIGPENDING", "Max pending signals", 9, 10),
        ("RLIMIT_MSGQUEUE", "Max msgqueue size", 11, 12),
        ("RLIMIT_NICE", "Max nice priority", 13, 14),
        ("RLIMIT_RTPRIO", "Max realtime priority", 15, 16),
        ("RLIMIT_RTTIME", "Max realtime timeout", 17, 18),
    ];
    // Raising one may take a capability that those who run tests do not have.
    let ours = fs::read_to_string("/proc/self/limits").unwrap();
    let names = names.map(|(kind, name, soft, hard)| {
        let most = hard_limit(&ours, name).parse().unwrap_or(u64::MAX);
        (kind, name, most.min(soft), most.min(hard))
    });
    let limits =
        names.map(|(kind, _, soft, hard)| json!({"type": kind, "soft": soft, "hard": hard}));
    let said = says(lab, "cat /proc/self/limits", |spec| {
        spec["process"]["rlimits"] = json!(limits);
    });
    for (kind, name, soft, hard) in names {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {said}"));
        let mut fields = line.split_ascii_whitespace();
        let found = [fields.next(), fields.next()].map(|field| field.unwrap().to_owned());
        assert_eq!(found, [soft.to_string(), hard.to_string()], "{kind}");
    }
    let unlimited = json!([{"type": "RLIMIT_CPU", "soft": u64::MAX, "hard": u64::MAX}]);
    let said = says(lab, "ulimit -t; ulimit -Ht", |spec| {
        spec["process"]["rlimits"] = unlimited;
    });
    assert_eq!(said, "unlimited\nunlimited\n");
}

/// The third column of /proc/PID/limits, whose first may have spaces.
fn hard_limit<'a>(limits: &'a str, name: &str) -> &'a str {
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().split_ascii_whitespace().nth(1).unwrap()
}

fn it_has_the_priorities_of_the_spec(lab: &Lab) {
    let script = "umask; cat /proc/self/oom_score_adj; cut -d' ' -f19,41 /proc/self/stat; \
                  ionice -p $$; grep Cpus_allowed_list /proc/self/status";
    let said = says(lab, script, |spec| {
        let process = &mut spec["process"];
        process["user"]["umask"] = json!(0o27);
        process["oomScoreAdj"] = json!(987);
        process["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 3});
        process["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 4});
        // For execs alone.
        process["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
    });
    const BATCH: u32 = 3;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let all = status
        .lines()
        .find(|line| line.starts_with("Cpus_allowed_list"));
    let expected = format!("0027\n987\n3 {BATCH}\nidle\n{}\n", all.unwrap());
    assert_eq!(said, expected);
}

fn its_oom_score_stays(lab: &Lab) {
    let ours = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(says(lab, "cat /proc/self/oom_score_adj", |_| {}), ours);
}

fn default_devices(lab: &Lab) {
    let script = "cd /dev; stat -c '%n %t:%T %a %F' null zero full random urandom tty; \
                  for link in fd stdin stdout stderr ptmx; do echo $link $(readlink $link); done";
    let said = says(lab, script, |_| {});
    let device = |line: &str| format!("{line} 666 character special file\n");
    let devices = [
        "null 1:3",
        "zero 1:5",
        "full 1:7",
        "random 1:8",
        "urandom 1:9",
        "tty 5:0",
    ];
    let links = "fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\n\
                 stderr /proc/self/fd/2\nptmx pts/ptmx\n";
    assert_eq!(said, devices.map(device).concat() + links);
}

fn a_device_of_any_type_is_made(lab: &Lab) {
    let script = "cd /dev; stat -c '%n %t:%T %a %u:%g %F' of-c of-u of-b of-p";
    let said = says(lab, script, |spec| {
        spec["linux"]["devices"] = json!([
            {"path": "/dev/of-c", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "gid": 9},
            {"path": "/dev/of-u", "type": "u", "major": 1, "minor": 5, "uid": 8},
            {"path": "/dev/of-b", "type": "b", "major": 7, "minor": 1, "fileMode": 0o4660},
            {"path": "/dev/of-p", "type": "p", "fileMode": 0o640, "uid": 1, "gid": 2},
        ]);
    });
    let expected = "of-c 1:3 600 0:9 character special file\n\
                    of-u 1:5 666 8:0 character special file\n\
                    of-b 7:1 4660 0:0 block special file\n\
                    of-p 0:0 640 1:2 fifo\n";
    assert_eq!(said, expected);
}

fn a_device_that_is_another_is_refused(lab: &Lab) {
    let file = lab.image().join("srv/device");
    fs::write(&file, "the image's").unwrap();
    let refused = lab.try_create(|spec| {
        spec["linux"]["devices"] =
            json!([{"path": "/srv/device", "type": "c", "major": 1, "minor": 3}]);
    });
    let error = refused.err().expect("a file is there");
    assert!(error.message.contains("/srv/device"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "the image's");
    fs::remove_file(file).unwrap();
}

fn its_names(lab: &Lab) {
    let script = "hostname; cat /proc/sys/kernel/domainname";
    let said = says(lab, script, |spec| {
        spec["hostname"] = json!("some-host");
        spec["domainname"] = json!("some.domain");
    });
    assert_eq!(said, "some-host\nsome.domain\n");
}

fn its_clocks(lab: &Lab) {
    if !std::path::Path::new("/proc/self/ns/time").exists() {
        println!("this kernel has no time namespaces");
        return;
    }
    let said = says(lab, "cat /proc/self/timens_offsets", |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "time"}));
        spec["linux"]["timeOffsets"] = json!({
            "monotonic": {"secs": 172_800, "nanosecs": 5},
            "boottime": {"secs": 604_800},
        });
    });
    let mut lines = said
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap(), ["monotonic", "172800", "5"]);
    assert_eq!(lines.next().unwrap(), ["boottime", "604800", "0"]);
}

fn a_size_without_a_terminal(lab: &Lab) {
    for terminal in [json!(false), Value::Null] {
        let said = says(lab, "tty; echo ran", |spec| {
            spec["process"]["terminal"] = terminal;
            spec["process"]["consoleSize"] = json!({"height": 100_000, "width": 80});
        });
        assert_eq!(said, "not a tty\nran\n");
    }
}

fn properties_that_nobody_knows(lab: &Lab) {
    let said = says(lab, "echo ran", |spec| {
        let unknown = json!({"nobody": ["knows", 1, null]});
        spec["unknown"] = unknown.clone();
        spec["annotations"] = json!({"org.opencontainers.unknown": "", "x": "y"});
        for place in [
            "/process",
            "/process/user",
            "/root",
            "/linux",
            "/mounts/0",
            "/linux/namespaces/0",
        ] {
            let object = spec.pointer_mut(place).unwrap().as_object_mut().unwrap();
            object.insert("unknown".to_owned(), unknown.clone());
        }
        spec["linux"]["resources"] = json!({"unknown": 1, "memory": {"unknown": 2}});
        spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "unknown": 1});
        spec["hooks"] = json!({"unknown": [], "poststop": [{"path": "/bin/true", "unknown": 1}]});
        spec["windows"] = json!({"layerFolders": ["x"]});
    });
    assert_eq!(said, "ran\n");
}

fn a_spec_that_changes(lab: &Lab) {
    let mut container = lab.create(|spec| {
        spec["process"]["args"] = json!(["echo", "as it was"]);
    });
    let config = container.dir.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    spec["process"]["args"] = json!(["echo", "as it is now"]);
    spec["hooks"] = json!({"startContainer": [{"path": "/bin/false"}]});
    fs::write(&config, spec.to_string()).unwrap();
    container.start().unwrap();
    assert_eq!(
        container.finish(),
        (Ended::Exited(0), "as it was\n".to_owned())
    );
}
