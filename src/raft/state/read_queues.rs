//! The reads that wait: at their own node for a leader, at the leader for a round of heartbeats.

use crate::raft::types::{Incarnation, LogIndex, NodeId, ReadId, ReadRound, Time};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// A read of this node's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct LocalRead {
    pub id: ReadId,
    pub since: Time,
    /// A lease is not enough.
    pub by_round: bool,
}

/// Reads of this node's clients that no leader has taken on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::raft) struct LocalReads {
    /// Reads that no question covers, oldest first.
    pub waiting: VecDeque<LocalRead>,
    /// The one question in flight. Later reads wait for the next: an answer to an earlier one would
    /// not cover them.
    pub question: Option<ReadIndexQuestion>,
    /// Number of the last question; never given to two within an incarnation.
    pub last_sequence: u64,
    /// The next question is asked at this time at the earliest: the last one was refused.
    pub not_before: Time,
}

/// A question to a leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct ReadIndexQuestion {
    pub sequence: u64,
    pub leader: NodeId,
    pub asked_at: Time,
    pub reads: Vec<LocalRead>,
}

impl LocalReads {
    pub(in crate::raft) fn len(&self) -> usize {
        self.waiting.len() + self.question.as_ref().map_or(0, |question| question.reads.len())
    }

    /// Puts reads back in front: they are asked again.
    pub(in crate::raft) fn wait_again(&mut self, reads: Vec<LocalRead>) {
        for read in reads.into_iter().rev() {
            self.waiting.push_front(read);
        }
    }

    /// Gives the question in flight up, if any; its reads wait again, and an answer to it is not
    /// recognised any more.
    pub(in crate::raft) fn give_up_question(&mut self) {
        if let Some(question) = self.question.take() {
            self.wait_again(question.reads);
        }
    }

    /// Gives the question in flight up if it went to another node than `leader`.
    pub(in crate::raft) fn give_up_question_unless_to(&mut self, leader: Option<NodeId>) {
        if self.question.as_ref().is_some_and(|question| Some(question.leader) != leader) {
            self.give_up_question();
        }
    }

    /// All reads, to be taken on by this node, which leads.
    pub(in crate::raft) fn take_all(&mut self) -> impl Iterator<Item = LocalRead> + '_ {
        self.give_up_question();
        self.waiting.drain(..)
    }
}

/// A read that waits for a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) enum Requester {
    /// A read of this node's clients.
    Local(LocalRead),
    /// A follower's question.
    Remote { node: NodeId, incarnation: Incarnation, sequence: u64 },
}

/// A round of heartbeats that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Round {
    pub number: ReadRound,
    /// The commit index when it began: what its reads have to see.
    pub index: LogIndex,
    pub requesters: Vec<Requester>,
}

/// Reads that a leader confirms. Gone with its leadership.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::raft) struct LeaderReads {
    /// They join the next round.
    pub next: Vec<Requester>,
    /// Sent and not confirmed, oldest first.
    pub rounds: VecDeque<Round>,
    /// Number of the last round; only grows within the term.
    pub last_round: ReadRound,
    /// When that round began.
    pub begun_at: Time,
}

impl LeaderReads {
    pub(in crate::raft) fn len(&self) -> usize {
        self.next.len() + self.rounds.iter().map(|round| round.requesters.len()).sum::<usize>()
    }

    /// The newest round that waits for confirmation; `ZERO` if none does.
    pub(in crate::raft) fn unconfirmed_round(&self) -> ReadRound {
        self.rounds.back().map_or(ReadRound::ZERO, |round| round.number)
    }

    /// The reads of this node's clients; questions of others are dropped, since their nodes ask
    /// again.
    pub(in crate::raft) fn take_local(&mut self) -> Vec<LocalRead> {
        let sent = self.rounds.drain(..).flat_map(|round| round.requesters);
        let mut local = Vec::new();
        for requester in sent.chain(self.next.drain(..)) {
            if let Requester::Local(read) = requester {
                local.push(read);
            }
        }
        local
    }
}
