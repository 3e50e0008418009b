//! The session keyring of a container.
use std::ffi::CString;

use nix::errno::Errno;

/// See keyctl(2).
const JOIN_SESSION_KEYRING: libc::c_int = 1;
const SET_PERMISSIONS: libc::c_int = 5;
const DESCRIBE: libc::c_int = 6;
/// `KEY_USR_SEARCH` and `KEY_OTH_SEARCH` of keyutils.h.
const USER_MAY_SEARCH: u32 = 0x08_0000;
const OTHERS_MAY_SEARCH: u32 = 0x08;

/// Joins the session keyring `_ses.ID`, as other runtimes name it: init makes it, and what is executed
/// in the container later finds it.
///
/// Where that is not possible (no keyrings, no quota left) the process stays in the nameless keyring
/// that the builder joined: of the shim's nothing is reached in either.
pub(super) fn join(container: &str, in_user_namespace: bool) {
    let Ok(name) = CString::new(format!("_ses.{container}")) else {
        return;
    };
    // SAFETY: keyctl(2) takes a name that outlives the call.
    let keyring = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    let Ok(keyring) = Errno::result(keyring) else {
        return;
    };
    let Some(permissions) = permissions(keyring) else {
        return;
    };
    let search = match in_user_namespace {
        true => OTHERS_MAY_SEARCH,
        false => USER_MAY_SEARCH,
    };
    // Whoever joins it later has to find it. If this fails, later processes have one of their own.
    // SAFETY: keyctl(2) takes integers.
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            SET_PERMISSIONS,
            keyring,
            permissions | search,
        )
    };
}

/// Those of a key, from `type;uid;gid;permissions;name`.
fn permissions(key: libc::c_long) -> Option<u32> {
    let mut text = [0u8; 512];
    // SAFETY: the kernel writes at most the given length into a buffer that outlives the call.
    let length = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            DESCRIBE,
            key,
            text.as_mut_ptr(),
            text.len(),
        )
    };
    let text = text.get(..usize::try_from(length).ok()?)?;
    let field = text.split(|byte| *byte == b';').nth(3)?;
    u32::from_str_radix(std::str::from_utf8(field).ok()?, 16).ok()
}
