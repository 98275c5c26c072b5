//! What goes into a core and what comes out of it.

use crate::raft::config::Config;
use crate::raft::log::entry::Entry;
use crate::raft::log::records::{Durable, LogWrite, Restored};
use crate::raft::log::snapshot::{SnapshotChunk, SnapshotMeta, SnapshotRead, SnapshotRefusal};
use crate::raft::membership::members::{ChangeOrder, Membership};
use crate::raft::membership::withdrawal::Withdrawal;
use crate::raft::message::{Message, ReadRefusal};
use crate::raft::types::{Incarnation, LogId, LogIndex, NodeId, ReadId, Session, Term, Time};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Something for the core to take in.
#[derive(Debug)]
pub enum Input {
    /// The time that [`Output::wake_at`] asked for has come (or any other reason to look at the
    /// clock).
    Wake,
    /// A peer's message.
    Message(Message),
    /// The connections to this peer were closed, and a new one was refused: the process is gone. A
    /// hint. A false one costs a question to the other voters, and never safety.
    PeerGone(NodeId),
    /// This peer's disk has room again. If it refused a snapshot for want of room, a leader offers
    /// it one at once. A hint: a false one costs one try.
    PeerHasRoom(NodeId),
    /// A linearizable read, with an id of the caller's choice; it comes back in [`Output::reads`]
    /// or [`RaftEvent::ReadsRefused`]. Any node takes it.
    Read(ReadId),
    /// The same, and a leader answers it by a round of heartbeats alone, however long its lease is.
    /// For what must be right even if a clock is not. A node that does not lead asks as for
    /// [`Input::Read`].
    ReadByRound(ReadId),
    /// Change the membership (leader only).
    ChangeMembership(ChangeOrder),
    /// Hand leadership to this voter, or to the most advanced one (leader only).
    TransferLeadership(Option<NodeId>),
    /// This node is about to end, and cannot wait: a leader names a successor and leads no longer.
    StepDown,
    /// There is proof that this node cannot be relied on: it takes no part any more.
    Withdraw(Withdrawal),
    /// A write is durable, and with it all before it.
    Durable(Durable),
    /// The state machine has applied up to here.
    Applied(LogIndex),
    /// The state machine's snapshot is written and synced. The core writes a marker, and compacts
    /// its log when that is durable ([`RaftEvent::Compacted`]); or it says that it does not need
    /// the snapshot ([`RaftEvent::SnapshotUnmarked`]).
    SnapshotStored(Box<SnapshotMeta>),
    /// This snapshot could not be stored: a chunk handed out in a [`LogWrite`] failed, or the whole
    /// did not verify. No marker was written, and nothing of the snapshot is kept. Comes before the
    /// [`Input::Durable`] of that write.
    SnapshotRefused(LogId, SnapshotRefusal),
    /// The answer to [`Output::snapshot_reads`].
    SnapshotChunkRead {
        /// The peer in the question.
        to: NodeId,
        /// The session in the question.
        session: Session,
        /// The chunk; `None` if its file is gone (a newer snapshot has replaced it).
        chunk: Option<SnapshotChunk>,
    },
}

/// What a core starts from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This member.
    pub id: NodeId,
    /// Which start on this data this is: higher than every earlier one.
    pub incarnation: Incarnation,
    /// Drives the randomness of its timeouts. Members need different ones.
    pub seed: u64,
    /// Timings and limits.
    pub config: Config,
    /// What the disk holds. [`bootstrap_log`](crate::raft::bootstrap_log) makes that of a new
    /// cluster.
    pub restored: Restored,
    /// The time now, of the clock that all later calls name.
    pub now: Time,
}

/// An input that was not taken in. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// Only the leader does this.
    #[error("not the leader")]
    NotLeader(LeaderHint),
    /// Leadership is being handed over.
    #[error("leadership is being handed over")]
    Transferring,
    /// Too many bytes wait to be committed.
    #[error("{bytes} bytes wait to be committed; try again later")]
    Uncommitted {
        /// Bytes that wait now.
        bytes: u64,
    },
    /// Too many reads wait for a round.
    #[error("too many reads are waiting; try again later")]
    TooManyReads,
    /// A change of membership is pending, or the leader has not committed in its term yet.
    #[error("a change of membership is under way; try again later")]
    ChangePending,
    /// The change makes no sense for this membership.
    #[error("{0}")]
    BadChange(&'static str),
    /// The members that answer are no quorum of the voters that would remain: the cluster could
    /// commit nothing any more.
    #[error(
        "too few of the voters that would remain answer to make a quorum; start them again first, or remove those \
         that are gone"
    )]
    QuorumAtRisk {
        /// The voters that would remain, and do not answer.
        silent: Vec<NodeId>,
    },
    /// The membership in force is not the one that the change was ordered for.
    #[error("the configuration is that of entry {index} now, and not the one that was expected")]
    OtherMembership {
        /// The index of its entry.
        index: LogIndex,
    },
    /// The node named is no voter, or is too far behind to take over.
    #[error("that node cannot take over leadership now")]
    BadTransferTarget,
    /// The command is larger than any append may be.
    #[error("the command is {bytes} bytes long; the limit is {limit}")]
    TooLarge {
        /// Length of the command.
        bytes: u64,
        /// `Config::uncommitted_bytes_max`.
        limit: u64,
    },
}

