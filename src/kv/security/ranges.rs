//! Whether grants cover a range.

use crate::kv::types::KeyRange;
use alloc::vec::Vec;
use bytes::Bytes;

/// Sorts ranges, and joins those that touch. Empty ones are left out.
pub(super) fn joined(ranges: impl Iterator<Item = KeyRange>) -> Vec<KeyRange> {
    let mut sorted: Vec<KeyRange> = ranges.filter(|range| !range.is_empty()).collect();
    sorted.sort_by(|one, other| one.start.cmp(&other.start));
    let mut joined: Vec<KeyRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            Some(last) if last.end.as_ref().is_none_or(|end| *end >= range.start) => {
                if last.end.is_some() && !ends_before(&range.end, &last.end) {
                    last.end = range.end;
                }
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Whether one end is before another; `None` is behind all keys.
fn ends_before(one: &Option<Bytes>, other: &Option<Bytes>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one < other,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// Whether several lists, each of which [`joined`] made, cover all of a range together. None covers
/// a range in which no key can be: nobody asks for one with a good reason.
pub(super) fn cover(lists: &[&[KeyRange]], range: &KeyRange) -> bool {
    if range.is_empty() {
        return false;
    }
    let mut from = range.start.clone();
    loop {
        // What reaches furthest of all that holds this key.
        let mut reach: Option<Option<Bytes>> = None;
        for list in lists {
            let after = list.partition_point(|one| one.start <= from);
            let Some(one) = after.checked_sub(1).and_then(|at| list.get(at)) else { continue };
            if one.end.as_ref().is_none_or(|end| *end > from)
                && reach.as_ref().is_none_or(|reach| ends_before(reach, &one.end))
            {
                reach = Some(one.end.clone());
            }
        }
        match reach {
            None => return false,
            Some(end) if !ends_before(&end, &range.end) => return true,
            Some(None) => return true,
            Some(Some(end)) => from = end,
        }
    }
}
