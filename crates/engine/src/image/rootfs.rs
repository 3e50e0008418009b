//! From an image to the mounts that a shim is asked to make.
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};

use super::error::Doing as _;
use super::store::Store;
use super::unpack::{Marks, unpack_blob};
use super::{Content, Image, ImageError, Layer, Rootfs, RootfsMount};

/// mount(2) takes one page of options, the last byte of which ends the text.
const OPTIONS_LIMIT: usize = 4095;

/// The most of `/etc/passwd` or `/etc/group` that is read.
const USERS_LIMIT: u64 = 1 << 20;

/// Where the union is mounted for a moment, to see that it can be.
const PROBE: &str = "probe";

/// Makes what a container's root filesystem needs in `dir`.
pub(super) fn prepare(store: &Store, image: &Image, dir: &Path) -> Result<Rootfs, ImageError> {
    fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
    let dir = dir
        .canonicalize()
        .doing(|| format!("opening {}", dir.display()))?;
    match union(store, image, &dir) {
        Ok(rootfs) => Ok(rootfs),
        Err(reason) => {
            log::info!("image `{}` is copied: {reason}", image.reference);
            copy(image, &dir)
        }
    }
}

/// An overlay of the image and what the container writes; the error says why not.
fn union(store: &Store, image: &Image, dir: &Path) -> Result<Rootfs, String> {
    let lower = match &image.content {
        Content::Layers(layers) => {
            store.overlay.as_ref().as_ref().map_err(String::clone)?;
            lower_layers(store, layers).map_err(|error| error.to_string())?
        }
        Content::Folder(folder) => {
            // A link, as overlayfs takes a colon in a path for the end of it.
            let link = dir.join("lower");
            match symlink(folder, &link) {
                // A container that is started again.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(format!("{}: {error}", link.display()));
                }
                _ => vec![link],
            }
        }
    };
    let mount = overlay(&lower, dir).map_err(|error| error.to_string())?;
    let (passwd, group) = try_overlay(&mount, dir).map_err(|error| error.to_string())?;
    Ok(Rootfs {
        mounts: vec![mount],
        passwd,
        group,
    })
}

/// The directories of the layers, topmost first.
fn lower_layers(store: &Store, layers: &[Layer]) -> io::Result<Vec<PathBuf>> {
    layers
        .iter()
        .rev()
        .map(|layer| store.short(layer))
        .collect()
}

fn overlay(lower: &[PathBuf], dir: &Path) -> io::Result<RootfsMount> {
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    if let Some(top) = lower.first() {
        // The root directory of the union is that of its upper layer.
        let top = fs::metadata(top)?;
        chown(&upper, Some(top.uid()), Some(top.gid()))?;
        fs::set_permissions(&upper, top.permissions())?;
    }
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .filter(|text| !text.contains([':', ',']))
            .ok_or_else(|| {
                io::Error::other(format!(
                    "overlayfs takes no path with a colon or a comma, such as {}",
                    path.display()
                ))
            })
    };
    let lower = lower
        .iter()
        .map(|path| text(path))
        .collect::<io::Result<Vec<_>>>()?;
    let options = vec![
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={}", text(&upper)?),
        format!("workdir={}", text(&work)?),
    ];
    let length = options.join(",").len();
    if length > OPTIONS_LIMIT {
        return Err(io::Error::other(format!(
            "{} layers need {length} bytes of mount options, the kernel takes {OPTIONS_LIMIT}",
            lower.len()
        )));
    }
    Ok(RootfsMount {
        kind: "overlay".into(),
        source: "overlay".into(),
        options,
    })
}

/// Mounts an overlay for a moment: the only sure way to know that it works, and a look at who is
/// known in it.
fn try_overlay(overlay: &RootfsMount, dir: &Path) -> io::Result<(String, String)> {
    let at = dir.join(PROBE);
    fs::create_dir_all(&at)?;
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount(
        Some("overlay"),
        &at,
        Some("overlay"),
        flags,
        Some(overlay.options.join(",").as_str()),
    )?;
    let users = users(&at);
    umount2(&at, MntFlags::MNT_DETACH)?;
    fs::remove_dir(&at)?;
    users
}

/// `/etc/passwd` and `/etc/group` of a root filesystem.
fn users(root: &Path) -> io::Result<(String, String)> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = openat(AT_FDCWD, root, flags, Mode::empty())?;
    let read = |path: &str| -> io::Result<String> {
        let how = OpenHow::new()
            // A fifo or a device in the image must not hold up who reads it.
            .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let file = match openat2(&root, path, how) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(String::new()),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        file.take(USERS_LIMIT).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok((read("etc/passwd")?, read("etc/group")?))
}

/// A copy of the image, and a bind mount of it.
fn copy(image: &Image, dir: &Path) -> Result<Rootfs, ImageError> {
    let root = dir.join("rootfs");
    let doing = || {
        format!(
            "image `{}`: copying it to {}",
            image.reference,
            root.display()
        )
    };
    match &image.content {
        Content::Layers(layers) => {
            make_root(&root).doing(doing)?;
            for layer in layers {
                unpack_blob(layer, &root, &[], Marks::Apply)?;
            }
        }
        Content::Folder(folder) => copy_folder(folder, &root).doing(doing)?,
    }
    let (passwd, group) = users(&root).doing(doing)?;
    let source = root
        .to_str()
        .ok_or_else(|| io::Error::other("the path is not UTF-8"))
        .doing(doing)?;
    let bind = RootfsMount {
        kind: "bind".into(),
        source: source.to_owned(),
        options: vec!["rbind".into(), "rw".into()],
    };
    Ok(Rootfs {
        mounts: vec![bind],
        passwd,
        group,
    })
}

/// Makes a root directory with the mode that one has if no layer says otherwise.
pub(super) fn make_root(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    // The umask of the caller is not the container's.
    fs::set_permissions(root, Permissions::from_mode(0o755))
}

/// cp(1) keeps owners, links, holes, attributes and devices, and copies on write where it can.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    let output = Command::new("cp")
        .args([
            "-a",
            "--one-file-system",
            "--reflink=auto",
            "--no-target-directory",
            "--",
        ])
        .args([from, to])
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

/// Whether a directory can hold overlayfs layers and be mounted by it; the error says why not.
pub(super) fn probe(tmp: &Path) -> Result<(), String> {
    let attempt = || -> io::Result<()> {
        let dir = tempfile::Builder::new().tempdir_in(tmp)?;
        let lower = dir.path().join("lower");
        fs::create_dir(&lower)?;
        // What unpacking a layer will need: the two marks of a deletion.
        mknod(&lower.join("gone"), SFlag::S_IFCHR, Mode::empty(), 0)?;
        xattr::set(&lower, "trusted.overlay.opaque", b"y")?;
        try_overlay(&overlay(&[lower], dir.path())?, dir.path()).map(drop)
    };
    attempt().map_err(|error| error.to_string())
}

/// Unmounts what a process killed in the middle of [`try_overlay`] left in `dir`.
pub(super) fn unmount_probe(dir: &Path) {
    // Nothing mounted there is the rule, so there is nothing to say.
    let _ = umount2(&dir.join(PROBE), MntFlags::MNT_DETACH);
}
