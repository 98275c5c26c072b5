//! A right decides: what a caller may do and see, as the state is before a command or where a read
//! is served. The same table as that of `docs/security.md`.

use crate::checks::keyspace::model::Model;
use crate::checks::keyspace::rules::Rules;
use crate::record::violation::{Violation, check};
use bytes::Bytes;
use infinitystore::kv::{
    AdminRight, Denial, KeyRange, LeaseId, Op, Outcome, Principal, Put, Query, Refusal, SecurityChange, Txn,
    TxnOp,
};
use infinitystore::replica::{ClientError, ClientReply};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Somebody who is known, and what the state is.
struct Caller<'m> {
    model: &'m Model,
    index: usize,
    rules: &'m Rules,
    by: Option<&'m Principal>,
    roles: &'m BTreeSet<String>,
}

impl Caller<'_> {
    fn reads(&self, range: &KeyRange) -> Result<(), Denial> {
        let may = self.rules.covers(self.roles, false, range);
        if may { Ok(()) } else { Err(Denial::MayNotRead) }
    }

    fn writes(&self, range: &KeyRange) -> Result<(), Denial> {
        let may = self.rules.covers(self.roles, true, range);
        if may { Ok(()) } else { Err(Denial::MayNotWrite) }
    }

    fn administers(&self, right: AdminRight) -> Result<(), Denial> {
        let may = self.rules.administers(self.roles, right);
        if may { Ok(()) } else { Err(Denial::MayNotAdminister(right)) }
    }

    fn keys_of(&self, lease: LeaseId) -> impl Iterator<Item = KeyRange> {
        let revision = self.model.at(self.index).map_or(0, |sums| sums.revision);
        self.model.keys_of(lease, revision).map(|kv| KeyRange::one(kv.key.clone()))
    }

    /// To see a lease is to see all its keys.
    fn sees(&self, lease: LeaseId) -> Result<(), Denial> {
        self.keys_of(lease).try_for_each(|key| self.reads(&key))
    }

    /// To renew, to end and to use a lease is to decide on all its keys. One that has none is its
    /// maker's.
    fn uses(&self, lease: LeaseId) -> Result<(), Denial> {
        self.keys_of(lease).try_for_each(|key| self.writes(&key))?;
        let grant = self.model.lease_at(lease, self.index).map(|lease| lease.grant);
        let maker = grant.and_then(|grant| self.model.makers.get(&grant));
        let is_anothers = maker.is_some() && self.rules.owner(self.by) != maker.copied();
        if is_anothers && self.keys_of(lease).next().is_none() {
            return self.writes(&KeyRange::all()).map_err(|_| Denial::AnothersLease);
        }
        Ok(())
    }

    fn puts(&self, put: &Put) -> Result<(), Denial> {
        self.writes(&KeyRange::one(put.key.clone()))?;
        if put.lease.is_none() { Ok(()) } else { self.uses(put.lease) }
    }

    fn transacts(&self, txn: &Txn) -> Result<(), Denial> {
        txn.compare.iter().try_for_each(|compare| self.reads(&compare.range))?;
        txn.success.iter().chain(&txn.failure).try_for_each(|step| match step {
            TxnOp::Put(put) => self.puts(put),
            TxnOp::Delete(range) => self.writes(range),
            TxnOp::Get(query) => self.reads(&query.range),
            TxnOp::Txn(inner) => self.transacts(inner),
        })
    }

    fn does(&self, op: &Op) -> Result<(), Denial> {
        let one = |key: &Bytes| KeyRange::one(key.clone());
        match op {
            Op::Put(put) => self.puts(put),
            Op::Delete(range) => self.writes(range),
            Op::Txn(txn) => self.transacts(txn),
            Op::Increment { key, .. } => self.reads(&one(key)).and_then(|()| self.writes(&one(key))),
            Op::Grant { .. } if self.rules.writes_nothing(self.roles) => Err(Denial::MayNotWrite),
            Op::Grant { .. } => Ok(()),
            Op::Revoke(lease) => self.uses(*lease),
            Op::Compact(_) | Op::Configure(_) => self.administers(AdminRight::Settings),
            // Nobody who has a name can.
            Op::Expire { .. } => Err(Denial::MayNotAdminister(AdminRight::Settings)),
            Op::Secure(change) => match &**change {
                SecurityChange::SetPassword { name, .. } if self.rules.is_user(name, self.by) => Ok(()),
                _ => self.administers(AdminRight::Security),
            },
        }
    }

    fn asks(&self, query: &Query) -> Result<(), Denial> {
        match query {
            Query::Key(key) => self.reads(&KeyRange::one(key.clone())),
            Query::Range(query) => self.reads(&query.range),
            Query::Lease(lease) | Query::LeaseKeys(lease, ..) => self.sees(*lease),
            Query::Leases(..) => self.reads(&KeyRange::all()),
            Query::Settings => Ok(()),
            Query::Security => self.administers(AdminRight::Security),
            Query::Permission(right) => self.administers(*right),
        }
    }
}

