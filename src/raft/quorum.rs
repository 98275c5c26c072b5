//! What a majority is, and of which voters (Raft §6: in the joint state, a majority of each of two
//! sets).
//!
//! Pure functions of the voter sets: learners are not among their arguments, so they cannot be
//! counted. A set without voters has no majority: it commits nothing and elects no leader.

use crate::raft::types::NodeId;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// Sets of up to this many voters are counted on the stack.
const VOTERS_ON_STACK: usize = 9;

/// The state of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VoteResult {
    /// A majority of each set granted its vote.
    Won,
    /// It cannot be won any more: in some set, so many rejected that no majority is left.
    Lost,
    /// Votes that matter are still out.
    Pending,
}

/// The largest index that is durable on a majority of each set; or the latest time that a majority
/// reaches, or whatever else can be compared. Without voters it is the default: the lowest.
///
/// `outgoing` is the other set of the joint state; `matched` says up to where a voter's log durably
/// agrees.
#[must_use]
pub fn committed<T: Copy + Ord + Default>(
    voters: &BTreeSet<NodeId>,
    outgoing: Option<&BTreeSet<NodeId>>,
    matched: impl Fn(NodeId) -> T,
) -> T {
    let incoming = committed_in(voters, &matched);
    outgoing.map_or(incoming, |outgoing| incoming.min(committed_in(outgoing, &matched)))
}

/// How an election stands; `vote` is a voter's answer, `None` while it is out.
#[must_use]
pub fn tally(
    voters: &BTreeSet<NodeId>,
    outgoing: Option<&BTreeSet<NodeId>>,
    vote: impl Fn(NodeId) -> Option<bool>,
) -> VoteResult {
    let incoming = tally_in(voters, &vote);
    match (incoming, outgoing.map_or(VoteResult::Won, |outgoing| tally_in(outgoing, &vote))) {
        (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
        (VoteResult::Pending, _) | (_, VoteResult::Pending) => VoteResult::Pending,
        (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
    }
}

/// Whether those that `has` names contain a majority of each set.
#[must_use]
pub fn reached(
    voters: &BTreeSet<NodeId>,
    outgoing: Option<&BTreeSet<NodeId>>,
    has: impl Fn(NodeId) -> bool,
) -> bool {
    let in_set = |set: &BTreeSet<NodeId>| set.iter().filter(|id| has(**id)).count() >= majority(set.len());
    in_set(voters) && outgoing.is_none_or(in_set)
}

/// The smallest number of voters any two groups of which share one.
const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

fn committed_in<T: Copy + Ord + Default>(voters: &BTreeSet<NodeId>, matched: &impl Fn(NodeId) -> T) -> T {
    let count = voters.len();
    if count > VOTERS_ON_STACK {
        let mut indices: Vec<T> = voters.iter().map(|id| matched(*id)).collect();
        return majority_index(&mut indices);
    }
    let mut indices = [T::default(); VOTERS_ON_STACK];
    for (slot, id) in indices.iter_mut().zip(voters) {
        *slot = matched(*id);
    }
    majority_index(&mut indices[..count])
}

/// The largest index that a majority of `indices` reaches.
fn majority_index<T: Copy + Ord + Default>(indices: &mut [T]) -> T {
    if indices.is_empty() {
        return T::default();
    }
    indices.sort_unstable();
    indices[indices.len() - majority(indices.len())]
}

fn tally_in(voters: &BTreeSet<NodeId>, vote: &impl Fn(NodeId) -> Option<bool>) -> VoteResult {
    let (mut granted, mut rejected) = (0, 0);
    for id in voters {
        match vote(*id) {
            Some(true) => granted += 1,
            Some(false) => rejected += 1,
            None => {}
        }
    }
    let needed = majority(voters.len());
    if granted >= needed {
        VoteResult::Won
    } else if voters.len() - rejected < needed {
        VoteResult::Lost
    } else {
        VoteResult::Pending
    }
}

#[cfg(test)]
mod tests;
