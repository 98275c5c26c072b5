//! What a node has in every role.

use crate::raft::api::{RaftEvent, ReadReady, Setup};
use crate::raft::config::Config;
use crate::raft::log::entry::Entry;
use crate::raft::log::log::Log;
use crate::raft::log::memberships::Memberships;
use crate::raft::log::records::Restored;
use crate::raft::log::snapshot::{SnapshotMeta, SnapshotRead};
use crate::raft::membership::members::Membership;
use crate::raft::membership::withdrawal::Withdrawal;
use crate::raft::message::{Body, Message};
use crate::raft::quorum;
use crate::raft::state::freshness::Freshness;
use crate::raft::state::read_queues::LocalReads;
use crate::raft::types::{HardState, Incarnation, LogIndex, NodeId, Session, Term, Time, WriteSequence};
use crate::raft::writes::Writes;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The state that survives a change of role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Shared {
    /// This node. Never changes.
    pub id: NodeId,
    /// Which start this is. Never changes.
    pub incarnation: Incarnation,
    /// Limits and timings. Never change.
    pub config: Config,
    /// State of the generator that draws election timeouts.
    random: u64,
    /// The latest time handed in; never goes back.
    pub now: Time,
    /// Term and vote (Raft figure 2). They are durable before a message that depends on them
    /// leaves.
    pub hard_state: HardState,
    /// The log, durable or not.
    pub log: Log,
    /// The memberships in the log.
    pub memberships: Memberships,
    /// The newest snapshot whose marker is durable.
    pub snapshot: Option<SnapshotMeta>,
    /// Whether a newer snapshot was asked for: a peer needs entries after `snapshot` that are not
    /// in the log any more.
    pub snapshot_wanted: bool,
    /// Own snapshots whose markers are being written, with the write that carries them.
    pub markers: VecDeque<(WriteSequence, SnapshotMeta)>,
    /// A snapshot that arrives from a leader.
    pub install: Option<Install>,
    /// Highest entry known to be committed; never goes back.
    pub commit_index: LogIndex,
    /// Highest entry that the state machine said it has applied, or that an installed snapshot
    /// includes.
    pub last_applied: LogIndex,
    /// Highest entry handed out to be applied.
    pub handed_out: LogIndex,
    /// When the state here was last a leader's.
    pub freshness: Freshness,
    /// Before this time the node votes for nobody and does not stand for election, unless the
    /// leader hands over: it said so to the leader that it heard last. Never goes back, and does
    /// not end with the term.
    pub promised_until: Time,
    /// Reads of this node's clients that no leader has answered.
    pub reads: LocalReads,
    /// Why this node takes no part any more, if it does not. Never cleared.
    pub withdrawn: Option<Withdrawal>,
    /// The stream of writes.
    pub writes: Writes,
    /// What the next output will hand out, beside the write.
    pub outbox: Outbox,
}

/// What waits to be handed out; emptied by each output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Outbox {
    pub messages: Vec<Message>,
    pub events: Vec<RaftEvent>,
    pub reads: Vec<ReadReady>,
    pub snapshot_reads: Vec<SnapshotRead>,
}

impl Shared {
    /// The state at a start. What is not durable begins anew, and the membership is derived from
    /// snapshot and log. The commit index begins at the one on disk: what is committed stays so
    /// (Leader Completeness, Raft §5.4.3), and the state machine need not wait for a leader to say
    /// it again.
    pub(in crate::raft) fn new(setup: Setup, log: Log) -> Self {
        let Setup { id, incarnation, seed, config, restored, now } = setup;
        let Restored { hard_state, snapshot, commit, promised_micros, .. } = restored;
        let base = snapshot.as_ref().map(|meta| (meta.membership_id, meta.membership.clone()));
        let mut memberships = Memberships::new(base);
        for entry in log.range(log.base().index, log.last().index) {
            memberships.append(entry);
        }
        let applied = snapshot.as_ref().map_or(LogIndex::ZERO, |meta| meta.last.index);
        let held_max = config.inflight_messages_max.saturating_mul(4).max(64);
        Self {
            id,
            incarnation,
            random: seed,
            now,
            hard_state,
            log,
            memberships,
            snapshot,
            snapshot_wanted: false,
            markers: VecDeque::new(),
            install: None,
            commit_index: commit.max(applied),
            last_applied: applied,
            handed_out: applied,
            freshness: Freshness::default(),
            // What was promised just before the start is not known any more.
            promised_until: now.plus(promised_micros),
            reads: LocalReads::default(),
            withdrawn: None,
            writes: Writes::new(incarnation, held_max),
            outbox: Outbox::default(),
            config,
        }
    }

