//! Content by digest: nothing gets in that is not what its name says.
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use oci_spec::image::Descriptor;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::ImageError;
use super::error::Doing as _;

/// The largest manifest, index or configuration that is read into memory: what registries accept.
pub(super) const DOCUMENT_LIMIT: u64 = 4 << 20;

/// The hexadecimal part of a `sha256:` digest, `None` for any other text: safe as a file name.
pub(super) fn hex(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    let valid = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    valid.then_some(hex)
}

/// The digest of some bytes, `sha256:…`.
pub(super) fn digest(bytes: &[u8]) -> String {
    shown(Sha256::new_with_prefix(bytes))
}

/// A finished hash as `sha256:…`.
pub(super) fn shown(hash: Sha256) -> String {
    let mut text = String::from("sha256:");
    for byte in hash.finalize() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The directory of blobs.
#[derive(Clone, Debug)]
pub(super) struct Blobs {
    /// Holds a file per blob, named by its hash.
    pub(super) dir: PathBuf,
    /// Where they are written, on the same filesystem.
    pub(super) tmp: PathBuf,
}

impl Blobs {
    /// Where a blob is, or would be.
    pub(super) fn path(&self, image: &str, digest: &str) -> Result<PathBuf, ImageError> {
        hex(digest)
            .map(|hex| self.dir.join(hex))
            .ok_or_else(|| ImageError::Broken {
                image: image.to_owned(),
                part: format!("digest `{digest}`"),
                reason: "only sha256 is supported".into(),
            })
    }

    /// Starts to write the blob of a descriptor; `None` when it is in the store already.
    pub(super) fn write(
        &self,
        image: &str,
        wanted: &Descriptor,
    ) -> Result<Option<Incoming>, ImageError> {
        let path = self.path(image, wanted.digest().as_ref())?;
        if path.exists() {
            return Ok(None);
        }
        let file = NamedTempFile::new_in(&self.tmp)
            .doing(|| format!("making a file in {}", self.tmp.display()))?;
        Ok(Some(Incoming {
            image: image.to_owned(),
            digest: wanted.digest().to_string(),
            size: wanted.size(),
            written: 0,
            hash: Sha256::new(),
            file,
            path,
        }))
    }

    /// Copies a blob into the store unless it is there.
    pub(super) fn copy(
        &self,
        image: &str,
        wanted: &Descriptor,
        open: impl FnOnce() -> Result<Box<dyn Read>, ImageError>,
    ) -> Result<(), ImageError> {
        let Some(mut incoming) = self.write(image, wanted)? else {
            return Ok(());
        };
        io::copy(&mut open()?, &mut incoming)
            .doing(|| format!("image `{image}`: copying blob {}", wanted.digest()))?;
        incoming.finish()
    }

    /// Writes a manifest that came without a descriptor, and gives its digest.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<String, ImageError> {
        let digest = digest(bytes);
        let path = self.path("", &digest)?;
        if !path.exists() {
            write_atomically(&self.tmp, &path, bytes)?;
        }
        Ok(digest)
    }

    /// Reads a manifest, an index or a configuration; `None` when it is not in the store.
    pub(super) fn document(
        &self,
        image: &str,
        digest: &str,
    ) -> Result<Option<Vec<u8>>, ImageError> {
        let path = self.path(image, digest)?;
        match File::open(&path) {
            Ok(file) => read_document(file)
                .map(Some)
                .doing(|| format!("reading {}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("opening {}", path.display())),
        }
    }
}

/// Reads at most [`DOCUMENT_LIMIT`] bytes.
pub(super) fn read_document(file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(DOCUMENT_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("more than {DOCUMENT_LIMIT} bytes"),
        ));
    }
    Ok(bytes)
}

/// Writes a file so that it is there in full or not at all.
pub(super) fn write_atomically(tmp: &Path, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let doing = || format!("writing {}", path.display());
    let mut file = NamedTempFile::new_in(tmp).doing(doing)?;
    file.write_all(bytes).doing(doing)?;
    persist(file, path)
}

fn persist(file: NamedTempFile, path: &Path) -> Result<(), ImageError> {
    let doing = || format!("writing {}", path.display());
    // A name must not outlive a power cut that its content did not.
    file.as_file().sync_all().doing(doing)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).doing(doing)?;
    }
    file.persist(path)
        .map_err(|error| error.error)
        .doing(doing)
        .map(drop)
}

/// A blob being written; dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub(super) struct Incoming {
    image: String,
    digest: String,
    size: u64,
    written: u64,
    hash: Sha256,
    file: NamedTempFile,
    path: PathBuf,
}

impl Incoming {
    /// Bytes so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Puts the blob in its place if it is what was announced.
    pub(super) fn finish(self) -> Result<(), ImageError> {
        let broken = |reason: String| ImageError::Broken {
            image: self.image.clone(),
            part: format!("blob {}", self.digest),
            reason,
        };
        if self.written != self.size {
            return Err(broken(format!(
                "it ended after {} of {} bytes; try again",
                self.written, self.size
            )));
        }
        let got = shown(self.hash);
        if got != self.digest {
            return Err(broken(format!(
                "what came has the digest {got}; it was altered on the way or at its source"
            )));
        }
        persist(self.file, &self.path)
    }
}

impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        // Stop a server that sends without end before it fills the disk.
        if self.written > self.size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("more came than the {} bytes announced", self.size),
            ));
        }
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
