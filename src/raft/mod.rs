//! Consensus by Raft, without a clock, a disk or a socket. This page teaches it; the modules below
//! do it.
//!
//! Sources: Ongaro and Ousterhout 2014 ("Raft §…") and Ongaro's dissertation of the same year ("D
//! §…"). Each section ends with the functions that do what it says, and with the scripts that show
//! it message by message (`src/raft/tests/scripts`, run by `cargo test --lib script`).
//! `docs/protocol.md` lists the rules one by one, `docs/learn-raft.md` is a walk through the code.
//!
//! # 1. The problem
//! Several nodes keep copies of one state machine. If all of them apply the same commands in the
//! same order, their states are the same. So the nodes agree on a *log* of commands, entry by
//! entry. Nodes crash, and come back with what their disks hold. Messages are lost, repeated,
//! delayed and overtaken by others. Nobody lies. While a majority of the nodes is up and connected,
//! the log grows; and whatever happens, no two nodes ever apply different entries at the same
//! index. That is *State Machine Safety* (Raft figure 3), and all that follows serves it.
//!
//! The means is the *majority*. Any two majorities of one set of nodes have a node in common. What
//! one majority has agreed to, at least one member of every later majority knows.
//!
//! # 2. Terms
//! Time is divided into *terms*, numbered upwards. A term has one leader at most. Every message
//! names the term of its sender. A node that sees a higher term adopts it and becomes a follower.
//! It answers a request of a lower term only to tell the sender that its term is over. So a leader
//! that was cut off, and comes back, learns from the first answer that it leads no longer. Three
//! messages do not raise the receiver's term: a pre-vote, a vote request that comes to a node which
//! hears a leader (section 3), and `Withdrawn` (section 6).
//!
//! Done by `election::pass_term_gate`. Shown by `election_higher_term_in_a_rejection`.
//!
//! # 3. Elections
//! A leader that has nothing to send sends empty appends, its *heartbeats*. A follower that hears
//! nothing from a leader for its *election timeout* stands for election: it raises its term, votes
//! for itself and asks all other voters. A node votes once in a term: for the first candidate that
//! asks and whose log is not behind (section 5). A node with a majority of votes leads. Two
//! majorities share a node, and that node votes once: so a term has one leader at most. Each
//! timeout is drawn at random between T and 2T (T is [`Config::election_timeout_micros`]), so that
//! one node usually asks first. If two ask at once and nobody wins, the next timeout decides (Raft
//! §5.2).
//!
//! Three additions keep elections rare. Before a node raises its term, it asks whether it *would*
//! win (*pre-vote*, D §9.6). So a node that was cut off has kept its term, and disturbs nobody when
//! it comes back. A node that heard from a leader within T grants neither kind of vote
//! (*stickiness*, D §4.2.3), unless the leader itself asked for the election (section 10). A leader
//! that has not heard from a majority for T steps down (*check-quorum*, D §6.2), so that its
//! clients look for the new one.
//!
//! ```text
//!             timeout             would win            won
//!  Follower ----------> PreCandidate -----> Candidate -----> Leader
//!      ^                     |                  |               |
//!      +---------------------+------------------+---------------+
//!         it lost, a leader of this term or a higher term is seen;
//!         a leader: also when it has not heard from a majority for T
//! ```
//!
//! A pre-candidate or candidate whose timeout passes begins again with a pre-vote. A candidate that
//! may yet win does not: it asks again those that were willing, as long as a disk may take for
//! their votes. A node that is the only voter, or that its leader told to take over, goes from
//! follower to candidate at once.
//!
//! Done by `election::handle_election_timeout`, `election::handle_pre_vote`,
//! `election::handle_request_vote`, `election::become_leader` and `election::check_leadership`.
//! Shown by `election_basic`, `election_split_vote`, `election_slow_voter`,
//! `election_prevote_of_a_partitioned_node`, `election_stickiness`,
//! `election_delayed_request_of_a_higher_term` and `election_check_quorum`.
//!
//! # 4. The log
//! An entry has an index, the term of the leader that made it, and a command, a membership, a
//! level, or nothing. A command that is given to a leader is a *proposal*: the leader appends it to
//! its own log and sends it on. Each append names the entry before the ones it carries, by index
//! and term. A follower that does not have that entry rejects the append, with a hint where the
//! logs may agree, and the leader tries there. Where they agree, the follower takes the rest, and
//! removes what contradicts it.
//!
//! ```text
//!  index        1    2    3    4    5    6
//!  leader     | 1  | 1  | 2  | 4  | 4  | 4  |     each box: the entry's term
//!  follower a | 1  | 1  | 2  | 4  |               is behind: gets 5 and 6
//!  follower b | 1  | 1  | 2  | 3  | 3  |          led in term 3: its 4 and 5 go, the leader's come
//!                         ^ b's last entry in common: "append 4, 5, 6 after 3 of term 2"
//! ```
//!
//! By induction two logs that have the same term at an index are equal up to there (*Log Matching*,
//! Raft §5.3). So one number says how far a follower agrees: its *match index*.
//!
//! Of each peer the leader keeps the match index, the *next index* (the next entry to send), and a
//! state: in *probe* it sends one append at a time, to find where the logs agree; in *replicate* it
//! sends without waiting for answers; in *snapshot* it sends a snapshot (section 9). A *session*
//! numbers the relation, and answers repeat it, so that the leader recognises late ones.
//!
//! Done by `leader::replication::send_appends`, `follower::append::handle_append`,
//! `leader::replication::handle_append_accepted` and `leader::replication::handle_append_rejected`.
//! Shown by `replication_figure_7`, `replication_gap` and `replication_duplicates_and_disorder`.
//!
//! # 5. Commitment
//! An entry is *committed* when it can never be lost again. Only then do nodes apply it, and only
//! then is its client answered. A leader commits an entry when a majority has it on disk. The last
//! committed entry's index is the *commit index*. Each append carries the leader's, and a follower
//! commits up to there, but not beyond the end of that append. Two rules make this safe.
//!
//! First, a node votes only for a candidate whose log is at least as up-to-date as its own: the
//! last entries are compared by term, then by index (Raft §5.4.1). The majority that has a
//! committed entry and the majority that elects a leader share a node, and that node would refuse a
//! candidate that is behind.
//!
//! That is not enough. Raft figure 8, with five nodes: each column is a moment, each row is a node
//! with the terms of its entries.
//!
//! ```text
//!      (a)      (b)      (c)        (d)
//!   1: 1 2    1: 1 2   1: 1 2 4   1: 1 3    (a) node 1 leads in term 2; its entry reaches node 2
//!   2: 1 2    2: 1 2   2: 1 2     2: 1 3    (b) 1 is down; node 5 leads in term 3 by the votes of
//!   3: 1      3: 1     3: 1 2     3: 1 3        3 and 4, and its entry reaches nobody
//!   4: 1      4: 1     4: 1       4: 1 3    (c) 5 is down; node 1 leads in term 4, and its entry
//!   5: 1      5: 1 3   5: 1 3     5: 1 3        of term 2 reaches node 3: three nodes have it
//!                                           (d) 1 crashes; node 5 leads in term 5: its last entry
//!                                               is of term 3, those of 2, 3, 4 are older; when 1
//!                                               comes back, its entries go, too
//! ```
//!
//! In (c) the entry of term 2 is on a majority, and in (d) it is gone. If node 1 counted copies in
//! (c) and committed the entry, an applied command would be lost. So **a leader counts copies only
//! of entries of its own term**. What stands before such an entry is committed with it: once a
//! majority also has the entry of term 4, node 5 cannot win. That is why a leader begins its term
//! with an empty entry: only that commits what its predecessors left (Raft §5.4.2, §8).
//!
//! A copy counts once it is on its node's disk. That holds for the leader's own copy too. When a
//! leader loses its office, its uncommitted entries may be lost, or a later leader may commit them:
//! their clients cannot know.
//!
//! Done by `leader::replication::maybe_commit` and `election::is_up_to_date`. Shown by
//! `replication_figure_8`, `replication_leader_disk` and `election_up_to_date_logs`.
//!
//! # 6. Persist before send
//! A node may forget everything but its disk. So it must not say what its disk does not hold. A
//! vote that is forgotten could be given twice. An entry that is acknowledged and then lost would
//! count towards a majority that does not have it. The core does not wait for the disk, however. It
//! hands out one write after the other, and numbers them. It stamps each message that rests on
//! durable state with the number of the newest write, and holds the message until a receipt for
//! that write comes:
//!
//! ```text
//!  follower  step(append)   take_output           step(Durable 7)   take_output
//!                 ^         write 7: entry 5            ^           "accepted, match 5"
//!                 |             |                       |                 |
//!  disk           |             +---- write, fsync -----+                 |
//!                 |                                                       v
//!  leader   ------+                                         counts the copy from here on
//! ```
//!
//! What waits for what:
//!
//! | message | waits until this is on the sender's disk |
//! |---|---|
//! | `RequestVote` | the new term, and the candidate's vote for itself |
//! | `VoteGranted` | the term and the vote |
//! | `AppendAccepted` | the entries that it acknowledges |
//! | `SnapshotProgress` | the write with the chunks that it acknowledges |
//! | `SnapshotInstalled` | the whole snapshot |
//! | `VoteRejected`, `AppendRejected`, `SnapshotRefused` | the term |
//!
//! A message that says nothing of the sender's disk leaves at once: an append (the leader's term is
//! on its disk since before it won), a pre-vote and its answers, a question for a read index, and
//! `Heard`. With `Heard`, a follower whose acknowledgement waits for its disk tells the leader at
//! once that it still follows.
//!
//! All this needs disks that keep what was synced. A member with proof that its disk did not (an
//! older copy was put back, say) *withdraws*: it votes for nobody and acknowledges nothing.
//! `follower::withdraw` does that, and `docs/protocol.md` lists the proofs.
//!
//! Done by `writes::hold`, `writes::issue`, `writes::complete` and `writes::release`. Shown by
//! `election_vote_is_durable_before_it_is_sent`, `election_repeated_grant`,
//! `replication_follower_disk` and `election_slow_follower_disk`.
//!
//! # 7. Reads
//! A read must see every write that was answered before the read began (it is *linearizable*). A
//! leader may have been replaced without knowing it. So before it answers a read, it makes sure
//! that it still leads. It notes its commit index (the *read index*), sends a numbered round of
//! heartbeats, and waits until a majority has answered that round. Then no other leader had
//! committed anything that this one lacked when the round began. The read is served once the state
//! has applied up to the read index. A read that comes while a round is under way waits for the
//! next one: the answers to this one may be older than the read.
//!
//! A leader that has not committed in its own term yet does not know what is committed, and waits
//! for that first. A follower asks the leader for a read index, applies up to it, and serves the
//! read itself (D §6.4). If it knows no leader for too long, it refuses the read.
//!
//! No clock is trusted, unless [`Config::lease_drift_ppm`] is set: then members promise a leader to
//! vote for nobody for a while (`docs/protocol.md`, "Lease reads").
//!
//! Done by `reads::handle_read`, `reads::settle_reads` and `reads::handle_read_index`. Shown by
//! `reads_leader`, `reads_follower`, `reads_before_own_commit` and
//! `reads_late_read_starts_another_round`.
//!
//! # 8. Membership
//! Who votes is an entry of the log too, a *membership* (in the papers, a *configuration*). A node
//! goes by the newest membership in its log, committed or not. If that entry is truncated, the
//! membership before it is in force again. If old and new voters could decide apart, there could be
//! two leaders in one term: on the way from {1,2,3} to {3,4,5}, nodes 1 and 2 elect one by the old
//! set, and 4 and 5 another by the new set. So a change of voters passes through a *joint* state in
//! which every decision needs a majority of the old set (`outgoing`) and a majority of the new one
//! (`voters`):
//!
//! ```text
//!      voters {1,2,3}       voters {1,2,4}, outgoing {1,2,3}        voters {1,2,4}
//!  --------------------|----------------------------------------|-------------------->
//!                   appended                          committed by both majorities,
//!                                                     then the last state is appended
//! ```
//!
//! The node that leads when the joint state is committed ends it (Raft §6). A leader that is no
//! voter in the last state steps down once that is committed. A new member first catches up as a
//! *learner*, which has no vote. One change is under way at a time. A leader makes none before it
//! has committed in its term: until then it may not know what its predecessor committed.
//!
//! Done by `leader::member_change::handle_change`, `leader::member_change::maybe_change`,
//! `membership::change::apply_change`, `membership::change::leave_joint`, `quorum::tally` and
//! `quorum::reached`. Shown by `membership_replace`,
//! `membership_joint_state_needs_both_majorities`, `membership_rollback` and
//! `membership_leader_change_in_joint_state`.
//!
//! # 9. Snapshots
//! A log cannot grow for ever. The state machine saves its state as of an applied index, with the
//! membership in force there. A *marker* says that the snapshot is durable: a record among this
//! node's writes, and no entry, so other nodes do not see it. Then the entries that the snapshot
//! covers go, except a tail for followers that lack little. A follower that needs an entry which is
//! gone gets the snapshot, in chunks, and then the log from there (Raft §7). A snapshot holds what
//! committed entries did and nothing else, so installing it can contradict nothing that was
//! committed.
//!
//! Done by `compaction::handle_snapshot_stored`, `compaction::maybe_trim`,
//! `leader::snapshots::start_snapshot`, `leader::snapshots::continue_snapshot`,
//! `follower::snapshots::handle_install_snapshot` and `follower::snapshots::finish_install`.
//! Shown by `snapshot_kept_tail`, `snapshot_lost_chunk` and `snapshot_replaces_a_conflicting_tail`.
//!
//! # 10. Handing over
//! A leader that is to hand over names a successor: it takes no proposals, waits until that node
//! has everything, and tells it to stand for election at once (D §3.10). This election needs no
//! pre-vote, and voters take part although they hear a leader. If the successor does not lead
//! within T, the leader goes on.
//!
//! Done by `leader::transfer::handle_transfer`. Shown by `transfer`.
//!
//! # The contract
//! A [`Raft`] does nothing by itself: no clock, no disk, no socket, no thread, no global
//! randomness.
//! 1. Start it with [`Raft::new`] from what storage recovered ([`bootstrap_log`] makes the state of
//!    a new cluster).
//! 2. Feed what happens with [`Raft::step`]: messages, reads, receipts, and [`Input::Wake`] at the
//!    time that [`Output::wake_at`] named. Give commands to [`Raft::propose`]. Feed as many of both
//!    as have come.
//! 3. Then call [`Raft::take_output`], and carry everything out. It settles all inputs since the
//!    last call, so that a batch of proposals costs one write and one append for each peer.
//!    - Look at [`Output::events`] first: an installed snapshot comes before the entries.
//!    - Send [`Output::messages`], all of them at once. Those that speak of durable state were held
//!      back until it was.
//!    - Carry [`Output::write`] out, after all writes before it; hand [`LogWrite::into_durable`]
//!      back with [`Input::Durable`] when it is synced. One receipt covers all writes before.
//!    - Apply [`Output::committed`] in order, and say so with [`Input::Applied`].
//!    - Serve [`Output::reads`] from a state that has applied up to their index.
//!    - Read [`Output::snapshot_reads`] from the newest snapshot's file; answer with
//!      [`Input::SnapshotChunkRead`].
//! 4. Take the output in a loop until it is empty: carrying it out makes new inputs
//!    ([`Input::Applied`], chunks that were read).
//! 5. After a crash start again with what is durable, and a higher [`Incarnation`].
//!
//! What is easily missed:
//! - [`Output::committed`] may run ahead of this node's own disk: a majority of others can be
//!   faster.
//! - Snapshot files are stored in the order of the writes that carry their chunks. Keep the older
//!   file until the marker of the newer one is durable.
//! - Every [`Input::SnapshotStored`] is answered: by [`RaftEvent::Compacted`], or by
//!   [`RaftEvent::SnapshotUnmarked`].
//! - The core trims its log in memory by itself. It says with [`RaftEvent::Compacted`] what the
//!   storage may remove.
//! - A core that finds an invariant broken panics: its node has to end.
//!
//! `docs/embedding.md` has the API by example.
//!
//! Losing, repeating or reordering messages is harmless. So is a receipt that comes late. Two
//! things are not: losing a write, and giving a receipt for a write that is not durable.
//!
//! # Example
//! ```
//! use infinitystore::raft::{
//!     Config, Incarnation, Input, Member, NodeId, Raft, RoleName, Setup, StoreId, Time, bootstrap_log,
//! };
//!
//! let member = Member {
//!     name: "n1".into(),
//!     raft_addr: "127.0.0.1:9001".into(),
//!     http_addr: "127.0.0.1:8001".into(),
//!     store_id: StoreId(7),
//! };
//! let (id, incarnation, now) = (NodeId::new(1), Incarnation::new(1), Time::new(0));
//! let restored = bootstrap_log([member])?;
//! let mut raft = Raft::new(Setup { id, incarnation, seed: 42, config: Config::default(), restored, now })?;
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
//!         raft.propose(Time::new(2), &"hello".into())?;
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
//! `core` has the entry points ([`Raft::propose`], [`Raft::step`], [`Raft::take_output`]) and the
//! dispatch. The handlers stand above it: `election` and `reads`, which all roles have a part in;
//! in `leader` what only a leader does (`replication`, `snapshots`, `member_change`, `transfer`),
//! in `follower` what only a follower does (`append`, `snapshots`, `withdraw`); `compaction`, and
//! `invariants` (what always holds). Below it is what they work on: `state` (what a node has in
//! every role and in one, and a peer as its leader sees it), `writes` (the stream of writes, and
//! the messages that wait for it), `log`, `membership`, and the pure [`quorum`]. `api` has what
//! goes in and comes out, `config` the limits, `message`, `wire` and `types` the words, their bytes
//! and the numbers; `held` says what a core holds, and `model` serves a model checker.
//!
//! Left out: witness members, priorities.

