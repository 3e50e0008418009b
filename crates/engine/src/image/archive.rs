//! Tar archives, read as containerd reads them.
//!
//! An image's digest stands for its content only if everybody reads the same content out of the same
//! bytes, so this follows Go's `archive/tar`, which containerd's unpacker is built on, in everything
//! that two readers could see differently: which of several names counts, which entries are followed
//! by data, how numbers are written, where a PAX record ends (its length says so, whatever it holds),
//! what ends an archive. What Go refuses is refused. It reads v7, ustar, PAX, GNU and star archives,
//! sparse files of GNU tar in all their forms among them; see pax(1) and tar(5).
//!
//! The memory it takes is bounded: what describes one entry is at most [`LARGEST_SPECIAL`] a piece.
use std::collections::BTreeMap;
use std::io::{self, Read, Seek};

use self::header::{BLOCK, Block, Format};
use self::sparse::Segment;

mod header;
mod pax;
mod sparse;

/// The most bytes of a PAX header, of a long name, or of a map of a sparse file; as in Go.
const LARGEST_SPECIAL: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
    /// What holds for all that follows; it makes nothing, but has a name.
    GlobalHeader,
    /// A type that this reader does not know.
    Other(u8),
}

/// One entry, with everything that its headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    /// What a link leads to; empty for all else.
    pub(super) link: Vec<u8>,
    pub(super) kind: Kind,
    /// The bits of chmod(2).
    pub(super) mode: u16,
    pub(super) uid: i64,
    pub(super) gid: i64,
    /// Seconds since 1970, and nanoseconds.
    pub(super) mtime: (i64, i64),
    /// The size of the file, in bytes, holes and all.
    pub(super) size: u64,
    /// Major and minor number of a device.
    pub(super) device: (i64, i64),
    /// Extended attributes.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data goes that follows in the archive; all between is zeros.
    pub(super) segments: Vec<Segment>,
}

impl Entry {
    /// Whether the file is not in the archive as it is.
    pub(super) fn has_holes(&self) -> bool {
        self.segments != sparse::whole(self.size)
    }
}

