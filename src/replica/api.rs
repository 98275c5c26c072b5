//! What goes into a replica and what comes out of it.

use crate::codec::{FeatureLevel, FeatureLevels};
use crate::kv::{
    BadCommand, Changes, ChangesQuery, Command, Denial, Found, KeyValue, LeaseId, Op, Outcome, PastChanges,
    PastRead, Principal, Query, QueryAnswer, ReadError, Store,
};
use crate::raft::{
    ChangeOrder, Durable, LogId, LogIndex, LogWrite, Member, Membership, NodeId, ReplicationState, RoleName,
    Session, SnapshotChunk, SnapshotMeta, SnapshotRead, SnapshotRefusal, Term, Time, Withdrawal,
};
use crate::replica::message::{LeaseTime, PeerMessage};
use crate::replica::notice::Notice;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;

/// Identifies a request of a client. The driver chooses it; it is unique while the request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Level {
    /// As if there were one copy: it sees every write that was answered before it began.
    #[default]
    Linearizable,
    /// The state that this node has applied, which may be old.
    Local,
    /// The same, but only if it is proven to be no older than this.
    Fresh {
        /// The time, microseconds.
        max_staleness_micros: u64,
    },
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientRequest {
    /// A command for the state machine.
    Write(Command),
    /// A query of the state machine.
    Read {
        /// What is asked.
        query: Query,
        /// How fresh the answer must be.
        level: Level,
    },
    /// A change of membership; only the leader takes it.
    ChangeMembership(ChangeOrder),
    /// Hand leadership over; only the leader takes it.
    TransferLeadership(Option<NodeId>),
    /// Waits until something changes that is wanted, or until the deadline. Answered by what this
    /// node has applied.
    Watch(ChangesQuery),
    /// How much time a lease has. The leader answers it, wherever it is asked.
    Lease {
        /// Which lease.
        lease: LeaseId,
        /// Whether its time begins anew.
        renew: bool,
    },
    /// Waits until this node is known to be up to date with the cluster's commits (a linearizable
    /// read of nothing).
    Barrier,
}

/// The answer to a [`ClientRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientReply {
    /// The command is committed and applied here.
    Written(Outcome),
    /// What the state machine answers.
    Answer(QueryAnswer),
    /// A read of the past, to be answered by a thread that has the time. It holds the state as it
    /// was when the read was asked.
    Past(Box<PastRead>),
    /// What changed, at least one revision of it; or nothing up to [`Changes::next`], if the
    /// deadline came first, or that is as far as was looked.
    Changes(Result<Arc<Changes>, ReadError>),
    /// The same, to be worked out by a thread that has the time: the client is far behind. It holds
    /// the state as it was when this was asked.
    PastChanges(Box<PastChanges>),
    /// How much time the lease has; `None`: it was never granted, or it has ended.
    LeaseTime(Option<LeaseTime>),
    /// The change of membership's entry is committed. The new members' ids, if it added some.
    MembershipChanged(Vec<NodeId>),
    /// Another node leads now.
    Transferred,
    /// This node has applied everything that was committed when it was asked.
    UpToDate,
    /// It failed.
    Failed(ClientError),
}

impl ClientRequest {
    /// A command that no idempotency key names.
    #[must_use]
    pub fn write(op: Op) -> Self {
        Self::Write(op.into())
    }

    /// Reads one key.
    #[must_use]
    pub fn read(key: impl Into<Bytes>, level: Level) -> Self {
        Self::Read { query: Query::Key(key.into()), level }
    }
}

impl ClientReply {
    /// The same with all work done.
    #[must_use]
    pub fn worked_out(self) -> Self {
        match self {
            Self::Past(read) => Self::Answer(read.answer()),
            Self::PastChanges(read) => Self::Changes(read.answer().map(Arc::new)),
            reply => reply,
        }
    }

    /// What a read of one key found, if this is the answer to one.
    #[must_use]
    pub const fn key(&self) -> Option<&Option<KeyValue>> {
        match self {
            Self::Answer(QueryAnswer { found: Found::Key(found), .. }) => Some(found),
            _ => None,
        }
    }
}

