//! CVE-2019-5736: a container must not be able to overwrite the runtime's own program.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use husk_tests::command::until;
use husk_tests::containerd::Containerd;
use husk_tests::ctr::Container;
use husk_tests::process;

/// The programs that make containers here, with their contents.
fn programs(containerd: &Containerd, id: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let shims = process::shims(&[id.to_owned()]);
    assert!(!shims.is_empty());
    let lab = containerd.lab();
    let paths = [
        lab.shim_dir.join("containerd-shim-husk-v2"),
        lab.programs.join("bin/runc"),
    ];
    paths
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn an_exec_of_proc_self_exe_runs_nothing_of_the_runtime() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    // Were the runtime still itself at the moment of execve, this would run the runtime.
    let output = container.run(&["/proc/self/exe", "--version"]);
    assert!(
        !output.stdout.contains("runc") && !output.stdout.contains("husk"),
        "{output:?}"
    );
}

#[test]
fn a_process_that_joins_cannot_be_written_through() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    // For every process that appears, this tries to open its program for writing.
    let script = "touch /ready; while :; do for exe in /proc/[0-9]*/exe; do
        case $exe in /proc/1/exe|/proc/$$/exe) continue;; esac
        ( exec 9>>$exe && echo overwritten >&9 && echo $exe >> /won ) 2>/dev/null
    done; done";
    container.start(&["sh", "-c", script]);
    until("the attack runs", || {
        container.exec(&["test", "-e", "/ready"]).code == 0
    });
    let before = programs(&containerd, &container.id);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..10 {
                    container.exec(&["/bin/true"]);
                }
            });
        }
    });
    for (path, contents) in before {
        assert!(
            fs::read(&path).unwrap() == contents,
            "{} was overwritten",
            path.display()
        );
    }
}

/// Where both containers have the folder with the program of the attack.
const FOLDER: &str = "/attack";

/// The attack by a script whose interpreter is /proc/self/exe: one container gets hold of a shim's file
/// and passes it on to another, which waits until no process runs the file any more.
fn attack(flags: &[&str]) {
    let containerd = Containerd::of_the_suite();
    let accomplice = containerd.ctr().container();
    let folder = accomplice.folder();
    let Some(()) = compile(&folder) else { return };
    // A shim that nobody else runs.
    let shim = folder.join("bin/containerd-shim-husk-v2");
    fs::create_dir(folder.join("bin")).unwrap();
    fs::copy(
        containerd.lab().shim_dir.join("containerd-shim-husk-v2"),
        &shim,
    )
    .unwrap();
    let before = fs::read(&shim).unwrap();
    let file = fs::metadata(&shim).unwrap();

    let mut accomplice = with_mount(accomplice, &folder, FOLDER);
    for flag in flags {
        accomplice = accomplice.flag(flag);
    }
    let (socket, report) = (format!("{FOLDER}/socket"), format!("{FOLDER}/report"));
    accomplice.start(&[&format!("{FOLDER}/take"), "use", &socket, &report]);

    // What a shim that is linked dynamically needs to run, and the image may bring.
    let libraries = Path::new("/usr/lib/x86_64-linux-gnu");
    let mut victim = with_mount(containerd.ctr().container(), &folder, FOLDER)
        .flag("--runtime")
        .flag(shim.to_str().unwrap());
    if libraries.exists() {
        for place in ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu"] {
            victim = with_mount(victim, libraries, place);
        }
        victim = with_mount(victim, Path::new("/usr/lib64"), "/lib64");
    }
    let (device, inode) = (file.dev().to_string(), file.ino().to_string());
    victim.start(&[&format!("{FOLDER}/take"), "send", &socket, &device, &inode]);
    let said = || fs::read_to_string(folder.join("report")).unwrap_or_default();
    until("the container has got hold of the shim's file", || {
        let _ = victim.exec(&["/attack/script"]);
        said().contains("taken")
    });
    drop(victim);
    // Nobody runs the file now. Were it possible, the attack would take less than this.
    thread::sleep(husk_tests::cri::A_WHILE);
    fs::write(folder.join("report.stop"), "").unwrap();
    until("the attack is over", || said().contains("ended"));
    assert!(!said().contains("won"), "{}", said());
    // Not "text file busy": read-only, whoever runs it.
    assert!(said().contains("the last answer: EROFS"), "{}", said());
    assert!(
        fs::read(&shim).unwrap() == before,
        "the shim was overwritten"
    );
}

fn with_mount<'a>(container: Container<'a>, source: &Path, place: &str) -> Container<'a> {
    let mount = format!(
        "type=bind,src={},dst={place},options=rbind:rw",
        source.display()
    );
    container.flag("--mount").flag(&mount)
}

/// `None` without a C compiler.
fn compile(folder: &Path) -> Option<()> {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    let build = |flags: &[&str], name: &str| {
        let mut compiler = Command::new("cc");
        compiler.args(flags).arg("-o").arg(folder.join(name));
        compiler.arg(programs.join("take.c")).status()
    };
    if !build(&["-O2", "-static"], "take").ok()?.success() {
        eprintln!("left out: cc cannot link a static program");
        return None;
    }
    let interpreter = "-Wl,--dynamic-linker=/proc/self/exe";
    assert!(build(&["-O2", interpreter], "program").unwrap().success());
    let script = folder.join("script");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Some(())
}

#[test]
fn a_script_that_the_runtime_interprets_cannot_overwrite_it() {
    attack(&[]);
}

#[test]
fn an_accomplice_with_all_capabilities_cannot_make_it_writable() {
    attack(&["--privileged"]);
}

#[test]
fn what_the_runtime_interprets_or_loads_is_no_program() {
    let containerd = Containerd::of_the_suite();
    let folder = containerd.ctr().container().folder();
    let Some(()) = compile(&folder) else { return };
    for program in ["/attack/script", "/attack/program"] {
        let container = with_mount(containerd.ctr().container(), &folder, FOLDER);
        let output = container.run(&[program]);
        assert_ne!(output.code, 0, "{program}: {output:?}");
        assert!(!output.stdout.contains("husk"), "{output:?}");
        let container = with_mount(containerd.ctr().container(), &folder, FOLDER);
        container.start(&["sleep", "1000000"]);
        let output = container.exec(&[program]);
        assert_ne!(output.code, 0, "{program}: {output:?}");
        assert_eq!(container.exec(&["echo", "alive"]).ok(), "alive\n");
    }
}
