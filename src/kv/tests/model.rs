//! The state machine in the plainest words: every state it was in, whole.

use crate::kv::answers::{ANSWER_OVERHEAD, HEAD_BYTES, UNDATED_HEAD_BYTES};
use crate::kv::leases::LEASE_BYTES;
use crate::kv::{
    Changes, ChangesQuery, Command, Compare, CompareOrder, Detail, Event, ForgottenAnswer, KeyValue,
    LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN, LeaseId, Op, Outcome, Put, RangePage, RangeQuery,
    ReadError, Refusal, Revision, RevisionChanges, Settings, Target, Txn, TxnOp, TxnResult,
};
use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;
use bytes::Bytes;
use core::cmp::Ordering;

pub(super) type Keys = BTreeMap<Bytes, KeyValue>;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// The keys at each revision, from 0.
    pub(super) states: Vec<Keys>,
    /// The changes of each revision.
    pub(super) events: Vec<Vec<Event>>,
    /// The oldest revision that can be read at. How much history fits into its bytes, the model
    /// does not know: the test tells it.
    pub(super) compacted: u64,
    /// Time to live and number of the grant, by id.
    pub(super) leases: BTreeMap<u64, (u64, u64)>,
    pub(super) last_grant: u64,
    pub(super) settings: Settings,
    /// Each with the revision at which it was made, and what it takes, bytes; the oldest first.
    pub(super) answers: Vec<(Bytes, Op, Outcome, u64, u64)>,
    pub(super) answers_given: u64,
    /// How many had been given when the level was raised from which on they are dated.
    pub(super) undated: Option<u64>,
    /// The revision of the newest answer that is forgotten, since then, or of all before.
    pub(super) forgotten: Option<u64>,
}

/// What a command makes of the keys.
struct Draft {
    keys: Keys,
    events: Vec<Event>,
    revision: u64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            states: [Keys::new()].into(),
            events: [Vec::new()].into(),
            compacted: 0,
            leases: BTreeMap::new(),
            last_grant: 0,
            settings: Settings::default(),
            answers: Vec::new(),
            answers_given: 0,
            undated: None,
            forgotten: None,
        }
    }
}

impl Model {
    pub(super) fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    pub(super) fn keys(&self) -> &Keys {
        self.states.last().unwrap()
    }

    pub(super) fn apply(&mut self, term: u64, command: &Command) -> Outcome {
        let Some(key) = &command.idempotency_key else { return self.carry_out(term, &command.op) };
        if let Some((_, op, outcome, ..)) = self.answers.iter().find(|(known, ..)| known == key) {
            let is_same = *op == command.op;
            return if is_same { outcome.clone() } else { Outcome::Refused(Refusal::KeyReused) };
        }
        if let Some(since) = command.since.filter(|_| self.undated.is_some()) {
            let newest = if since.0 > self.revision() { Some(self.revision()) } else { self.forgotten };
            if let Some(through) = newest.filter(|newest| since.0 > self.revision() || *newest >= since.0) {
                let why = ForgottenAnswer { since, through: Revision(through) };
                return Outcome::Refused(Refusal::AnswerForgotten(why));
            }
        }
        let outcome = self.carry_out(term, &command.op);
        let mut encoded = Vec::new();
        outcome.encode(&mut encoded);
        let head = if self.undated.is_some() { HEAD_BYTES } else { UNDATED_HEAD_BYTES };
        let bytes = (key.len() + head + encoded.len()) as u64 + ANSWER_OVERHEAD;
        if bytes <= self.settings.answers_bytes {
            let revision = self.revision();
            self.answers.push((key.clone(), command.op.clone(), outcome.clone(), revision, bytes));
            self.answers_given += 1;
            self.bound_answers();
        } else {
            self.forget(self.revision());
        }
        outcome
    }

    fn bound_answers(&mut self) {
        while self.answers.iter().map(|(.., bytes)| bytes).sum::<u64>() > self.settings.answers_bytes {
            let (.., revision, _) = self.answers.remove(0);
            self.forget(revision);
        }
    }

    fn forget(&mut self, revision: u64) {
        if self.undated.is_some() {
            self.forgotten = self.forgotten.max(Some(revision));
        }
    }

    /// The level is raised from which on answers are dated.
    pub(super) fn date_answers(&mut self) {
        let is_new = self.revision() == 0 && self.last_grant == 0 && self.answers_given == 0;
        let is_untouched = is_new && self.settings == Settings::default();
        self.undated = Some(self.answers_given);
        self.forgotten = (!is_untouched).then_some(self.revision());
    }