mod api;
mod compaction;
mod config;
mod core;
mod election;
mod follower;
mod held;
mod invariants;
mod leader;
mod log;
mod membership;
mod message;
#[cfg(feature = "model")]
mod model;
pub mod quorum;
mod reads;
mod state;
mod types;
mod wire;
mod writes;

pub use crate::codec::DecodeError;
pub use crate::raft::core::{PeerProgress, Raft};
pub use api::{Input, InputError, LeaderHint, Output, RaftEvent, ReadReady, RoleName, Setup};
pub use config::{Config, ConfigError};
pub use log::entry::{ENTRY_DATA_BYTES_MAX, ENTRY_HEADER_BYTES, Entry, EntryKind};
pub use log::records::{Durable, LogRecords, LogWrite, Restored};
pub use log::restore::{RestoreError, bootstrap_log};
pub use log::snapshot::{SnapshotChunk, SnapshotMeta, SnapshotRead, SnapshotRefusal};
pub use membership::change::{MEMBER_TEXT_BYTES_MAX, MEMBERS_MAX};
pub use membership::members::{Change, ChangeOrder, Member, Membership, Promotion};
pub use membership::withdrawal::Withdrawal;
pub use message::{AnswerClock, AppendClock, Body, ClockReading, CommitAge, Message, ReadRefusal};
pub use state::progress::ReplicationState;
pub use types::{
    ClusterId, HardState, Incarnation, LogId, LogIndex, NodeId, ReadId, ReadRound, Session, StoreId, Term,
    Time, WriteSequence,
};

#[cfg(test)]
mod tests;
