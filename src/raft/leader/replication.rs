//! Replication on the leader's side: proposals, sends, answers, and the commit index (Raft §5.3,
//! §5.4.2).

use crate::raft::api::InputError;
use crate::raft::core::Raft;
use crate::raft::log::entry::{ENTRY_DATA_BYTES_MAX, ENTRY_HEADER_BYTES, Entry, EntryKind};
use crate::raft::membership::withdrawal::Withdrawal;
use crate::raft::message::{AnswerClock, AppendClock, Body, CommitAge};
use crate::raft::quorum;
use crate::raft::state::progress::{Peer, PeerState, Probe};
use crate::raft::state::role::{Leader, Role};
use crate::raft::state::sending::Budget;
use crate::raft::state::shared::Shared;
use crate::raft::types::{LogId, LogIndex, NodeId, ReadRound, Session, Time};
use alloc::vec::Vec;
use bytes::Bytes;

impl Raft {
    /// Appends an entry of this kind, if this node leads.
    pub(in crate::raft) fn handle_propose(
        &mut self,
        kind: EntryKind,
        data: &Bytes,
    ) -> Result<LogId, InputError> {
        let hint = self.leader_hint();
        let Role::Leader(leader) = &self.role else { return Err(InputError::NotLeader(hint)) };
        if leader.transfer.is_some() {
            return Err(InputError::Transferring);
        }
        let (bytes, limit) = (data.len() as u64, self.shared.config.uncommitted_bytes_max);
        if bytes > limit || data.len() > ENTRY_DATA_BYTES_MAX {
            return Err(InputError::TooLarge { bytes, limit: limit.min(ENTRY_DATA_BYTES_MAX as u64) });
        }
        // A quorum may commit without this node's disk, but what waits for the disk is bounded all
        // the same.
        let waiting = leader.uncommitted_bytes.max(self.shared.writes.unsynced_bytes());
        if waiting > 0 && waiting + bytes + ENTRY_HEADER_BYTES as u64 > limit {
            return Err(InputError::Uncommitted { bytes: waiting });
        }
        let index = self.append_own(kind, data);
        Ok(LogId::new(self.shared.term(), index))
    }