    fn carry_out(&mut self, term: u64, op: &Op) -> Outcome {
        let mut draft =
            Draft { keys: self.keys().clone(), events: Vec::new(), revision: self.revision() + 1 };
        self.try_on(term, op, &mut draft).unwrap_or_else(Outcome::Refused)
    }

    /// Takes the draft as the next revision, if it changes anything.
    fn end(&mut self, draft: &mut Draft) -> Revision {
        if !draft.events.is_empty() {
            self.states.push(core::mem::take(&mut draft.keys));
            self.events.push(core::mem::take(&mut draft.events));
        }
        Revision(self.revision())
    }

    fn try_on(&mut self, term: u64, op: &Op, draft: &mut Draft) -> Result<Outcome, Refusal> {
        match op {
            Op::Put(put) => {
                self.check_puts(&[put], 0)?;
                let version = draft.put(put);
                Ok(Outcome::Put { revision: self.end(draft), version })
            }
            Op::Delete(range) => {
                let count = draft.delete(|key, _| range.contains(key));
                Ok(Outcome::Deleted { revision: self.end(draft), count })
            }
            Op::Txn(txn) => {
                let (mut puts, mut unread) = (Vec::new(), None);
                let mut kept = draft.keys.clone();
                self.look_through(txn, &mut puts, &mut kept, &mut unread);
                self.check_puts(&puts, bytes_of(self.keys()) - bytes_of(&kept))?;
                if let Some(error) = unread {
                    return Err(error);
                }
                let (succeeded, results) = self.txn(txn, draft);
                Ok(Outcome::Txn { revision: self.end(draft), succeeded, results })
            }
            Op::Increment { key, by } => {
                let before = draft.keys.get(key);
                let text = before.map_or(Ok("0"), |before| core::str::from_utf8(&before.value));
                let number = text.ok().and_then(|text| text.trim().parse::<i64>().ok());
                let value = number.ok_or(Refusal::NotANumber)?.checked_add(*by).ok_or(Refusal::Overflow)?;
                let lease = before.map_or(LeaseId::NONE, |before| before.lease);
                let put = Put { key: key.clone(), value: value.to_string().into(), lease };
                self.check_puts(&[&put], 0)?;
                let version = draft.put(&put);
                Ok(Outcome::Incremented { revision: self.end(draft), version, value })
            }
            Op::Compact(revision) => {
                self.check_revision(*revision).map_err(|error| match error {
                    ReadError::Compacted(oldest) => Refusal::Compacted(oldest),
                    ReadError::Future(newest) => Refusal::Future(newest),
                })?;
                self.compacted = revision.0;
                Ok(Outcome::Compacted(*revision))
            }
            Op::Grant { id, ttl_seconds } => {
                if self.leases.contains_key(&id.0) {
                    return Err(Refusal::LeaseExists(*id));
                }
                let (needs, quota) = (self.used() + LEASE_BYTES, self.settings.quota_bytes);
                if needs > quota {
                    return Err(Refusal::Quota { needs, quota });
                }
                let ttl_seconds = (*ttl_seconds).clamp(LEASE_TTL_SECONDS_MIN, LEASE_TTL_SECONDS_MAX);
                self.last_grant += 1;
                let free = (self.last_grant..).find(|id| !self.leases.contains_key(id)).unwrap();
                let id = if id.is_none() { free } else { id.0 };
                self.leases.insert(id, (ttl_seconds, self.last_grant));
                Ok(Outcome::Granted { id: LeaseId(id), ttl_seconds })
            }
            Op::Revoke(id) => {
                self.leases.remove(&id.0).ok_or(Refusal::NoLease(*id))?;
                let keys = draft.delete(|_, found| found.lease == *id);
                Ok(Outcome::Revoked { revision: self.end(draft), keys })
            }
            Op::Expire { term: of, leases } => {
                let mut keys = 0;
                for (id, grant) in leases.iter().filter(|_| *of == term) {
                    if self.leases.get(&id.0).is_some_and(|(_, is)| is == grant) {
                        self.leases.remove(&id.0);
                        keys += draft.delete(|_, found| found.lease == *id);
                    }
                }
                Ok(Outcome::Revoked { revision: self.end(draft), keys })
            }
            Op::Configure(settings) => {
                self.settings = *settings;
                self.bound_answers();
                Ok(Outcome::Configured(*settings))
            }
            // `tests/security.rs` has a model of its own.
            Op::Secure(_) => unreachable!("no user is made here"),
        }
    }

