//! What commands have to return: a model of the state machine over the committed log, as plain as
//! can be.
//!
//! Every committed entry is applied here once, to maps of the standard library. This gives what
//! each store has to hold at each index, and what each answer has to say: revisions, versions,
//! whether a deleted key existed, the count of keys and the sum of their bytes. A write that was
//! answered as not appended must be in no committed log. A write that was answered as done must be
//! there once, where the answer can have seen it.

#[cfg(test)]
mod tests;

use crate::checks::hashing::QuickMap;
use crate::record::violation::{Violation, check};
use bytes::Bytes;
use infinitystore::kv::{Op, Outcome, Revision, Store, StoreReader, Versioned};
use infinitystore::raft::{Entry, EntryKind, LogIndex, NodeId};
use infinitystore::replica::{ClientError, ClientReply, ClientRequest, Level, RequestId, decode_proposal};
use std::collections::{BTreeMap, BTreeSet};

/// The keys of clients begin with this. Each of their values is set once.
const CLIENT_KEY: &[u8] = b"key";

/// A value, or that there is none, from some index on.
type Since = (LogIndex, Option<Versioned>);

/// A committed entry, and the state after it.
#[derive(Clone, Debug, Default)]
struct AppliedEntry {
    /// The member whose command it is, the operation, and what it has to return.
    command: Option<(NodeId, Op, Outcome)>,
    /// Whether a client was told that it is done.
    is_told: bool,
    revision: u64,
    keys: usize,
    bytes: u64,
}

/// A request that a machine was asked and has not answered.
#[derive(Clone, Debug)]
struct AskedRequest {
    request: ClientRequest,
    /// The member that was asked.
    origin: NodeId,
    /// What it has to see: everything up to here was committed by then, or (for a local read)
    /// applied.
    committed: LogIndex,
}

/// The committed log, applied.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By index, from 1.
    steps: Vec<AppliedEntry>,
    /// By key: every state it was in, from which index on.
    states: BTreeMap<Bytes, Vec<Since>>,
    /// Where each of the clients' values was set.
    set_at: QuickMap<Bytes, LogIndex>,
    waiting: QuickMap<RequestId, AskedRequest>,
    /// Values that were asked to be set, with their keys.
    asked: QuickMap<Bytes, Bytes>,
    /// Values whose clients were told that they are not set, and never will be.
    denied: BTreeSet<Bytes>,
    /// By origin and key: deletions that may be committed, those that were refused not counted.
    deletions: QuickMap<(NodeId, Bytes), u64>,
    deleted: QuickMap<(NodeId, Bytes), u64>,
}

