//! One replica: raft + state machine + waiting clients + snapshot policy, as one deterministic
//! machine.
//!
//! A driver feeds [`Replica::step`] with [`Event`]s and the time, calls [`Replica::take_actions`]
//! after each batch of them, and carries the [`Actions`] out. The driver holds no rule of its own.
//! What may be sent, answered or forgotten, and when, is decided here and in the core, where the
//! simulator sees it.
//!
//! # A write
//! Any node takes it ([`ClientRequest::Write`]). It is queued until a leader is known, then
//! proposed, or forwarded to the leader, as an entry that carries the name of the proposal (origin,
//! incarnation, sequence). Each node that applies the entry applies the command. The origin
//! recognises its own name and answers its client. Nothing is sent back from leader to origin but
//! the log itself, so a client that has its answer finds its write on the node that gave it.
//!
//! # A read
//! All reads that arrive together share one question to the core (D §6.4). When the core
//! confirms it, they wait until the state machine has applied up to the confirmed index. Then they
//! are served from memory.
//!
//! # A lease
//! Grants and ends are commands. The leader keeps the time (`lease_clock.rs`). A renewal is
//! answered like a read, and does not go through the log.
//!
//! # A slow disk
//! Members tell the leader how long their writes take. A leader that is far slower than a quorum of
//! the others hands over (`slow_disk.rs`).
//!
//! # A watch
//! A client waits for the next change of its keys, is answered with all there are, and waits again
//! from there (`watching.rs`).

mod agreement;
mod answer_ages;
mod api;
mod client_writes;
mod comparing;
mod disk_pace;
mod forward_again;
mod forwarding;
mod full_disk;
mod held;
mod lease_calls;
mod lease_clock;
mod level_talk;
mod levels;
mod message;
mod notice;
mod orders;
mod outcome;
mod proposal;
mod reads;
#[expect(clippy::module_inception, reason = "the floor is named after the one machine it holds")]
mod replica;
mod requests;
mod slow_disk;
mod snapshot_policy;
mod snapshots;
mod status;
mod waiting_calls;
mod watches;
mod watching;
mod wire;

pub use api::{
    Actions, ClientError, ClientReply, ClientRequest, Event, Level, MemberStatus, RequestId, SnapshotSave,
    Standing, Status, StorageEvent, StorageRequest, UnreadSnapshot, UnstoredSnapshot,
};
pub use message::{
    DiskPaceSaid, Forward, ForwardRefused, LeaseAnswer, LeaseAnswers, LeaseCall, LeaseCalls, LeaseRefusal,
    LeaseTime, LevelsSaid, PeerMessage, RefusedBecause, StateHash, StateHashKind,
};
pub use notice::Notice;
pub use proposal::{ProposalId, decode as decode_proposal};
pub use replica::{Replica, ReplicaConfig, ReplicaStart};

#[cfg(test)]
mod tests;
