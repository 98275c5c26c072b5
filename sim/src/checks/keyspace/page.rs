//! What a page of a range has to hold.

use bytes::Bytes;
use infinitystore::kv::{Detail, KeyValue, PAGE_BYTES_MAX, PAGE_KEYS_MAX, RangePage, RangeQuery};

/// What reads of one transaction may still answer.
#[derive(Debug)]
pub(super) struct Room {
    among: usize,
    bytes: usize,
    keys: usize,
}

impl Room {
    /// For so many reads: together they answer one page.
    pub(super) fn new(among: usize) -> Self {
        Self { among: among.max(1), bytes: PAGE_BYTES_MAX, keys: PAGE_KEYS_MAX }
    }
}

/// The page that answers `query`, of all keys of its range in their order. It takes its part of the
/// room: no more than others get, and no more than is left.
pub(super) fn page_of<'a>(
    query: &RangeQuery,
    keys: impl Iterator<Item = &'a KeyValue>,
    room: &mut Room,
) -> RangePage {
    let mut page = RangePage::default();
    let most = if query.limit == 0 { room.keys } else { query.limit.min(room.keys) };
    let bytes_max = (PAGE_BYTES_MAX / room.among).max(1).min(room.bytes);
    let (mut count, mut bytes) = (0, 0);
    for kv in keys {
        count += 1;
        let is_before = query.resume.as_ref().is_some_and(|resume| kv.key < *resume);
        let is_gathered = page.prefixes.last().is_some_and(|prefix: &Bytes| kv.key.starts_with(prefix));
        if is_before || is_gathered || page.next.is_some() || query.detail == Detail::Count {
            continue;
        }
        if page.kvs.len() + page.prefixes.len() >= most || bytes >= bytes_max {
            page.next = Some(kv.key.clone());
            continue;
        }
        if let Some(prefix) = group(query, &kv.key) {
            bytes += prefix.len();
            page.prefixes.push(prefix);
            continue;
        }
        let value = if query.detail == Detail::Values { kv.value.clone() } else { Bytes::new() };
        bytes += kv.key.len() + value.len();
        page.kvs.push(KeyValue { value, ..kv.clone() });
    }
    room.bytes = room.bytes.saturating_sub(bytes);
    room.keys -= page.kvs.len() + page.prefixes.len();
    page.count = (query.count || query.detail == Detail::Count).then_some(count);
    page
}

/// The beginning of the key that stands for it, if the delimiter is in it behind the range's start.
fn group(query: &RangeQuery, key: &Bytes) -> Option<Bytes> {
    let delimiter = query.delimiter.as_ref().filter(|delimiter| !delimiter.is_empty())?;
    let behind = if key.starts_with(&query.range.start) { query.range.start.len() } else { 0 };
    let end = (behind + delimiter.len()..=key.len()).find(|end| key[behind..*end].ends_with(delimiter))?;
    Some(key.slice(..end))
}
