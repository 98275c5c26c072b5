//! Answers that are remembered under idempotency keys: for whom, and for how long.

use crate::checks::keyspace::parts::{outcome_bytes, without_reads};
use bytes::Bytes;
use infinitystore::kv::{Command, Op, Outcome, Refusal, Subject};
use std::collections::{BTreeMap, VecDeque};

/// What a remembered answer counts for, beside its key and what it says.
const ANSWER_BYTES: u64 = 128 + 24;
/// Of an answer that would take more, what was read is not remembered.
const OUTCOME_BYTES_MAX: u64 = 128 << 10;
/// Denials have this part of the limit for themselves, beside the other answers.
const DENIALS_SHARE: u64 = 16;

/// A command under an idempotency key, and for whom.
type Named = (Option<Subject>, Op);

/// What is known of a command's key.
#[derive(Debug)]
pub(super) enum Known {
    /// Nothing, or that somebody else was denied.
    Nothing,
    /// That this very command was told something.
    Told(Outcome),
    /// That another command was carried out.
    Another,
}

impl Known {
    /// Whether something may have been done.
    pub(super) fn may_be_done(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Told(outcome) => !is_denial(outcome),
            Self::Another => true,
        }
    }
}

fn is_denial(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::Denied { .. }))
}

/// Idempotency keys, the oldest first, with what each takes, and all of them together.
#[derive(Debug, Default)]
struct KeyQueue {
    keys: VecDeque<(Bytes, u64)>,
    bytes: u64,
}

/// The answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    by_key: BTreeMap<Bytes, (Named, Outcome)>,
    denials: KeyQueue,
    others: KeyQueue,
}

impl Answers {
    /// What is known of a command's key.
    pub(super) fn known(&self, command: &Command) -> Known {
        let known = command.idempotency_key.as_ref().and_then(|key| self.by_key.get(key));
        let Some(((subject, op), outcome)) = known else { return Known::Nothing };
        let is_same = *subject == command.by.map(|by| by.subject) && *op == command.op;
        match outcome {
            outcome if is_same => Known::Told(outcome.clone()),
            outcome if is_denial(outcome) => Known::Nothing,
            _ => Known::Another,
        }
    }

    /// Remembers what a command was told, if it has a key, as long as all of them take no more than
    /// `limit`.
    pub(super) fn remember(&mut self, command: &Command, outcome: &Outcome, limit: u64) {
        let Some(key) = &command.idempotency_key else { return };
        let kept =
            if outcome_bytes(outcome) > OUTCOME_BYTES_MAX { without_reads(outcome) } else { outcome.clone() };
        let cost = ANSWER_BYTES + key.len() as u64 + outcome_bytes(&kept);
        let is_denial = is_denial(outcome);
        let limit = if is_denial { limit / DENIALS_SHARE } else { limit };
        // One that has no room at all pushes out no other.
        if cost <= limit {
            // What was known is a denial of somebody else.
            if let Some(at) = self.denials.keys.iter().position(|(known, _)| known == key) {
                self.denials.bytes -= self.denials.keys.remove(at).map_or(0, |(_, cost)| cost);
            }
            let queue = if is_denial { &mut self.denials } else { &mut self.others };
            queue.bytes += cost;
            queue.keys.push_back((key.clone(), cost));
            let named = (command.by.map(|by| by.subject), command.op.clone());
            self.by_key.insert(key.clone(), (named, kept));
        }
    }

    /// Forgets the oldest ones beyond `limit`. What all of them take.
    pub(super) fn bound(&mut self, limit: u64) -> u64 {
        for (queue, limit) in [(&mut self.others, limit), (&mut self.denials, limit / DENIALS_SHARE)] {
            while queue.bytes > limit
                && let Some((key, cost)) = queue.keys.pop_front()
            {
                queue.bytes -= cost;
                self.by_key.remove(&key);
            }
        }
        self.others.bytes + self.denials.bytes
    }
}
