//! What changed, revision by revision: each change with what the key is now, and what it was.
//!
//! It answers two questions. What changed from a revision on (a watch)? And what was a key at a
//! revision? Each change of a key names the change before it, so that the second question walks
//! back along one key's changes.
//!
//! The records are packed into chunks, and whole chunks are forgotten, the oldest first. A capture
//! shares all chunks; only the newest one, which is written to, is copied after a capture.
//!
//! ```text
//! record  = 2 × changes + ascending (number),
//!           offset of each change (u32 each; only if there are several), change …
//! change  = flags (u8), key, [was], [now], [link]
//! key     = length (number), bytes
//! was     = create_revision, mod_revision − create_revision, place, version, lease (numbers), value
//! now     = create_revision, version, lease (numbers), value
//! value   = length (number), bytes; a large one: its place among the chunk's large values (number)
//! link    = revision, place (numbers) of the deletion before, if the key did not exist
//! ```
//! Ascending is 1 if each key is greater than the one before, as where a range was deleted, and 0
//! if not. So what is wanted of a record of many keys is found without looking at all of them. A
//! number has seven bits in each byte, the lowest first; the eighth bit says that more follow.

use crate::kv::leaf::{PACKED_VALUE_BYTES_MAX, VersionedRef, digest};
use crate::kv::packed::{number, put_number, take};
use crate::kv::types::{KeyRange, LeaseId, Revision};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// A chunk takes no further record once it has this many bytes, or a part of the limit of the whole
/// history if that is less.
const CHUNK_BYTES: usize = 32 << 10;
/// A chunk takes at most one in this many of the bytes that the whole history may have.
const CHUNKS: u64 = 32;
/// A record that would have more bytes, or more than the limit of the whole history, is not kept,
/// and neither is what was before it. Large values do not count here.
const RECORD_BYTES_MAX: u64 = 1 << 30;
/// No chunk has more bytes than this: a chunk that was not full, and one large record.
pub(super) const CHUNK_BYTES_MAX: usize = (1 << 30) + (2 << 20);
/// No chunk has more records: each takes some bytes.
pub(super) const RECORDS_MAX: usize = CHUNK_BYTES;
/// What a chunk takes beside its records.
const CHUNK_OVERHEAD: u64 = 256;

const NOW: u8 = 1;
const WAS: u8 = 2;
const NOW_IS_LARGE: u8 = 4;
const WAS_IS_LARGE: u8 = 8;
const LINK: u8 = 16;

/// Names one change: its revision, and its place among the changes of that revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChangeId {
    pub(super) revision: Revision,
    pub(super) place: u32,
}

/// One key's change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'a> {
    pub(super) key: &'a [u8],
    /// What the key is from this revision on; `None`: it was deleted.
    pub(super) now: Option<VersionedRef<'a>>,
    /// What it was; `None`: it did not exist.
    pub(super) was: Option<VersionedRef<'a>>,
    /// If it did not exist: the deletion before, if that is in the history.
    pub(super) link: Option<ChangeId>,
}

impl Change<'_> {
    /// What it adds to the state hash, at a revision. `now` and `was` are what those versions add
    /// while they exist.
    pub(super) fn digest(&self, revision: Revision, now: Option<u128>, was: Option<u128>) -> u128 {
        let link = self.link.map_or((0, 0), |link| (link.revision.0, link.place));
        let mut words = [0; 52];
        words[..8].copy_from_slice(&revision.0.to_le_bytes());
        words[8..24].copy_from_slice(&now.unwrap_or(1).to_le_bytes());
        words[24..40].copy_from_slice(&was.unwrap_or(1).to_le_bytes());
        words[40..48].copy_from_slice(&link.0.to_le_bytes());
        words[48..].copy_from_slice(&link.1.to_le_bytes());
        xxh3_128(&words)
    }

    /// The change of this key before this one.
    pub(super) fn before(&self) -> Option<ChangeId> {
        let was = self.was.map(|was| ChangeId { revision: was.mod_revision, place: was.place });
        was.or(self.link)
    }
}

/// The records since the oldest chunk. `clone` is O(1).
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    chunks: Arc<VecDeque<Arc<Chunk>>>,
    /// The record that is being made. Empty between commands.
    staged: Staged,
    /// What all chunks take.
    bytes: u64,
    /// Sum of the changes' hashes.
    digests: u128,
}

