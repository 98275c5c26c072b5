//! What a node tells of itself, and what it does about its own disk and state.

use crate::codec::FeatureLevel;
use crate::node::driver::Driver;
use crate::node::storage_workers::LogJob;
use crate::raft::{LogIndex, NodeId, RoleName, Time, Withdrawal};
use crate::replica::{Event, StorageEvent};
use crate::runtime::{Env, NodeStatus};
use crate::storage::ScrubDamage;
use std::path::Path;
use tracing::error;

/// A node that has to end at once gives its last messages this time to leave.
const LAST_WORDS_MICROS: u64 = 20_000;

impl<E: Env> Driver<E> {
    /// A file is damaged, or gone. What is in memory is sound, and takes its place.
    pub(super) fn handle_scrub_damage(&mut self, now: Time, damage: ScrubDamage) {
        let ScrubDamage { file, snapshot, why } = damage;
        let text = format!("{} is damaged on the disk: {why}", file.display());
        if self.scrub.told.insert(file.clone()) {
            error!(
                file = %file.display(), %why,
                "A FILE IS DAMAGED ON THE DISK; it is replaced out of the state in memory"
            );
            self.raise_alarm("damage", &text);
        }
        if self.adoption.is_some() {
            return;
        }
        match snapshot {
            Some(last) => {
                let event = StorageEvent::SnapshotDamaged { last, reason: why };
                self.replica.step(now, Event::Storage(event));
            }
            None => {
                self.log.push_all(&mut vec![LogJob::Condemn(file)]);
            }
        }
    }

    /// A member whose state differs from that of a quorum sets its data aside, and joins its
    /// cluster anew. What else makes a member withdraw may be a directory that a person has put
    /// back: it is noted, and holds until a person wipes the directory. Another start has no other
    /// log, and the others may have forgotten by then what they know of it.
    pub(super) fn note_withdrawal(&self, why: &str) {
        match self.replica.raft().withdrawn() {
            Some(diverged @ Withdrawal::Diverged { .. }) => {
                self.raise_alarm("state-differed", why);
                self.log.push_all(&mut vec![LogJob::Rebuild(diverged)]);
            }
            Some(
                why @ (Withdrawal::LostEntries { .. }
                | Withdrawal::Contradicted { .. }
                | Withdrawal::OlderCopy { .. }),
            ) => {
                self.log.push_all(&mut vec![LogJob::NoteWithdrawn(why)]);
            }
            // The members know that, and tell it to every start.
            Some(Withdrawal::Removed { .. }) | None => {}
        }
    }

    /// The state here differs from another member's, and no majority agrees on one. Neither is
    /// thrown away: it may be the right one, and a cluster of two decides nothing without both.
    pub(super) fn tell_states_differ(&self, index: LogIndex) {
        let text = "the state of this member differs from another member's, and no majority of the voters says that it has the \
                    same state: nobody can say which is right. If a voter is silent, bring it back first: that may decide it, and \
                    the odd member rebuilds itself. Otherwise compare state_hash in /v1/status of all members, take a backup of \
                    each (--level local), and remove the member whose state is wrong; then wipe it, and add it again";
        error!(at = index.get(), "THE STATES OF THE MEMBERS DIFFER, AND NO MAJORITY AGREES");
        self.raise_alarm("states-differ", text);
    }

    /// Raises an alarm, which stands until a person acknowledges it.
    pub(super) fn raise_alarm(&self, kind: &str, text: &str) -> bool {
        let is_new = self.metrics.alarm_board.raise(kind, text, E::THREADS);
        self.note_alarms();
        is_new
    }

    /// Has the alarms written down, if they have changed.
    pub(super) fn note_alarms(&self) {
        if self.metrics.alarm_board.has_news() {
            self.log.push_all(&mut vec![LogJob::NoteAlarms]);
        }
    }

    /// A file that was damaged is whole again, or not needed any more. If it is damaged another
    /// time, that is another alarm.
    pub(super) fn handle_mended(&mut self, file: &Path) {
        self.scrub.told.remove(file);
    }

