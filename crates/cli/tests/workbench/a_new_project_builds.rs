//! `new`, `build`, `check`, `test`, far from husk's own sources, in every language.
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{husk, succeeded, target};

/// Makes a project, builds, checks and tests it.
fn goes_well(language: &str) {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("mine");
    let run = |words: &[&str], within: &Path| {
        let mut command = husk();
        command
            .args(["policy"])
            .args(words)
            .current_dir(within)
            // What crates need that run while crates are built is there already.
            .env("CARGO_TARGET_DIR", target());
        succeeded(&command.output().unwrap())
    };
    let made = run(&["new", "--lang", language, "mine"], dir.path());
    assert!(made.contains("husk policy build"), "{made}");
    let built = run(&["build"], &project);
    assert!(built.contains("mine.wasm"), "{built}");
    if language != "python" {
        // CPython takes a minute to compile in a test build, and `test` compiles it too.
        let checked = run(&["check", "mine.wasm"], &project);
        assert!(checked.contains("a policy"), "{checked}");
        assert!(!checked.contains("wasi"), "{checked}");
    }
    let tested = run(&["test", "mine.wasm"], &project);
    assert!(tested.contains("3 passed, 0 failed"), "{tested}");
    if language == "c" {
        the_job_passes_and_fails(&project);
    }
}

/// What `new` makes for continuous integration does all of it, and fails where a case does.
fn the_job_passes_and_fails(project: &Path) {
    let job = || {
        let mut job = Command::new("sh");
        let husk = Path::new(env!("CARGO_BIN_EXE_husk")).parent().unwrap();
        let dirs = [husk.to_owned()];
        let path = crate::path();
        let dirs = dirs.into_iter().chain(std::env::split_paths(&path));
        job.arg(project.join("ci"))
            .env("PATH", std::env::join_paths(dirs).unwrap())
            .env("XDG_CACHE_HOME", target().join("cache"));
        job.output().unwrap()
    };
    let said = succeeded(&job());
    assert!(said.contains("3 passed, 0 failed"), "{said}");
    let case = "question = 'scope-sandbox'\nexpect.denied = 'never'\n";
    fs::write(project.join("cases/wrong.toml"), case).unwrap();
    assert!(!job().status.success());
}

#[test]
fn in_rust() {
    goes_well("rust");
}

#[test]
fn in_c() {
    goes_well("c");
}

#[test]
fn in_javascript() {
    goes_well("js");
}

#[test]
fn in_python() {
    goes_well("python");
}

/// The page that says how a policy decides links, and what it adds to a project in this language.
fn of_the_page(language: &str) -> &'static str {
    let page = include_str!("../../../../docs/policies.md");
    let section = page.split("\n## Links\n").nth(1).unwrap();
    let block = section.split(&format!("```{language}\n")).nth(1).unwrap();
    block.split("```").next().unwrap()
}

/// Makes a project that decides links too, as the page says; answers with how to run `husk policy`.
fn with_links(language: &str, source: &str, folder: &Path) -> impl Fn(&[&str]) -> String {
    // Crates of one name would be built in one place, at the same time.
    let project = folder.join("linked");
    let run = |within: &Path, words: &[&str]| {
        let mut command = husk();
        command.arg("policy").args(words).current_dir(within);
        command.env("CARGO_TARGET_DIR", target());
        succeeded(&command.output().unwrap())
    };
    run(folder, &["new", "--lang", language, "linked"]);
    let text = fs::read_to_string(project.join(source)).unwrap() + of_the_page(language);
    fs::write(project.join(source), text).unwrap();
    fs::write(project.join("cases/links.toml"), of_the_page("toml")).unwrap();
    run(&project, &["build", "--world", "policy-with-links"]);
    move |words| run(&project, words)
}

#[test]
fn with_links_as_the_page_says_in_rust() {
    let dir = tempfile::tempdir().unwrap();
    let policy = with_links("rust", "src/lib.rs", dir.path());
    let checked = policy(&["check", "linked.wasm"]);
    assert!(checked.contains("a policy and links"), "{checked}");
    let tested = policy(&["test", "linked.wasm"]);
    assert!(tested.contains("4 passed, 0 failed"), "{tested}");
}

#[test]
fn with_links_as_the_page_says_in_javascript() {
    let dir = tempfile::tempdir().unwrap();
    let policy = with_links("js", "policy.js", dir.path());
    let tested = policy(&["test", "linked.wasm"]);
    assert!(tested.contains("4 passed, 0 failed"), "{tested}");
}

#[test]
fn a_folder_that_holds_something_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "ten years of work").unwrap();
    let name = dir.path().join("policy");
    fs::create_dir(&name).unwrap();
    fs::write(name.join("thesis.txt"), "ten years of work").unwrap();
    let output = husk().args(["policy", "new"]).arg(&name).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("not empty"), "{said}");
    assert_eq!(fs::read_dir(&name).unwrap().count(), 1);
}

#[test]
fn what_is_missing_is_named_with_the_way_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    for (language, words) in [
        ("rust", "rustup target add"),
        ("c", "cargo install --locked wit-bindgen-cli"),
        ("js", "npm install"),
        ("python", "pip install -r requirements.txt"),
    ] {
        let project = dir.path().join(language);
        let mut new = husk();
        new.args(["policy", "new", "--lang", language])
            .arg(&project);
        succeeded(&new.output().unwrap());
        let output = husk()
            .args(["policy", "build"])
            .arg(&project)
            // Debian's compiler is called by its path: without it there is none.
            .env("PATH", dir.path())
            .output()
            .unwrap();
        let debians = language == "rust" && Path::new("/usr/bin/rustc").exists();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(debians || said.contains(words), "{language}: {said}");
    }
}
