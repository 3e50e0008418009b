//! Whatever a plugin does, it is refused by name, and the shim's memory is what it was before.
use std::time::{Duration, Instant};
use std::{fs, thread};

use husk_tests::containerd::Containerd;
use husk_tests::ctr::{Container, unique};
use husk_tests::process;

#[path = "../../crates/plugin-host/tests/host/hostile.rs"]
mod hostile;

/// How much more the shim may have to itself afterwards, in kB.
const MORE: u64 = 200;

/// By then it must be given back. Threads of the shim that have nothing to do end after a second.
const SOON: Duration = Duration::from_secs(4);

/// The most a pod's audit record grows by one decision, in bytes.
const AUDIT: usize = 64 * 1024;

/// The table of a plugin in a handler's configuration.
fn table(containerd: &Containerd, name: &str, component: &[u8], rest: &str) -> String {
    let path = containerd.lab().run.join(unique(name));
    fs::write(&path, component).unwrap();
    let path = path.display();
    format!("[[plugin]]\nname = \"{name}\"\npath = \"{path}\"\ndeadline = \"5s\"\n{rest}\n")
}

/// A container of this pod, whose handler has this configuration; its name begins with the letter.
fn container<'a>(
    containerd: &'a Containerd,
    config: &str,
    pod: &str,
    letter: char,
) -> Container<'a> {
    let mut container = containerd
        .ctr()
        .container()
        .flag("--annotation")
        .flag(&format!("io.husk.pod={pod}"))
        .flag(&format!("--runtime-config-path={config}"));
    container.id = unique(&letter.to_string());
    container
}

fn write(containerd: &Containerd, config: &str) -> String {
    let path = containerd.lab().run.join(unique("hostile"));
    fs::write(&path, config).unwrap();
    path.display().to_string()
}

/// What the processes of this pod's shim have to themselves, in kB.
fn private(pod: &str) -> u64 {
    let shims = process::shim_processes(&[pod.to_owned()]).into_iter();
    let figures = shims.map(|pid| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Private_Dirty:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
            .unwrap_or(0)
    });
    let private = figures.sum();
    assert_ne!(private, 0, "the shim is there");
    private
}

/// What it has once it is no more than that, or at the end of our patience.
fn settled(pod: &str, most: u64) -> u64 {
    let begun = Instant::now();
    loop {
        let private = private(pod);
        if private <= most || begun.elapsed() > SOON {
            return private;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// How much is on record of a pod, in bytes.
fn audit(pod: &str) -> usize {
    let lines = husk_tests::audit::of(pod).into_iter();
    lines.map(|line| line.to_string().len()).sum()
}

#[test]
fn every_attack_on_the_shims_memory_is_refused_by_name_and_leaves_nothing() {
    let containerd = Containerd::of_the_suite();
    let attacks: Vec<_> = hostile::all()
        .into_iter()
        .filter(|(_, name, ..)| *name != "sixteen-memories")
        .collect();
    let config: String = attacks
        .iter()
        .map(|(_, name, component, _)| table(&containerd, name, component, ""))
        .collect();
    let config = write(&containerd, &config);
    let pod = unique("hostile");
    let first = container(&containerd, &config, &pod, 'z');
    first.start(&["sleep", "1000000"]);
    let attack = |letter| container(&containerd, &config, &pod, letter).run(&["true"]);
    // Refusals and their errors once, for what is allocated at the first.
    for _ in 0..3 {
        assert_eq!(attack('z').code, 0);
        assert_ne!(attack('h').code, 0);
    }
    thread::sleep(Duration::from_secs(2));
    for (letter, name, _, words) in &attacks {
        let (before, record) = (private(&pod), audit(&pod));
        let refused = attack(*letter);
        assert_ne!(refused.code, 0, "{name}: {refused:?}");
        for word in [&[*name], *words].concat() {
            assert!(
                refused.stderr.contains(word),
                "{name}: no `{word}`: {refused:?}"
            );
        }
        let after = settled(&pod, before + MORE);
        println!("{name}: {before} kB before, {after} kB after");
        assert!(
            after <= before + MORE,
            "{name}: {before} kB, then {after} kB"
        );
        // One decision, and one line for each plugin that was asked before.
        let more = audit(&pod) - record;
        assert!(more < AUDIT, "{name}: {more} bytes of audit");
    }
    assert_eq!(attack('z').code, 0, "the others are served as before");
}

#[test]
fn sixteen_memories_are_no_more_than_one() {
    let containerd = Containerd::of_the_suite();
    let (_, name, component, words) = hostile::all().remove(0);
    let refusing = write(&containerd, &table(&containerd, name, &component, ""));
    let refused = container(&containerd, &refusing, &unique("pod"), 'z').run(&["true"]);
    assert_ne!(refused.code, 0);
    for word in [&[name], words].concat() {
        assert!(refused.stderr.contains(word), "no `{word}`: {refused:?}");
    }
    // Where that is ignored, the pod lives with it, and its shim is as small as another.
    let ignored = "on-error = \"ignore\"";
    let with = |name: &str, component: &[u8]| {
        let config = write(&containerd, &table(&containerd, name, component, ignored));
        let pod = unique("pod");
        let first = container(&containerd, &config, &pod, 'z');
        first.start(&["sleep", "1000000"]);
        thread::sleep(Duration::from_secs(2));
        private(&pod)
    };
    let harmless = hostile::edits(1, 1);
    let (without, with) = (with("harmless", &harmless), with(name, &component));
    println!("{name}: {without} kB without, {with} kB with");
    assert!(
        with <= without + MORE,
        "{without} kB without, {with} kB with"
    );
}