/// Records of revisions that follow each other.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// The revision of the first record.
    pub(super) first: Revision,
    /// Where each record ends in `bytes`.
    pub(super) ends: Vec<u32>,
    pub(super) bytes: Vec<u8>,
    /// Values that have an allocation of their own, shared with the store.
    pub(super) large: Vec<Bytes>,
    large_bytes: u64,
    deletions: u32,
    digests: u128,
}

#[derive(Clone, Debug, Default)]
struct Staged {
    bytes: Vec<u8>,
    /// Where each change begins in `bytes`.
    starts: Vec<u32>,
    /// Where the key of the last change is in `bytes`.
    last_key: core::ops::Range<usize>,
    /// A key is not greater than the one before.
    is_unordered: bool,
    large: Vec<Bytes>,
    deletions: u32,
    /// Sum of the changes' hashes.
    digests: u128,
    /// It takes more than the whole history may; nothing of it is kept.
    is_too_large: bool,
}

impl History {
    /// What it takes, bytes.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hash of all that is in it.
    pub(super) const fn digests(&self) -> u128 {
        self.digests
    }

    /// The chunks, the oldest first.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &Arc<Chunk>> + '_ {
        self.chunks.iter()
    }

    /// The revision of the oldest record.
    pub(super) fn first(&self) -> Option<Revision> {
        self.chunks.front().map(|chunk| chunk.first)
    }

    /// Adds a change to the record that is being made, whose history may take `limit` bytes.
    /// `digest` is what the change adds to the state hash.
    pub(super) fn stage(&mut self, change: &Change<'_>, digest: u128, limit: u64) {
        let staged = &mut self.staged;
        staged.digests = staged.digests.wrapping_add(digest);
        staged.deletions += u32::from(change.now.is_none());
        if staged.bytes.len() as u64 > limit.min(RECORD_BYTES_MAX) {
            staged.is_too_large = true;
            staged.bytes = Vec::new();
            staged.large = Vec::new();
        }
        if staged.is_too_large {
            return;
        }
        let in_chunk = match self.chunks.back() {
            Some(chunk) if chunk.takes_more(limit) => chunk.large.len(),
            _ => 0,
        };
        if !staged.starts.is_empty() && staged.bytes[staged.last_key.clone()] >= *change.key {
            staged.is_unordered = true;
        }
        staged.starts.push(u32::try_from(staged.bytes.len()).expect("a record is far below 4 GiB"));
        staged.put(change, in_chunk);
    }

    /// Ends the record: it is that of `revision`. Whether it is kept; if not, it is larger than all
    /// of the history may be.
    pub(super) fn end_record(&mut self, revision: Revision, limit: u64) -> bool {
        if self.staged.is_too_large {
            self.staged = Staged::default();
            return false;
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        if !chunks.back().is_some_and(|chunk| chunk.takes_more(limit)) {
            if let Some(full) = chunks.back_mut() {
                // Captures share it from now on: it is never written to again.
                Arc::make_mut(full).fit();
            }
            let mut chunk = Chunk::new(revision);
            chunk.bytes.reserve(usize::try_from(Chunk::bytes_when_full(limit)).unwrap_or(0) + 1024);
            self.bytes += CHUNK_OVERHEAD;
            self.digests = self.digests.wrapping_add(chunk.digests);
            chunks.push_back(Arc::new(chunk));
        }
        let chunk = Arc::make_mut(chunks.back_mut().expect("there is one now"));
        let before = chunk.cost();
        let staged = &mut self.staged;
        put_number(&mut chunk.bytes, 2 * staged.starts.len() as u64 + u64::from(!staged.is_unordered));
        if staged.starts.len() > 1 {
            for start in &staged.starts {
                chunk.bytes.extend_from_slice(&start.to_le_bytes());
            }
        }
        chunk.bytes.extend_from_slice(&staged.bytes);
        chunk.ends.push(u32::try_from(chunk.bytes.len()).expect("a chunk is far below 4 GiB"));
        chunk.deletions += staged.deletions;
        chunk.large_bytes += staged.large.iter().map(|value| value.len() as u64).sum::<u64>();
        chunk.large.append(&mut staged.large);
        chunk.digests = chunk.digests.wrapping_add(staged.digests);
        self.digests = self.digests.wrapping_add(staged.digests);
        self.bytes += chunk.cost() - before;
        if staged.bytes.capacity() > 4 * CHUNK_BYTES {
            staged.bytes = Vec::new();
        }
        staged.bytes.clear();
        staged.starts.clear();
        (staged.deletions, staged.digests, staged.is_unordered) = (0, 0, false);
        true
    }

    /// Forgets the oldest chunk.
    pub(super) fn drop_oldest(&mut self) -> Option<Arc<Chunk>> {
        let chunk = Arc::make_mut(&mut self.chunks).pop_front()?;
        self.bytes -= chunk.cost() + CHUNK_OVERHEAD;
        self.digests = self.digests.wrapping_sub(chunk.digests);
        Some(chunk)
    }

    /// Forgets the oldest chunk if it ends with `revision` or before.
    pub(super) fn drop_through(&mut self, revision: Revision) -> Option<Arc<Chunk>> {
        let is_old = self.chunks.front().is_some_and(|chunk| chunk.last() <= revision);
        if is_old { self.drop_oldest() } else { None }
    }

    /// The changes of one revision, in their order; none if it is not in the history.
    pub(super) fn record(&self, revision: Revision) -> Record<'_> {
        let after = self.chunks.partition_point(|chunk| chunk.first <= revision);
        let chunk = after.checked_sub(1).map(|at| &*self.chunks[at]);
        let record = chunk.and_then(|chunk| {
            let at = usize::try_from(revision.0 - chunk.first.0).ok()?;
            chunk.record(at, revision)
        });
        record.unwrap_or_default()
    }

    /// One change, if it is in the history.
    pub(super) fn change(&self, id: ChangeId) -> Option<Change<'_>> {
        self.record(id.revision).at(id.place)
    }

    /// Puts a whole chunk back, behind those before. `false`: it does not follow them, or its
    /// records make no sense.
    pub(super) fn push_chunk(&mut self, mut chunk: Chunk) -> bool {
        let follows = self.chunks.back().is_none_or(|before| before.last().next() == chunk.first);
        if !follows || chunk.ends.is_empty() || !chunk.verify() {
            return false;
        }
        chunk.fit();
        self.bytes += chunk.cost() + CHUNK_OVERHEAD;
        self.digests = self.digests.wrapping_add(chunk.digests);
        Arc::make_mut(&mut self.chunks).push_back(Arc::new(chunk));
        true
    }
}

