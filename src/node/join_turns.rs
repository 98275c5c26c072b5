//! One join at a time for each name.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The names under which nodes are being joined. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    shared: Arc<NamesTaken>,
}

#[derive(Debug, Default)]
struct NamesTaken {
    names: Mutex<BTreeSet<String>>,
    /// A turn ended.
    ended: Notify,
}

/// The right to join a node under a name; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    name: String,
}

impl Turns {
    /// Waits until the turn of `name` is free, and takes it.
    pub(super) async fn wait_for(&self, name: &str) -> Turn {
        loop {
            // Registered before the look: a turn that ends in between is noticed.
            let ended = self.shared.ended.notified();
            if let Some(turn) = self.take(name) {
                return turn;
            }
            ended.await;
        }
    }

    fn take(&self, name: &str) -> Option<Turn> {
        let is_free = self.lock().insert(name.to_owned());
        is_free.then(|| Turn { turns: self.clone(), name: name.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // A set of names is whole at every point where a panic could have struck.
        self.shared.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.name);
        self.turns.shared.ended.notify_waiters();
    }
}
