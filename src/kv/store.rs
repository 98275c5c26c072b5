//! The store: the keys as they are, their history, leases, remembered answers and settings.
//!
//! All of it lies in structures that a capture shares, so that a snapshot captures the store in
//! O(1) while it goes on changing.

use crate::codec::FeatureLevel;
use crate::kv::answers::Answers;
use crate::kv::command::{Command, Op, Outcome, Put, Refusal};
use crate::kv::history::{Change, ChangeId, History};
use crate::kv::leaf::{PACKED_VALUE_BYTES_MAX, VersionedRef, digest};
use crate::kv::leases::{IDLE_LEASES_MAX, LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN, Leases};
use crate::kv::query::{Lease, LeaseGrant};
use crate::kv::security::{Denial, Principal, Security, SecurityChange};
use crate::kv::tree::Tree;
use crate::kv::types::{KeyRange, KeyValue, LeaseId, Revision, Settings};
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// A command changes at most this many keys, and a lease holds at most this many.
pub const CHANGES_MAX: u64 = 100_000;

/// The state machine's state. `clone` is O(1).
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// The keys as they are. Holds keys and values in memory of its own: a slice would keep the
    /// network buffer it came in alive.
    pub(super) live: Tree,
    /// Keys that do not exist, whose deletion is in the history: when they were deleted.
    pub(super) graves: Tree,
    pub(super) history: History,
    pub(super) leases: Leases,
    pub(super) answers: Answers,
    pub(super) settings: Settings,
    /// Users, roles and tokens.
    pub(super) security: Arc<Security>,
    /// The level of the cluster; never goes back.
    pub(super) level: FeatureLevel,
    /// The last change's; never goes back.
    pub(super) revision: Revision,
    /// Reads below this revision are refused; never goes back.
    pub(super) compacted: Revision,
    /// Sum of the lengths of keys and values that exist.
    pub(super) bytes: u64,
    /// Sum (mod 2^128) of [`digest`] over `live`: sums do not depend on the order, and can be
    /// subtracted from. Invariant: equal to a recomputation.
    pub(super) digests: u128,
}

impl Store {
    /// An empty store at revision 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies a command of an entry of `term`. Deterministic: equal stores stay equal. It copies
    /// keys and values, which may be slices of large buffers.
    pub fn apply(&mut self, term: u64, command: &Command) -> Outcome {
        // Before anything is told of it, a remembered answer included.
        if let Err(denial) = self.judge(command.by.as_ref(), &command.op) {
            return self.deny(command, denial);
        }
        let Some(key) = &command.idempotency_key else { return self.carry_out(term, command) };
        let fingerprint = command.fingerprint();
        let forgotten = self.forgotten(command);
        // What somebody else was denied takes nobody's key away.
        if let Some(known) = self.answers.get(key)
            && (known.fingerprint == fingerprint || !known.is_denial())
        {
            let repeated = known.outcome.ok().filter(|_| known.fingerprint == fingerprint);
            return match repeated.unwrap_or(Outcome::Refused(Refusal::KeyReused)) {
                // It may have been done before it was denied.
                Outcome::Refused(Refusal::Denied { denial, maybe_done }) => {
                    let maybe_done = maybe_done || forgotten.is_some();
                    Outcome::Refused(Refusal::Denied { denial, maybe_done })
                }
                outcome => outcome,
            };
        }
        if let Some(refusal) = forgotten {
            return Outcome::Refused(refusal);
        }
        let outcome = self.carry_out(term, command);
        self.remember(key, (fingerprint, &outcome));
        outcome
    }

    /// Refuses a command. It stays refused under its name, if its author has one: a late copy must
    /// not take effect once there is a right to it.
    fn deny(&mut self, command: &Command, denial: Denial) -> Outcome {
        let name = command.idempotency_key.as_ref();
        let known = name.and_then(|key| self.answers.get(key));
        let is_kept = known.as_ref().is_some_and(|known| !known.is_denial());
        let fingerprint = command.fingerprint();
        let is_new = !is_kept && known.is_none_or(|known| known.fingerprint != fingerprint);
        let maybe_done = is_kept || self.forgotten(command).is_some();
        let outcome = Outcome::Refused(Refusal::Denied { denial, maybe_done });
        if let Some(key) = name.filter(|_| is_new && command.by.is_some()) {
            self.remember(key, (fingerprint, &outcome));
        }
        outcome
    }