    /// The current term.
    pub(in crate::raft) const fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The membership in force.
    pub(in crate::raft) fn membership(&self) -> &Membership {
        &self.memberships.latest().1
    }

    /// Whether those that `has` names contain a quorum of the membership in force.
    pub(in crate::raft) fn is_quorum(&self, has: impl Fn(NodeId) -> bool) -> bool {
        let membership = self.membership();
        quorum::reached(&membership.voters, membership.outgoing.as_ref(), has)
    }

    /// Whether this node has told a leader that it votes for nobody for now.
    pub(in crate::raft) fn has_promised(&self) -> bool {
        self.now < self.promised_until
    }

    /// Whether this node alone decides.
    pub(in crate::raft) fn is_sole_voter(&self) -> bool {
        self.is_quorum(|id| id == self.id)
    }

    /// Whether this node may stand for election: it is a voter (of either set), or its removal is
    /// not known to be committed. Such a node may hold the only copy of that entry, without which
    /// no other node can win (D §4.2.2). A node that has withdrawn may not.
    pub(in crate::raft) fn may_lead(&self) -> bool {
        let (at, membership) = self.memberships.latest();
        let was_voter = || self.memberships.previous().is_some_and(|before| before.is_voter(self.id));
        let is_leaving = at.index > self.commit_index && was_voter();
        (membership.is_voter(self.id) || is_leaving) && self.withdrawn.is_none()
    }

    /// Voters of either set other than this node.
    pub(in crate::raft) fn other_voters(&self) -> Vec<NodeId> {
        let membership = self.membership();
        membership.members.keys().copied().filter(|id| *id != self.id && membership.is_voter(*id)).collect()
    }

    /// A message of the current term.
    pub(super) const fn message(&self, to: NodeId, body: Body) -> Message {
        Message { from: self.id, to, term: self.hard_state.term, body }
    }

    /// Sends a message that says nothing of durable state. It leaves with the next output.
    pub(in crate::raft) fn send(&mut self, to: NodeId, body: Body) {
        let message = self.message(to, body);
        self.outbox.messages.push(message);
    }

    /// Sends a message that depends on everything written so far. It leaves when that is durable.
    pub(in crate::raft) fn hold(&mut self, to: NodeId, body: Body) {
        let message = self.message(to, body);
        self.writes.hold(message);
    }

    /// Sends a message that depends on the current term only. It leaves when that is durable.
    pub(in crate::raft) fn hold_for_term(&mut self, to: NodeId, body: Body) {
        let message = self.message(to, body);
        self.writes.hold_for_term(message);
    }

    /// Reports a message that no correct peer sends.
    pub(in crate::raft) fn bad_message(&mut self, from: NodeId, reason: &'static str) {
        self.outbox.events.push(RaftEvent::BadMessage { from, reason });
    }

    /// Changes term or vote. Messages of an earlier term that still wait are dropped.
    ///
    /// # Panics
    /// If the term went back, or a vote were changed within a term (Raft §5.2).
    pub(in crate::raft) fn set_hard_state(&mut self, hard_state: HardState) {
        let before = self.hard_state;
        assert!(hard_state.term >= before.term, "terms never go back");
        if hard_state.term > before.term {
            self.writes.forget_held();
        } else {
            let unchanged = before.voted_for.is_none() || before.voted_for == hard_state.voted_for;
            assert!(unchanged, "one vote in a term");
        }
        self.hard_state = hard_state;
        self.writes.hard_state(hard_state);
    }

