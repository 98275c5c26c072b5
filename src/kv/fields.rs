//! Bytes that commands, outcomes and rules are made of: ranges, lists, what is optional.

use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::types::{KEY_BYTES_MAX, KeyRange};
use alloc::vec::Vec;
use bytes::Bytes;

/// A bound is at most one byte longer than a key.
const BOUND_BYTES_MAX: usize = KEY_BYTES_MAX + 1;

pub(super) fn put_range(out: &mut Vec<u8>, range: &KeyRange) {
    out.put_bytes(&range.start);
    put_option(out, range.end.as_ref());
}

pub(super) fn take_range(reader: &mut Reader) -> Result<KeyRange, DecodeError> {
    let start = reader.bytes("start of the range", KEY_BYTES_MAX)?;
    Ok(KeyRange { start, end: take_option(reader, "end of the range")? })
}

pub(super) fn put_option(out: &mut Vec<u8>, bound: Option<&Bytes>) {
    out.put_u8(u8::from(bound.is_some()));
    if let Some(bound) = bound {
        out.put_bytes(bound);
    }
}

pub(super) fn take_option(reader: &mut Reader, what: &'static str) -> Result<Option<Bytes>, DecodeError> {
    Ok(if reader.flag(what)? { Some(reader.bytes(what, BOUND_BYTES_MAX)?) } else { None })
}

pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_u16(u16::try_from(count).expect("a command has few steps, and a page few keys"));
}

/// A list behind its count.
pub(super) fn take_list<T>(
    reader: &mut Reader,
    mut take: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.u16("number of items")?;
    // Each takes at least a byte.
    let mut list = Vec::with_capacity(usize::from(count).min(reader.remaining()));
    for _ in 0..count {
        list.push(take(reader)?);
    }
    Ok(list)
}
