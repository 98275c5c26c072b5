//! What all clients of the keyspace have seen.

use crate::checks::keyspace::clients::KeyspaceClients;
use crate::checks::ledger::Ledger;
use crate::madsim_engine::book::ProcessId;
use crate::madsim_engine::keyspace::wanted::AtSending;
use crate::madsim_engine::keyspace::wanted::{Condition, ExpectedWrite};
use crate::madsim_engine::time::now;
use crate::record::violation::{Violation, check};
use crate::schedule::{KeyspaceKind, SECOND, Schedule};
use bytes::Bytes;
use infinitystore::kv::{CompareOrder, LeaseId, Op, Put, Target, Txn, TxnOp};
use infinitystore::replica::RequestId;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A watch that nobody listens to any more ends in this time: a node sees that its client has
/// closed the connection.
const LINGER_MICROS: u64 = SECOND;
/// How long a question for changes waits for one.
const QUESTION_MICROS: u64 = 10 * SECOND;

/// A command, as it is asked for: what it has to become, and under which name.
type Named = (ExpectedWrite, Option<Bytes>);

/// How often a command was asked for, and how often it was refused.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    asked: u64,
    refused: u64,
}

/// What all clients of the keyspace have seen.
#[derive(Debug, Default)]
pub(in crate::madsim_engine) struct Keyspace {
    /// Decide what is asked.
    pub(super) clients: KeyspaceClients,
    /// The newest revision that any client was told by an answer that had to be new.
    pub(super) newest: u64,
    /// Entries whose clients were told.
    pub(super) taken: BTreeSet<usize>,
    /// What was met since it was last taken.
    met: Vec<&'static str>,
    commands: HashMap<Named, Count>,
    last_request: u64,
    /// When a watcher of a process left last.
    left_at: BTreeMap<ProcessId, u64>,
    /// Entries whose leases have been looked at.
    pub(in crate::madsim_engine) commits_seen: usize,
}

impl Keyspace {
    /// That of a schedule. These clients come without credentials, and change no rights.
    pub(in crate::madsim_engine) fn new(schedule: &Schedule) -> Self {
        let mut schedule = Schedule { users: false, ..schedule.clone() };
        for plan in &mut schedule.keyspace {
            plan.retain(|operation| operation.what.kind != KeyspaceKind::Secure);
        }
        Self { clients: KeyspaceClients::new(&schedule), ..Self::default() }
    }

    /// A watcher of a process leaves.
    pub(in crate::madsim_engine) fn watcher_left(&mut self, process: ProcessId) {
        self.left(process);
    }

    /// A client or watcher of a process leaves.
    pub(super) fn left(&mut self, process: ProcessId) {
        self.left_at.insert(process, now());
    }

    /// Whether a process may still ask itself what watchers that have left would have been told
    /// next. The question ends when progress would have been told once more.
    pub(in crate::madsim_engine) fn questions_linger(&self, process: ProcessId) -> bool {
        self.left_at.get(&process).is_some_and(|at| now() <= at + LINGER_MICROS + QUESTION_MICROS)
    }

    /// How many clients there are.
    pub(in crate::madsim_engine) const fn len(&self) -> usize {
        self.clients.len()
    }

    /// A name for another request.
    pub(super) fn next_request(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    pub(super) fn met(&mut self, what: &'static str) {
        self.met.push(what);
    }

    pub(super) fn take_met(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.met)
    }

    /// An answer that had to be new is of this revision: of no lower one than any before it was
    /// asked for.
    pub(super) fn told(&mut self, sent: &AtSending, revision: Option<u64>) -> Result<(), String> {
        let Some(revision) = revision else { return Ok(()) };
        if revision < sent.floor {
            return Err(format!(
                "revision {revision} is told; {} was told before it was asked for",
                sent.floor
            ));
        }
        self.newest = self.newest.max(revision);
        self.clients.have_seen(self.newest);
        Ok(())
    }

    /// A write is asked for.
    pub(super) fn wants(&mut self, wanted: &ExpectedWrite, name: Option<&Bytes>) {
        self.commands.entry((plain(wanted), name.cloned())).or_default().asked += 1;
    }

    /// Whether one of these clients has asked for the end of a lease.
    pub(super) fn has_revoked(&self, lease: LeaseId) -> bool {
        let mut asked = self.commands.keys().map(|(wanted, _)| wanted);
        asked.any(|wanted| matches!(wanted, ExpectedWrite::Op(Op::Revoke(id)) if *id == lease))
    }

