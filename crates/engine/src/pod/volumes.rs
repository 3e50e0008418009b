//! Volumes: made or checked on the node, then bound into containers.
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, fchownat};

use super::Error;
use crate::manifest::{Container, EmptyDir, HostPathType, Pod, Volume, VolumeFile, VolumeMount};
use crate::spec::VolumeBind;

/// What Kubernetes gives an emptyDir.
const EVERYBODY: u32 = 0o777;

/// What a file has until it has what it should.
const PRIVATE: u32 = 0o600;

/// What a kubelet adds for the pod's group to the files of an object.
const READ_BY_GROUP: u32 = 0o440;

/// Files made below a directory with this bit get its group.
const SET_GROUP: u32 = 0o2000;

/// Tells of a mount before it is made, so that it is on record.
pub(super) trait Mounts {
    /// A mount is about to be made here.
    fn about_to_mount(&self, path: &Path) -> Result<(), Error>;
}

/// Makes or checks the pod's volumes; the answer says where each is on the node.
pub(super) fn prepare(
    pod: &Pod,
    dir: &Path,
    mounts: &dyn Mounts,
) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut paths = BTreeMap::new();
    for (name, volume) in &pod.volumes {
        let path = match volume {
            Volume::EmptyDir(empty) => empty_dir(pod, &dir.join(name), *empty, mounts)?,
            Volume::HostPath { path, kind } => {
                host_path(path, *kind).map_err(|problem| Error::Volume {
                    volume: name.clone(),
                    problem: format!("hostPath {}: {problem}", path.display()),
                })?;
                path.clone()
            }
            Volume::Files { files, secret } => {
                let path = dir.join(name);
                fs::create_dir_all(&path).map_err(Error::io("make", &path))?;
                if *secret {
                    // Never on a disk.
                    tmpfs(&path, Some("mode=755"), mounts)?;
                }
                write_files(pod, &path, files)?;
                path
            }
        };
        paths.insert(name.clone(), path);
    }
    Ok(paths)
}

fn empty_dir(
    pod: &Pod,
    path: &Path,
    empty: EmptyDir,
    mounts: &dyn Mounts,
) -> Result<PathBuf, Error> {
    fs::create_dir_all(path).map_err(Error::io("make", path))?;
    if let EmptyDir::Memory { size } = empty {
        // Zero is no limit, as for a kubelet.
        let size = size.filter(|size| *size > 0);
        tmpfs(
            path,
            size.map(|size| format!("size={size}")).as_deref(),
            mounts,
        )?;
    }
    let mut mode = EVERYBODY;
    if let Some(group) = pod.fs_group {
        chown(path, None, Some(group)).map_err(Error::io("change the group of", path))?;
        mode |= SET_GROUP;
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(Error::io("change the mode of", path))?;
    Ok(path.to_owned())
}

fn tmpfs(path: &Path, options: Option<&str>, mounts: &dyn Mounts) -> Result<(), Error> {
    mounts.about_to_mount(path)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, options)
        .map_err(|errno| Error::io("mount a tmpfs at", path)(errno.into()))
}

/// Writes the files of an object, readable for the pod's group if it has one.
fn write_files(pod: &Pod, dir: &Path, files: &BTreeMap<PathBuf, VolumeFile>) -> Result<(), Error> {
    for (name, file) in files {
        let path = dir.join(name);
        let write = || -> io::Result<()> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut created = File::options()
                .write(true)
                .create_new(true)
                .mode(PRIVATE)
                .open(&path)?;
            created.write_all(&file.content)?;
            let mut mode = file.mode;
            if let Some(group) = pod.fs_group {
                chown(&path, None, Some(group))?;
                mode |= READ_BY_GROUP;
            }
            created.set_permissions(Permissions::from_mode(mode))
        };
        write().map_err(Error::io("write", &path))?;
    }
    Ok(())
}

/// Kubernetes' checks before a hostPath is used.
fn host_path(path: &Path, kind: HostPathType) -> Result<(), String> {
    let said = |error: io::Error| error.to_string();
    match kind {
        HostPathType::DirectoryOrCreate => fs::create_dir_all(path).map_err(said)?,
        HostPathType::FileOrCreate if !path.exists() => {
            File::create(path).map_err(said)?;
        }
        _ => {}
    }
    let found = fs::metadata(path).map_err(said)?.file_type();
    let (wanted, fits) = match kind {
        HostPathType::Unset => return Ok(()),
        HostPathType::DirectoryOrCreate | HostPathType::Directory => {
            ("a directory", found.is_dir())
        }
        HostPathType::FileOrCreate | HostPathType::File => ("a file", found.is_file()),
        HostPathType::Socket => ("a unix socket", found.is_socket()),
        HostPathType::CharDevice => ("a character device", found.is_char_device()),
        HostPathType::BlockDevice => ("a block device", found.is_block_device()),
    };
    if fits {
        Ok(())
    } else {
        Err(format!("it is not {wanted}, as its type says"))
    }
}

