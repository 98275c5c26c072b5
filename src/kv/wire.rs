//! Commands as bytes: what the log holds.
//!
//! ```text
//! command  = [name], [255 (u8), principal], op
//! name     = 0 (u8), idempotency key
//!          | 254 (u8), idempotency key, since (u64): a revision from before its first attempt
//! op       = 1, key, value                          put
//!          | 2, key, value, lease (u64)             put with a lease
//!          | 3, range                               delete
//!          | 4, txn                                 transaction
//!          | 5, key, number (u64, two's complement) increment
//!          | 6, revision (u64)                      compact
//!          | 7, lease (u64), seconds (u64)          grant
//!          | 8, lease (u64)                         revoke
//!          | 9, term (u64), count (u32), (lease, grant: u64 each) …   expire
//!          | 10, history, quota, answers (bytes: u64 each)            configure
//!          | 11, change                            of users, roles, tokens
//! txn      = compare …, step … , step …             each list behind its count (u16)
//! compare  = range, target (u8), order (u8), value or number (u64)
//! step     = 1, key, value, lease | 2, range | 3, query | 4, txn
//! range    = start, has an end (u8), [end]
//! ```
//! A key, a value, a bound is a length (u32) and bytes. Integers are little-endian.
//! `security/wire.rs` has principals and changes of the rules.

use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::command::{
    Command, Compare, CompareOrder, IDEMPOTENCY_KEY_BYTES_MAX, Op, Put, Target, Txn, TxnOp,
};
use crate::kv::fields::{put_count, put_option, put_range, take_list, take_option, take_range};
use crate::kv::query::{Detail, RangeQuery};
use crate::kv::security::{Principal, SecurityChange};
use crate::kv::txn::TXN_DEPTH_MAX;
use crate::kv::types::{KEY_BYTES_MAX, LeaseId, Revision, Settings, VALUE_BYTES_MAX};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// Comes before the idempotency key of a command that has one.
const TAG_IDEMPOTENCY_KEY: u8 = 0;
/// Comes before the idempotency key of a command that says since when its answer counts, and that
/// revision.
const TAG_KEY_SINCE: u8 = 254;
/// Comes before the principal of a command that has one.
const TAG_PRINCIPAL: u8 = 255;

impl Command {
    /// Bytes of its keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.op.bytes() + self.idempotency_key.as_ref().map_or(0, Bytes::len)
    }

    /// Names what is done, and for whom: two commands that do the same for the same subject have
    /// the same fingerprint. So nobody gets the remembered answer of somebody else. Since when its
    /// answer counts is no part of it: a repetition may say so where the first attempt did not.
    pub(super) fn fingerprint(&self) -> u128 {
        let mut bytes = Vec::with_capacity(self.op.bytes() + 64);
        if let Some(Principal { subject, .. }) = self.by {
            Principal { subject, as_of: 0 }.encode(&mut bytes);
        }
        self.op.encode(&mut bytes);
        xxh3_128(&bytes)
    }

    /// Appends the encoded command to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if let Some(key) = &self.idempotency_key {
            out.put_u8(if self.since.is_some() { TAG_KEY_SINCE } else { TAG_IDEMPOTENCY_KEY });
            out.put_bytes(key);
            self.since.into_iter().for_each(|since| out.put_u64(since.0));
        }
        if let Some(by) = &self.by {
            out.put_u8(TAG_PRINCIPAL);
            by.encode(out);
        }
        self.op.encode(out);
    }

    /// Reads a command that fills the reader to its end; the strings share the reader's bytes.
    ///
    /// # Errors
    /// [`DecodeError`] if it is cut short, too long or undefined, or does not pass
    /// [`Command::check`].
    pub fn decode(mut reader: Reader) -> Result<Self, DecodeError> {
        let (mut idempotency_key, mut since) = (None, None);
        if let Some(&tag @ (TAG_IDEMPOTENCY_KEY | TAG_KEY_SINCE)) = reader.peek().first() {
            reader.u8("command")?;
            let key = reader.bytes("idempotency key", IDEMPOTENCY_KEY_BYTES_MAX)?;
            if key.is_empty() {
                return Err(DecodeError::Invalid { what: "length of the idempotency key", value: 0 });
            }
            idempotency_key = Some(key);
            if tag == TAG_KEY_SINCE {
                since = Some(Revision(reader.counter("revision before the first attempt")?));
            }
        }
        let mut by = None;
        if reader.peek().first() == Some(&TAG_PRINCIPAL) {
            reader.u8("command")?;
            by = Some(Principal::take(&mut reader)?);
        }
        let op = Op::take(&mut reader)?;
        reader.finish("command")?;
        if op.check().is_err() {
            return Err(DecodeError::Inconsistent { what: "command", why: "it breaks a limit or a rule" });
        }
        Ok(Self { idempotency_key, since, by, op })
    }
}

