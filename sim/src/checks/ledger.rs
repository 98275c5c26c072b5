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
use crate::checks::keyspace::model::{Model, readable};
use crate::checks::keyspace::rights::NeededRight;
use crate::record::violation::{Violation, check};
use bytes::Bytes;
use infinitystore::kv::{
    Command, Found, Op, Outcome, Principal, Put, Query, QueryAnswer, RangePage, RangeQuery, ReadError,
    Revision, Store, StoreReader,
};
use infinitystore::raft::{Entry, EntryKind, LogIndex, NodeId};
use infinitystore::replica::{ClientError, ClientReply, ClientRequest, Level, RequestId, decode_proposal};
use std::collections::BTreeSet;

/// The keys of clients begin with this. Each of their values is set once.
const CLIENT_KEY: &[u8] = b"key";
/// The origin of what a leader proposes by itself.
const LEADER: NodeId = NodeId::new(0);
/// A store is compared key by key at each index that this divides. At the others its hash has to
/// do: a difference stays.
const KEY_BY_KEY: u64 = 4;

/// A committed entry.
#[derive(Clone, Debug, Default)]
struct AppliedEntry {
    /// The member whose command it is, the command, and what it has to return.
    command: Option<(NodeId, Command, Outcome)>,
    /// Whether a client was told that it is done.
    is_told: bool,
}

/// A request that a machine was asked and has not answered.
#[derive(Clone, Debug)]
struct AskedRequest {
    request: ClientRequest,
    /// The caller's principal.
    by: Option<Principal>,
    /// The member that was asked.
    origin: NodeId,
    /// What it has to see: everything up to here was committed by then, or (for a local read)
    /// applied.
    committed: LogIndex,
    /// Whether the member knew of a level at which commands say what their client had seen.
    is_dated: bool,
}

/// As what a command may be in the log. A member that knows of no level that has words for it
/// leaves out what the client had seen.
fn forms(command: &Command, is_dated: bool) -> impl Iterator<Item = Command> {
    let without = Command { since: None, ..command.clone() };
    let without = (!is_dated && command.since.is_some()).then_some(without);
    std::iter::once(command.clone()).chain(without)
}

/// The committed log, applied.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By index, from 1.
    steps: Vec<AppliedEntry>,
    /// Every state that they led to.
    model: Model,
    /// Where each of the clients' values was set.
    set_at: QuickMap<Bytes, LogIndex>,
    waiting: QuickMap<RequestId, AskedRequest>,
    /// Values that were asked to be set, with their keys.
    asked: QuickMap<Bytes, Bytes>,
    /// Values whose clients were told that they are not set, and never will be.
    denied: BTreeSet<Bytes>,
    /// By origin: other commands that may be committed, those that were refused not counted.
    commands: QuickMap<(NodeId, Command), u64>,
    done: QuickMap<(NodeId, Command), u64>,
}

