//! What the service is judged by: the surroundings, told from the faults in force, and what the
//! replicas show.

use crate::checks::service::{Health, Shows, Surroundings};
use crate::hardware::network::Delivery;
use crate::queue::event::SimEvent;
use crate::queue::machine::Process;
use crate::queue::simulation::Simulation;
use crate::record::violation::{Violation, check};
use crate::schedule::{PROMOTE_LAG_ENTRIES, SECOND};
use infinitystore::raft::{Membership, NodeId, ReplicationState, RoleName, Term};
use infinitystore::replica::PeerMessage;

/// A leader without room tries to hand over that often.
const HAND_OVER_MICROS: u64 = 5 * SECOND;

impl Simulation {
    /// Looks at everything, now and then.
    pub(super) fn watch(&mut self) -> Result<(), Violation> {
        let again = self.schedule.settings.heartbeat_interval_micros / 2;
        self.queue.plan(self.now + again, SimEvent::Watch);
        self.survey();
        let leader = self.leader();
        let shown: Vec<Option<Shows>> =
            (0..self.machines.len()).map(|slot| self.shows(slot, leader)).collect();
        let processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let waiting = processes.map(|process| process.askers.len()).sum();
        let windows = self.service.windows();
        let handed = self.service.look(self.now, &shown, waiting)?;
        *self.marks.entry("traffic judged").or_default() += self.service.windows() - windows;
        if handed {
            self.mark("transfer succeeded");
        }
        self.check_changes()?;
        self.check_room()
    }

    /// A leader without room hands over, if another member has room and everything else.
    fn check_room(&mut self) -> Result<(), Violation> {
        let before = self.without_room.take();
        let (Some(leader), Some((voters, false))) = (self.leader(), self.voting()) else { return Ok(()) };
        let machine = &self.machines[leader];
        let Some(process) = machine.process.as_ref().filter(|process| process.disk_full) else {
            return Ok(());
        };
        let is_slow = machine.slow_disk.1 > self.now || self.network.is_slow(self.now, leader);
        let severed = self.network.severed(self.now);
        if is_slow || machine.rotten || !self.service.bounds.is_brisk || severed.iter().any(|it| *it > 0) {
            return Ok(());
        }
        let raft = process.replica.raft();
        let could_lead = |slot: &usize| {
            let process = self.machines[*slot].process.as_ref();
            let applied = process.map(|process| process.replica.last_applied().index);
            voters & 1 << slot != 0
                && self.health(*slot) == Health::Well
                && applied == Some(raft.commit_index())
        };
        let able: Vec<usize> = (0..self.machines.len()).filter(could_lead).collect();
        if 2 * able.len() <= voters.count_ones() as usize {
            return Ok(());
        }
        let same = |(was, term, other, _): &(usize, Term, usize, u64)| {
            *was == leader && *term == raft.term() && able.contains(other)
        };
        let kept = before.filter(same).unwrap_or((leader, raft.term(), able[0], self.now));
        self.without_room = Some(kept);
        let (_, term, other, since) = kept;
        let waits = self.now - since;
        check!(
            "a leader without room hands over",
            waits <= HAND_OVER_MICROS + 2 * self.service.bounds.transfer + 2 * SECOND,
            "machine {leader} leads term {term} on without room; machine {other} could lead for {waits} µs"
        );
        Ok(())
    }

    fn shows(&self, slot: usize, leader: Option<usize>) -> Option<Shows> {
        let replica = &self.machines[slot].process.as_ref()?.replica;
        let raft = replica.raft();
        let hint = raft.leader_hint();
        Some(Shows {
            role: raft.role(),
            term: hint.term,
            leader: hint.leader.and_then(|id| self.hosts.get(&id).copied()),
            last: raft.last_log().index,
            commit: raft.commit_index(),
            applied: replica.last_applied().index,
            behind: leader.map_or(0, |leader| self.behind(slot, leader)),
        })
    }

    /// Entries from before its term that a leader has and a machine lacks, while the leader has
    /// committed nothing in its term.
    fn behind(&self, slot: usize, leader: usize) -> u64 {
        let raft = |slot: usize| self.machines[slot].process.as_ref().map(|it| it.replica.raft());
        let (Some(raft), Some(leader)) = (raft(slot), raft(leader)) else { return 0 };
        let own = Some(leader.term());
        if leader.term_at(leader.commit_index()) == own {
            return 0;
        }
        let mut end = leader.last_log().index;
        while leader.term_at(end) == own {
            end = end.previous();
        }
        let mut agreed = end.min(raft.last_log().index);
        while let (Some(here), Some(there)) = (raft.term_at(agreed), leader.term_at(agreed))
            && here != there
        {
            agreed = agreed.previous();
        }
        end.since(agreed)
    }

