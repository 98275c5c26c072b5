//! What a model checker needs of a core, under the feature `model`: state that decides nothing must
//! make no difference between states.

use crate::raft::core::Raft;
use crate::raft::log::records::LogWrite;
use crate::raft::message::{AnswerClock, AppendClock, Body, Message};
use crate::raft::state::freshness::Freshness;
use crate::raft::state::role::Role;
use crate::raft::types::{Time, WriteSequence};

impl Raft {
    /// Sets the clock back to `now`, and forgets how this state came about.
    ///
    /// Everything on record counts as having happened at `now`, and deadlines are an election
    /// timeout ahead. Only a follower has heard nothing from its leader for that long: so it never
    /// holds to a leader, which would only keep it from doing things. The generator of timeouts
    /// starts over. Writes are counted from the oldest that is not durable, also in `writes`, which
    /// are those handed out and not durable. How often and in what order messages were made that
    /// wait for writes is forgotten too: where they go, messages arrive in any order, and any
    /// number of times.
    ///
    /// # Panics
    /// If `now` is less than an election timeout, or snapshots, transfers of leadership or reads
    /// are under way.
    pub fn forget_time<'a>(&mut self, now: Time, writes: impl Iterator<Item = &'a mut LogWrite>) {
        let shared = &mut self.shared;
        let timeout = shared.config.election_timeout_micros;
        assert!(now >= Time::new(timeout), "there has to be a time long ago");
        let has_snapshot =
            shared.snapshot.is_some() || shared.install.is_some() || !shared.markers.is_empty();
        assert!(!has_snapshot && shared.reads.len() == 0, "only elections and replication are modelled");
        shared.now = now;
        shared.forget_random();
        shared.freshness = Freshness::default();
        let durable = shared.writes.recount(now);
        for write in writes {
            write.receipt.sequence = write.receipt.sequence.after(durable);
        }
        let (long_ago, deadline) = (Time::new(now.since(Time::new(timeout))), now.plus(timeout));
        match &mut self.role {
            Role::Follower(follower) => {
                (follower.last_heard, follower.election_deadline) = (long_ago, deadline);
                follower.last_answer_at = follower.last_answer_at.map(|_| now);
            }
            Role::PreCandidate(candidate) => candidate.election_deadline = deadline,
            Role::Candidate(candidate) => {
                (candidate.election_deadline, candidate.ask_again_at) = (deadline, deadline);
                // Whatever it waits for, it may start over.
                candidate.patient_until = Time::new(0);
                candidate.vote_at = candidate.vote_at.after(durable);
            }
            Role::Leader(leader) => {
                assert!(leader.transfer.is_none(), "only elections and replication are modelled");
                leader.checked_at = now;
                for peer in leader.peers.values_mut() {
                    (peer.since, peer.last_heard) = (now, None);
                    (peer.confirmed_at, peer.reading) = (None, None);
                    peer.last_sent_at = peer.last_sent_at.map(|_| now);
                }
            }
        }
    }

    /// Forgets the messages that wait for writes.
    pub fn forget_held(&mut self) {
        self.shared.writes.forget_held();
    }
}

impl Message {
    /// Forgets what the message says of time.
    pub fn forget_time(&mut self) {
        match &mut self.body {
            Body::AppendEntries { clock, .. } => *clock = AppendClock::default(),
            Body::AppendAccepted { clock, .. }
            | Body::AppendRejected { clock, .. }
            | Body::Heard { clock, .. } => *clock = AnswerClock::default(),
            _ => {}
        }
    }
}

impl WriteSequence {
    /// This position, counted from `earlier`; `ZERO` if it is not after that.
    pub(super) const fn after(self, earlier: Self) -> Self {
        Self::new(self.get().saturating_sub(earlier.get()))
    }
}
