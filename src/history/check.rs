//! The check of a whole history: each key by itself, then the revisions over all of them.

use crate::history::explain::{Violation, explain};
use crate::history::operation::{Operation, Short};
use crate::history::problem::problem;
use crate::history::revisions::check_revisions;
use crate::history::search::{SearchResult, search};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;

/// How long to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Configurations to look at for one key; each costs some microseconds and some hundred bytes.
    pub steps_max: u64,
}

impl Default for Effort {
    /// Seconds for the worst key; thousands of operations by dozens of clients need a few steps for
    /// each operation.
    fn default() -> Self {
        Self { steps_max: 1_000_000 }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every key has an order that explains all answers.
    Linearizable,
    /// Some answers cannot be explained.
    Violation(Violation),
    /// The search of this key gave up. To be treated as a failure: give it more [`Effort`], or a
    /// shorter history.
    Inconclusive {
        /// The key.
        key: Bytes,
    },
}

/// A verdict, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a check is for its verdict"]
pub struct Report {
    /// What was found.
    pub verdict: Verdict,
    /// Operations in the history.
    pub operations: usize,
    /// Keys in the history.
    pub keys: usize,
    /// Configurations looked at, over all keys.
    pub steps: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} operations on {} keys, {} steps: ", self.operations, self.keys, self.steps)?;
        match &self.verdict {
            Verdict::Linearizable => write!(f, "linearizable"),
            Verdict::Violation(violation) => write!(f, "NOT linearizable\n{violation}"),
            Verdict::Inconclusive { key } => write!(f, "inconclusive: gave up on key {}", Short(key)),
        }
    }
}

/// Checks whether a history is linearizable, starting from an empty store. The first violation
/// found is reported; a violation goes before an inconclusive key.
pub fn check(operations: &[Operation], effort: Effort) -> Report {
    let mut keys: BTreeMap<&[u8], Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let mut report =
        Report { verdict: Verdict::Linearizable, operations: operations.len(), keys: keys.len(), steps: 0 };
    for operations in keys.values() {
        let (found, steps) = match problem(operations.iter().copied()) {
            Some(problem) => search(&problem, effort.steps_max),
            None => (SearchResult::NoOrder, 0),
        };
        report.steps += steps;
        let key = operations[0].key.clone();
        match found {
            SearchResult::Order => {}
            SearchResult::GaveUp => report.verdict = Verdict::Inconclusive { key },
            SearchResult::NoOrder => {
                let reason = "no order explains these operations";
                let operations = explain(operations, effort.steps_max);
                report.verdict = Verdict::Violation(Violation { key, reason, operations });
                return report;
            }
        }
    }
    if let Err(violation) = check_revisions(operations) {
        report.verdict = Verdict::Violation(violation);
    }
    report
}
