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