impl Ledger {
    /// An entry was committed, the next one.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn commit(&mut self, entry: &Entry) -> Result<(), Violation> {
        let index = entry.index();
        let before = self.steps.last().cloned().unwrap_or_default();
        let mut step = AppliedEntry { command: None, is_told: false, ..before };
        if entry.kind() == EntryKind::Command
            && let Ok((id, op)) = decode_proposal(entry.data())
        {
            let outcome = self.apply(index, &op, &mut step);
            self.was_asked(id.origin, index, &op)?;
            step.command = Some((id.origin, op, outcome));
        }
        self.steps.push(step);
        Ok(())
    }

    fn apply(&mut self, index: LogIndex, op: &Op, step: &mut AppliedEntry) -> Outcome {
        let key = op.key();
        let states = self.states.entry(key.clone()).or_default();
        let before = states.last().and_then(|(_, state)| state.clone());
        let old_bytes = before.as_ref().map_or(0, |old| (key.len() + old.value.len()) as u64);
        match op {
            Op::Set { value, .. } => {
                step.revision += 1;
                let revision = Revision(step.revision);
                let created = before.as_ref().map_or(revision, |old| old.create_revision);
                let version = before.as_ref().map_or(1, |old| old.version + 1);
                step.keys += usize::from(before.is_none());
                step.bytes = step.bytes + (key.len() + value.len()) as u64 - old_bytes;
                let now = Versioned {
                    value: value.clone(),
                    create_revision: created,
                    mod_revision: revision,
                    version,
                };
                states.push((index, Some(now)));
                Outcome::Set { revision, version }
            }
            Op::Delete { .. } => {
                let existed = before.is_some();
                if existed {
                    step.revision += 1;
                    step.keys -= 1;
                    step.bytes -= old_bytes;
                    states.push((index, None));
                }
                Outcome::Deleted { revision: Revision(step.revision), existed }
            }
        }
    }

    /// A committed command of a client was asked for, of that machine, and was not refused.
    fn was_asked(&mut self, origin: NodeId, index: LogIndex, op: &Op) -> Result<(), Violation> {
        if !op.key().starts_with(CLIENT_KEY) || self.asked.is_empty() && self.deletions.is_empty() {
            return Ok(());
        }
        match op {
            Op::Set { key, value } => {
                let name = String::from_utf8_lossy(&value[..value.len().min(12)]);
                check!(
                    "what is committed was asked for",
                    self.asked.get(value) == Some(key),
                    "nobody set {key:?} to {name:?}, which is committed at {index}"
                );
                check!(
                    "what was refused is not committed",
                    !self.denied.contains(value),
                    "{name:?} is set at {index}, and its client was told that it never will be"
                );
                self.set_at.insert(value.clone(), index);
            }
            Op::Delete { key } => {
                let which = (origin, key.clone());
                let asked = self.deletions.get(&which).copied().unwrap_or(0);
                let deleted = self.deleted.entry(which).or_default();
                *deleted += 1;
                check!(
                    "what was refused is not committed",
                    *deleted <= asked,
                    "{key:?} is deleted for the {deleted}th time for clients of {origin} at {index}; \
                     {asked} of them were not refused"
                );
            }
        }
        Ok(())
    }

    /// The member `origin`, which has applied everything up to `applied`, is asked for something.
    pub fn asked(&mut self, id: RequestId, origin: NodeId, request: &ClientRequest, applied: LogIndex) {
        let mut committed = LogIndex::new(self.steps.len() as u64);
        match request {
            ClientRequest::Write(Op::Set { key, value }) if key.starts_with(CLIENT_KEY) => {
                self.asked.insert(value.clone(), key.clone());
            }
            ClientRequest::Write(Op::Delete { key }) => {
                *self.deletions.entry((origin, key.clone())).or_default() += 1;
            }
            ClientRequest::Read { level: Level::Local, .. } => committed = applied,
            ClientRequest::Write(_) | ClientRequest::Read { .. } | ClientRequest::Barrier => {}
            ClientRequest::ChangeMembership(_) | ClientRequest::TransferLeadership(_) => return,
        }
        self.waiting.insert(id, AskedRequest { request: request.clone(), origin, committed });
    }

    /// The machine that was asked has answered, having applied everything up to `applied`.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn answered(
        &mut self,
        id: RequestId,
        reply: &ClientReply,
        applied: LogIndex,
    ) -> Result<(), Violation> {
        let Some(asked) = self.waiting.remove(&id) else { return Ok(()) };
        match (&asked.request, reply) {
            (_, ClientReply::Failed(ClientError::Unknown)) => Ok(()),
            (ClientRequest::Write(op), ClientReply::Failed(_)) => self.denied(&asked, op),
            (ClientRequest::Write(op), ClientReply::Written(outcome)) => {
                self.written(&asked, op, *outcome, applied)
            }
            (ClientRequest::Read { .. } | ClientRequest::Barrier, ClientReply::Failed(_)) => Ok(()),
            (ClientRequest::Read { key, .. }, ClientReply::Value(found)) => {
                self.read(&asked, key, found.as_ref(), applied)
            }
            (ClientRequest::Barrier, ClientReply::UpToDate) => {
                check!(
                    "up to date means up to date",
                    applied >= asked.committed,
                    "{} has applied {applied}; {} was committed when it was asked",
                    asked.origin,
                    asked.committed
                );
                Ok(())
            }
            (request, reply) => {
                let what = format!("{request:?} was answered with {reply:?}");
                Err(Violation { check: "an answer answers the question", what })
            }
        }
    }

    fn denied(&mut self, asked: &AskedRequest, op: &Op) -> Result<(), Violation> {
        match op {
            Op::Set { value, .. } => {
                let at = self.set_at.get(value);
                check!(
                    "what was refused is not committed",
                    at.is_none(),
                    "a client of {} was told that {op:?} did not happen; it is committed at {at:?}",
                    asked.origin
                );
                if op.key().starts_with(CLIENT_KEY) {
                    self.denied.insert(value.clone());
                }
            }
            Op::Delete { key } => {
                let which = (asked.origin, key.clone());
                let deleted = self.deleted.get(&which).copied().unwrap_or(0);
                let left = self.deletions.entry(which).or_insert(1);
                *left -= 1;
                check!(
                    "what was refused is not committed",
                    deleted <= *left,
                    "a client of {} was told that {op:?} did not happen; {deleted} are committed, and {left} \
                     were not refused",
                    asked.origin
                );
            }
        }
        Ok(())
    }

    /// A write is answered as done. It is in the committed log once, after everything that was
    /// committed when it was asked for; the machine that answers has applied it; and it returned
    /// what it had to.
    fn written(
        &mut self,
        asked: &AskedRequest,
        op: &Op,
        outcome: Outcome,
        applied: LogIndex,
    ) -> Result<(), Violation> {
        let is_it = |step: &AppliedEntry| {
            step.command.as_ref().is_some_and(|(origin, command, _)| *origin == asked.origin && command == op)
        };
        let (after, through) = (position(asked.committed), position(applied).min(self.steps.len()));
        let range = self.steps.get_mut(after..through).unwrap_or_default();
        let mut expected = Vec::new();
        for step in range.iter_mut().filter(|step| is_it(step) && !step.is_told) {
            let Some((_, _, right)) = &step.command else { continue };
            if *right == outcome {
                step.is_told = true;
                return Ok(());
            }
            expected.push(*right);
        }
        let what = format!(
            "{} answered {op:?} with {outcome:?}, having applied {applied}; committed after {}, when it was asked \
             for, are {expected:?}",
            asked.origin, asked.committed
        );
        Err(Violation { check: "what a write returns", what })
    }

    /// A read is answered: it is a state that the key was in after it was asked for, and that the
    /// machine has applied.
    fn read(
        &self,
        asked: &AskedRequest,
        key: &Bytes,
        found: Option<&Versioned>,
        applied: LogIndex,
    ) -> Result<(), Violation> {
        let states = self.states.get(key).map_or(&[][..], Vec::as_slice);
        let from = states.partition_point(|(at, _)| *at <= asked.committed);
        let first = from.checked_sub(1).and_then(|before| states[before].1.as_ref());
        let later = states[from..].iter().take_while(|(at, _)| *at <= applied);
        let is_one =
            std::iter::once(first).chain(later.map(|(_, state)| state.as_ref())).any(|state| state == found);
        check!(
            "what a read returns",
            is_one,
            "{} answered a read of {key:?} with {found:?}, having applied {applied}; it was asked when {} was \
             committed, and the key was then {first:?}",
            asked.origin,
            asked.committed
        );
        Ok(())
    }

    /// A machine's store holds what it has to at `index`: each key, and the sums over them.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn check_store(&self, who: NodeId, index: LogIndex, store: &Store) -> Result<(), Violation> {
        let nothing = AppliedEntry::default();
        let step = match position(index) {
            0 => &nothing,
            count => match self.steps.get(count - 1) {
                Some(step) => step,
                None => return Ok(()),
            },
        };
        let sums = (store.revision().0, store.len(), store.bytes());
        check!(
            "the state is that of the committed log",
            sums == (step.revision, step.keys, step.bytes),
            "{who} has at {index} (revision, keys, bytes) {sums:?} and should have {:?}",
            (step.revision, step.keys, step.bytes)
        );
        let expected = self.states.iter().filter_map(|(key, states)| {
            // Mostly it is the newest.
            let (_, state) = states.last().filter(|(at, _)| *at <= index).or_else(|| {
                let count = states.partition_point(|(at, _)| *at <= index);
                states[..count].last()
            })?;
            Some((key, state.as_ref()?))
        });
        let mut found = store.iter();
        for (key, versioned) in expected {
            let next = found.next();
            check!(
                "the state is that of the committed log",
                next.as_ref().is_some_and(|(at, here)| at == key && *here == versioned.as_ref())
                    && store.get(key).as_ref() == Some(versioned),
                "{who} has at {index} {next:?} and should have {key:?} {versioned:?}"
            );
        }
        Ok(())
    }

    /// A store survives the format of snapshots, hash and all.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn check_snapshot(&self, who: NodeId, index: LogIndex, store: &Store) -> Result<(), Violation> {
        self.check_store(who, index, store)?;
        let mut reader = StoreReader::new();
        let read = store.snapshot_pieces().try_for_each(|piece| reader.push(&piece));
        let again = read.and_then(|()| reader.finish());
        let same = again.as_ref().is_ok_and(|again| again.state_hash() == store.state_hash());
        check!(
            "a snapshot holds the state",
            same,
            "{who} cannot read at {index} what it would write: {:?}",
            again.err()
        );
        again.map_or(Ok(()), |again| self.check_store(who, index, &again))
    }
}

fn position(index: LogIndex) -> usize {
    usize::try_from(index.get()).unwrap_or(usize::MAX)
}