    /// A key, if it exists.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.live.get(key).map(|found| found.to_key_value(key))
    }

    /// All keys that exist, in their order.
    pub fn iter(&self) -> impl Iterator<Item = KeyValue> {
        self.live.iter().map(|(key, found)| found.to_key_value(&key))
    }

    /// The revision of the last change.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision that can be read at.
    #[must_use]
    pub const fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The limits in force.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Users, roles and tokens.
    #[must_use]
    pub const fn security(&self) -> &Arc<Security> {
        &self.security
    }

    /// The level of the cluster.
    #[must_use]
    pub const fn level(&self) -> FeatureLevel {
        self.level
    }

    /// Raises the level of the cluster. Whether it was lower.
    pub fn raise_level(&mut self, level: FeatureLevel) -> bool {
        let is_higher = level > self.level;
        if is_higher {
            self.date_answers(level);
            self.level = level;
        }
        is_higher
    }

    /// Number of keys that exist.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether no key exists.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing was ever done to it that left a trace.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        let no_answers = self.answers.last_number() == 0 && self.answers.forgotten_below() == Revision(0);
        let no_leases = self.leases.last_grant() == 0;
        let no_rules = self.security.revision() == 0;
        let is_empty = self.revision == Revision(0) && no_leases && no_answers && no_rules;
        is_empty && self.settings == Settings::default()
    }

    /// Sum of the lengths of keys and values that exist, bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the history takes, bytes.
    #[must_use]
    pub const fn history_bytes(&self) -> u64 {
        self.history.bytes()
    }

    /// A lease, if it is there.
    #[must_use]
    pub fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.leases.get(id)
    }

    /// The leases from an id on, ascending.
    pub fn leases(&self, from: LeaseId) -> impl Iterator<Item = Lease> + '_ {
        self.leases.from(from)
    }

    /// The same, without how many keys end with each.
    pub fn lease_grants(&self, from: LeaseId) -> impl Iterator<Item = LeaseGrant> + '_ {
        self.leases.grants_from(from)
    }

    /// The number of the last grant of a lease.
    #[must_use]
    pub const fn last_grant(&self) -> u64 {
        self.leases.last_grant()
    }

    /// Number of leases.
    #[must_use]
    pub const fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// The keys that end with a lease, from `start` on, ascending; `limit` of them at most.
    #[must_use]
    pub fn lease_keys(&self, id: LeaseId, start: &[u8], limit: usize) -> Vec<Vec<u8>> {
        self.leases.keys_from(id, start, limit)
    }

    /// Hash of the whole state, kept up to date with each command (O(1) here): equal states have
    /// equal hashes. It finds differences that accidents make. It does not withstand an attacker
    /// who chooses keys to collide.
    #[must_use]
    pub fn state_hash(&self) -> u128 {
        let Settings { history_bytes, quota_bytes, answers_bytes } = self.settings;
        let numbers = [self.revision.0, self.compacted.0, history_bytes, quota_bytes, answers_bytes];
        let mut numbers: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
        // A member of the oldest level knows of none, and has the same hash.
        if self.level > FeatureLevel::UNTOLD {
            self.level.encode(&mut numbers);
        }
        [self.leases.digests(), self.answers.digests(), self.history.digests(), xxh3_128(&numbers)]
            .into_iter()
            .fold(self.digests.wrapping_add(self.security.digest()), u128::wrapping_add)
    }

    fn carry_out(&mut self, term: u64, command: &Command) -> Outcome {
        let done = match &command.op {
            Op::Put(put) => self.put_alone(put),
            Op::Delete(range) => self.delete_alone(range),
            Op::Txn(txn) => self.txn(txn),
            Op::Increment { key, by } => self.increment(key, *by),
            Op::Compact(revision) => self.compact(*revision),
            Op::Grant { id, ttl_seconds } => self.grant(*id, *ttl_seconds, command.by.as_ref()),
            Op::Revoke(id) => self.revoke(*id),
            Op::Expire { term: of, leases } => Ok(self.expire(*of == term, leases)),
            Op::Configure(settings) => Ok(self.configure(*settings)),
            Op::Secure(change) => self.secure(change),
        };
        done.unwrap_or_else(Outcome::Refused)
    }

    fn put_alone(&mut self, put: &Put) -> Result<Outcome, Refusal> {
        self.check_leases(core::iter::once(put))?;
        self.check_quota(core::iter::once(put), put.key.len() + put.value.len(), &mut [])?;
        let version = self.put(put, 0);
        Ok(Outcome::Put { revision: self.end_revision(1), version })
    }

    fn delete_alone(&mut self, range: &KeyRange) -> Result<Outcome, Refusal> {
        self.check_changes(self.count(range))?;
        let mut changes = 0;
        let count = self.delete(range, &mut changes);
        Ok(Outcome::Deleted { revision: self.end_revision(changes), count })
    }

    fn increment(&mut self, key: &Bytes, by: i64) -> Result<Outcome, Refusal> {
        let (before, lease) = match self.live.get(key) {
            None => (0, LeaseId::NONE),
            Some(found) => {
                let text = core::str::from_utf8(found.value).map_err(|_| Refusal::NotANumber)?;
                (text.trim().parse::<i64>().map_err(|_| Refusal::NotANumber)?, found.lease)
            }
        };
        let value = before.checked_add(by).ok_or(Refusal::Overflow)?;
        let put = Put { key: key.clone(), value: Bytes::from(value.to_string()), lease };
        match self.put_alone(&put)? {
            Outcome::Put { revision, version } => Ok(Outcome::Incremented { revision, version, value }),
            other => Ok(other),
        }
    }

    fn compact(&mut self, revision: Revision) -> Result<Outcome, Refusal> {
        if revision > self.revision {
            return Err(Refusal::Future(self.revision));
        }
        if revision < self.compacted {
            return Err(Refusal::Compacted(self.compacted));
        }
        self.compacted = revision;
        while let Some(chunk) = self.history.drop_through(revision) {
            self.forget_graves(&chunk);
        }
        Ok(Outcome::Compacted(revision))
    }

    fn grant(&mut self, id: LeaseId, ttl_seconds: u64, by: Option<&Principal>) -> Result<Outcome, Refusal> {
        if self.leases.contains(id) {
            return Err(Refusal::LeaseExists(id));
        }
        let needs = self.used() + Leases::bytes_of_one();
        if needs > self.settings.quota_bytes {
            return Err(Refusal::Quota { needs, quota: self.settings.quota_bytes });
        }
        let ttl_seconds = ttl_seconds.clamp(LEASE_TTL_SECONDS_MIN, LEASE_TTL_SECONDS_MAX);
        let owner = self.security.owner(by);
        if owner.is_some_and(|owner| self.leases.idle_of(owner) >= IDLE_LEASES_MAX) {
            return Err(Refusal::TooManyLeases { limit: IDLE_LEASES_MAX });
        }
        let id = self.leases.grant(id, ttl_seconds, owner);
        Ok(Outcome::Granted { id, ttl_seconds })
    }

    fn revoke(&mut self, id: LeaseId) -> Result<Outcome, Refusal> {
        if !self.leases.contains(id) {
            return Err(Refusal::NoLease(id));
        }
        let mut changes = 0;
        self.end_lease(id, &mut changes);
        Ok(Outcome::Revoked { revision: self.end_revision(changes), keys: u64::from(changes) })
    }

    /// Ends the leases that are still those that the leader meant.
    fn expire(&mut self, is_of_this_term: bool, leases: &[(LeaseId, u64)]) -> Outcome {
        let mut changes = 0;
        for (id, grant) in leases.iter().filter(|_| is_of_this_term) {
            if self.leases.get(*id).is_some_and(|lease| lease.grant == *grant) {
                self.end_lease(*id, &mut changes);
            }
        }
        Outcome::Revoked { revision: self.end_revision(changes), keys: u64::from(changes) }
    }

    fn configure(&mut self, settings: Settings) -> Outcome {
        self.settings = settings;
        self.bound_history();
        self.answers.bound(settings.answers_bytes);
        Outcome::Configured(settings)
    }

    fn secure(&mut self, change: &SecurityChange) -> Result<Outcome, Refusal> {
        let security = self.security.changed(change).map_err(Refusal::Security)?;
        let revision = security.revision();
        self.security = Arc::new(security);
        Ok(Outcome::Secured(revision))
    }

    fn end_lease(&mut self, id: LeaseId, changes: &mut u32) {
        for key in self.leases.keys_from(id, &[], usize::MAX) {
            self.delete_key(&key, changes);
        }
        self.leases.end(id);
    }

    /// How many keys a range holds.
    pub(super) fn count(&self, range: &KeyRange) -> u64 {
        let end = range.end.as_ref().map_or(self.live.len() as u64, |end| self.live.rank(end));
        end.saturating_sub(self.live.rank(&range.start))
    }

    /// What counts for the quota, bytes.
    fn used(&self) -> u64 {
        self.bytes + self.leases.bytes()
    }

    pub(super) fn check_changes(&self, keys: u64) -> Result<(), Refusal> {
        if keys > CHANGES_MAX {
            return Err(Refusal::TooManyChanges { keys, limit: CHANGES_MAX });
        }
        Ok(())
    }

    /// Each lease is there, and has room for one more key.
    pub(super) fn check_leases<'p>(&self, puts: impl Iterator<Item = &'p Put>) -> Result<(), Refusal> {
        let mut new: Vec<LeaseId> = Vec::new();
        for Put { key, lease, .. } in puts.filter(|put| !put.lease.is_none()) {
            if !self.leases.contains(*lease) {
                return Err(Refusal::NoLease(*lease));
            }
            if self.live.get(key).is_none_or(|found| found.lease != *lease) {
                new.push(*lease);
            }
        }
        new.sort_unstable();
        for group in new.chunk_by(|one, other| one == other) {
            self.check_changes(self.leases.keys(group[0]) + group.len() as u64)?;
        }
        Ok(())
    }

    /// What is put and deleted does not let the store outgrow its quota. The puts add `bytes` at
    /// most, and none is into a range of `deletes`.
    pub(super) fn check_quota<'p>(
        &self,
        puts: impl Iterator<Item = &'p Put>,
        bytes: usize,
        deletes: &mut [&KeyRange],
    ) -> Result<(), Refusal> {
        let quota = self.settings.quota_bytes;
        if self.used() + bytes as u64 <= quota {
            return Ok(());
        }
        let (mut more, mut less) = (0, self.bytes_of(deletes));
        for put in puts {
            match self.live.get(&put.key) {
                None => more += (put.key.len() + put.value.len()) as u64,
                Some(before) => {
                    more += put.value.len() as u64;
                    less += before.value.len() as u64;
                }
            }
        }
        let needs = (self.used() + more).saturating_sub(less);
        if more > less && needs > quota {
            return Err(Refusal::Quota { needs, quota });
        }
        Ok(())
    }

    /// What the keys of these ranges take, each key counted once.
    fn bytes_of(&self, ranges: &mut [&KeyRange]) -> u64 {
        ranges.sort_unstable_by(|one, other| one.start.cmp(&other.start));
        let mut bytes = 0;
        let mut counted: &[u8] = &[];
        for range in ranges {
            let mut cursor = self.live.cursor(counted.max(&range.start[..]));
            while let Some((key, found)) = cursor.next()
                && range.contains(key)
            {
                bytes += (key.len() + found.value.len()) as u64;
            }
            match &range.end {
                Some(end) => counted = counted.max(&end[..]),
                None => break,
            }
        }
        bytes
    }

    /// Sets a key, as the change at `place` of the next revision; its version.
    pub(super) fn put(&mut self, put: &Put, place: u32) -> u64 {
        let Put { key, value, lease } = put;
        let revision = self.revision.next();
        let limit = self.settings.history_bytes;
        let own = (value.len() > PACKED_VALUE_BYTES_MAX).then(|| Bytes::copy_from_slice(value));
        let Self { live, graves, history, leases, bytes, digests, .. } = self;
        *bytes += value.len() as u64;
        let mut version = 1;
        let mut detached = LeaseId::NONE;
        let mut is_new = false;
        live.set(key, &mut |was| {
            let mut create_revision = revision;
            let mut link = None;
            let was_digest = was.map(|was| digest(key, was));
            if let Some(was) = was {
                *bytes -= was.value.len() as u64;
                (create_revision, version) = (was.create_revision, was.version + 1);
                detached = was.lease;
            } else {
                *bytes += key.len() as u64;
                is_new = true;
                link = graves
                    .get(key)
                    .map(|grave| ChangeId { revision: grave.mod_revision, place: grave.place });
            }
            let (value, shared) = (own.as_ref().map_or(&value[..], |own| &own[..]), own.as_ref());
            let (mod_revision, lease) = (revision, *lease);
            let now = VersionedRef { value, shared, create_revision, mod_revision, place, version, lease };
            let now_digest = digest(key, now);
            *digests = digests.wrapping_sub(was_digest.unwrap_or(0)).wrapping_add(now_digest);
            let change = Change { key, now: Some(now), was, link };
            history.stage(&change, change.digest(revision, Some(now_digest), was_digest), limit);
            now
        });
        if is_new && graves.len() > 0 {
            graves.remove(key);
        }
        if detached != *lease {
            leases.detach(detached, key);
            leases.attach(*lease, key);
        }
        version
    }

    /// Removes the keys of a range; how many there were.
    pub(super) fn delete(&mut self, range: &KeyRange, changes: &mut u32) -> u64 {
        if let Some(key) = range.one_key() {
            return u64::from(self.delete_key(key, changes));
        }
        let mut keys = Vec::new();
        let mut cursor = self.live.cursor(&range.start);
        while let Some((key, _)) = cursor.next()
            && range.contains(key)
        {
            keys.push(key.to_vec());
        }
        keys.iter().map(|key| u64::from(self.delete_key(key, changes))).sum()
    }

    /// Removes a key, as the next change of the next revision; whether it existed.
    fn delete_key(&mut self, key: &[u8], changes: &mut u32) -> bool {
        let Some(was) = self.live.get(key) else { return false };
        let (revision, place) = (self.revision.next(), *changes);
        *changes += 1;
        self.bytes -= (key.len() + was.value.len()) as u64;
        let was_digest = digest(key, was);
        self.digests = self.digests.wrapping_sub(was_digest);
        let change = Change { key, now: None, was: Some(was), link: None };
        let change_digest = change.digest(revision, None, Some(was_digest));
        self.history.stage(&change, change_digest, self.settings.history_bytes);
        self.leases.detach(was.lease, key);
        self.live.remove(key);
        let (create_revision, mod_revision) = (revision, revision);
        let grave = VersionedRef { create_revision, mod_revision, place, ..VersionedRef::default() };
        self.graves.set(key, &mut |_| grave);
        true
    }

    /// Ends the command that made so many changes. If there were any, they are a revision.
    pub(super) fn end_revision(&mut self, changes: u32) -> Revision {
        if changes > 0 {
            self.revision = self.revision.next();
            if !self.history.end_record(self.revision, self.settings.history_bytes) {
                self.forget_history();
            }
            self.bound_history();
        }
        self.revision
    }

    /// The oldest revisions are compacted when the history takes more than it may.
    fn bound_history(&mut self) {
        while self.history.bytes() > self.settings.history_bytes
            && let Some(chunk) = self.history.drop_oldest()
        {
            self.compacted = self.compacted.max(chunk.last());
            self.forget_graves(&chunk);
        }
    }

    /// All of the history goes, up to the present revision.
    fn forget_history(&mut self) {
        self.history = History::default();
        self.graves = Tree::default();
        self.compacted = self.revision;
    }

    /// Keys whose deletion was in this chunk, and that were not made again, are forgotten.
    fn forget_graves(&mut self, chunk: &crate::kv::history::Chunk) {
        for (key, id) in chunk.deletions() {
            let grave = self.graves.get(key);
            if grave.is_some_and(|grave| grave.mod_revision == id.revision) {
                self.graves.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
