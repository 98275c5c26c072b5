//! The leader's side of forwarded writes: each is proposed at most once.

use crate::raft::{Incarnation, NodeId, Term};
use crate::replica::message::Forward;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::Range;

/// Gaps that the leader remembers of one origin, at most. The lowest is forgotten first.
const GAPS_MAX: usize = 8;

/// What the leader of a term remembers of each origin. By it the leader drops forwards that are
/// late, or come twice.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    /// The term of this memory. A forward names its term, so the memory of an earlier term is not
    /// needed.
    term: Term,
    next: BTreeMap<NodeId, Origin>,
}

/// What the leader has seen of one origin.
#[derive(Clone, Debug)]
struct Origin {
    /// Its newest incarnation.
    incarnation: Incarnation,
    /// The first sequence number after all that have been seen in that incarnation.
    next: u64,
    /// Numbers below `next` that have not come, in ascending order: lost, or overtaken on their
    /// way. At most [`GAPS_MAX`] ranges; what is forgotten counts as seen.
    gaps: VecDeque<Range<u64>>,
}

impl Origins {
    /// How many of the commands at the front of `forward`, which came too late, may have been
    /// proposed here while this node led its term. `None`: it is not known, since the memory of a
    /// later term has replaced it.
    pub(super) fn maybe_proposed(&self, forward: &Forward) -> Option<usize> {
        if forward.term > self.term {
            return Some(0);
        }
        if forward.term < self.term {
            return None;
        }
        let Some(origin) = self.next.get(&forward.from) else { return Some(0) };
        match forward.incarnation.cmp(&origin.incarnation) {
            Ordering::Less => None,
            Ordering::Greater => Some(0),
            Ordering::Equal => {
                let count = forward.commands.len() as u64;
                let seen = origin.next.saturating_sub(forward.first_sequence).min(count);
                usize::try_from(seen).ok()
            }
        }
    }

    /// Numbers of `forward` that come for the first time, after a higher one. They are dropped, and
    /// the origin can be told so: they were not proposed in this term, and never will be. Notes
    /// them as seen.
    pub(super) fn overtaken(&mut self, forward: &Forward) -> Vec<Range<u64>> {
        let is_of = |origin: &&mut Origin| origin.incarnation == forward.incarnation;
        let Some(origin) = self.next.get_mut(&forward.from).filter(is_of) else { return Vec::new() };
        if forward.term != self.term {
            return Vec::new();
        }
        let (first, end) = (forward.first_sequence, end_of(forward));
        let mut overtaken = Vec::new();
        for gap in core::mem::take(&mut origin.gaps) {
            let inside = gap.start.max(first)..gap.end.min(end);
            if inside.is_empty() {
                origin.gaps.push_back(gap);
                continue;
            }
            let rest = [gap.start..inside.start, inside.end..gap.end];
            origin.gaps.extend(rest.into_iter().filter(|rest| !rest.is_empty()));
            overtaken.push(inside);
        }
        origin.forget_gaps();
        overtaken
    }

    /// How many of the commands at the front of `forward` must be dropped; notes the others as
    /// seen. `None` drops all of it.
    ///
    /// A command with a lower number than one that was seen is dropped, even if it comes for the
    /// first time. So the numbers of an origin grow along the log of a term, and the origin knows
    /// which never came (`client_writes.rs`).
    pub(super) fn admit(&mut self, forward: &Forward) -> Option<usize> {
        if forward.term != self.term {
            self.term = forward.term;
            self.next.clear();
        }
        let fresh = Origin { incarnation: forward.incarnation, next: 0, gaps: VecDeque::new() };
        let origin = self.next.entry(forward.from).or_insert(fresh);
        if forward.incarnation < origin.incarnation {
            return None;
        }
        if forward.incarnation > origin.incarnation {
            (origin.incarnation, origin.next) = (forward.incarnation, 0);
            origin.gaps.clear();
        }
        if forward.first_sequence > origin.next {
            origin.gaps.push_back(origin.next..forward.first_sequence);
            origin.forget_gaps();
        }
        let seen = origin.next.saturating_sub(forward.first_sequence).min(forward.commands.len() as u64);
        origin.next = end_of(forward).max(origin.next);
        usize::try_from(seen).ok()
    }
}

impl Origin {
    fn forget_gaps(&mut self) {
        while self.gaps.len() > GAPS_MAX {
            self.gaps.pop_front();
        }
    }
}

const fn end_of(forward: &Forward) -> u64 {
    forward.first_sequence.saturating_add(forward.commands.len() as u64)
}

#[cfg(test)]
mod tests;
