//! The first record of a body: numbers of the whole store.

use crate::codec::{COUNTER_MAX, DecodeError, FeatureLevel, Writer};
use crate::kv::snapshot::fields::Fields;
use crate::kv::store::Store;
use crate::kv::types::{Revision, Settings};
use alloc::vec::Vec;

/// Writes it, without its tag.
pub(super) fn put_state(piece: &mut Vec<u8>, store: &Store) {
    let Settings { history_bytes, quota_bytes, answers_bytes } = store.settings;
    let is_old = store.level <= FeatureLevel::UNTOLD;
    let answers = [store.answers.dated_from(), store.answers.forgotten_below().0];
    if !is_old {
        piece.put_u64(u64::from(store.level.get()));
    }
    let counters =
        [store.revision.0, store.compacted.0, store.leases.last_grant(), store.answers.last_number()];
    let counters = counters.into_iter().chain(answers.into_iter().filter(|_| !is_old));
    for number in counters.chain([history_bytes, quota_bytes, answers_bytes]) {
        piece.put_u64(number);
    }
}

/// Reads it into an empty store; `None`: it is not whole yet.
pub(super) fn read_state(
    store: &mut Store,
    is_old: bool,
    fields: &mut Fields<'_>,
) -> Result<Option<()>, DecodeError> {
    let level = if is_old { Some([FeatureLevel::UNTOLD.get().into()]) } else { fields.u64s() };
    let (Some([level]), Some(counters)) = (level, fields.u64s()) else { return Ok(None) };
    let answers = if is_old { Some([0; 2]) } else { fields.u64s() };
    let (Some(answers), Some(limits)) = (answers, fields.u64s()) else { return Ok(None) };
    let found = u16::try_from(level).map(FeatureLevel::new).unwrap_or_default();
    // The oldest has the other format.
    if store.raise_level(found) == is_old {
        return Err(DecodeError::Invalid { what: "level of the snapshot", value: level });
    }
    let [revision, compacted, last_grant, last_answer] = counters;
    let [dated_from, forgotten_below] = answers;
    let [history_bytes, quota_bytes, answers_bytes] = limits;
    // At most the next answer is the first one that is dated, and one was made now.
    for (what, value, least, most) in [
        ("revision of the snapshot", revision, 0, COUNTER_MAX),
        ("number of the last grant", last_grant, 0, COUNTER_MAX),
        ("compacted revision", compacted, 0, revision),
        ("number of the last answer", last_answer, 0, COUNTER_MAX),
        ("number of the first dated answer", dated_from, u64::from(!is_old), last_answer.saturating_add(1)),
        ("revision of forgotten answers", forgotten_below, 0, revision.saturating_add(1)),
    ] {
        if value < least || value > most {
            return Err(DecodeError::Invalid { what, value });
        }
    }
    store.revision = Revision(revision);
    store.compacted = Revision(compacted);
    store.leases.set_last_grant(last_grant);
    store.answers.set_numbers(last_answer, dated_from, Revision(forgotten_below));
    store.settings = Settings { history_bytes, quota_bytes, answers_bytes };
    Ok(Some(()))
}
