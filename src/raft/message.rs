//! What cores say to each other: one variant for each RPC of the paper, its acceptance and its
//! rejection.

use crate::raft::log::entry::Entry;
use crate::raft::log::snapshot::{SnapshotMeta, SnapshotRefusal};
use crate::raft::membership::withdrawal::Withdrawal;
use crate::raft::types::{Incarnation, LogId, LogIndex, NodeId, ReadRound, Session, Term, Time};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;

/// A message between two cores.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// The sender. The transport has checked it against the hello of the connection
    /// (docs/transport.md).
    pub from: NodeId,
    /// The receiver. A core drops messages that are not for it.
    pub to: NodeId,
    /// The sender's current term. A pre-vote does *not* raise it: the term it asks about is in the
    /// body.
    pub term: Term,
    /// What is said.
    pub body: Body,
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// Would you vote for me in `campaign_term`? (D §9.6)
    PreVote {
        /// The term it would campaign in.
        campaign_term: Term,
        /// Its last entry.
        last_log: LogId,
    },
    /// Yes, I would. Changes nothing durable.
    PreVoteGranted {
        /// The term that was asked about.
        campaign_term: Term,
    },
    /// No. The sender's term is in the header.
    PreVoteRejected {
        /// The term that was asked about.
        campaign_term: Term,
    },
    /// RequestVote (Raft §5.2); the candidate's term is the header's.
    RequestVote {
        /// The candidate's last entry.
        last_log: LogId,
        /// The leader asked for this election (leadership transfer): stickiness does not apply
        /// (D §4.2.3).
        transfer: bool,
    },
    /// A vote, durable before it was sent.
    VoteGranted,
    /// No vote.
    VoteRejected,
    /// AppendEntries (Raft §5.3); without entries, a heartbeat or a probe.
    AppendEntries {
        /// Echoed by the answers.
        session: Session,
        /// The entry before `entries`.
        prev: LogId,
        /// The last entry that the receiver acknowledged to this leader in this term, as far as its
        /// term is still known; [`LogId::ZERO`] if none. Only an older copy of a disk lacks it.
        acknowledged: LogId,
        /// Contiguous, from `prev.index + 1`.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: LogIndex,
        /// The newest round of reads that this message confirms when it is answered; `ZERO` when
        /// there is none.
        round: ReadRound,
        /// When it was sent, and how old `commit` is at most.
        clock: AppendClock,
    },
    /// The log agrees with the leader's up to `match_index`, durably.
    AppendAccepted {
        /// Session of the request.
        session: Session,
        /// Never beyond the request's own tail.
        match_index: LogIndex,
        /// Round of the request.
        round: ReadRound,
        /// When the request was sent, and this answer made.
        clock: AnswerClock,
    },
    /// No entry `prev` here.
    AppendRejected {
        /// Session of the request.
        session: Session,
        /// The `prev` that did not match, so that a late rejection is recognised.
        rejected: LogId,
        /// The last entry of the follower that could match: term and index of its own log, below
        /// `rejected.index`.
        hint: LogId,
        /// Round of the request.
        round: ReadRound,
        /// When the request was sent, and this answer made.
        clock: AnswerClock,
    },
    /// "I take you for the leader of this term": the answer to a leader's message that need not
    /// wait for any write, since it speaks of no durable state. It keeps the leader in office
    /// (check-quorum) and confirms a round of reads; it acknowledges no entry.
    Heard {
        /// The round of the request; `ZERO` confirms no round.
        round: ReadRound,
        /// For so long after it heard the request, this node votes for nobody and does not stand
        /// for election, unless the leader hands over ([`Config::lease_drift_ppm`]); microseconds
        /// by its clock. 0: it promises nothing.
        ///
        /// [`Config::lease_drift_ppm`]: crate::raft::Config::lease_drift_ppm
        promised_micros: u64,
        /// When the request was sent, and this answer made.
        clock: AnswerClock,
    },
    /// One chunk of a snapshot (Raft §7).
    InstallSnapshot {
        /// Echoed by the answers.
        session: Session,
        /// What is being installed.
        snapshot: Box<SnapshotMeta>,
        /// Where the chunk starts, in bytes.
        offset: u64,
        /// The chunk.
        data: Bytes,
        /// Whether it is the last one.
        done: bool,
    },
    /// Chunks up to `next_offset` are stored (not necessarily durable).
    SnapshotProgress {
        /// Session of the request.
        session: Session,
        /// Last entry of the snapshot.
        snapshot: LogId,
        /// Where the next chunk starts.
        next_offset: u64,
        /// Whether a chunk came that was not taken: one before it is missing, or there was no room.
        /// What comes after `next_offset` has to be sent again.
        is_lacking: bool,
    },
    /// The snapshot is installed, durably; the log agrees up to `match_index`.
    SnapshotInstalled {
        /// Session of the request.
        session: Session,
        /// The follower's agreeing prefix: at least the snapshot's index, or what it had committed
        /// beyond.
        match_index: LogIndex,
    },
    /// A chunk could not be stored, or the whole does not verify; nothing of the snapshot is kept.
    /// The leader begins again after a while, which grows with each refusal.
    SnapshotRefused {
        /// Session of the request.
        session: Session,
        /// Last entry of the snapshot.
        snapshot: LogId,
        /// Why the follower could not take it.
        why: SnapshotRefusal,
    },
    /// Start an election now (D §3.10).
    TimeoutNow,
    /// A follower asks for a read index on behalf of its clients (D §6.4).
    ReadIndex {
        /// Incarnation of the node that asks.
        incarnation: Incarnation,
        /// Grows with each question within the incarnation.
        sequence: u64,
    },
    /// The state at `index` or later answers the reads of that question.
    ReadIndexReady {
        /// Incarnation in the question.
        incarnation: Incarnation,
        /// Sequence of the question.
        sequence: u64,
        /// Apply up to here before serving.
        index: LogIndex,
    },
    /// The node that was asked does not answer the question. The reads wait, and it is asked again.
    ReadIndexRefused {
        /// Incarnation in the question.
        incarnation: Incarnation,
        /// Sequence of the question.
        sequence: u64,
        /// Why it does not answer.
        why: ReadRefusal,
    },
    /// The node that was asked takes no part any more, and why. The term of this message means
    /// nothing.
    Withdrawn(Withdrawal),
}

