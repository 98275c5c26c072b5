//! Answers that are remembered: a client that repeats a command under the same idempotency key gets
//! the first answer again.
//!
//! An answer takes a small part of the limit at most, so that no client can push out all answers of
//! the others with a few commands. Of one that would take more, what was read is not kept. Denials
//! have a limit of their own: a client without a right pushes out nobody's answers.
//!
//! Of those that are forgotten one number stays: all of them were made at revisions below it. A
//! client that had seen a later revision before its first attempt can so be told apart from one
//! whose first attempt may have been answered. Denials do not count here: they did nothing.
//!
//! In a cluster of an old level answers have no revision, and nothing stays of one that is
//! forgotten. Those from the time when the level was raised have one.

use crate::codec::{DecodeError, Writer};
use crate::kv::command::{Outcome, Refusal, TxnResult};
use crate::kv::leaf::VersionedRef;
use crate::kv::query::RangePage;
use crate::kv::tree::Tree;
use crate::kv::types::Revision;
use alloc::vec::Vec;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// What an answer takes beside its key and its bytes.
pub(super) const ANSWER_OVERHEAD: u64 = 128;
/// Fingerprint, number and revision, before the outcome.
pub(super) const HEAD_BYTES: usize = 32;
/// The same without the revision.
pub(super) const UNDATED_HEAD_BYTES: usize = 24;
/// An outcome takes at most this many bytes here: enough for a transaction of the most steps, and
/// for one that looks at a key of the greatest length.
pub(super) const OUTCOME_BYTES_MAX: usize = 128 << 10;
/// An answer as it is kept takes at most this many bytes.
pub(super) const ANSWER_BYTES_MAX: usize = HEAD_BYTES + OUTCOME_BYTES_MAX;
/// Denials take at most this part of the limit, beside the other answers.
const DENIALS_SHARE: u64 = 16;

/// The answers, the oldest forgotten first. `clone` is O(1).
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    /// By idempotency key: fingerprint of the command, number of the answer, (if it is dated) the
    /// store's revision when it was made, encoded outcome.
    by_key: Tree,
    /// Those of commands that were carried out, or refused by what the state is.
    answers: Queue,
    /// Denials.
    denials: Queue,
    last_number: u64,
    /// Answers from this number on are dated. 0: none is, and nothing is known of forgotten ones.
    dated_from: u64,
    /// Every answer that is forgotten, denials apart, was made at a revision below this one. 0:
    /// none is. Never goes back.
    forgotten_below: Revision,
    digests: u128,
}

/// In which order answers are forgotten.
#[derive(Clone, Debug, Default)]
struct Queue {
    /// By number (big-endian): the idempotency key.
    by_number: Tree,
    bytes: u64,
}

/// An answer that is remembered.
#[derive(Debug)]
pub(super) struct Known {
    /// Fingerprint of the command that was answered.
    pub(super) fingerprint: u128,
    pub(super) outcome: Result<Outcome, DecodeError>,
}

impl Known {
    /// Whether it was denied.
    pub(super) const fn is_denial(&self) -> bool {
        matches!(self.outcome, Ok(Outcome::Refused(Refusal::Denied { .. })))
    }
}

impl Answers {
    /// What they take, bytes.
    pub(super) const fn bytes(&self) -> u64 {
        self.answers.bytes + self.denials.bytes
    }

    /// Hash of all of them.
    pub(super) fn digests(&self) -> u128 {
        let numbers = [self.last_number, self.dated_from, self.forgotten_below.0].map(u64::to_le_bytes);
        // A member of a release that dates none has the same hash.
        let known = if self.are_dated() { &numbers[..] } else { &numbers[..1] };
        self.digests.wrapping_add(xxh3_128(known.as_flattened()))
    }

    /// Whether answers that are made now are dated.
    pub(super) const fn are_dated(&self) -> bool {
        self.dated_from > 0
    }

    /// Dates those that are made from now on. All before were made below a revision.
    pub(super) const fn date(&mut self, below: Revision) {
        self.set_numbers(self.last_number, self.last_number + 1, below);
    }

    /// The number of the first one that is dated; 0: none is.
    pub(super) const fn dated_from(&self) -> u64 {
        self.dated_from
    }

    /// Every answer that is forgotten was made at a revision below this one.
    pub(super) const fn forgotten_below(&self) -> Revision {
        self.forgotten_below
    }