impl Ledger {
    /// Every state that the committed log has led to.
    #[must_use]
    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// An entry was committed, the next one. What it did, if it is a command.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn commit(&mut self, entry: &Entry) -> Result<(), Violation> {
        let index = entry.index();
        let mut step = AppliedEntry::default();
        match decode_proposal(entry.data()) {
            Ok((id, command)) if entry.kind() == EntryKind::Command => {
                let outcome = self.model.apply(entry.term().get(), &command)?;
                self.was_asked(id.origin, index, &command)?;
                step.command = Some((id.origin, command, outcome));
            }
            _ => match entry.level() {
                Some(level) => self.model.raise_level(level),
                None => self.model.skip(),
            },
        }
        self.steps.push(step);
        Ok(())
    }

    /// The command of an entry, and what it has to return.
    #[must_use]
    pub fn command(&self, index: usize) -> Option<(&Command, &Outcome)> {
        let step = self.steps.get(index.checked_sub(1)?)?;
        step.command.as_ref().map(|(_, command, outcome)| (command, outcome))
    }

    /// A committed command of a client was asked for, of that machine, and was not refused.
    fn was_asked(&mut self, origin: NodeId, index: LogIndex, command: &Command) -> Result<(), Violation> {
        if origin == LEADER {
            check!(
                "a leader proposes only the ends of leases",
                matches!(command.op, Op::Expire { .. }) && command.idempotency_key.is_none(),
                "{command:?} is committed at {index}"
            );
            return Ok(());
        }
        if self.asked.is_empty() && self.commands.is_empty() {
            return Ok(());
        }
        match &command.op {
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
            _ => {
                let which = (origin, command.clone());
                let asked = self.commands.get(&which).copied().unwrap_or(0);
                let done = self.done.entry(which).or_default();
                *done += 1;
                check!(
                    "what was refused is not committed",
                    *done <= asked,
                    "{command:?} is committed for the {done}th time for clients of {origin} at {index}; {asked} of them \
                     were not refused"
                );
            }
        }
        Ok(())
    }

    /// The member `origin`, which has applied everything up to `applied`, is asked for something. A
    /// command names its caller.
    pub fn asked(
        &mut self,
        id: RequestId,
        origin: NodeId,
        (by, request): (Option<Principal>, &ClientRequest),
        applied: LogIndex,
    ) {
        let mut committed = LogIndex::new(self.steps.len() as u64);
        let is_dated = self.model.are_dated_at(position(applied));
        match request {
            ClientRequest::Write(Command { op: Op::Put(put), .. }) if put.key.starts_with(CLIENT_KEY) => {
                self.asked.insert(put.value.clone(), put.key.clone());
            }
            ClientRequest::Write(command) => {
                for form in forms(command, is_dated) {
                    *self.commands.entry((origin, form)).or_default() += 1;
                }
            }
            ClientRequest::Read { level: Level::Linearizable, .. } | ClientRequest::Barrier => {}
            ClientRequest::Read { .. } => committed = applied,
            ClientRequest::ChangeMembership(_)
            | ClientRequest::TransferLeadership(_)
            | ClientRequest::Watch(_)
            | ClientRequest::Lease { .. } => return,
        }
        self.waiting.insert(id, AskedRequest { request: request.clone(), by, origin, committed, is_dated });
    }

    /// The machine that was asked has answered, having applied everything up to `applied`. Whether
    /// it is the answer to a command that had been done before.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn answered(
        &mut self,
        id: RequestId,
        reply: &ClientReply,
        applied: LogIndex,
    ) -> Result<bool, Violation> {
        let Some(asked) = self.waiting.remove(&id) else { return Ok(false) };
        let checked = match (&asked.request, reply) {
            (_, ClientReply::Failed(ClientError::Unknown)) => Ok(()),
            (ClientRequest::Write(command), ClientReply::Failed(error)) => {
                check!(
                    "a denial under an idempotency key is remembered",
                    command.idempotency_key.is_none() || !matches!(error, ClientError::Denied(_)),
                    "{} says {error} to {command:?}, which the log does not know",
                    asked.origin
                );
                let span = position(asked.committed)..=position(applied);
                let wanted = NeededRight::Command(command.op.clone());
                self.model.check_right(asked.by.as_ref(), &wanted, reply, span)?;
                self.denied(&asked, command)
            }
            (ClientRequest::Write(command), ClientReply::Written(outcome)) => {
                return self.written(&asked, command, outcome, applied);
            }
            (ClientRequest::Read { query, .. }, ClientReply::Failed(_)) => {
                let span = position(asked.committed)..=position(applied);
                let wanted = NeededRight::Query(query.clone());
                self.model.check_right(asked.by.as_ref(), &wanted, reply, span).map(|_| ())
            }
            (ClientRequest::Barrier, ClientReply::Failed(_)) => Ok(()),
            (ClientRequest::Read { query, .. }, ClientReply::Answer(answer)) => {
                self.read(&asked, query, answer, applied)?;
                let (first, last) = self.model.indices_of(answer.revision.0);
                let span = position(asked.committed).max(first)..=position(applied).min(last);
                let wanted = NeededRight::Query(query.clone());
                self.model.check_right(asked.by.as_ref(), &wanted, reply, span).map(|_| ())
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
        };
        checked.map(|()| false)
    }

    fn denied(&mut self, asked: &AskedRequest, command: &Command) -> Result<(), Violation> {
        match &command.op {
            Op::Put(Put { key, value, .. }) if key.starts_with(CLIENT_KEY) => {
                let at = self.set_at.get(value);
                check!(
                    "what was refused is not committed",
                    at.is_none(),
                    "a client of {} was told that {command:?} did not happen; it is committed at {at:?}",
                    asked.origin
                );
                self.denied.insert(value.clone());
            }
            _ => {
                for form in forms(command, asked.is_dated) {
                    let which = (asked.origin, form);
                    let done = self.done.get(&which).copied().unwrap_or(0);
                    let left = self.commands.entry(which).or_insert(1);
                    *left -= 1;
                    check!(
                        "what was refused is not committed",
                        done <= *left,
                        "a client of {} was told that {command:?} did not happen; {done} are committed, and {left} \
                         were not refused",
                        asked.origin
                    );
                }
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
        command: &Command,
        outcome: &Outcome,
        applied: LogIndex,
    ) -> Result<bool, Violation> {
        let is_it = |step: &AppliedEntry| {
            step.command.as_ref().is_some_and(|(origin, done, _)| {
                *origin == asked.origin && forms(command, asked.is_dated).any(|form| form == *done)
            })
        };
        let (after, through) = (position(asked.committed), position(applied).min(self.steps.len()));
        let range = self.steps.get_mut(after..through).unwrap_or_default();
        let mut expected = Vec::new();
        let places = (after + 1..).zip(range.iter_mut());
        for (index, step) in places.filter(|(_, step)| is_it(step) && !step.is_told) {
            let Some((_, _, right)) = &step.command else { continue };
            if right == outcome {
                step.is_told = true;
                return Ok(self.model.at(index).is_some_and(|sums| sums.is_repeated));
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
    /// asked for, with what it has applied by now; and the answer is what the state was then.
    fn read(
        &self,
        asked: &AskedRequest,
        query: &Query,
        answer: &QueryAnswer,
        applied: LogIndex,
    ) -> Result<(), Violation> {
        // The revisions ascend, so these are the indices at which the store had this one.
        let revision = answer.revision.0;
        let (first, last) = self.model.indices_of(revision);
        let (from, to) = (position(asked.committed).max(first), position(applied).min(last));
        let is_it = from <= to
            && match (query, &answer.found) {
                (Query::Key(key), Found::Key(found)) => self.model.get_at(key, revision) == found.as_ref(),
                (Query::Range(query), Found::Range(found)) => {
                    self.is_page(query, found, revision, (from, to))
                }
                (query, found) => (from..=to).rev().any(|index| self.is_at(query, found, index)),
            };
        check!(
            "what a read returns",
            is_it,
            "{} answered {query:?} with {answer:?}, having applied {applied}; it was asked when {} was committed; the \
             store had that revision from {first} to {last}; right is {:?}",
            asked.origin,
            asked.committed,
            match query {
                Query::Key(key) => format!("{:?}", self.model.get_at(key, revision)),
                Query::Range(query) => {
                    let at = query.at.map_or(revision, |at| at.0);
                    format!("{:?} of {:?}", self.model.page(query, at, revision), self.model.at(to))
                }
                _ => format!("{:?}", self.model.leases_at(to).collect::<Vec<_>>()),
            }
        );
        Ok(())
    }

    fn is_page(
        &self,
        query: &RangeQuery,
        found: &Result<RangePage, ReadError>,
        revision: u64,
        (from, to): (usize, usize),
    ) -> bool {
        let at = query.at.unwrap_or(Revision(revision));
        match found {
            // The oldest revision that is there only rises.
            Ok(page) => {
                self.model.at(from).is_some_and(|sums| readable(at, sums).is_ok())
                    && *page == self.model.page(query, at.0, revision)
            }
            Err(error) => (from..=to)
                .any(|index| self.model.at(index).is_some_and(|sums| readable(at, sums) == Err(*error))),
        }
    }

    fn is_at(&self, query: &Query, found: &Found, index: usize) -> bool {
        let Some(sums) = self.model.at(index) else { return false };
        match (query, found) {
            (Query::Lease(id), Found::Lease(found)) => self.model.lease_at(*id, index) == *found,
            (Query::Leases(from, limit), Found::Leases(found)) => {
                let leases = self.model.leases_at(index).filter(|lease| lease.id >= *from);
                leases.take(*limit).eq(found.iter().copied())
            }
            (Query::LeaseKeys(id, start, limit), Found::LeaseKeys { keys, next }) => {
                let right = self.model.keys_of(*id, sums.revision).filter(|kv| kv.key >= *start);
                let right: Vec<&Bytes> = right.map(|kv| &kv.key).take(*limit + 1).collect();
                right.iter().take(*limit).copied().eq(keys) && right.get(*limit).copied() == next.as_ref()
            }
            (Query::Settings, Found::Settings(found)) => sums.settings == *found,
            (Query::Permission(_), Found::Permitted) => true,
            _ => false,
        }
    }

    /// A machine's store holds what it has to at `index`: each key, each lease, and the sums over
    /// them.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn check_store(&self, who: NodeId, index: LogIndex, store: &Store) -> Result<(), Violation> {
        let Some(right) = self.model.at(position(index)) else { return Ok(()) };
        let mut is = right.clone();
        (is.revision, is.compacted) = (store.revision().0, store.compacted().0);
        (is.keys, is.bytes, is.leases) = (store.len(), store.bytes(), store.lease_count() as u64);
        (is.settings, is.answers_bytes, is.hash) =
            (*store.settings(), store.answers_bytes(), store.state_hash());
        is.forgotten_below = store.answers_forgotten_below().0;
        check!(
            "the state is that of the committed log",
            is == *right,
            "{who} has at {index} {is:?} and should have {right:?}"
        );
        check!(
            "the history keeps to its bytes",
            store.history_bytes() <= is.settings.history_bytes,
            "{who} keeps at {index} {} bytes of history; {:?}",
            store.history_bytes(),
            is.settings
        );
        if !index.get().is_multiple_of(KEY_BY_KEY) {
            return Ok(());
        }
        self.check_keys(who, index, store)
    }

    /// The same, key by key and lease by lease.
    fn check_keys(&self, who: NodeId, index: LogIndex, store: &Store) -> Result<(), Violation> {
        let revision = store.revision().0;
        let all = infinitystore::kv::KeyRange::all();
        let mut found = store.iter();
        for right in self.model.range(&all, Some(revision)) {
            let next = found.next();
            check!(
                "the state is that of the committed log",
                next.as_ref() == Some(right) && store.get(&right.key).as_ref() == Some(right),
                "{who} has at {index} {next:?} and should have {right:?}"
            );
        }
        if store.lease_count() == 0 {
            return Ok(());
        }
        let mut found = store.leases(infinitystore::kv::LeaseId::NONE);
        for right in self.model.leases_at(position(index)) {
            let next = found.next();
            let keys = store.lease_keys(right.id, &[], usize::MAX);
            let right_keys = self.model.keys_of(right.id, revision).map(|kv| &kv.key[..]);
            check!(
                "the leases are those of the committed log",
                next == Some(right) && right_keys.eq(keys.iter().map(|key| &key[..])),
                "{who} has at {index} {next:?} with {keys:?} and should have {right:?}"
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
        let Ok(again) = again else { return Ok(()) };
        self.check_store(who, index, &again)?;
        if self.model.at(position(index)).is_some() {
            self.check_keys(who, index, &again)?;
            let history = self.model.check_history(&again);
            check!(
                "a snapshot holds the history",
                history.is_ok(),
                "{who} has at {index}: {:?}",
                history.err()
            );
        }
        Ok(())
    }
}

fn position(index: LogIndex) -> usize {
    usize::try_from(index.get()).unwrap_or(usize::MAX)
}