/// The volumes of one container, as its spec binds them. A subPath is held by a bind mount in
/// `dir`: its path could be turned into a link to elsewhere before the shim mounts it
/// (CVE-2017-1002101).
pub(super) fn binds(
    container: &Container,
    volumes: &BTreeMap<String, PathBuf>,
    dir: &Path,
    mounts: &dyn Mounts,
) -> Result<Vec<VolumeBind>, Error> {
    let each = container.mounts.iter().enumerate();
    each.filter_map(|(index, wanted)| {
        let volume = volumes.get(&wanted.volume)?;
        let hold = dir.join(index.to_string());
        Some(
            source(wanted, volume, &hold, mounts).map(|source| VolumeBind {
                source,
                destination: wanted.path.clone(),
                read_only: wanted.read_only,
                recursive_read_only: wanted.recursive_read_only,
                propagation: wanted.propagation,
            }),
        )
    })
    .collect()
}

fn source(
    wanted: &VolumeMount,
    volume: &Path,
    hold: &Path,
    mounts: &dyn Mounts,
) -> Result<PathBuf, Error> {
    let Some(sub_path) = &wanted.sub_path else {
        return Ok(volume.to_owned());
    };
    // A container that is started again finds it held already.
    if hold.exists() {
        return Ok(hold.to_owned());
    }
    let failed = |error: io::Error| Error::Volume {
        volume: wanted.volume.clone(),
        problem: format!("subPath {}: {error}", sub_path.display()),
    };
    let found = open_beneath(volume, sub_path).map_err(failed)?;
    let is_dir = is_directory(&found).map_err(failed)?;
    if let Some(parent) = hold.parent() {
        fs::create_dir_all(parent).map_err(Error::io("make", parent))?;
    }
    if is_dir {
        fs::create_dir(hold)
    } else {
        File::create_new(hold).map(drop)
    }
    .map_err(Error::io("make", hold))?;
    mounts.about_to_mount(hold)?;
    let held = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(held.as_str()), hold, None::<&str>, flags, None::<&str>)
        .map_err(|errno| failed(errno.into()))?;
    Ok(hold.to_owned())
}

/// Opens a path below `volume` without leaving it through links; what is missing is made, as
/// directories with the owner and the mode of the volume, for whoever may write to that.
fn open_beneath(volume: &Path, sub_path: &Path) -> io::Result<OwnedFd> {
    let how = || {
        OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS)
    };
    let root = File::open(volume)?;
    let like = fstat(&root)?;
    let mode = Mode::from_bits_truncate(like.st_mode & 0o7777);
    let (owner, group) = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
    let mut at: OwnedFd = root.try_clone()?.into();
    let mut so_far = PathBuf::new();
    for part in sub_path.components() {
        so_far.push(part);
        at = match openat2(&root, &so_far, how()) {
            Err(Errno::ENOENT) => {
                mkdirat(&at, Path::new(part.as_os_str()), Mode::S_IRWXU)?;
                let made = openat2(&root, &so_far, how())?;
                let itself = AtFlags::AT_EMPTY_PATH;
                fchownat(&made, "", Some(owner), Some(group), itself)?;
                // fchmod(2) takes no descriptor that was opened as a place only.
                let path = format!("/proc/self/fd/{}", made.as_raw_fd());
                fs::set_permissions(path, Permissions::from_mode(mode.bits()))?;
                made
            }
            found => found?,
        };
    }
    Ok(at)
}

fn is_directory(fd: &OwnedFd) -> io::Result<bool> {
    let status = fstatat(fd, "", AtFlags::AT_EMPTY_PATH)?;
    Ok(SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn a_sub_path_is_made_and_never_leaves_its_volume() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path();
        assert!(is_directory(&open_beneath(volume, Path::new("a/b")).unwrap()).unwrap());
        assert!(volume.join("a/b").is_dir());
        // For whom the volume is.
        fs::set_permissions(volume, Permissions::from_mode(0o2770)).unwrap();
        chown(volume, Some(12), Some(34)).unwrap();
        open_beneath(volume, Path::new("c/d")).unwrap();
        for made in ["c", "c/d"] {
            let meta = fs::metadata(volume.join(made)).unwrap();
            let has = (meta.uid(), meta.gid(), meta.mode() & 0o7777);
            assert_eq!(has, (12, 34, 0o2770), "{made}");
        }
        symlink("a", volume.join("inside")).unwrap();
        open_beneath(volume, Path::new("inside/b")).unwrap();
        symlink("/etc", volume.join("outside")).unwrap();
        let error = open_beneath(volume, Path::new("outside/passwd")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EXDEV as i32));
        symlink("../..", volume.join("up")).unwrap();
        assert!(open_beneath(volume, Path::new("up/x")).is_err());
    }

    #[test]
    fn host_paths_are_what_their_type_says() {
        let directory = tempfile::tempdir().unwrap();
        let new = directory.path().join("new");
        assert!(host_path(&new, HostPathType::Directory).is_err());
        host_path(&new, HostPathType::DirectoryOrCreate).unwrap();
        host_path(&new, HostPathType::Directory).unwrap();
        assert!(
            host_path(&new, HostPathType::File)
                .unwrap_err()
                .contains("not a file")
        );
        host_path(Path::new("/dev/null"), HostPathType::CharDevice).unwrap();
    }
}
