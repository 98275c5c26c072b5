//! How old nodes say that their state is, against when everything was committed.

#[cfg(test)]
mod tests;

use crate::record::violation::{Violation, check};
use infinitystore::raft::LogIndex;

/// Clocks are off by no more than this, in percent; a node measures by its own.
const CLOCK_PERCENT: u64 = 6;
/// What is measured in whole steps.
const SLACK_MICROS: u64 = 2_000;

/// When how much was committed.
#[derive(Clone, Debug, Default)]
pub struct Freshness {
    /// Ascending in both.
    commits: Vec<(u64, LogIndex)>,
}

impl Freshness {
    /// Some node shows that everything up to `through` is committed.
    pub fn committed(&mut self, now: u64, through: LogIndex) {
        if self.commits.last().is_none_or(|(_, known)| *known < through) {
            self.commits.push((now, through));
        }
    }

    /// A node says that it has applied all that was committed `age` microseconds ago, by its own
    /// clock.
    ///
    /// # Errors
    /// [`Violation`]: something is missing.
    pub fn judge(&self, slot: usize, now: u64, age: u64, applied: LogIndex) -> Result<(), Violation> {
        let longest = age.saturating_add(age / 100 * CLOCK_PERCENT).saturating_add(SLACK_MICROS);
        let Some(since) = now.checked_sub(longest) else { return Ok(()) };
        let known = self.commits.partition_point(|(at, _)| *at <= since);
        let Some((at, missing)) = known.checked_sub(1).map(|last| self.commits[last]) else { return Ok(()) };
        check!(
            "no state is older than a node says",
            missing <= applied,
            "machine {slot} has applied {applied}, says that it is {age} µs old, and {missing} was committed {} µs ago",
            now - at
        );
        Ok(())
    }
}
