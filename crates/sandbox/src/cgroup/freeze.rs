//! Stopping every process of a cgroup where it is, and letting them go on.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::error::{Error, Result};
use super::files;

/// How long processes may take to freeze: one in an uninterruptible wait cannot before that ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// The first pause between two looks; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Freezes a v2 cgroup: `cgroup.freeze`, done when `cgroup.events` says so.
pub(super) fn freeze_v2(dir: &Path) -> Result<()> {
    files::write(&dir.join("cgroup.freeze"), "1")?;
    let events = dir.join("cgroup.events");
    let frozen = wait_until(|| Ok(files::keyed(&files::read(&events)?, "frozen") == Some(1)));
    thaw_unless(frozen, dir, thaw_v2)
}

/// Thaws a v2 cgroup.
pub(super) fn thaw_v2(dir: &Path) -> Result<()> {
    files::write(&dir.join("cgroup.freeze"), "0")
}

/// Freezes a v1 cgroup.
///
/// The state may stay FREEZING while processes are forked: writing FROZEN again catches those.
pub(super) fn freeze_v1(dir: &Path) -> Result<()> {
    let state = dir.join("freezer.state");
    let frozen = wait_until(|| {
        files::write(&state, "FROZEN")?;
        Ok(files::read(&state)?.trim() == "FROZEN")
    });
    thaw_unless(frozen, dir, thaw_v1)
}

/// Thaws a v1 cgroup.
pub(super) fn thaw_v1(dir: &Path) -> Result<()> {
    files::write(&dir.join("freezer.state"), "THAWED")
}

fn wait_until(mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    while !done()? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(true)
}

/// A cgroup that did not freeze must not stay half frozen.
fn thaw_unless(frozen: Result<bool>, dir: &Path, thaw: fn(&Path) -> Result<()>) -> Result<()> {
    let failure = match frozen {
        Ok(true) => return Ok(()),
        Ok(false) => Error::TimedOut(format!(
            "the processes of {} did not freeze within {} s and were thawed again: one of them \
             may be in an uninterruptible wait, see its /proc/PID/stack",
            dir.display(),
            PATIENCE.as_secs()
        )),
        Err(error) => error,
    };
    match thaw(dir) {
        Ok(()) => Err(failure),
        Err(error) if error.is_gone() => Err(failure),
        Err(error) => Err(Error::TimedOut(format!(
            "{failure}; thawing failed too: {error}"
        ))),
    }
}
