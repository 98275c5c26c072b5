//! What a replica knows of its own state at checkpoints, and of the others'; `comparing` has what
//! it does with it.

use crate::raft::{LogIndex, NodeId, Term, Time};
use crate::replica::message::StateHash;
use alloc::collections::{BTreeMap, VecDeque};

/// The state's hash once the entry at `index` was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) index: LogIndex,
    pub(super) hash: u128,
}

/// A leader's question about a checkpoint of its own, and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) checkpoint: Checkpoint,
    /// The term in which it was asked. Answers come in no other.
    pub(super) term: Term,
    /// The hash that each member has answered, and the leader's own.
    pub(super) answers: BTreeMap<NodeId, u128>,
    /// If answers differ and nothing is decided yet.
    pub(super) undecided: Option<Undecided>,
}

/// Answers differ, and no quorum agrees, but not all voters have answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undecided {
    /// The voters that are silent are asked again at this time.
    pub(super) ask_at: Time,
    /// That the states differ is told at this time, whoever is silent.
    pub(super) tell_at: Time,
    /// It has been told.
    pub(super) is_told: bool,
}

/// What a replica knows of its own state at checkpoints, and of the others'.
#[derive(Clone, Debug, Default)]
pub(super) struct Agreement {
    /// The newest own ones, oldest first.
    pub(super) own: VecDeque<Checkpoint>,
    /// A leader's question that cannot be answered yet: its entry has not been applied here.
    pub(super) open_question: Option<StateHash>,
    /// The leader's own question.
    pub(super) question: Option<Asked>,
    /// The last entry that was applied, and since when it is the last.
    pub(super) quiet: Option<(LogIndex, Time)>,
    /// The leader asks again at this time at the earliest.
    pub(super) next_at: Time,
    /// Nobody can say which of the states is right: it is told again at this time at the earliest.
    pub(super) tell_at: Time,
}

impl Agreement {
    /// Forgets the past: it belongs to a state that has been replaced.
    pub(super) fn forget(&mut self) {
        *self = Self { next_at: self.next_at, tell_at: self.tell_at, ..Self::default() };
    }

    /// The own checkpoint at `index`, if it is still kept.
    pub(super) fn at(&self, index: LogIndex) -> Option<Checkpoint> {
        self.own.iter().find(|own| own.index == index).copied()
    }
}
