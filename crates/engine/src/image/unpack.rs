//! Layers: a tar becomes a directory, and nothing outside that directory is touched; see the OCI
//! image specification, `layer.md`.
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{linkat, symlinkat};
use sha2::{Digest as _, Sha256};

use super::archive::{Entry, Kind, Reader};
use super::attributes::set_attributes;
use super::decompress::decompressed;
use super::error::Doing as _;
use super::place::{Place, Refused, Tree, inside, is, is_whiteout};
use super::{ImageError, Layer, blobs, rootfs};

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

/// Unpacks a layer's blob into `root` and verifies its diff id. `lower` are the layers below,
/// topmost first, as they were unpacked: a directory that this layer holds things in but does not
/// list is as it is there.
pub(super) fn unpack_blob(
    layer: &Layer,
    root: &Path,
    lower: &[PathBuf],
    marks: Marks,
) -> Result<(), ImageError> {
    let doing = || format!("layer {}: reading {}", layer.diff_id, layer.blob.display());
    let file = BufReader::new(File::open(&layer.blob).doing(doing)?);
    let got = unpack_stream(&layer.diff_id, file, root, lower, marks, doing)?;
    if got == layer.diff_id {
        return Ok(());
    }
    Err(ImageError::Broken {
        image: layer.blob.display().to_string(),
        part: format!("layer {}", layer.diff_id),
        reason: format!("unpacked it has the digest {got}; the image was built wrong"),
    })
}

/// Unpacks one layer, compressed or not, into the directory `root`, which is made if it is missing,
/// and answers its diff id, `sha256:…`. Marks of deletion become those of overlayfs.
///
/// Whatever the layer holds, nothing outside of `root` is touched.
///
/// # Errors
/// [`ImageError::Entry`] for an entry that must not be unpacked or cannot be, [`ImageError::Io`] for
/// what is no tar archive, and when the system refuses.
pub fn unpack(blob: impl BufRead, root: &Path) -> Result<String, ImageError> {
    rootfs::make_root(root).doing(|| format!("making {}", root.display()))?;
    let doing = || format!("unpacking a layer into {}", root.display());
    unpack_stream("to be unpacked", blob, root, &[], Marks::Keep, doing)
}

/// Answers the digest of what was unpacked.
fn unpack_stream(
    layer: &str,
    blob: impl BufRead,
    root: &Path,
    lower: &[PathBuf],
    marks: Marks,
    doing: impl Fn() -> String,
) -> Result<String, ImageError> {
    let mut tar = Hashing {
        inner: decompressed(blob).doing(&doing)?,
        hash: Sha256::new(),
    };
    let open = |path: &Path| Tree::open(path).doing(|| format!("opening {}", path.display()));
    let mut unpacker = Unpacker {
        tree: open(root)?,
        lower: lower
            .iter()
            .map(|path| open(path))
            .collect::<Result<_, _>>()?,
        marks,
        made: BTreeSet::new(),
        times: Vec::new(),
    };
    let mut archive = Reader::new(&mut tar);
    while let Some(entry) = archive.next().doing(&doing)? {
        unpacker
            .entry(&entry, &mut archive)
            .map_err(|refused| ImageError::Entry {
                layer: layer.to_owned(),
                entry: String::from_utf8_lossy(&entry.path).into_owned(),
                reason: refused.to_string(),
            })?;
    }
    unpacker.set_times().map_err(|refused| ImageError::Entry {
        layer: layer.to_owned(),
        entry: "the times of directories".to_owned(),
        reason: refused.to_string(),
    })?;
    // The digest covers the padding after the last entry.
    io::copy(&mut tar, &mut io::sink()).doing(&doing)?;
    Ok(blobs::shown(tar.hash))
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
    /// The layers below, topmost first; none where the tree holds them already.
    lower: Vec<Tree>,
    marks: Marks,
    /// What this layer holds so far: its marks delete what is below it, never what is in it.
    made: BTreeSet<PathBuf>,
    /// Modification times of directories by what the layer calls them; set last, as making an entry
    /// changes its directory's.
    times: Vec<(PathBuf, TimeSpec)>,
}

impl Unpacker {
    fn entry(&mut self, entry: &Entry, data: &mut Reader<impl Read>) -> Result<(), Refused> {
        let path = inside(Path::new(OsStr::from_bytes(&entry.path)));
        let Some(name) = path.file_name() else {
            // What the root is like, containerd does not take from a layer.
            return Ok(());
        };
        let (parent, directory) = self.directory(path.parent().unwrap_or(Path::new("")))?;
        let place = Place {
            parent,
            name: name.to_owned(),
        };
        match name.as_bytes().strip_prefix(WHITEOUT) {
            Some(_) if name.as_bytes() == OPAQUE => self.opaque(&place, &directory),
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
            None => {
                let is_dir = entry.kind == Kind::Directory;
                let mtime = self.file(&place, directory.join(name), entry, data)?;
                if let Some(mtime) = mtime.filter(|_| is_dir) {
                    self.times.push((path, mtime));
                }
                Ok(())
            }
        }
    }