impl Chunk {
    /// One without records.
    pub(super) fn new(first: Revision) -> Self {
        Self {
            first,
            ends: Vec::new(),
            bytes: Vec::new(),
            large: Vec::new(),
            large_bytes: 0,
            deletions: 0,
            // Where one chunk ends and the next begins decides what is forgotten at once.
            digests: xxh3_128(&[&b"chunk"[..], &first.0.to_le_bytes()].concat()),
        }
    }

    /// The revision of the last record.
    pub(super) const fn last(&self) -> Revision {
        Revision(self.first.0 + self.ends.len() as u64 - 1)
    }

    /// All its records.
    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> + '_ {
        (0..self.ends.len()).filter_map(|at| self.record(at, Revision(self.first.0 + at as u64)))
    }

    /// The keys that were deleted, and when.
    pub(super) fn deletions(&self) -> impl Iterator<Item = (&[u8], ChangeId)> + '_ {
        let records = (self.deletions > 0).then(|| self.records());
        records.into_iter().flatten().flat_map(|record| {
            let revision = record.revision;
            record.enumerate().filter(|(_, change)| change.now.is_none()).map(move |(place, change)| {
                let place = u32::try_from(place).unwrap_or(u32::MAX);
                (change.key, ChangeId { revision, place })
            })
        })
    }

    fn record(&self, at: usize, revision: Revision) -> Option<Record<'_>> {
        let end = *self.ends.get(at)? as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        let mut bytes = self.bytes.get(start..end)?;
        let head = number(&mut bytes)?;
        let (count, ascends) = (head / 2, head % 2 == 1);
        let table = if count > 1 { usize::try_from(count).ok()?.checked_mul(4)? } else { 0 };
        let (starts, bytes) = bytes.split_at_checked(table)?;
        Some(Record { chunk: Some(self), revision, count, ascends, starts, bytes, next: 0, rest: bytes })
    }

    const fn cost(&self) -> u64 {
        self.bytes.len() as u64 + self.large_bytes + 4 * self.ends.len() as u64
    }

    fn takes_more(&self, limit: u64) -> bool {
        self.cost() < Self::bytes_when_full(limit)
    }

    /// With this many bytes a chunk takes no further record.
    fn bytes_when_full(limit: u64) -> u64 {
        (limit / CHUNKS).min(CHUNK_BYTES as u64)
    }

    fn fit(&mut self) {
        self.ends.shrink_to_fit();
        self.bytes.shrink_to_fit();
        self.large.shrink_to_fit();
    }

    /// Reads everything, as bytes from outside; the sums become right.
    fn verify(&mut self) -> bool {
        let (mut deletions, mut digests) = (0, Self::new(self.first).digests);
        let mut start = 0;
        for (at, end) in self.ends.iter().enumerate() {
            let revision = Revision(self.first.0.saturating_add(at as u64));
            if start > *end {
                return false;
            }
            let Some(mut record) = self.record(at, revision) else { return false };
            let (count, mut last, mut ascends) = (record.count, &[][..], true);
            for place in 0..count {
                let Some(change) = record.next() else { return false };
                ascends &= last < change.key;
                last = change.key;
                let by_table = u32::try_from(place).ok().and_then(|place| record.at(place));
                let is_same = by_table.is_some_and(|same| core::ptr::eq(same.key, change.key));
                let exists = change.now.is_some() || change.was.is_some();
                if !is_same || change.key.is_empty() || !exists {
                    return false;
                }
                deletions += u32::from(change.now.is_none());
                let (now, was) = (
                    change.now.map(|now| digest(change.key, now)),
                    change.was.map(|was| digest(change.key, was)),
                );
                digests = digests.wrapping_add(change.digest(revision, now, was));
            }
            if count == 0 || !record.rest.is_empty() || record.ascends != ascends {
                return false;
            }
            start = *end;
        }
        self.large_bytes = self.large.iter().map(|value| value.len() as u64).sum();
        (self.deletions, self.digests) = (deletions, digests);
        start as usize == self.bytes.len()
    }
}