    /// Tells the service what the surroundings are now.
    pub(super) fn survey(&mut self) {
        let now = self.now;
        let health = (0..self.machines.len()).map(|slot| self.health(slot)).collect();
        let (voters, surgery) = self.voting().unwrap_or((0, true));
        let severed = self.network.severed(now);
        for slot in 0..self.machines.len() {
            self.note_full(slot);
            if self.machines[slot].slow_disk.1 > now {
                self.service.disk_slow(slot, now);
            }
        }
        self.service.surroundings(now, &Surroundings { health, severed, voters, surgery });
    }

    /// A leader without room refuses the writes of all members' clients, and a member whose log has
    /// none at all refuses those of its own. What room the others have does not matter to clients.
    pub(super) fn note_full(&mut self, slot: usize) {
        let Some(process) = &self.machines[slot].process else { return };
        let leads = process.replica.raft().role() == RoleName::Leader;
        if leads && (process.disk_full || process.log_full) {
            self.service.leader_full(self.now);
        }
        if process.log_full {
            self.service.log_full(slot, self.now);
        }
    }

    fn health(&self, slot: usize) -> Health {
        let machine = &self.machines[slot];
        let Some(process) = machine.process.as_ref().filter(|_| machine.paused_until <= self.now) else {
            return Health::Absent;
        };
        let slow = machine.slow_disk.1 > self.now || self.network.is_slow(self.now, slot);
        if slow || machine.rotten || process.disk_full || machine.disk.armed() {
            Health::Ill
        } else {
            Health::Well
        }
    }

    /// The voters, as the machine has them that knows most; and whether any other that runs knows
    /// anything else.
    fn voting(&self) -> Option<(u32, bool)> {
        let running = || self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let first = running().max_by_key(|process| process.replica.raft().commit_index())?;
        let membership: &Membership = first.replica.membership();
        let at = |process: &Process| {
            let raft = process.replica.raft();
            raft.membership_at(raft.last_log().index).1
        };
        let (place, is_member) = (at(first), |id: NodeId| membership.members.contains_key(&id));
        // What stands at the same place, by index and term, is the same.
        let agreed = running()
            .filter(|process| is_member(process.replica.raft().id()))
            .all(|process| at(process) == place || process.replica.membership() == membership);
        let slots = membership.voters.iter().map(|id| self.hosts.get(id));
        let voters = slots.clone().flatten().fold(0, |set, slot| set | 1 << slot);
        let gone = slots.clone().any(|slot| slot.is_none());
        Some((voters, gone || !agreed || membership.is_joint() || !membership.learners.is_empty()))
    }

    /// A leader is asked to hand over. If the target can take over, it has to become the leader.
    pub(super) fn note_transfer(&mut self, to: Option<NodeId>) {
        let Some(leader) = self.leader() else { return };
        let Some(process) = &self.machines[leader].process else { return };
        let raft = process.replica.raft();
        let now = self.machines[leader].time(self.now);
        let able = raft.progress().find(|peer| Some(peer.id) == to).is_some_and(|peer| {
            let timeout = self.schedule.settings.election_timeout_micros;
            peer.state == ReplicationState::Replicate
                && peer.last_heard.is_some_and(|heard| now.since(heard) < timeout / 2)
                && raft.last_log().index.since(peer.match_index) <= PROMOTE_LAG_ENTRIES
        });
        let slot = to.filter(|_| able).and_then(|id| self.hosts.get(&id).copied());
        self.service.transfer_asked(self.now, leader, slot);
    }

    /// A message of a client's write may not come, or come late: it is not sent again while the
    /// leader stays.
    pub(super) fn note_forward(&mut self, from: usize, to: usize, fate: &Delivery, message: &PeerMessage) {
        if matches!(message, PeerMessage::Raft(_)) {
            return;
        }
        // One that is overtaken by the next is sent again, once that is applied.
        let usual = self.service.bounds.hop;
        if fate.corrupt || fate.arrives.is_none_or(|delay| delay > usual) {
            self.service.write_lost(from, to, self.now);
        }
    }
}
