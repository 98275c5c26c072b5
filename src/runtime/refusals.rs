//! What is logged of callers that are turned away.

use crate::raft::Time;
use crate::runtime::door::Caller;
use std::collections::BTreeMap;

/// Callers whose refusals are remembered, at most, so that each caller is one log line for each
/// reason.
const REFUSALS_MAX: usize = 256;
/// After this time the same caller is logged again for the same reason.
const REFUSAL_MICROS: u64 = 600_000_000;
/// Refusals that are logged in …
const LINES_MAX: u32 = 30;
/// … this time, at most: callers can have many addresses.
const LINES_MICROS: u64 = 60_000_000;

/// The refusals that were logged, so that callers cannot fill the log.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog {
    /// When, for each caller and kind of reason.
    logged: BTreeMap<(Caller, &'static str), Time>,
    /// When the lines that are counted began, and how many there were.
    since: Option<Time>,
    lines: u32,
    /// Refusals that were not logged because there were too many lines.
    left_out: u64,
}

impl RefusalLog {
    /// Whether a refusal is to be logged now; if so, how many others were left out before it.
    pub(crate) fn is_due(&mut self, now: Time, caller: Caller, kind: &'static str) -> Option<u64> {
        let key = (caller, kind);
        if self.logged.get(&key).is_some_and(|&at| now.since(at) < REFUSAL_MICROS) {
            return None;
        }
        if self.since.is_none_or(|since| now.since(since) >= LINES_MICROS) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines >= LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        if self.logged.len() >= REFUSALS_MAX {
            self.logged.clear();
        }
        self.logged.insert(key, now);
        Some(std::mem::take(&mut self.left_out))
    }

    /// That caller is let in: its next refusal is logged again.
    pub(crate) fn clear(&mut self, caller: &Caller) {
        self.logged.retain(|(known, _), _| known != caller);
    }
}

#[cfg(test)]
mod tests;
