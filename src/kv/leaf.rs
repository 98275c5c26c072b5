//! The leaves of the tree: pairs, packed.

use crate::kv::types::{KeyValue, LeaseId, Revision};
use alloc::vec::Vec;
use bytes::Bytes;
use core::cmp::Ordering;
use xxhash_rust::xxh3::xxh3_128;

/// A leaf with more bytes of keys and small values is split, if it has more than one pair.
pub(super) const LEAF_BYTES_MAX: usize = 4096;
/// So is one with more pairs.
pub(super) const LEAF_PAIRS_MAX: usize = 64;
/// A longer value has an allocation of its own.
pub(super) const PACKED_VALUE_BYTES_MAX: usize = 512;

/// A value and its versions, where they lie.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct VersionedRef<'a> {
    /// The value.
    pub(super) value: &'a [u8],
    /// The same value, if it has an allocation of its own: to be shared, not copied.
    pub(super) shared: Option<&'a Bytes>,
    /// Revision that created the key (since it last did not exist).
    pub(super) create_revision: Revision,
    /// Revision that last set it.
    pub(super) mod_revision: Revision,
    /// Which of the changes of that revision it was, from 0.
    pub(super) place: u32,
    /// How often it was set since it was created, from 1.
    pub(super) version: u64,
    /// The lease that it ends with.
    pub(super) lease: LeaseId,
}

impl<'a> VersionedRef<'a> {
    /// A value that has no versions.
    pub(super) fn plain(value: &'a [u8]) -> Self {
        Self { value, ..Self::default() }
    }

    /// The value with bytes of its own; a large one is shared.
    pub(super) fn to_bytes(self) -> Bytes {
        self.shared.cloned().unwrap_or_else(|| Bytes::copy_from_slice(self.value))
    }

    /// The same with bytes of its own.
    pub(super) fn to_key_value(self, key: &[u8]) -> KeyValue {
        KeyValue { value: self.to_bytes(), ..self.to_key(key) }
    }

    /// The same without the value.
    pub(super) fn to_key(self, key: &[u8]) -> KeyValue {
        let Self { create_revision, mod_revision, version, lease, .. } = self;
        let key = Bytes::copy_from_slice(key);
        KeyValue { key, value: Bytes::new(), create_revision, mod_revision, version, lease }
    }
}

/// What one key adds to the state hash: a hash over its key, value, revisions, version and lease.
/// Key and value are hashed apart, and then their hashes, so that nothing has to be put side by
/// side first.
pub(super) fn digest(key: &[u8], versioned: VersionedRef<'_>) -> u128 {
    let mut words = [0; 68];
    words[..16].copy_from_slice(&xxh3_128(key).to_le_bytes());
    words[16..32].copy_from_slice(&xxh3_128(versioned.value).to_le_bytes());
    words[32..40].copy_from_slice(&versioned.create_revision.0.to_le_bytes());
    words[40..48].copy_from_slice(&versioned.mod_revision.0.to_le_bytes());
    words[48..56].copy_from_slice(&versioned.version.to_le_bytes());
    words[56..64].copy_from_slice(&versioned.lease.0.to_le_bytes());
    words[64..].copy_from_slice(&versioned.place.to_le_bytes());
    xxh3_128(&words)
}

/// Five numbers of 64 bits, seven bits in each byte.
const NUMBERS_BYTES_MAX: usize = 50;

/// What is to be stored, given what is there.
pub(super) type Make<'m, 'v> = &'m mut dyn FnMut(Option<VersionedRef<'_>>) -> VersionedRef<'v>;

/// Pairs in the order of their keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    pub(super) slots: Vec<Slot>,
    /// The beginning that all keys share. Then for each pair: the rest of the key, its
    /// `create_revision`, how much later it was last set, its version, its lease and its place.
    pub(super) heads: Vec<u8>,
    /// Bytes of that beginning. Chosen when the leaf is made or split, and cut when a key comes in
    /// that begins otherwise.
    pub(super) prefix_bytes: u32,
    /// The packed values, side by side.
    pub(super) values: Vec<u8>,
    /// The large values.
    pub(super) large: Vec<Bytes>,
}