impl Op {
    /// Bytes of its keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Put(put) => put.key.len() + put.value.len(),
            Self::Delete(range) => range.bytes(),
            Self::Txn(txn) => txn.bytes(),
            Self::Increment { key, .. } => key.len(),
            Self::Expire { leases, .. } => 16 * leases.len(),
            Self::Secure(change) => change.bytes(),
            Self::Compact(_) | Self::Grant { .. } | Self::Revoke(_) | Self::Configure(_) => 0,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Put(Put { key, value, lease }) if lease.is_none() => {
                out.reserve(9 + key.len() + value.len());
                out.put_u8(1);
                out.put_bytes(key);
                out.put_bytes(value);
            }
            Self::Put(put) => {
                out.put_u8(2);
                put_put(out, put);
            }
            Self::Delete(range) => {
                out.put_u8(3);
                put_range(out, range);
            }
            Self::Txn(txn) => {
                out.put_u8(4);
                put_txn(out, txn);
            }
            Self::Increment { key, by } => {
                out.put_u8(5);
                out.put_bytes(key);
                out.put_u64(by.cast_unsigned());
            }
            Self::Compact(revision) => {
                out.put_u8(6);
                out.put_u64(revision.0);
            }
            Self::Grant { id, ttl_seconds } => {
                out.put_u8(7);
                out.put_u64(id.0);
                out.put_u64(*ttl_seconds);
            }
            Self::Revoke(id) => {
                out.put_u8(8);
                out.put_u64(id.0);
            }
            Self::Expire { term, leases } => {
                out.put_u8(9);
                out.put_u64(*term);
                out.put_u32(u32::try_from(leases.len()).expect("a leader ends leases in batches"));
                for (id, grant) in leases {
                    out.put_u64(id.0);
                    out.put_u64(*grant);
                }
            }
            Self::Configure(settings) => {
                out.put_u8(10);
                put_settings(out, settings);
            }
            Self::Secure(change) => {
                out.put_u8(11);
                change.encode(out);
            }
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8("command")? {
            1 => {
                let key = reader.bytes("key", KEY_BYTES_MAX)?;
                let value = reader.bytes("value", VALUE_BYTES_MAX)?;
                Self::Put(Put { key, value, lease: LeaseId::NONE })
            }
            2 => match take_put(reader)? {
                // It has the shorter form.
                Put { lease: LeaseId::NONE, .. } => {
                    return Err(DecodeError::Invalid { what: "lease", value: 0 });
                }
                put => Self::Put(put),
            },
            3 => Self::Delete(take_range(reader)?),
            4 => Self::Txn(Box::new(take_txn(reader, 1)?)),
            5 => {
                let key = reader.bytes("key", KEY_BYTES_MAX)?;
                Self::Increment { key, by: reader.u64("number")?.cast_signed() }
            }
            6 => Self::Compact(take_revision(reader)?),
            7 => Self::Grant { id: take_lease(reader)?, ttl_seconds: reader.u64("seconds to live")? },
            8 => Self::Revoke(take_lease(reader)?),
            9 => {
                let term = reader.u64("term")?;
                let count = reader.u32("number of leases")? as usize;
                let mut leases = Vec::with_capacity(count.min(reader.remaining() / 16));
                for _ in 0..count {
                    leases.push((take_lease(reader)?, reader.u64("number of the grant")?));
                }
                Self::Expire { term, leases }
            }
            10 => Self::Configure(take_settings(reader)?),
            11 => Self::Secure(Box::new(SecurityChange::take(reader)?)),
            tag => return Err(DecodeError::Invalid { what: "command", value: u64::from(tag) }),
        })
    }
}

impl Txn {
    /// Bytes of its keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let compares = self.compare.iter().map(|compare| {
            let value = if let Target::Value(value) = &compare.target { value.len() } else { 8 };
            compare.range.bytes() + value
        });
        let ops = self.success.iter().chain(&self.failure).map(|op| match op {
            TxnOp::Put(put) => put.key.len() + put.value.len(),
            TxnOp::Delete(range) => range.bytes(),
            TxnOp::Get(query) => {
                let others = [&query.resume, &query.delimiter];
                query.range.bytes() + others.into_iter().flatten().map(Bytes::len).sum::<usize>()
            }
            TxnOp::Txn(txn) => txn.bytes(),
        });
        compares.sum::<usize>() + ops.sum::<usize>()
    }
}

fn put_put(out: &mut Vec<u8>, put: &Put) {
    out.put_bytes(&put.key);
    out.put_bytes(&put.value);
    out.put_u64(put.lease.0);
}

fn take_put(reader: &mut Reader) -> Result<Put, DecodeError> {
    let key = reader.bytes("key", KEY_BYTES_MAX)?;
    let value = reader.bytes("value", VALUE_BYTES_MAX)?;
    Ok(Put { key, value, lease: take_lease(reader)? })
}

