//! What the documentation names is there.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test fails by panicking, and is a sentence"
)]
use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose contents are not the repository's.
const BUILT: [&str; 3] = ["target", "node_modules", ".git"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .into()
}

/// The pages below a folder.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if !BUILT.iter().any(|built| name == *built) {
                pages(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The relative targets of a page's links, without what is behind a `#`.
fn links(page: &str) -> Vec<&str> {
    let targets = page.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')'));
    let files = targets.filter_map(|(target, _)| target.split('#').next());
    files
        .filter(|file| !file.is_empty() && !file.contains("://") && !file.contains(' '))
        .collect()
}

#[test]
fn every_link_of_every_page_leads_to_a_file() {
    let mut found = Vec::new();
    pages(&repository(), &mut found);
    let mut checked = 0;
    let mut broken = Vec::new();
    for page in &found {
        let text = fs::read_to_string(page).unwrap();
        for link in links(&text) {
            checked += 1;
            if !page.parent().unwrap().join(link).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(
        checked > 100,
        "only {checked} links were found in {found:?}"
    );
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The tests that a cell of a table names: those in backticks after a link to their file and a colon.
fn named_tests(cell: &str) -> Vec<(&str, Vec<&str>)> {
    let links = cell.split("](").skip(1).filter_map(|rest| {
        let (file, rest) = rest.split_once(')')?;
        let names = rest.strip_prefix(": ")?;
        Some((file, names.split("](").next()?))
    });
    let of_rust = links.filter(|(file, _)| file.ends_with(".rs"));
    let named = of_rust.map(|(file, names)| {
        let parts = names.split('`').skip(1).step_by(2);
        (file, parts.collect())
    });
    named
        .filter(|(_, names): &(_, Vec<_>)| !names.is_empty())
        .collect()
}

/// A function of that name, or, in a file with a runner of its own, a test.
fn has_test(source: &str, name: &str) -> bool {
    source.contains(&format!("fn {name}(")) || source.contains(&format!("\"{name}\""))
}

#[test]
fn every_test_that_a_page_names_is_there() {
    let mut found = Vec::new();
    pages(&repository(), &mut found);
    let mut checked = 0;
    let mut missing = Vec::new();
    for page in &found {
        let text = fs::read_to_string(page).unwrap();
        let tests = text.lines().filter(|line| line.starts_with('|'));
        for (file, names) in tests.flat_map(named_tests) {
            let source = fs::read_to_string(page.parent().unwrap().join(file)).unwrap();
            for name in names {
                checked += 1;
                if !has_test(&source, name) {
                    missing.push(format!("{}: {file}: {name}", page.display()));
                }
            }
        }
    }
    assert!(checked > 100, "only {checked} tests were found");
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The statuses that docs/oci.md gives to demands.
const STATUSES: [&str; 4] = ["tested", "met", "not met", "not applicable"];

#[test]
fn the_specifications_demands_are_counted_and_each_has_its_reason() {
    let page = fs::read_to_string(repository().join("docs/oci.md")).unwrap();
    let mut counts = [0; STATUSES.len()];
    for line in page.lines().filter(|line| line.starts_with("| [")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [section, _, demand, status, shown] = cells[..] else {
            panic!("not five cells: {line}")
        };
        let at = STATUSES.iter().position(|known| *known == status);
        counts[at.unwrap_or_else(|| panic!("no status: {line}"))] += 1;
        assert!(section.contains(".md#"), "leads to no section: {line}");
        assert!(!demand.is_empty(), "{line}");
        let names_tests = !named_tests(shown).is_empty();
        match status {
            "tested" => assert!(names_tests, "names no test: {line}"),
            "met" => {
                assert!(!names_tests, "is tested: {line}");
                assert!(shown.contains(".rs)"), "names no code: {line}");
            }
            _ => assert!(shown.split(' ').count() > 5, "gives no reason: {line}"),
        }
    }
    let [tested, met, not_met, not_applicable] = counts;
    let total: usize = counts.iter().sum();
    let said = format!(
        "Of {total} demands {tested} are met with a test, {met} are met without one, {not_met} are not met, \
         and {not_applicable} do not apply."
    );
    assert!(page.contains(&said), "the page should say: {said}");
}
