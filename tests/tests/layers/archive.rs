//! Archives as they are, byte by byte, in any dialect.

/// Whose archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V7,
    Ustar,
    /// ustar with PAX headers for what does not fit.
    Pax,
    Gnu,
    Star,
}

/// How numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    /// With leading zeros and a zero byte behind.
    Octal,
    /// With leading spaces, and a space behind.
    Spaces,
    /// Where octal digits do not fit, they are as [`Numbers::Octal`] else.
    Binary,
}

/// An entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: u8,
    pub(super) link: &'a [u8],
    pub(super) mode: u64,
    pub(super) owner: (u64, u64),
    pub(super) mtime: u64,
    pub(super) device: (u64, u64),
    pub(super) content: &'a [u8],
}

impl Default for Entry<'_> {
    fn default() -> Self {
        Self {
            name: b"",
            kind: b'0',
            link: b"",
            mode: 0o644,
            owner: (0, 0),
            mtime: 1_600_000_000,
            device: (0, 0),
            content: b"",
        }
    }
}

pub(super) struct Archive {
    bytes: Vec<u8>,
    dialect: Dialect,
    pub(super) numbers: Numbers,
}

impl Archive {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            bytes: Vec::new(),
            dialect,
            numbers: Numbers::Octal,
        }
    }

    /// A PAX header for the next entry.
    pub(super) fn pax(&mut self, records: &[(&[u8], &[u8])]) {
        self.records(b'x', records);
    }

    /// A PAX header for all that follows.
    pub(super) fn global(&mut self, records: &[(&[u8], &[u8])]) {
        self.records(b'g', records);
    }

    fn records(&mut self, kind: u8, records: &[(&[u8], &[u8])]) {
        let content: Vec<u8> = records
            .iter()
            .flat_map(|(key, value)| record(key, value))
            .collect();
        let name = b"PaxHeaders/x";
        self.block(&Entry {
            name,
            kind,
            content: &content,
            ..Entry::default()
        });
    }

    pub(super) fn add(&mut self, entry: &Entry<'_>) {
        for (kind, key, long) in [
            (b'L', &b"path"[..], entry.name),
            (b'K', &b"linkpath"[..], entry.link),
        ] {
            if long.len() <= 100 {
                continue;
            }
            match self.dialect {
                Dialect::Gnu => self.block(&Entry {
                    name: b"././@LongLink",
                    kind,
                    content: &[long, b"\0"].concat(),
                    ..Entry::default()
                }),
                Dialect::Pax => self.pax(&[(key, long)]),
                // The name is cut: a name all the same.
                Dialect::V7 | Dialect::Ustar | Dialect::Star => {}
            }
        }
        self.block(entry);
    }

    fn block(&mut self, entry: &Entry<'_>) {
        let mut block = [0_u8; 512];
        let cut = |text: &[u8]| text[..text.len().min(100)].to_vec();
        put(&mut block, 0, &cut(entry.name));
        self.number(&mut block[100..108], entry.mode);
        self.number(&mut block[108..116], entry.owner.0);
        self.number(&mut block[116..124], entry.owner.1);
        self.number(&mut block[124..136], entry.content.len() as u64);
        self.number(&mut block[136..148], entry.mtime);
        block[156] = entry.kind;
        put(&mut block, 157, &cut(entry.link));
        match self.dialect {
            Dialect::V7 => {}
            Dialect::Gnu => put(&mut block, 257, b"ustar  \0"),
            Dialect::Ustar | Dialect::Pax | Dialect::Star => put(&mut block, 257, b"ustar\x0000"),
        }
        if self.dialect != Dialect::V7 {
            put(&mut block, 265, b"root");
            self.number(&mut block[329..337], entry.device.0);
            self.number(&mut block[337..345], entry.device.1);
        }
        if self.dialect == Dialect::Star {
            put(&mut block, 508, b"tar\0");
        }
        if self.dialect == Dialect::Ustar && entry.name.len() > 100 {
            // The first part of a long name has a field of its own.
            put(&mut block, 345, b"a/prefix");
        }
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&block);
        self.bytes.extend_from_slice(entry.content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    fn number(&self, field: &mut [u8], value: u64) {
        let room = field.len() - 1;
        let octal = format!("{value:o}");
        if octal.len() > room || self.numbers == Numbers::Binary && value > 7 {
            let bytes = value.to_be_bytes();
            let from = field.len().saturating_sub(bytes.len());
            let skip = bytes.len() - (field.len() - from);
            field[from..].copy_from_slice(&bytes[skip..]);
            field[0] |= 0x80;
            return;
        }
        let text = match self.numbers {
            Numbers::Spaces => format!("{octal:>room$} "),
            Numbers::Octal | Numbers::Binary => format!("{octal:0>room$}\0"),
        };
        field.copy_from_slice(text.as_bytes());
    }

    pub(super) fn done(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}

fn put(block: &mut [u8; 512], at: usize, text: &[u8]) {
    block[at..at + text.len()].copy_from_slice(text);
}

fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Numbers that look random and are the same in every run (xorshift).
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % limit
    }

    pub(super) fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let at = usize::try_from(self.below(list.len() as u64)).unwrap();
        &list[at]
    }

    /// Letters.
    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count)
            .map(|_| b'a' + u8::try_from(self.below(26)).unwrap())
            .collect()
    }
}