fn put_txn(out: &mut Vec<u8>, txn: &Txn) {
    put_count(out, txn.compare.len());
    for compare in &txn.compare {
        put_range(out, &compare.range);
        let (target, number) = match &compare.target {
            Target::Value(_) => (0, 0),
            Target::Version(version) => (1, *version),
            Target::CreateRevision(revision) => (2, revision.0),
            Target::ModRevision(revision) => (3, revision.0),
            Target::Lease(lease) => (4, lease.0),
        };
        out.put_u8(target);
        out.put_u8(match compare.order {
            CompareOrder::Equal => 0,
            CompareOrder::NotEqual => 1,
            CompareOrder::Less => 2,
            CompareOrder::Greater => 3,
        });
        match &compare.target {
            Target::Value(value) => out.put_bytes(value),
            _ => out.put_u64(number),
        }
    }
    for branch in [&txn.success, &txn.failure] {
        put_count(out, branch.len());
        for op in branch {
            match op {
                TxnOp::Put(put) => {
                    out.put_u8(1);
                    put_put(out, put);
                }
                TxnOp::Delete(range) => {
                    out.put_u8(2);
                    put_range(out, range);
                }
                TxnOp::Get(query) => {
                    out.put_u8(3);
                    put_query(out, query);
                }
                TxnOp::Txn(txn) => {
                    out.put_u8(4);
                    put_txn(out, txn);
                }
            }
        }
    }
}

fn take_txn(reader: &mut Reader, depth: usize) -> Result<Txn, DecodeError> {
    check_depth(depth)?;
    let compare = take_list(reader, |reader| {
        let range = take_range(reader)?;
        let target = reader.u8("target")?;
        let order = match reader.u8("order")? {
            0 => CompareOrder::Equal,
            1 => CompareOrder::NotEqual,
            2 => CompareOrder::Less,
            3 => CompareOrder::Greater,
            other => return Err(DecodeError::Invalid { what: "order", value: u64::from(other) }),
        };
        let target = match target {
            0 => Target::Value(reader.bytes("value", VALUE_BYTES_MAX)?),
            1 => Target::Version(reader.u64("version")?),
            2 => Target::CreateRevision(Revision(reader.u64("revision")?)),
            3 => Target::ModRevision(Revision(reader.u64("revision")?)),
            4 => Target::Lease(take_lease(reader)?),
            other => return Err(DecodeError::Invalid { what: "target", value: u64::from(other) }),
        };
        Ok(Compare { range, target, order })
    })?;
    let mut step = |reader: &mut Reader| {
        Ok(match reader.u8("step")? {
            1 => TxnOp::Put(take_put(reader)?),
            2 => TxnOp::Delete(take_range(reader)?),
            3 => TxnOp::Get(take_query(reader)?),
            4 => TxnOp::Txn(Box::new(take_txn(reader, depth + 1)?)),
            other => return Err(DecodeError::Invalid { what: "step", value: u64::from(other) }),
        })
    };
    let success = take_list(reader, &mut step)?;
    let failure = take_list(reader, &mut step)?;
    Ok(Txn { compare, success, failure })
}

fn put_query(out: &mut Vec<u8>, query: &RangeQuery) {
    put_range(out, &query.range);
    put_option(out, query.resume.as_ref());
    out.put_u8(u8::from(query.at.is_some()));
    out.put_u64(query.at.unwrap_or_default().0);
    out.put_u64(query.limit as u64);
    out.put_u8(match query.detail {
        Detail::Values => 0,
        Detail::Keys => 1,
        Detail::Count => 2,
    });
    put_option(out, query.delimiter.as_ref());
    out.put_u8(u8::from(query.count));
}

fn take_query(reader: &mut Reader) -> Result<RangeQuery, DecodeError> {
    let range = take_range(reader)?;
    let resume = take_option(reader, "resumed key")?;
    let has_revision = reader.flag("revision")?;
    let at = take_revision(reader)?;
    if !has_revision && at.0 != 0 {
        return Err(DecodeError::Invalid { what: "revision that is none", value: at.0 });
    }
    let limit = reader.u64("limit")?;
    let detail = match reader.u8("detail")? {
        0 => Detail::Values,
        1 => Detail::Keys,
        2 => Detail::Count,
        other => return Err(DecodeError::Invalid { what: "detail", value: u64::from(other) }),
    };
    let delimiter = take_option(reader, "delimiter")?;
    let count = reader.flag("count")?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(RangeQuery { range, resume, at: has_revision.then_some(at), limit, detail, delimiter, count })
}

pub(super) fn put_settings(out: &mut Vec<u8>, settings: &Settings) {
    out.put_u64(settings.history_bytes);
    out.put_u64(settings.quota_bytes);
    out.put_u64(settings.answers_bytes);
}

pub(super) fn take_settings(reader: &mut Reader) -> Result<Settings, DecodeError> {
    let history_bytes = reader.u64("bytes of the history")?;
    let quota_bytes = reader.u64("quota")?;
    Ok(Settings { history_bytes, quota_bytes, answers_bytes: reader.u64("bytes of answers")? })
}

pub(super) fn take_revision(reader: &mut Reader) -> Result<Revision, DecodeError> {
    reader.u64("revision").map(Revision)
}

pub(super) fn take_lease(reader: &mut Reader) -> Result<LeaseId, DecodeError> {
    reader.u64("lease").map(LeaseId)
}

pub(super) fn check_depth(depth: usize) -> Result<(), DecodeError> {
    if depth > TXN_DEPTH_MAX {
        return Err(DecodeError::Invalid { what: "depth of a transaction", value: depth as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
