//! The one place where a request is judged, against the state that it reads or changes.
//!
//! What a request needs:
//!
//! | what it does | what that needs |
//! |---|---|
//! | read a key, a range, a page, the past, changes | to read all of the range |
//! | compare | to read all that is compared: the answer tells of it |
//! | put, delete | to write all of it |
//! | add to a number | to read and to write the key: the sum tells of it |
//! | a transaction | all that its comparisons and the steps of both branches need, at any depth |
//! | put with a lease | to write the key, and all keys that the lease has: they share its fate |
//! | end or renew a lease | to write all of its keys: they end, or stay, with it |
//! | the same, and a put, with a lease without keys | to have made it, or to write every key |
//! | see a lease's time or its keys | to read all of its keys |
//! | list leases | to read every key |
//! | make a lease | to write something |
//! | see the settings | to be known |
//! | change settings, compact; users, roles, tokens | the right to it |

use crate::kv::command::{Op, Put, Txn, TxnOp};
use crate::kv::query::{Query, QueryAnswer};
use crate::kv::security::{AdminRight, Denial, Principal, Rights, SecurityChange, Subject};
use crate::kv::store::Store;
use crate::kv::types::{KeyRange, LeaseId};

impl Store {
    /// Whether a command may be carried out, as the state is before it.
    ///
    /// # Errors
    /// [`Denial`] if not.
    pub fn judge(&self, by: Option<&Principal>, op: &Op) -> Result<(), Denial> {
        if !self.security.is_enabled() {
            return Ok(());
        }
        match (by, op) {
            // A leader says it, in a term of its own. Nobody who has a name can.
            (None, Op::Expire { .. }) => return Ok(()),
            (Some(_), Op::Expire { .. }) => return Err(Denial::MayNotAdminister(AdminRight::Settings)),
            _ => {}
        }
        let rights = self.security.rights(by)?;
        match op {
            Op::Put(put) => self.judge_put(&rights, put),
            Op::Delete(range) => rights.check_write(range),
            Op::Txn(txn) => self.judge_txn(&rights, txn),
            Op::Increment { key, .. } => {
                let range = KeyRange::one(key.clone());
                rights.check_read(&range).and_then(|()| rights.check_write(&range))
            }
            // Nobody else has a use for one.
            Op::Grant { .. } if rights.ranges(true).is_some_and(|ranges| ranges.is_empty()) => {
                Err(Denial::MayNotWrite)
            }
            Op::Grant { .. } | Op::Expire { .. } => Ok(()),
            Op::Revoke(id) => self.judge_use_of(&rights, *id),
            Op::Compact(_) | Op::Configure(_) => rights.check_admin(AdminRight::Settings),
            Op::Secure(change) => match (by, &**change) {
                // A user's own password, for a client that came with it.
                (
                    Some(Principal { subject: Subject::User(id), .. }),
                    SecurityChange::SetPassword { name, .. },
                ) if self.security.user(name).is_some_and(|user| user.id == *id) => Ok(()),
                _ => rights.check_admin(AdminRight::Security),
            },
        }
    }

    /// Whether a query may be answered.
    ///
    /// # Errors
    /// [`Denial`] if not.
    pub fn judge_query(&self, by: Option<&Principal>, query: &Query) -> Result<(), Denial> {
        if !self.security.is_enabled() {
            return Ok(());
        }
        let rights = self.security.rights(by)?;
        match query {
            Query::Key(key) => rights.check_read(&KeyRange::one(key.clone())),
            Query::Range(query) => rights.check_read(&query.range),
            Query::Lease(id) | Query::LeaseKeys(id, ..) => self.judge_keys_of(&rights, *id, false),
            Query::Leases(..) => rights.check_read(&KeyRange::all()),
            Query::Settings => Ok(()),
            Query::Security => rights.check_admin(AdminRight::Security),
            Query::Permission(right) => rights.check_admin(*right),
        }
    }

    /// Whether what changed in a range may be told.
    ///
    /// # Errors
    /// [`Denial`] if not.
    pub fn judge_changes(&self, by: Option<&Principal>, range: &KeyRange) -> Result<(), Denial> {
        if !self.security.is_enabled() {
            return Ok(());
        }
        self.security.rights(by)?.check_read(range)
    }

    /// Whether a lease's time may be told, or begin anew.
    ///
    /// # Errors
    /// [`Denial`] if not.
    pub fn judge_lease(&self, by: Option<&Principal>, id: LeaseId, renew: bool) -> Result<(), Denial> {
        if !self.security.is_enabled() {
            return Ok(());
        }
        let rights = self.security.rights(by)?;
        if renew { self.judge_use_of(&rights, id) } else { self.judge_keys_of(&rights, id, false) }
    }

    /// Answers a query, if that may be.
    ///
    /// # Errors
    /// [`Denial`] if not.
    pub fn answer_to(&self, by: Option<&Principal>, query: &Query) -> Result<QueryAnswer, Denial> {
        self.judge_query(by, query)?;
        Ok(self.answer(query))
    }

    /// Whether all keys of a lease are in ranges that may be read, or written. It counts them range
    /// by range: what it costs does not grow with the lease.
    fn judge_keys_of(&self, rights: &Rights<'_>, id: LeaseId, writes: bool) -> Result<(), Denial> {
        let Some(ranges) = rights.ranges(writes) else { return Ok(()) };
        let covered: u64 = ranges.iter().map(|range| self.leases.keys_in(id, range)).sum();
        if covered == self.leases.keys(id) {
            Ok(())
        } else if writes {
            Err(Denial::MayNotWrite)
        } else {
            Err(Denial::MayNotRead)
        }
    }

    /// Whether a lease may be renewed, ended, or get a key. A lease without keys belongs to its
    /// maker: with a key of somebody else's the maker could not renew it any more. Nobody knows the
    /// maker of a lease from when the cluster was open.
    fn judge_use_of(&self, rights: &Rights<'_>, id: LeaseId) -> Result<(), Denial> {
        self.judge_keys_of(rights, id, true)?;
        let has_keys = self.leases.keys(id) > 0;
        if has_keys || self.leases.owner(id).is_none_or(|owner| rights.owns(owner)) {
            return Ok(());
        }
        rights.check_write(&KeyRange::all()).map_err(|_| Denial::AnothersLease)
    }

    /// A put with a lease ties the lease to that key: nobody without a right to the key could renew
    /// or end it any more.
    fn judge_put(&self, rights: &Rights<'_>, put: &Put) -> Result<(), Denial> {
        rights.check_write(&KeyRange::one(put.key.clone()))?;
        if put.lease.is_none() { Ok(()) } else { self.judge_use_of(rights, put.lease) }
    }

    fn judge_txn(&self, rights: &Rights<'_>, txn: &Txn) -> Result<(), Denial> {
        for compare in &txn.compare {
            rights.check_read(&compare.range)?;
        }
        // Both branches, whichever is taken: which one it is tells of what is compared, and nobody
        // can see it before.
        for step in txn.success.iter().chain(&txn.failure) {
            match step {
                TxnOp::Put(put) => self.judge_put(rights, put)?,
                TxnOp::Delete(range) => rights.check_write(range)?,
                TxnOp::Get(query) => rights.check_read(&query.range)?,
                TxnOp::Txn(inner) => self.judge_txn(rights, inner)?,
            }
        }
        Ok(())
    }
}
