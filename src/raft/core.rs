//! The core's state and its entry points: propose, step, take_output. The dispatch has no rules.

use crate::codec::FeatureLevel;
use crate::raft::api::{Input, InputError, LeaderHint, Output, RaftEvent, RoleName, Setup};
use crate::raft::log::entry::{Entry, EntryKind};
use crate::raft::log::records::Durable;
use crate::raft::log::restore::{RestoreError, restore_log};
use crate::raft::log::snapshot::SnapshotRefusal;
use crate::raft::membership::members::Membership;
use crate::raft::membership::withdrawal::Withdrawal;
use crate::raft::message::{Append, Body, Chunk, Message};
use crate::raft::state::progress::{Peer, PeerState, ReplicationState};
use crate::raft::state::role::{Follower, Role};
use crate::raft::state::shared::{Outbox, Shared};
use crate::raft::types::{LogId, LogIndex, NodeId, Term, Time};
use alloc::vec::Vec;
use bytes::Bytes;

/// One member's consensus state machine. See the module's documentation for the contract.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    /// What it has in every role.
    pub(super) shared: Shared,
    /// What it has in its present role.
    pub(super) role: Role,
    /// Role, term and leader as last told in [`RaftEvent::RoleChanged`].
    last_reported: (RoleName, LeaderHint),
}

/// What a leader knows of one peer, for status and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The peer.
    pub id: NodeId,
    /// Its log agrees with the leader's, durably, up to here.
    pub match_index: LogIndex,
    /// The next entry to be sent to it.
    pub next_index: LogIndex,
    /// How the leader brings it up to date.
    pub state: ReplicationState,
    /// Appends that were sent and not acknowledged.
    pub inflight: usize,
    /// Bytes of a snapshot that are read for it, or were sent and not acknowledged.
    pub snapshot_bytes_inflight: u64,
    /// When it was last heard from.
    pub last_heard: Option<Time>,
    /// Why it did not take the snapshot that was sent to it; `None` when it has none to take, or
    /// has not refused it.
    pub snapshot_refused: Option<SnapshotRefusal>,
    /// Why it takes no part any more, by its own word; `None` if it does.
    pub withdrawn: Option<Withdrawal>,
}

impl Raft {
    /// Starts a core from its durable state. A node that is its cluster's only voter stands for
    /// election at once.
    ///
    /// # Errors
    /// [`RestoreError`] if limits or recovered state make no sense together.
    pub fn new(mut setup: Setup) -> Result<Self, RestoreError> {
        setup.config.validate()?;
        let log = restore_log(&mut setup.restored)?;
        let now = setup.now;
        let mut shared = Shared::new(setup, log);
        let election_deadline = shared.draw_election_deadline();
        let role = Role::Follower(Follower {
            leader: None,
            last_heard: now,
            is_leader_gone: false,
            election_deadline,
            last_answer_at: None,
        });
        let hint = LeaderHint { leader: None, term: shared.term() };
        let mut raft = Self { shared, role, last_reported: (RoleName::Follower, hint) };
        raft.campaign_if_alone();
        // What was read may be more than may stay in memory, and nothing may come for long.
        raft.maybe_trim();
        raft.shared.report_committed_membership();
        raft.report_role();
        Ok(raft)
    }

    /// Appends a command to the log of the leader. Says where it stands: it is committed when
    /// [`Output::committed`] holds an entry of this index *and* term; when one of another term is
    /// committed there, it is lost.
    ///
    /// # Errors
    /// [`InputError`] if it was not taken in (this node does not lead, say); nothing has changed
    /// then.
    pub fn propose(&mut self, now: Time, command: &Bytes) -> Result<LogId, InputError> {
        self.propose_kind(now, EntryKind::Command, command)
    }

    /// The same, for an entry that raises the level of the cluster. The caller makes sure that all
    /// members speak that level.
    ///
    /// # Errors
    /// As [`Self::propose`].
    pub fn propose_level(&mut self, now: Time, level: FeatureLevel) -> Result<LogId, InputError> {
        self.propose_kind(now, EntryKind::Level, &Bytes::from(level.to_data()))
    }

    fn propose_kind(&mut self, now: Time, kind: EntryKind, data: &Bytes) -> Result<LogId, InputError> {
        self.shared.now = self.shared.now.max(now);
        let taken = self.handle_propose(kind, data);
        self.assert_invariants();
        taken
    }

