//! Terms, timeouts, votes: how a leader is elected, and how it steps down.

use crate::raft::core::Raft;
use crate::raft::log::entry::EntryKind;
use crate::raft::message::{Body, ReadRefusal};
use crate::raft::quorum::{self, VoteResult};
use crate::raft::state::progress::Peer;
use crate::raft::state::read_queues::LeaderReads;
use crate::raft::state::role::{Candidate, Follower, Leader, PreCandidate, Role};
use crate::raft::state::sending::Pace;
use crate::raft::state::shared::Shared;
use crate::raft::types::{HardState, LogId, NodeId, ReadRound, Session, Term, Time};
use alloc::collections::BTreeMap;

/// A follower whose leader's process is gone asks for votes after this part of the election
/// timeout, …
const GONE_PAUSE_PART: u64 = 40;
/// … and a draw from `[0, this part)` of it.
const GONE_SPREAD_PART: u64 = 10;
/// A candidate that may yet win asks for votes again after this part of the election timeout.
const ASK_AGAIN_PART: u64 = 2;

impl Raft {
    /// Whether elections alone cannot have brought a cluster to `term` while this node was away.
    pub(super) fn is_beyond_reach(&self, term: Term) -> bool {
        !term.is_in_reach_of(self.shared.term())
    }

    /// The term gate: what a message's term does before its body is looked at (Raft §5.1). `false`
    /// drops the message.
    pub(super) fn pass_term_gate(&mut self, from: NodeId, term: Term, body: &Body) -> bool {
        let ours = self.shared.term();
        match body {
            // A pre-vote changes no term. Its answers count in any term of the node that answers,
            // unless that term is ahead (D §9.6).
            Body::PreVote { .. } => true,
            Body::PreVoteGranted { .. } | Body::PreVoteRejected { .. } if term <= ours => true,
            // A node that hears from a leader ignores RequestVote. It does not even adopt the term
            // (D §4.2.3).
            Body::RequestVote { transfer: false, .. } if term > ours && self.hears_a_leader() => false,
            // This node took the candidate's term from another message, and its promise to the old
            // leader still holds.
            Body::RequestVote { transfer: false, .. } if term == ours && self.shared.has_promised() => false,
            _ if term > ours => {
                let leads = matches!(body, Body::AppendEntries { .. } | Body::InstallSnapshot { .. });
                self.become_follower(term, leads.then_some(from));
                true
            }
            _ if term < ours => {
                self.reject_stale(from, body);
                false
            }
            _ => true,
        }
    }

    /// Tells a peer of an earlier term that its term is over. Messages that are no requests are
    /// dropped.
    ///
    /// The answer only carries the term in its header: it names no session and no round. By now the
    /// peer may lead the present term, too, and sessions and rounds start over with each term. An
    /// echo of its late request would then confirm rounds that it has not begun.
    fn reject_stale(&mut self, from: NodeId, body: &Body) {
        let rejection = match *body {
            Body::AppendEntries { prev, .. } => Body::AppendRejected {
                session: Session::ZERO,
                rejected: prev,
                hint: LogId::ZERO,
                round: ReadRound::ZERO,
                clock: self.shared.answer_clock(Time::new(0)),
            },
            Body::InstallSnapshot { ref snapshot, .. } => {
                let (session, snapshot) = (Session::ZERO, snapshot.last);
                Body::SnapshotProgress { session, snapshot, next_offset: 0, is_lacking: false }
            }
            Body::RequestVote { .. } => Body::VoteRejected,
            Body::ReadIndex { incarnation, sequence } => {
                Body::ReadIndexRefused { incarnation, sequence, why: ReadRefusal::NotLeading }
            }
            _ => return,
        };
        self.shared.hold_for_term(from, rejection);
    }

