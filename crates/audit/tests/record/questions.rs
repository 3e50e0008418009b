//! Questions are kept once, in bounds, and come back as they were.
use std::fs;
use std::io::Write as _;
use std::thread;

use husk_audit::{KeepError, Questions};

use crate::Record;

fn digest(number: u32) -> String {
    format!("{number:064x}")
}

/// The bytes of all files below a directory, as blocks.
fn blocks(dir: &std::path::Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let sizes = entries.map(|entry| match entry.metadata().unwrap() {
        found if found.is_dir() => blocks(&entry.path()),
        found => found.len().div_ceil(4096) * 4096,
    });
    sizes.sum()
}

#[test]
fn a_question_comes_back_and_is_there_once() {
    let record = Record::new();
    let questions = Questions::new(record.dir(), 1 << 20);
    assert_eq!(questions.all().unwrap(), []);
    questions.keep(&digest(1), b"{\"first\":1}", false).unwrap();
    questions.keep(&digest(1), b"{\"other\":1}", false).unwrap();
    questions.keep(&digest(2), b"{}", false).unwrap();
    let all = questions.all().unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].digest, digest(1));
    assert_eq!(all[0].read().unwrap(), b"{\"first\":1}");
    questions.keep(&digest(1), b"{\"anew\":1}", true).unwrap();
    let all = questions.all().unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[1].read().unwrap(), b"{\"anew\":1}");
}

#[test]
fn all_of_them_have_no_more_than_is_said_and_the_last_are_there() {
    let record = Record::new();
    let most = 256 << 10;
    thread::scope(|scope| {
        for writer in 0..4 {
            let questions = Questions::new(record.dir(), most);
            scope.spawn(move || {
                for number in 0..100 {
                    let digest = digest(writer * 1000 + number);
                    questions.keep(&digest, digest.as_bytes(), false).unwrap();
                }
            });
        }
    });
    let questions = Questions::new(record.dir(), most);
    let all = questions.all().unwrap();
    assert!(all.len() >= 7 * 8 && all.len() <= 64, "{}", all.len());
    for kept in &all {
        assert_eq!(kept.read().unwrap(), kept.digest.as_bytes());
    }
    // A count for each generation comes on top.
    let used = blocks(record.dir());
    assert!(used <= most + 8 * 4096, "{used}");
    // What is asked all the time outlives all others.
    for number in 5000..5200 {
        questions.keep(&digest(7), b"again", false).unwrap();
        questions.keep(&digest(number), b"once", false).unwrap();
    }
    let all = questions.all().unwrap();
    assert!(all.iter().any(|kept| kept.digest == digest(7)));
    assert!(!all.iter().any(|kept| kept.digest == digest(5000)));
}

#[test]
fn what_is_too_long_or_no_digest_is_refused() {
    let record = Record::new();
    let questions = Questions::new(record.dir(), 1 << 20);
    let long = vec![b' '; (1 << 20) + 1];
    let refused = questions.keep(&digest(1), &long, false).unwrap_err();
    assert!(matches!(refused, KeepError::Long(_)));
    for digest in ["", "../../etc/passwd", "ab/cd", "x"] {
        let refused = questions.keep(digest, b"{}", false).unwrap_err();
        assert!(refused.to_string().contains("is no digest"), "{refused}");
    }
    assert_eq!(questions.all().unwrap(), []);
}

#[test]
fn a_file_that_swells_or_is_cut_is_an_error() {
    let record = Record::new();
    let questions = Questions::new(record.dir(), 1 << 20);
    questions.keep(&digest(1), &[b'x'; 1000], false).unwrap();
    let path = record
        .dir()
        .join("questions/00000001")
        .join(format!("{}.json.gz", digest(1)));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    assert!(questions.all().unwrap()[0].read().is_err());
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..200 {
        bomb.write_all(&vec![0; 1 << 20]).unwrap();
    }
    fs::write(&path, bomb.finish().unwrap()).unwrap();
    let refused = questions.all().unwrap()[0].read().unwrap_err().to_string();
    assert!(refused.contains("more than 1048576 bytes"), "{refused}");
}

#[test]
fn a_lost_count_begins_a_new_generation() {
    let record = Record::new();
    let questions = Questions::new(record.dir(), 1 << 20);
    questions.keep(&digest(1), b"{}", false).unwrap();
    fs::write(record.dir().join("questions/00000001/size"), "x").unwrap();
    questions.keep(&digest(2), b"{}", false).unwrap();
    assert!(record.dir().join("questions/00000002").is_dir());
    assert_eq!(questions.all().unwrap().len(), 2);
}
