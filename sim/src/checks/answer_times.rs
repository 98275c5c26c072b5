//! When the answers of idempotency keys were made, by the clock of the machine that applied their
//! commands: a node says how old the oldest is that it remembers.

#[cfg(test)]
mod tests;

use infinitystore::kv::Store;
use infinitystore::raft::Time;
use std::collections::VecDeque;

/// A node need not tell ages of answers more exactly than this.
const EXACT_MICROS: u64 = 1_000_000;
/// Nor more exactly than by this part of the time for which it has looked.
const EXACT_SHARE: u64 = 256;
/// Between a step of a node and the look at what it did may be this much time.
const SLACK_MICROS: u64 = 10_000;

/// When the last answer had which number.
#[derive(Clone, Debug, Default)]
pub struct AnswerTimes {
    /// When the process was looked at first.
    began: Option<Time>,
    /// When it was looked at last.
    looked_at: Option<Time>,
    /// When a number was not there yet, when it was, and the number; ascending.
    made: VecDeque<(Option<Time>, Time, u64)>,
    /// The oldest answer that it remembers.
    oldest: Option<u64>,
}

/// When the oldest answer was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldestAnswer {
    /// Since when the process has been looked at.
    began: Time,
    /// Not before this; `None`: it was there when the process was looked at first.
    not_before: Option<Time>,
    /// Not after this.
    not_after: Time,
}

impl AnswerTimes {
    /// A process was stepped, and has this store.
    pub fn note(&mut self, now: Time, store: &Store) {
        self.note_numbers(now, store.last_answer(), store.oldest_answer());
    }

    fn note_numbers(&mut self, now: Time, last: u64, oldest: Option<u64>) {
        // Another cluster's state has taken the place of this one's.
        if self.made.back().is_some_and(|(.., number)| *number > last) {
            *self = Self::default();
        }
        self.began.get_or_insert(now);
        let before = self.looked_at.replace(now);
        if self.made.back().is_none_or(|(.., number)| *number < last) {
            self.made.push_back((before, now, last));
        }
        self.oldest = oldest;
        let gone = oldest.unwrap_or(last);
        while self.made.len() > 1 && self.made.front().is_some_and(|(.., number)| *number < gone) {
            self.made.pop_front();
        }
    }

    /// The oldest one that is remembered; `None`: there is none.
    #[must_use]
    pub fn oldest(&self) -> Option<OldestAnswer> {
        let oldest = self.oldest?;
        let at = self.made.partition_point(|(.., number)| *number < oldest);
        let (not_before, not_after, _) = *self.made.get(at)?;
        Some(OldestAnswer { began: self.began?, not_before, not_after })
    }
}

/// What a node says of the age of its oldest answer at some time from `from` to `to`.
///
/// # Errors
/// Why that is wrong.
pub fn age_is_right(
    oldest: Option<OldestAnswer>,
    told: Option<u64>,
    (from, to): (Time, Time),
) -> Result<(), String> {
    let (known, told) = match (oldest, told) {
        (None, None) => return Ok(()),
        (Some(known), Some(told)) => (known, told),
        _ => return Err(format!("the oldest answer is {told:?} µs old, and it is {oldest:?}")),
    };
    let exact = EXACT_MICROS.max(to.since(known.began) / EXACT_SHARE) + SLACK_MICROS;
    let least = from.since(known.not_after).saturating_sub(exact);
    let most = known.not_before.map(|at| to.since(at) + SLACK_MICROS);
    if told < least || most.is_some_and(|most| told > most) {
        return Err(format!("the oldest answer is {told} µs old; {least} to {most:?} would be right"));
    }
    Ok(())
}
