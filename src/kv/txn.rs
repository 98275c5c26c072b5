//! Transactions: what is refused before it is logged, and how one is carried out.
//!
//! All comparisons, the nested ones too, see the state before the transaction. So which steps are
//! taken is known before the first one, and a transaction that would fail changes nothing.

use crate::codec::COUNTER_MAX;
use crate::kv::command::{
    Command, Compare, CompareOrder, IDEMPOTENCY_KEY_BYTES_MAX, Op, Outcome, Put, Refusal, Target, Txn, TxnOp,
    TxnResult,
};
use crate::kv::leaf::VersionedRef;
use crate::kv::query::{RangePage, RangeQuery, ReadError};
use crate::kv::reads::ReadRoom;
use crate::kv::security::BadChange;
use crate::kv::store::Store;
use crate::kv::types::{KEY_BYTES_MAX, KeyRange, LeaseId, Revision, VALUE_BYTES_MAX};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use bytes::Bytes;
use core::cmp::Ordering;
use core::ops::Bound;

/// Comparisons and steps of a transaction, nested ones included.
pub const TXN_STEPS_MAX: usize = 512;
/// A transaction within a transaction within … so many.
pub const TXN_DEPTH_MAX: usize = 4;
/// Keys and values of a command take at most this many bytes.
pub const COMMAND_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX;

/// Why a command makes no sense. It never reaches the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadCommand {
    /// A key of no bytes.
    #[error("the key is empty")]
    EmptyKey,
    /// A key or a bound that is too long.
    #[error("a key is {0} bytes long; the limit is {KEY_BYTES_MAX}")]
    LongKey(usize),
    /// A value that is too long.
    #[error("a value is {0} bytes long; the limit is {VALUE_BYTES_MAX}")]
    LongValue(usize),
    /// All of it is too long.
    #[error("keys and values of the command take {0} bytes; the limit is {COMMAND_BYTES_MAX}")]
    Long(usize),
    /// A range whose end is not after its start.
    #[error("the end of the range is not after its start")]
    EmptyRange,
    /// Too many steps.
    #[error("the transaction has {0} comparisons and steps; the limit is {TXN_STEPS_MAX}")]
    ManySteps(usize),
    /// Nested too deeply.
    #[error("transactions are nested more than {TXN_DEPTH_MAX} deep")]
    Deep,
    /// A key is put twice by one branch.
    #[error("a transaction may put a key only once")]
    PutTwice,
    /// A key is put into a range that the same branch deletes.
    #[error("a transaction may not put a key into a range that it deletes")]
    PutIntoDeleted,
    /// An idempotency key that is empty or too long.
    #[error("an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes")]
    IdempotencyKey,
    /// What the client had seen before its first attempt, without an idempotency key, or a revision
    /// that can never be.
    #[error(
        "the revision that was seen before the first attempt goes with an idempotency key, and is at most {COUNTER_MAX}"
    )]
    Since,
    /// A name of a user, a role or a token.
    #[error("a name of a user, a role or a token has 1 to 128 letters, digits, and marks of -_.@+")]
    SecurityName,
    /// A list of roles or grants that is too long.
    #[error("there are {0} roles or grants; the limit is 256")]
    LongList(usize),
    /// What should be the hash of a password is none.
    #[error("a password is kept as an argon2id hash of at most 512 bytes")]
    PasswordHash,
}

impl Command {
    /// Whether it makes sense, whatever the state.
    ///
    /// # Errors
    /// [`BadCommand`], to be told to the client. Nothing that fails here may be proposed.
    pub fn check(&self) -> Result<(), BadCommand> {
        let length = self.idempotency_key.as_ref().map_or(1, Bytes::len);
        if length == 0 || length > IDEMPOTENCY_KEY_BYTES_MAX {
            return Err(BadCommand::IdempotencyKey);
        }
        if self.since.is_some_and(|since| self.idempotency_key.is_none() || since.0 > COUNTER_MAX) {
            return Err(BadCommand::Since);
        }
        self.op.check()
    }
}

