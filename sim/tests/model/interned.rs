//! Values that are kept once, until the process ends. A state shares them with millions of others,
//! and takes a few words.

use crate::model::hash_of;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Mutex;

/// A value of an [`Interner`]: copied, compared and hashed as a word. Equal if their hashes are, as
/// states are to the checker.
pub(crate) struct Interned<T: 'static>(&'static (u64, T));

/// Keeps each value once, until the process ends.
pub(super) struct Interner<T: 'static>(Mutex<HashMap<u64, Interned<T>>>);

impl<T: Hash> Interner<T> {
    pub(super) fn intern(&self, value: T) -> Interned<T> {
        let hash = hash_of(&value);
        let mut known = self.0.lock().expect("no panic while it is held");
        *known.entry(hash).or_insert_with(|| Interned(Box::leak(Box::new((hash, value)))))
    }
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Interned<T> {
    pub(super) const fn key(self) -> u64 {
        self.0.0
    }
}

impl<T> Deref for Interned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.1
    }
}

impl<T> Clone for Interned<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Interned<T> {}

impl<T> PartialEq for Interned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.0 == other.0.0
    }
}

impl<T> Eq for Interned<T> {}

impl<T> PartialOrd for Interned<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Interned<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.0.cmp(&other.0.0)
    }
}

impl<T> Hash for Interned<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.0.0);
    }
}

impl<T: fmt::Debug> fmt::Debug for Interned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.1.fmt(f)
    }
}
