//! Layers: a tar becomes a directory, and nothing outside that directory is touched; see the OCI
//! image specification, `layer.md`.
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{linkat, symlinkat};
use sha2::{Digest as _, Sha256};
use tar::{Entry, EntryType};

use super::attributes::set_attributes;
use super::decompress::decompressed;
use super::error::Doing as _;
use super::place::{Place, Refused, Tree, inside, is, is_whiteout};
use super::{ImageError, Layer, blobs};

/// What becomes of the marks by which a layer deletes what is below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marks {
    /// They become overlayfs' own marks.
    Keep,
    /// What they delete is deleted: the directory already holds the layers below.
    Apply,
}

/// The beginning of a name that marks a deletion.
const WHITEOUT: &[u8] = b".wh.";

/// The name that marks a directory whose lower content is hidden.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Unpacks a layer's blob into `root` and verifies its diff id.
pub(super) fn unpack_blob(layer: &Layer, root: &Path, marks: Marks) -> Result<(), ImageError> {
    let doing = || format!("layer {}: reading {}", layer.diff_id, layer.blob.display());
    let file = BufReader::new(File::open(&layer.blob).doing(doing)?);
    let mut tar = Hashing {
        inner: decompressed(file).doing(doing)?,
        hash: Sha256::new(),
    };
    let tree = Tree::open(root).doing(|| format!("opening {}", root.display()))?;
    let mut unpacker = Unpacker {
        tree,
        marks,
        made: BTreeSet::new(),
        times: Vec::new(),
    };
    let mut archive = tar::Archive::new(&mut tar);
    for entry in archive.entries().doing(doing)? {
        let mut entry = entry.doing(doing)?;
        let name = entry.path_bytes().into_owned();
        unpacker
            .entry(Path::new(OsStr::from_bytes(&name)), &mut entry)
            .map_err(|refused| ImageError::Entry {
                layer: layer.diff_id.clone(),
                entry: String::from_utf8_lossy(&name).into_owned(),
                reason: refused.to_string(),
            })?;
    }
    unpacker
        .set_times()
        .doing(|| format!("layer {}: setting times", layer.diff_id))?;
    // The digest covers the padding after the last entry.
    io::copy(&mut tar, &mut io::sink()).doing(doing)?;
    let got = blobs::shown(tar.hash);
    if got == layer.diff_id {
        return Ok(());
    }
    Err(ImageError::Broken {
        image: layer.blob.display().to_string(),
        part: format!("layer {}", layer.diff_id),
        reason: format!("unpacked it has the digest {got}; the image was built wrong"),
    })
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Makes the entries of one layer.
struct Unpacker {
    tree: Tree,
    marks: Marks,
    /// What this layer holds so far: its marks delete what is below it, never what is in it.
    made: BTreeSet<PathBuf>,
    /// Modification times of directories; set last, as making an entry changes its directory's.
    times: Vec<(PathBuf, TimeSpec)>,
}

impl Unpacker {
    fn entry(&mut self, path: &Path, entry: &mut Entry<'_, impl Read>) -> Result<(), Refused> {
        if entry.header().entry_type().is_pax_global_extensions() {
            return Ok(());
        }
        let path = inside(path)?;
        let Some(name) = path.file_name() else {
            return self.root_itself(entry);
        };
        let directory = path.parent().unwrap_or(Path::new(""));
        let place = Place {
            parent: self.tree.directory(directory)?,
            name: name.to_owned(),
        };
        match name.as_bytes().strip_prefix(WHITEOUT) {
            Some(_) if name.as_bytes() == OPAQUE => self.opaque(&place, directory),
            // What aufs keeps for itself, such as `.wh..wh.plnk`.
            Some(hidden) if hidden.starts_with(WHITEOUT) => Ok(()),
            Some(b"" | b"." | b"..") => Err(Refused::Because(
                "a mark that would delete a directory from inside it",
            )),
            Some(hidden) => {
                let name = OsStr::from_bytes(hidden);
                let place = Place {
                    parent: place.parent,
                    name: name.to_owned(),
                };
                self.whiteout(&place, &directory.join(name))
            }
            None => self.file(&place, path, entry),
        }
    }

    /// An entry that is no mark.
    fn file(
        &mut self,
        place: &Place,
        path: PathBuf,
        entry: &mut Entry<'_, impl Read>,
    ) -> Result<(), Refused> {
        let kind = entry.header().entry_type();
        let was_hidden = match place.stat()? {
            Some(there) if kind.is_dir() && is(&there, SFlag::S_IFDIR) => false,
            Some(there) => {
                place.remove(&there)?;
                is_whiteout(&there)
            }
            None => false,
        };
        self.create(place, entry)?;
        if kind.is_dir() && was_hidden {
            // The mark said that nothing of a lower layer shows here; that stays true.
            place.make_opaque()?;
        }
        // A hard link has the attributes of what it links to.
        if !kind.is_hard_link() {
            let mtime = set_attributes(place, entry)?;
            if kind.is_dir() {
                self.times.push((path.clone(), mtime));
            }
        }
        self.made.insert(path);
        Ok(())
    }

    /// Makes what an entry is, with no attributes yet.
    fn create(&self, place: &Place, entry: &mut Entry<'_, impl Read>) -> Result<(), Refused> {
        let (parent, name) = (&place.parent, place.name.as_os_str());
        let private = Mode::S_IRUSR | Mode::S_IWUSR;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                let mut file = File::from(openat(parent, name, flags, private)?);
                if io::copy(entry, &mut file)? != entry.size() {
                    return Err(Refused::Because("the layer ends in the middle of it"));
                }
            }
            EntryType::Directory => match mkdirat(parent, name, Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            },
            EntryType::Symlink => symlinkat(link_name(entry)?.as_os_str(), parent, name)?,
            EntryType::Link => self.hard_link(place, &link_name(entry)?)?,
            EntryType::Fifo => mknodat(parent, name, SFlag::S_IFIFO, private, 0)?,
            EntryType::Char => device(place, entry, SFlag::S_IFCHR)?,
            EntryType::Block => device(place, entry, SFlag::S_IFBLK)?,
            _ => return Err(Refused::Because("this kind of tar entry is not supported")),
        }
        Ok(())
    }

    fn hard_link(&self, place: &Place, target: &Path) -> Result<(), Refused> {
        let target = inside(target)?;
        let name = target
            .file_name()
            .ok_or(Refused::Because("a hard link to the root"))?;
        let parent = self.tree.find(target.parent().unwrap_or(Path::new("")))?;
        let there = Place {
            parent,
            name: name.to_owned(),
        };
        match there.stat()? {
            Some(stat) if is(&stat, SFlag::S_IFDIR) => {
                Err(Refused::Because("a hard link to a directory"))
            }
            Some(stat) if !is_whiteout(&stat) => {
                let (parent, flags) = (&place.parent, AtFlags::empty());
                Ok(linkat(
                    &there.parent,
                    name,
                    parent,
                    place.name.as_os_str(),
                    flags,
                )?)
            }
            _ => Err(Refused::Because(
                "a hard link to what the layer does not hold",
            )),
        }
    }

    /// A mark: nothing of the layers below shows at this place.
    fn whiteout(&self, place: &Place, path: &Path) -> Result<(), Refused> {
        if self.marks == Marks::Apply {
            return self.delete_lower(place, path);
        }
        match place.stat()? {
            None => {
                let (kind, none) = (SFlag::S_IFCHR, Mode::empty());
                Ok(mknodat(
                    &place.parent,
                    place.name.as_os_str(),
                    kind,
                    none,
                    0,
                )?)
            }
            Some(there) if is(&there, SFlag::S_IFDIR) => Ok(place.make_opaque()?),
            Some(_) => Ok(()),
        }
    }

    /// A mark: nothing of the layers below shows in the directory it is in.
    fn opaque(&self, mark: &Place, directory: &Path) -> Result<(), Refused> {
        let parent = mark.parent.try_clone()?;
        if self.marks == Marks::Keep {
            return Ok(Place {
                parent,
                name: ".".into(),
            }
            .make_opaque()?);
        }
        for entry in fs::read_dir(
            Place {
                parent,
                name: ".".into(),
            }
            .path(),
        )? {
            let name = entry?.file_name();
            let place = Place {
                parent: mark.parent.try_clone()?,
                name,
            };
            self.delete_lower(&place, &directory.join(&place.name))?;
        }
        Ok(())
    }

    /// Deletes what is at a place, except what this layer holds.
    fn delete_lower(&self, place: &Place, path: &Path) -> Result<(), Refused> {
        let Some(there) = place.stat()? else {
            return Ok(());
        };
        let next = self.made.range(path.to_owned()..).next();
        if !next.is_some_and(|made| made.starts_with(path)) {
            return Ok(place.remove(&there)?);
        }
        if is(&there, SFlag::S_IFDIR) {
            for entry in fs::read_dir(place.path())? {
                let inner = Place {
                    parent: place.open()?,
                    name: entry?.file_name(),
                };
                self.delete_lower(&inner, &path.join(&inner.name))?;
            }
        }
        Ok(())
    }

    /// The entry `./` says what the root directory itself is like.
    fn root_itself(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), Refused> {
        if !entry.header().entry_type().is_dir() {
            return Err(Refused::Because("the root is not a directory"));
        }
        let place = Place {
            parent: self.tree.find(Path::new(""))?,
            name: ".".into(),
        };
        let mtime = set_attributes(&place, entry)?;
        self.times.push((PathBuf::new(), mtime));
        Ok(())
    }

    /// Sets what had to wait until every entry was there.
    fn set_times(&self) -> io::Result<()> {
        for (path, mtime) in &self.times {
            // A later entry of the same layer may have replaced the directory.
            let Ok(parent) = self.tree.find(path) else {
                continue;
            };
            utimensat(&parent, ".", mtime, mtime, UtimensatFlags::NoFollowSymlink)?;
        }
        Ok(())
    }
}

fn device(place: &Place, entry: &Entry<'_, impl Read>, kind: SFlag) -> Result<(), Refused> {
    let header = entry.header();
    let (major, minor) = (
        header.device_major()?.unwrap_or(0),
        header.device_minor()?.unwrap_or(0),
    );
    if kind == SFlag::S_IFCHR && (major, minor) == (0, 0) {
        return Err(Refused::Because(
            "device 0:0 is overlayfs' mark for a deleted file",
        ));
    }
    let device = makedev(major.into(), minor.into());
    Ok(mknodat(
        &place.parent,
        place.name.as_os_str(),
        kind,
        Mode::S_IRUSR,
        device,
    )?)
}

fn link_name(entry: &Entry<'_, impl Read>) -> Result<PathBuf, Refused> {
    let name = entry
        .link_name_bytes()
        .ok_or(Refused::Because("a link to nothing"))?;
    Ok(PathBuf::from(OsStr::from_bytes(&name)))
}
