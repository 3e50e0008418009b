//! The working directory.
use std::path::Path;

use nix::errno::Errno;

use crate::error::{Doing, JobError};

pub(super) fn error(cwd: &Path, errno: Errno) -> JobError {
    let message = format!(
        "cannot enter the working directory {}: {errno}",
        cwd.display()
    );
    match errno {
        Errno::ENOENT => JobError::not_found(message),
        _ => JobError::invalid(message),
    }
}

/// A working directory outside the container's root would be a way out of it (CVE-2024-21626);
/// getcwd(2) then answers a path that is not absolute.
pub(super) fn see_that_it_is_inside(cwd: &Path) -> Result<(), JobError> {
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most the given length into a buffer that outlives the call.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    Errno::result(length).doing(|| "read the working directory")?;
    if buffer.first() == Some(&b'/') {
        return Ok(());
    }
    Err(JobError::invalid(format!(
        "the working directory {} leads out of the container",
        cwd.display()
    )))
}
