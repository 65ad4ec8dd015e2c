//! Locks that outlive a panic: what is behind them is changed in single steps, so that it is whole
//! whenever its holder panicked, and one connection's fault stays its own.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