    /// Appends an entry of the own term to the own log. Only on the leader.
    pub(in crate::raft) fn append_own(&mut self, kind: EntryKind, data: &[u8]) -> LogIndex {
        let index = self.shared.log.last().index.next();
        let entry = Entry::new(LogId::new(self.shared.term(), index), kind, data);
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted_bytes += entry.encoded_bytes() as u64;
        }
        self.shared.append(entry);
        index
    }

    /// Whether a round of reads that a peer confirms has begun (D §6.4); the peer is
    /// reported if not. Rounds only grow within a term, so a round that has not begun would confirm
    /// reads that are yet to come.
    fn has_begun(&mut self, from: NodeId, round: ReadRound) -> bool {
        let begun = !matches!(&self.role, Role::Leader(leader) if round > leader.reads.last_round);
        if !begun {
            self.shared.bad_message(from, "it confirms a round that has not begun");
        }
        begun
    }

    /// An answer to an append of this session, or `None` if it is a late one.
    pub(super) fn answering_peer(
        &mut self,
        from: NodeId,
        session: Session,
    ) -> Option<(&mut Shared, &mut Peer)> {
        let Role::Leader(leader) = &mut self.role else { return None };
        let peer = leader.peers.get_mut(&from)?;
        // A late answer of this relation is a sign of life too: where messages take long, a leader
        // gets no other before the first answer of a new session. One of an earlier relation is of
        // the member before it was removed, and lost its disk.
        if (peer.first_session..=peer.session).contains(&session) {
            peer.last_heard = Some(self.shared.now);
        }
        if peer.session != session {
            return None;
        }
        // Lost entries stay lost, so such an answer is late: it comes from before the loss.
        peer.withdrawn = peer.withdrawn.filter(|why| matches!(why, Withdrawal::LostEntries { .. }));
        Some((&mut self.shared, peer))
    }

    /// Notes what an answer of this relation says of time. Answers that come late count as well:
    /// they say how late they are.
    pub(in crate::raft) fn note_clock(&mut self, from: NodeId, session: Session, clock: AnswerClock) {
        let now = self.shared.now;
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(peer) = leader.peers.get_mut(&from)
            && (peer.first_session..=peer.session).contains(&session)
        {
            peer.note_clock(now, clock);
        }
    }

    /// The peer's log agrees up to `match_index`.
    pub(in crate::raft) fn handle_append_accepted(
        &mut self,
        from: NodeId,
        session: Session,
        match_index: LogIndex,
        round: ReadRound,
    ) {
        if !self.has_begun(from, round) {
            return;
        }
        let Some((shared, peer)) = self.answering_peer(from, session) else { return };
        if match_index > shared.log.last().index {
            return shared.bad_message(from, "it acknowledges entries that were never sent");
        }
        peer.confirmed_round = peer.confirmed_round.max(round);
        peer.acknowledge(match_index, shared.config.inflight_messages_max);
    }

    /// The peer does not have the entry `rejected`. What it has instead is not known; `hint` says
    /// where to look.
    pub(in crate::raft) fn handle_append_rejected(
        &mut self,
        from: NodeId,
        session: Session,
        rejected: LogId,
        hint: LogId,
        round: ReadRound,
    ) {
        if !self.has_begun(from, round) {
            return;
        }
        let Some((shared, peer)) = self.answering_peer(from, session) else { return };
        peer.confirmed_round = peer.confirmed_round.max(round);
        let is_late = match &peer.state {
            PeerState::Probe { .. } => rejected.index.next() != peer.next_index,
            // What it lacks is where an append in flight ends: the next one, or a heartbeat, begins
            // there. Other rejections answer what was sent before a probe.
            PeerState::Replicate(inflight) => !inflight.ends_at(rejected.index),
            PeerState::Snapshot(_) => true,
        };
        // The peer said this before it had those entries, so it says nothing new of where the logs
        // agree.
        let is_late = is_late || rejected.index <= peer.match_index;
        if is_late {
            return;
        }
        // Where the terms differ too, the whole of a term is skipped at once (Raft §5.3, end).
        let at_most = hint.index.min(rejected.index.previous());
        let candidate = shared.log.last_match_candidate(at_most, hint.term);
        let next_index = if candidate.term > hint.term || candidate.index > at_most {
            // Not even the base can match: what it needs is compacted.
            at_most.next().min(candidate.index)
        } else {
            candidate.index.next()
        };
        peer.narrow();
        peer.probe(next_index.min(rejected.index.max(LogIndex::new(1))));
    }

    /// The peer still takes this node for the leader.
    pub(in crate::raft) fn handle_heard(
        &mut self,
        from: NodeId,
        round: ReadRound,
        promised_micros: u64,
        clock: AnswerClock,
    ) {
        if !self.has_begun(from, round) {
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        peer.last_heard = Some(self.shared.now);
        peer.note_clock(self.shared.now, clock);
        peer.confirmed_round = peer.confirmed_round.max(round);
        // It heard the round after it began. Of earlier ones it is not known any more when.
        if round == leader.reads.last_round && round > ReadRound::ZERO {
            let reliable = self.shared.config.reliable_micros(promised_micros);
            peer.promised_until = peer.promised_until.max(leader.reads.begun_at.plus(reliable));
        }
    }

    /// Commits what is durable on a quorum, if it is of the own term; everything before it is
    /// committed with it (Raft §5.4.2, figure 8). The leader counts itself up to what is durable on
    /// its own disk.
    pub(in crate::raft) fn maybe_commit(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let shared = &mut self.shared;
        let membership = shared.membership();
        let (id, durable) = (shared.id, shared.log.durable());
        let matched = |voter: NodeId| {
            if voter == id { durable } else { leader.peers.get(&voter).map_or(LogIndex::ZERO, Peer::counted) }
        };
        let index = quorum::committed(&membership.voters, membership.outgoing.as_ref(), matched);
        if index <= shared.commit_index || shared.log.term_at(index) != Some(shared.term()) {
            return;
        }
        let committed = shared.log.range(shared.commit_index, index);
        leader.uncommitted_bytes -= committed.map(|entry| entry.encoded_bytes() as u64).sum::<u64>();
        shared.commit_to(index);
    }

    /// Notes how old the leader's own state is at most. It matters while it applies more than it
    /// can at once, and when it leads no longer.
    pub(in crate::raft) fn note_own_age(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let shared = &mut self.shared;
        if shared.commit_index < leader.term_start {
            return;
        }
        if let Some(at) = shared.confirmed_at(leader, shared.now, None) {
            shared.freshness.learn(at, shared.commit_index, shared.last_applied);
        }
    }

    /// Sends every peer what it lacks: entries, the commit index, the read round, or a heartbeat.
    pub(in crate::raft) fn send_appends(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let shared = &mut self.shared;
        assert!(shared.writes.is_term_durable(), "a leader was elected by durable votes, its own included");
        let Leader { peers, last_session, reads, pace, .. } = leader;
        let (now, patience) = (shared.now, shared.config.election_timeout_micros);
        let transfers = peers.values().filter_map(|peer| peer.transfer(now, patience));
        let mut budget = Budget::of(&shared.config, transfers, pace.clone());
        let round = reads.unconfirmed_round();
        let sent_before = shared.outbox.messages.len();
        peers.retain(|_, peer| !peer.is_done(shared.commit_index, now, patience));
        // Where chunks have to wait for each other, the peers take turns.
        let served = budget.pace.served;
        for is_behind in [true, false] {
            for (id, peer) in peers.iter_mut().filter(|(id, _)| (**id > served) == is_behind) {
                shared.send_to_peer(*id, peer, (last_session, &mut budget), round);
            }
        }
        *pace = budget.pace;
        let mut messages = core::mem::take(&mut shared.outbox.messages);
        for message in &mut messages[sent_before..] {
            if let Body::AppendEntries { clock, .. } = &mut message.body {
                *clock = shared.append_clock(leader, message.to);
            }
        }
        shared.outbox.messages = messages;
    }
}