    /// What counts for the quota.
    fn used(&self) -> u64 {
        bytes_of(self.keys()) + LEASE_BYTES * self.leases.len() as u64
    }

    /// `deleted`: what the keys take that are deleted by the same command.
    fn check_puts(&self, puts: &[&Put], deleted: u64) -> Result<(), Refusal> {
        for lease in puts.iter().map(|put| put.lease).filter(|lease| !lease.is_none()) {
            if !self.leases.contains_key(&lease.0) {
                return Err(Refusal::NoLease(lease));
            }
        }
        let was = |put: &&Put| self.keys().get(&put.key).map_or(0, KeyValue::bytes) as u64;
        let less = puts.iter().map(was).sum::<u64>() + deleted;
        let more: u64 = puts.iter().map(|put| (put.key.len() + put.value.len()) as u64).sum();
        let quota = self.settings.quota_bytes;
        match self.used() + more - less {
            needs if more > less && needs > quota => Err(Refusal::Quota { needs, quota }),
            _ => Ok(()),
        }
    }

    /// What a transaction will put, what of the keys it will not delete, and the first read of it
    /// that cannot be answered.
    fn look_through<'t>(
        &self,
        txn: &'t Txn,
        puts: &mut Vec<&'t Put>,
        kept: &mut Keys,
        unread: &mut Option<Refusal>,
    ) {
        for step in self.branch(txn).1 {
            match step {
                TxnOp::Put(put) => puts.push(put),
                TxnOp::Delete(range) => kept.retain(|key, _| !range.contains(key)),
                TxnOp::Get(query) => {
                    let error = query.at.and_then(|at| self.check_revision(at).err());
                    let error = error.map(|error| match error {
                        ReadError::Compacted(oldest) => Refusal::Compacted(oldest),
                        ReadError::Future(newest) => Refusal::Future(newest),
                    });
                    *unread = unread.take().or(error);
                }
                TxnOp::Txn(txn) => self.look_through(txn, puts, kept, unread),
            }
        }
    }

    fn branch<'t>(&self, txn: &'t Txn) -> (bool, &'t [TxnOp]) {
        let holds = txn.compare.iter().all(|compare| self.holds(compare));
        (holds, if holds { &txn.success } else { &txn.failure })
    }

    fn txn(&self, txn: &Txn, draft: &mut Draft) -> (bool, Vec<TxnResult>) {
        let (succeeded, steps) = self.branch(txn);
        let results = steps.iter().map(|step| match step {
            TxnOp::Put(put) => TxnResult::Put { version: draft.put(put) },
            TxnOp::Delete(range) => TxnResult::Deleted { count: draft.delete(|key, _| range.contains(key)) },
            TxnOp::Get(query) if query.at.is_some() => TxnResult::Range(self.range(query).unwrap()),
            TxnOp::Get(query) => {
                let revision = self.revision() + u64::from(!draft.events.is_empty());
                TxnResult::Range(page(&draft.keys, Revision(revision), query))
            }
            TxnOp::Txn(inner) => {
                let (succeeded, results) = self.txn(inner, draft);
                TxnResult::Txn { succeeded, results }
            }
        });
        (succeeded, results.collect())
    }

    fn holds(&self, compare: &Compare) -> bool {
        if let Some(key) = compare.range.one_key() {
            return match (self.keys().get(key), &compare.target) {
                (Some(found), _) => holds_of(compare, found),
                (None, Target::Value(_)) => false,
                (None, Target::Lease(lease)) => orders(compare.order, 0.cmp(&lease.0)),
                (None, Target::Version(number))
                | (None, Target::CreateRevision(Revision(number)) | Target::ModRevision(Revision(number))) => {
                    orders(compare.order, 0.cmp(number))
                }
            };
        }
        self.keys().iter().all(|(key, found)| !compare.range.contains(key) || holds_of(compare, found))
    }

    pub(super) fn check_revision(&self, at: Revision) -> Result<(), ReadError> {
        if at.0 < self.compacted {
            return Err(ReadError::Compacted(Revision(self.compacted)));
        }
        if at.0 > self.revision() {
            return Err(ReadError::Future(Revision(self.revision())));
        }
        Ok(())
    }

    pub(super) fn range(&self, query: &RangeQuery) -> Result<RangePage, ReadError> {
        let at = query.at.unwrap_or(Revision(self.revision()));
        self.check_revision(at)?;
        let keys = &self.states[usize::try_from(at.0).unwrap()];
        Ok(page(keys, Revision(self.revision()), query))
    }

    pub(super) fn changes(&self, query: &ChangesQuery) -> Result<Changes, ReadError> {
        if self.compacted > 0 && query.from.0 <= self.compacted {
            return Err(ReadError::Compacted(Revision(self.compacted + 1)));
        }
        let mut revisions = Vec::new();
        for (revision, events) in (0..).zip(&self.events).filter(|(revision, _)| *revision >= query.from.0) {
            let wanted = events.iter().filter(|event| {
                query.range.contains(&event.key)
                    && if event.now.is_some() { query.puts } else { query.deletions }
            });
            let events: Vec<Event> = wanted
                .map(|event| Event {
                    previous: event.previous.clone().filter(|_| query.previous),
                    ..event.clone()
                })
                .collect();
            if !events.is_empty() {
                revisions.push(RevisionChanges { revision: Revision(revision), events });
            }
        }
        Ok(Changes { revisions, next: query.from.max(Revision(self.revision() + 1)) })
    }
}

