//! The store: a persistent map, so that a snapshot captures it in O(1) while it goes on changing.

use crate::kv::command::{Op, Outcome, Revision};
use alloc::boxed::Box;
use bytes::Bytes;
use rpds::RedBlackTreeMapSync;
use xxhash_rust::xxh3::xxh3_128;

/// A value and its versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// Revision that created the key (since it last did not exist).
    pub create_revision: Revision,
    /// Revision that last set it.
    pub mod_revision: Revision,
    /// How often it was set since it was created, from 1.
    pub version: u64,
}

/// The state machine's state. `clone` is O(1).
#[derive(Clone, Debug)]
pub struct Store {
    /// Keys and values in allocations of their own: a slice would keep the network buffer it came in alive.
    map: RedBlackTreeMapSync<Box<[u8]>, Versioned>,
    /// The last mutation's; never goes back.
    revision: Revision,
    /// Sum of the lengths of keys and values.
    bytes: u64,
    /// Sum (mod 2^128) of [`digest`] over `map`: sums do not depend on the order, and can be subtracted from.
    /// Invariant: equal to a recomputation.
    digests: u128,
}

impl Default for Store {
    fn default() -> Self {
        Self { map: RedBlackTreeMapSync::new_sync(), revision: Revision(0), bytes: 0, digests: 0 }
    }
}

impl Store {
    /// An empty store at revision 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies a command. Deterministic. Copies key and value (they may be slices of large buffers).
    pub fn apply(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Set { key, value } => self.set(key, value),
            Op::Delete { key } => self.delete(key),
        }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Versioned> {
        self.map.get(key)
    }

    /// All keys and their values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Versioned)> {
        self.map.iter().map(|(key, versioned)| (&**key, versioned))
    }

    /// The revision of the last mutation.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.size()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sum of the lengths of keys and values, bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hash of the whole state, kept up to date with each command (O(1) here): equal states have equal hashes.
    /// It finds differences that accidents make; it does not withstand somebody who chooses keys to collide.
    #[must_use]
    pub fn state_hash(&self) -> u128 {
        self.digests.wrapping_add(xxh3_128(&self.revision.0.to_le_bytes()))
    }

    /// Puts back a key of a snapshot; `key` comes after all keys here. Revisions are the caller's to check.
    pub(in crate::kv) fn restore_key(&mut self, key: &[u8], versioned: Versioned) {
        self.bytes += (key.len() + versioned.value.len()) as u64;
        self.digests = self.digests.wrapping_add(digest(key, &versioned));
        self.map.insert_mut(key.into(), versioned);
    }

    /// Ends a restoration.
    pub(in crate::kv) const fn restore_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Outcome {
        self.revision.0 += 1;
        let revision = self.revision;
        let value = Bytes::copy_from_slice(value);
        self.bytes += value.len() as u64;
        if let Some(versioned) = self.map.get_mut(key) {
            self.bytes -= versioned.value.len() as u64;
            let before = digest(key, versioned);
            versioned.value = value;
            versioned.mod_revision = revision;
            versioned.version += 1;
            self.digests = self.digests.wrapping_sub(before).wrapping_add(digest(key, versioned));
            return Outcome::Set { revision, version: versioned.version };
        }
        let versioned = Versioned { value, create_revision: revision, mod_revision: revision, version: 1 };
        self.bytes += key.len() as u64;
        self.digests = self.digests.wrapping_add(digest(key, &versioned));
        self.map.insert_mut(key.into(), versioned);
        Outcome::Set { revision, version: 1 }
    }

    fn delete(&mut self, key: &[u8]) -> Outcome {
        let Some(versioned) = self.map.get(key) else {
            return Outcome::Deleted { revision: self.revision, existed: false };
        };
        self.bytes -= (key.len() + versioned.value.len()) as u64;
        self.digests = self.digests.wrapping_sub(digest(key, versioned));
        self.map.remove_mut(key);
        self.revision.0 += 1;
        Outcome::Deleted { revision: self.revision, existed: true }
    }
}

/// What one key adds to the state hash: a hash over its key, value, revisions and version. Key and value are hashed
/// apart, and then their hashes, so that nothing has to be put side by side first.
fn digest(key: &[u8], versioned: &Versioned) -> u128 {
    let mut words = [0; 56];
    words[..16].copy_from_slice(&xxh3_128(key).to_le_bytes());
    words[16..32].copy_from_slice(&xxh3_128(&versioned.value).to_le_bytes());
    words[32..40].copy_from_slice(&versioned.create_revision.0.to_le_bytes());
    words[40..48].copy_from_slice(&versioned.mod_revision.0.to_le_bytes());
    words[48..].copy_from_slice(&versioned.version.to_le_bytes());
    xxh3_128(&words)
}

#[cfg(test)]
mod tests;
