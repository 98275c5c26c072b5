//! The leader's side of forwarded writes: each is proposed at most once.

use crate::raft::{Incarnation, NodeId, Term};
use crate::replica::message::Forward;
use alloc::collections::BTreeMap;
use core::cmp::Ordering;

/// What the leader of a term remembers of each origin. By it the leader drops forwards that are
/// late, or come twice.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    /// The term of this memory. A forward names its term, so the memory of an earlier term is not
    /// needed.
    term: Term,
    /// By origin: its newest incarnation, and the first sequence number that has not been seen in
    /// it.
    next: BTreeMap<NodeId, (Incarnation, u64)>,
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
        let Some(&(incarnation, next)) = self.next.get(&forward.from) else { return Some(0) };
        match forward.incarnation.cmp(&incarnation) {
            Ordering::Less => None,
            Ordering::Greater => Some(0),
            Ordering::Equal => {
                let seen = next.saturating_sub(forward.first_sequence).min(forward.commands.len() as u64);
                usize::try_from(seen).ok()
            }
        }
    }

    /// How many of the commands at the front of `forward` must be dropped; notes the others as
    /// seen. `None` drops all of it.
    ///
    /// A command with a lower number than one that was seen is dropped, even if it comes for the
    /// first time. So the numbers of an origin grow along the log of a term, and the origin knows
    /// which never came (`writes.rs`).
    pub(super) fn admit(&mut self, forward: &Forward) -> Option<usize> {
        if forward.term != self.term {
            self.term = forward.term;
            self.next.clear();
        }
        let end = forward.first_sequence.saturating_add(forward.commands.len() as u64);
        let (incarnation, next) = self.next.entry(forward.from).or_insert((forward.incarnation, 0));
        if forward.incarnation < *incarnation {
            return None;
        }
        if forward.incarnation > *incarnation {
            (*incarnation, *next) = (forward.incarnation, 0);
        }
        let seen = next.saturating_sub(forward.first_sequence).min(forward.commands.len() as u64);
        *next = end.max(*next);
        usize::try_from(seen).ok()
    }
}

#[cfg(test)]
mod tests;
