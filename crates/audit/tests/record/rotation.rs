//! A record is bounded: by the size and age of its files, and by how many are kept.
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use husk_audit::Reader;

use crate::{Record, append, drain, line};

#[test]
fn what_is_written_is_read_in_order_by_root_alone() {
    let record = Record::new();
    let writer = record.writer();
    writer.append(&mut [line("a", 0), line("a", 1)]).unwrap();
    append(&record.writer(), line("b", 2));
    let entries = record.entries();
    let counts: Vec<_> = entries.iter().map(|entry| entry.line.micros).collect();
    assert_eq!(counts, [0, 1, 2]);
    assert!(husk_audit::parse(&entries[0].line.time).is_some());
    assert!(entries[0].json.starts_with("{\"time\":\"20"));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(record.dir()), 0o700);
    assert_eq!(mode(&record.current()), 0o600);
    // The way there is as open as it was.
    assert_eq!(mode(record.dir().parent().unwrap()), 0o755);
}

#[test]
fn no_file_is_larger_and_no_more_are_kept_than_is_said() {
    let mut record = Record::new();
    record.settings.keep = 3;
    let writer = record.writer();
    for count in 0..2000 {
        append(&writer, line("a", count));
    }
    let files = record.files();
    assert_eq!(files.len(), 4, "{files:?}");
    let size = |path| fs::metadata(path).unwrap().len();
    assert!(files.iter().all(|path| size(path) <= 64 << 10));
    assert!(files.iter().map(size).sum::<u64>() > 3 * (60 << 10));
    // What is left is the end, without a gap.
    let counts = record.entries().into_iter().map(|entry| entry.line.micros);
    let counts: Vec<_> = counts.collect();
    let last = counts.len() as u64;
    assert_eq!(counts, (2000 - last..2000).collect::<Vec<_>>());
}

#[test]
fn a_file_that_is_old_makes_way() {
    let mut record = Record::new();
    append(&record.writer(), line("a", 0));
    let old = fs::read_to_string(record.current()).unwrap();
    let year = old.split('-').next().unwrap();
    fs::write(record.current(), old.replace(year, "{\"time\":\"2001")).unwrap();
    record.settings.max_age = Duration::from_secs(60);
    let writer = record.writer();
    append(&writer, line("a", 1));
    append(&writer, line("a", 2));
    assert_eq!(record.files().len(), 2);
    assert_eq!(
        fs::read_to_string(record.current())
            .unwrap()
            .lines()
            .count(),
        2
    );
    assert_eq!(record.entries().len(), 3);
}

#[test]
fn a_file_that_somebody_moves_or_removes_is_begun_anew() {
    let record = Record::new();
    let writer = record.writer();
    append(&writer, line("a", 0));
    fs::rename(record.current(), record.dir().join("mine")).unwrap();
    append(&writer, line("a", 1));
    fs::remove_dir_all(record.dir()).unwrap();
    append(&writer, line("a", 2));
    let counts: Vec<_> = record
        .entries()
        .iter()
        .map(|entry| entry.line.micros)
        .collect();
    assert_eq!(counts, [2]);
}

#[test]
fn files_that_were_last_changed_before_are_not_looked_at() {
    let record = Record::new();
    let writer = record.writer();
    for count in 0..1000 {
        append(&writer, line("a", count));
    }
    let files = record.files();
    assert!(files.len() > 2);
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let earliest = fs::File::options().append(true).open(&files[0]).unwrap();
    earliest.set_modified(long_ago).unwrap();
    let since = Some((long_ago + Duration::from_secs(60)).into());
    let all = record.entries();
    let later = drain(&mut Reader::new(record.dir(), since));
    let skipped = fs::read_to_string(&files[0]).unwrap().lines().count();
    assert_eq!(later, all[skipped..]);
}

#[test]
fn a_file_of_another_name_is_nobodys() {
    let record = Record::new();
    let writer = record.writer();
    append(&writer, line("a", 0));
    for name in ["audit-x.jsonl", "audit-18446744073709551615.jsonl", "other"] {
        fs::write(record.dir().join(name), "not a line\n").unwrap();
    }
    for count in 1..500 {
        append(&writer, line("a", count));
    }
    assert!(record.dir().join("audit-00000001.jsonl").exists());
    assert_eq!(record.entries().len(), 500);
}
