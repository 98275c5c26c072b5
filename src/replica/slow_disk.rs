//! A leader whose disk is slow is the last of a quorum to store what it was asked, and the first of
//! whom everybody waits for: for the entry that begins its term, for one, and for its own clients
//! when another member is down. It hands over to a member whose disk is not slow.

use crate::raft::{Input, NodeId, RoleName, quorum};
use crate::replica::disk_pace::{DiskPace, Said};
use crate::replica::message::{DiskPaceSaid, PeerMessage};
use crate::replica::notice::Notice;
use crate::replica::replica::Replica;
use alloc::collections::BTreeSet;

/// A member is quicker if its writes take at most one in this many times as long.
const TIMES_QUICKER: u64 = 4;
/// A leader with a slow disk waits this long between two attempts to hand over.
const HAND_OVER_RETRY_MICROS: u64 = 30_000_000;

impl Replica {
    /// Looks at how long writes take, once a window.
    pub(super) fn maybe_judge_disk(&mut self) {
        if self.log_full {
            self.disk_pace.has_no_room(self.now);
        }
        let ended = self.disk_pace.end_window(self.now);
        if self.disk_pace.forgets() {
            self.actions.notices.push(Notice::DiskSlow { is_slow: false, write_micros: 0 });
        }
        let Some(mean) = ended else { return };
        // A disk that takes longer than the leader may be silent for is slow.
        if self.disk_pace.judge(mean, self.config.raft.heartbeat_interval_micros) {
            let is_slow = self.disk_pace.is_slow;
            self.actions.notices.push(Notice::DiskSlow { is_slow, write_micros: mean });
        }
        if self.raft.withdrawn().is_some() {
            return;
        }
        match self.raft.leader_hint().leader {
            Some(leader) if leader != self.raft.id() => self.say_pace(leader, mean),
            Some(_) => self.maybe_leave_lead_to_quicker(),
            None => {}
        }
    }

    /// Tells the leader of this member's disk.
    pub(super) fn say_pace(&mut self, leader: NodeId, write_micros: u64) {
        let (from, term, is_full) = (self.raft.id(), self.raft.term(), self.has_no_room());
        let said = DiskPaceSaid { from, to: leader, term, write_micros, is_full };
        self.actions.messages.push(PeerMessage::DiskPace(said));
    }

    /// A member says how long its writes take.
    pub(super) fn handle_disk_pace(&mut self, said: &DiskPaceSaid) {
        let is_member = self.raft.membership().members.contains_key(&said.from);
        if is_member && said.to == self.raft.id() && said.term == self.raft.term() {
            let heard = Said::new(self.now, said.write_micros, said.is_full);
            let before = self.disk_pace.others.insert(said.from, heard);
            if !said.is_full && before.is_some_and(|before| before.was_full()) {
                self.input(Input::PeerHasRoom(said.from));
            }
        }
    }

    /// The voter that would lead best after this leader, and is not among `leaving`: rather one
    /// that has not said lately that its disk is slow or has no room. It could not write its own
    /// vote down soon.
    pub(super) fn fittest_successor(&self, leaving: &BTreeSet<NodeId>) -> Option<NodeId> {
        let limit_micros = self.config.raft.heartbeat_interval_micros;
        let is_unfit = |said: &Said| {
            said.is_full(self.now) || said.write_micros(self.now).is_some_and(|micros| micros >= limit_micros)
        };
        let said = self.disk_pace.others.iter();
        let unfit = said.filter(|(_, said)| is_unfit(said)).map(|(id, _)| *id);
        let passed_over = unfit.chain(leaving.iter().copied()).collect();
        self.raft.successor(&passed_over).or_else(|| self.raft.successor(leaving))
    }

    /// A leader whose disk is slow hands over, if a quorum of the voters is far quicker. Where all
    /// are slow, or nobody has said anything lately, it leads on.
    fn maybe_leave_lead_to_quicker(&mut self) {
        let members = &self.raft.membership().members;
        self.disk_pace.others.retain(|id, _| members.contains_key(id));
        let DiskPace { is_slow, mean_micros, hand_over_at, .. } = self.disk_pace;
        // A disk that has become quick counts as slow for some windows more.
        let is_slow = is_slow && mean_micros >= self.config.raft.heartbeat_interval_micros;
        if !is_slow || self.now < hand_over_at || self.raft.role() != RoleName::Leader {
            return;
        }
        let is_quick = |id: &NodeId| {
            let micros = self.disk_pace.others.get(id).and_then(|said| said.write_micros(self.now));
            micros.is_some_and(|micros| micros.saturating_mul(TIMES_QUICKER) <= mean_micros)
        };
        let membership = self.raft.membership();
        if !quorum::reached(&membership.voters, membership.outgoing.as_ref(), |id| is_quick(&id)) {
            return;
        }
        let slow: BTreeSet<NodeId> = membership.members.keys().copied().filter(|id| !is_quick(id)).collect();
        let Some(successor) = self.raft.successor(&slow) else { return };
        self.disk_pace.hand_over_at = self.now.plus(HAND_OVER_RETRY_MICROS);
        if self.raft.step(self.now, Input::TransferLeadership(Some(successor))).is_ok() {
            self.actions.notices.push(Notice::LeftLeadToQuicker { successor, write_micros: mean_micros });
        }
    }
}