    /// Takes one input in. Cheap: sends, writes and commits are settled by [`Self::take_output`],
    /// once for all inputs before it. A `now` before an earlier one counts as that one.
    ///
    /// # Errors
    /// [`InputError`] if it was not taken in; nothing has changed then.
    pub fn step(&mut self, now: Time, input: Input) -> Result<(), InputError> {
        self.shared.now = self.shared.now.max(now);
        let mut result = Ok(());
        match input {
            Input::Withdraw(why) => self.withdraw(why),
            Input::StepDown => self.hand_over_and_step_down(),
            Input::PeerGone(peer) => self.handle_peer_gone(peer),
            Input::PeerHasRoom(peer) => self.handle_peer_has_room(peer),
            Input::Wake => {
                self.handle_election_timeout();
                self.check_leadership();
            }
            Input::Message(message) => self.handle_message(message),
            Input::Read(id) => result = self.handle_read(id, false),
            Input::ReadByRound(id) => result = self.handle_read(id, true),
            Input::ChangeMembership(order) => result = self.handle_change(&order),
            Input::TransferLeadership(target) => result = self.handle_transfer(target),
            Input::Durable(receipt) => self.handle_durable(&receipt),
            Input::Applied(index) => self.handle_applied(index),
            Input::SnapshotStored(snapshot) => self.handle_snapshot_stored(snapshot),
            Input::SnapshotRefused(last, why) => self.handle_snapshot_unstored(last, why),
            Input::SnapshotChunkRead { to, session, chunk } => self.handle_chunk_read(to, session, chunk),
        }
        self.report_role();
        self.assert_invariants();
        result
    }

    /// Settles everything the inputs since the last call brought about, and hands it out.
    pub fn take_output(&mut self) -> Output {
        self.assert_peers();
        self.maybe_commit();
        self.note_own_age();
        self.maybe_change();
        self.settle_reads();
        self.continue_transfer();
        self.send_appends();
        self.report_role();
        let shared = &mut self.shared;
        let write = shared.writes.issue(shared.now, shared.log.last().index);
        shared.writes.release(&mut shared.outbox.messages);
        let (from, through) = (shared.handed_out, shared.commit_index);
        let committed =
            shared.log.slice(from, through, shared.config.apply_entries_max, shared.config.apply_bytes_max);
        let reached = committed.last().map_or(through, Entry::index);
        shared.handed_out = reached;
        // What is left waits until the driver has looked after everything else.
        let wake_at = if reached < through { Some(shared.now) } else { self.wake_at() };
        self.assert_invariants();
        self.assert_peers();
        let Outbox { messages, events, reads, snapshot_reads } = core::mem::take(&mut self.shared.outbox);
        Output { events, messages, write, committed, reads, snapshot_reads, wake_at }
    }

    fn handle_message(&mut self, message: Message) {
        let Message { from, to, term, body } = message;
        if to != self.shared.id || from == self.shared.id {
            return self.shared.bad_message(from, "it is not for this node");
        }
        if let Body::Withdrawn(why) = body {
            return self.handle_withdrawn(from, why);
        }
        if let Some(why) = self.shared.withdrawn {
            return self.answer_withdrawn(from, &body, why);
        }
        if self.is_beyond_reach(term) {
            return self
                .shared
                .bad_message(from, "its term is further ahead than elections can have brought it");
        }
        if !self.pass_term_gate(from, term, &body) {
            return;
        }
        match body {
            Body::PreVote { campaign_term, last_log } => self.handle_pre_vote(from, campaign_term, last_log),
            Body::PreVoteGranted { campaign_term } => self.handle_pre_vote_answer(from, campaign_term, true),
            Body::PreVoteRejected { campaign_term } => {
                self.handle_pre_vote_answer(from, campaign_term, false)
            }
            Body::RequestVote { last_log, .. } => self.handle_request_vote(from, last_log),
            Body::VoteGranted => self.handle_vote_answer(from, true),
            Body::VoteRejected => self.handle_vote_answer(from, false),
            Body::AppendEntries { session, prev, acknowledged, entries, commit, round, clock } => {
                let append = Append { session, prev, acknowledged, entries, commit, round, clock };
                self.handle_append(from, append);
            }
            Body::AppendAccepted { session, match_index, round, clock } => {
                self.note_clock(from, session, clock);
                self.handle_append_accepted(from, session, match_index, round);
            }
            Body::AppendRejected { session, rejected, hint, round, clock } => {
                self.note_clock(from, session, clock);
                self.handle_append_rejected(from, session, rejected, hint, round);
            }
            Body::Heard { round, promised_micros, clock } => {
                self.handle_heard(from, round, promised_micros, clock);
            }
            Body::InstallSnapshot { session, snapshot, offset, data, done } => {
                self.handle_install_snapshot(from, Chunk { session, snapshot, offset, data, done });
            }
            Body::SnapshotProgress { session, snapshot, next_offset, is_lacking } => {
                self.handle_snapshot_progress(from, session, snapshot, (next_offset, is_lacking));
            }
            Body::SnapshotInstalled { session, match_index } => {
                self.handle_snapshot_installed(from, session, match_index);
            }
            Body::SnapshotRefused { session, snapshot, why } => {
                self.handle_snapshot_refused(from, session, snapshot, why);
            }
            Body::TimeoutNow => self.handle_timeout_now(from),
            Body::ReadIndex { incarnation, sequence } => self.handle_read_index(from, incarnation, sequence),
            Body::ReadIndexReady { incarnation, sequence, index } => {
                self.handle_read_index_ready(incarnation, sequence, index);
            }
            Body::ReadIndexRefused { incarnation, sequence, why } => {
                self.handle_read_index_refused(incarnation, sequence, why);
            }
            Body::Withdrawn(_) => unreachable!("its term is not looked at"),
        }
    }

