//! The socket that containerd talks to (contract 6).
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use containerd_shim::StartOpts;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind as bind_socket, listen as listen_on,
    socket,
};
use nix::sys::stat::{Mode, fchmod};

/// sun_path holds 108 bytes; containerd's own limit leaves room for the final zero and one more.
const MAX_PATH: usize = 106;

/// What came of [`bind`].
#[derive(Debug)]
pub(crate) enum Bound {
    /// The socket is this process's, and listens.
    New(UnixListener),
    /// A shim is listening on it already.
    Served,
}

/// The path of a pod's socket: named after containerd's address, namespace and pod, so that the
/// shims of two containerds never meet.
///
/// # Errors
/// A `socket_dir` that makes the path too long.
pub(crate) fn path(opts: &StartOpts, pod: &str) -> Result<PathBuf> {
    let address = opts.socket_address(pod);
    let path = address.strip_prefix("unix://").unwrap_or(&address);
    if path.len() > MAX_PATH {
        bail!(
            "the socket path {path} has {} bytes, more than {MAX_PATH}: use a shorter socket_dir",
            path.len()
        );
    }
    Ok(PathBuf::from(path))
}

/// The address of a socket, as the reply to `start` spells it.
#[must_use]
pub(crate) fn address(path: &Path) -> String {
    format!("unix://{}", path.display())
}

/// Binds the socket and listens, unless a live shim does already; a dead shim's is replaced.
///
/// # Errors
/// What bind(2) says, or something in the way that is no socket.
pub(crate) fn bind(path: &Path) -> Result<Bound> {
    let directory = path.parent().context("a socket path has a directory")?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(directory)
        .with_context(|| format!("create {}", directory.display()))?;
    // Two starts for one pod may find the same dead socket; the second must not unlink what the
    // first has bound since, nor take a socket that does not listen yet for a dead one.
    let directory_file =
        File::open(directory).with_context(|| format!("open {}", directory.display()))?;
    let _lock = Flock::lock(directory_file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| io::Error::from(errno))
        .with_context(|| format!("lock {}", directory.display()))?;

    match listen(path) {
        Ok(listener) => return Ok(Bound::New(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        Err(error) => return Err(error).with_context(|| format!("bind {}", path.display())),
    }
    if is_served(path) {
        return Ok(Bound::Served);
    }
    remove(path)?;
    let listener = listen(path).with_context(|| format!("bind {}", path.display()))?;
    Ok(Bound::New(listener))
}

/// Removes a socket that nobody serves.
///
/// # Errors
/// See [`remove`].
pub(crate) fn remove_dead(path: &Path) -> Result<()> {
    if is_served(path) {
        return Ok(());
    }
    remove(path)
}

/// Whether someone listens.
pub(crate) fn is_served(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

/// Removes a socket; gone already is no error.
///
/// # Errors
/// Something else is at the path, or what unlink(2) says.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let result = match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => bail!("{} is not a socket: remove it by hand", path.display()),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Binds with mode 0600 from the first moment on: bind(2) gives the file the mode that the socket
/// has.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind_socket(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen_on(&socket, Backlog::MAXCONN)?;
    Ok(UnixListener::from(socket))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_served_socket_is_left_alone_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s/socket");
        let Bound::New(listener) = bind(&path).unwrap() else {
            panic!("nobody can serve it yet")
        };
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(bind(&path).unwrap(), Bound::Served));
        drop(listener);
        assert!(path.exists(), "a dead shim leaves its socket");
        assert!(matches!(bind(&path).unwrap(), Bound::New(_)));
    }

    #[test]
    fn what_is_no_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        std::fs::write(&path, "precious").unwrap();
        assert!(bind(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_path_that_is_too_long_is_refused() {
        let opts = StartOpts {
            socket_dir: Some("/x".repeat(30)),
            ..StartOpts::default()
        };
        let error = path(&opts, "pod").unwrap_err().to_string();
        assert!(error.contains("socket_dir"), "{error}");
    }
}
