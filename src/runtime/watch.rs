//! One value that changes, and tasks that wait for that.
//!
//! As tokio's `watch`, with one difference: tasks that wait are woken in the order in which they
//! began to wait. Tokio's wakes its waiters in an order drawn at random for each thread, which a
//! simulation cannot repeat.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A value, and both ends for it.
pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Watched {
        value: Mutex::new(value),
        closed: AtomicBool::new(false),
        changed: Notify::new(),
    });
    (Sender(shared.clone()), Receiver(shared))
}

/// Changes the value. When it is dropped, the last value stays.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Watched<T>>);

/// Reads the value, or waits.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Watched<T>>);

#[derive(Debug)]
struct Watched<T> {
    value: Mutex<T>,
    closed: AtomicBool,
    changed: Notify,
}

/// The sender is gone, and the value is not what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl<T> Watched<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        // Replaced as a whole: consistent at every point where a panic could have struck.
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Changes the value, and wakes all tasks that wait. Returns the value before.
    pub(crate) fn send_replace(&self, value: T) -> T {
        let before = std::mem::replace(&mut *self.0.lock(), value);
        self.0.changed.notify_waiters();
        before
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Receiver<T> {
    /// The value. Not to be held for long: it is locked.
    pub(crate) fn borrow(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }

    /// Waits until the value is as wished; it is locked then.
    ///
    /// # Errors
    /// [`Closed`] if it never will be.
    pub(crate) async fn wait_for(&self, wished: impl Fn(&T) -> bool) -> Result<MutexGuard<'_, T>, Closed> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // Before the look, so that no change between the two is missed.
            changed.as_mut().enable();
            let closed = self.0.closed.load(Ordering::Acquire);
            {
                let value = self.0.lock();
                if wished(&value) {
                    return Ok(value);
                }
            }
            if closed {
                return Err(Closed);
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests;