    /// A receipt: the log is durable further, messages may leave, the own vote may count, a
    /// snapshot may be complete.
    fn handle_durable(&mut self, receipt: &Durable) {
        if self.shared.writes.complete(receipt, &mut self.shared.log) {
            let needed = self.needed_by_laggards();
            self.shared.finish_snapshots(needed);
            self.maybe_trim();
            self.maybe_count_own_vote();
        }
    }

    fn handle_applied(&mut self, index: LogIndex) {
        assert!(index <= self.shared.handed_out, "a state machine applies only what was handed out");
        self.shared.last_applied = self.shared.last_applied.max(index);
        self.maybe_trim();
    }

    /// Tells role, term and leader when one of them is new.
    fn report_role(&mut self) {
        let current = (self.role(), self.leader_hint());
        if current != self.last_reported {
            self.last_reported = current;
            let (role, hint) = current;
            self.shared.outbox.events.push(RaftEvent::RoleChanged { role, hint });
        }
    }

    /// When the clock matters next.
    fn wake_at(&self) -> Option<Time> {
        let shared = &self.shared;
        let votes = shared.may_lead();
        let (own, has_leader) = match &self.role {
            Role::Follower(follower) => {
                (votes.then_some(follower.election_deadline), follower.leader.is_some())
            }
            Role::PreCandidate(candidate) => (Some(candidate.election_deadline), false),
            Role::Candidate(candidate) => {
                let asks_again = self.may_yet_win(candidate).then_some(candidate.ask_again_at);
                let deadline = candidate.election_deadline;
                (Some(asks_again.map_or(deadline, |at| at.min(deadline))), false)
            }
            Role::Leader(leader) => {
                let interval = shared.config.heartbeat_interval_micros;
                let told = |peer: &Peer| peer.last_sent_at.unwrap_or(shared.now).plus(interval);
                let heartbeat = leader.peers.values().map(told).min();
                // Each append puts the next heartbeat off; whether a quorum still answers is looked
                // at all the same.
                let look = (!leader.peers.is_empty()).then(|| leader.checked_at.plus(interval));
                let stall = shared.writes.oldest_issued_at();
                let stall = stall.map(|issued| issued.plus(shared.config.disk_stall_micros));
                let transfer = leader.transfer.as_ref().map(|transfer| transfer.deadline);
                let chunk = leader.pace.wake_at();
                ([heartbeat, look, stall, transfer, chunk].into_iter().flatten().min(), true)
            }
        };
        own.into_iter().chain(shared.reads_wake_at(has_leader)).min()
    }
}