    /// This member's state differed from that of a quorum again and again, and it has given up.
    pub(super) fn stay_withdrawn(&self, why: &str) {
        error!(%why, "THIS MEMBER DOES NOT JOIN ITS CLUSTER ANEW ANY MORE");
        self.raise_alarm("state-differed", why);
    }

    /// Nothing can be stored any more. A leader names a successor, so that nobody has to wait for
    /// an election timeout; whatever else it could say might rest on what is not durable.
    pub(super) async fn hand_over_at_once(&mut self) {
        if self.adoption.is_some() || self.replica.raft().role() != RoleName::Leader {
            return;
        }
        let now = self.env.now();
        self.replica.step(now, Event::StorageFailed);
        let messages = self.replica.take_actions().messages;
        self.links.send_all(messages);
        // The connections are closed with the process.
        self.env.sleep_until(now.plus(LAST_WORDS_MICROS)).await;
    }

    /// The cluster is at a level that this release does not speak: it would misread what comes.
    pub(super) fn note_outgrown(&mut self, level: FeatureLevel, told_by: NodeId) {
        let speaks = self.config.speaks;
        if level <= speaks.highest() {
            return;
        }
        let why = format!(
            "this cluster is at feature level {level}, as member {told_by} says, and this release speaks level {speaks}: start the              release of the other members here, on the same data directory; nothing in it was changed"
        );
        error!(%why, "THIS RELEASE IS TOO OLD FOR ITS CLUSTER");
        self.outgrown = Some(why);
    }

    pub(super) fn status(&self, now: Time, stopped: Option<String>) -> NodeStatus {
        self.links.observe();
        let me = self.address_book.me();
        let mut replica = self.replica.status(now);
        for member in &mut replica.members {
            let refused = || self.address_book.older_copy(member.id);
            member.withdrawn = member.withdrawn.take().or_else(refused);
            if let Some(spoken) = self.address_book.spoken(member.id).filter(|_| member.id != replica.id) {
                (member.speaks, member.spoken_level) = (Some(spoken.speaks), Some(spoken.level));
            }
        }
        let called = self.foreign_call.filter(|called| now < called.until);
        replica.withdrawn = replica.withdrawn.or(called.map(|called| called.reason()));
        NodeStatus {
            cluster: me.cluster,
            name: me.name,
            store: me.store,
            replica,
            uptime_micros: now.get(),
            storage_queue: self.log.len(),
            event_queue: self.inbox.len(),
            removed: self.replica.is_removed(),
            joining: self.awaits_join,
            has_data: self.replica.has_data(),
            stopped,
            held: self.held(now),
        }
    }

    /// What is held, by name; at rest all of it is zero.
    fn held(&self, now: Time) -> Vec<(&'static str, u64)> {
        let members = &self.replica.membership().members;
        let me = self.place.1;
        let strangers = self.links.peers().filter(|id| !members.contains_key(id)).count();
        let linked = self.links.peers().filter(|id| members.contains_key(id)).count();
        let missing = members.keys().filter(|id| **id != me).count() - linked;
        let (messages, bytes) = self.links.waiting();
        let jobs = self.log.len() + self.snapshots.saves.len() + self.snapshots.reads.len();
        let reserved = self.reservation.is_some_and(|reservation| now < reservation.until);
        let mut held = self.replica.held();
        held.extend([
            ("slots of clients", self.clients.taken() as u64),
            ("links to strangers", strangers as u64),
            ("members without a link", missing as u64),
            ("messages to peers", messages as u64),
            ("bytes to peers", bytes as u64),
            ("members that leave", self.leaving_members.len() as u64),
            ("jobs of the storage", jobs as u64),
            ("things to take in", self.inbox.len() as u64),
            ("joins of others", self.joins_under_way as u64),
            ("moves to another cluster", u64::from(self.adoption.is_some() || reserved)),
        ]);
        held
    }
}
