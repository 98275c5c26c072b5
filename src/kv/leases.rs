//! Leases, as the log knows them: who keeps the time is the leader, outside.

use crate::kv::leaf::VersionedRef;
use crate::kv::query::{Lease, LeaseGrant};
use crate::kv::security::Subject;
use crate::kv::tree::Tree;
use crate::kv::types::{KeyRange, LeaseId};
use alloc::vec::Vec;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// A lease lives at least this long without a renewal, seconds.
pub const LEASE_TTL_SECONDS_MIN: u64 = 2;
/// And at most this long.
pub const LEASE_TTL_SECONDS_MAX: u64 = 9_000_000_000;
/// Ids from here on may be chosen by clients. The store chooses lower ones, and none of them twice:
/// an id that it has given to one owner never names the lease of another.
pub const LEASE_ID_CHOSEN_MIN: u64 = 1_000_000_000_000_000;
/// Leases without keys that one owner may have. A user who may write little must not fill the quota
/// with them.
pub const IDLE_LEASES_MAX: u64 = 10_000;
/// What a lease counts for in the quota.
pub(super) const LEASE_BYTES: u64 = 128;

/// What is kept of one, beside its id: two words, and the kind and the id of its owner.
const VALUE_BYTES: usize = 25;

/// The leases, and which keys end with each. `clone` is O(1).
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    /// By id (big-endian): the time to live, the number of the grant, and the owner.
    granted: Tree,
    /// Id (big-endian) and key, one behind the other; no values.
    attached: Tree,
    /// How many leases without keys each owner has, by kind and id (big-endian). It follows from
    /// the others.
    idle: Tree,
    /// The number of the last grant.
    last_grant: u64,
    /// Sum of hashes over `granted`. What is in `attached` follows from the keys.
    digests: u128,
}

impl Leases {
    /// What they count for in the quota, bytes.
    pub(super) const fn bytes(&self) -> u64 {
        self.granted.len() as u64 * LEASE_BYTES
    }

    /// What one more would count for.
    pub(super) const fn bytes_of_one() -> u64 {
        LEASE_BYTES
    }

    /// Hash of all of them.
    pub(super) fn digests(&self) -> u128 {
        self.digests.wrapping_add(xxh3_128(&self.last_grant.to_le_bytes()))
    }

    /// The number of the last grant.
    pub(super) const fn last_grant(&self) -> u64 {
        self.last_grant
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.granted.len()
    }

    pub(super) fn contains(&self, id: LeaseId) -> bool {
        self.granted.get(&id.0.to_be_bytes()).is_some()
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<Lease> {
        let (ttl_seconds, grant, _) = read(self.granted.get(&id.0.to_be_bytes())?.value);
        Some(Lease { id, ttl_seconds, grant, keys: self.keys(id) })
    }

    /// The owner of a lease; `None`: it has none, or there is no such lease.
    pub(super) fn owner(&self, id: LeaseId) -> Option<Subject> {
        read(self.granted.get(&id.0.to_be_bytes())?.value).2
    }

    /// How many leases without keys an owner has.
    pub(super) fn idle_of(&self, owner: Subject) -> u64 {
        let found = self.idle.get(&owner_key(owner));
        found.map_or(0, |found| u64::from_le_bytes(*found.value.first_chunk().expect("it is a word")))
    }

    /// A lease has no keys any more (or is there), or has some now (or is not).
    fn count_idle(&mut self, id: LeaseId, is_idle: bool) {
        let Some(owner) = self.owner(id) else { return };
        let before = self.idle_of(owner);
        let count = if is_idle { before + 1 } else { before.saturating_sub(1) };
        if count == 0 {
            self.idle.remove(&owner_key(owner));
        } else {
            let count = count.to_le_bytes();
            self.idle.set(&owner_key(owner), &mut |_| VersionedRef::plain(&count));
        }
    }

    /// The leases from an id on.
    pub(super) fn from(&self, id: LeaseId) -> impl Iterator<Item = Lease> + '_ {
        self.grants_from(id).map(|LeaseGrant { id, ttl_seconds, grant }| {
            let keys = self.keys(id);
            Lease { id, ttl_seconds, grant, keys }
        })
    }

