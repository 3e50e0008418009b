//! Whoever shares a volume with a container that is being made.
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Does something while a thread exchanges two files for each other, as fast as the kernel lets it:
/// which process and mount namespace renames makes no difference to those who resolve a path.
///
/// # Panics
/// If the two cannot be exchanged.
#[track_caller]
pub fn while_exchanged<T>(one: &Path, two: &Path, done: impl FnOnce() -> T) -> T {
    let end = AtomicBool::new(false);
    let exchange = || renameat2(AT_FDCWD, one, AT_FDCWD, two, RenameFlags::RENAME_EXCHANGE);
    exchange().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                exchange().unwrap();
            }
        });
        // The thread ends however this does.
        let _end = EndOfRace(&end);
        done()
    })
}

struct EndOfRace<'a>(&'a AtomicBool);

impl Drop for EndOfRace<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
