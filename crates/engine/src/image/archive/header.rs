//! One block of 512 bytes: the header of an entry, in one of the formats.
use std::io;

use super::sparse::Segment;
use super::{Entry, Kind, broken};

/// The size of a block, in bytes.
pub(super) const BLOCK: usize = 512;

/// Where the checksum is.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// Whose header it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

pub(super) struct Block(pub(super) [u8; BLOCK]);

impl Block {
    pub(super) fn new() -> Self {
        Self([0; BLOCK])
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.field(156, 1).first().copied().unwrap_or_default()
    }

    fn field(&self, start: usize, length: usize) -> &[u8] {
        self.0.get(start..start + length).unwrap_or_default()
    }

    fn number(&self, start: usize, length: usize) -> io::Result<i64> {
        number(self.field(start, length))
    }

    fn text(&self, start: usize, length: usize) -> &[u8] {
        text(self.field(start, length))
    }

    /// The format, if the checksum is right.
    pub(super) fn format(&self) -> io::Result<Format> {
        let wrong = || broken("a header whose checksum is wrong");
        let stated = octal(self.field(148, 8)).map_err(|_| wrong())?;
        let counted = |each: fn(u8) -> i64| -> i64 {
            let bytes = self.0.iter().enumerate();
            bytes
                .map(|(at, byte)| each(if CHECKSUM.contains(&at) { b' ' } else { *byte }))
                .sum()
        };
        // Sun's tar summed signed bytes.
        if stated != counted(i64::from) && stated != counted(|byte| byte.cast_signed().into()) {
            return Err(wrong());
        }
        Ok(match (self.field(257, 6), self.field(263, 2)) {
            (b"ustar\0", _) if self.field(508, 4) == b"tar\0" => Format::Star,
            (b"ustar\0", _) => Format::Ustar,
            (b"ustar ", b" \0") => Format::Gnu,
            _ => Format::V7,
        })
    }

    /// What the header says of the entry.
    pub(super) fn entry(&self, format: Format) -> io::Result<Entry> {
        let mut path = self.text(0, 100).to_vec();
        let mut device = (0, 0);
        if format != Format::V7 {
            device = (self.number(329, 8)?, self.number(337, 8)?);
            let prefix = self.prefix(format)?;
            if !prefix.is_empty() {
                path = [prefix, b"/", &path].concat();
            }
        }
        let mode = self.number(100, 8)? & 0o7777;
        Ok(Entry {
            path,
            link: self.text(157, 100).to_vec(),
            kind: kind(self.type_flag()),
            mode: u16::try_from(mode).unwrap_or_default(),
            uid: self.number(108, 8)?,
            gid: self.number(116, 8)?,
            mtime: (self.number(136, 12)?, 0),
            size: size(self.number(124, 12)?)?,
            device,
            xattrs: Vec::new(),
            segments: Vec::new(),
        })
    }

    /// What the name begins with, if the format has room for it.
    fn prefix(&self, format: Format) -> io::Result<&[u8]> {
        Ok(match format {
            Format::V7 => b"",
            Format::Ustar => self.text(345, 155),
            Format::Star => {
                // Times that nobody needs, but that must be numbers.
                self.number(476, 12)?;
                self.number(488, 12)?;
                self.text(345, 131)
            }
            Format::Gnu => {
                let sound = |start| self.field(start, 1) == [0] || self.number(start, 12).is_ok();
                // What old versions of Go wrote has a prefix where GNU tar has times.
                if sound(345) && sound(357) || !self.text(345, 155).is_ascii() {
                    b""
                } else {
                    self.text(345, 155)
                }
            }
        })
    }

    /// The size of a sparse file of GNU tar's own format.
    pub(super) fn real_size(&self) -> io::Result<u64> {
        size(self.number(483, 12)?)
    }

    /// Reads the map in a header; says whether a block with more of it follows.
    pub(super) fn sparse(&self, map: &mut Vec<Segment>) -> io::Result<bool> {
        self.segments(386, 4, map)?;
        Ok(self.field(482, 1) != [0])
    }

    /// The same for a block that continues a map.
    pub(super) fn more_sparse(&self, map: &mut Vec<Segment>) -> io::Result<bool> {
        self.segments(0, 21, map)?;
        Ok(self.field(504, 1) != [0])
    }

    fn segments(&self, start: usize, count: usize, map: &mut Vec<Segment>) -> io::Result<()> {
        for at in (start..).step_by(24).take(count) {
            if self.field(at, 1) == [0] {
                break;
            }
            map.push(Segment {
                offset: size(self.number(at, 12)?)?,
                length: size(self.number(at + 12, 12)?)?,
            });
        }
        Ok(())
    }
}

fn kind(flag: u8) -> Kind {
    match flag {
        // `S` is a sparse file of GNU tar.
        b'0' | 0 | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => Kind::Other(other),
    }
}

/// A size or an offset, which is never negative.
pub(super) fn size(number: i64) -> io::Result<u64> {
    u64::try_from(number).map_err(|_| broken("a negative size"))
}

/// A text up to its first zero byte.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits or, with the highest bit set, in two's complement.
fn number(field: &[u8]) -> io::Result<i64> {
    let Some((first, rest)) = field.split_first().filter(|(first, _)| *first & 0x80 != 0) else {
        return octal(field);
    };
    let inverted = if first & 0x40 == 0 { 0 } else { 0xff };
    let mut value = u64::from((first ^ inverted) & 0x7f);
    for byte in rest {
        if value >> 56 != 0 {
            return Err(broken("a number that is too large"));
        }
        value = value << 8 | u64::from(byte ^ inverted);
    }
    let value = i64::try_from(value).map_err(|_| broken("a number that is too large"))?;
    Ok(if inverted == 0 { value } else { !value })
}

fn octal(field: &[u8]) -> io::Result<i64> {
    let wrong = || broken("a field that is no number");
    let padding = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !padding(byte));
    let end = field.iter().rposition(|byte| !padding(byte));
    let (Some(start), Some(end)) = (start, end) else {
        return Ok(0);
    };
    let digits = text(field.get(start..=end).unwrap_or_default());
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
    let value = u64::from_str_radix(digits, 8).map_err(|_| wrong())?;
    Ok(value.cast_signed())
}