impl Shared {
    /// The latest time, by this leader's clock, at which a quorum of the voters certainly took it
    /// for the leader: each was sent something then, or later, and answered. So until then no other
    /// leader can have committed anything. `also` is counted as if it had answered now.
    pub(in crate::raft) fn confirmed_at(
        &self,
        leader: &Leader,
        now: Time,
        also: Option<NodeId>,
    ) -> Option<Time> {
        let membership = self.membership();
        let confirmed = |id: NodeId| {
            let is_now = id == self.id || Some(id) == also;
            if is_now { Some(now) } else { leader.peers.get(&id).and_then(Peer::counted_at) }
        };
        quorum::committed(&membership.voters, membership.outgoing.as_ref(), confirmed)
    }

    /// What an append to this peer says of time.
    ///
    /// The peer's reading is from before now, and when the peer gave it, it took this node for the
    /// leader. So it counts as confirming until then, and the others until [`Self::confirmed_at`],
    /// which may be earlier by the age. Before the first commit of its term a leader does not know
    /// what its predecessors committed (Raft §8).
    fn append_clock(&self, leader: &Leader, to: NodeId) -> AppendClock {
        let knows_commits = self.commit_index >= leader.term_start;
        let reading = leader.peers.get(&to).and_then(|peer| peer.reading).filter(|_| knows_commits);
        let age = reading.and_then(|reading| {
            let confirmed_at = self.confirmed_at(leader, self.now, Some(to))?;
            Some(CommitAge { reading, micros: self.now.since(confirmed_at) })
        });
        AppendClock { sent_at: self.now, age }
    }

    fn send_to_peer(
        &mut self,
        id: NodeId,
        peer: &mut Peer,
        (last_session, budget): (&mut Session, &mut Budget),
        round: ReadRound,
    ) {
        let before = peer.next_index.previous();
        if self.log.term_at(before).is_none() && !matches!(peer.state, PeerState::Snapshot(_)) {
            self.start_snapshot(peer, last_session);
        }
        loop {
            let config = &self.config;
            let last = self.log.last().index;
            let last = peer.leaving.map_or(last, |leaving| leaving.removed_at.min(last));
            let has_more = peer.next_index <= last;
            let may_send = match &peer.state {
                PeerState::Probe { sent } => sent.is_none(),
                PeerState::Replicate(inflight) => {
                    let window = peer.window.unwrap_or(config.inflight_messages_max);
                    has_more && !inflight.is_full(window, config.inflight_bytes_max)
                }
                PeerState::Snapshot(_) => false,
            };
            if !may_send {
                break;
            }
            self.send_append(id, peer, round, config.append_bytes_max);
        }
        let interval = self.config.heartbeat_interval_micros;
        let idle = peer.last_sent_at.is_none_or(|told| self.now.since(told) >= interval);
        let is_replicating = matches!(peer.state, PeerState::Replicate(_));
        let tail = peer.next_index.previous();
        let has_news = is_replicating && self.commit_index.min(tail) > peer.sent_commit;
        if idle || has_news || round > peer.sent_round {
            self.send_append(id, peer, round, 0);
        }
        self.continue_snapshot(id, peer, last_session, budget);
    }

    /// One append with at most `bytes_max` bytes of entries (one entry still goes, unless it is 0:
    /// a heartbeat).
    fn send_append(&mut self, id: NodeId, peer: &mut Peer, round: ReadRound, bytes_max: u64) {
        let mut prev = LogId::ZERO;
        let mut entries = Vec::new();
        // A peer that waits for a snapshot has nothing to compare: its heartbeat begins before the
        // log.
        if !matches!(peer.state, PeerState::Snapshot(_)) {
            let before = peer.next_index.previous();
            let term = self.log.term_at(before).expect("a peer that needs compacted entries gets a snapshot");
            prev = LogId::new(term, before);
            let mut bytes = 0;
            if bytes_max > 0 {
                let through = peer.leaving.map_or(self.log.last().index, |leaving| leaving.removed_at);
                (entries, bytes) = self.log.batch(before, through, bytes_max);
            }
            let last = prev.index.plus(entries.len() as u64);
            match &mut peer.state {
                PeerState::Probe { sent: Some(probe) } => probe.has_heartbeat_after = true,
                PeerState::Probe { sent } => *sent = Some(Probe { last, bytes, has_heartbeat_after: false }),
                PeerState::Replicate(inflight) => {
                    if !entries.is_empty() {
                        inflight.add(last, bytes);
                        peer.next_index = last.next();
                    }
                }
                PeerState::Snapshot(_) => {}
            }
        }
        let tail = prev.index.plus(entries.len() as u64);
        peer.last_sent_at = Some(self.now);
        peer.sent_commit = peer.sent_commit.max(self.commit_index.min(tail));
        peer.sent_round = peer.sent_round.max(round);
        let (session, commit) = (peer.session, self.commit_index);
        let matched = peer.match_index;
        let acknowledged = self.log.term_at(matched).map_or(LogId::ZERO, |term| LogId::new(term, matched));
        // The caller fills it in.
        let clock = AppendClock::default();
        self.send(id, Body::AppendEntries { session, prev, acknowledged, entries, commit, round, clock });
    }
}
