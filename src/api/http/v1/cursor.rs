//! Cursors: where a range goes on, and all that its pages have in common. They pin the revision, so
//! that the pages of one scan are one state. To clients they are opaque.

use crate::codec::{DecodeError, Reader, Writer, from_base64, to_base64_url};
use crate::kv::{Detail, KEY_BYTES_MAX, KeyRange, RangeQuery, Revision};
use bytes::Bytes;

/// The first byte of every cursor.
const VERSION: u8 = 1;
/// A bound of a range may be one byte longer than a key.
const BOUND_BYTES_MAX: usize = KEY_BYTES_MAX + 1;

/// A scan that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api::http) struct Cursor {
    /// What is asked next.
    pub(in crate::api::http) query: RangeQuery,
    /// How many keys there are in all, as the first page said.
    pub(in crate::api::http) count: u64,
}

impl Cursor {
    /// As it is given to the client.
    pub(in crate::api::http) fn to_text(&self) -> String {
        let mut out = Vec::new();
        let query = &self.query;
        out.put_u8(VERSION);
        out.put_u8(match query.detail {
            Detail::Values => 0,
            Detail::Keys => 1,
            Detail::Count => 2,
        });
        out.put_u64(query.at.unwrap_or_default().0);
        out.put_u64(self.count);
        out.put_u64(query.limit as u64);
        out.put_bytes(&query.range.start);
        for optional in [&query.range.end, &query.resume, &query.delimiter] {
            out.put_u8(u8::from(optional.is_some()));
            if let Some(bytes) = optional {
                out.put_bytes(bytes);
            }
        }
        to_base64_url(&out)
    }

    /// What a client gave back. `None`: it is none of ours.
    pub(in crate::api::http) fn parse(text: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(Bytes::from(from_base64(text).ok()?));
        let cursor = Self::read(&mut reader).ok()??;
        reader.finish("cursor").ok()?;
        Some(cursor)
    }

    fn read(reader: &mut Reader) -> Result<Option<Self>, DecodeError> {
        if reader.u8("version")? != VERSION {
            return Ok(None);
        }
        let detail = match reader.u8("detail")? {
            0 => Detail::Values,
            1 => Detail::Keys,
            _ => return Ok(None),
        };
        let at = Some(Revision(reader.counter("revision")?));
        let count = reader.counter("count")?;
        let Ok(limit) = usize::try_from(reader.counter("limit")?) else { return Ok(None) };
        let start = reader.bytes("start", BOUND_BYTES_MAX)?;
        let mut optional =
            |what| Ok(if reader.flag(what)? { Some(reader.bytes(what, BOUND_BYTES_MAX)?) } else { None });
        let (end, resume, delimiter) = (optional("end")?, optional("resume")?, optional("delimiter")?);
        let range = KeyRange { start, end };
        let query = RangeQuery { range, resume, at, limit, detail, delimiter, count: false };
        Ok(Some(Self { query, count }))
    }
}