/// The changes of one revision.
#[derive(Clone, Debug, Default)]
pub(super) struct Record<'a> {
    chunk: Option<&'a Chunk>,
    pub(super) revision: Revision,
    count: u64,
    /// Each key is greater than the one before.
    ascends: bool,
    /// Where each change begins in `bytes`, if there are several.
    starts: &'a [u8],
    bytes: &'a [u8],
    next: u64,
    rest: &'a [u8],
}

impl<'a> Record<'a> {
    /// How many changes it has.
    pub(super) const fn len(&self) -> u64 {
        self.count
    }

    /// The changes of keys in a range; `looks` grows by how many it looks at.
    pub(super) fn within(
        mut self,
        range: &'a KeyRange,
        looks: &'a mut usize,
    ) -> impl Iterator<Item = Change<'a>> + 'a {
        let mut is_over = false;
        if self.ascends {
            *looks += self.skip_to(&range.start);
        }
        core::iter::from_fn(move || {
            while !is_over && let Some(change) = self.next() {
                *looks += 1;
                if range.contains(change.key) {
                    return Some(change);
                }
                is_over = self.ascends && change.key > &range.start[..];
            }
            None
        })
    }

    /// Goes on at the first key that is not before `start`, where the keys ascend. How many changes
    /// that took to look at.
    fn skip_to(&mut self, start: &[u8]) -> usize {
        let (mut low, mut high, mut looks) = (self.next, self.count, 0);
        while low < high {
            let middle = low.midpoint(high);
            let key = u32::try_from(middle).ok().and_then(|place| self.at(place)).map(|change| change.key);
            looks += 1;
            if key.is_some_and(|key| key < start) { low = middle + 1 } else { high = middle }
        }
        self.rest = self.start_of(low).and_then(|at| self.bytes.get(at..)).unwrap_or_default();
        self.next = low;
        looks
    }

    /// Where a change begins in `bytes`. `None`: there are not so many.
    fn start_of(&self, place: u64) -> Option<usize> {
        if place >= self.count {
            return None;
        }
        let at = usize::try_from(place).ok()? * 4;
        match self.starts.get(at..at + 4) {
            Some(start) => Some(u32::from_le_bytes(start.try_into().ok()?) as usize),
            None => Some(0),
        }
    }

    /// The change at a place.
    pub(super) fn at(&self, place: u32) -> Option<Change<'a>> {
        let mut bytes = self.bytes.get(self.start_of(u64::from(place))?..)?;
        take_change(self.chunk?, self.revision, place, &mut bytes)
    }
}

impl<'a> Iterator for Record<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        if self.next >= self.count {
            return None;
        }
        let place = u32::try_from(self.next).ok()?;
        self.next += 1;
        take_change(self.chunk?, self.revision, place, &mut self.rest)
    }
}