/// Reads an archive from its beginning to its end.
pub(super) struct Reader<R> {
    inner: R,
    /// Bytes read from `inner`.
    position: u64,
    /// Bytes of data that are left of the entry, and the padding behind.
    remaining: u64,
    padding: u64,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            position: 0,
            remaining: 0,
            padding: 0,
        }
    }

    /// Where in the archive the data of the entry begins.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next entry; what is left of the data of the last one is skipped. `None` at the end.
    ///
    /// # Errors
    /// `InvalidData` for what is no tar archive, `UnexpectedEof` for one that is cut off.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut records = BTreeMap::new();
        let mut long_name = Vec::new();
        let mut long_link = Vec::new();
        loop {
            self.skip_data()?;
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            let format = block.format()?;
            let mut entry = block.entry(format)?;
            self.follows(&entry, entry.size)?;
            match block.type_flag() {
                b'x' => records = pax::parse(&self.special()?)?,
                b'g' => {
                    records = pax::parse(&self.special()?)?;
                    pax::apply(&mut entry, &records)?;
                    entry.kind = Kind::GlobalHeader;
                    return Ok(Some(entry));
                }
                b'L' => long_name = header::text(&self.special()?).to_vec(),
                b'K' => long_link = header::text(&self.special()?).to_vec(),
                flag => {
                    pax::apply(&mut entry, &records)?;
                    for (long, name) in
                        [(&long_name, &mut entry.path), (&long_link, &mut entry.link)]
                    {
                        if !long.is_empty() {
                            name.clone_from(long);
                        }
                    }
                    // Archives of old have no type for a directory.
                    if flag == 0 && entry.path.ends_with(b"/") {
                        entry.kind = Kind::Directory;
                    }
                    self.follows(&entry, entry.size)?;
                    self.find_segments(&mut entry, &block, format, &records)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Writes the data of the entry that [`Reader::next`] has given: each segment, with where in the
    /// file it belongs.
    ///
    /// # Errors
    /// `UnexpectedEof` when the archive ends before the data does, and what `write` says.
    pub(super) fn data(
        &mut self,
        entry: &Entry,
        mut write: impl FnMut(u64, &mut dyn Read) -> io::Result<u64>,
    ) -> io::Result<()> {
        for segment in &entry.segments {
            let mut data = (&mut self.inner).take(segment.length.min(self.remaining));
            let count = write(segment.offset, &mut data)?;
            self.position += count;
            self.remaining -= count;
            if count != segment.length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Says how much data is behind the headers.
    fn follows(&mut self, entry: &Entry, size: u64) -> io::Result<()> {
        self.remaining = match entry.kind {
            // Whatever size they give.
            Kind::HardLink
            | Kind::Symlink
            | Kind::CharDevice
            | Kind::BlockDevice
            | Kind::Directory
            | Kind::Fifo => 0,
            _ => size,
        };
        self.padding = self
            .remaining
            .checked_next_multiple_of(BLOCK as u64)
            .map(|end| end - self.remaining)
            .ok_or_else(|| broken("a size that no archive has"))?;
        Ok(())
    }

    /// Finds where the data of the entry goes.
    fn find_segments(
        &mut self,
        entry: &mut Entry,
        block: &Block,
        format: Format,
        records: &pax::Records,
    ) -> io::Result<()> {
        let map = if block.type_flag() == b'S' {
            if format != Format::Gnu {
                return Err(broken("a sparse file in an archive that is not GNU tar's"));
            }
            Some(self.gnu_map(entry, block)?)
        } else {
            match sparse::of_records(entry, records)? {
                sparse::Form::None => None,
                sparse::Form::Map(map) => Some(map),
                sparse::Form::InData => Some(self.map_in_data()?),
            }
        };
        let Some(map) = map else {
            entry.segments = sparse::whole(self.remaining);
            return Ok(());
        };
        if entry.kind != Kind::File || !sparse::is_sound(&map, entry.size) {
            return Err(broken("a map of a sparse file that makes no sense"));
        }
        // Go refuses an archive that has more or less data than the map says, once it is read.
        let mapped: u64 = map.iter().map(|segment| segment.length).sum();
        if mapped != self.remaining {
            return Err(broken(
                "a sparse file whose map does not agree with its data",
            ));
        }
        entry.segments = map;
        Ok(())
    }

    /// The map in the header of GNU tar's own format, and in the blocks behind.
    fn gnu_map(&mut self, entry: &mut Entry, block: &Block) -> io::Result<Vec<Segment>> {
        entry.size = block.real_size()?;
        let mut map = Vec::new();
        let mut more = block.sparse(&mut map)?;
        while more {
            let mut block = Block::new();
            self.exact(&mut block.0)?;
            more = block.more_sparse(&mut map)?;
            if map.len() as u64 > LARGEST_SPECIAL {
                return Err(broken("a sparse file of too many pieces"));
            }
        }
        Ok(map)
    }

    /// The map at the beginning of the data: PAX, version 1.0 of GNU tar's sparse files.
    fn map_in_data(&mut self) -> io::Result<Vec<Segment>> {
        let mut lines = sparse::Lines::default();
        while !lines.are_enough()? {
            if lines.read() >= LARGEST_SPECIAL {
                return Err(broken("a sparse file of too many pieces"));
            }
            let mut block = [0; BLOCK];
            self.remaining = self
                .remaining
                .checked_sub(BLOCK as u64)
                .ok_or_else(|| broken("a sparse file whose map is cut off"))?;
            self.exact(&mut block)?;
            lines.add(&block);
        }
        lines.map()
    }

    /// The data of a header that describes the entry behind it.
    fn special(&mut self) -> io::Result<Vec<u8>> {
        if self.remaining > LARGEST_SPECIAL {
            return Err(broken("a header that is larger than a mebibyte"));
        }
        let mut bytes = Vec::new();
        (&mut self.inner)
            .take(self.remaining)
            .read_to_end(&mut bytes)?;
        self.position += bytes.len() as u64;
        self.remaining -= bytes.len() as u64;
        if self.remaining > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }

    /// The next header, unless the archive ends here.
    fn block(&mut self) -> io::Result<Option<Block>> {
        let mut block = Block::new();
        if !self.exact_or_end(&mut block.0)? {
            return Ok(None);
        }
        if !block.is_zero() {
            return Ok(Some(block));
        }
        if !self.exact_or_end(&mut block.0)? || block.is_zero() {
            return Ok(None);
        }
        Err(broken("a zero block in the middle of the archive"))
    }

    fn skip_data(&mut self) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.inner).take(self.remaining), &mut io::sink())?;
        self.position += skipped;
        if skipped != self.remaining {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // The last entry of an archive may lack its padding, as Go has it.
        self.position += io::copy(&mut (&mut self.inner).take(self.padding), &mut io::sink())?;
        self.remaining = 0;
        self.padding = 0;
        Ok(())
    }

    fn exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// False at the end of the input.
    fn exact_or_end(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        let mut first = Vec::new();
        (&mut self.inner)
            .take(bytes.len() as u64)
            .read_to_end(&mut first)?;
        self.position += first.len() as u64;
        if first.is_empty() {
            return Ok(false);
        }
        if first.len() != bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.copy_from_slice(&first);
        Ok(true)
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Skips the data of the entry without reading it.
    ///
    /// # Errors
    /// What lseek(2) says.
    pub(super) fn seek_over_data(&mut self) -> io::Result<()> {
        let all = i64::try_from(self.remaining + self.padding)
            .map_err(|_| broken("a size that no file has"))?;
        self.inner.seek_relative(all)?;
        self.position += self.remaining + self.padding;
        self.remaining = 0;
        self.padding = 0;
        Ok(())
    }
}

fn broken(reason: &'static str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not a tar archive: {reason}"),
    )
}
