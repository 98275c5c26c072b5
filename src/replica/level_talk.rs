//! What a replica has heard of the levels that members speak, and what it has said.

use crate::codec::{FeatureLevel, FeatureLevels};
use crate::raft::{NodeId, Term, Time};
use alloc::collections::BTreeMap;

/// What is known of the levels that members speak.
#[derive(Clone, Debug, Default)]
pub(super) struct LevelTalk {
    /// On the leader: what each member said, in which term and when.
    pub(super) said: BTreeMap<NodeId, (Term, Time, FeatureLevels)>,
    /// To which leader, and when, this member said it last.
    pub(super) told: Option<(NodeId, Term, Time)>,
    /// On the leader: a level that all members speak, and since when that has been so.
    pub(super) ready: Option<(FeatureLevel, Time)>,
    /// The level that this leader has proposed, and its term.
    pub(super) proposed: Option<(Term, FeatureLevel)>,
}

impl LevelTalk {
    /// A member's process is gone. The next one may be of another release.
    pub(super) fn forget(&mut self, member: NodeId) {
        self.said.remove(&member);
    }

    /// A member has greeted this node, and speaks these. What it said of higher ones, its process
    /// of before has said.
    pub(super) fn heed_hello(&mut self, member: NodeId, speaks: FeatureLevels) {
        let is_less = |said: &FeatureLevels| speaks.highest() < said.highest();
        if self.said.get(&member).is_some_and(|(_, _, said)| is_less(said)) {
            self.forget(member);
        }
    }
}
