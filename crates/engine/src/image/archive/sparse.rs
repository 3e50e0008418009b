//! Maps of sparse files: where the data goes that the archive has.
use std::io;

use super::pax::{self, Records};
use super::{Entry, broken};

/// Data in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Segment {
    /// Where it begins, in bytes.
    pub(in super::super) offset: u64,
    /// How many bytes it has.
    pub(in super::super) length: u64,
}

/// How PAX records describe a sparse file.
pub(super) enum Form {
    /// It is none.
    None,
    /// The records have the map (versions 0.0 and 0.1).
    Map(Vec<Segment>),
    /// The data begins with the map (version 1.0).
    InData,
}

/// A file without holes.
pub(super) fn whole(size: u64) -> Vec<Segment> {
    if size == 0 {
        return Vec::new();
    }
    vec![Segment {
        offset: 0,
        length: size,
    }]
}

/// What records say of a sparse file: its name and size, and where its map is.
pub(super) fn of_records(entry: &mut Entry, records: &Records) -> io::Result<Form> {
    let get = |key: &str| records.get(key.as_bytes()).map_or(&b""[..], Vec::as_slice);
    let in_data = match (get("GNU.sparse.major"), get("GNU.sparse.minor")) {
        (b"0", b"0" | b"1") => false,
        (b"1", b"0") => true,
        (b"", b"")
            if records
                .get(pax::SPARSE_MAP)
                .is_some_and(|map| !map.is_empty()) =>
        {
            false
        }
        _ => return Ok(Form::None),
    };
    let name = get("GNU.sparse.name");
    if !name.is_empty() {
        entry.path = name.to_vec();
    }
    let size = [get("GNU.sparse.size"), get("GNU.sparse.realsize")];
    if let Some(size) = size.into_iter().find(|size| !size.is_empty()) {
        entry.size = number(size)?;
    }
    if in_data {
        return Ok(Form::InData);
    }
    let count = number(get("GNU.sparse.numblocks"))?;
    let map = records.get(pax::SPARSE_MAP).map_or(&b""[..], Vec::as_slice);
    let numbers = match map {
        b"" => Vec::new(),
        map => map
            .split(|byte| *byte == b',')
            .map(number)
            .collect::<io::Result<Vec<_>>>()?,
    };
    let map = segments(&numbers);
    if numbers.len() % 2 != 0 || map.len() as u64 != count {
        return Err(broken("a map of a sparse file that makes no sense"));
    }
    Ok(Form::Map(map))
}

fn number(text: &[u8]) -> io::Result<u64> {
    let number = pax::integer(text).and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| broken("a map of a sparse file that holds no number"))
}

fn segments(numbers: &[u64]) -> Vec<Segment> {
    let pairs = numbers.chunks_exact(2);
    pairs
        .filter_map(|pair| match pair {
            [offset, length] => Some(Segment {
                offset: *offset,
                length: *length,
            }),
            _ => None,
        })
        .collect()
}

/// Whether segments are in order, apart, and within a file of this size.
pub(super) fn is_sound(map: &[Segment], size: u64) -> bool {
    let mut end = 0;
    for segment in map {
        let Some(next) = segment.offset.checked_add(segment.length) else {
            return false;
        };
        if segment.offset < end || next > size {
            return false;
        }
        end = next;
    }
    true
}

/// The lines of a map that is at the beginning of the data: a count, and two numbers for each.
#[derive(Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    newlines: u64,
}

impl Lines {
    pub(super) fn add(&mut self, block: &[u8]) {
        self.bytes.extend_from_slice(block);
        let newlines = block.iter().filter(|byte| **byte == b'\n').count();
        self.newlines += newlines as u64;
    }

    /// How many bytes were added.
    pub(super) fn read(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether every line that the first one counts is there.
    pub(super) fn are_enough(&self) -> io::Result<bool> {
        if self.newlines == 0 {
            return Ok(false);
        }
        let wanted = self.count()?.checked_mul(2).and_then(|n| n.checked_add(1));
        Ok(self.newlines >= wanted.ok_or_else(|| broken("a sparse file of too many pieces"))?)
    }

    fn count(&self) -> io::Result<u64> {
        let first = self.bytes.split(|byte| *byte == b'\n').next();
        number(first.unwrap_or_default())
    }

    /// The map.
    pub(super) fn map(&self) -> io::Result<Vec<Segment>> {
        let lines = self.bytes.split(|byte| *byte == b'\n').skip(1);
        let wanted = usize::try_from(self.count()?.saturating_mul(2)).unwrap_or(usize::MAX);
        let numbers: io::Result<Vec<_>> = lines.take(wanted).map(number).collect();
        Ok(segments(&numbers?))
    }
}
