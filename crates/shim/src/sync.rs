//! A lock that no panic breaks.
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; a holder that panicked left the value as whole as it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
