//! The table of clients that wait for a change. `watching` serves them.

use crate::kv::{ChangesQuery, Denial, KeyRange, Principal, Revision, Store};
use crate::raft::Time;
use crate::replica::api::RequestId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;

/// The requests that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Watches {
    pub(super) waiting: BTreeMap<RequestId, Waiting>,
    /// Those of one key, by it.
    by_key: BTreeMap<Bytes, BTreeSet<RequestId>>,
    /// The others, by their range. Many watch the same one.
    ranges: BTreeMap<Bounds, BTreeSet<RequestId>>,
    by_deadline: BTreeSet<(Time, RequestId)>,
    /// Bytes of their ranges.
    bytes: u64,
    /// What has been looked at for all of them: the revision of the store.
    pub(super) last_served_revision: Revision,
    /// Changes that this step has looked at for them.
    pub(super) looks: usize,
    /// The rules by which all of them were judged last: their revision.
    pub(super) judged: u64,
}

/// Start and end of a range.
type Bounds = (Bytes, Option<Bytes>);

#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) deadline: Time,
    pub(super) by: Option<Principal>,
    pub(super) query: ChangesQuery,
}

impl Watches {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.by_deadline.first().map(|(at, _)| *at)
    }

    pub(super) fn insert(&mut self, request: RequestId, waiting: Waiting) {
        match waiting.query.range.one_key() {
            Some(key) => {
                self.by_key.entry(Bytes::copy_from_slice(key)).or_default().insert(request);
            }
            None => {
                self.ranges.entry(bounds_of(&waiting.query.range)).or_default().insert(request);
            }
        }
        self.bytes += waiting.query.range.bytes() as u64;
        self.by_deadline.insert((waiting.deadline, request));
        self.waiting.insert(request, waiting);
    }

    pub(super) fn take(&mut self, request: RequestId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&request)?;
        self.by_deadline.remove(&(waiting.deadline, request));
        self.bytes -= waiting.query.range.bytes() as u64;
        match waiting.query.range.one_key() {
            Some(key) => {
                if let Some(others) = self.by_key.get_mut(key) {
                    others.remove(&request);
                    if others.is_empty() {
                        self.by_key.remove(key);
                    }
                }
            }
            None => {
                let bounds = bounds_of(&waiting.query.range);
                if let Some(others) = self.ranges.get_mut(&bounds) {
                    others.remove(&request);
                    if others.is_empty() {
                        self.ranges.remove(&bounds);
                    }
                }
            }
        }
        Some(waiting)
    }

    /// All that wait, to be failed.
    pub(super) fn give_up(&mut self) -> Vec<RequestId> {
        core::mem::take(self).waiting.into_keys().collect()
    }

    /// Those whose time is up, and where each goes on.
    pub(super) fn expire(&mut self, now: Time, newest: Revision) -> Vec<(RequestId, Revision)> {
        let mut expired = Vec::new();
        while let Some((at, request)) = self.by_deadline.first().copied()
            && at <= now
        {
            if let Some(waiting) = self.take(request) {
                expired.push((request, waiting.query.from.max(newest.next())));
            }
        }
        expired
    }

    /// Those that may not be told any more, if the rules have changed since they were judged.
    pub(super) fn denied(&mut self, store: &Store) -> Vec<(RequestId, Denial)> {
        let revision = store.security().revision();
        if core::mem::replace(&mut self.judged, revision) == revision {
            return Vec::new();
        }
        let judged = self.waiting.iter().filter_map(|(request, one)| {
            let denial = store.judge_changes(one.by.as_ref(), &one.query.range).err()?;
            Some((*request, denial))
        });
        let denied: Vec<(RequestId, Denial)> = judged.collect();
        for (request, _) in &denied {
            self.take(*request);
        }
        denied
    }

    /// Those for which something may have changed from a revision on, which was not looked at
    /// before.
    pub(super) fn touched(&mut self, store: &Store, from: Revision) -> Vec<RequestId> {
        self.last_served_revision = store.revision();
        if self.waiting.is_empty() || from > store.revision() {
            return Vec::new();
        }
        let mut touched = BTreeSet::new();
        let mut keys: Vec<&[u8]> = Vec::new();
        let complete = store.visit_changed_keys(from, &mut |key| {
            touched.extend(self.by_key.get(key).into_iter().flatten().copied());
            if !self.ranges.is_empty() {
                keys.push(key);
            }
        });
        if !complete {
            // Some of it has been compacted already. A key that is as it was is nobody's concern.
            let is_same =
                |one: &Waiting| one.query.range.one_key().is_some_and(|key| store.is_unchanged(key, from));
            let others = self.waiting.iter().filter(|(_, one)| !is_same(one));
            return others.map(|(request, _)| *request).collect();
        }
        keys.sort_unstable();
        let mut looks = 0;
        touched.extend(self.ranges_with(&keys, &mut looks));
        touched.into_iter().collect()
    }

    /// Those whose ranges hold one of these keys, which ascend: each range is looked for among the
    /// keys, and not each key among the ranges. `looks` grows by how many keys it looks at.
    fn ranges_with(&self, keys: &[&[u8]], looks: &mut usize) -> Vec<RequestId> {
        let Some(last) = keys.last() else { return Vec::new() };
        let mut found = Vec::new();
        for ((start, end), requests) in self.ranges.iter().take_while(|((start, _), _)| start <= last) {
            let first = keys.partition_point(|key| {
                *looks += 1;
                *key < &start[..]
            });
            let is_in = |key: &&[u8]| end.as_ref().is_none_or(|end| *key < &end[..]);
            if keys.get(first).is_some_and(is_in) {
                found.extend(requests);
            }
        }
        found
    }
}

fn bounds_of(range: &KeyRange) -> Bounds {
    (range.start.clone(), range.end.clone())
}

#[cfg(test)]
mod tests;