impl Op {
    /// Whether it makes sense, whatever the state.
    ///
    /// # Errors
    /// [`BadCommand`], to be told to the client. Nothing that fails here may be proposed.
    pub fn check(&self) -> Result<(), BadCommand> {
        let bytes = self.bytes();
        if bytes > COMMAND_BYTES_MAX {
            return Err(BadCommand::Long(bytes));
        }
        match self {
            Self::Put(put) => check_put(put),
            Self::Delete(range) => check_range(range),
            Self::Increment { key, .. } => check_key(key),
            Self::Txn(txn) => {
                let mut steps = 0;
                check_steps(txn, 1, &mut steps)?;
                if steps > TXN_STEPS_MAX {
                    return Err(BadCommand::ManySteps(steps));
                }
                touched(txn).map(|_| ())
            }
            Self::Secure(change) => Ok(change.check()?),
            Self::Compact(_)
            | Self::Grant { .. }
            | Self::Revoke(_)
            | Self::Expire { .. }
            | Self::Configure(_) => Ok(()),
        }
    }
}

impl From<BadChange> for BadCommand {
    fn from(bad: BadChange) -> Self {
        match bad {
            BadChange::Name => Self::SecurityName,
            BadChange::LongList(count) => Self::LongList(count),
            BadChange::PasswordHash => Self::PasswordHash,
            BadChange::LongKey(length) => Self::LongKey(length),
            BadChange::EmptyRange => Self::EmptyRange,
        }
    }
}

fn check_key(key: &Bytes) -> Result<(), BadCommand> {
    match key.len() {
        0 => Err(BadCommand::EmptyKey),
        length if length > KEY_BYTES_MAX => Err(BadCommand::LongKey(length)),
        _ => Ok(()),
    }
}

fn check_put(put: &Put) -> Result<(), BadCommand> {
    check_key(&put.key)?;
    if put.value.len() > VALUE_BYTES_MAX {
        return Err(BadCommand::LongValue(put.value.len()));
    }
    Ok(())
}

/// The end of a range of one key is one byte longer than the key.
fn check_range(range: &KeyRange) -> Result<(), BadCommand> {
    let longest = range.start.len().max(range.end.as_ref().map_or(0, |end| end.len().saturating_sub(1)));
    if longest > KEY_BYTES_MAX {
        return Err(BadCommand::LongKey(longest));
    }
    if range.is_empty() {
        return Err(BadCommand::EmptyRange);
    }
    Ok(())
}

fn check_query(query: &RangeQuery) -> Result<(), BadCommand> {
    // A page may go on at the end of a range.
    let resume = query.resume.as_ref().map_or(0, |resume| resume.len().saturating_sub(1));
    let longest = resume.max(query.delimiter.as_ref().map_or(0, Bytes::len));
    if longest > KEY_BYTES_MAX {
        return Err(BadCommand::LongKey(longest));
    }
    check_range(&query.range)
}

fn check_steps(txn: &Txn, depth: usize, steps: &mut usize) -> Result<(), BadCommand> {
    if depth > TXN_DEPTH_MAX {
        return Err(BadCommand::Deep);
    }
    *steps += txn.compare.len() + txn.success.len() + txn.failure.len();
    for compare in &txn.compare {
        check_range(&compare.range)?;
        if let Target::Value(value) = &compare.target
            && value.len() > VALUE_BYTES_MAX
        {
            return Err(BadCommand::LongValue(value.len()));
        }
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            TxnOp::Put(put) => check_put(put)?,
            TxnOp::Delete(range) => check_range(range)?,
            TxnOp::Get(query) => check_query(query)?,
            TxnOp::Txn(txn) => check_steps(txn, depth + 1, steps)?,
        }
    }
    Ok(())
}

/// What a transaction may put and delete, whichever branches it takes.
#[derive(Default)]
struct Touched<'t> {
    puts: BTreeSet<&'t Bytes>,
    deletes: Vec<&'t KeyRange>,
}

impl<'t> Touched<'t> {
    /// Takes in what another step of the same branch touches.
    fn add(&mut self, other: Self) -> Result<(), BadCommand> {
        if !self.puts.is_disjoint(&other.puts) {
            return Err(BadCommand::PutTwice);
        }
        if are_deleted(&self.puts, &other.deletes) || are_deleted(&other.puts, &self.deletes) {
            return Err(BadCommand::PutIntoDeleted);
        }
        self.extend(other);
        Ok(())
    }

    fn extend(&mut self, other: Self) {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
    }
}

