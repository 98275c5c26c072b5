//! Reads: a range as it is or was, and what changed in it.

use crate::kv::history::{Change, ChangeId};
use crate::kv::leaf::VersionedRef;
use crate::kv::query::{
    Changes, ChangesQuery, Detail, Event, Found, PAGE_BYTES_MAX, PAGE_KEYS_MAX, Query, QueryAnswer,
    RangePage, RangeQuery, ReadError, RevisionChanges,
};
use crate::kv::store::Store;
use crate::kv::types::{KeyRange, KeyValue, Revision, successor_of_prefix};
use alloc::vec::Vec;
use bytes::Bytes;

/// A read of the past, or of what changed, looks at no more changes than this before it answers
/// with what it has.
const LOOKS_MAX: usize = 20_000;

/// What several reads may still answer together. Each also has a share, so that the first one does
/// not take all of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadRoom {
    /// Bytes of keys and values: a read that has some left answers one key, however large.
    bytes: usize,
    /// Keys and prefixes.
    keys: usize,
    among: usize,
}

impl ReadRoom {
    /// For so many reads: together they answer no more than one page.
    pub(super) fn new(among: usize) -> Self {
        Self { bytes: PAGE_BYTES_MAX, keys: PAGE_KEYS_MAX, among: among.max(1) }
    }
}

impl Store {
    /// Whether the store can be read as of `at`.
    ///
    /// # Errors
    /// [`ReadError`] if not.
    pub fn check_revision(&self, at: Revision) -> Result<(), ReadError> {
        if at < self.compacted {
            Err(ReadError::Compacted(self.compacted))
        } else if at > self.revision {
            Err(ReadError::Future(self.revision))
        } else {
            Ok(())
        }
    }

    /// Answers a query.
    #[must_use]
    pub fn answer(&self, query: &Query) -> QueryAnswer {
        let found = match query {
            Query::Key(key) => Found::Key(self.get(key)),
            Query::Range(query) => Found::Range(self.range(query)),
            Query::Lease(id) => Found::Lease(self.lease(*id)),
            Query::Leases(from, limit) => {
                Found::Leases(self.leases(*from).take((*limit).min(PAGE_KEYS_MAX)).collect())
            }
            Query::LeaseKeys(id, start, limit) => {
                let most = ((*limit).min(PAGE_KEYS_MAX), PAGE_BYTES_MAX);
                let (keys, next) = self.leases.page_of_keys(*id, start, most);
                Found::LeaseKeys { keys, next }
            }
            Query::Settings => Found::Settings(*self.settings()),
            Query::Security => Found::Security(self.security.clone()),
            Query::Permission(_) => Found::Permitted,
        };
        QueryAnswer { revision: self.revision, found }
    }

    /// A page of a range. Its work is bounded: where a page ends, [`RangePage::next`] says where
    /// the next one begins.
    ///
    /// # Errors
    /// [`ReadError`] if the revision that is asked for is not there.
    pub fn range(&self, query: &RangeQuery) -> Result<RangePage, ReadError> {
        self.range_within(query, &mut ReadRoom::new(1))
    }

    /// The same for one of several reads.
    pub(super) fn range_within(
        &self,
        query: &RangeQuery,
        room: &mut ReadRoom,
    ) -> Result<RangePage, ReadError> {
        let at = query.at.filter(|at| *at != self.revision);
        if let Some(at) = at {
            self.check_revision(at)?;
        }
        let wants_count = query.count || query.detail == Detail::Count;
        let count = wants_count.then(|| self.count_at(&query.range, at));
        let limit = if query.limit == 0 { PAGE_KEYS_MAX } else { query.limit };
        let mut page = Page {
            query,
            page: RangePage { revision: self.revision, count, ..RangePage::default() },
            bytes: 0,
            looks: 0,
            bytes_max: room.bytes.min((PAGE_BYTES_MAX / room.among).max(1)),
            keys_max: room.keys.min(limit),
            looks_max: (LOOKS_MAX / room.among).max(1),
        };
        if query.detail != Detail::Count {
            self.fill(&mut page, at);
        }
        room.bytes = room.bytes.saturating_sub(page.bytes);
        room.keys -= page.page.kvs.len() + page.page.prefixes.len();
        Ok(page.page)
    }