/// Why a question for a read index was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadRefusal {
    /// The node that was asked does not lead.
    NotLeading,
    /// It leads, and has too many reads waiting.
    Overloaded,
}

/// A time by the clock of one start of a node. Only that start knows what it means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClockReading {
    /// The start.
    pub incarnation: Incarnation,
    /// What its clock showed.
    pub at: Time,
}

/// What an append says of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AppendClock {
    /// When it was sent, by the leader's clock. Echoed by the answers.
    pub sent_at: Time,
    /// How old the append's commit index is at most; `None`: the leader does not know.
    pub age: Option<CommitAge>,
}

/// How old a commit index is at most, in words that its receiver can measure: no leader had
/// committed more when the receiver's clock showed `reading`, less `micros`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CommitAge {
    /// The newest that the receiver put into an answer to this leader in this term.
    pub reading: ClockReading,
    /// For so long the leader has not known whether a quorum takes it for the leader, the receiver
    /// counted as one that does.
    pub micros: u64,
}

/// What the answer to an append says of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AnswerClock {
    /// When the request was sent, by the leader's clock; 0 if the answer names no request.
    pub sent_at: Time,
    /// When the answer was made.
    pub reading: ClockReading,
}

/// An AppendEntries, its fields by name.
pub(super) struct Append {
    pub(super) session: Session,
    pub(super) prev: LogId,
    pub(super) acknowledged: LogId,
    pub(super) entries: Vec<Entry>,
    pub(super) commit: LogIndex,
    pub(super) round: ReadRound,
    pub(super) clock: AppendClock,
}

/// An InstallSnapshot, its fields by name.
pub(super) struct Chunk {
    pub(super) session: Session,
    pub(super) snapshot: Box<SnapshotMeta>,
    pub(super) offset: u64,
    pub(super) data: Bytes,
    pub(super) done: bool,
}
