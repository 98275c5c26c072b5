//! What a change of membership owes to the members that it concerns: a removed member is told so,
//! and a learner that has caught up becomes a voter.

use crate::queue::simulation::Simulation;
use crate::queue::waiting::{Leaver, Ready};
use crate::record::violation::{Violation, check};
use crate::schedule::PROMOTE_LAG_ENTRIES;
use infinitystore::raft::{LogIndex, NodeId, Promotion};
use std::collections::BTreeMap;

impl Simulation {
    /// Looks at the changes of the leader, now and then.
    pub(super) fn check_changes(&mut self) -> Result<(), Violation> {
        self.check_leavers()?;
        let Some(leader) = self.leader() else {
            self.changes.ready.clear();
            return Ok(());
        };
        self.note_leavers(leader);
        self.check_learners(leader)
    }

    /// The leader goes on to tell a removed member of the commit index for an election timeout, and
    /// nothing is lost.
    fn check_leavers(&mut self) -> Result<(), Violation> {
        let patience = self.schedule.settings.election_timeout_micros * 17 / 16 + 4 * self.service.bounds.hop;
        let due: Vec<(NodeId, Leaver)> = self
            .changes
            .leavers
            .iter()
            .filter(|(_, leaver)| leaver.seen + patience < self.now)
            .map(|(id, leaver)| (*id, *leaver))
            .collect();
        for (id, Leaver { slot, leader, term, seen }) in due {
            self.changes.leavers.remove(&id);
            let touch = self.service.in_touch_since(leader, slot);
            let leads = self.machines[leader].process.as_ref().is_some_and(|process| {
                let raft = process.replica.raft();
                raft.term() == term && self.leader() == Some(leader)
            });
            let is_it = self.machines[slot].identity.is_some_and(|identity| identity.id == id);
            let (Some(process), true) = (&self.machines[slot].process, leads && is_it) else { continue };
            if touch.is_none_or(|touch| touch + patience > seen) {
                continue;
            }
            *self.marks.entry("removed and told").or_default() += 1;
            check!(
                "a removed member is told so",
                process.replica.is_removed(),
                "member {id} has the entry that removes it, and is in touch with machine {leader}, which has committed it \
                 by {seen}; it does not know so at {}",
                self.now
            );
        }
        Ok(())
    }

    /// Members that have left, by what the leader has committed.
    fn note_leavers(&mut self, leader: usize) {
        if !self.service.bounds.is_told_within(self.schedule.settings.election_timeout_micros) {
            return;
        }
        let Some(process) = &self.machines[leader].process else { return };
        let raft = process.replica.raft();
        let (committed, place) = raft.membership_at(raft.commit_index());
        if place.term != raft.term() {
            return;
        }
        for (slot, machine) in self.machines.iter().enumerate() {
            let (Some(identity), Some(other)) = (machine.identity, &machine.process) else { continue };
            let id = identity.id;
            if id >= committed.next_member_id || committed.members.contains_key(&id) {
                continue;
            }
            // A member that lacks the entry of its removal is told nothing after it: it may lack
            // much.
            if !self.changes.seen.insert(id) || other.replica.membership().members.contains_key(&id) {
                continue;
            }
            // A later leader owes nothing to members that left before it, also if the membership
            // has changed again since.
            let mut earlier = place.index;
            while raft.term_at(earlier) == Some(place.term) {
                earlier = earlier.previous();
            }
            if !raft.membership_at(earlier).0.members.contains_key(&id) {
                continue;
            }
            let leaver = Leaver { slot, leader, term: raft.term(), seen: self.now };
            self.changes.leavers.insert(id, leaver);
        }
    }

    /// A learner that lacks little becomes a voter if its leader hears all members, also while
    /// writes go on.
    fn check_learners(&mut self, leader: usize) -> Result<(), Violation> {
        let Some(process) = &self.machines[leader].process else { return Ok(()) };
        let raft = process.replica.raft();
        let (membership, place) = raft.membership_at(raft.last_log().index);
        let waits = |promotion: &Promotion| *promotion != Promotion::Never;
        if !membership.learners.values().any(waits) {
            self.changes.ready.clear();
            return Ok(());
        }
        let (term, place) = (raft.term(), place.index);
        let may_change = raft.term_at(raft.commit_index()) == Some(term) && place <= raft.commit_index();
        let hosted = |id: &NodeId| self.hosts.get(id).copied().filter(|slot| *slot != leader);
        let touch = |id: &NodeId| match *id == raft.id() {
            true => Some(0),
            false => hosted(id).and_then(|slot| self.service.in_touch_since(leader, slot)),
        };
        let heard: Option<u64> =
            membership.voters.iter().map(touch).try_fold(0, |most, it| Some(most.max(it?)));
        let heard = heard.filter(|_| may_change && !membership.is_joint() && !process.disk_full);
        let mut ready = BTreeMap::new();
        for id in membership.learners.iter().filter(|(_, promotion)| waits(promotion)).map(|(id, _)| id) {
            let lacks_little = raft.progress().any(|peer| {
                peer.id == *id
                    && peer.match_index > LogIndex::ZERO
                    && raft.last_log().index.since(peer.match_index) <= PROMOTE_LAG_ENTRIES / 2
            });
            let (Some(heard), Some(own), true) = (heard, touch(id), lacks_little) else { continue };
            let earlier = self.changes.ready.get(id).filter(|it| it.term == term && it.place == place);
            let since = earlier.map_or(self.now, |it| it.since).max(heard).max(own);
            ready.insert(*id, Ready { since, term, place });
        }
        // One after the other, in their order.
        let first = ready.iter().next().map(|(id, ready)| (*id, ready.since));
        self.changes.ready = ready;
        let Some((id, since)) = first else { return Ok(()) };
        let waits = self.now.saturating_sub(since);
        check!(
            "a learner that has caught up becomes a voter",
            waits <= self.service.bounds.stall + self.service.bounds.doubt,
            "member {id} lacks little for {waits} µs, and machine {leader}, which hears all voters in term {term}, does \
             not promote it"
        );
        Ok(())
    }
}