    /// What changed in a range, from a revision on, in whole revisions. Its work is bounded:
    /// [`Changes::next`] says where to go on.
    ///
    /// # Errors
    /// [`ReadError::Compacted`] with the first revision that is there, if that is a later one.
    pub fn changes(&self, query: &ChangesQuery) -> Result<Changes, ReadError> {
        self.changes_by(query, LOOKS_MAX, &mut 0)
    }

    /// The same, if that is little work: `looks` grows by how many changes are looked at, which are
    /// about `looks_max` at most. `None`: it is more, and for somebody who has time
    /// ([`Self::past_changes`]).
    pub fn changes_near(
        &self,
        query: &ChangesQuery,
        looks_max: usize,
        looks: &mut usize,
    ) -> Option<Result<Changes, ReadError>> {
        // Each revision takes two looks, unless it is known that there is nothing to see.
        let least = self.revision.0.saturating_sub(query.from.0).saturating_mul(2);
        if least > looks_max as u64 && query.from > self.compacted && !self.is_as_it_was(query) {
            return None;
        }
        match self.changes_by(query, looks_max, looks) {
            Ok(changes) if changes.revisions.is_empty() && changes.next <= self.revision => None,
            answer => Some(answer),
        }
    }

    /// The state as it is, with a question what changed: for somebody who has time.
    #[must_use]
    pub fn past_changes(&self, query: &ChangesQuery) -> PastChanges {
        PastChanges { store: self.clone(), query: query.clone() }
    }

    /// Whether the question is about one key, which has not changed since.
    fn is_as_it_was(&self, query: &ChangesQuery) -> bool {
        let unchanged = |key: &Bytes| self.newest(key).is_none_or(|newest| newest.revision < query.from);
        query.range.one_key().is_some_and(unchanged)
    }

    fn changes_by(
        &self,
        query: &ChangesQuery,
        looks_max: usize,
        looks: &mut usize,
    ) -> Result<Changes, ReadError> {
        if query.from <= self.compacted && self.compacted > Revision(0) {
            return Err(ReadError::Compacted(self.compacted.next()));
        }
        let mut changes = Changes { revisions: Vec::new(), next: query.from };
        // A key alone is asked for most often: it knows when it changed last.
        if self.is_as_it_was(query) {
            changes.next = query.from.max(self.revision.next());
            return Ok(changes);
        }
        let (mut bytes, end) = (0, looks.saturating_add(looks_max));
        while changes.next <= self.revision && bytes < PAGE_BYTES_MAX && *looks < end {
            let revision = changes.next;
            *looks += 1;
            let record = self.history.record(revision).within(&query.range, looks);
            let events: Vec<Event> =
                record.filter(|change| query.wants(change)).map(|change| query.event(&change)).collect();
            if !events.is_empty() {
                bytes += events.iter().map(Event::bytes).sum::<usize>();
                changes.revisions.push(RevisionChanges { revision, events });
            }
            changes.next = revision.next();
        }
        Ok(changes)
    }

    /// Shows every key that changed from a revision on. `false`: some of that has been compacted.
    pub fn visit_changed_keys<'s>(&'s self, from: Revision, visit: &mut dyn FnMut(&'s [u8])) -> bool {
        if from <= self.compacted {
            return false;
        }
        let mut revision = from;
        while revision <= self.revision {
            self.history.record(revision).for_each(|change| visit(change.key));
            revision = revision.next();
        }
        true
    }

    /// Whether a key exists that was not changed from a revision on, even if what changed then has
    /// been compacted.
    #[must_use]
    pub fn is_unchanged(&self, key: &[u8], from: Revision) -> bool {
        self.live.get(key).is_some_and(|found| found.mod_revision < from)
    }

    /// The state as it is, to be read at an earlier revision, if that is what a query asks for. How
    /// much work that is depends on how much has changed since: it is for somebody who has time.
    #[must_use]
    pub fn past_read(&self, query: &Query) -> Option<PastRead> {
        let Query::Range(query) = query else { return None };
        let is_past = query.at.is_some_and(|at| at < self.revision && at >= self.compacted);
        is_past.then(|| PastRead { store: self.clone(), query: query.clone() })
    }

