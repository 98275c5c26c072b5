//! The data model, written once more: maps and lists of the standard library, and every state that
//! ever was.
//!
//! Beside it the product's own state machine applies the same entries, one after the other, never
//! captured and never rebuilt. The two have to agree on every outcome and on every change. That
//! second store also says when the history was cut short, which follows from the bytes of its own
//! format: the model only knows bounds for it.

use crate::checks::keyspace::answers::{Answers, Known};
use crate::checks::keyspace::page::{Room, page_of};
use crate::checks::keyspace::parts::{compares, nothing, reads_in};
use crate::checks::keyspace::rules::Rules;
use crate::record::violation::{Violation, check};
use bytes::Bytes;
use infinitystore::kv::{
    ChangesQuery, Command, Compare, Event, IDLE_LEASES_MAX, KeyRange, KeyValue, LEASE_TTL_SECONDS_MAX,
    LEASE_TTL_SECONDS_MIN, Lease, LeaseId, Op, Outcome, Principal, Put, RangePage, RangeQuery, ReadError,
    Refusal, Revision, Settings, Store, Subject, Target, Txn, TxnOp, TxnResult,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a lease counts for in the quota.
const LEASE_BYTES: u64 = 128;
/// What is known of the state after an entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// The store's revision.
    pub revision: u64,
    /// The oldest revision that can be read at.
    pub compacted: u64,
    /// Keys that exist.
    pub keys: usize,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// How many leases there are.
    pub leases: u64,
    /// The limits in force.
    pub settings: Settings,
    /// What remembered answers take.
    pub answers_bytes: u64,
    /// Below which revision answers are forgotten.
    pub forgotten_below: u64,
    /// Hash of the whole state.
    pub hash: u128,
    /// Whether the command was known already, and changed nothing.
    pub is_repeated: bool,
}

/// A lease, from some entry on: its time to live and the number of its grant. `None`: there is
/// none.
type LeaseSince = (usize, Option<(u64, u64)>);

/// Every state that the committed log has led to.
#[derive(Debug)]
pub struct Model {
    /// By index.
    pub(super) sums: Vec<Sums>,
    /// By key: each state that it was in, and from which revision on.
    states: BTreeMap<Bytes, Vec<(u64, Option<KeyValue>)>>,
    /// By revision.
    pub(super) changes: Vec<Vec<Event>>,
    leases: BTreeMap<LeaseId, Vec<LeaseSince>>,
    pub(super) grants: u64,
    pub(super) answers: Answers,
    /// Where the level was raised from which on answers are dated.
    pub(super) dated_at: usize,
    /// The rules, each from some index on.
    pub(super) rules: Vec<(usize, Arc<Rules>)>,
    /// Whose commands entries are, by index.
    pub(super) authors: BTreeMap<usize, Principal>,
    /// Who made the lease of a grant, as far as that is known.
    pub(super) makers: BTreeMap<u64, Subject>,
    /// By revision: what all changes up to it take in the history, at least and at most.
    pub(super) least: Vec<u64>,
    pub(super) most: Vec<u64>,
    pub(super) largest: u64,
    /// By revision: the bytes that make a chunk full, as the limit was then.
    pub(super) full: Vec<u64>,
    /// The product's, which applies the entries beside the model.
    pub(super) shadow: Store,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            sums: vec![Sums { hash: Store::new().state_hash(), ..Sums::default() }],
            states: BTreeMap::new(),
            changes: vec![Vec::new()],
            leases: BTreeMap::new(),
            grants: 0,
            answers: Answers::default(),
            dated_at: usize::MAX,
            rules: vec![(0, Arc::default())],
            authors: BTreeMap::new(),
            makers: BTreeMap::new(),
            least: vec![0],
            most: vec![0],
            largest: 0,
            full: vec![0],
            shadow: Store::new(),
        }
    }
}

/// What the command that is being carried out does.
#[derive(Default)]
struct Doing {
    sums: Sums,
    index: usize,
    changes: Vec<Event>,
}

