//! Answers that are remembered: a client that repeats a command under the same idempotency key gets
//! the first answer again.

use crate::codec::{DecodeError, Writer};
use crate::kv::command::Outcome;
use crate::kv::leaf::VersionedRef;
use crate::kv::tree::Tree;
use alloc::vec::Vec;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// What an answer takes beside its key and its bytes.
pub(super) const ANSWER_OVERHEAD: u64 = 128;
/// Fingerprint and number, before the outcome.
pub(super) const HEAD_BYTES: usize = 24;

/// The answers, the oldest forgotten first. `clone` is O(1).
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    /// By idempotency key: fingerprint of the command, number of the answer, encoded outcome.
    by_key: Tree,
    /// By number (big-endian): the idempotency key.
    by_number: Tree,
    last_number: u64,
    bytes: u64,
    digests: u128,
}

/// An answer that is remembered.
#[derive(Debug)]
pub(super) struct Known {
    /// Of the command that was answered.
    pub(super) fingerprint: u128,
    pub(super) outcome: Result<Outcome, DecodeError>,
}

impl Answers {
    /// What they take, bytes.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hash of all of them.
    pub(super) fn digests(&self) -> u128 {
        self.digests.wrapping_add(xxh3_128(&self.last_number.to_le_bytes()))
    }

    pub(super) const fn last_number(&self) -> u64 {
        self.last_number
    }

    pub(super) const fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Known> {
        let found = self.by_key.get(key)?.to_bytes();
        let fingerprint = u128::from_le_bytes(*found.first_chunk().expect("every answer has a head"));
        Some(Known { fingerprint, outcome: Outcome::decode(found.slice(HEAD_BYTES..)) })
    }

    /// Remembers an answer, and forgets the oldest ones beyond `limit` bytes.
    pub(super) fn remember(&mut self, key: &[u8], fingerprint: u128, outcome: &Outcome, limit: u64) {
        self.last_number += 1;
        let mut value = Vec::new();
        value.put_u128(fingerprint);
        value.put_u64(self.last_number);
        outcome.encode(&mut value);
        self.put_back(key, &value);
        self.bound(limit);
    }

    /// Forgets the oldest ones beyond `limit` bytes.
    pub(super) fn bound(&mut self, limit: u64) {
        while self.bytes > limit
            && let Some((number, found)) = self.by_number.cursor(&[]).next()
        {
            let (number, key) = (number.to_vec(), found.to_bytes());
            self.by_number.remove(&number);
            if let Some(found) = self.by_key.get(&key) {
                self.bytes -= cost(&key, found.value);
                self.digests = self.digests.wrapping_sub(digest(&key, found.value));
                self.by_key.remove(&key);
            }
        }
    }

    /// Puts an answer in as it was remembered. `false`: it makes no sense.
    pub(super) fn put_back(&mut self, key: &[u8], value: &[u8]) -> bool {
        let number = value.get(16..HEAD_BYTES).and_then(|number| number.first_chunk::<8>());
        let Some(number) = number.map(|number| u64::from_le_bytes(*number)) else { return false };
        self.bytes += cost(key, value);
        self.digests = self.digests.wrapping_add(digest(key, value));
        self.by_key.set(key, &mut |_| VersionedRef::plain(value));
        self.by_number.set(&number.to_be_bytes(), &mut |_| VersionedRef::plain(key));
        self.by_key.len() == self.by_number.len() && number <= self.last_number
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