    /// Appends an entry, in memory and to the pending write. A membership is in force from here on.
    /// A snapshot that was arriving is abandoned: a leader that sends entries sends no snapshot any
    /// more. The storage does the same with the same write.
    pub(in crate::raft) fn append(&mut self, entry: Entry) {
        self.install.take_if(|install| install.pending.is_none());
        let changed = self.memberships.append(&entry);
        self.log.append(entry.clone());
        self.writes.append(entry);
        if changed {
            self.report_membership();
        }
    }

    /// Removes conflicting entries; a membership among them is no longer in force.
    ///
    /// # Panics
    /// If a committed entry would go (State Machine Safety, Raft §5.4.3).
    pub(in crate::raft) fn truncate_from(&mut self, index: LogIndex) {
        assert!(index > self.commit_index, "committed entries stay");
        self.log.truncate_from(index);
        self.writes.truncate_from(index);
        if self.memberships.truncate_from(index) {
            self.report_membership();
        }
    }

    /// Moves the commit index forward to `index`, if that is forward.
    ///
    /// # Panics
    /// If the log ends below: a node commits only entries that it has.
    pub(in crate::raft) fn commit_to(&mut self, index: LogIndex) {
        if index <= self.commit_index {
            return;
        }
        assert!(index <= self.log.last().index, "only what is in the log is committed");
        let before = core::mem::replace(&mut self.commit_index, index);
        if before < self.memberships.at(index).0.index {
            self.report_committed_membership();
        }
    }

    /// Tells which membership is the newest that is known to be committed, if one is.
    pub(in crate::raft) fn report_committed_membership(&mut self) {
        let (id, membership) = self.memberships.at(self.commit_index);
        if id.index == LogIndex::ZERO {
            return;
        }
        if *id == self.memberships.latest().0 {
            return self.report_membership();
        }
        let event = RaftEvent::MembershipCommitted { membership: membership.clone(), id: *id };
        self.outbox.events.push(event);
    }

    /// Tells which membership is in force.
    pub(in crate::raft) fn report_membership(&mut self) {
        let (id, membership) = self.memberships.latest().clone();
        let committed = id.index <= self.commit_index;
        self.outbox.events.push(RaftEvent::MembershipChanged { membership, id, committed });
    }

    /// A time to campaign, drawn from `[min, 2 × min)` from now (Raft §5.2).
    pub(in crate::raft) fn draw_election_deadline(&mut self) -> Time {
        let min = self.config.election_timeout_micros;
        self.now.plus(min + self.draw() % min)
    }

    /// Whether the oldest write under way takes longer than a disk should.
    pub(in crate::raft) fn is_disk_stalled(&self) -> bool {
        let oldest = self.writes.oldest_issued_at();
        oldest.is_some_and(|issued| self.now.since(issued) >= self.config.disk_stall_micros)
    }

    /// Starts the generator over: a model checker does not tell timeouts apart.
    #[cfg(feature = "model")]
    pub(in crate::raft) const fn forget_random(&mut self) {
        self.random = 0;
    }

    /// SplitMix64: one u64 of state, so that the whole core can be compared, hashed and replayed.
    pub(in crate::raft) fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A snapshot that arrives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Install {
    pub snapshot: Box<SnapshotMeta>,
    /// Where the next chunk starts.
    pub next_offset: u64,
    /// The write that carries the last chunk and the marker. Until it is durable the log takes no
    /// entries.
    pub pending: Option<WriteSequence>,
    /// The leader that sends it, to tell it to start over.
    pub from: NodeId,
    pub session: Session,
}