    fn fill(&self, page: &mut Page<'_>, at: Option<Revision>) {
        let range = &page.query.range;
        let mut start =
            page.query.resume.as_ref().map_or(&range.start, |resume| resume.max(&range.start)).clone();
        loop {
            let skip = match at {
                None => self.fill_from(page, &start),
                Some(at) => self.fill_from_at(page, &start, at),
            };
            match skip {
                // Everything that begins with this prefix has been gathered.
                Some(prefix) => match successor_of_prefix(&prefix) {
                    Some(after) => start = after,
                    None => return,
                },
                None => return,
            }
        }
    }

    /// Adds the keys as they are, from `start` on; `Some`: the prefix that is to be skipped.
    fn fill_from(&self, page: &mut Page<'_>, start: &[u8]) -> Option<Bytes> {
        let mut cursor = self.live.cursor(start);
        while let Some((key, found)) = cursor.next()
            && page.query.range.contains(key)
            && page.goes_on(key)
        {
            match page.add(key, Some(found)) {
                Step::On => {}
                Step::Skip(prefix) => return Some(prefix),
                Step::Full => break,
            }
        }
        None
    }

    /// The same as of a past revision: the keys that exist and those that do not exist any more,
    /// side by side, each as it was.
    fn fill_from_at(&self, page: &mut Page<'_>, start: &[u8], at: Revision) -> Option<Bytes> {
        let (mut lives, mut graves) = (self.live.cursor(start), self.graves.cursor(start));
        let mut live = lives.next().map(|(key, found)| (key.to_vec(), found));
        let mut grave = graves.next().map(|(key, found)| (key.to_vec(), found));
        loop {
            let is_live = match (&live, &grave) {
                (None, None) => return None,
                (Some((one, _)), Some((other, _))) => one < other,
                (one, _) => one.is_some(),
            };
            let Some((key, newest)) = (if is_live { &live } else { &grave }) else { return None };
            if !page.query.range.contains(key) || !page.goes_on(key) {
                return None;
            }
            let newest = ChangeId { revision: newest.mod_revision, place: newest.place };
            let found = if newest.revision <= at && is_live {
                live.as_ref().map(|(_, found)| *found)
            } else {
                self.walk_back(key, newest, at, &mut page.looks)
            };
            match page.add(key, found) {
                Step::On => {}
                Step::Skip(prefix) => return Some(prefix),
                Step::Full => return None,
            }
            if is_live {
                live = lives.next().map(|(key, found)| (key.to_vec(), found));
            } else {
                grave = graves.next().map(|(key, found)| (key.to_vec(), found));
            }
        }
    }

    /// What a key was at a revision, from its newest change backwards.
    fn walk_back(
        &self,
        key: &[u8],
        newest: ChangeId,
        at: Revision,
        looks: &mut usize,
    ) -> Option<VersionedRef<'_>> {
        let mut id = newest;
        let mut later: Option<Change<'_>> = None;
        while id.revision > at {
            *looks += 1;
            let change = self.history.change(id)?;
            debug_assert_eq!(change.key, key, "a change names the one before it of the same key");
            id = change.before()?;
            later = Some(change);
        }
        later?.was
    }

    /// The newest change of a key that the store knows.
    fn newest(&self, key: &[u8]) -> Option<ChangeId> {
        let found = self.live.get(key).or_else(|| self.graves.get(key))?;
        Some(ChangeId { revision: found.mod_revision, place: found.place })
    }

    /// How many keys a range held.
    fn count_at(&self, range: &KeyRange, at: Option<Revision>) -> u64 {
        let mut count = self.count(range);
        let Some(at) = at else { return count };
        let mut revision = self.revision;
        while revision > at {
            let mut looks = 0;
            for change in self.history.record(revision).within(range, &mut looks) {
                match (change.was, change.now) {
                    (None, Some(_)) => count = count.saturating_sub(1),
                    (Some(_), None) => count += 1,
                    _ => {}
                }
            }
            revision.0 -= 1;
        }
        count
    }
}