    /// The same, without how many keys each has.
    pub(super) fn grants_from(&self, id: LeaseId) -> impl Iterator<Item = LeaseGrant> + '_ {
        let mut cursor = self.granted.cursor(&id.0.to_be_bytes());
        core::iter::from_fn(move || {
            let (key, found) = cursor.next()?;
            let id = LeaseId(u64::from_be_bytes(*key.first_chunk().expect("ids have eight bytes")));
            let (ttl_seconds, grant, _) = read(found.value);
            Some(LeaseGrant { id, ttl_seconds, grant })
        })
    }

    /// How many keys end with a lease.
    pub(super) fn keys(&self, id: LeaseId) -> u64 {
        let end = id.0.checked_add(1).map(|next| self.attached.rank(&next.to_be_bytes()));
        end.unwrap_or(self.attached.len() as u64) - self.attached.rank(&id.0.to_be_bytes())
    }

    /// How many keys of a range end with a lease.
    pub(super) fn keys_in(&self, id: LeaseId, range: &KeyRange) -> u64 {
        let end = match &range.end {
            Some(end) => self.attached.rank(&place(id, end)),
            None => self.attached.rank(&place(id, &[])) + self.keys(id),
        };
        end.saturating_sub(self.attached.rank(&place(id, &range.start)))
    }

    /// The keys that end with a lease, from `start` on, ascending; `limit` of them at most.
    pub(super) fn keys_from(&self, id: LeaseId, start: &[u8], limit: usize) -> Vec<Vec<u8>> {
        let mut cursor = self.attached.cursor(&place(id, start));
        let mut keys = Vec::new();
        while keys.len() < limit
            && let Some((at, _)) = cursor.next()
            && let Some(key) = at.strip_prefix(&id.0.to_be_bytes())
        {
            keys.push(key.to_vec());
        }
        keys
    }

    /// A part of them, from `start` on: at most `limit`, and none further once they take
    /// `bytes_max`. And the first one that is not in it.
    pub(super) fn page_of_keys(
        &self,
        id: LeaseId,
        start: &[u8],
        (limit, bytes_max): (usize, usize),
    ) -> (Vec<Bytes>, Option<Bytes>) {
        let mut cursor = self.attached.cursor(&place(id, start));
        let (mut keys, mut bytes) = (Vec::new(), 0);
        while let Some((at, _)) = cursor.next()
            && let Some(key) = at.strip_prefix(&id.0.to_be_bytes())
        {
            let key = Bytes::copy_from_slice(key);
            if keys.len() >= limit || bytes >= bytes_max {
                return (keys, Some(key));
            }
            bytes += key.len();
            keys.push(key);
        }
        (keys, None)
    }

    /// Grants a lease; the store chooses the id if none is given: the number of the grant, which
    /// never comes again. No lease of that id is there.
    pub(super) fn grant(&mut self, id: LeaseId, ttl_seconds: u64, owner: Option<Subject>) -> LeaseId {
        self.last_grant += 1;
        let mut id = id;
        if id.is_none() {
            id = LeaseId(self.last_grant);
            while self.contains(id) {
                id.0 += 1;
            }
        }
        self.put_back(id, ttl_seconds, self.last_grant, owner);
        id
    }

    /// Puts a lease in as it was granted.
    pub(super) fn put_back(&mut self, id: LeaseId, ttl_seconds: u64, grant: u64, owner: Option<Subject>) {
        let (kind, owner) = owner_in_numbers(owner);
        let mut value = [0; VALUE_BYTES];
        value[..8].copy_from_slice(&ttl_seconds.to_le_bytes());
        value[8..16].copy_from_slice(&grant.to_le_bytes());
        value[16] = kind;
        value[17..].copy_from_slice(&owner.to_le_bytes());
        self.digests = self.digests.wrapping_add(digest(id, &value));
        self.granted.set(&id.0.to_be_bytes(), &mut |_| VersionedRef::plain(&value));
        self.last_grant = self.last_grant.max(grant);
        // A snapshot may have brought its keys before.
        if self.keys(id) == 0 {
            self.count_idle(id, true);
        }
    }

    /// Sets the number of the last grant; for a snapshot.
    pub(super) const fn set_last_grant(&mut self, last_grant: u64) {
        self.last_grant = last_grant;
    }

    /// Ends a lease. Its keys are gone already.
    pub(super) fn end(&mut self, id: LeaseId) {
        self.count_idle(id, false);
        if let Some(found) = self.granted.get(&id.0.to_be_bytes()) {
            self.digests = self.digests.wrapping_sub(digest(id, found.value));
            self.granted.remove(&id.0.to_be_bytes());
        }
    }

    /// Whether every lease that keys end with is there.
    pub(super) fn are_granted(&self) -> bool {
        let mut next = Some(0);
        while let Some(from) = next {
            let mut cursor = self.attached.cursor(&u64::to_be_bytes(from));
            let Some(id) = cursor.next().and_then(|(at, _)| at.first_chunk().copied()) else { return true };
            let id = LeaseId(u64::from_be_bytes(id));
            if !self.contains(id) {
                return false;
            }
            next = id.0.checked_add(1);
        }
        true
    }

    /// A key ends with this lease from now on.
    pub(super) fn attach(&mut self, id: LeaseId, key: &[u8]) {
        if !id.is_none() {
            if self.keys(id) == 0 {
                self.count_idle(id, false);
            }
            self.attached.set(&place(id, key), &mut |_| VersionedRef::plain(&[]));
        }
    }

    /// A key does not end with this lease any more.
    pub(super) fn detach(&mut self, id: LeaseId, key: &[u8]) {
        if !id.is_none() {
            let was_idle = self.keys(id) == 0;
            self.attached.remove(&place(id, key));
            if !was_idle && self.keys(id) == 0 {
                self.count_idle(id, true);
            }
        }
    }
}

