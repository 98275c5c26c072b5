//! Outcomes as bytes: what a remembered answer is kept as.

use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::command::{ForgottenAnswer, Outcome, Refusal, TxnResult};
use crate::kv::fields::{put_count, put_option, take_list, take_option};
use crate::kv::query::RangePage;
use crate::kv::security::{Denial, SecurityRefusal};
use crate::kv::types::{KEY_BYTES_MAX, KeyValue, LeaseId, Revision, VALUE_BYTES_MAX};
use crate::kv::wire::{check_depth, put_settings, take_lease, take_revision, take_settings};
use alloc::vec::Vec;
use bytes::Bytes;

const TAG_REFUSED: u8 = 9;
/// Comes behind [`TAG_REFUSED`].
const TAG_DENIED: u8 = 10;

impl Outcome {
    /// Whether these are the bytes of an outcome that is a denial.
    pub(super) fn is_encoded_denial(bytes: &[u8]) -> bool {
        bytes.starts_with(&[TAG_REFUSED, TAG_DENIED])
    }

    /// Appends the encoded outcome to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Put { revision, version } => {
                out.put_u8(1);
                out.put_u64(revision.0);
                out.put_u64(*version);
            }
            Self::Deleted { revision, count } => {
                out.put_u8(2);
                out.put_u64(revision.0);
                out.put_u64(*count);
            }
            Self::Txn { revision, succeeded, results } => {
                out.put_u8(3);
                out.put_u64(revision.0);
                put_results(out, *succeeded, results);
            }
            Self::Incremented { revision, version, value } => {
                out.put_u8(4);
                out.put_u64(revision.0);
                out.put_u64(*version);
                out.put_u64(value.cast_unsigned());
            }
            Self::Compacted(revision) => {
                out.put_u8(5);
                out.put_u64(revision.0);
            }
            Self::Granted { id, ttl_seconds } => {
                out.put_u8(6);
                out.put_u64(id.0);
                out.put_u64(*ttl_seconds);
            }
            Self::Revoked { revision, keys } => {
                out.put_u8(7);
                out.put_u64(revision.0);
                out.put_u64(*keys);
            }
            Self::Configured(settings) => {
                out.put_u8(8);
                put_settings(out, settings);
            }
            Self::Refused(refusal) => {
                out.put_u8(TAG_REFUSED);
                put_refusal(out, refusal);
            }
            Self::Secured(revision) => {
                out.put_u8(10);
                out.put_u64(*revision);
            }
        }
    }

    /// Reads an outcome that fills `bytes` to their end.
    ///
    /// # Errors
    /// [`DecodeError`] if it is cut short, too long or undefined.
    pub(super) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let outcome = match reader.u8("outcome")? {
            1 => Self::Put { revision: take_revision(&mut reader)?, version: reader.u64("version")? },
            2 => {
                Self::Deleted { revision: take_revision(&mut reader)?, count: reader.u64("number of keys")? }
            }
            3 => {
                let revision = take_revision(&mut reader)?;
                let (succeeded, results) = take_results(&mut reader, 1)?;
                Self::Txn { revision, succeeded, results }
            }
            4 => {
                let revision = take_revision(&mut reader)?;
                let version = reader.u64("version")?;
                Self::Incremented { revision, version, value: reader.u64("number")?.cast_signed() }
            }
            5 => Self::Compacted(take_revision(&mut reader)?),
            6 => {
                let id = take_lease(&mut reader)?;
                Self::Granted { id, ttl_seconds: reader.u64("seconds to live")? }
            }
            7 => Self::Revoked { revision: take_revision(&mut reader)?, keys: reader.u64("number of keys")? },
            8 => Self::Configured(take_settings(&mut reader)?),
            TAG_REFUSED => Self::Refused(take_refusal(&mut reader)?),
            10 => Self::Secured(reader.u64("revision of the rules")?),
            tag => return Err(DecodeError::Invalid { what: "outcome", value: u64::from(tag) }),
        };
        reader.finish("outcome")?;
        Ok(outcome)
    }
}

fn put_refusal(out: &mut Vec<u8>, refusal: &Refusal) {
    let (tag, numbers) = match refusal {
        Refusal::Quota { needs, quota } => (1, [*needs, *quota]),
        Refusal::NoLease(id) => (2, [id.0, 0]),
        Refusal::LeaseExists(id) => (3, [id.0, 0]),
        Refusal::Compacted(revision) => (4, [revision.0, 0]),
        Refusal::Future(revision) => (5, [revision.0, 0]),
        Refusal::TooManyChanges { keys, limit } => (6, [*keys, *limit]),
        Refusal::NotANumber => (7, [0, 0]),
        Refusal::Overflow => (8, [0, 0]),
        Refusal::KeyReused => (9, [0, 0]),
        Refusal::Denied { denial, maybe_done } => {
            (TAG_DENIED, [u64::from(denial.code()), u64::from(*maybe_done)])
        }
        Refusal::Security(refusal) => (11, [refusal.code(), 0]),
        Refusal::TooManyLeases { limit } => (12, [*limit, 0]),
        Refusal::AnswerForgotten(ForgottenAnswer { since, through }) => (13, [since.0, through.0]),
    };
    out.put_u8(tag);
    numbers.into_iter().for_each(|number| out.put_u64(number));
}