impl Staged {
    fn put(&mut self, change: &Change<'_>, in_chunk: usize) {
        let is_large = |value: &[u8]| value.len() > PACKED_VALUE_BYTES_MAX;
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(change.now.is_some(), NOW)
            | flag(change.was.is_some(), WAS)
            | flag(change.now.is_some_and(|now| is_large(now.value)), NOW_IS_LARGE)
            | flag(change.was.is_some_and(|was| is_large(was.value)), WAS_IS_LARGE)
            | flag(change.link.is_some(), LINK);
        self.bytes.push(flags);
        self.number(change.key.len() as u64);
        self.last_key = self.bytes.len()..self.bytes.len() + change.key.len();
        self.bytes.extend_from_slice(change.key);
        if let Some(was) = change.was {
            self.number(was.create_revision.0);
            self.number(was.mod_revision.0 - was.create_revision.0);
            self.number(u64::from(was.place));
            self.number(was.version);
            self.number(was.lease.0);
            self.value(was, in_chunk);
        }
        if let Some(now) = change.now {
            self.number(now.create_revision.0);
            self.number(now.version);
            self.number(now.lease.0);
            self.value(now, in_chunk);
        }
        if let Some(link) = change.link {
            self.number(link.revision.0);
            self.number(u64::from(link.place));
        }
    }

    fn value(&mut self, versioned: VersionedRef<'_>, in_chunk: usize) {
        if versioned.value.len() > PACKED_VALUE_BYTES_MAX {
            self.number((in_chunk + self.large.len()) as u64);
            self.large.push(versioned.to_bytes());
        } else {
            self.number(versioned.value.len() as u64);
            self.bytes.extend_from_slice(versioned.value);
        }
    }

    fn number(&mut self, number: u64) {
        put_number(&mut self.bytes, number);
    }
}

/// Reads a change off the front. `None`: it makes no sense.
fn take_change<'a>(
    chunk: &'a Chunk,
    revision: Revision,
    place: u32,
    bytes: &mut &'a [u8],
) -> Option<Change<'a>> {
    let (&flags, rest) = bytes.split_first()?;
    *bytes = rest;
    let is_known = flags & !(NOW | WAS | NOW_IS_LARGE | WAS_IS_LARGE | LINK) == 0;
    let is_only = |large: u8, version: u8| flags & large == 0 || flags & version != 0;
    if !is_known || !is_only(NOW_IS_LARGE, NOW) || !is_only(WAS_IS_LARGE, WAS) {
        return None;
    }
    let length = number(bytes)?;
    let key = take(bytes, length)?;
    let mut was = None;
    if flags & WAS != 0 {
        let create = number(bytes)?;
        let modified = create.checked_add(number(bytes)?)?;
        let place = u32::try_from(number(bytes)?).ok()?;
        let version = number(bytes)?;
        let lease = LeaseId(number(bytes)?);
        let (value, shared) = value(chunk, flags & WAS_IS_LARGE != 0, bytes)?;
        if create == 0 || modified >= revision.0 || version == 0 {
            return None;
        }
        let (create_revision, mod_revision) = (Revision(create), Revision(modified));
        was = Some(VersionedRef { value, shared, create_revision, mod_revision, place, version, lease });
    }
    let mut now = None;
    if flags & NOW != 0 {
        let create_revision = Revision(number(bytes)?);
        let version = number(bytes)?;
        let lease = LeaseId(number(bytes)?);
        let (value, shared) = value(chunk, flags & NOW_IS_LARGE != 0, bytes)?;
        if create_revision.0 == 0 || create_revision > revision || version == 0 {
            return None;
        }
        let mod_revision = revision;
        now = Some(VersionedRef { value, shared, create_revision, mod_revision, place, version, lease });
    }
    let mut link = None;
    if flags & LINK != 0 {
        let before = Revision(number(bytes)?);
        let place = u32::try_from(number(bytes)?).ok()?;
        if was.is_some() || before >= revision {
            return None;
        }
        link = Some(ChangeId { revision: before, place });
    }
    Some(Change { key, now, was, link })
}

fn value<'a>(
    chunk: &'a Chunk,
    is_large: bool,
    bytes: &mut &'a [u8],
) -> Option<(&'a [u8], Option<&'a Bytes>)> {
    let number = number(bytes)?;
    if is_large {
        let shared = chunk.large.get(usize::try_from(number).ok()?)?;
        return (shared.len() > PACKED_VALUE_BYTES_MAX).then_some((&shared[..], Some(shared)));
    }
    let value = take(bytes, number)?;
    (value.len() <= PACKED_VALUE_BYTES_MAX).then_some((value, None))
}