/// Where a pair lies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    /// Where its head ends in `heads`: it begins where the one before ends, the first one after the
    /// prefix.
    head_end: u32,
    /// Where its packed value ends in `values`. A large value takes no room there. A leaf is split
    /// before sixteen bits are too few.
    value_end: u16,
    /// What follows the key in its head, bytes.
    revision_bytes: u8,
    /// Whether its value is among the large ones.
    pub(super) is_large: bool,
}

impl Leaf {
    /// How much is in it, with whole keys: how a tree is cut into leaves does not depend on what
    /// their keys have in common.
    pub(super) fn bytes(&self) -> usize {
        self.bytes_before(self.slots.len())
    }

    fn bytes_before(&self, at: usize) -> usize {
        let (head, value) = self.starts(at);
        let prefix = self.prefix_bytes as usize;
        head + value + prefix * at - prefix
    }

    /// Whether it should take another pair while a tree is built: a little room is left for what
    /// changes later.
    pub(super) fn has_room(&self, key_bytes: usize, value_bytes: usize) -> bool {
        let packed = if value_bytes > PACKED_VALUE_BYTES_MAX { 0 } else { value_bytes };
        self.bytes() + key_bytes + packed <= LEAF_BYTES_MAX * 7 / 8 && self.slots.len() < LEAF_PAIRS_MAX
    }

    /// Where the head and the packed value of the pair at `at` begin.
    pub(super) fn starts(&self, at: usize) -> (usize, usize) {
        at.checked_sub(1).map_or((self.prefix_bytes as usize, 0), |before| {
            let slot = &self.slots[before];
            (slot.head_end as usize, usize::from(slot.value_end))
        })
    }

    fn prefix(&self) -> &[u8] {
        &self.heads[..self.prefix_bytes as usize]
    }

    /// The key at `at` without the prefix.
    fn rest(&self, at: usize) -> &[u8] {
        let (head, _) = self.starts(at);
        &self.heads[head..self.slots[at].key_end()]
    }

    pub(super) fn key(&self, at: usize) -> Vec<u8> {
        let mut key = Vec::new();
        self.key_into(at, &mut key);
        key
    }

    /// Puts the key at `at` in the place of what `key` holds.
    pub(super) fn key_into(&self, at: usize, key: &mut Vec<u8>) {
        let (prefix, rest) = (self.prefix(), self.rest(at));
        key.clear();
        key.reserve_exact(prefix.len() + rest.len());
        key.extend_from_slice(prefix);
        key.extend_from_slice(rest);
    }

    /// Large values before the pair at `at`.
    pub(super) fn large_before(&self, at: usize) -> usize {
        self.slots[..at].iter().filter(|slot| slot.is_large).count()
    }

