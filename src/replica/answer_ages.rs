//! How old the oldest remembered answer of an idempotency key is, as this node knows it: for so
//! long a repetition finds its answer just now. Answers are numbered, and have no times. This node
//! notes now and then which number the last one had.

use crate::raft::Time;
use alloc::collections::VecDeque;

/// Between two notes there is at least this time.
const NOTE_MICROS: u64 = 1_000_000;
/// And at least this part of the time that the notes cover: what is old is known less exactly.
const NOTE_SHARE: u64 = 256;

/// At which times the last answer had which number.
#[derive(Clone, Debug, Default)]
pub(super) struct AnswerAges {
    /// What was noted, ascending.
    notes: VecDeque<(Time, u64)>,
    /// What was seen since, last: it is noted with the next one that is due. Without it nothing
    /// would be known of the last answers while no other follows.
    newest: Option<(Time, u64)>,
}

impl AnswerAges {
    /// The last answer has this number now. `oldest` tells that of the oldest one that is kept.
    pub(super) fn note(&mut self, now: Time, last: u64, oldest: impl FnOnce() -> Option<u64>) {
        let Self { notes, newest } = self;
        // Another cluster's state has taken the place of this one's.
        let seen = newest.as_ref().or(notes.back()).map(|(_, number)| *number);
        if seen.is_some_and(|number| number > last) {
            (*notes, *newest) = Default::default();
        }
        if seen == Some(last) {
            return;
        }
        let pause = notes.front().map_or(0, |(first, _)| NOTE_MICROS.max(now.since(*first) / NOTE_SHARE));
        let is_due =
            |notes: &VecDeque<(Time, u64)>| notes.back().is_none_or(|(at, _)| now.since(*at) >= pause);
        if is_due(notes) {
            let oldest = oldest().unwrap_or(last);
            while notes.front().is_some_and(|(_, number)| *number < oldest) {
                notes.pop_front();
            }
            notes.extend(newest.take().filter(|(_, number)| *number >= oldest));
        }
        if is_due(notes) {
            notes.push_back((now, last));
        } else {
            *newest = Some((now, last));
        }
    }

    /// An answer with this number is at least so old, microseconds.
    pub(super) fn age_micros(&self, number: u64, now: Time) -> u64 {
        let later = self.notes.partition_point(|(_, last)| *last < number);
        let newest = self.newest.as_ref().filter(|(_, last)| *last >= number);
        self.notes.get(later).or(newest).map_or(0, |(at, _)| now.since(*at))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.notes.len()
    }
}

#[cfg(test)]
mod tests;