    /// A directory of the layer, and its path with no link in it. If the layer did not list it, it
    /// is made, and made as it is in the layers below.
    fn directory(&self, path: &Path) -> Result<(OwnedFd, PathBuf), Refused> {
        let path = self.tree.resolve(path)?;
        let mut done = PathBuf::new();
        let mut found = self.tree.find(&done)?;
        for name in path.components() {
            let place = Place {
                parent: found,
                name: name.as_os_str().to_owned(),
            };
            done.push(name);
            let there = place.stat()?;
            if !there.is_some_and(|stat| is(&stat, SFlag::S_IFDIR)) {
                place.missing_directory(there.as_ref())?;
                self.like_below(&place, &done)?;
            }
            found = place.open()?;
        }
        Ok((found, path))
    }

    /// Gives a directory that was just made what it has in the topmost layer that has it.
    fn like_below(&self, place: &Place, path: &Path) -> Result<(), Refused> {
        let mut lower = self.lower.iter().map(|tree| tree.find_any(path));
        match lower.find(|found| !matches!(found, Err(Errno::ENOENT | Errno::ENOTDIR))) {
            Some(below) => Ok(place.become_like(&below?)?),
            None => Ok(()),
        }
    }

    /// An entry that is no mark. Gives the modification time of what was made.
    fn file(
        &mut self,
        place: &Place,
        path: PathBuf,
        entry: &Entry,
        data: &mut Reader<impl Read>,
    ) -> Result<Option<TimeSpec>, Refused> {
        let is_dir = entry.kind == Kind::Directory;
        let was_hidden = match place.stat()? {
            Some(there) if is_dir && is(&there, SFlag::S_IFDIR) => false,
            Some(there) => {
                place.remove(&there)?;
                is_whiteout(&there)
            }
            None => false,
        };
        if entry.kind == Kind::GlobalHeader {
            // It has a name as any entry, and makes nothing there.
            return Ok(None);
        }
        self.create(place, entry, data)?;
        if is_dir && was_hidden {
            // The mark said that nothing of a lower layer shows here; that stays true.
            place.make_opaque()?;
        }
        let mtime = set_attributes(place, entry)?;
        self.made.insert(path);
        Ok(Some(mtime))
    }

    /// Makes what an entry is, with no attributes yet.
    fn create(
        &self,
        place: &Place,
        entry: &Entry,
        data: &mut Reader<impl Read>,
    ) -> Result<(), Refused> {
        let (parent, name) = (&place.parent, place.name.as_os_str());
        let private = Mode::S_IRUSR | Mode::S_IWUSR;
        let link = || {
            if entry.link.is_empty() {
                return Err(Refused::Because("a link to nothing"));
            }
            Ok(Path::new(OsStr::from_bytes(&entry.link)))
        };
        match entry.kind {
            Kind::File => {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                write(
                    File::from(openat(parent, name, flags, private)?),
                    entry,
                    data,
                )?;
            }
            Kind::Directory => match mkdirat(parent, name, Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            },
            Kind::Symlink => symlinkat(link()?, parent, name)?,
            Kind::HardLink => self.hard_link(place, link()?)?,
            Kind::Fifo => mknodat(parent, name, SFlag::S_IFIFO, private, 0)?,
            Kind::CharDevice => device(place, entry, SFlag::S_IFCHR)?,
            Kind::BlockDevice => device(place, entry, SFlag::S_IFBLK)?,
            Kind::GlobalHeader => {}
            Kind::Other(_) => {
                return Err(Refused::Because("this kind of tar entry is not supported"));
            }
        }
        Ok(())
    }

    fn hard_link(&self, place: &Place, target: &Path) -> Result<(), Refused> {
        let name = target
            .file_name()
            .ok_or(Refused::Because("a hard link to the root"))?;
        let parent = self
            .tree
            .find(&inside(target.parent().unwrap_or(Path::new(""))))?;
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

    /// Sets what had to wait until every entry was there: on whatever is there then, as containerd
    /// has it.
    fn set_times(&self) -> Result<(), Refused> {
        for (path, mtime) in &self.times {
            let path = self.tree.resolve(path)?;
            let Some(name) = path.file_name() else {
                continue;
            };
            let found = self.tree.find(path.parent().unwrap_or(Path::new("")));
            let set = found.and_then(|parent| {
                let nofollow = UtimensatFlags::NoFollowSymlink;
                utimensat(&parent, name, mtime, mtime, nofollow)
            });
            match set {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// Writes the data of a file; where it has holes, nothing.
fn write(mut file: File, entry: &Entry, data: &mut Reader<impl Read>) -> Result<(), Refused> {
    let copied = data.data(entry, |offset, data| {
        file.seek(SeekFrom::Start(offset))?;
        io::copy(data, &mut file)
    });
    match copied {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(Refused::Because("the layer ends in the middle of it"));
        }
        copied => copied?,
    }
    Ok(file.set_len(entry.size)?)
}

fn device(place: &Place, entry: &Entry, kind: SFlag) -> Result<(), Refused> {
    let number = |number: i64| {
        u32::try_from(number).map_err(|_| Refused::Because("a device number that is none"))
    };
    let (major, minor) = (number(entry.device.0)?, number(entry.device.1)?);
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