    /// Whether this node has reason to believe that the present leader lives.
    fn hears_a_leader(&self) -> bool {
        if self.shared.has_promised() {
            return true;
        }
        match &self.role {
            Role::Follower(follower) => {
                let silence = self.shared.now.since(follower.last_heard);
                let is_fresh = silence < self.shared.config.election_timeout_micros;
                follower.leader.is_some() && !follower.is_leader_gone && is_fresh
            }
            // A leader steps down by itself when it does not hear a quorum.
            Role::Leader(_) => true,
            Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// A node asks whether this one would vote for it. Nothing changes here, durable or not
    /// (D §9.6).
    pub(super) fn handle_pre_vote(&mut self, from: NodeId, campaign_term: Term, last_log: LogId) {
        let granted = campaign_term > self.shared.term()
            && is_up_to_date(last_log, self.shared.log.last())
            && !self.hears_a_leader();
        let body = if granted {
            Body::PreVoteGranted { campaign_term }
        } else {
            Body::PreVoteRejected { campaign_term }
        };
        self.shared.send(from, body);
    }

    /// RequestVote (Raft §5.2, §5.4.1). A node answers even if it is no voter by its own
    /// membership: it may not know yet that it is one.
    pub(super) fn handle_request_vote(&mut self, from: NodeId, last_log: LogId) {
        let voted_for = self.shared.hard_state.voted_for;
        let may_vote = match &self.role {
            // Once this term's leader is known, its election is decided.
            Role::Follower(follower) => {
                voted_for == Some(from) || (voted_for.is_none() && follower.leader.is_none())
            }
            Role::PreCandidate(_) => voted_for.is_none() || voted_for == Some(from),
            // These have voted for themselves.
            Role::Candidate(_) | Role::Leader(_) => false,
        };
        if !may_vote || !is_up_to_date(last_log, self.shared.log.last()) {
            self.shared.hold_for_term(from, Body::VoteRejected);
            return;
        }
        if voted_for.is_none() {
            let term = self.shared.term();
            self.shared.set_hard_state(HardState { term, voted_for: Some(from) });
        }
        if matches!(self.role, Role::PreCandidate(_)) {
            self.become_follower(self.shared.term(), None);
        }
        self.reset_election_deadline();
        self.shared.hold(from, Body::VoteGranted);
    }

    /// An answer to a pre-vote.
    pub(super) fn handle_pre_vote_answer(&mut self, from: NodeId, campaign_term: Term, granted: bool) {
        let asked = self.shared.term().next();
        if let Role::PreCandidate(candidate) = &mut self.role
            && campaign_term == asked
        {
            candidate.votes.insert(from, granted);
            self.count_pre_votes();
        }
    }

    /// An answer to a vote request of this term.
    pub(super) fn handle_vote_answer(&mut self, from: NodeId, granted: bool) {
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.votes.insert(from, granted);
            self.count_votes();
        }
    }

    /// TimeoutNow: the leader wants this node to take over (D §3.10).
    pub(super) fn handle_timeout_now(&mut self, from: NodeId) {
        let Role::Follower(follower) = &self.role else { return };
        if follower.leader == Some(from) && self.may_campaign() {
            self.become_candidate(true);
        }
    }

    /// The clock of a node that does not lead.
    pub(super) fn handle_election_timeout(&mut self) {
        let deadline = match &self.role {
            Role::Follower(follower) => follower.election_deadline,
            Role::PreCandidate(candidate) => candidate.election_deadline,
            Role::Candidate(candidate) if self.may_yet_win(candidate) => return self.ask_for_votes_again(),
            Role::Candidate(candidate) => candidate.election_deadline,
            Role::Leader(_) => return,
        };
        if self.shared.now < deadline {
            return;
        }
        if self.may_campaign() && !self.shared.has_promised() {
            self.become_pre_candidate();
        } else {
            self.reset_election_deadline();
        }
    }

    /// Whether a candidate wins once those have voted that are expected to. A vote leaves when it
    /// is durable, and a disk may take longer for that than an election timeout. A candidate that
    /// started over would throw the vote away that is on its way, in every term again.
    pub(super) fn may_yet_win(&self, candidate: &Candidate) -> bool {
        let membership = self.shared.membership();
        let vote = |id| {
            let is_expected = id == self.shared.id || candidate.willing.contains(&id);
            candidate.votes.get(&id).copied().or_else(|| is_expected.then_some(true))
        };
        let result = quorum::tally(&membership.voters, membership.outgoing.as_ref(), vote);
        self.shared.now < candidate.patient_until && self.may_campaign() && result == VoteResult::Won
    }

    /// A candidate that waits for votes asks again, now and then: a request or an answer may be
    /// lost. Those that have voted for it hear that it still stands, and do not stand themselves.
    fn ask_for_votes_again(&mut self) {
        let now = self.shared.now;
        let again_at = now.plus(self.shared.config.election_timeout_micros / ASK_AGAIN_PART);
        let Role::Candidate(candidate) = &mut self.role else { return };
        if now < candidate.ask_again_at {
            return;
        }
        candidate.ask_again_at = again_at;
        candidate.election_deadline = candidate.election_deadline.max(again_at);
        // Until its own vote is durable, the first requests have not left.
        if !candidate.votes.contains_key(&self.shared.id) {
            return;
        }
        let body = Body::RequestVote { last_log: self.shared.log.last(), transfer: candidate.transfer };
        for voter in self.shared.other_voters() {
            if candidate.votes.get(&voter) != Some(&false) {
                self.shared.hold(voter, body.clone());
            }
        }
    }

    /// The driver says that a peer's process is gone. If it led, nobody has to wait for an election
    /// timeout: this node asks the others soon, and tells those that ask that it hears no leader.
    ///
    /// The pre-vote stays. If the hint is false, the others still hear their leader and refuse, and
    /// no term has changed.
    pub(super) fn handle_peer_gone(&mut self, peer: NodeId) {
        let Role::Follower(follower) = &mut self.role else { return };
        if follower.leader != Some(peer) || follower.is_leader_gone {
            return;
        }
        // The others need a moment to notice it, too. A draw keeps them from asking all at once.
        let timeout = self.shared.config.election_timeout_micros;
        let spread = self.shared.draw() % (timeout / GONE_SPREAD_PART).max(1);
        let soon = self.shared.now.max(self.shared.promised_until).plus(timeout / GONE_PAUSE_PART + spread);
        follower.is_leader_gone = true;
        follower.election_deadline = follower.election_deadline.min(soon);
    }

    /// Whether this node may stand for election: by its own log, on a disk that works, with no
    /// snapshot about to replace the log.
    fn may_campaign(&self) -> bool {
        self.shared.may_lead() && !self.shared.is_install_pending() && !self.shared.is_disk_stalled()
    }

    /// At the start: a node that decides alone need not wait.
    pub(super) fn campaign_if_alone(&mut self) {
        if !self.may_campaign() || !self.shared.is_sole_voter() {
            return;
        }
        if !self.shared.has_promised() {
            self.become_candidate(false);
        } else if let Role::Follower(follower) = &mut self.role {
            follower.election_deadline = self.shared.promised_until;
        }
    }

    /// Becomes a follower in `term`. A follower keeps its election deadline: only a leader's
    /// message and a granted vote put it off (Raft §5.2).
    pub(super) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        let new_term = term > self.shared.term();
        if new_term {
            self.shared.set_hard_state(HardState { term, voted_for: None });
        }
        let election_deadline = match &mut self.role {
            Role::Follower(follower) => {
                if !new_term && follower.leader == leader {
                    return;
                }
                follower.election_deadline
            }
            Role::Leader(leader) => {
                self.shared.reads.wait_again(leader.reads.take_local());
                self.shared.draw_election_deadline()
            }
            Role::PreCandidate(_) | Role::Candidate(_) => self.shared.draw_election_deadline(),
        };
        let last_heard = self.shared.now;
        self.role = Role::Follower(Follower {
            leader,
            last_heard,
            is_leader_gone: false,
            election_deadline,
            last_answer_at: None,
        });
    }