/// What a core knows, for status and for drivers.
impl Raft {
    /// This node's id.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.shared.id
    }

    /// Current role.
    #[must_use]
    pub const fn role(&self) -> RoleName {
        self.role.name()
    }

    /// Current term and its leader, if known.
    #[must_use]
    pub const fn leader_hint(&self) -> LeaderHint {
        let leader = match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.shared.id),
        };
        LeaderHint { leader, term: self.shared.term() }
    }

    /// How old the state here is at most, microseconds: all that any leader had committed so long
    /// ago is applied. A follower knows it by what its leader says, and a leader by the answers to
    /// what it sent ([`CommitAge`]). `None`: no leader is known, or this node has never had all of
    /// it.
    ///
    /// [`CommitAge`]: crate::raft::CommitAge
    #[must_use]
    pub fn silent_micros(&self, now: Time) -> Option<u64> {
        let shared = &self.shared;
        let known_at = shared.freshness.known_at(shared.last_applied);
        let known_at = match &self.role {
            Role::Follower(follower) => follower.leader.and(known_at),
            Role::PreCandidate(_) | Role::Candidate(_) => None,
            Role::Leader(leader) => {
                let is_all_applied =
                    leader.term_start <= shared.commit_index && shared.commit_index <= shared.last_applied;
                let confirmed_at = is_all_applied.then(|| shared.confirmed_at(leader, now, None));
                confirmed_at.flatten().max(known_at)
            }
        };
        known_at.map(|at| now.since(at))
    }

    /// Current term.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.shared.term()
    }

    /// The last entry in the log.
    #[must_use]
    pub fn last_log(&self) -> LogId {
        self.shared.log.last()
    }

    /// The commit index.
    #[must_use]
    pub const fn commit_index(&self) -> LogIndex {
        self.shared.commit_index
    }

    /// What the state machine said it has applied, or the installed snapshot that replaced it.
    #[must_use]
    pub const fn last_applied(&self) -> LogIndex {
        self.shared.last_applied
    }

    /// The membership in force.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.shared.membership()
    }

    /// Where the membership in force stands in the log, and whether it is known to be committed.
    #[must_use]
    pub fn membership_id(&self) -> (LogId, bool) {
        let (id, _) = self.shared.memberships.latest();
        (*id, id.index <= self.shared.commit_index)
    }

    /// The committed membership in force at `index` (at or below the commit index, at or above the
    /// log's base), with where it stands: for a snapshot.
    #[must_use]
    pub fn membership_at(&self, index: LogIndex) -> (&Membership, LogId) {
        let (id, membership) = self.shared.memberships.at(index);
        (membership, *id)
    }

    /// Whether this snapshot is arriving from a leader.
    #[must_use]
    pub fn is_installing(&self, last: LogId) -> bool {
        self.shared.install.as_ref().is_some_and(|install| install.snapshot.last == last)
    }

    /// Whether a snapshot of this node is complete and its marker is not durable yet.
    #[must_use]
    pub fn awaits_marker(&self) -> bool {
        !self.shared.markers.is_empty()
    }

    /// Whether a newer snapshot was asked for, and none has been taken since.
    #[must_use]
    pub const fn is_snapshot_wanted(&self) -> bool {
        self.shared.snapshot_wanted
    }

    /// Why this node takes no part any more, if it does not.
    #[must_use]
    pub const fn withdrawn(&self) -> Option<Withdrawal> {
        self.shared.withdrawn
    }

    /// The term of the entry at `index`, if the log still knows it.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.shared.log.term_at(index)
    }

    /// A leader's view of every other member; nothing elsewhere.
    pub fn progress(&self) -> impl Iterator<Item = PeerProgress> + '_ {
        let leader = if let Role::Leader(leader) = &self.role { Some(leader) } else { None };
        leader.into_iter().flat_map(|leader| &leader.peers).map(|(id, peer)| PeerProgress {
            id: *id,
            match_index: peer.match_index,
            next_index: peer.next_index,
            state: peer.state.kind(),
            inflight: if let PeerState::Replicate(inflight) = &peer.state { inflight.len() } else { 0 },
            snapshot_bytes_inflight: match &peer.state {
                PeerState::Snapshot(transfer) => transfer.bytes_in_flight(),
                PeerState::Probe { .. } | PeerState::Replicate(_) => 0,
            },
            last_heard: peer.last_heard,
            snapshot_refused: peer.refusal.map(|refused| refused.why),
            withdrawn: peer.withdrawn,
        })
    }

    /// Entries in the log after `after` up to `through`, as far as they are held.
    pub fn log_range(&self, after: LogIndex, through: LogIndex) -> impl Iterator<Item = &Entry> {
        self.shared.log.range(after, through)
    }

    /// Entries in the log after `index`, committed or not.
    #[must_use]
    pub fn log_after(&self, index: LogIndex) -> Vec<Entry> {
        self.shared.log.range(index, self.shared.log.last().index).cloned().collect()
    }
}