    /// Where `key` is, or would be, and whether it is there.
    pub(super) fn find(&self, key: &[u8]) -> (usize, bool) {
        let (mut low, mut high) = (0, self.slots.len());
        let prefix = self.prefix();
        let Some(rest) = key.strip_prefix(prefix) else {
            return (if key < prefix { low } else { high }, false);
        };
        while low < high {
            let middle = low.midpoint(high);
            match self.rest(middle).cmp(rest) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return (middle, true),
                Ordering::Greater => high = middle,
            }
        }
        (low, false)
    }

    /// The value of the pair at `at`.
    pub(super) fn versioned(&self, at: usize) -> VersionedRef<'_> {
        let (_, value) = self.starts(at);
        let slot = self.slots[at];
        let shared = slot.is_large.then(|| &self.large[self.large_before(at)]);
        let value =
            shared.map_or_else(|| &self.values[value..usize::from(slot.value_end)], |shared| &shared[..]);
        let mut rest = &self.heads[slot.key_end()..slot.head_end as usize];
        let create = take_number(&mut rest);
        let later = take_number(&mut rest);
        let version = take_number(&mut rest);
        let lease = LeaseId(take_number(&mut rest));
        let place = u32::try_from(take_number(&mut rest)).expect("it was put in as 32 bits");
        let (create_revision, mod_revision) = (Revision(create), Revision(create + later));
        VersionedRef { value, shared, create_revision, mod_revision, place, version, lease }
    }

    /// Puts a pair in; whether its key is new.
    pub(super) fn set(&mut self, key: &[u8], make: Make<'_, '_>) -> bool {
        let (at, found) = self.find(key);
        if found {
            let versioned = make(Some(self.versioned(at)));
            self.put(at, Some(self.slots[at]), key, versioned);
        } else {
            self.put(at, None, key, make(None));
        }
        !found
    }

    /// Writes a pair: over the one at `at`, or before it.
    pub(super) fn put(&mut self, at: usize, over: Option<Slot>, key: &[u8], versioned: VersionedRef<'_>) {
        if !key.starts_with(self.prefix()) {
            self.lay_out(common_bytes(self.prefix(), key));
        }
        let key = &key[self.prefix_bytes as usize..];
        let (head, packed_at) = self.starts(at);
        let (old_head, old_packed) = over
            .map_or((0, 0), |slot| (slot.head_end as usize - head, usize::from(slot.value_end) - packed_at));
        let value = versioned.value;
        let is_large = value.len() > PACKED_VALUE_BYTES_MAX;
        let packed = if is_large { &[][..] } else { value };
        let mut revisions = Numbers::default();
        revisions.put(versioned.create_revision.0);
        revisions.put(versioned.mod_revision.0 - versioned.create_revision.0);
        revisions.put(versioned.version);
        revisions.put(versioned.lease.0);
        revisions.put(u64::from(versioned.place));
        splice(&mut self.heads, head, old_head, &[key, revisions.bytes()]);
        splice(&mut self.values, packed_at, old_packed, &[packed]);
        let before = self.large_before(at);
        match (over.is_some_and(|slot| slot.is_large), is_large) {
            (true, true) => self.large[before] = versioned.to_bytes(),
            (true, false) => drop(self.large.remove(before)),
            (false, true) => self.large.insert(before, versioned.to_bytes()),
            (false, false) => {}
        }
        if over.is_none() {
            self.slots.reserve_exact(1);
            let (head_end, value_end) = (long(head), short(packed_at));
            self.slots.insert(at, Slot { head_end, value_end, ..Slot::default() });
        }
        let slot = &mut self.slots[at];
        slot.is_large = is_large;
        slot.revision_bytes =
            u8::try_from(revisions.bytes().len()).expect("five numbers take at most fifty bytes");
        let heads = long(key.len() + revisions.bytes().len()).wrapping_sub(long(old_head));
        let values = short(packed.len()).wrapping_sub(short(old_packed));
        self.slots[at..].iter_mut().for_each(|slot| *slot = slot.moved(heads, values));
    }

    pub(super) fn remove(&mut self, at: usize) {
        let (head, value) = self.starts(at);
        let slot = self.slots[at];
        let before = self.large_before(at);
        self.heads.drain(head..slot.head_end as usize);
        self.values.drain(value..usize::from(slot.value_end));
        if slot.is_large {
            self.large.remove(before);
        }
        self.slots.remove(at);
        let heads = long(head).wrapping_sub(slot.head_end);
        let values = short(value).wrapping_sub(slot.value_end);
        self.slots[at..].iter_mut().for_each(|slot| *slot = slot.moved(heads, values));
        if self.slots.is_empty() {
            self.lay_out(0);
        }
    }

    /// Splits off the upper half if there is too much in it: by pairs if there are too many, else
    /// by bytes.
    pub(super) fn maybe_split(&mut self) -> Option<(Vec<u8>, Self)> {
        let (pairs, bytes) = (self.slots.len(), self.bytes());
        let at = if pairs > LEAF_PAIRS_MAX {
            pairs / 2
        } else if bytes > LEAF_BYTES_MAX && pairs > 1 {
            let is_low = |at: &usize| self.bytes_before(*at) <= bytes / 2;
            (1..pairs).take_while(is_low).count().clamp(1, pairs - 1)
        } else {
            return None;
        };
        let (head, value) = self.starts(at);
        let large = self.large.split_off(self.large_before(at));
        let (heads, values) = (long(head) - self.prefix_bytes, short(value));
        let back = |slot: &Slot| slot.moved(heads.wrapping_neg(), values.wrapping_neg());
        let mut right = Self {
            slots: self.slots[at..].iter().map(back).collect(),
            heads: [self.prefix(), &self.heads[head..]].concat(),
            prefix_bytes: self.prefix_bytes,
            values: self.values[value..].to_vec(),
            large,
        };
        self.slots.truncate(at);
        self.heads.truncate(head);
        self.values.truncate(value);
        self.compress();
        right.compress();
        self.fit();
        Some((right.key(0), right))
    }

    /// Keeps what all keys begin with only once.
    pub(super) fn compress(&mut self) {
        if self.slots.len() > 1 {
            // What the first and the last key begin with, those between begin with too.
            let common = common_bytes(self.rest(0), self.rest(self.slots.len() - 1));
            self.lay_out(self.prefix_bytes as usize + common);
        }
    }

    /// Makes the prefix `prefix_bytes` long. All keys share that many bytes at their beginning.
    pub(super) fn lay_out(&mut self, prefix_bytes: usize) {
        let old = self.prefix_bytes as usize;
        if prefix_bytes == old {
            return;
        }
        let mut heads = Vec::with_capacity(self.bytes() - self.values.len());
        if prefix_bytes > old {
            heads.extend_from_slice(self.prefix());
            heads.extend_from_slice(&self.rest(0)[..prefix_bytes - old]);
        } else {
            heads.extend_from_slice(&self.heads[..prefix_bytes]);
        }
        let mut start = old;
        for slot in &mut self.slots {
            let head = &self.heads[start..slot.head_end as usize];
            start = slot.head_end as usize;
            if prefix_bytes > old {
                heads.extend_from_slice(&head[prefix_bytes - old..]);
            } else {
                heads.extend_from_slice(&self.heads[prefix_bytes..old]);
                heads.extend_from_slice(head);
            }
            slot.head_end = long(heads.len());
        }
        heads.shrink_to_fit();
        (self.heads, self.prefix_bytes) = (heads, long(prefix_bytes));
    }

    /// Gives back what is reserved and not used.
    pub(super) fn fit(&mut self) {
        self.slots.shrink_to_fit();
        self.heads.shrink_to_fit();
        self.values.shrink_to_fit();
        self.large.shrink_to_fit();
    }
}

