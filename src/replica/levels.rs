//! The level of the cluster: members tell their leader which levels they speak, and the leader
//! raises the cluster's once all of them speak a higher one.

use crate::codec::FeatureLevel;
use crate::raft::{Body, Message, RoleName, Time};
use crate::replica::message::{LevelsSaid, PeerMessage};
use crate::replica::notice::Notice;
use crate::replica::replica::Replica;

/// A member tells its leader this often, as long as the cluster is below what the member speaks.
const TELL_MICROS: u64 = 1_000_000;
/// What a member said counts for so long: it may have ended, and come back as an older release.
const SAID_MICROS: u64 = 3 * TELL_MICROS;

impl Replica {
    /// A member says which levels it speaks.
    pub(super) fn handle_levels(&mut self, said: LevelsSaid) {
        let is_member = self.raft.membership().members.contains_key(&said.from);
        if is_member && said.to == self.raft.id() && said.term == self.raft.term() {
            self.level_talk.said.insert(said.from, (said.term, self.now, said.speaks));
        }
    }

    /// Whether a message is not to be taken in: it raises the cluster to a level that this release
    /// does not speak. Nothing of it is stored then, and the node ends.
    pub(super) fn is_above_level(&mut self, message: &Message) -> bool {
        let Body::AppendEntries { entries, .. } = &message.body else { return false };
        let highest = self.config.speaks.highest();
        let raised = entries.iter().filter_map(|entry| entry.level()).max().filter(|level| *level > highest);
        if let Some(level) = raised {
            self.actions.notices.push(Notice::LevelAbove { level, told_by: message.from });
        }
        raised.is_some()
    }

    /// Tells the leader which levels this member speaks, as long as the cluster is below the
    /// highest of them.
    pub(super) fn maybe_tell_levels(&mut self) {
        let Some(due) = self.tell_levels_at() else { return };
        let Some(leader) = self.raft.leader_hint().leader.filter(|_| due <= self.now) else { return };
        let (from, term, speaks) = (self.raft.id(), self.raft.term(), self.config.speaks);
        self.level_talk.told = Some((leader, term, self.now));
        self.actions.messages.push(PeerMessage::Levels(LevelsSaid { from, to: leader, term, speaks }));
    }

    /// When the leader is told next.
    pub(super) fn tell_levels_at(&self) -> Option<Time> {
        let leader = self.raft.leader_hint().leader?;
        let has_more = self.config.speaks.highest() > self.store.level();
        if !has_more || leader == self.raft.id() || self.raft.withdrawn().is_some() {
            return None;
        }
        let told = self.level_talk.told.filter(|told| (told.0, told.1) == (leader, self.raft.term()));
        Some(told.map_or(self.now, |(_, _, at)| at.plus(TELL_MICROS)))
    }

    /// A leader raises the level of the cluster, once all members have spoken a higher one for a
    /// while: voters, learners, and those that are about to leave.
    pub(super) fn maybe_raise_level(&mut self) {
        let Some(level) = self.level_to_raise_to() else {
            self.level_talk.ready = None;
            return;
        };
        let since = match self.level_talk.ready {
            Some((ready, since)) if ready == level => since,
            _ => self.now,
        };
        self.level_talk.ready = Some((level, since));
        if self.now < since.plus(self.config.level_settle_micros) {
            return;
        }
        // A leader that hands over, or has too much under way, tries again with its next step.
        if self.raft.propose_level(self.now, level).is_ok() {
            self.level_talk.proposed = Some((self.raft.term(), level));
            self.level_talk.ready = None;
        }
    }

    /// When a leader raises the level, if nothing changes.
    pub(super) fn raise_level_at(&self) -> Option<Time> {
        let (_, since) = self.level_talk.ready?;
        Some(since.plus(self.config.level_settle_micros)).filter(|at| *at > self.now)
    }

    /// Whether this node, or a member as far as it has said so, has no room. The identity of its
    /// directory has to be written anew before the entry, and until then nothing else could be.
    fn is_any_disk_full(&self) -> bool {
        self.has_no_room() || self.disk_pace.others.values().any(|said| said.is_full(self.now))
    }

    /// The highest level that all members speak, if it is above that of the cluster and this leader
    /// may propose it.
    fn level_to_raise_to(&self) -> Option<FeatureLevel> {
        let term = self.raft.term();
        // It has applied what earlier leaders have committed: it knows the level of the cluster.
        let leads = self.raft.role() == RoleName::Leader && self.last_applied.term == term;
        if !leads || self.config.speaks.highest() <= self.store.level() || self.is_any_disk_full() {
            return None;
        }
        let mut level = self.config.speaks.highest();
        for id in self.raft.membership().members.keys().filter(|id| **id != self.raft.id()) {
            let (said_in, at, speaks) = self.level_talk.said.get(id)?;
            if *said_in != term || self.now.since(*at) > SAID_MICROS {
                return None;
            }
            level = level.min(speaks.highest());
        }
        let proposed = self.level_talk.proposed.filter(|(proposed_in, _)| *proposed_in == term);
        let is_new = level > self.store.level() && proposed.is_none_or(|(_, proposed)| level > proposed);
        is_new.then_some(level)
    }
}
