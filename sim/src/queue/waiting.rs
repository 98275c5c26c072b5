//! What waits for its moment: faults, machines that are to become voters, and what changes of
//! membership owe.

use crate::schedule::Fault;
use infinitystore::raft::{LogIndex, NodeId, StoreId, Term};
use infinitystore::replica::RequestId;
use std::collections::{BTreeMap, BTreeSet};

/// A fault that waits for a joint state.
pub(super) struct Ambush {
    pub until: u64,
    pub after_micros: u64,
    pub what: Fault,
}

/// A machine that is to become a voter.
#[derive(Clone, Debug)]
pub(super) struct Joining {
    /// The store that it has now.
    pub store: StoreId,
    /// The members that it was, and that leave with its promotion.
    pub replaces: BTreeSet<NodeId>,
    /// Whether it lost its disk. Then no other machine may lose its own.
    pub damaged: bool,
    /// Whether it is to stay a learner.
    pub learns: bool,
}

/// Its store is the one that it is given.
impl Default for Joining {
    fn default() -> Self {
        Self { store: StoreId(0), replaces: BTreeSet::new(), damaged: false, learns: false }
    }
}

/// What the operator has in hand.
#[derive(Clone, Debug, Default)]
pub(super) struct Operator {
    pub joining: BTreeMap<usize, Joining>,
    /// When it last asked for a removal.
    pub(super) removal_asked_at: u64,
    /// Questions that have to be refused.
    pub(super) absurd: BTreeSet<RequestId>,
    /// Changes that were ordered for another configuration than there is.
    pub(super) stale: BTreeSet<RequestId>,
    /// Removals that a leader has not answered.
    pub(super) removals: BTreeMap<RequestId, NodeId>,
    /// Leaders that were to be removed, and have handed over: the next one is to be asked.
    pub(super) handed_over: BTreeSet<NodeId>,
}

impl Operator {
    /// A machine that is to become a voter, and is not yet.
    #[must_use]
    pub(super) fn busy_with(&self) -> Option<usize> {
        self.joining.keys().next().copied()
    }
}

/// A member whose removal its leader has committed, and which has the entry that removes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaver {
    pub slot: usize,
    pub leader: usize,
    pub term: Term,
    /// When it was seen first.
    pub seen: u64,
}

/// A learner that its leader may make a voter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub since: u64,
    pub term: Term,
    /// Where the membership that lists it stands in the log.
    pub place: LogIndex,
}

/// What is owed to members, and since when.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Removed members that are to be told.
    pub leavers: BTreeMap<NodeId, Leaver>,
    /// Members whose removal was seen.
    pub seen: BTreeSet<NodeId>,
    /// Learners that are to be promoted.
    pub ready: BTreeMap<NodeId, Ready>,
}