impl Slot {
    /// Where its key ends in `heads`.
    pub(super) const fn key_end(self) -> usize {
        self.head_end as usize - self.revision_bytes as usize
    }

    /// The same pair, `heads` and `values` bytes further on (or back, modulo the size of the
    /// fields).
    pub(super) const fn moved(self, heads: u32, values: u16) -> Self {
        let Self { head_end, value_end, .. } = self;
        Self { head_end: head_end.wrapping_add(heads), value_end: value_end.wrapping_add(values), ..self }
    }
}

/// How many bytes two keys have in common at their beginning.
fn common_bytes(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// A place among the heads of a leaf.
pub(super) fn long(number: usize) -> u32 {
    u32::try_from(number).expect("a leaf is far shorter than 4 GiB")
}

/// A place among the packed values of a leaf.
pub(super) fn short(number: usize) -> u16 {
    u16::try_from(number).expect("a leaf has no 64 KiB of packed values")
}

/// Puts `parts` in the place of `old` bytes at `at`, reserving no more than is used.
pub(super) fn splice(bytes: &mut Vec<u8>, at: usize, old: usize, parts: &[&[u8]]) {
    let new: usize = parts.iter().map(|part| part.len()).sum();
    let end = bytes.len();
    match new.cmp(&old) {
        Ordering::Greater => {
            bytes.reserve_exact(new - old);
            bytes.resize(end + new - old, 0);
            bytes.copy_within(at + old..end, at + new);
        }
        Ordering::Less => {
            bytes.copy_within(at + old..end, at + new);
            bytes.truncate(end - (old - new));
            if bytes.capacity() > bytes.len() + bytes.len() / 8 {
                bytes.shrink_to_fit();
            }
        }
        Ordering::Equal => {}
    }
    let mut to = at;
    for part in parts {
        bytes[to..to + part.len()].copy_from_slice(part);
        to += part.len();
    }
}

/// Numbers as bytes, seven bits in each, the lowest first; the eighth says that more follow.
#[derive(Debug)]
pub(super) struct Numbers {
    bytes: [u8; NUMBERS_BYTES_MAX],
    len: usize,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { bytes: [0; NUMBERS_BYTES_MAX], len: 0 }
    }
}

impl Numbers {
    pub(super) fn put(&mut self, mut number: u64) {
        loop {
            let low = (number & 0x7f) as u8;
            number >>= 7;
            self.bytes[self.len] = low | if number > 0 { 0x80 } else { 0 };
            self.len += 1;
            if number == 0 {
                return;
            }
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[inline]
fn take_number(bytes: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}