impl Draft {
    fn put(&mut self, put: &Put) -> u64 {
        let previous = self.keys.get(&put.key).cloned();
        let revision = Revision(self.revision);
        let now = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision: previous.as_ref().map_or(revision, |previous| previous.create_revision),
            mod_revision: revision,
            version: previous.as_ref().map_or(0, |previous| previous.version) + 1,
            lease: put.lease,
        };
        let version = now.version;
        self.keys.insert(put.key.clone(), now.clone());
        self.events.push(Event { key: put.key.clone(), now: Some(now), previous });
        version
    }

    fn delete(&mut self, is_meant: impl Fn(&[u8], &KeyValue) -> bool) -> u64 {
        let gone: Vec<KeyValue> = self
            .keys
            .iter()
            .filter(|(key, found)| is_meant(key, found))
            .map(|(_, found)| found.clone())
            .collect();
        for previous in &gone {
            self.keys.remove(&previous.key);
            let event = Event { key: previous.key.clone(), now: None, previous: Some(previous.clone()) };
            self.events.push(event);
        }
        gone.len() as u64
    }
}

fn bytes_of(keys: &Keys) -> u64 {
    keys.values().map(|found| found.bytes() as u64).sum()
}

fn page(keys: &Keys, revision: Revision, query: &RangeQuery) -> RangePage {
    let in_range = || keys.values().filter(|found| query.range.contains(&found.key));
    let wants_count = query.count || query.detail == Detail::Count;
    let count = wants_count.then(|| in_range().count() as u64);
    let mut page = RangePage { revision, count, ..RangePage::default() };
    if query.detail == Detail::Count {
        return page;
    }
    for found in in_range().filter(|found| query.resume.as_ref().is_none_or(|resume| found.key >= *resume)) {
        let gathered =
            query.delimiter.as_ref().filter(|delimiter| !delimiter.is_empty()).and_then(|delimiter| {
                let behind =
                    if found.key.starts_with(&query.range.start) { query.range.start.len() } else { 0 };
                let at = (behind..=found.key.len()).find(|at| found.key[*at..].starts_with(delimiter))?;
                Some(found.key.slice(..at + delimiter.len()))
            });
        if gathered.is_some() && page.prefixes.last() == gathered.as_ref() {
            continue;
        }
        if query.limit > 0 && page.kvs.len() + page.prefixes.len() == query.limit {
            page.next = Some(found.key.clone());
            break;
        }
        match gathered {
            Some(prefix) => page.prefixes.push(prefix),
            None if query.detail == Detail::Keys => {
                page.kvs.push(KeyValue { value: Bytes::new(), ..found.clone() });
            }
            None => page.kvs.push(found.clone()),
        }
    }
    page
}

fn holds_of(compare: &Compare, found: &KeyValue) -> bool {
    let order = match &compare.target {
        Target::Value(value) => found.value.cmp(value),
        Target::Version(version) => found.version.cmp(version),
        Target::CreateRevision(revision) => found.create_revision.cmp(revision),
        Target::ModRevision(revision) => found.mod_revision.cmp(revision),
        Target::Lease(lease) => found.lease.cmp(lease),
    };
    orders(compare.order, order)
}

fn orders(wanted: CompareOrder, order: Ordering) -> bool {
    match wanted {
        CompareOrder::Equal => order.is_eq(),
        CompareOrder::NotEqual => order.is_ne(),
        CompareOrder::Less => order.is_lt(),
        CompareOrder::Greater => order.is_gt(),
    }
}
