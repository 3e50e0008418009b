//! Shims of many pods write at once, and some are killed meanwhile.
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use husk_audit::{Reader, Writer};
use husk_scope::audit::Line;
use husk_scope::config::Audit;

use crate::{Record, drain, line};

/// What tells a writer its directory, its name, and how many lines of how many bytes it writes.
const AS: &str = "HUSK_AUDIT_TEST_WRITER";

#[test]
#[ignore = "what the other tests run as a process of its own"]
fn a_writer() {
    let words = env::var(AS).unwrap();
    let words: Vec<_> = words.split(' ').collect();
    let settings = Audit {
        dir: words[0].into(),
        max_size: 64 << 10,
        keep: 1000,
        ..Audit::default()
    };
    let writer = Writer::new(&settings);
    for count in 0..words[2].parse().unwrap() {
        let mut line = line(words[1], count);
        line.reason = Some("x".repeat(words[3].parse().unwrap()));
        writer.append(&mut [line]).unwrap();
    }
}

fn start(record: &Record, name: &str, lines: u64, bytes: usize) -> Child {
    let dir = record.dir().display();
    Command::new(env::current_exe().unwrap())
        .args(["many_processes::a_writer", "--exact", "--ignored"])
        .env(AS, format!("{dir} {name} {lines} {bytes}"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The counts of each writer, in the order of the record.
fn by_writer(lines: impl IntoIterator<Item = Line>) -> BTreeMap<String, Vec<u64>> {
    let mut counts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in lines {
        counts.entry(line.pod.name).or_default().push(line.micros);
    }
    counts
}

#[test]
fn every_line_is_there_once_whole_and_in_its_writers_order() {
    let record = Record::new();
    let mut writers: Vec<_> = (0..8)
        .map(|name| start(&record, &name.to_string(), 400, 300))
        .collect();
    let mut reader = Reader::new(record.dir(), None);
    let mut followed = Vec::new();
    let begun = Instant::now();
    while !writers.is_empty() {
        writers.retain_mut(|writer| match writer.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success());
                false
            }
            None => true,
        });
        followed.extend(drain(&mut reader));
        assert!(begun.elapsed() < Duration::from_secs(120));
        sleep(Duration::from_millis(1));
    }
    followed.extend(drain(&mut reader));
    assert_eq!(reader.spoilt(), 0);
    let entries = record.entries();
    assert_eq!(
        followed, entries,
        "who follows sees what is there afterwards"
    );
    let counts = by_writer(entries.into_iter().map(|entry| entry.line));
    assert_eq!(counts.len(), 8);
    for (name, counts) in counts {
        assert_eq!(counts, (0..400).collect::<Vec<_>>(), "writer {name}");
    }
    let files = record.files();
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        assert!(fs::metadata(&file).unwrap().len() <= 64 << 10, "{file:?}");
    }
}

#[test]
fn a_killed_writer_takes_no_line_but_its_last_with_it() {
    let record = Record::new();
    for round in 0..12_u32 {
        let names = (0..4).map(|name| format!("{round}-{name}"));
        let mut writers: Vec<_> = names
            .map(|name| start(&record, &name, 1_000_000, 8000))
            .collect();
        sleep(Duration::from_millis(40) + Duration::from_micros(777) * round);
        for writer in &mut writers {
            writer.kill().unwrap();
            writer.wait().unwrap();
        }
    }
    record.writer().append(&mut [line("after", 0)]).unwrap();
    let (entries, spoilt) = record.read();
    println!("{} lines, {spoilt} cut", entries.len());
    assert!(spoilt <= 48, "{spoilt} lines were cut by 48 kills");
    assert_eq!(entries.last().unwrap().line.pod.name, "after");
    let counts = by_writer(entries.into_iter().map(|entry| entry.line));
    assert!(counts.len() > 12, "{}", counts.len());
    for (name, counts) in counts {
        assert_eq!(
            counts,
            (0..counts.len() as u64).collect::<Vec<_>>(),
            "writer {name}"
        );
    }
}
