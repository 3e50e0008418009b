//! What cannot be written is an error that says why, and the next line says how much is missing.
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use husk_audit::AppendError;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::{Record, append, line};

/// A file system with room for this much, for this thread alone.
fn small_disk(at: &Path, bytes: usize) {
    unshare(CloneFlags::CLONE_NEWNS).expect("tests run as root");
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    fs::create_dir_all(at).unwrap();
    let options = format!("size={bytes},mode=700");
    let none = MsFlags::empty();
    mount(
        Some("tmpfs"),
        at,
        Some("tmpfs"),
        none,
        Some(options.as_str()),
    )
    .unwrap();
}

#[test]
fn a_full_disk_leaves_no_half_line_and_the_next_one_counts_what_is_missing() {
    let record = Record::new();
    // The mount is gone with its thread.
    let on_a_small_disk = || {
        small_disk(record.dir(), 32 << 10);
        let ballast = record.dir().join("ballast");
        fs::write(&ballast, vec![0; 4096]).unwrap();
        let writer = record.writer();
        let mut written = 0;
        let full = loop {
            match writer.append(&mut [line("a", written)]) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert!(written > 10, "{written}");
        let full = full.to_string();
        for words in ["audit.jsonl", "append a line", "No space left"] {
            assert!(full.contains(words), "{full}");
        }
        assert!(writer.append(&mut [line("a", 0), line("a", 0)]).is_err());
        assert!(fs::read(record.current()).unwrap().ends_with(b"}\n"));
        fs::remove_file(ballast).unwrap();
        writer
            .append(&mut [line("a", written), line("a", written + 1)])
            .unwrap();
        let entries = record.entries();
        let counts: Vec<_> = entries.iter().map(|entry| entry.line.micros).collect();
        assert_eq!(counts, (0..written + 2).collect::<Vec<_>>());
        let lost: Vec<_> = entries
            .iter()
            .rev()
            .take(3)
            .map(|entry| entry.line.lost)
            .collect();
        assert_eq!(lost, [0, 3, 0]);
    };
    thread::scope(|scope| scope.spawn(on_a_small_disk).join().unwrap());
}

#[test]
fn what_is_in_the_way_is_named() {
    let record = Record::new();
    let above = record.dir().parent().unwrap();
    let refused = || {
        let refused = record.writer().append(&mut [line("a", 0)]);
        refused.unwrap_err().to_string()
    };
    fs::create_dir_all(above).unwrap();
    fs::write(record.dir(), "").unwrap();
    let said = refused();
    assert!(
        said.contains("open its directory") && said.contains("Not a directory"),
        "{said}"
    );
    fs::remove_file(record.dir()).unwrap();
    fs::create_dir(record.dir()).unwrap();
    fs::set_permissions(record.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let said = refused();
    assert!(said.contains("others than its owner may write"), "{said}");
    fs::set_permissions(record.dir(), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("/etc/passwd", record.current()).unwrap();
    let said = refused();
    assert!(said.contains("symbolic link"), "{said}");
    fs::remove_file(record.current()).unwrap();
    nix::unistd::mkfifo(&record.current(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let said = refused();
    assert!(said.contains("not a regular file"), "{said}");
    fs::remove_file(record.current()).unwrap();
    append(&record.writer(), line("a", 0));
}

#[test]
fn whoever_holds_the_lock_holds_nobody_up_for_long() {
    let record = Record::new();
    let writer = record.writer();
    append(&writer, line("a", 0));
    let stopped = File::open(record.dir()).unwrap();
    stopped.lock().unwrap();
    let begun = Instant::now();
    let refused = thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| writer.append(&mut [line("a", 1)])));
        both.map(|thread| thread.join().unwrap().unwrap_err())
    });
    assert!(
        refused
            .iter()
            .all(|error| matches!(error, AppendError::Locked { .. }))
    );
    let waited = begun.elapsed();
    let patience = Duration::from_secs(1)..Duration::from_secs(3);
    assert!(patience.contains(&waited), "{waited:?}");
    stopped.unlock().unwrap();
    append(&writer, line("a", 3));
    assert_eq!(record.entries()[1].line.lost, 2);
}
