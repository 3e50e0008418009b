//! OCI image layouts, in a directory or in a tar file; see the OCI image specification,
//! `image-layout.md`.
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageIndex};

use super::archive::{Kind, Reader};
use super::blobs::{Blobs, read_document};
use super::error::Doing as _;
use super::manifest::{self, Manifest};
use super::place::inside;
use super::{ImageError, Source};

/// The annotations that name an image of a layout: the specification's, and the full reference
/// that containerd and Docker write beside it.
const NAMES: [&str; 2] = [
    "org.opencontainers.image.ref.name",
    "io.containerd.image.name",
];

/// Copies an image of a layout into the store and gives its manifest's digest.
pub(super) fn import(blobs: &Blobs, source: &Source) -> Result<String, ImageError> {
    let image = source.to_string();
    let (files, name) = match source {
        Source::Layout { path, name } => (Files::Folder(path.clone()), name),
        Source::Archive { path, name } => (Files::archive(&image, path)?, name),
        Source::Registry(_) | Source::Folder(_) => {
            return Err(ImageError::Source {
                given: image,
                reason: "not an OCI layout".into(),
            });
        }
    };
    let index = read_document(files.open(&image, "index.json")?)
        .doing(|| format!("image `{image}`: reading index.json"))?;
    let index = ImageIndex::from_reader(&*index).map_err(|error| ImageError::Broken {
        image: image.clone(),
        part: "index.json".into(),
        reason: error.to_string(),
    })?;
    let top = named(&image, &index, name.as_deref())?;
    let import = Import {
        image: &image,
        blobs,
        files: &files,
    };
    import.manifest(top)
}

/// The entry of `index.json` that was asked for.
fn named<'a>(
    image: &str,
    index: &'a ImageIndex,
    name: Option<&str>,
) -> Result<&'a Descriptor, ImageError> {
    let entries = index.manifests();
    let Some(name) = name else {
        // Several entries without names are one image for several platforms.
        return match entries.as_slice() {
            // One image may be there under several names.
            [first, rest @ ..] if rest.iter().all(|entry| entry.digest() == first.digest()) => {
                Ok(first)
            }
            several if several.iter().all(|entry| names(entry).next().is_none()) => {
                manifest::choose(image, several)
            }
            several => Err(ImageError::Source {
                given: image.to_owned(),
                reason: format!(
                    "it holds several images, add one of :{}",
                    all_names(several)
                ),
            }),
        };
    };
    entries
        .iter()
        .find(|entry| names(entry).any(|found| found == name))
        .ok_or_else(|| ImageError::Source {
            given: image.to_owned(),
            reason: format!("it has no image of that name, only: {}", all_names(entries)),
        })
}

fn names(entry: &Descriptor) -> impl Iterator<Item = &str> {
    let annotations = entry.annotations().as_ref();
    NAMES
        .iter()
        .filter_map(move |key| annotations?.get(*key).map(String::as_str))
}

fn all_names(entries: &[Descriptor]) -> String {
    let names: Vec<_> = entries.iter().flat_map(names).collect();
    names.join(", :")
}

/// A copy from a layout into the store.
struct Import<'a> {
    image: &'a str,
    blobs: &'a Blobs,
    files: &'a Files,
}

impl Import<'_> {
    /// Copies a manifest and what it names; an index leads to the manifest for this machine.
    fn manifest(&self, top: &Descriptor) -> Result<String, ImageError> {
        let mut descriptor = top.clone();
        // An index may name another; a ring of them is not possible, as each is named by its hash.
        loop {
            let digest = descriptor.digest().to_string();
            let bytes = self.document(&descriptor)?;
            match Manifest::parse(self.image, &format!("manifest {digest}"), &bytes)? {
                Manifest::Index(index) => {
                    descriptor = manifest::choose(self.image, index.manifests())?.clone();
                }
                Manifest::Image(manifest) => {
                    for part in std::iter::once(manifest.config()).chain(manifest.layers()) {
                        self.blob(part)?;
                    }
                    return Ok(digest);
                }
            }
        }
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        self.blob(descriptor)?;
        let digest = descriptor.digest().as_ref();
        self.blobs
            .document(self.image, digest)?
            .ok_or_else(|| ImageError::Broken {
                image: self.image.to_owned(),
                part: format!("blob {digest}"),
                reason: "it has vanished from the store; try again".into(),
            })
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<(), ImageError> {
        self.blobs.copy(self.image, descriptor, || {
            let digest = descriptor.digest();
            self.files.open(
                self.image,
                &format!("blobs/{}/{}", digest.algorithm(), digest.digest()),
            )
        })
    }
}

/// The files of a layout.
enum Files {
    Folder(PathBuf),
    Archive {
        path: PathBuf,
        /// Where each file begins in the tar, and how long it is.
        files: BTreeMap<PathBuf, (u64, u64)>,
    },
}

impl Files {
    /// Reads the table of a tar file.
    fn archive(image: &str, path: &Path) -> Result<Self, ImageError> {
        let doing = || format!("image `{image}`: reading {}", path.display());
        let mut file = File::open(path).doing(doing)?;
        let mut magic = [0; 2];
        if file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b] {
            return Err(ImageError::Source {
                given: image.to_owned(),
                reason: "the archive is compressed; gunzip it first".into(),
            });
        }
        file.rewind().doing(doing)?;
        let mut files = BTreeMap::new();
        let mut archive = Reader::new(BufReader::new(file));
        while let Some(entry) = archive.next().doing(doing)? {
            if entry.kind == Kind::File && !entry.has_holes() {
                let name = inside(Path::new(OsStr::from_bytes(&entry.path)));
                files.insert(name, (archive.position(), entry.size));
            }
            archive.seek_over_data().doing(doing)?;
        }
        Ok(Self::Archive {
            path: path.to_owned(),
            files,
        })
    }

    fn open(&self, image: &str, name: &str) -> Result<Box<dyn Read>, ImageError> {
        let (opened, path) = match self {
            Self::Folder(dir) => {
                let opened = File::open(dir.join(name)).map(|file| Box::new(file) as Box<dyn Read>);
                (opened, dir)
            }
            Self::Archive { path, files } => (section(path, files.get(Path::new(name))), path),
        };
        opened.map_err(|error| {
            let hint = match (name, error.kind()) {
                ("index.json", io::ErrorKind::NotFound) => "; is it an OCI image layout?",
                _ => "",
            };
            ImageError::Io {
                doing: format!(
                    "image `{image}`: opening {name} in {}{hint}",
                    path.display()
                ),
                error,
            }
        })
    }
}

/// A part of a file.
fn section(path: &Path, place: Option<&(u64, u64)>) -> io::Result<Box<dyn Read>> {
    let &(start, length) = place.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    Ok(Box::new(file.take(length)))
}