    /// A message of the leader of this term has come. `false` if it cannot be its leader.
    pub(super) fn follow(&mut self, from: NodeId) -> bool {
        let known = match &self.role {
            Role::Leader(_) => Some(self.shared.id),
            Role::Follower(follower) => follower.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        };
        if known.is_some_and(|leader| leader != from) {
            self.shared.bad_message(from, "it says that it leads a term which has another leader");
            return false;
        }
        self.become_follower(self.shared.term(), Some(from));
        self.reset_election_deadline();
        if let Role::Follower(follower) = &mut self.role {
            follower.last_heard = self.shared.now;
            follower.is_leader_gone = false;
        }
        true
    }

    fn reset_election_deadline(&mut self) {
        let drawn = self.shared.draw_election_deadline();
        match &mut self.role {
            Role::Follower(follower) => follower.election_deadline = drawn,
            Role::PreCandidate(candidate) => candidate.election_deadline = drawn,
            Role::Candidate(candidate) => candidate.election_deadline = drawn,
            Role::Leader(_) => {}
        }
    }

    /// Asks the other voters whether this node would win (D §9.6). No term changes.
    fn become_pre_candidate(&mut self) {
        let votes = BTreeMap::from([(self.shared.id, true)]);
        let election_deadline = self.shared.draw_election_deadline();
        self.role = Role::PreCandidate(PreCandidate { votes, election_deadline });
        let body =
            Body::PreVote { campaign_term: self.shared.term().next(), last_log: self.shared.log.last() };
        for voter in self.shared.other_voters() {
            self.shared.send(voter, body.clone());
        }
        self.count_pre_votes();
    }

