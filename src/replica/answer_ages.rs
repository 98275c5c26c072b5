//! How old the oldest remembered answer of an idempotency key is, as this node knows it: for so
//! long a repetition finds its answer just now. Answers are numbered, and have no times. This node
//! notes now and then which number the last one had.

use crate::raft::Time;
use alloc::collections::VecDeque;

/// Between two notes there is at least this time.
const NOTE_MICROS: u64 = 1_000_000;
/// And at least this part of the time that the notes cover: what is old is known less exactly.
const NOTE_SHARE: u64 = 256;

/// At which times the last answer had which number, ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct AnswerAges(VecDeque<(Time, u64)>);

impl AnswerAges {
    /// The last answer has this number now. `oldest` tells that of the oldest one that is kept.
    pub(super) fn note(&mut self, now: Time, last: u64, oldest: impl FnOnce() -> Option<u64>) {
        let Self(notes) = self;
        // Another cluster's state has taken the place of this one's.
        if notes.back().is_some_and(|(_, number)| *number > last) {
            notes.clear();
        }
        let is_due = match (notes.front(), notes.back()) {
            (Some((first, _)), Some((at, number))) => {
                let pause = NOTE_MICROS.max(now.since(*first) / NOTE_SHARE);
                *number != last && now.since(*at) >= pause
            }
            _ => true,
        };
        if is_due {
            let oldest = oldest().unwrap_or(last);
            while notes.front().is_some_and(|(_, number)| *number < oldest) {
                notes.pop_front();
            }
            notes.push_back((now, last));
        }
    }

    /// An answer with this number is at least so old, microseconds.
    pub(super) fn age_micros(&self, number: u64, now: Time) -> u64 {
        let later = self.0.partition_point(|(_, last)| *last < number);
        self.0.get(later).map_or(0, |(at, _)| now.since(*at))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests;
