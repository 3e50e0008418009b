//! A line that was cut spoils neither the next one nor the reader.
use std::fs::{self, OpenOptions};
use std::io::Write as _;

use crate::{Record, append, line};

fn add(record: &Record, bytes: &[u8]) {
    let mut file = OpenOptions::new()
        .append(true)
        .open(record.current())
        .unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn the_next_line_begins_on_a_line_of_its_own() {
    let record = Record::new();
    let writer = record.writer();
    append(&writer, line("a", 0));
    let whole = fs::read(record.current()).unwrap();
    for cut in [1, whole.len() / 2, whole.len() - 1] {
        add(&record, &whole[..cut]);
        append(&writer, line("a", 1));
    }
    let (entries, spoilt) = record.read();
    // The one that lacked nothing but its line feed is whole.
    assert_eq!((entries.len(), spoilt), (5, 2));
    assert!(fs::read(record.current()).unwrap().ends_with(b"}\n"));
}

#[test]
fn what_is_no_line_is_passed_over_and_counted() {
    let record = Record::new();
    let writer = record.writer();
    append(&writer, line("a", 0));
    add(&record, b"\0\0\0\0\n\xff\xfe\n[]\n{}\n\n");
    append(&writer, line("a", 1));
    add(&record, &vec![b'x'; 3 << 20]);
    append(&writer, line("a", 2));
    // Larger than a file may be: a new one was begun, and this is the last thing in it.
    add(&record, b"{\"time\":");
    let (entries, spoilt) = record.read();
    let counts: Vec<_> = entries.iter().map(|entry| entry.line.micros).collect();
    assert_eq!(counts, [0, 1, 2]);
    // The end of the last file may yet come.
    assert_eq!(spoilt, 6);
}

#[test]
fn a_line_of_a_later_version_is_read() {
    let record = Record::new();
    append(&record.writer(), line("a", 0));
    let text = fs::read_to_string(record.current()).unwrap();
    add(&record, text.replacen('{', "{\"news\":[1],", 1).as_bytes());
    let entries = record.entries();
    assert_eq!(entries[0].line, entries[1].line);
    assert!(entries[1].json.contains("news"));
}