/// Whether one of the keys is in one of the ranges.
fn are_deleted(puts: &BTreeSet<&Bytes>, deletes: &[&KeyRange]) -> bool {
    deletes.iter().any(|range| {
        let first = puts.range::<Bytes, _>((Bound::Included(&range.start), Bound::Unbounded)).next();
        first.is_some_and(|key| range.contains(key))
    })
}

fn touched(txn: &Txn) -> Result<Touched<'_>, BadCommand> {
    let mut both = touched_by(&txn.success)?;
    // Only one of the branches is taken: they may touch the same keys.
    both.extend(touched_by(&txn.failure)?);
    Ok(both)
}

fn touched_by(ops: &[TxnOp]) -> Result<Touched<'_>, BadCommand> {
    let mut all = Touched::default();
    for op in ops {
        all.add(match op {
            TxnOp::Put(put) => Touched { puts: BTreeSet::from([&put.key]), deletes: Vec::new() },
            TxnOp::Delete(range) => Touched { puts: BTreeSet::new(), deletes: Vec::from([range]) },
            TxnOp::Get(_) => continue,
            TxnOp::Txn(txn) => touched(txn)?,
        })?;
    }
    Ok(all)
}

/// A transaction whose branches have been chosen.
struct Chosen<'t> {
    succeeded: bool,
    steps: Vec<TxnStep<'t>>,
}

