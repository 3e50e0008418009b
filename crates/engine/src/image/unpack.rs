//! Layers: a tar becomes a directory, and nothing outside that directory is touched.
//!
//! Every entry is made relative to a descriptor of its parent directory, and that directory is
//! found by openat2(2) with RESOLVE_IN_ROOT: whatever links a layer holds, they lead nowhere but
//! into it. See the OCI image specification, `layer.md`.
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, major, makedev, minor,
    mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use sha2::{Digest as _, Sha256};
use tar::{Entry, EntryType};

use super::decompress::decompressed;
use super::error::Doing as _;
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

/// The extended attribute by which overlayfs knows an opaque directory.
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// Unpacks a layer's blob into `root` and verifies its diff id.
pub(super) fn unpack_blob(layer: &Layer, root: &Path, marks: Marks) -> Result<(), ImageError> {
    let doing = || format!("layer {}: reading {}", layer.diff_id, layer.blob.display());
    let file = BufReader::new(File::open(&layer.blob).doing(doing)?);
    let mut tar = Hashing {
        inner: decompressed(file).doing(doing)?,
        hash: Sha256::new(),
    };
    let mut unpacker = Unpacker::new(root, marks, &layer.diff_id)?;
    let mut archive = tar::Archive::new(&mut tar);
    for entry in archive.entries().doing(doing)? {
        unpacker.entry(entry.doing(doing)?)?;
    }
    unpacker.finish()?;
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
struct Unpacker<'a> {
    root: OwnedFd,
    marks: Marks,
    layer: &'a str,
    /// Modification times of directories; set last, as making an entry changes its directory's.
    times: Vec<(PathBuf, TimeSpec)>,
}

/// Where an entry goes: a directory of the layer, and a name in it.
struct Place {
    parent: OwnedFd,
    name: OsString,
}

impl Place {
    /// A path to it for calls that take no directory descriptor. It cannot be led astray: the
    /// descriptor's link is the directory itself, and such calls do not follow the last name.
    fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd")
            .join(self.parent.as_raw_fd().to_string())
            .join(&self.name)
    }

    /// What is there now.
    fn stat(&self) -> Result<Option<FileStat>, Errno> {
        match fstatat(
            &self.parent,
            self.name.as_os_str(),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        ) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, stat: &FileStat) -> io::Result<()> {
        if is(stat, SFlag::S_IFDIR) {
            return fs::remove_dir_all(self.path());
        }
        Ok(unlinkat(
            &self.parent,
            self.name.as_os_str(),
            UnlinkatFlags::NoRemoveDir,
        )?)
    }
}

fn is(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
}

fn is_whiteout(stat: &FileStat) -> bool {
    is(stat, SFlag::S_IFCHR) && (major(stat.st_rdev), minor(stat.st_rdev)) == (0, 0)
}

/// A refusal; turned into [`ImageError::Entry`] where the entry's name is known.
enum Refused {
    Because(&'static str),
    System(io::Error),
}

impl<E: Into<io::Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::System(error.into())
    }
}

impl<'a> Unpacker<'a> {
    fn new(root: &Path, marks: Marks, layer: &'a str) -> Result<Self, ImageError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = openat(AT_FDCWD, root, flags, Mode::empty())
            .doing(|| format!("opening {}", root.display()))?;
        Ok(Self {
            root,
            marks,
            layer,
            times: Vec::new(),
        })
    }

    fn entry(&mut self, mut entry: Entry<'_, impl Read>) -> Result<(), ImageError> {
        let name = entry.path_bytes().into_owned();
        self.make(Path::new(OsStr::from_bytes(&name)), &mut entry)
            .map_err(|refused| ImageError::Entry {
                layer: self.layer.to_owned(),
                entry: String::from_utf8_lossy(&name).into_owned(),
                reason: match refused {
                    Refused::Because(reason) => reason.to_owned(),
                    Refused::System(error) => error.to_string(),
                },
            })
    }