/// A transaction whose steps are being taken.
struct Reading {
    /// Which branches, in the order in which they are met.
    taken: VecDeque<bool>,
    /// What its reads may still answer.
    room: Room,
    /// What its reads of the past have found, in their order.
    pasts: VecDeque<RangePage>,
}

impl Model {
    /// How many entries have been applied.
    #[must_use]
    pub fn applied(&self) -> usize {
        self.sums.len() - 1
    }

    /// The state after the entry of an index, if that has been applied.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Sums> {
        self.sums.get(index)
    }

    /// The state now.
    #[must_use]
    pub fn now(&self) -> &Sums {
        self.sums.last().expect("there is the empty state")
    }

    /// The first and the last index at which the store had a revision.
    #[must_use]
    pub fn indices_of(&self, revision: u64) -> (usize, usize) {
        let first = self.sums.partition_point(|sums| sums.revision < revision);
        (first, self.sums.partition_point(|sums| sums.revision <= revision).saturating_sub(1))
    }

    /// An entry that is no command.
    pub fn skip(&mut self) {
        let sums = Sums { is_repeated: false, ..self.now().clone() };
        self.sums.push(sums);
    }

    /// Applies a command of an entry of `term`: what it has to return.
    ///
    /// # Errors
    /// [`Violation`]: the product's state machine does something else.
    pub fn apply(&mut self, term: u64, command: &Command) -> Result<Outcome, Violation> {
        let before = self.now().clone();
        let index = self.sums.len();
        check!(
            "a command says what the level has words for",
            command.since.is_none() || self.are_dated_at(index),
            "{command:?} is at {index}, and the level is too low"
        );
        let sums = Sums { is_repeated: false, ..before.clone() };
        let mut doing = Doing { sums, index, ..Doing::default() };
        let by = command.by.as_ref();
        self.authors.extend(command.by.map(|by| (index, by)));
        let judged = self.judge(by, &command.op);
        let known = self.answers.known(command);
        let lost = self.answers.lost(command, before.revision);
        let is_new = matches!(known, Known::Nothing);
        let maybe_done = known.may_be_done() || lost.is_some();
        doing.sums.is_repeated = judged.is_ok() && !is_new;
        let outcome = match (judged, known, lost) {
            (Err(denial), ..) => Outcome::Refused(Refusal::Denied { denial, maybe_done }),
            // It may have been done before it was denied.
            (Ok(()), Known::Told(Outcome::Refused(Refusal::Denied { denial, .. })), Some(_)) => {
                Outcome::Refused(Refusal::Denied { denial, maybe_done })
            }
            (Ok(()), Known::Told(outcome), _) => outcome,
            (Ok(()), Known::Another, _) => Outcome::Refused(Refusal::KeyReused),
            (Ok(()), Known::Nothing, Some(why)) => Outcome::Refused(Refusal::AnswerForgotten(why)),
            (Ok(()), Known::Nothing, None) => self.carry_out(term, by, &command.op, &mut doing),
        };
        let limit = doing.sums.settings.answers_bytes;
        let changed = !doing.changes.is_empty();
        let revision = before.revision + u64::from(changed);
        if is_new && judged.is_ok() && lost.is_none() {
            self.answers.is_done_once(command, revision)?;
            self.answers.remember(command, &outcome, revision, limit);
        } else if is_new && judged.is_err() && by.is_some() {
            self.answers.remember(command, &outcome, revision, limit);
        }
        doing.sums.answers_bytes = self.answers.bound(limit);
        doing.sums.forgotten_below = self.answers.forgotten_below();
        if changed {
            doing.sums.revision += 1;
            self.count(&doing.changes, before.settings.history_bytes);
            self.changes.push(std::mem::take(&mut doing.changes));
        }
        let shadowed = self.shadow.apply(term, command);
        check!(
            "a command does what the data model says",
            shadowed == outcome,
            "{command:?} of term {term} at {index} returns {shadowed:?} and should return {outcome:?}; before it: {before:?}"
        );
        doing.sums.compacted = self.shadow.compacted().0;
        doing.sums.hash = self.shadow.state_hash();
        self.compaction(&before, &doing.sums, &command.op, &outcome)?;
        if let Outcome::Secured(_) = outcome {
            self.same_rules()?;
        }
        self.sums.push(doing.sums);
        if changed {
            self.same_changes()?;
        }
        Ok(outcome)
    }

    fn carry_out(&mut self, term: u64, by: Option<&Principal>, op: &Op, doing: &mut Doing) -> Outcome {
        let done = match op {
            Op::Put(put) => self.put_alone(put, doing),
            Op::Delete(range) => {
                let count = self.delete(range, doing);
                Ok(Outcome::Deleted { revision: after(doing), count })
            }
            Op::Txn(txn) => self.txn(txn, doing),
            Op::Increment { key, by } => self.increment(key, *by, doing),
            Op::Compact(revision) => {
                if revision.0 > doing.sums.revision {
                    Err(Refusal::Future(Revision(doing.sums.revision)))
                } else if revision.0 < doing.sums.compacted {
                    Err(Refusal::Compacted(Revision(doing.sums.compacted)))
                } else {
                    Ok(Outcome::Compacted(*revision))
                }
            }
            Op::Grant { id, ttl_seconds } => self.grant(*id, *ttl_seconds, by, doing),
            Op::Revoke(id) => match self.lease(*id) {
                None => Err(Refusal::NoLease(*id)),
                Some(_) => {
                    self.end(*id, doing);
                    Ok(Outcome::Revoked { revision: after(doing), keys: doing.changes.len() as u64 })
                }
            },
            Op::Expire { term: of, leases } => {
                for (id, grant) in leases.iter().filter(|_| *of == term) {
                    if self.lease(*id).is_some_and(|(_, is)| is == *grant) {
                        self.end(*id, doing);
                    }
                }
                Ok(Outcome::Revoked { revision: after(doing), keys: doing.changes.len() as u64 })
            }
            Op::Configure(settings) => {
                doing.sums.settings = *settings;
                Ok(Outcome::Configured(*settings))
            }
            Op::Secure(change) => self.secure(change, doing.index),
        };
        done.unwrap_or_else(Outcome::Refused)
    }

    fn put_alone(&mut self, put: &Put, doing: &mut Doing) -> Result<Outcome, Refusal> {
        self.may_put(&[put], 0, doing)?;
        let version = self.put(put, doing);
        Ok(Outcome::Put { revision: after(doing), version })
    }

    /// All leases are there, and the quota leaves room. `deleted`: what the keys take that the same
    /// command deletes.
    fn may_put(&self, puts: &[&Put], deleted: u64, doing: &Doing) -> Result<(), Refusal> {
        for put in puts {
            if !put.lease.is_none() && self.lease(put.lease).is_none() {
                return Err(Refusal::NoLease(put.lease));
            }
        }
        let (mut more, mut less) = (0, deleted);
        for put in puts {
            more += put.value.len() as u64;
            match self.get(&put.key) {
                None => more += put.key.len() as u64,
                Some(was) => less += was.value.len() as u64,
            }
        }
        let quota = doing.sums.settings.quota_bytes;
        let needs = (doing.sums.bytes + LEASE_BYTES * doing.sums.leases + more).saturating_sub(less);
        if more > less && needs > quota { Err(Refusal::Quota { needs, quota }) } else { Ok(()) }
    }

    fn put(&mut self, put: &Put, doing: &mut Doing) -> u64 {
        let Put { key, value, lease } = put;
        let revision = Revision(doing.sums.revision + 1);
        let previous = self.get(key).cloned();
        let now = KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: previous.as_ref().map_or(revision, |was| was.create_revision),
            mod_revision: revision,
            version: previous.as_ref().map_or(1, |was| was.version + 1),
            lease: *lease,
        };
        doing.sums.keys += usize::from(previous.is_none());
        doing.sums.bytes += (key.len() + value.len()) as u64;
        doing.sums.bytes -= previous.as_ref().map_or(0, |was| (key.len() + was.value.len()) as u64);
        self.states.entry(key.clone()).or_default().push((revision.0, Some(now.clone())));
        let version = now.version;
        doing.changes.push(Event { key: key.clone(), now: Some(now), previous });
        version
    }

    fn delete(&mut self, range: &KeyRange, doing: &mut Doing) -> u64 {
        let keys: Vec<Bytes> = self.range(range, None).map(|kv| kv.key.clone()).collect();
        keys.iter().for_each(|key| self.delete_key(key, doing));
        keys.len() as u64
    }

    fn delete_key(&mut self, key: &Bytes, doing: &mut Doing) {
        let Some(was) = self.get(key).cloned() else { return };
        doing.sums.keys -= 1;
        doing.sums.bytes -= (key.len() + was.value.len()) as u64;
        self.states.entry(key.clone()).or_default().push((doing.sums.revision + 1, None));
        doing.changes.push(Event { key: key.clone(), now: None, previous: Some(was) });
    }

    fn increment(&mut self, key: &Bytes, by: i64, doing: &mut Doing) -> Result<Outcome, Refusal> {
        let was = self.get(key);
        let before = match was {
            None => 0,
            Some(was) => std::str::from_utf8(&was.value)
                .ok()
                .and_then(|text| text.trim().parse::<i64>().ok())
                .ok_or(Refusal::NotANumber)?,
        };
        let lease = was.map_or(LeaseId::NONE, |was| was.lease);
        let value = before.checked_add(by).ok_or(Refusal::Overflow)?;
        let put = Put { key: key.clone(), value: Bytes::from(value.to_string()), lease };
        self.may_put(&[&put], 0, doing)?;
        let version = self.put(&put, doing);
        Ok(Outcome::Incremented { revision: after(doing), version, value })
    }

    fn grant(
        &mut self,
        id: LeaseId,
        ttl_seconds: u64,
        by: Option<&Principal>,
        doing: &mut Doing,
    ) -> Result<Outcome, Refusal> {
        if self.lease(id).is_some() {
            return Err(Refusal::LeaseExists(id));
        }
        let needs = doing.sums.bytes + LEASE_BYTES * (doing.sums.leases + 1);
        let quota = doing.sums.settings.quota_bytes;
        if needs > quota {
            return Err(Refusal::Quota { needs, quota });
        }
        let maker = self.rules(doing.index).owner(by);
        if maker.is_some() && doing.sums.leases >= IDLE_LEASES_MAX {
            let is_idle = |lease: &LeaseId| {
                let is_makers = self.lease(*lease).is_some_and(|it| self.makers.get(&it.1) == maker.as_ref());
                is_makers && self.keys_of(*lease, u64::MAX).next().is_none()
            };
            if self.leases.keys().filter(|lease| is_idle(lease)).count() as u64 >= IDLE_LEASES_MAX {
                return Err(Refusal::TooManyLeases { limit: IDLE_LEASES_MAX });
            }
        }
        self.grants += 1;
        self.makers.extend(maker.map(|maker| (self.grants, maker)));
        let mut id = id;
        if id.is_none() {
            id = LeaseId(self.grants);
            while self.lease(id).is_some() {
                id.0 += 1;
            }
        }
        let ttl_seconds = ttl_seconds.clamp(LEASE_TTL_SECONDS_MIN, LEASE_TTL_SECONDS_MAX);
        self.leases.entry(id).or_default().push((doing.index, Some((ttl_seconds, self.grants))));
        doing.sums.leases += 1;
        Ok(Outcome::Granted { id, ttl_seconds })
    }

    /// A lease ends, and its keys with it.
    fn end(&mut self, id: LeaseId, doing: &mut Doing) {
        let keys: Vec<Bytes> = self.keys_of(id, u64::MAX).map(|kv| kv.key.clone()).collect();
        keys.iter().for_each(|key| self.delete_key(key, doing));
        self.leases.entry(id).or_default().push((doing.index, None));
        doing.sums.leases -= 1;
    }

    fn txn(&mut self, txn: &Txn, doing: &mut Doing) -> Result<Outcome, Refusal> {
        let mut taken = Vec::new();
        let mut puts = Vec::new();
        let (mut unread, mut deleted) = (None, BTreeMap::new());
        self.choose(txn, &mut taken, &mut |op| match op {
            TxnOp::Put(put) => puts.push(put.clone()),
            TxnOp::Delete(range) => {
                let keys = self.range(range, None).map(|kv| (kv.key.clone(), kv.bytes() as u64));
                deleted.extend(keys);
            }
            TxnOp::Get(query) => {
                if let Some(at) = query.at
                    && let Err(error) = readable(at, &doing.sums)
                {
                    unread.get_or_insert(error);
                }
            }
            TxnOp::Txn(_) => {}
        });
        self.may_put(&puts.iter().collect::<Vec<_>>(), deleted.values().sum(), doing)?;
        match unread {
            Some(ReadError::Compacted(oldest)) => return Err(Refusal::Compacted(oldest)),
            Some(ReadError::Future(newest)) => return Err(Refusal::Future(newest)),
            None => {}
        }
        let mut room = Room::new(reads_in(txn));
        // What was is read before the first change.
        let mut pasts = VecDeque::new();
        let revision = doing.sums.revision;
        self.choose(txn, &mut Vec::new(), &mut |op| {
            if let TxnOp::Get(query) = op
                && let Some(at) = query.at
            {
                pasts.push_back(self.page_within(query, at.0, revision, &mut room));
            }
        });
        let mut reading = Reading { taken: VecDeque::from(taken), room, pasts };
        let (succeeded, results) = self.take_steps(txn, &mut reading, doing);
        Ok(Outcome::Txn { revision: after(doing), succeeded, results })
    }

    /// Which branches are taken, in the order in which they are met: all by the state before.
    fn choose(&self, txn: &Txn, taken: &mut Vec<bool>, visit: &mut impl FnMut(&TxnOp)) {
        let holds = txn.compare.iter().all(|compare| self.holds(compare));
        taken.push(holds);
        for op in if holds { &txn.success } else { &txn.failure } {
            visit(op);
            if let TxnOp::Txn(inner) = op {
                self.choose(inner, taken, visit);
            }
        }
    }

    fn take_steps(&mut self, txn: &Txn, reading: &mut Reading, doing: &mut Doing) -> (bool, Vec<TxnResult>) {
        let succeeded = reading.taken.pop_front().unwrap_or(false);
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let results = branch.iter().map(|op| match op {
            TxnOp::Put(put) => TxnResult::Put { version: self.put(put, doing) },
            TxnOp::Delete(range) => TxnResult::Deleted { count: self.delete(range, doing) },
            TxnOp::Get(query) if query.at.is_some() => {
                TxnResult::Range(reading.pasts.pop_front().unwrap_or_default())
            }
            TxnOp::Get(query) => {
                TxnResult::Range(self.page_within(query, u64::MAX, after(doing).0, &mut reading.room))
            }
            TxnOp::Txn(inner) => {
                let (succeeded, results) = self.take_steps(inner, reading, doing);
                TxnResult::Txn { succeeded, results }
            }
        });
        (succeeded, results.collect())
    }

    fn holds(&self, compare: &Compare) -> bool {
        if let Some(key) = compare.range.one_key() {
            return match self.get(key) {
                Some(found) => compares(compare, found),
                None => !matches!(compare.target, Target::Value(_)) && compares(compare, &nothing(key)),
            };
        }
        self.range(&compare.range, None).all(|kv| compares(compare, kv))
    }

    /// A key as it is.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.states.get(key)?.last()?.1.as_ref()
    }

    /// A key as it was at a revision.
    #[must_use]
    pub fn get_at(&self, key: &[u8], revision: u64) -> Option<&KeyValue> {
        was(self.states.get(key)?, revision)
    }

    /// The keys of a range as it is, or was at a revision.
    pub fn range<'a>(
        &'a self,
        range: &'a KeyRange,
        at: Option<u64>,
    ) -> impl Iterator<Item = &'a KeyValue> + 'a {
        let revision = at.unwrap_or(u64::MAX);
        let states = self
            .states
            .range::<[u8], _>((std::ops::Bound::Included(&range.start[..]), std::ops::Bound::Unbounded));
        states
            .take_while(|(key, _)| range.end.as_ref().is_none_or(|end| *key < end))
            .filter_map(move |(_, states)| was(states, revision))
    }

    /// The page of a range as it was at a revision, read when the store had another one.
    #[must_use]
    pub fn page(&self, query: &RangeQuery, at: u64, revision: u64) -> RangePage {
        self.page_within(query, at, revision, &mut Room::new(1))
    }

    /// The same, of one of several reads.
    fn page_within(&self, query: &RangeQuery, at: u64, revision: u64, room: &mut Room) -> RangePage {
        let page = page_of(query, self.range(&query.range, Some(at)), room);
        RangePage { revision: Revision(revision), ..page }
    }

    /// What a watch is told of a revision.
    #[must_use]
    pub fn wanted(&self, query: &ChangesQuery, revision: u64) -> Vec<Event> {
        let changes = usize::try_from(revision).ok().and_then(|revision| self.changes.get(revision));
        let wanted = changes.into_iter().flatten().filter(|event| {
            let kind = if event.now.is_some() { query.puts } else { query.deletions };
            kind && query.range.contains(&event.key)
        });
        let previous = |event: &Event| event.previous.clone().filter(|_| query.previous);
        wanted.map(|event| Event { previous: previous(event), ..event.clone() }).collect()
    }

    /// A lease as it is: its time to live and the number of its grant.
    #[must_use]
    pub fn lease(&self, id: LeaseId) -> Option<(u64, u64)> {
        self.leases.get(&id)?.last()?.1
    }

    /// A lease as it was after the entry of an index.
    #[must_use]
    pub fn lease_at(&self, id: LeaseId, index: usize) -> Option<Lease> {
        let states = self.leases.get(&id)?;
        let before = states.partition_point(|(from, _)| *from <= index).checked_sub(1)?;
        let (ttl_seconds, grant) = states[before].1?;
        let revision = self.at(index).map_or(u64::MAX, |sums| sums.revision);
        Some(Lease { id, ttl_seconds, grant, keys: self.keys_of(id, revision).count() as u64 })
    }

    /// The leases that were there after the entry of an index.
    pub fn leases_at(&self, index: usize) -> impl Iterator<Item = Lease> + '_ {
        self.leases.keys().filter_map(move |id| self.lease_at(*id, index))
    }

    /// The keys that ended with a lease, at a revision.
    pub fn keys_of(&self, id: LeaseId, revision: u64) -> impl Iterator<Item = &KeyValue> {
        let keys = self.states.values().filter_map(move |states| was(states, revision));
        keys.filter(move |kv| kv.lease == id && !id.is_none())
    }
}

/// The revision after the command, as far as it has got.
fn after(doing: &Doing) -> Revision {
    Revision(doing.sums.revision + u64::from(!doing.changes.is_empty()))
}

/// Whether a revision can be read at.
///
/// # Errors
/// Why not.
pub fn readable(at: Revision, sums: &Sums) -> Result<(), ReadError> {
    if at.0 < sums.compacted {
        Err(ReadError::Compacted(Revision(sums.compacted)))
    } else if at.0 > sums.revision {
        Err(ReadError::Future(Revision(sums.revision)))
    } else {
        Ok(())
    }
}

fn was(states: &[(u64, Option<KeyValue>)], revision: u64) -> Option<&KeyValue> {
    let last = states.last().filter(|(from, _)| *from <= revision);
    let state = last.or_else(|| {
        let before = states.partition_point(|(from, _)| *from <= revision);
        states[..before].last()
    });
    state?.1.as_ref()
}
