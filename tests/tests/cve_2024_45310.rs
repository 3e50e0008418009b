//! CVE-2024-45310: what a container's mounts need is made below a volume while a neighbour exchanges a
//! directory there for a link; no empty file or directory must come into being where that leads on
//! the node.
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use husk_tests::containerd::Containerd;
use husk_tests::ctr::unique;
use husk_tests::race::while_exchanged;
use serde_json::{Value, json};

const ROUNDS: u32 = 20;
/// Each is a chance for the link to be there between two looks.
const MOUNTS_EACH: u32 = 5;

fn names_in(folder: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

/// Asks for directories, files, a device and a working directory, all to be made there.
fn ask_for_all(spec: &mut Value, at: &str, source: &Path) {
    let mounts = spec["mounts"].as_array_mut().unwrap();
    for number in 0..MOUNTS_EACH {
        for (name, source) in [("above/directory", source), ("file", &source.join("file"))] {
            let destination = format!("{at}-{number}-{name}");
            mounts.push(json!({
                "destination": destination, "source": source, "options": ["rbind"],
            }));
        }
        let destination = format!("{at}-{number}-tmpfs");
        mounts.push(json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}));
    }
    spec["linux"]["devices"] = json!([{
        "path": format!("{at}-devices/null"), "type": "c", "major": 1, "minor": 3,
    }]);
    spec["process"]["cwd"] = json!(format!("{at}-cwd"));
}

#[test]
fn nothing_is_made_where_a_link_that_comes_and_goes_leads_on_the_node() {
    let containerd = Containerd::of_the_suite();
    let folder = containerd.lab().run.join(unique("files"));
    let [shared, source, outside] = ["shared", "source", "outside"].map(|name| folder.join(name));
    let (place, link) = (shared.join("place"), shared.join("link"));
    for made in [&place, &source, &outside] {
        fs::create_dir_all(made).unwrap();
    }
    fs::write(source.join("file"), "").unwrap();
    symlink(&outside, &link).unwrap();
    while_exchanged(&place, &link, || {
        for round in 0..ROUNDS {
            let container = containerd.ctr().container();
            let container = container.spec(&["true"], |spec| {
                let volume =
                    json!({"destination": "/shared", "source": shared, "options": ["rbind"]});
                spec["mounts"].as_array_mut().unwrap().push(volume);
                ask_for_all(spec, &format!("/shared/place/{round}"), &source);
            });
            // It may find its working directory gone, which ends it.
            let _ = container.run(&[]);
            assert_eq!(names_in(&outside), [""; 0], "round {round}");
        }
    });
    // Whichever of the names the directory has now: what was asked for was made in it.
    let made = [&place, &link].map(|path| names_in(path).len());
    assert!(made.iter().any(|count| *count > 0), "{made:?}");
}

#[test]
fn nothing_is_made_where_a_link_to_what_is_not_there_leads_on_the_node() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let folder = container.folder();
    let [shared, source, outside] = ["shared", "source", "outside"].map(|name| folder.join(name));
    for made in [&shared, &source, &outside] {
        fs::create_dir_all(made).unwrap();
    }
    fs::write(source.join("file"), "").unwrap();
    let container = container.spec(&["ls", &outside.to_string_lossy()], |spec| {
        let volume = json!({"destination": "/shared", "source": shared, "options": ["rbind"]});
        spec["mounts"].as_array_mut().unwrap().push(volume);
        for (name, source) in [("directory", &source), ("file", &source.join("file"))] {
            symlink(outside.join(name), shared.join(name)).unwrap();
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": format!("/shared/{name}"), "source": source, "options": ["rbind"],
            }));
        }
    });
    assert_eq!(container.run(&[]).ok(), "directory\nfile\n");
    assert_eq!(names_in(&outside), [""; 0]);
}
