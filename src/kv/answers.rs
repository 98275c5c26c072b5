//! Answers that are remembered: a client that repeats a command under the same idempotency key gets
//! the first answer again.
//!
//! An answer takes a small part of the limit at most, so that no client can push out all answers of
//! the others with a few commands. Of one that would take more, what was read is not kept. Denials
//! have a limit of their own: a client without a right pushes out nobody's answers.

use crate::codec::{DecodeError, Writer};
use crate::kv::command::{Outcome, Refusal, TxnResult};
use crate::kv::leaf::VersionedRef;
use crate::kv::query::RangePage;
use crate::kv::tree::Tree;
use alloc::vec::Vec;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// What an answer takes beside its key and its bytes.
pub(super) const ANSWER_OVERHEAD: u64 = 128;
/// Fingerprint and number, before the outcome.
pub(super) const HEAD_BYTES: usize = 24;
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
    /// By idempotency key: fingerprint of the command, number of the answer, encoded outcome.
    by_key: Tree,
    /// Those of commands that were carried out, or refused by what the state is.
    answers: Queue,
    /// Denials.
    denials: Queue,
    last_number: u64,
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
        self.digests.wrapping_add(xxh3_128(&self.last_number.to_le_bytes()))
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
        Some(Known { fingerprint, outcome: Outcome::decode(found.slice(HEAD_BYTES..)) })
    }

    /// Remembers an answer in the place of the one that was, and forgets the oldest ones beyond
    /// `limit` bytes. One that has no room at all is not remembered, and pushes out no other.
    pub(super) fn remember(&mut self, key: &[u8], fingerprint: u128, outcome: &Outcome, limit: u64) {
        let mut value = Vec::new();
        value.put_u128(fingerprint);
        value.put_u64(self.last_number + 1);
        outcome.encode(&mut value);
        if value.len() > ANSWER_BYTES_MAX {
            value.truncate(HEAD_BYTES);
            without_reads(outcome).encode(&mut value);
        }
        assert!(value.len() <= ANSWER_BYTES_MAX, "without what was read, an answer is small");
        let limit_of_kind = if is_denial(&value) { limit / DENIALS_SHARE } else { limit };
        if cost(key, &value) > limit_of_kind {
            return;
        }
        self.forget(key);
        self.last_number += 1;
        self.put_back(key, &value);
        self.bound(limit);
    }

    fn forget(&mut self, key: &[u8]) {
        let Some(value) = self.by_key.get(key).map(|found| found.to_bytes()) else { return };
        let queue = if is_denial(&value) { &mut self.denials } else { &mut self.answers };
        let number = u64::from_le_bytes(*value[16..].first_chunk().expect("every answer has a head"));
        queue.by_number.remove(&number.to_be_bytes());
        queue.bytes -= cost(key, &value);
        self.digests = self.digests.wrapping_sub(digest(key, &value));
        self.by_key.remove(key);
    }

    /// Forgets the oldest ones beyond `limit` bytes.
    pub(super) fn bound(&mut self, limit: u64) {
        let Self { by_key, answers, denials, digests, .. } = self;
        for (queue, limit) in [(answers, limit), (denials, limit / DENIALS_SHARE)] {
            while queue.bytes > limit
                && let Some((number, found)) = queue.by_number.cursor(&[]).next()
            {
                let (number, key) = (number.to_vec(), found.to_bytes());
                queue.by_number.remove(&number);
                if let Some(found) = by_key.get(&key) {
                    queue.bytes -= cost(&key, found.value);
                    *digests = digests.wrapping_sub(digest(&key, found.value));
                    by_key.remove(&key);
                }
            }
        }
    }

    /// Puts an answer in as it was remembered. `false`: it makes no sense.
    pub(super) fn put_back(&mut self, key: &[u8], value: &[u8]) -> bool {
        let number = value.get(16..HEAD_BYTES).and_then(|number| number.first_chunk::<8>());
        let Some(number) = number.map(|number| u64::from_le_bytes(*number)) else { return false };
        let queue = if is_denial(value) { &mut self.denials } else { &mut self.answers };
        queue.bytes += cost(key, value);
        queue.by_number.set(&number.to_be_bytes(), &mut |_| VersionedRef::plain(key));
        self.digests = self.digests.wrapping_add(digest(key, value));
        self.by_key.set(key, &mut |_| VersionedRef::plain(value));
        let count = self.answers.by_number.len() + self.denials.by_number.len();
        self.by_key.len() == count && number <= self.last_number
    }

    /// Sets the number of the last answer; for a snapshot, before its answers.
    pub(super) const fn set_last_number(&mut self, last_number: u64) {
        self.last_number = last_number;
    }

    /// The one whose idempotency key comes after `key`: as [`Self::put_back`] takes it.
    pub(super) fn after(&self, key: &[u8]) -> Option<(Vec<u8>, Bytes)> {
        // The first key behind another one is that with a zero behind it.
        let start = [key, &[0]].concat();
        let mut cursor = self.by_key.cursor(if key.is_empty() { key } else { &start });
        cursor.next().map(|(key, found)| (key.to_vec(), found.to_bytes()))
    }
}

/// Whether a kept answer is a denial.
fn is_denial(value: &[u8]) -> bool {
    value.get(HEAD_BYTES..).is_some_and(Outcome::is_encoded_denial)
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