    /// Stands for election in the next term. Its own vote counts, and the requests leave, when term
    /// and vote are durable.
    fn become_candidate(&mut self, transfer: bool) {
        let willing = match &self.role {
            Role::PreCandidate(asked) if !transfer => {
                asked.votes.iter().filter(|(_, granted)| **granted).map(|(id, _)| *id).collect()
            }
            _ => self.shared.other_voters().into_iter().collect(),
        };
        let term = self.shared.term().next();
        self.shared.set_hard_state(HardState { term, voted_for: Some(self.shared.id) });
        let election_deadline = self.shared.draw_election_deadline();
        let Shared { config, now, .. } = &self.shared;
        self.role = Role::Candidate(Candidate {
            votes: BTreeMap::new(),
            willing,
            transfer,
            vote_at: self.shared.writes.stamp(),
            ask_again_at: now.plus(config.election_timeout_micros / ASK_AGAIN_PART),
            election_deadline,
            patient_until: now.plus(config.disk_stall_micros),
        });
        let body = Body::RequestVote { last_log: self.shared.log.last(), transfer };
        for voter in self.shared.other_voters() {
            self.shared.hold(voter, body.clone());
        }
    }

    /// A receipt came: if the vote for itself is durable now, it counts.
    pub(super) fn maybe_count_own_vote(&mut self) {
        if let Role::Candidate(candidate) = &mut self.role
            && self.shared.writes.is_durable(candidate.vote_at)
            && candidate.votes.insert(self.shared.id, true).is_none()
        {
            self.count_votes();
        }
    }

    fn count_pre_votes(&mut self) {
        let Role::PreCandidate(candidate) = &self.role else { return };
        match self.tally(&candidate.votes) {
            VoteResult::Won => self.become_candidate(false),
            VoteResult::Lost => self.become_follower(self.shared.term(), None),
            VoteResult::Pending => {}
        }
    }

    fn count_votes(&mut self) {
        let Role::Candidate(candidate) = &self.role else { return };
        match self.tally(&candidate.votes) {
            VoteResult::Won => self.become_leader(),
            VoteResult::Lost => self.become_follower(self.shared.term(), None),
            VoteResult::Pending => {}
        }
    }

    fn tally(&self, votes: &BTreeMap<NodeId, bool>) -> VoteResult {
        let membership = self.shared.membership();
        quorum::tally(&membership.voters, membership.outgoing.as_ref(), |id| votes.get(&id).copied())
    }

    /// Becomes the leader. It probes every peer from the end of the log, and first appends an entry
    /// of its own term: only the commit of that entry commits what predecessors left (Raft §5.4.2,
    /// §8).
    fn become_leader(&mut self) {
        let shared = &mut self.shared;
        assert!(shared.hard_state.voted_for == Some(shared.id), "a leader voted for itself");
        let term_start = shared.log.last().index.next();
        let unfinished = shared.log.range(shared.commit_index, shared.log.last().index);
        let uncommitted_bytes = unfinished.map(|entry| entry.encoded_bytes() as u64).sum();
        let mut leader = Leader {
            peers: BTreeMap::new(),
            last_session: Session::ZERO,
            term_start,
            uncommitted_bytes,
            reads: LeaderReads::default(),
            pace: Pace::default(),
            checked_at: shared.now,
            transfer: None,
            has_told_successor: false,
        };
        let others = shared.membership().members.keys().filter(|id| **id != shared.id);
        for id in others {
            let session = leader.next_session();
            leader.peers.insert(*id, Peer::new(session, term_start, shared.now));
        }
        self.role = Role::Leader(leader);
        self.append_own(EntryKind::Empty, &[]);
    }

    /// The clock of the leader: does a quorum still answer, does its disk still write?
    pub(super) fn check_leadership(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let shared = &self.shared;
        leader.checked_at = shared.now;
        let micros = shared.config.election_timeout_micros;
        let heard = shared.is_quorum(|id| {
            id == shared.id || leader.peers.get(&id).is_some_and(|peer| peer.is_active(shared.now, micros))
        });
        if !heard {
            self.become_follower(self.shared.term(), None);
        } else if shared.is_disk_stalled() {
            self.hand_over_and_step_down();
        } else if leader.transfer.as_ref().is_some_and(|transfer| shared.now >= transfer.deadline) {
            leader.transfer = None;
        }
    }
}

/// Whether a candidate whose log ends with `theirs` has all that may be committed in a log that
/// ends with `ours` (Raft §5.4.1).
fn is_up_to_date(theirs: LogId, ours: LogId) -> bool {
    theirs >= ours
}