    fn make(&mut self, path: &Path, entry: &mut Entry<'_, impl Read>) -> Result<(), Refused> {
        if entry.header().entry_type().is_pax_global_extensions() {
            return Ok(());
        }
        let path = inside(path)?;
        let Some(name) = path.file_name() else {
            return self.root_itself(entry);
        };
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        let place = Place {
            parent,
            name: name.to_owned(),
        };
        if let Some(mark) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(place, mark);
        }
        let directory = entry.header().entry_type().is_dir();
        let was_hidden = match place.stat()? {
            Some(there) if directory && is(&there, SFlag::S_IFDIR) => false,
            Some(there) => {
                place.remove(&there)?;
                is_whiteout(&there)
            }
            None => false,
        };
        self.create(&place, entry)?;
        if entry.header().entry_type().is_hard_link() {
            return Ok(());
        }
        if directory && was_hidden {
            // The mark said that nothing of a lower layer shows here; that stays true.
            xattr::set(place.path(), OPAQUE_XATTR, b"y")?;
        }
        let mtime = set_attributes(&place, entry)?;
        if directory {
            self.times.push((path, mtime));
        }
        Ok(())
    }

    /// Makes what an entry is, with no attributes yet.
    fn create(&self, place: &Place, entry: &mut Entry<'_, impl Read>) -> Result<(), Refused> {
        let name = place.name.as_os_str();
        let private = Mode::S_IRUSR | Mode::S_IWUSR;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                let mut file = File::from(openat(&place.parent, name, flags, private)?);
                if io::copy(entry, &mut file)? != entry.size() {
                    return Err(Refused::Because("the layer ends in the middle of it"));
                }
            }
            EntryType::Directory => match mkdirat(&place.parent, name, Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            },
            EntryType::Symlink => {
                let target = link_name(entry)?;
                symlinkat(target.as_os_str(), &place.parent, name)?;
            }
            EntryType::Link => self.hard_link(place, &link_name(entry)?)?,
            EntryType::Fifo => mknodat(&place.parent, name, SFlag::S_IFIFO, private, 0)?,
            EntryType::Char => self.device(place, entry, SFlag::S_IFCHR)?,
            EntryType::Block => self.device(place, entry, SFlag::S_IFBLK)?,
            _ => return Err(Refused::Because("this kind of tar entry is not supported")),
        }
        Ok(())
    }

    fn hard_link(&self, place: &Place, target: &Path) -> Result<(), Refused> {
        let target = inside(target)?;
        let parent = self.find(target.parent().unwrap_or(Path::new("")))?;
        let name = target
            .file_name()
            .ok_or(Refused::Because("a hard link to the root"))?;
        let there = Place {
            parent,
            name: name.to_owned(),
        };
        match there.stat()? {
            Some(stat) if is(&stat, SFlag::S_IFDIR) => {
                Err(Refused::Because("a hard link to a directory"))
            }
            Some(stat) if !is_whiteout(&stat) => {
                let flags = AtFlags::empty();
                linkat(
                    &there.parent,
                    name,
                    &place.parent,
                    place.name.as_os_str(),
                    flags,
                )?;
                Ok(())
            }
            _ => Err(Refused::Because(
                "a hard link to what the layer does not hold",
            )),
        }
    }

    fn device(
        &self,
        place: &Place,
        entry: &Entry<'_, impl Read>,
        kind: SFlag,
    ) -> Result<(), Refused> {
        let header = entry.header();
        let major = header.device_major()?.unwrap_or(0);
        let minor = header.device_minor()?.unwrap_or(0);
        if kind == SFlag::S_IFCHR && (major, minor) == (0, 0) {
            return Err(Refused::Because(
                "device 0:0 is overlayfs' mark for a deleted file",
            ));
        }
        let device = makedev(u64::from(major), u64::from(minor));
        Ok(mknodat(
            &place.parent,
            place.name.as_os_str(),
            kind,
            Mode::S_IRUSR,
            device,
        )?)
    }

    /// A mark: nothing of the layers below shows at `hidden`, or at all if the mark is OPAQUE.
    fn whiteout(&self, mut place: Place, hidden: &[u8]) -> Result<(), Refused> {
        if place.name.as_bytes() == OPAQUE {
            return self.opaque(&place);
        }
        if hidden.starts_with(WHITEOUT) {
            // What aufs keeps for itself, such as `.wh..wh.plnk`.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Refused::Because(
                "a mark that would delete a directory from inside it",
            ));
        }
        place.name = OsStr::from_bytes(hidden).to_owned();
        let there = place.stat()?;
        match (self.marks, there) {
            (Marks::Apply, Some(there)) => Ok(place.remove(&there)?),
            (Marks::Apply, None) => Ok(()),
            (Marks::Keep, None) => {
                let none = Mode::empty();
                Ok(mknodat(
                    &place.parent,
                    place.name.as_os_str(),
                    SFlag::S_IFCHR,
                    none,
                    0,
                )?)
            }
            // A mark hides what is below its layer, never what is in it.
            (Marks::Keep, Some(there)) if is(&there, SFlag::S_IFDIR) => {
                Ok(xattr::set(place.path(), OPAQUE_XATTR, b"y")?)
            }
            (Marks::Keep, Some(_)) => Ok(()),
        }
    }

    fn opaque(&self, place: &Place) -> Result<(), Refused> {
        let directory = place.path();
        let directory = directory.parent().unwrap_or(&directory);
        match self.marks {
            Marks::Keep => Ok(xattr::set_deref(directory, OPAQUE_XATTR, b"y")?),
            Marks::Apply => {
                for entry in fs::read_dir(directory)? {
                    let name = entry?.file_name();
                    let inner = Place {
                        parent: place.parent.try_clone()?,
                        name,
                    };
                    if let Some(there) = inner.stat()? {
                        inner.remove(&there)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// A directory of the layer, which must be there.
    fn find(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, path, how)
    }

    /// A directory of the layer, made if a tar left it out.
    fn directory(&self, path: &Path) -> Result<OwnedFd, Refused> {
        match self.find(path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            found => return Ok(found?),
        }
        let mut parent = self.find(Path::new(""))?;
        let mut done = PathBuf::new();
        for name in path.components() {
            done.push(name);
            parent = match self.find(&done) {
                Ok(found) => found,
                Err(Errno::ENOENT | Errno::ENOTDIR) => {
                    let place = Place {
                        parent,
                        name: name.as_os_str().to_owned(),
                    };
                    self.missing_directory(&place)?;
                    self.find(&done)?
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(parent)
    }

    fn missing_directory(&self, place: &Place) -> Result<(), Refused> {
        let there = place.stat()?;
        match there {
            None => {}
            Some(stat) if is_whiteout(&stat) => place.remove(&stat)?,
            Some(_) => return Err(Refused::Because("what should be its directory is none")),
        }
        let name = place.name.as_os_str();
        mkdirat(&place.parent, name, Mode::S_IRWXU)?;
        let mode = Mode::from_bits_truncate(0o755);
        fchmodat(&place.parent, name, mode, FchmodatFlags::FollowSymlink)?;
        if there.is_some() {
            xattr::set(place.path(), OPAQUE_XATTR, b"y")?;
        }
        Ok(())
    }

    /// The entry `./` says what the root directory itself is like.
    fn root_itself(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), Refused> {
        if !entry.header().entry_type().is_dir() {
            return Err(Refused::Because("the root is not a directory"));
        }
        let place = Place {
            parent: self.find(Path::new(""))?,
            name: ".".into(),
        };
        let mtime = set_attributes(&place, entry)?;
        self.times.push((PathBuf::new(), mtime));
        Ok(())
    }

    /// Sets what had to wait until every entry was there.
    fn finish(self) -> Result<(), ImageError> {
        for (path, mtime) in &self.times {
            let doing = || {
                format!(
                    "layer {}: setting the time of {}",
                    self.layer,
                    path.display()
                )
            };
            let Ok(directory) = self.find(path) else {
                // A later entry of the same layer replaced it.
                continue;
            };
            let this = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
            utimensat(AT_FDCWD, &this, mtime, mtime, UtimensatFlags::FollowSymlink).doing(doing)?;
        }
        Ok(())
    }
}

/// A path of a tar entry as one below the root: tar knows no other place.
fn inside(path: &Path) -> Result<PathBuf, Refused> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err(Refused::Because("`..` leads out of the layer")),
        }
    }
    Ok(inside)
}

fn link_name(entry: &Entry<'_, impl Read>) -> Result<PathBuf, Refused> {
    let name = entry
        .link_name_bytes()
        .ok_or(Refused::Because("a link to nothing"))?;
    Ok(PathBuf::from(OsStr::from_bytes(&name)))
}

/// Owner, extended attributes, mode and times, in this order: a change of owner clears the others.
/// Gives the modification time.
fn set_attributes(place: &Place, entry: &mut Entry<'_, impl Read>) -> Result<TimeSpec, Refused> {
    let too_large = |_| Refused::Because("an owner that is no 32-bit id");
    let uid = u32::try_from(entry.header().uid()?).map_err(too_large)?;
    let gid = u32::try_from(entry.header().gid()?).map_err(too_large)?;
    let mode = Mode::from_bits_truncate(entry.header().mode()? & 0o7777);
    let symlink = entry.header().entry_type().is_symlink();
    let mut mtime = TimeSpec::new(i64::try_from(entry.header().mtime()?).unwrap_or(0), 0);
    let name = place.name.as_os_str();
    let (owner, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    fchownat(
        &place.parent,
        name,
        Some(owner),
        Some(group),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?;
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            if extension.key_bytes() == b"mtime" {
                mtime = parse_time(extension.value_bytes()).unwrap_or(mtime);
            } else if let Some(key) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") {
                set_xattr(place, OsStr::from_bytes(key), extension.value_bytes())?;
            }
        }
    }
    if !symlink {
        fchmodat(&place.parent, name, mode, FchmodatFlags::FollowSymlink)?;
    }
    utimensat(
        &place.parent,
        name,
        &mtime,
        &mtime,
        UtimensatFlags::NoFollowSymlink,
    )?;
    Ok(mtime)
}

fn set_xattr(place: &Place, key: &OsStr, value: &[u8]) -> Result<(), Refused> {
    let bytes = key.as_bytes();
    if bytes.starts_with(b"trusted.overlay.") || bytes.starts_with(b"user.overlay.") {
        // These steer overlayfs, and are never a file's own.
        return Ok(());
    }
    match xattr::set(place.path(), key, value) {
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {
            log::warn!(
                "{}: the store's filesystem keeps no {}",
                place.path().display(),
                key.display()
            );
            Ok(())
        }
        set => Ok(set?),
    }
}

/// A time of a pax header: seconds with a fraction.
fn parse_time(text: &[u8]) -> Option<TimeSpec> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let seconds: i64 = seconds.parse().ok()?;
    let nanoseconds: i64 = digits.parse().ok()?;
    Some(if text.starts_with('-') && nanoseconds > 0 {
        TimeSpec::new(seconds - 1, 1_000_000_000 - nanoseconds)
    } else {
        TimeSpec::new(seconds, nanoseconds)
    })
}
