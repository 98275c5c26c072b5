//! Maps whose keys may be long: values of some thousand bytes. The hasher of the standard library
//! withstands an attacker who chooses keys to collide. There is none here, and that hasher takes
//! several times as long.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A map that is quick with long keys.
pub type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;
/// A set that is.
pub type QuickSet<K> = HashSet<K, BuildHasherDefault<Quick>>;

/// XXH3, of each piece with the hash so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