    /// Whether all answers that were made at this revision or later are remembered. Only where
    /// they are dated.
    pub(super) fn are_known_since(&self, since: Revision) -> bool {
        since >= self.forgotten_below
    }

    pub(super) const fn last_number(&self) -> u64 {
        self.last_number
    }

    /// The number of the oldest one that is remembered, denials apart.
    pub(super) fn oldest_number(&self) -> Option<u64> {
        let mut cursor = self.answers.by_number.cursor(&[]);
        let (number, _) = cursor.next()?;
        number.first_chunk().map(|number| u64::from_be_bytes(*number))
    }

    pub(super) const fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Known> {
        let found = self.by_key.get(key)?.to_bytes();
        let fingerprint = u128::from_le_bytes(*found.first_chunk().expect("every answer has a head"));
        Some(Known { fingerprint, outcome: Outcome::decode(found.slice(head_of(&found, self.dated_from)..)) })
    }

    /// Remembers an answer that was made at `revision`, in the place of the one that was, and
    /// forgets the oldest ones beyond `limit` bytes. One that has no room at all is forgotten at
    /// once, and pushes out no other.
    pub(super) fn remember(
        &mut self,
        key: &[u8],
        (fingerprint, outcome): (u128, &Outcome),
        revision: Revision,
        limit: u64,
    ) {
        let mut value = Vec::new();
        value.put_u128(fingerprint);
        value.put_u64(self.last_number + 1);
        if self.are_dated() {
            value.put_u64(revision.0);
        }
        let head = value.len();
        outcome.encode(&mut value);
        if value.len() > head + OUTCOME_BYTES_MAX {
            value.truncate(head);
            without_reads(outcome).encode(&mut value);
        }
        assert!(value.len() <= head + OUTCOME_BYTES_MAX, "without what was read, an answer is small");
        let limit_of_kind = if is_denial(&value[head..]) { limit / DENIALS_SHARE } else { limit };
        if cost(key, &value) > limit_of_kind {
            note_forgotten(&mut self.forgotten_below, self.dated_from, &value);
            return;
        }
        self.forget(key);
        self.last_number += 1;
        self.put_back(key, &value, revision);
        self.bound(limit);
    }

    fn forget(&mut self, key: &[u8]) {
        let Some(value) = self.by_key.get(key).map(|found| found.to_bytes()) else { return };
        let outcome = &value[head_of(&value, self.dated_from)..];
        let queue = if is_denial(outcome) { &mut self.denials } else { &mut self.answers };
        queue.by_number.remove(&number_in(&value, 16).to_be_bytes());
        queue.bytes -= cost(key, &value);
        self.digests = self.digests.wrapping_sub(digest(key, &value));
        note_forgotten(&mut self.forgotten_below, self.dated_from, &value);
        self.by_key.remove(key);
    }

    /// Forgets the oldest ones beyond `limit` bytes.
    pub(super) fn bound(&mut self, limit: u64) {
        let Self { by_key, answers, denials, digests, forgotten_below, dated_from, .. } = self;
        for (queue, limit) in [(answers, limit), (denials, limit / DENIALS_SHARE)] {
            while queue.bytes > limit
                && let Some((number, found)) = queue.by_number.cursor(&[]).next()
            {
                let (number, key) = (number.to_vec(), found.to_bytes());
                queue.by_number.remove(&number);
                if let Some(found) = by_key.get(&key) {
                    queue.bytes -= cost(&key, found.value);
                    *digests = digests.wrapping_sub(digest(&key, found.value));
                    note_forgotten(forgotten_below, *dated_from, found.value);
                    by_key.remove(&key);
                }
            }
        }
    }

    /// Puts an answer in as it was remembered, in a store of this revision. `false`: it makes no
    /// sense.
    pub(super) fn put_back(&mut self, key: &[u8], value: &[u8], revision: Revision) -> bool {
        if value.len() < UNDATED_HEAD_BYTES {
            return false;
        }
        let (number, head) = (number_in(value, 16), head_of(value, self.dated_from));
        let Some(outcome) = value.get(head..).filter(|outcome| outcome.len() <= OUTCOME_BYTES_MAX) else {
            return false;
        };
        let queue = if is_denial(outcome) { &mut self.denials } else { &mut self.answers };
        queue.bytes += cost(key, value);
        queue.by_number.set(&number.to_be_bytes(), &mut |_| VersionedRef::plain(key));
        self.digests = self.digests.wrapping_add(digest(key, value));
        self.by_key.set(key, &mut |_| VersionedRef::plain(value));
        let count = self.answers.by_number.len() + self.denials.by_number.len();
        let has_come = revision_of(value, self.dated_from).is_none_or(|made| made <= revision);
        self.by_key.len() == count && number <= self.last_number && has_come
    }