enum TxnStep<'t> {
    Put(&'t Put),
    Delete(&'t KeyRange),
    Get(&'t RangeQuery),
    /// A read of the past, which the transaction itself does not change: it is done before the
    /// first change.
    GetPast(&'t RangeQuery, RangePage),
    Txn(Chosen<'t>),
}

impl<'t> Chosen<'t> {
    fn each(&self, visit: &mut impl FnMut(&TxnStep<'t>)) {
        for step in &self.steps {
            visit(step);
            if let TxnStep::Txn(inner) = step {
                inner.each(visit);
            }
        }
    }
}

impl Store {
    pub(super) fn txn(&mut self, txn: &Txn) -> Result<Outcome, Refusal> {
        self.check_changes(self.compared(txn))?;
        let mut room = ReadRoom::new(count_reads(txn));
        let mut chosen = self.choose(txn);
        let (mut puts, mut bytes, mut keys) = (Vec::new(), 0, 0);
        let (mut deletes, mut pasts) = (Vec::new(), Vec::new());
        chosen.each(&mut |step| match step {
            TxnStep::Put(put) => {
                puts.push(*put);
                bytes += put.key.len() + put.value.len();
            }
            TxnStep::Delete(range) => {
                keys += self.count(range);
                deletes.push(*range);
            }
            TxnStep::GetPast(query, _) => pasts.extend(query.at),
            TxnStep::Get(_) | TxnStep::Txn(_) => {}
        });
        self.check_changes(keys.saturating_add(puts.len() as u64))?;
        self.check_leases(puts.iter().copied())?;
        self.check_quota(puts.iter().copied(), bytes, &mut deletes)?;
        self.check_pasts(&pasts)?;
        self.read_past(&mut chosen, &mut room);
        let succeeded = chosen.succeeded;
        let mut changes = 0;
        let results = self.take_steps(chosen, &mut changes, &mut room);
        let revision = self.end_revision(changes);
        Ok(Outcome::Txn { revision, succeeded, results })
    }

    /// Chooses the branches, by the state as it is.
    fn choose<'t>(&self, txn: &'t Txn) -> Chosen<'t> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let steps = branch
            .iter()
            .map(|op| match op {
                TxnOp::Put(put) => TxnStep::Put(put),
                TxnOp::Delete(range) => TxnStep::Delete(range),
                TxnOp::Get(query) if query.at.is_some() => TxnStep::GetPast(query, RangePage::default()),
                TxnOp::Get(query) => TxnStep::Get(query),
                TxnOp::Txn(txn) => TxnStep::Txn(self.choose(txn)),
            })
            .collect();
        Chosen { succeeded, steps }
    }

    /// All revisions that are read at are there, and the reads go through no more changes than a
    /// command may make: each may have to look at all since its revision.
    fn check_pasts(&self, pasts: &[Revision]) -> Result<(), Refusal> {
        let mut changes = 0;
        for at in pasts {
            self.check_revision(*at).map_err(|error| match error {
                ReadError::Compacted(oldest) => Refusal::Compacted(oldest),
                ReadError::Future(newest) => Refusal::Future(newest),
            })?;
            let mut revision = self.revision;
            while revision > *at {
                changes += self.history.record(revision).len();
                revision.0 -= 1;
                self.check_changes(changes)?;
            }
        }
        Ok(())
    }

    fn read_past(&self, chosen: &mut Chosen<'_>, room: &mut ReadRoom) {
        for step in &mut chosen.steps {
            match step {
                TxnStep::GetPast(query, page) => *page = self.range_within(query, room).unwrap_or_default(),
                TxnStep::Txn(inner) => self.read_past(inner, room),
                TxnStep::Put(_) | TxnStep::Delete(_) | TxnStep::Get(_) => {}
            }
        }
    }

    fn take_steps(&mut self, chosen: Chosen<'_>, changes: &mut u32, room: &mut ReadRoom) -> Vec<TxnResult> {
        let mut results = Vec::with_capacity(chosen.steps.len());
        for step in chosen.steps {
            results.push(match step {
                TxnStep::Put(put) => {
                    let version = self.put(put, *changes);
                    *changes += 1;
                    TxnResult::Put { version }
                }
                TxnStep::Delete(range) => TxnResult::Deleted { count: self.delete(range, changes) },
                TxnStep::Get(query) => TxnResult::Range(self.read_amid(query, *changes, room)),
                TxnStep::GetPast(_, page) => TxnResult::Range(page),
                TxnStep::Txn(inner) => {
                    let succeeded = inner.succeeded;
                    TxnResult::Txn { succeeded, results: self.take_steps(inner, changes, room) }
                }
            });
        }
        results
    }

    /// A read within a command that has made `changes` so far. The revision that it tells is the
    /// one that those changes will have.
    fn read_amid(&self, query: &RangeQuery, changes: u32, room: &mut ReadRoom) -> RangePage {
        let mut page = self.range_within(query, room).unwrap_or_default();
        if changes > 0 {
            page.revision = self.revision.next();
        }
        page
    }

    /// How many keys its comparisons look at.
    fn compared(&self, txn: &Txn) -> u64 {
        let own = txn.compare.iter().filter(|compare| compare.range.one_key().is_none());
        let inner = txn.success.iter().chain(&txn.failure).map(|op| match op {
            TxnOp::Txn(txn) => self.compared(txn),
            _ => 0,
        });
        own.map(|compare| self.count(&compare.range)).chain(inner).fold(0, u64::saturating_add)
    }

    fn holds(&self, compare: &Compare) -> bool {
        if let Some(key) = compare.range.one_key() {
            return match self.live.get(key) {
                Some(found) => holds_of(compare, found),
                None => {
                    !matches!(compare.target, Target::Value(_)) && holds_of(compare, VersionedRef::default())
                }
            };
        }
        let mut cursor = self.live.cursor(&compare.range.start);
        while let Some((key, found)) = cursor.next()
            && compare.range.contains(key)
        {
            if !holds_of(compare, found) {
                return false;
            }
        }
        true
    }
}

/// How many reads it has. They share what one may take.
fn count_reads(txn: &Txn) -> usize {
    let reads = txn.success.iter().chain(&txn.failure).map(|op| match op {
        TxnOp::Get(_) => 1,
        TxnOp::Txn(txn) => count_reads(txn),
        TxnOp::Put(_) | TxnOp::Delete(_) => 0,
    });
    reads.sum()
}

fn holds_of(compare: &Compare, found: VersionedRef<'_>) -> bool {
    let order = match &compare.target {
        Target::Value(value) => found.value.cmp(&value[..]),
        Target::Version(version) => found.version.cmp(version),
        Target::CreateRevision(Revision(revision)) => found.create_revision.0.cmp(revision),
        Target::ModRevision(Revision(revision)) => found.mod_revision.0.cmp(revision),
        Target::Lease(LeaseId(lease)) => found.lease.0.cmp(lease),
    };
    match compare.order {
        CompareOrder::Equal => order == Ordering::Equal,
        CompareOrder::NotEqual => order != Ordering::Equal,
        CompareOrder::Less => order == Ordering::Less,
        CompareOrder::Greater => order == Ordering::Greater,
    }
}
