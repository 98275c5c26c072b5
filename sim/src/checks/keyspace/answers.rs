//! Answers that are remembered under idempotency keys: for whom, and for how long.

use crate::checks::keyspace::parts::{outcome_bytes, without_reads};
use crate::record::violation::{Violation, check};
use bytes::Bytes;
use infinitystore::kv::{Command, ForgottenAnswer, Op, Outcome, Refusal, Revision, Subject};
use std::collections::{BTreeMap, VecDeque};

/// What a remembered answer counts for, beside its key and what it says: …
const ANSWER_BYTES: u64 = 128 + 24;
/// … and so much more if it is dated.
const DATE_BYTES: u64 = 8;
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

/// Idempotency keys, the oldest first, with what each takes and the revision of its answer; and
/// what all of them take.
#[derive(Debug, Default)]
struct KeyQueue {
    keys: VecDeque<(Bytes, u64, u64)>,
    bytes: u64,
}

/// The answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    by_key: BTreeMap<Bytes, (Named, Outcome)>,
    denials: KeyQueue,
    others: KeyQueue,
    /// Whether one was ever remembered.
    are_any: bool,
    /// Whether the level has been raised from which on they are dated.
    are_dated: bool,
    /// The revision of the newest answer that is forgotten since then, or of all before; denials
    /// apart.
    forgotten: Option<u64>,
    /// When commands were carried out last under their keys, as long as anybody can ask: the
    /// revision afterwards.
    done: BTreeMap<Bytes, (Named, u64)>,
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

    /// Why nobody can know whether a command has been done, in a store of this revision: its client
    /// says what it had seen before it asked first, and an answer of then may be forgotten.
    pub(super) fn lost(&self, command: &Command, revision: u64) -> Option<ForgottenAnswer> {
        let since = command.since.filter(|_| self.are_dated)?;
        // That was another store.
        let ahead = (since.0 > revision).then_some(revision);
        let through = ahead.or(self.forgotten.filter(|newest| *newest >= since.0))?;
        Some(ForgottenAnswer { since, through: Revision(through) })
    }

    /// The level is raised, in a store of this revision. Whether anything else has left a trace.
    pub(super) fn date(&mut self, revision: u64, is_touched: bool) {
        if !self.are_dated {
            self.are_dated = true;
            self.forgotten = (is_touched || self.are_any).then_some(revision);
        }
    }

    fn forget(&mut self, revision: u64) {
        if self.are_dated {
            self.forgotten = self.forgotten.max(Some(revision));
        }
    }

    /// Below which revision answers are forgotten.
    pub(super) fn forgotten_below(&self) -> u64 {
        self.forgotten.map_or(0, |newest| newest + 1)
    }

    /// A command is carried out, which makes this revision. If it says what its client had seen
    /// before it asked first, it is not for the second time since then.
    pub(super) fn is_done_once(&mut self, command: &Command, revision: u64) -> Result<(), Violation> {
        let Some(key) = &command.idempotency_key else { return Ok(()) };
        let named = (command.by.map(|by| by.subject), command.op.clone());
        let before = self.done.insert(key.clone(), (named.clone(), revision));
        let before = before.filter(|(was, _)| *was == named).map(|(_, revision)| revision);
        check!(
            "a command is done once",
            before.is_none_or(|before| command.since.is_none_or(|since| before < since.0)),
            "{command:?} is carried out at revision {revision}, and was at {before:?}"
        );
        Ok(())
    }

    /// Remembers what a command was told at a revision, if it has a key, as long as all of them
    /// take no more than `limit`.
    pub(super) fn remember(&mut self, command: &Command, outcome: &Outcome, revision: u64, limit: u64) {
        let Some(key) = &command.idempotency_key else { return };
        let kept =
            if outcome_bytes(outcome) > OUTCOME_BYTES_MAX { without_reads(outcome) } else { outcome.clone() };
        let dated = if self.are_dated { DATE_BYTES } else { 0 };
        let cost = ANSWER_BYTES + dated + key.len() as u64 + outcome_bytes(&kept);
        let is_denial = is_denial(outcome);
        let limit = if is_denial { limit / DENIALS_SHARE } else { limit };
        // One that has no room at all pushes out no other.
        if cost <= limit {
            self.are_any = true;
            // What was known is a denial of somebody else.
            if let Some(at) = self.denials.keys.iter().position(|(known, ..)| known == key) {
                self.denials.bytes -= self.denials.keys.remove(at).map_or(0, |(_, cost, _)| cost);
            }
            let queue = if is_denial { &mut self.denials } else { &mut self.others };
            queue.bytes += cost;
            queue.keys.push_back((key.clone(), cost, revision));
            let named = (command.by.map(|by| by.subject), command.op.clone());
            self.by_key.insert(key.clone(), (named, kept));
        } else if !is_denial {
            self.forget(revision);
        }
    }

    /// Forgets the oldest ones beyond `limit`. What all of them take.
    pub(super) fn bound(&mut self, limit: u64) -> u64 {
        while self.others.bytes > limit
            && let Some((key, cost, revision)) = self.others.keys.pop_front()
        {
            self.others.bytes -= cost;
            self.by_key.remove(&key);
            self.forget(revision);
        }
        // Those did nothing: that they are forgotten puts nobody in doubt.
        while self.denials.bytes > limit / DENIALS_SHARE
            && let Some((key, cost, _)) = self.denials.keys.pop_front()
        {
            self.denials.bytes -= cost;
            self.by_key.remove(&key);
        }
        self.others.bytes + self.denials.bytes
    }
}
