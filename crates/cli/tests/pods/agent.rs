//! What docs/agent.md shows is what happens: its commands are run, and their output compared.
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::node::{Node, Shim, finish};

/// A command of the page, and what it says it prints.
struct Shown {
    command: String,
    output: String,
}

/// The commands of a page, in its blocks of kind `console`: each begins with `# `.
fn commands(page: &str) -> Vec<Shown> {
    let mut commands = Vec::<Shown>::new();
    let mut inside = false;
    for line in page.lines() {
        match line.strip_prefix("# ") {
            _ if line.starts_with("```") => inside = line == "```console",
            Some(command) if inside => commands.push(Shown {
                command: command.to_owned(),
                output: String::new(),
            }),
            _ if inside => {
                let shown = commands.last_mut().expect("output before any command");
                shown.output.push_str(line);
                shown.output.push('\n');
            }
            _ => {}
        }
    }
    commands
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A directory that is as the repository to the page: its examples, and nothing made of them yet.
fn fresh_clone(node: &Node) -> PathBuf {
    let clone = node.scratch().join("clone");
    fs::create_dir_all(clone.join("examples/agent")).unwrap();
    fs::create_dir(clone.join("bin")).unwrap();
    fs::copy(
        repository().join("examples/busybox"),
        clone.join("examples/busybox"),
    )
    .unwrap();
    for file in fs::read_dir(repository().join("examples/agent")).unwrap() {
        let file = file.unwrap();
        fs::copy(
            file.path(),
            clone.join("examples/agent").join(file.file_name()),
        )
        .unwrap();
    }
    // `husk`, with the directories of this test.
    let husk = node.husk(&[]);
    let words: Vec<_> = std::iter::once(husk.get_program())
        .chain(husk.get_args())
        .map(|word| word.to_str().unwrap())
        .collect();
    let script = format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" "));
    let path = clone.join("bin/husk");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    clone
}

#[test]
fn the_page_of_the_agent_shows_what_happens() {
    let node = Node::new(Shim::Husk);
    let clone = fresh_clone(&node);
    let page = fs::read_to_string(repository().join("docs/agent.md")).unwrap();
    let path = std::env::var("PATH").unwrap();
    let shown = commands(&page);
    assert!(shown.len() > 5, "the page shows commands");
    for Shown { command, output } in shown {
        let child = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .current_dir(&clone)
            .env("PATH", format!("{}/bin:{path}", clone.display()))
            .env(
                "HUSK_PLUGINS",
                repository().join("plugins/target/components"),
            )
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = String::from_utf8(finish(child).stdout).unwrap();
        assert_eq!(said, output, "# {command}");
    }
    node.assert_nothing_left();
}
