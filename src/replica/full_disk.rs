//! A leader whose disk has no room for more of the log hands over to a member whose disk has some,
//! as far as it knows: a member without room tells its leader so.

use crate::raft::{Input, NodeId, RoleName, Time};
use crate::replica::disk_pace::{ToldFull, WINDOW_MICROS};
use crate::replica::replica::Replica;
use alloc::collections::BTreeSet;

/// A leader without room waits this long between two attempts to hand over.
const HAND_OVER_RETRY_MICROS: u64 = 5_000_000;

impl Replica {
    /// Whether what this node is sent cannot be stored, or soon cannot. A log that is full is not
    /// always on a disk that is: a segment may be ready, but too small for what waits.
    pub(super) const fn has_no_room(&self) -> bool {
        self.disk_full || self.log_full
    }

    /// Tells a new leader at once that there is no room here, and each leader once in a while; and
    /// at once that there is room again. Nothing else that this member says may reach the leader:
    /// it waits for the disk.
    pub(super) fn maybe_tell_full_disk(&mut self) {
        let Some(leader) = self.leader_to_tell() else { return };
        let term = self.raft.term();
        let told = self.told_full.filter(|told| (told.leader, told.term) == (leader, term));
        if self.has_no_room() {
            if told.is_none_or(|told| self.now.since(told.at) >= WINDOW_MICROS) {
                self.told_full = Some(ToldFull { leader, term, at: self.now });
                self.say_pace(leader, self.disk_pace.mean_micros);
            }
        } else if self.told_full.take().is_some() && told.is_some() {
            self.say_pace(leader, self.disk_pace.mean_micros);
        }
    }

    /// When it is said again that there is no room.
    pub(super) fn tell_full_disk_at(&self) -> Option<Time> {
        self.leader_to_tell()?;
        self.told_full.filter(|_| self.has_no_room()).map(|told| told.at.plus(WINDOW_MICROS))
    }

    fn leader_to_tell(&self) -> Option<NodeId> {
        let leader = self.raft.leader_hint().leader?;
        (leader != self.raft.id() && self.raft.withdrawn().is_none()).then_some(leader)
    }

    /// A leader that has just been elected hears from the members without room before it hands
    /// over.
    pub(super) fn put_off_hand_over(&mut self) {
        let soon = self.now.plus(self.config.raft.election_timeout_micros);
        self.next_hand_over = self.next_hand_over.max(soon);
    }

    /// A leader without room for more of the log hands over, if another member may have room. If
    /// none has, the leader leads on, refuses writes, and looks again later.
    pub(super) fn maybe_make_room(&mut self) {
        if !self.has_no_room() || self.raft.role() != RoleName::Leader || self.now < self.next_hand_over {
            return;
        }
        let said = self.disk_pace.others.iter();
        let full: BTreeSet<NodeId> =
            said.filter(|(_, said)| said.is_full(self.now)).map(|(id, _)| *id).collect();
        if let Some(successor) = self.raft.successor(&full) {
            self.next_hand_over = self.now.plus(HAND_OVER_RETRY_MICROS);
            let _refused = self.raft.step(self.now, Input::TransferLeadership(Some(successor)));
        }
    }
}
