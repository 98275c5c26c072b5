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
    /// Whether a command's key is known, and what the command is told then.
    pub(super) fn known(&self, command: &Command) -> (bool, Option<Outcome>) {
        let known = command.idempotency_key.as_ref().and_then(|key| self.by_key.get(key));
        let told = known.map(|((subject, op), outcome)| {
            let is_same = *subject == command.by.map(|by| by.subject) && *op == command.op;
            if is_same { outcome.clone() } else { Outcome::Refused(Refusal::KeyReused) }
        });
        (told.is_some(), told)
    }

    /// Remembers what a command was told, if it has a key, as long as all of them take no more than
    /// `limit`.
    pub(super) fn remember(&mut self, command: &Command, outcome: &Outcome, limit: u64) {
        let Some(key) = &command.idempotency_key else { return };
        let kept =
            if outcome_bytes(outcome) > OUTCOME_BYTES_MAX { without_reads(outcome) } else { outcome.clone() };
        let cost = ANSWER_BYTES + key.len() as u64 + outcome_bytes(&kept);
        let is_denial = matches!(outcome, Outcome::Refused(Refusal::Denied { .. }));
        let (queue, limit) =
            if is_denial { (&mut self.denials, limit / DENIALS_SHARE) } else { (&mut self.others, limit) };
        // One that has no room at all pushes out no other.
        if cost <= limit {
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
