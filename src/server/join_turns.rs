//! One join at a time for each name.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The names under which nodes are being joined. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    names: Arc<Mutex<BTreeSet<String>>>,
}

/// The right to join a node under a name; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    name: String,
}

impl Turns {
    /// The turn of `name`, unless somebody has it.
    pub(super) fn take(&self, name: &str) -> Option<Turn> {
        let is_free = self.lock().insert(name.to_owned());
        is_free.then(|| Turn { turns: self.clone(), name: name.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // A set of names is whole at every point where a panic could have struck.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.name);
    }
}