/// Why a request failed. A write ends committed, *not appended*, or *unknown*: only
/// [`ClientError::Unknown`] is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Not appended: no leader is known (or the one known does not answer).
    #[error("no leader is known")]
    NoLeader,
    /// Not appended: this node is not the leader, and only the leader does this.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// Not appended: too much waits already.
    #[error("too much is waiting; try again later")]
    Overloaded,
    /// Not appended: the disk has no room for more of the log.
    #[error("the disk is full")]
    DiskFull,
    /// Not appended, or not answered: the caller may not ask this.
    #[error("{0}")]
    Denied(Denial),
    /// Not appended: this node is about to end.
    #[error("this node is stopping; ask another one")]
    Stopping,
    /// Not appended, or not read: this node was removed from its cluster.
    #[error("this node was removed from its cluster; ask a member")]
    Removed,
    /// Not appended: this node is being absorbed by another cluster.
    #[error("this node is joining another cluster")]
    Reserved,
    /// Not appended, or not read: the cluster is being made, and most of its voters are missing.
    #[error("the cluster is being made: most of its voters are missing yet; try again soon")]
    Founding,
    /// A local read: this node has started, and has not applied yet what it knew to be committed.
    #[error("this node is starting: it still applies its log; try again soon")]
    Starting,
    /// A read that wanted a fresher state than this node has.
    #[error("this node cannot prove that its state is no older than max_staleness; ask another one")]
    Stale,
    /// Not appended: the request makes no sense, and why.
    #[error("{0}")]
    Refused(String),
    /// Not appended: the command makes no sense, wherever and whenever it is asked, and why.
    #[error("{0}")]
    BadCommand(BadCommand),
    /// Not appended: the command is larger than what the leader may append, however long it waits.
    #[error("the command takes {bytes} bytes in the log; the limit is {limit}")]
    CommandTooLarge {
        /// Its length there.
        bytes: u64,
        /// The leader's limit.
        limit: u64,
    },
    /// Not appended: another change of membership is under way, or the leader is new.
    #[error("a change of membership is under way; try again later")]
    ChangePending,
    /// Not appended: the configuration is that of the entry at this index, and not the one that the
    /// change was ordered for.
    #[error("the configuration is that of entry {0} now, and not the one that was expected")]
    OtherMembership(LogIndex),
    /// Not appended: these of the voters that would remain do not answer, and the others are no
    /// quorum.
    #[error(
        "too few of the voters that would remain answer to make a quorum; start them again first, or remove those that are gone"
    )]
    QuorumAtRisk(Vec<NodeId>),
    /// Not appended: the change makes no sense for this membership, and why.
    #[error("{0}")]
    BadChange(&'static str),
    /// Leadership stays: the node named is no voter, does not answer, or is too far behind.
    #[error("that node cannot take over leadership now")]
    CannotLead,
    /// Leadership was not handed over in time. The member may still take over.
    #[error("leadership was not handed over in time")]
    NotHandedOver,
    /// Leadership went to this member, and not to the one that was named.
    #[error("member {0} leads now, and not the member that was named")]
    AnotherLeads(NodeId),
    /// Whether it was committed, or will be, is not known.
    #[error("it is not known whether the write was committed")]
    Unknown,
    /// A read that no quorum confirmed in time.
    #[error("no quorum answered in time")]
    NoQuorum,
}

/// Something for the replica to take in.
#[derive(Debug)]
pub enum Event {
    /// The time that `Actions::wake_at` asked for has come.
    Wake,
    /// A peer's message.
    Peer(PeerMessage),
    /// A peer's process is gone: a hint ([`Input::PeerGone`](crate::raft::Input::PeerGone)).
    PeerGone(NodeId),
    /// The levels that a peer's process speaks, as it says when it connects.
    PeerSpeaks(NodeId, FeatureLevels),
    /// A client's request; answered at the latest some time after `deadline`.
    Client {
        /// Comes back with the reply.
        id: RequestId,
        /// When the client is told that the request failed, or that its outcome is unknown.
        deadline: Time,
        /// Who asks. `None`: nobody has said who they are. Where rights count, that is refused.
        by: Option<Principal>,
        /// What it asks.
        request: ClientRequest,
    },
    /// An event of the storage.
    Storage(StorageEvent),
    /// This node, a pristine cluster of one, is reserved for another cluster until that time: no
    /// writes, no changes of membership.
    Reserve {
        /// When the reservation ends by itself.
        until: Time,
    },
    /// The reservation is over.
    Release,
    /// This node is to be of a cluster with so many voters at least, which is being made. Until it
    /// has them, no client is served. Over once there is any command, since then it was made.
    Found {
        /// The voters that the cluster needs.
        voters: usize,
    },
    /// Clients that wait for a change are told that this node ends.
    EndWatches,
    /// There is proof that this node cannot be relied on: it takes no part any more.
    Withdraw(Withdrawal),
    /// Nothing can be stored any more, and this node is about to end: a leader names a successor.
    StorageFailed,
}