/// A read of the past, with the state that it reads: a capture.
#[derive(Clone, Debug)]
pub struct PastRead {
    store: Store,
    query: RangeQuery,
}

impl PastRead {
    /// The page of the range, as of that revision.
    #[must_use]
    pub fn answer(&self) -> QueryAnswer {
        self.store.answer(&Query::Range(self.query.clone()))
    }
}

impl PartialEq for PastRead {
    fn eq(&self, other: &Self) -> bool {
        self.query == other.query && self.store.state_hash() == other.store.state_hash()
    }
}

impl Eq for PastRead {}

/// A question what changed, with the state that it is asked of: a capture.
#[derive(Clone, Debug)]
pub struct PastChanges {
    store: Store,
    query: ChangesQuery,
}

impl PastChanges {
    /// What changed.
    ///
    /// # Errors
    /// As of [`Store::changes`].
    pub fn answer(&self) -> Result<Changes, ReadError> {
        self.store.changes(&self.query)
    }
}

impl PartialEq for PastChanges {
    fn eq(&self, other: &Self) -> bool {
        self.query == other.query && self.store.state_hash() == other.store.state_hash()
    }
}

impl Eq for PastChanges {}

/// A page that is being filled.
struct Page<'q> {
    query: &'q RangeQuery,
    page: RangePage,
    bytes: usize,
    /// How many keys and changes have been looked at.
    looks: usize,
    bytes_max: usize,
    /// Keys and prefixes on a page, at most.
    keys_max: usize,
    looks_max: usize,
}

/// How a walk over keys goes on.
enum Step {
    On,
    /// Behind all keys with this prefix.
    Skip(Bytes),
    Full,
}

impl Page<'_> {
    /// Whether it has looked at less than it may; if not, the next page begins with this key. It is
    /// asked before a key is looked at: the first one of a page always is, however far its changes
    /// go back.
    fn goes_on(&mut self, key: &[u8]) -> bool {
        let goes_on = self.looks < self.looks_max;
        if !goes_on {
            self.page.next = Some(Bytes::copy_from_slice(key));
        }
        goes_on
    }

    /// Takes in the next key of the range, as it was found.
    fn add(&mut self, key: &[u8], found: Option<VersionedRef<'_>>) -> Step {
        let has = self.page.kvs.len() + self.page.prefixes.len();
        self.looks += 1;
        let Some(found) = found else { return Step::On };
        if self.bytes >= self.bytes_max || has >= self.keys_max {
            self.page.next = Some(Bytes::copy_from_slice(key));
            return Step::Full;
        }
        if let Some(prefix) = self.query.gathered(key) {
            let prefix = Bytes::copy_from_slice(prefix);
            self.bytes += prefix.len();
            self.page.prefixes.push(prefix.clone());
            return Step::Skip(prefix);
        }
        let kv = match self.query.detail {
            Detail::Values => found.to_key_value(key),
            Detail::Keys | Detail::Count => found.to_key(key),
        };
        self.bytes += kv.bytes();
        self.page.kvs.push(kv);
        Step::On
    }
}

impl RangeQuery {
    /// The prefix that stands for this key, if the delimiter gathers it.
    fn gathered<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let delimiter = self.delimiter.as_ref().filter(|delimiter| !delimiter.is_empty())?;
        let behind = if key.starts_with(&self.range.start) { self.range.start.len() } else { 0 };
        let at = key[behind..].windows(delimiter.len()).position(|part| part == &delimiter[..])?;
        Some(&key[..behind + at + delimiter.len()])
    }
}

impl ChangesQuery {
    fn wants(&self, change: &Change<'_>) -> bool {
        if change.now.is_some() { self.puts } else { self.deletions }
    }

    fn event(&self, change: &Change<'_>) -> Event {
        let now = change.now.map(|now| now.to_key_value(change.key));
        let previous = change.was.filter(|_| self.previous).map(|was| was.to_key_value(change.key));
        Event { key: Bytes::copy_from_slice(change.key), now, previous }
    }
}

impl Event {
    /// Bytes of its keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |kv: &Option<KeyValue>| kv.as_ref().map_or(0, KeyValue::bytes);
        self.key.len() + of(&self.now) + of(&self.previous)
    }
}
