//! How one membership follows from another (D §4.3), and what makes a membership
//! sound.
//!
//! Every step from one membership to the next keeps their quorums intersecting: either the
//! voters stay the same, or the step enters or leaves a joint state that requires a majority of
//! both sets. The functions here are pure; *when* a step may be taken (one at a time, after an
//! own-term commit) is the leader's business.

use crate::codec::{COUNTER_MAX, DecodeError, from_bytes, to_bytes};
use crate::raft::membership::members::{Change, Member, Membership, Promotion};
use crate::raft::types::NodeId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Members of one membership, at most: joint voters and learners included.
pub const MEMBERS_MAX: usize = 128;

/// Bytes of a member's name, and of each of its addresses, at most.
pub const MEMBER_TEXT_BYTES_MAX: usize = 512;

impl Membership {
    /// The membership that a new cluster starts with: these voters, with the ids 1, 2, 3 … in
    /// their order.
    ///
    /// # Errors
    /// What [`Self::validate`] finds.
    pub fn bootstrap(voters: impl IntoIterator<Item = Member>) -> Result<Self, &'static str> {
        let members: BTreeMap<_, _> = (1..).map(NodeId::new).zip(voters).collect();
        let membership = Self {
            voters: members.keys().copied().collect(),
            outgoing: None,
            learners: BTreeMap::new(),
            next_member_id: NodeId::new(members.len() as u64 + 1),
            members,
        };
        membership.validate()?;
        Ok(membership)
    }

    /// Whether `id` votes: in the joint state, in either set.
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.as_ref().is_some_and(|outgoing| outgoing.contains(&id))
    }

    /// Whether `id` is a member: a voter of either set, or a learner.
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.members.contains_key(&id)
    }

    /// Whether this is a joint state, C_old,new.
    #[must_use]
    pub const fn is_joint(&self) -> bool {
        self.outgoing.is_some()
    }

    /// The membership to append so that `change` begins, and the ids of the members that it
    /// adds.
    ///
    /// Changes of the voters give the joint state; a new member begins as a learner, whose
    /// promotion is a later step ([`Self::promote`]).
    ///
    /// # Errors
    /// Why the change makes no sense here, and what to do instead.
    pub fn apply_change(&self, change: &Change) -> Result<(Self, Vec<NodeId>), &'static str> {
        if self.is_joint() {
            return Err("another change of membership is under way: try again when it has ended");
        }
        let (next, added) = match change {
            Change::AddMembers { members, replaces, promote } => self.add(members, replaces, *promote)?,
            Change::Promote { members } => (self.allow_promotion(members)?, Vec::new()),
            Change::Remove { members } => (self.remove(members)?, Vec::new()),
            Change::Update { id, member } => (self.update(*id, member)?, Vec::new()),
        };
        next.validate()?;
        Ok((next, added))
    }

    /// The learners that become voters in one change with the learner `id`, itself included; none
    /// if it is no learner that waits for promotion.
    #[must_use]
    pub fn promoted_with(&self, id: NodeId) -> BTreeSet<NodeId> {
        match self.learners.get(&id) {
            Some(Promotion::WhenCaughtUp { together, .. }) => together.iter().copied().chain([id]).collect(),
            Some(Promotion::Never) | None => BTreeSet::new(),
        }
    }

    /// The joint state that promotes learner `id`, together with the learners of its group. The
    /// members that they replace leave.
    ///
    /// `None` if `id` is no learner that waits for promotion, or another change is under way.
    #[must_use]
    pub fn promote(&self, id: NodeId) -> Option<Self> {
        let Some(Promotion::WhenCaughtUp { replaces, .. }) = self.learners.get(&id) else { return None };
        if self.is_joint() {
            return None;
        }
        let promoted = self.promoted_with(id);
        let mut next = self.clone();
        next.outgoing = Some(self.voters.clone());
        next.voters.extend(&promoted);
        next.voters.retain(|voter| !replaces.contains(voter));
        next.learners.retain(|learner, _| !promoted.contains(learner) && !replaces.contains(learner));
        next.forget_strangers();
        Some(next)
    }

    /// The membership that follows a joint state: the incoming voters alone. Nodes that are no
    /// members by it are forgotten.
    #[must_use]
    pub fn leave_joint(&self) -> Self {
        let mut next = self.clone();
        next.outgoing = None;
        next.forget_strangers();
        next
    }

    /// Checks every invariant of a membership.
    ///
    /// # Errors
    /// The first one that does not hold, in words.
    pub fn validate(&self) -> Result<(), &'static str> {
        if self.voters.is_empty() || self.outgoing.as_ref().is_some_and(BTreeSet::is_empty) {
            return Err("no voter would be left: add another voter first");
        }
        if self.members.len() > MEMBERS_MAX {
            return Err("too many members: remove some first");
        }
        if self.learners.keys().any(|id| self.is_voter(*id)) {
            return Err("a member is voter and learner at once");
        }
        let described = |id: &NodeId| self.members.contains_key(id);
        let outgoing = self.outgoing.iter().flatten();
        if !self.voters.iter().chain(outgoing).chain(self.learners.keys()).all(described) {
            return Err("a voter or learner has no description among the members");
        }
        if !self.members.keys().all(|id| self.is_voter(*id) || self.learners.contains_key(id)) {
            return Err("a member is neither voter nor learner");
        }
        if self.members.keys().next_back().is_some_and(|id| *id >= self.next_member_id) {
            return Err("the next member id is not above every id in use");
        }
        if self.next_member_id.get() > COUNTER_MAX {
            return Err("no member ids are left to give");
        }
        for (id, promotion) in &self.learners {
            let Promotion::WhenCaughtUp { replaces, together } = promotion else { continue };
            if replaces.contains(id) || !replaces.iter().all(described) {
                return Err(
                    "a member to be replaced is not in the cluster: name members that are, by their id",
                );
            }
            self.validate_together(*id, replaces, together)?;
        }
        self.validate_members()
    }

    /// Learners that are promoted together agree on who they are, and on whom they replace.
    fn validate_together(
        &self,
        id: NodeId,
        replaces: &BTreeSet<NodeId>,
        together: &BTreeSet<NodeId>,
    ) -> Result<(), &'static str> {
        let all = self.promoted_with(id);
        let agrees = |other: &NodeId| {
            let Some(Promotion::WhenCaughtUp { replaces: theirs, .. }) = self.learners.get(other) else {
                return false;
            };
            *other != id && theirs == replaces && self.promoted_with(*other) == all
        };
        if together.iter().all(agrees) && all.is_disjoint(replaces) {
            Ok(())
        } else {
            Err("learners that are promoted together do not agree")
        }
    }

    /// The membership as it stands in the data of a membership entry.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// Decodes a membership that fills `bytes`, and checks it: a peer cannot put an invalid one
    /// in force.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that is not the encoding of a valid membership.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let membership: Self = from_bytes("membership", bytes)?;
        membership.validate().map_err(|why| DecodeError::Inconsistent { what: "membership", why })?;
        Ok(membership)
    }

    fn add(
        &self,
        members: &[Member],
        replaces: &BTreeSet<NodeId>,
        promote: bool,
    ) -> Result<(Self, Vec<NodeId>), &'static str> {
        if members.is_empty() {
            return Err("no member is named: name the members to add");
        }
        for member in members {
            if self.members.values().any(|known| known.store_id == member.store_id) {
                return Err("this data directory already belongs to a member: it need not be added again");
            }
            let bears_the_name =
                |(id, known): (&NodeId, &Member)| known.name == member.name && !replaces.contains(id);
            if self.members.iter().any(bears_the_name) {
                return Err("another member has this name: choose another node id, or replace that member");
            }
        }
        let stays_learner = |id: &NodeId| self.learners.get(id) == Some(&Promotion::Never);
        if !promote && !replaces.iter().all(stays_learner) {
            return Err(
                "a member that stays a learner can replace such learners alone: let it be promoted, or remove the others",
            );
        }
        let mut next = self.clone();
        if !promote {
            // They count in no quorum, so they leave at once.
            next.learners.retain(|id, _| !replaces.contains(id));
            next.forget_strangers();
        }
        let mut ids = Vec::new();
        for member in members {
            let id = next.next_member_id;
            let following =
                id.get().checked_add(1).ok_or("the member ids are used up: start a new cluster")?;
            next.next_member_id = NodeId::new(following);
            next.members.insert(id, member.clone());
            ids.push(id);
        }
        for id in &ids {
            let promotion = if promote {
                let together = ids.iter().copied().filter(|other| other != id).collect();
                Promotion::WhenCaughtUp { replaces: replaces.clone(), together }
            } else {
                Promotion::Never
            };
            next.learners.insert(*id, promotion);
        }
        Ok((next, ids))
    }

    /// Learners that were to stay learners wait for their promotion.
    fn allow_promotion(&self, members: &BTreeSet<NodeId>) -> Result<Self, &'static str> {
        if members.is_empty() {
            return Err("no member is named: name the learners to promote");
        }
        let mut next = self.clone();
        for id in members {
            let Some(promotion @ Promotion::Never) = next.learners.get_mut(id) else {
                return Err("a member named is no learner that is to stay one: see the members");
            };
            let together = members.iter().copied().filter(|other| other != id).collect();
            *promotion = Promotion::WhenCaughtUp { replaces: BTreeSet::new(), together };
        }
        Ok(next)
    }

    fn remove(&self, leaving: &BTreeSet<NodeId>) -> Result<Self, &'static str> {
        if leaving.is_empty() {
            return Err("no member is named: name the members that leave");
        }
        if !leaving.iter().all(|id| self.contains(*id)) {
            return Err("a member named is not in the cluster: see the status for those that are");
        }
        let mut next = self.clone();
        if leaving.iter().any(|id| self.voters.contains(id)) {
            next.outgoing = Some(self.voters.clone());
            next.voters.retain(|id| !leaving.contains(id));
        }
        next.learners.retain(|id, _| !leaving.contains(id));
        next.forget_strangers();
        Ok(next)
    }

    fn update(&self, id: NodeId, member: &Member) -> Result<Self, &'static str> {
        let known = self.members.get(&id).ok_or("the member to update is not in the cluster: add it")?;
        if known.store_id != member.store_id {
            return Err(
                "the data directory is not the one on record: join as a new member that replaces this one",
            );
        }
        let mut next = self.clone();
        next.members.insert(id, member.clone());
        Ok(next)
    }

    /// Whether this membership, which is committed, proves that `id` was removed: the id was given
    /// once, and no member has it.
    #[must_use]
    pub fn proves_removed(&self, id: NodeId) -> bool {
        id < self.next_member_id && !self.members.contains_key(&id)
    }

    /// Drops the descriptions of nodes that are neither voter nor learner, and forgets that they
    /// were to be replaced.
    fn forget_strangers(&mut self) {
        self.drop_broken_groups();
        let Self { voters, outgoing, learners, members, .. } = self;
        let learning: BTreeSet<NodeId> = learners.keys().copied().collect();
        members.retain(|id, _| {
            voters.contains(id)
                || outgoing.as_ref().is_some_and(|outgoing| outgoing.contains(id))
                || learners.contains_key(id)
        });
        for promotion in learners.values_mut() {
            if let Promotion::WhenCaughtUp { replaces, together } = promotion {
                replaces.retain(|id| members.contains_key(id));
                together.retain(|id| learning.contains(id));
            }
        }
    }

    /// Learners that are to replace others together all leave when one of them does. Those that are
    /// left would take the places of more than they are: fewer voters than anybody asked for.
    fn drop_broken_groups(&mut self) {
        let Self { voters, learners, .. } = self;
        let learning: BTreeSet<NodeId> = learners.keys().copied().collect();
        learners.retain(|_, promotion| {
            let Promotion::WhenCaughtUp { replaces, together } = promotion else { return true };
            let replaces_nobody = !replaces.iter().any(|id| voters.contains(id) || learning.contains(id));
            replaces_nobody || together.is_subset(&learning)
        });
    }

    fn validate_members(&self) -> Result<(), &'static str> {
        for (position, (id, member)) in self.members.iter().enumerate() {
            let texts = [&member.name, &member.raft_addr, &member.http_addr];
            if member.name.is_empty() || texts.iter().any(|text| text.len() > MEMBER_TEXT_BYTES_MAX) {
                return Err("a member's name is empty, or its name or an address is too long: shorten it");
            }
            for (other_id, other) in self.members.iter().skip(position + 1) {
                if member.store_id == other.store_id {
                    return Err("two members have the same data directory: each needs its own");
                }
                if member.name == other.name
                    && !self.replaces(*id, *other_id)
                    && !self.replaces(*other_id, *id)
                {
                    return Err(
                        "another member has this name: choose another node id, or replace that member",
                    );
                }
            }
        }
        Ok(())
    }

    /// Whether `new` is on its way to take the place of `old`, as a learner or in the joint state.
    fn replaces(&self, new: NodeId, old: NodeId) -> bool {
        let waits = matches!(self.learners.get(&new),
            Some(Promotion::WhenCaughtUp { replaces, .. }) if replaces.contains(&old));
        let takes_over = self.outgoing.as_ref().is_some_and(|outgoing| {
            self.voters.contains(&new)
                && !outgoing.contains(&new)
                && outgoing.contains(&old)
                && !self.voters.contains(&old)
        });
        waits || takes_over
    }
}

#[cfg(test)]
mod tests;
