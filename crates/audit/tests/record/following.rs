//! A reader that has come to the end goes on from there, over any number of new files.
use std::fs;

use husk_audit::Reader;

use crate::{Record, append, drain, line};

#[test]
fn what_comes_is_read_once_whatever_was_renamed_meanwhile() {
    let mut record = Record::new();
    record.settings.keep = 4;
    let writer = record.writer();
    let mut reader = Reader::new(record.dir(), None);
    assert_eq!(reader.next_entry().unwrap(), None, "nothing is there yet");
    let mut written = 0;
    let mut read = Vec::new();
    // Between two looks there are from no new file to as many as are kept.
    for round in 0..60 {
        for _ in 0..round * 12 {
            append(&writer, line("a", written));
            written += 1;
        }
        read.extend(
            drain(&mut reader)
                .into_iter()
                .map(|entry| entry.line.micros),
        );
    }
    assert!(record.files().last().unwrap() > &record.dir().join("audit-00000010.jsonl"));
    assert_eq!(read, (0..written).collect::<Vec<_>>());
    assert_eq!(reader.spoilt(), 0);
}

#[test]
fn half_a_line_is_waited_for() {
    let record = Record::new();
    let writer = record.writer();
    append(&writer, line("a", 0));
    let whole = fs::read(record.current()).unwrap();
    let (first, second) = whole.split_at(20);
    fs::write(record.current(), first).unwrap();
    let mut reader = Reader::new(record.dir(), None);
    assert_eq!(reader.next_entry().unwrap(), None);
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(record.current())
        .unwrap();
    std::io::Write::write_all(&mut file, second).unwrap();
    assert_eq!(drain(&mut reader).len(), 1);
    assert_eq!(reader.spoilt(), 0);
}

#[test]
fn a_record_that_is_removed_and_made_again_is_read_on() {
    let record = Record::new();
    append(&record.writer(), line("a", 0));
    let mut reader = Reader::new(record.dir(), None);
    assert_eq!(drain(&mut reader).len(), 1);
    fs::remove_dir_all(record.dir()).unwrap();
    assert_eq!(drain(&mut reader), []);
    append(&record.writer(), line("a", 1));
    let counts: Vec<_> = drain(&mut reader)
        .iter()
        .map(|entry| entry.line.micros)
        .collect();
    assert_eq!(counts, [1]);
}
