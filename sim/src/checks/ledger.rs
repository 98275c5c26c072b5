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
use infinitystore::kv::{
    Answer, Command, Found, KeyRange, KeyValue, LeaseId, Op, Outcome, Put, Query, Revision, Settings, Store,
    StoreReader,
};
use infinitystore::raft::{Entry, EntryKind, LogIndex, NodeId};
use infinitystore::replica::{ClientError, ClientReply, ClientRequest, Level, RequestId, decode_proposal};
use std::collections::{BTreeMap, BTreeSet};

/// The keys of clients begin with this. Each of their values is set once.
const CLIENT_KEY: &[u8] = b"key";

/// A value, or that there is none, from some index on.
type Since = (LogIndex, Option<KeyValue>);

/// A committed entry, and the state after it.
#[derive(Clone, Debug, Default)]
struct AppliedEntry {
    /// The member whose command it is, the command, and what it has to return.
    command: Option<(NodeId, Command, Outcome)>,
    /// Whether a client was told that it is done.
    is_told: bool,
    revision: u64,
    keys: usize,
    bytes: u64,
    settings: Settings,
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
    /// By origin and range: deletions that may be committed, those that were refused not counted.
    deletions: QuickMap<(NodeId, KeyRange), u64>,
    deleted: QuickMap<(NodeId, KeyRange), u64>,
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
            && let Ok((id, command)) = decode_proposal(entry.data())
        {
            let outcome = self.apply(index, &command, &mut step)?;
            self.was_asked(id.origin, index, &command.op)?;
            step.command = Some((id.origin, command, outcome));
        }
        self.steps.push(step);
        Ok(())
    }

    fn apply(
        &mut self,
        index: LogIndex,
        command: &Command,
        step: &mut AppliedEntry,
    ) -> Result<Outcome, Violation> {
        match command {
            Command { idempotency_key: None, op: Op::Put(put) } if put.lease.is_none() => {
                Ok(self.put(index, put, step))
            }
            Command { idempotency_key: None, op: Op::Delete(range) } => {
                let keys: Vec<Bytes> =
                    self.states.keys().filter(|key| range.contains(key)).cloned().collect();
                let count = keys.into_iter().map(|key| u64::from(self.delete(index, key, step))).sum();
                // However many keys there were, they were removed in one revision.
                step.revision += u64::from(count > 0);
                Ok(Outcome::Deleted { revision: Revision(step.revision), count })
            }
            Command { idempotency_key: None, op: Op::Configure(settings) } => {
                step.settings = *settings;
                Ok(Outcome::Configured(*settings))
            }
            other => {
                let what =
                    format!("{other:?} is committed at {index}; no client of these runs asks for such");
                Err(Violation { check: "what is committed was asked for", what })
            }
        }
    }

    fn put(&mut self, index: LogIndex, put: &Put, step: &mut AppliedEntry) -> Outcome {
        let Put { key, value, .. } = put;
        let states = self.states.entry(key.clone()).or_default();
        let before = states.last().and_then(|(_, state)| state.as_ref());
        step.revision += 1;
        let revision = Revision(step.revision);
        let version = before.map_or(1, |old| old.version + 1);
        let now = KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: before.map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version,
            lease: LeaseId::NONE,
        };
        step.keys += usize::from(before.is_none());
        step.bytes += (key.len() + value.len()) as u64;
        step.bytes -= before.map_or(0, |old| (key.len() + old.value.len()) as u64);
        states.push((index, Some(now)));
        Outcome::Put { revision, version }
    }

    /// Whether there was such a key.
    fn delete(&mut self, index: LogIndex, key: Bytes, step: &mut AppliedEntry) -> bool {
        let states = self.states.entry(key).or_default();
        let Some((_, Some(before))) = states.last() else { return false };
        step.keys -= 1;
        step.bytes -= (before.key.len() + before.value.len()) as u64;
        states.push((index, None));
        true
    }

    /// A committed command of a client was asked for, of that machine, and was not refused.
    fn was_asked(&mut self, origin: NodeId, index: LogIndex, op: &Op) -> Result<(), Violation> {
        if self.asked.is_empty() && self.deletions.is_empty() {
            return Ok(());
        }
        match op {
            Op::Put(Put { key, value, .. }) if key.starts_with(CLIENT_KEY) => {
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
            Op::Delete(range) => {
                let which = (origin, range.clone());
                let asked = self.deletions.get(&which).copied().unwrap_or(0);
                let deleted = self.deleted.entry(which).or_default();
                *deleted += 1;
                check!(
                    "what was refused is not committed",
                    *deleted <= asked,
                    "{range:?} is deleted for the {deleted}th time for clients of {origin} at {index}; \
                     {asked} of them were not refused"
                );
            }
            _ => {}
        }
        Ok(())
    }

    /// The member `origin`, which has applied everything up to `applied`, is asked for something.
    pub fn asked(&mut self, id: RequestId, origin: NodeId, request: &ClientRequest, applied: LogIndex) {
        let mut committed = LogIndex::new(self.steps.len() as u64);
        match request {
            ClientRequest::Write(Command { op: Op::Put(put), .. }) if put.key.starts_with(CLIENT_KEY) => {
                self.asked.insert(put.value.clone(), put.key.clone());
            }
            ClientRequest::Write(Command { op: Op::Delete(range), .. }) => {
                *self.deletions.entry((origin, range.clone())).or_default() += 1;
            }
            ClientRequest::Read { level: Level::Local, .. } => committed = applied,
            ClientRequest::Write(_) | ClientRequest::Read { .. } | ClientRequest::Barrier => {}
            ClientRequest::ChangeMembership(_)
            | ClientRequest::TransferLeadership(_)
            | ClientRequest::Watch(_)
            | ClientRequest::Lease { .. } => return,
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
            (ClientRequest::Write(command), ClientReply::Failed(_)) => self.denied(&asked, &command.op),
            (ClientRequest::Write(command), ClientReply::Written(outcome)) => {
                self.written(&asked, command, outcome, applied)
            }
            (ClientRequest::Read { .. } | ClientRequest::Barrier, ClientReply::Failed(_)) => Ok(()),
            (
                ClientRequest::Read { query: Query::Key(key), .. },
                ClientReply::Answer(Answer { revision, found: Found::Key(found) }),
            ) => self.read(&asked, key, (*revision, found.as_ref()), applied),
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
            Op::Put(Put { key, value, .. }) => {
                let at = self.set_at.get(value);
                check!(
                    "what was refused is not committed",
                    at.is_none(),
                    "a client of {} was told that {op:?} did not happen; it is committed at {at:?}",
                    asked.origin
                );
                if key.starts_with(CLIENT_KEY) {
                    self.denied.insert(value.clone());
                }
            }
            Op::Delete(range) => {
                let which = (asked.origin, range.clone());
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
            // It is not committed, whoever asks: `apply` knows no such command.
            _ => {}
        }
        Ok(())
    }

    /// A write is answered as done. It is in the committed log once, after everything that was
    /// committed when it was asked for; the machine that answers has applied it; and it returned
    /// what it had to.
    fn written(
        &mut self,
        asked: &AskedRequest,
        command: &Command,
        outcome: &Outcome,
        applied: LogIndex,
    ) -> Result<(), Violation> {
        let is_it = |step: &AppliedEntry| {
            step.command.as_ref().is_some_and(|(origin, done, _)| *origin == asked.origin && done == command)
        };
        let (after, through) = (position(asked.committed), position(applied).min(self.steps.len()));
        let range = self.steps.get_mut(after..through).unwrap_or_default();
        let mut expected = Vec::new();
        for step in range.iter_mut().filter(|step| is_it(step) && !step.is_told) {
            let Some((_, _, right)) = &step.command else { continue };
            if right == outcome {
                step.is_told = true;
                return Ok(());
            }
            expected.push(right.clone());
        }
        let what = format!(
            "{} answered {command:?} with {outcome:?}, having applied {applied}; committed after {}, when it was asked \
             for, are {expected:?}",
            asked.origin, asked.committed
        );
        Err(Violation { check: "what a write returns", what })
    }

    /// A read is answered, as of a revision. The machine was at that revision after the read was
    /// asked for, with what it has applied by now; and the key was then in the state that it tells.
    fn read(
        &self,
        asked: &AskedRequest,
        key: &Bytes,
        (revision, found): (Revision, Option<&KeyValue>),
        applied: LogIndex,
    ) -> Result<(), Violation> {
        // The revisions ascend, so these are the indices at which the store had this one.
        let first = match revision.0 {
            0 => 0,
            revision => self.steps.partition_point(|step| step.revision < revision) + 1,
        };
        let last = self.steps.partition_point(|step| step.revision <= revision.0);
        let (from, to) = (position(asked.committed).max(first), position(applied).min(last));
        let states = self.states.get(key).map_or(&[][..], Vec::as_slice);
        let before = states.partition_point(|(at, _)| position(*at) <= to);
        let state = before.checked_sub(1).and_then(|before| states[before].1.as_ref());
        check!(
            "what a read returns",
            from <= to && state == found,
            "{} answered a read of {key:?} with {found:?} as of revision {revision}, having applied {applied}; it \
             was asked when {} was committed; the store had that revision from {first} to {last}, and the key was \
             then {state:?}",
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
        let sums = (store.revision().0, store.len(), store.bytes(), store.settings());
        check!(
            "the state is that of the committed log",
            sums == (step.revision, step.keys, step.bytes, &step.settings),
            "{who} has at {index} (revision, keys, bytes, settings) {sums:?} and should have {:?}",
            (step.revision, step.keys, step.bytes, &step.settings)
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
                next.as_ref().is_some_and(|here| here == versioned)
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