fn place(id: LeaseId, key: &[u8]) -> Vec<u8> {
    [&id.0.to_be_bytes(), key].concat()
}

fn owner_key(owner: Subject) -> Vec<u8> {
    let (kind, id) = owner_in_numbers(Some(owner));
    [&[kind], &id.to_be_bytes()[..]].concat()
}

/// An owner as a kind and an id: 0 and 0 if nobody knows.
pub(super) const fn owner_in_numbers(owner: Option<Subject>) -> (u8, u64) {
    match owner {
        None => (0, 0),
        Some(Subject::User(id)) => (1, id),
        Some(Subject::Token(id)) => (2, id),
    }
}

/// What [`owner_in_numbers`] made; `None`: such numbers mean nothing.
pub(super) const fn owner_of_numbers(kind: u8, id: u64) -> Option<Option<Subject>> {
    match (kind, id) {
        (0, 0) => Some(None),
        (1, id) => Some(Some(Subject::User(id))),
        (2, id) => Some(Some(Subject::Token(id))),
        _ => None,
    }
}

fn read(value: &[u8]) -> (u64, u64, Option<Subject>) {
    let value: &[u8; VALUE_BYTES] = value.first_chunk().expect("it was put in with that length");
    let word = |at: usize| u64::from_le_bytes(*value[at..].first_chunk().expect("a word is there"));
    let owner = owner_of_numbers(value[16], word(17)).expect("it was put in as an owner");
    (word(0), word(8), owner)
}

fn digest(id: LeaseId, value: &[u8]) -> u128 {
    let mut words = [0; 9 + VALUE_BYTES];
    words[0] = b'l';
    words[1..9].copy_from_slice(&id.0.to_le_bytes());
    words[9..].copy_from_slice(value);
    xxh3_128(&words)
}
