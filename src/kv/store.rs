//! The store: a tree whose nodes are shared with captures, so that a snapshot captures it in O(1)
//! while it goes on changing.

use crate::kv::command::{Op, Outcome, Revision};
use crate::kv::leaf::VersionedRef;
use crate::kv::tree::{Tree, TreeBuilder, Walk};
use alloc::vec::Vec;
use bytes::Bytes;
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

impl Versioned {
    /// The same, with the value where it lies.
    #[must_use]
    pub fn as_ref(&self) -> VersionedRef<'_> {
        let Self { value, create_revision, mod_revision, version } = self;
        VersionedRef {
            value,
            create_revision: *create_revision,
            mod_revision: *mod_revision,
            version: *version,
        }
    }
}

/// The state machine's state. `clone` is O(1).
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// Holds keys and values in memory of its own: a slice would keep the network buffer it came in
    /// alive.
    tree: Tree,
    /// The last mutation's; never goes back.
    revision: Revision,
    /// Sum of the lengths of keys and values.
    bytes: u64,
    /// Sum (mod 2^128) of [`digest`] over `tree`: sums do not depend on the order, and can be
    /// subtracted from. Invariant: equal to a recomputation.
    digests: u128,
}

impl Store {
    /// An empty store at revision 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies a command. Deterministic. Copies key and value (they may be slices of large
    /// buffers).
    pub fn apply(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Set { key, value } => self.set(key, value),
            Op::Delete { key } => self.delete(key),
        }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Versioned> {
        let (value, found) = self.tree.get_bytes(key)?;
        let VersionedRef { create_revision, mod_revision, version, .. } = found;
        Some(Versioned { value, create_revision, mod_revision, version })
    }

    /// All keys and their values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (Vec<u8>, VersionedRef<'_>)> {
        self.tree.iter()
    }

    /// Walks all keys in order, and lets go of each part once it is past it.
    pub(super) fn into_walk(self) -> Walk {
        self.tree.into_walk()
    }

    /// The revision of the last mutation.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tree.len()
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

    /// Hash of the whole state, kept up to date with each command (O(1) here): equal states have
    /// equal hashes. It finds differences that accidents make. It does not withstand an attacker
    /// who chooses keys to collide.
    #[must_use]
    pub fn state_hash(&self) -> u128 {
        self.digests.wrapping_add(xxh3_128(&self.revision.0.to_le_bytes()))
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Outcome {
        self.revision.0 += 1;
        let revision = self.revision;
        let Self { tree, bytes, digests, .. } = self;
        let mut version = 1;
        *bytes += value.len() as u64;
        tree.set(key, &mut |before| {
            let mut create_revision = revision;
            if let Some(before) = before {
                *bytes -= before.value.len() as u64;
                *digests = digests.wrapping_sub(digest(key, before));
                (create_revision, version) = (before.create_revision, before.version + 1);
            } else {
                *bytes += key.len() as u64;
            }
            let now = VersionedRef { value, create_revision, mod_revision: revision, version };
            *digests = digests.wrapping_add(digest(key, now));
            now
        });
        Outcome::Set { revision, version }
    }

    fn delete(&mut self, key: &[u8]) -> Outcome {
        let Some(before) = self.tree.get(key) else {
            return Outcome::Deleted { revision: self.revision, existed: false };
        };
        self.bytes -= (key.len() + before.value.len()) as u64;
        self.digests = self.digests.wrapping_sub(digest(key, before));
        self.tree.remove(key);
        self.revision.0 += 1;
        Outcome::Deleted { revision: self.revision, existed: true }
    }
}

/// Makes a store of the keys of a snapshot. Revisions are the caller's to check.
#[derive(Debug, Default)]
pub(super) struct StoreBuilder {
    tree: TreeBuilder,
    bytes: u64,
    digests: u128,
}

impl StoreBuilder {
    /// Puts a key back; it comes after all before.
    pub(super) fn push(&mut self, key: &[u8], versioned: VersionedRef<'_>) {
        self.bytes += (key.len() + versioned.value.len()) as u64;
        self.digests = self.digests.wrapping_add(digest(key, versioned));
        self.tree.push(key, versioned);
    }

    /// Number of keys so far.
    pub(super) const fn len(&self) -> usize {
        self.tree.len()
    }

    /// The store.
    pub(super) fn finish(self, revision: Revision) -> Store {
        Store { tree: self.tree.finish(), revision, bytes: self.bytes, digests: self.digests }
    }
}

/// What one key adds to the state hash: a hash over its key, value, revisions and version. Key and
/// value are hashed apart, and then their hashes, so that nothing has to be put side by side first.
fn digest(key: &[u8], versioned: VersionedRef<'_>) -> u128 {
    let mut words = [0; 56];
    words[..16].copy_from_slice(&xxh3_128(key).to_le_bytes());
    words[16..32].copy_from_slice(&xxh3_128(versioned.value).to_le_bytes());
    words[32..40].copy_from_slice(&versioned.create_revision.0.to_le_bytes());
    words[40..48].copy_from_slice(&versioned.mod_revision.0.to_le_bytes());
    words[48..].copy_from_slice(&versioned.version.to_le_bytes());
    xxh3_128(&words)
}

#[cfg(test)]
mod tests;