    /// Sets the number of the last answer, that of the first one that is dated (0: none is), and
    /// below which revision answers are forgotten; for a snapshot, before its answers.
    pub(super) const fn set_numbers(&mut self, last: u64, dated_from: u64, forgotten_below: Revision) {
        self.last_number = last;
        self.dated_from = dated_from;
        self.forgotten_below = forgotten_below;
    }

    /// The one whose idempotency key comes after `key`: as [`Self::put_back`] takes it.
    pub(super) fn after(&self, key: &[u8]) -> Option<(Vec<u8>, Bytes)> {
        // The first key behind another one is that with a zero behind it.
        let start = [key, &[0]].concat();
        let mut cursor = self.by_key.cursor(if key.is_empty() { key } else { &start });
        cursor.next().map(|(key, found)| (key.to_vec(), found.to_bytes()))
    }
}

/// An answer goes. A denial does not count: nothing was done. Nor does one that is not dated: it is
/// from before the level was raised, and all of that time count as forgotten.
fn note_forgotten(forgotten_below: &mut Revision, dated_from: u64, value: &[u8]) {
    let made = revision_of(value, dated_from).filter(|_| !is_denial(&value[HEAD_BYTES..]));
    if let Some(revision) = made {
        *forgotten_below = (*forgotten_below).max(revision.next());
    }
}

/// At which revision a kept answer was made, if it is dated.
fn revision_of(value: &[u8], dated_from: u64) -> Option<Revision> {
    (head_of(value, dated_from) == HEAD_BYTES).then(|| Revision(number_in(value, UNDATED_HEAD_BYTES)))
}

/// How many bytes of a kept answer come before its outcome.
fn head_of(value: &[u8], dated_from: u64) -> usize {
    let is_dated = dated_from > 0 && number_in(value, 16) >= dated_from;
    if is_dated { HEAD_BYTES } else { UNDATED_HEAD_BYTES }
}

/// A number in the head of a kept answer.
fn number_in(value: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*value[at..].first_chunk().expect("every answer has a head"))
}

/// Whether the outcome of a kept answer is a denial.
fn is_denial(outcome: &[u8]) -> bool {
    Outcome::is_encoded_denial(outcome)
}

/// What a command did, without what it read: each page that holds something is empty, and says that
/// the range goes on at its start.
fn without_reads(outcome: &Outcome) -> Outcome {
    let Outcome::Txn { revision, succeeded, results } = outcome else { return outcome.clone() };
    Outcome::Txn { revision: *revision, succeeded: *succeeded, results: results_without_reads(results) }
}

fn results_without_reads(results: &[TxnResult]) -> Vec<TxnResult> {
    let without = |result: &TxnResult| match result {
        TxnResult::Range(page) => {
            let is_empty = page.kvs.is_empty() && page.prefixes.is_empty() && page.next.is_none();
            let next = (!is_empty).then(Bytes::new);
            TxnResult::Range(RangePage {
                next,
                revision: page.revision,
                count: page.count,
                ..Default::default()
            })
        }
        TxnResult::Txn { succeeded, results } => {
            TxnResult::Txn { succeeded: *succeeded, results: results_without_reads(results) }
        }
        TxnResult::Put { .. } | TxnResult::Deleted { .. } => result.clone(),
    };
    results.iter().map(without).collect()
}

const fn cost(key: &[u8], value: &[u8]) -> u64 {
    key.len() as u64 + value.len() as u64 + ANSWER_OVERHEAD
}

fn digest(key: &[u8], value: &[u8]) -> u128 {
    let mut words = [0; 33];
    words[0] = b'a';
    words[1..17].copy_from_slice(&xxh3_128(key).to_le_bytes());
    words[17..].copy_from_slice(&xxh3_128(value).to_le_bytes());
    xxh3_128(&words)
}