fn take_refusal(reader: &mut Reader) -> Result<Refusal, DecodeError> {
    let tag = reader.u8("refusal")?;
    let (one, other) = (reader.u64("refusal")?, reader.u64("refusal")?);
    Ok(match tag {
        1 => Refusal::Quota { needs: one, quota: other },
        2 => Refusal::NoLease(LeaseId(one)),
        3 => Refusal::LeaseExists(LeaseId(one)),
        4 => Refusal::Compacted(Revision(one)),
        5 => Refusal::Future(Revision(one)),
        6 => Refusal::TooManyChanges { keys: one, limit: other },
        7 => Refusal::NotANumber,
        8 => Refusal::Overflow,
        9 => Refusal::KeyReused,
        TAG_DENIED => Refusal::Denied { denial: take_denial(one)?, maybe_done: other == 1 },
        11 => {
            let invalid = DecodeError::Invalid { what: "refusal of the rules", value: one };
            Refusal::Security(SecurityRefusal::from_code(one).ok_or(invalid)?)
        }
        12 => Refusal::TooManyLeases { limit: one },
        13 => Refusal::AnswerForgotten(ForgottenAnswer { since: Revision(one), through: Revision(other) }),
        tag => return Err(DecodeError::Invalid { what: "refusal", value: u64::from(tag) }),
    })
}

fn take_denial(code: u64) -> Result<Denial, DecodeError> {
    let known = u8::try_from(code).ok().and_then(Denial::from_code);
    known.ok_or(DecodeError::Invalid { what: "denial", value: code })
}

fn put_results(out: &mut Vec<u8>, succeeded: bool, results: &[TxnResult]) {
    out.put_u8(u8::from(succeeded));
    put_count(out, results.len());
    for result in results {
        match result {
            TxnResult::Put { version } => {
                out.put_u8(1);
                out.put_u64(*version);
            }
            TxnResult::Deleted { count } => {
                out.put_u8(2);
                out.put_u64(*count);
            }
            TxnResult::Range(page) => {
                out.put_u8(3);
                put_page(out, page);
            }
            TxnResult::Txn { succeeded, results } => {
                out.put_u8(4);
                put_results(out, *succeeded, results);
            }
        }
    }
}

fn take_results(reader: &mut Reader, depth: usize) -> Result<(bool, Vec<TxnResult>), DecodeError> {
    check_depth(depth)?;
    let succeeded = reader.flag("branch")?;
    let results = take_list(reader, |reader| {
        Ok(match reader.u8("result")? {
            1 => TxnResult::Put { version: reader.u64("version")? },
            2 => TxnResult::Deleted { count: reader.u64("number of keys")? },
            3 => TxnResult::Range(take_page(reader)?),
            4 => {
                let (succeeded, results) = take_results(reader, depth + 1)?;
                TxnResult::Txn { succeeded, results }
            }
            tag => return Err(DecodeError::Invalid { what: "result", value: u64::from(tag) }),
        })
    })?;
    Ok((succeeded, results))
}

fn put_page(out: &mut Vec<u8>, page: &RangePage) {
    out.put_u64(page.revision.0);
    put_count(out, page.kvs.len());
    for kv in &page.kvs {
        let numbers = [kv.create_revision.0, kv.mod_revision.0, kv.version, kv.lease.0];
        out.put_bytes(&kv.key);
        out.put_bytes(&kv.value);
        numbers.into_iter().for_each(|number| out.put_u64(number));
    }
    put_count(out, page.prefixes.len());
    page.prefixes.iter().for_each(|prefix| out.put_bytes(prefix));
    out.put_u8(u8::from(page.count.is_some()));
    out.put_u64(page.count.unwrap_or(0));
    put_option(out, page.next.as_ref());
}

fn take_page(reader: &mut Reader) -> Result<RangePage, DecodeError> {
    let revision = take_revision(reader)?;
    let kvs = take_list(reader, |reader| {
        let key = reader.bytes("key", KEY_BYTES_MAX)?;
        let value = reader.bytes("value", VALUE_BYTES_MAX)?;
        let (create_revision, mod_revision) = (take_revision(reader)?, take_revision(reader)?);
        let version = reader.u64("version")?;
        Ok(KeyValue { key, value, create_revision, mod_revision, version, lease: take_lease(reader)? })
    })?;
    let prefixes = take_list(reader, |reader| reader.bytes("prefix", KEY_BYTES_MAX))?;
    let has_count = reader.flag("count")?;
    let count = reader.u64("count")?;
    let next = take_option(reader, "next key")?;
    Ok(RangePage { revision, kvs, prefixes, count: has_count.then_some(count), next })
}
