//! How many refusals are written down.
//!
//! Anybody who reaches the port can be refused, as often as they please. If each refusal were a
//! line, a stranger could fill the file, and the older ones beside it, until nothing else is left
//! in them. So of one caller, and of all strangers together, the first refusals of an interval are
//! lines, and the others are one line together.

use crate::api::service::identity::Identity;
use crate::kv::Subject;
use crate::raft::Time;
use crate::runtime::door::Caller;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// For so long refusals are counted together.
pub(super) const INTERVAL_MICROS: u64 = 60_000_000;
/// Refusals of one caller that are written down in an interval …
pub(super) const LINES_EACH: u32 = 16;
/// … and of all callers without a name.
pub(super) const STRANGERS_LINES: u32 = 128;
/// Callers that are told apart, at most.
const CALLERS_MAX: usize = 1024;
/// Callers that are named where refusals were left out, at most.
const NAMED_MAX: usize = 16;

/// A caller that is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Refused {
    /// Nobody knows who. Its address.
    Stranger(Caller),
    /// A principal.
    Known(Subject),
}

/// The refusals of an interval.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// When it began; `None`: before the first one.
    since: Option<Time>,
    lines: BTreeMap<Refused, u32>,
    strangers: u32,
    left_out: LeftOut,
}

/// What was not written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// How many refusals.
    pub(super) count: u64,
    /// Whose, some of them: users, tokens, addresses.
    pub(super) by: Vec<String>,
}

impl Refusals {
    /// Whether a refusal is written down.
    pub(super) fn admits(&mut self, now: Time, who: &Identity) -> bool {
        self.since.get_or_insert(now);
        let caller = match who.by {
            Some(by) => Refused::Known(by.subject),
            None => Refused::Stranger(Caller::of(&who.address)),
        };
        let is_stranger = who.by.is_none();
        let is_full = self.lines.len() >= CALLERS_MAX;
        let admits = match self.lines.entry(caller) {
            Entry::Vacant(_) if is_full => false,
            entry => {
                let lines = entry.or_default();
                *lines = lines.saturating_add(1);
                *lines <= LINES_EACH && (!is_stranger || self.strangers < STRANGERS_LINES)
            }
        };
        if admits {
            self.strangers += u32::from(is_stranger);
        } else {
            self.left_out.note(who);
        }
        admits
    }

    /// Ends an interval that is over, or any if `now` is not said. What was not written down in it,
    /// if there was something.
    pub(super) fn end(&mut self, now: Option<Time>) -> Option<LeftOut> {
        let is_over =
            self.since.is_some_and(|since| now.is_none_or(|now| now.since(since) >= INTERVAL_MICROS));
        let ended = is_over.then(|| std::mem::take(self))?;
        (ended.left_out.count > 0).then_some(ended.left_out)
    }
}

impl LeftOut {
    fn note(&mut self, who: &Identity) {
        self.count += 1;
        let name = who.user.as_ref().or(who.token.as_ref()).unwrap_or(&who.address);
        let name = if who.by.is_none() { crate::codec::host_of(name) } else { name };
        if self.by.len() < NAMED_MAX && !self.by.iter().any(|one| one == name) {
            self.by.push(name.to_owned());
        }
    }
}