/// What the storage is asked. [`Self::Write`] and [`Self::Committed`] go to the ordered stream; the
/// others may run beside it.
#[derive(Debug)]
pub enum StorageRequest {
    /// Write and sync. Several may share one sync. [`StorageEvent::Durable`] answers them in order,
    /// at least the last of those that share a sync.
    Write(LogWrite),
    /// Entries up to here are committed, and were handed to the storage before: the log's next
    /// batch, or its next witness, says so, for the next start. The storage does not answer it, and
    /// makes no sync for it alone.
    Committed(LogIndex),
    /// Write a snapshot file beside the running state machine; answered by
    /// [`StorageEvent::SnapshotSaved`].
    SaveSnapshot(Box<SnapshotSave>),
    /// Read a chunk of a snapshot file; answered by [`StorageEvent::ChunkRead`].
    ReadChunk(SnapshotRead),
}

/// A captured state machine, to be written as a snapshot file.
#[derive(Clone, Debug)]
pub struct SnapshotSave {
    /// The last entry that `store` has applied.
    pub last: LogId,
    /// The membership in force at `last`.
    pub membership: Membership,
    /// Where that membership stands in the log.
    pub membership_id: LogId,
    /// The state, captured in O(1).
    pub store: Store,
}

/// What the storage says.
#[derive(Debug)]
pub enum StorageEvent {
    /// Everything up to this receipt's write is durable.
    Durable {
        /// The receipt of the last write that is durable, for the core.
        receipt: Durable,
        /// The content of a snapshot whose last chunk was among the writes and which verified.
        installed: Option<Box<(SnapshotMeta, Store)>>,
        /// A leader's snapshot that could not be stored: a chunk among the writes failed, or the
        /// whole did not verify. No marker was written, and nothing of it is kept.
        refused: Option<Box<UnstoredSnapshot>>,
    },
    /// The snapshot file is complete and synced.
    SnapshotSaved(Box<SnapshotMeta>),
    /// The snapshot file could not be written, on a full disk for example. Another one may be tried
    /// later.
    SnapshotFailed {
        /// Last entry of the snapshot.
        last: LogId,
        /// Why it could not be written, in words.
        reason: String,
    },
    /// The answer to [`StorageRequest::ReadChunk`].
    ChunkRead {
        /// The peer in the question.
        to: NodeId,
        /// The session in the question.
        session: Session,
        /// The chunk, or why there is none.
        chunk: Result<SnapshotChunk, UnreadSnapshot>,
    },
    /// Whether the disk has no room for another segment of the log. The one that is being written
    /// may have some.
    DiskFull(bool),
    /// Whether writes wait for room: the log needs another segment, and there is no room for one.
    /// They are answered once there is.
    LogFull(bool),
    /// A sealed segment of the log is damaged on the disk. A snapshot of the state, up to here or
    /// further, makes it unnecessary.
    SegmentDamaged {
        /// The last entry that it may hold.
        through: LogIndex,
    },
    /// A snapshot file is damaged. The state is to be saved again.
    SnapshotDamaged {
        /// Last entry of the snapshot.
        last: LogId,
        /// What is wrong, in words.
        reason: String,
    },
    /// The next segment of the log could not be prepared, and not for want of room. The storage
    /// tries again. Nothing is lost yet: the node ends with the error when the log needs that
    /// segment and still cannot have it.
    SegmentNotReady {
        /// What the system said.
        reason: String,
    },
}

/// A leader's snapshot that could not be stored here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnstoredSnapshot {
    /// Last entry of the snapshot.
    pub last: LogId,
    /// Why, for the leader.
    pub why: SnapshotRefusal,
    /// Why, in words.
    pub reason: String,
}

/// A snapshot file of which a chunk could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadSnapshot {
    /// Last entry of the snapshot.
    pub last: LogId,
    /// Why, in words.
    pub reason: String,
}