/// What was asked, as far as a right to it is concerned.
#[derive(Clone, Debug)]
pub enum NeededRight {
    /// A query.
    Query(Query),
    /// Changes of a range.
    Changes(KeyRange),
    /// The time of a lease, and whether it begins anew.
    Lease(LeaseId, bool),
    /// A command, as the state was before it.
    Command(Op),
}

impl Model {
    /// The rules after the entry of an index.
    #[must_use]
    pub fn rules(&self, index: usize) -> &Rules {
        let since = self.rules.partition_point(|(from, _)| *from <= index);
        &self.rules[since - 1].1
    }

    /// Whose command the entry of an index is.
    #[must_use]
    pub fn author(&self, index: usize) -> Option<Principal> {
        self.authors.get(&index).copied()
    }

    /// A caller at an index; `None`: nothing is judged there.
    fn caller<'m>(&'m self, index: usize, by: Option<&'m Principal>) -> Result<Option<Caller<'m>>, Denial> {
        let rules = self.rules(index);
        if !rules.enabled {
            return Ok(None);
        }
        let roles = rules.roles_of(by)?;
        Ok(Some(Caller { model: self, index, rules, by, roles }))
    }

    /// Whether the next command may be carried out.
    pub(super) fn judge(&self, by: Option<&Principal>, op: &Op) -> Result<(), Denial> {
        if let (Op::Expire { .. }, None) = (op, by) {
            // A leader says it.
            return Ok(());
        }
        self.caller(self.applied(), by)?.map_or(Ok(()), |caller| caller.does(op))
    }

    /// Whether something may be told that is read after the entry of an index, or done after it.
    ///
    /// # Errors
    /// Why not.
    pub fn may_see(&self, by: Option<&Principal>, wanted: &NeededRight, index: usize) -> Result<(), Denial> {
        let Some(caller) = self.caller(index, by)? else { return Ok(()) };
        match wanted {
            NeededRight::Query(query) => caller.asks(query),
            NeededRight::Changes(range) => caller.reads(range),
            NeededRight::Lease(lease, true) => caller.uses(*lease),
            NeededRight::Lease(lease, false) => caller.sees(*lease),
            NeededRight::Command(op) => caller.does(op),
        }
    }

    /// A right decides: what was told could be told at some time of this span, and what was denied
    /// had to be denied at some time of it, for this reason. What was met, for the marks.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn check_right(
        &self,
        by: Option<&Principal>,
        wanted: &NeededRight,
        reply: &ClientReply,
        span: RangeInclusive<usize>,
    ) -> Result<bool, Violation> {
        let right = match reply {
            ClientReply::Failed(ClientError::Denied(denial)) => Err(*denial),
            ClientReply::Failed(_) => return Ok(false),
            _ => Ok(()),
        };
        check!(
            "a right decides",
            span.clone().any(|index| self.may_see(by, wanted, index) == right),
            "{by:?} asked for {wanted:?} and was told {reply:?}; in {span:?} the rules say {:?}",
            self.may_see(by, wanted, *span.end())
        );
        Ok(right.is_err())
    }

    /// A change of the rules.
    pub(super) fn secure(&mut self, change: &SecurityChange, index: usize) -> Result<Outcome, Refusal> {
        let next = self.rules(index).changed(change).map_err(Refusal::Security)?;
        let changes = next.changes;
        self.rules.push((index, Arc::new(next)));
        Ok(Outcome::Secured(changes))
    }

    /// The product's rules are those of the log.
    pub(super) fn same_rules(&self) -> Result<(), Violation> {
        let (rules, found) = (self.rules(usize::MAX), self.shadow.security());
        check!("the rules are those of the committed log", rules.are(found), "{found:?} should be {rules:?}");
        Ok(())
    }
}