    /// Its client was told that it has not happened, and will not.
    pub(super) fn denied(&mut self, wanted: &ExpectedWrite, name: Option<&Bytes>) {
        self.commands.entry((plain(wanted), name.cloned())).or_default().refused += 1;
    }

    /// What is committed was asked for as often, and not refused.
    ///
    /// # Errors
    /// [`Violation`].
    pub(in crate::madsim_engine) fn compare(&self, ledger: &Ledger) -> Result<(), Violation> {
        let mut done: HashMap<Named, u64> = HashMap::new();
        for index in 1..=ledger.model().applied() {
            let Some((command, _)) = ledger.command(index) else { continue };
            let Some(wanted) = foreseen(&command.op) else { continue };
            let name = command.idempotency_key.clone();
            let Some((which, count)) = self.count(wanted, name) else {
                let what = format!("nobody asked for {command:?}, which is committed at {index}");
                return Err(Violation { check: "what is committed was asked for", what });
            };
            let so_far = done.entry(which).or_default();
            *so_far += 1;
            check!(
                "what was refused is not committed",
                *so_far <= count.asked - count.refused,
                "{command:?} is committed for the {so_far}th time at {index}; of {} requests {} were refused",
                count.asked,
                count.refused
            );
        }
        Ok(())
    }

    /// How often this was asked for: as it is, or as a put with a lease that was made for it.
    fn count(&self, wanted: ExpectedWrite, name: Option<Bytes>) -> Option<(Named, Count)> {
        let mut all = vec![wanted.clone()];
        if let ExpectedWrite::Op(Op::Put(Put { key, value, lease })) = wanted
            && !lease.is_none()
        {
            all.extend((2..=4).map(|ttl| ExpectedWrite::Leased(key.clone(), value.clone(), ttl)));
        }
        let found: Vec<_> = all
            .into_iter()
            .filter_map(|wanted| {
                let named = (wanted, name.clone());
                self.commands.get(&named).map(|count| (named, *count))
            })
            .collect();
        let sum = found.iter().fold(Count::default(), |sum, (_, count)| Count {
            asked: sum.asked + count.asked,
            refused: sum.refused + count.refused,
        });
        found.into_iter().next().map(|(named, _)| (named, sum))
    }
}

fn plain(wanted: &ExpectedWrite) -> ExpectedWrite {
    match wanted {
        ExpectedWrite::If(condition, key, step) => {
            ExpectedWrite::If(condition.plain(), key.clone(), step.clone())
        }
        other => other.clone(),
    }
}

/// What a command of these clients was asked for as; `None`: it may be another's.
fn foreseen(op: &Op) -> Option<ExpectedWrite> {
    let is_ours = |key: &[u8]| key.starts_with(b"k/");
    match op {
        Op::Put(put) if is_ours(&put.key) => {}
        Op::Increment { key, .. } if is_ours(key) => {}
        Op::Delete(range) if is_ours(&range.start) => {}
        Op::Txn(txn) => return foreseen_txn(txn),
        _ => return None,
    }
    Some(ExpectedWrite::Op(op.clone()))
}

fn foreseen_txn(txn: &Txn) -> Option<ExpectedWrite> {
    let whole = Some(ExpectedWrite::Op(Op::Txn(Box::new(txn.clone()))));
    // Those of the callers whose rights are judged.
    if let [TxnOp::Txn(inner)] = &txn.success[..]
        && matches!(&inner.success[..], [TxnOp::Get(look), ..] if look.range.start.starts_with(b"r/"))
    {
        return None;
    }
    // The places in the queues of locks and elections.
    if txn.compare.first().is_some_and(|compare| compare.range.start.starts_with(b"\0")) {
        return None;
    }
    // One that a condition was made into compares one key's revision, and looks at that key.
    let ([compare], [step], [TxnOp::Get(look)]) = (&txn.compare[..], &txn.success[..], &txn.failure[..])
    else {
        return whole;
    };
    let (Some(key), Target::ModRevision(revision)) = (compare.range.one_key(), &compare.target) else {
        return whole;
    };
    let is_same = match step {
        TxnOp::Put(put) => put.key == *key,
        TxnOp::Delete(range) => *range == compare.range,
        _ => false,
    };
    // Transactions of the clients themselves ask for values and counts.
    if !is_same || look.range != compare.range || look.count {
        return whole;
    }
    let condition = match (compare.order, revision.0) {
        (CompareOrder::Equal, revision) => Condition::Is(revision),
        (CompareOrder::NotEqual, revision) => Condition::IsNot(revision),
        _ => return whole,
    };
    Some(ExpectedWrite::If(condition.plain(), key.clone(), step.clone()))
}
