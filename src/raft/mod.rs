//! Consensus: Raft as in Ongaro & Ousterhout 2014 ("Raft §…") and Ongaro's dissertation ("Dissertation §…"), sans-IO.
//!
//! # What the protocol does
//! Nodes keep a log of entries and agree on it. Time is divided into terms, each with one leader at most, elected by a
//! majority (Raft §5.2); before it raises its term a node asks whether it could win (pre-vote, Dissertation §9.6), and
//! who hears from a leader helps nobody to depose it (§4.2.3). The leader appends proposals to its log and sends them to
//! all others; what follows a common entry replaces what contradicts it (Raft §5.3). An entry of the leader's own term
//! that is durable on a majority is committed, and everything before it (§5.4.2); committed entries are applied, in the
//! same order everywhere. A read waits until a majority confirms that the leader still leads (Dissertation §6.4). The
//! membership is an entry too, in force as soon as it is appended, and changes by way of a joint state that needs
//! majorities of both sets (Raft §6). A snapshot replaces the part of the log that it covers (Raft §7).
//! `docs/protocol.md` has the rules one by one, with what deviates from the paper.
//!
//! # The contract
//! A [`Raft`] does nothing by itself: no clock, no disk, no socket, no thread, no global randomness.
//! 1. Start it with [`Raft::new`] from what storage recovered ([`bootstrap_log`] makes the state of a new cluster).
//! 2. Feed what happens with [`Raft::step`]: messages, proposals, reads, receipts, and [`Input::Wake`] at the time that
//!    [`Output::wake_at`] named. As many inputs as there are.
//! 3. Then call [`Raft::take_output`] once, and carry everything out: it settles all inputs since the last call, so that
//!    a batch of proposals costs one write and one append for each peer.
//!    - Send [`Output::messages`], all of them at once. Those that speak of durable state were held back until it was.
//!    - Carry [`Output::write`] out, after all writes before it; hand [`LogWrite::into_durable`] back with
//!      [`Input::Durable`] when it is synced. One receipt covers all writes before.
//!    - Apply [`Output::committed`] in order, and say so with [`Input::Applied`].
//!    - Serve [`Output::reads`] from a state that has applied up to their index.
//!    - Read [`Output::snapshot_reads`] from the newest snapshot's file; answer with [`Input::SnapshotChunkRead`].
//! 4. After a crash start again with what is durable, and a higher [`Incarnation`].
//!
//! Losing, repeating or reordering messages is harmless; so is a receipt that comes late. Losing a write, or receipts
//! for what is not durable, is not.
//!
//! # Example
//! ```
//! use infinitystore::raft::{
//!     Config, Incarnation, Input, Member, NodeId, Raft, RoleName, StoreId, Time, bootstrap_log,
//! };
//!
//! let member = Member {
//!     name: "n1".into(),
//!     raft_addr: "127.0.0.1:9001".into(),
//!     http_addr: "127.0.0.1:8001".into(),
//!     store_id: StoreId(7),
//! };
//! let (life, seed) = (Incarnation::new(1), 42);
//! let mut raft = Raft::new(NodeId::new(1), life, seed, Config::default(), bootstrap_log(member), Time::new(0))?;
//!
//! let mut applied = Vec::new();
//! let mut proposed = false;
//! loop {
//!     let output = raft.take_output();
//!     applied.extend(output.committed.iter().map(|entry| entry.data()));
//!     if let Some(write) = output.write {
//!         // Here `write.records()` would go to a disk, and be synced.
//!         raft.step(Time::new(1), Input::Durable(write.into_durable()))?;
//!     } else if !proposed {
//!         assert_eq!(raft.role(), RoleName::Leader, "alone, it elects itself");
//!         raft.step(Time::new(2), Input::Propose("hello".into()))?;
//!         proposed = true;
//!     } else {
//!         break;
//!     }
//! }
//! assert_eq!(applied.last().unwrap(), "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where things are
//! `core` has the two entry points and the dispatch; `shared` what a node has in every role, `role` what only one role
//! has. Handlers by theme: `election`, `appending` (the receiver of AppendEntries), `replication` (the leader's side),
//! `reads`, `change` (membership), `transfer`, `snapshotting`. Below them: `log`, `writes` (the stream of writes and what
//! waits for it), `progress` (a peer as its leader sees it), `configurations`, `restore`, and the pure [`quorum`].
//!
//! Left out: leases (reads cost a round), witnesses, priorities.

mod api;
mod appending;
mod change;
mod config;
mod configurations;
mod core;
mod election;
mod entry;
mod log;
mod membership;
mod message;
#[cfg(feature = "model")]
mod model;
mod progress;
pub mod quorum;
mod read_queues;
mod reads;
mod replication;
mod restore;
mod role;
mod shared;
mod snapshot;
mod snapshotting;
mod transfer;
mod transition;
mod types;
mod wire;
mod withdrawal;
mod withdrawing;
mod writes;

pub use crate::raft::core::{PeerProgress, Raft};
pub use api::{
    Durable, Input, InputError, LeaderHint, LogRecords, LogWrite, Output, RaftEvent, ReadReady, Restored,
    RoleName,
};
pub use config::{Config, ConfigError};
pub use entry::{ENTRY_DATA_BYTES_MAX, ENTRY_HEADER_BYTES, Entry, EntryKind};
pub use membership::{Change, Member, Membership, Promotion};
pub use message::{Body, Message};
pub use restore::{RestoreError, bootstrap_log};
pub use snapshot::{SnapshotChunk, SnapshotMeta, SnapshotRead, SnapshotRefusal};
pub use transition::{MEMBER_TEXT_BYTES_MAX, MEMBERS_MAX};
pub use types::{
    ClusterId, HardState, Incarnation, LogId, LogIndex, NodeId, ReadRound, Session, StoreId, Term, Time,
    WriteSequence,
};
pub use withdrawal::Withdrawal;

#[cfg(test)]
mod tests;