/// Everything that has to be carried out.
#[derive(Debug, Default)]
#[must_use = "messages, writes and replies are lost if the actions are dropped"]
pub struct Actions {
    /// To be sent; losing one is harmless.
    pub messages: Vec<PeerMessage>,
    /// For the storage, in order.
    pub storage: Vec<StorageRequest>,
    /// Answers to clients.
    pub replies: Vec<(RequestId, ClientReply)>,
    /// What happened, for logs, metrics, and the transport's address book.
    pub notices: Vec<Notice>,
    /// A state that a leader's snapshot has replaced. To let go of a large one takes a second: not
    /// in the loop that steps the replica.
    pub replaced: Option<Store>,
    /// Step with [`Event::Wake`] then, if nothing comes earlier.
    pub wake_at: Option<Time>,
}

/// What a member is to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It votes; in a joint state in both sets.
    Voter,
    /// It gets the log and does not vote.
    Learner,
    /// In a joint state: a voter of the incoming set only.
    Joining,
    /// In a joint state: a voter of the outgoing set only.
    Leaving,
    /// It was removed. No membership in force says this of a member.
    Removed,
}

impl Standing {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Voter, Self::Learner, Self::Joining, Self::Leaving, Self::Removed];

    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
            Self::Joining => "joining",
            Self::Leaving => "leaving",
            Self::Removed => "removed",
        }
    }
}

/// One member as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub id: NodeId,
    /// Its name, addresses and store.
    pub member: Member,
    /// What it is; never [`Standing::Removed`].
    pub standing: Standing,
    /// On the leader: how far its log is known to agree.
    pub match_index: Option<LogIndex>,
    /// On the leader: entries it lacks.
    pub lag: Option<u64>,
    /// On the leader: how the leader brings it up to date.
    pub replication: Option<ReplicationState>,
    /// On the leader: whether it has answered within the election timeout.
    pub answers: Option<bool>,
    /// On the leader: microseconds since it was last heard from.
    pub silent_micros: Option<u64>,
    /// On the leader: why it did not take the snapshot that it needs.
    pub snapshot_refused: Option<SnapshotRefusal>,
    /// On the leader, on a member that turned it away, and on the member itself: why it takes no
    /// part any more, and what to do.
    pub withdrawn: Option<String>,
    /// The levels that it speaks, if this node has met it.
    pub speaks: Option<FeatureLevels>,
    /// The level at which this node talks to it, if it does.
    pub spoken_level: Option<FeatureLevel>,
}

/// This node, and its view of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub id: NodeId,
    /// Its role.
    pub role: RoleName,
    /// Its term.
    pub term: Term,
    /// The term's leader, if known.
    pub leader: Option<NodeId>,
    /// Last entry in its log.
    pub last_log: LogId,
    /// Its commit index.
    pub commit_index: LogIndex,
    /// Whether it has not applied yet all that it knew to be committed when it started.
    pub starting: bool,
    /// Its last applied index.
    pub last_applied: LogIndex,
    /// Where the membership in force stands in the log.
    pub configuration: LogIndex,
    /// Whether that entry is known to be committed.
    pub configuration_committed: bool,
    /// Newest snapshot.
    pub snapshot: LogId,
    /// Why the last snapshot that this node wrote, read or was sent came to nothing; `None` since
    /// one succeeded.
    pub snapshot_failure: Option<String>,
    /// Whether writes to the disk take far longer than they should.
    pub disk_slow: bool,
    /// How long a write took in the mean, in the last second that had one, microseconds.
    pub disk_write_micros: u64,
    /// Keys in the store.
    pub keys: usize,
    /// Bytes of keys and values.
    pub store_bytes: u64,
    /// The store's revision.
    pub revision: u64,
    /// The oldest revision that can be read at.
    pub compacted: u64,
    /// What past versions take, bytes.
    pub history_bytes: u64,
    /// What remembered answers take, bytes.
    pub answers_bytes: u64,
    /// How old the oldest of them is at least, microseconds, as far as this node has seen; `None`:
    /// there is none.
    pub oldest_answer_micros: Option<u64>,
    /// Leases in the store.
    pub leases: usize,
    /// Hash of the store's state at `last_applied`.
    pub state_hash: u128,
    /// Proposals that wait.
    pub pending_proposals: usize,
    /// Reads that wait.
    pub pending_reads: usize,
    /// Clients that wait for a change.
    pub pending_watches: usize,
    /// Why this node takes no part any more, and what to do.
    pub withdrawn: Option<String>,
    /// The level of the cluster, as far as this node has applied its log.
    pub level: FeatureLevel,
    /// The levels that this node speaks.
    pub speaks: FeatureLevels,
    /// Whether the membership is joint.
    pub joint: bool,
    /// Every member.
    pub members: Vec<MemberStatus>,
}