/// The leader, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LeaderHint {
    /// The leader of `term`, if known.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: Term,
}

/// Everything that has to be carried out. The fields stand in the order in which to do that; where
/// a field does not say so, the order does not matter.
///
/// Carrying an output out makes inputs ([`Input::Applied`], a receipt, a chunk that was read), and
/// those make the next output: take it in a loop, until there is nothing to do but to wait.
#[derive(Debug, Default)]
#[must_use = "messages, writes and entries are lost if the output is dropped"]
pub struct Output {
    /// What happened, for the driver. **Before [`Self::committed`]**, since one of them may be
    /// [`RaftEvent::SnapshotInstalled`]: the entries follow that snapshot.
    pub events: Vec<RaftEvent>,
    /// To be sent. All may leave at once: a message that speaks of durable state was held back
    /// until that state was durable. Losing a message is harmless.
    pub messages: Vec<Message>,
    /// To be written, in the order handed out; what that means for the files of snapshots,
    /// [`LogRecords`](crate::raft::LogRecords) says.
    pub write: Option<LogWrite>,
    /// Committed entries, contiguous, to be applied in order. Answered by [`Input::Applied`]. They
    /// may be ahead of this node's own disk, where a majority of others was faster: a driver that
    /// needs them durable *here* waits for the receipt. No more than
    /// [`Config::apply_entries_max`](crate::raft::Config::apply_entries_max) at once: when there
    /// are more, [`Self::wake_at`] is now.
    pub committed: Vec<Entry>,
    /// Reads that may be served once the state machine has applied up to their index.
    pub reads: Vec<ReadReady>,
    /// Chunks to read from the snapshot file.
    pub snapshot_reads: Vec<SnapshotRead>,
    /// Step with [`Input::Wake`] at this time, if nothing comes earlier.
    pub wake_at: Option<Time>,
}

/// Reads that may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadReady {
    /// The id given with [`Input::Read`].
    pub id: ReadId,
    /// Serve it from a state that has applied up to here, or later.
    pub index: LogIndex,
}

/// A role's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleName {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether an election could be won.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

/// Something that happened inside the core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RaftEvent {
    /// Role, term or leader are new. Proposals of an earlier term that are not committed may be
    /// lost.
    RoleChanged {
        /// The role now.
        role: RoleName,
        /// The term and its leader, if known.
        hint: LeaderHint,
    },
    /// Another membership is in force (appended, truncated, or installed), or the one in force is
    /// known to be committed now. At a start the recovered membership is reported at once if it is
    /// known to be committed, else when it becomes so.
    MembershipChanged {
        /// The one in force.
        membership: Membership,
        /// Where it stands in the log.
        id: LogId,
        /// Whether that entry is committed.
        committed: bool,
    },
    /// This membership is known to be committed now, although a later one is in force already.
    MembershipCommitted {
        /// The newest that is committed.
        membership: Membership,
        /// Where it stands in the log.
        id: LogId,
    },
    /// These reads cannot be served by this leader; ask again.
    ReadsRefused(Vec<ReadId>),
    /// The node that was asked for them did not answer these reads. They wait, and it is asked
    /// again.
    ReadsPutOff {
        /// The reads that wait.
        reads: Vec<ReadId>,
        /// Why the node did not answer them.
        why: ReadRefusal,
    },
    /// An installed snapshot is durable: the state machine must be replaced by its content before
    /// anything else is applied.
    SnapshotInstalled(SnapshotMeta),
    /// The marker of a snapshot is durable: the storage may remove entries from its log up to
    /// `through`, and files of older snapshots.
    Compacted {
        /// Last index that is not needed any more. Never beyond the snapshot, although the log in
        /// memory may begin later.
        through: LogIndex,
        /// The snapshot that covers it.
        snapshot: LogId,
    },
    /// No marker is written for a snapshot that was stored, or it came too late: a newer one
    /// counts, or is about to. Every [`Input::SnapshotStored`] is answered by this or by
    /// [`Self::Compacted`].
    SnapshotUnmarked(LogId),
    /// A peer needs entries that have left the memory, and the newest snapshot does not reach them:
    /// another one is to be taken.
    SnapshotWanted,
    /// A peer could not take the snapshot that was sent to it; it is sent again later.
    SnapshotNotTaken {
        /// The peer that did not take the snapshot.
        peer: NodeId,
        /// Why the peer could not take it.
        why: SnapshotRefusal,
        /// How often in a row, this time included.
        times: u32,
    },
    /// A peer has installed a snapshot, and had not caught up since the one before.
    SnapshotRepeated {
        /// The peer that has installed it.
        peer: NodeId,
        /// How many in a row, this one included.
        times: u32,
    },
    /// This node takes no part any more, and why. To be noted in its data directory: no start of
    /// that directory may take part ([`Input::Withdraw`]).
    Withdrawn(Withdrawal),
    /// A peer told this leader that it takes no part any more. Nothing that it said counts until it
    /// answers again.
    PeerWithdrew {
        /// The peer that withdrew.
        peer: NodeId,
        /// Why the peer takes no part any more.
        why: Withdrawal,
    },
    /// A message that no correct peer sends, and why; it was dropped.
    BadMessage {
        /// The peer that sent it.
        from: NodeId,
        /// What was wrong with it.
        reason: &'static str,
    },
}
