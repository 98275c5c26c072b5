//! The replica's state and its two entry points.

use crate::codec::FeatureLevels;
use crate::kv::Store;
use crate::raft::{
    Config, EntryKind, Incarnation, Input, LogId, LogIndex, Membership, NodeId, Raft, ReadRefusal,
    RestoreError, Restored, Setup, SnapshotMeta, Term, Time, Withdrawal,
};
use crate::replica::agreement::Agreement;
use crate::replica::answer_ages::AnswerAges;
use crate::replica::api::{
    Actions, ClientError, ClientReply, Event, RequestId, StorageEvent, StorageRequest,
};
use crate::replica::client_writes::{ClientWrites, ForwardAgain};
use crate::replica::disk_pace::{DiskPace, ToldFull};
use crate::replica::forwarding::Origins;
use crate::replica::lease_clock::LeaseClock;
use crate::replica::level_talk::LevelTalk;
use crate::replica::message::PeerMessage;
use crate::replica::reads::ClientReads;
use crate::replica::snapshot_policy::SnapshotPolicy;
use crate::replica::waiting_calls::WaitingCalls;
use crate::replica::watches::Watches;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// A question that a leader refused is asked again after this time, or earlier if a leader becomes
/// known.
pub(super) const READ_RETRY_MICROS: u64 = 50_000;

/// Limits of a replica, beside those of its core.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The core's.
    pub raft: Config,
    /// A snapshot is taken when the log has grown by this many bytes since the last one, and by as
    /// many as that one holds.
    pub snapshot_log_bytes: u64,
    /// Or by this many entries, and by a quarter of the number of keys in that one.
    pub snapshot_log_entries: u64,
    /// Client requests waiting, at most: writes and reads each. One beyond is answered
    /// [`ClientError::Overloaded`].
    pub pending_requests_max: usize,
    /// Bytes of keys and values of writes that wait for their answers, at most. One beyond is
    /// answered [`ClientError::Overloaded`].
    pub pending_write_bytes_max: u64,
    /// Bytes of the ranges of clients that wait for a change, at most. One beyond is answered
    /// [`ClientError::Overloaded`].
    pub pending_watch_bytes_max: u64,
    /// The levels that this node speaks.
    pub speaks: FeatureLevels,
    /// A leader raises the level of the cluster once all members have spoken a higher one for this
    /// long, microseconds: an operator who has just upgraded the last of them may still go back.
    pub level_settle_micros: u64,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self {
            raft: Config::default(),
            snapshot_log_bytes: 64 << 20,
            snapshot_log_entries: 200_000,
            pending_requests_max: 65_536,
            pending_write_bytes_max: 128 << 20,
            pending_watch_bytes_max: 32 << 20,
            speaks: FeatureLevels::OF_THIS_RELEASE,
            level_settle_micros: 10_000_000,
        }
    }
}

/// What a replica starts from: its identity, and what storage recovered.
#[derive(Debug)]
pub struct ReplicaStart {
    /// Its member id.
    pub id: NodeId,
    /// Which start this is.
    pub incarnation: Incarnation,
    /// Seed of all its randomness.
    pub seed: u64,
    /// The durable state.
    pub restored: Restored,
    /// The state machine at `restored.snapshot` (empty if there is none).
    pub store: Store,
}

/// A change of membership that a client waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingChange {
    pub(super) request: RequestId,
    pub(super) deadline: Time,
    /// Its entry, and the `next_member_id` after it; known with the core's next output.
    pub(super) entry: Option<(LogId, NodeId)>,
    /// `next_member_id` of the membership before. If it is larger now, the change added members.
    pub(super) next_member_id: NodeId,
}

/// A transfer of leadership that a client waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingTransfer {
    pub(super) request: RequestId,
    pub(super) deadline: Time,
    /// The member that is to lead; `None`: any.
    pub(super) to: Option<NodeId>,
    /// The client asked this leader to remove itself: once another node leads, that one is to be
    /// asked.
    pub(super) is_for_removal: bool,
}

/// One replica: a deterministic machine.
///
/// Call [`Self::step`] with each event and the time, then [`Self::take_actions`] once, and carry
/// the actions out: storage requests in their order, the rest in any. What depends on something
/// durable is not handed out before the storage has said so.
#[derive(Debug)]
pub struct Replica {
    pub(super) raft: Raft,
    pub(super) store: Store,
    /// The last entry applied to `store`.
    pub(super) last_applied: LogId,
    pub(super) writes: ClientWrites,
    pub(super) reads: ClientReads,
    pub(super) watches: Watches,
    pub(super) lease_calls: WaitingCalls,
    pub(super) lease_clock: LeaseClock,
    pub(super) answer_ages: AnswerAges,
    /// The commit index known when this process started. Until it is applied, the state is older
    /// than what clients may have seen here.
    committed_at_start: LogIndex,
    /// The commit index that the storage was told last.
    noted_commit: LogIndex,
    /// The newest snapshot that is durable here.
    pub(super) snapshot: LogId,
    pub(super) config: ReplicaConfig,
    pub(super) incarnation: Incarnation,
    pub(super) now: Time,
    pub(super) origins: Origins,
    pub(super) agreement: Agreement,
    pub(super) disk_pace: DiskPace,
    pub(super) level_talk: LevelTalk,
    pub(super) change: Option<PendingChange>,
    pub(super) transfer: Option<PendingTransfer>,
    pub(super) policy: SnapshotPolicy,
    /// The content of a leader's snapshot that is on disk, until the core says that it counts.
    pub(super) installing: Option<Box<(SnapshotMeta, Store)>>,
    /// The term that was on disk when this process started. What an earlier process did in that
    /// term or before is not remembered.
    pub(super) first_term: Term,
    /// A term whose leader said that it leads no longer: nothing more is forwarded in it.
    pub(super) leaderless_term: Term,
    /// A term whose leader said that it hands over, and when what is queued is forwarded to it
    /// again.
    pub(super) handing_over: Option<(Term, Time)>,
    /// When the newest forward is sent again; `None` while nothing that was forwarded waits.
    pub(super) forward_again: Option<ForwardAgain>,
    /// Until when this node is reserved for another cluster.
    reserved_until: Option<Time>,
    /// The voters that the cluster needs before it serves clients, while it is being made.
    pub(super) founding: Option<usize>,
    /// The disk has no room for another segment of the log.
    pub(super) disk_full: bool,
    /// The log has no room at all: what this node is sent is not stored before there is some.
    pub(super) log_full: bool,
    /// A leader without room tries to hand over at this time at the earliest.
    pub(super) next_hand_over: Time,
    /// To whom this member said that it has no room.
    pub(super) told_full: Option<ToldFull>,
    pub(super) actions: Actions,
}

impl Replica {
    /// Starts a replica.
    ///
    /// # Errors
    /// [`RestoreError`] if the limits or what was recovered make no sense.
    pub fn new(config: ReplicaConfig, start: ReplicaStart, now: Time) -> Result<Self, RestoreError> {
        let snapshot = start.restored.snapshot.as_ref().map_or(LogId::ZERO, |meta| meta.last);
        let first_term = start.restored.hard_state.term;
        let raft = Raft::new(Setup {
            id: start.id,
            incarnation: start.incarnation,
            seed: start.seed,
            config: config.raft.clone(),
            restored: start.restored,
            now,
        })?;
        let committed = raft.commit_index();
        let policy = SnapshotPolicy::new(&start.store);
        let mut answer_ages = AnswerAges::default();
        answer_ages.note(now, start.store.last_answer(), || start.store.oldest_answer());
        Ok(Self {
            committed_at_start: committed,
            noted_commit: committed,
            raft,
            store: start.store,
            last_applied: snapshot,
            writes: ClientWrites::default(),
            reads: ClientReads::default(),
            watches: Watches::default(),
            lease_calls: WaitingCalls::default(),
            lease_clock: LeaseClock::default(),
            answer_ages,
            snapshot,
            config,
            incarnation: start.incarnation,
            now,
            origins: Origins::default(),
            agreement: Agreement::default(),
            disk_pace: DiskPace::default(),
            level_talk: LevelTalk::default(),
            change: None,
            transfer: None,
            policy,
            installing: None,
            first_term,
            leaderless_term: Term::ZERO,
            handing_over: None,
            forward_again: None,
            next_hand_over: now,
            told_full: None,
            reserved_until: None,
            founding: None,
            disk_full: false,
            log_full: false,
            actions: Actions::default(),
        })
    }

    /// Takes one event in. This is cheap: [`Self::take_actions`] settles what follows, once for all
    /// events before it.
    pub fn step(&mut self, now: Time, event: Event) {
        self.now = self.now.max(now);
        match event {
            Event::Wake => {
                self.input(Input::Wake);
                self.maybe_make_room();
            }
            Event::Peer(PeerMessage::Raft(message)) => {
                if !self.is_above_level(&message) {
                    self.input(Input::Message(message));
                }
            }
            Event::Peer(PeerMessage::Levels(said)) => self.handle_levels(said),
            Event::Peer(PeerMessage::Forward(forward)) => self.handle_forward(forward),
            Event::Peer(PeerMessage::ForwardRefused(refused)) => self.handle_forward_refused(&refused),
            Event::Peer(PeerMessage::StateHash(said)) => self.handle_state_hash(said),
            Event::Peer(PeerMessage::DiskPace(said)) => self.handle_disk_pace(&said),
            Event::Peer(PeerMessage::LeaseCalls(calls)) => self.handle_lease_calls(calls),
            Event::Peer(PeerMessage::LeaseAnswers(answers)) => self.handle_lease_answers(answers),
            Event::Client { id, deadline, by, request } => self.handle_client(id, deadline, by, request),
            Event::Storage(event) => self.handle_storage(event),
            Event::Reserve { until } => self.reserved_until = Some(until),
            Event::Release => self.reserved_until = None,
            Event::Found { voters } => self.founding = Some(voters),
            Event::EndWatches => self.end_watches(),
            Event::PeerGone(peer) => {
                self.level_talk.forget(peer);
                self.input(Input::PeerGone(peer));
            }
            Event::PeerSpeaks(peer, speaks) => self.level_talk.heed_hello(peer, speaks),
            Event::Withdraw(why) => self.input(Input::Withdraw(why)),
            Event::StorageFailed => self.input(Input::StepDown),
        }
    }

    /// Settles and hands out everything that has to be carried out.
    pub fn take_actions(&mut self) -> Actions {
        self.expire();
        self.maybe_end_leases();
        self.maybe_judge_disk();
        self.maybe_tell_full_disk();
        self.maybe_tell_levels();
        self.maybe_raise_level();
        self.maybe_forward_again();
        loop {
            self.send_writes();
            self.send_lease_calls();
            self.ask_reads();
            let (leader, queued) = (self.raft.leader_hint(), self.writes.queued());
            let output = self.raft.take_output();
            self.carry_out(output);
            // With a new leader, or once writes are proven lost, queued writes can be sent.
            let queued_again = self.writes.queued() > queued;
            let leader_is_new = self.raft.leader_hint() != leader;
            if self.writes.queued() == 0 || !(queued_again || leader_is_new) {
                break;
            }
        }
        self.note_commit();
        // The core decides with the receipt whether the snapshot counts; if the core did not take
        // it, it never counts.
        self.installing = None;
        self.maybe_compare_states();
        self.maybe_save_snapshot();
        let due =
            [self.writes.next_deadline(), self.reads.wake_at(), self.change.map(|change| change.deadline)];
        let forwards = self.forwards_wait_until().filter(|_| self.writes.queued() > 0);
        let others = [self.transfer.map(|transfer| transfer.deadline), forwards, self.policy.resumes_at()];
        let leases = [self.lease_clock.next(), self.lease_calls.wake_at(), self.watches.next_deadline()];
        let disk = [self.disk_pace.wake_at(), self.tell_full_disk_at(), self.forward_again_at()];
        let states = [self.tell_levels_at(), self.raise_level_at(), self.compare_at()];
        let due = due.into_iter().chain(others).chain(leases).chain(disk).chain(states).flatten().min();
        self.actions.wake_at = self.actions.wake_at.into_iter().chain(due).min();
        self.watches.looks = 0;
        core::mem::take(&mut self.actions)
    }

    /// The node is about to end: the replies to clients that wait for writes. A write that was
    /// never sent is certainly not appended. An order about the members may have been carried out.
    pub fn give_up(&mut self) -> Vec<(RequestId, ClientReply)> {
        let mut waiting = self.watches.give_up();
        waiting.extend(self.lease_calls.give_up());
        waiting.extend(self.reads.take_writers());
        let (queued, sent) = self.writes.give_up();
        let queued = queued.into_iter().map(|request| (request, ClientError::Stopping));
        let sent = sent.into_iter().map(|request| (request, ClientError::Unknown));
        let waiting = waiting.into_iter().map(|request| (request, ClientError::Stopping));
        // Others may commit a change, and carry a transfer out.
        let change = self.change.take().map(|change| change.request);
        let orders = change.into_iter().chain(self.transfer.take().map(|transfer| transfer.request));
        let orders = orders.map(|request| (request, ClientError::Unknown));
        queued
            .chain(sent)
            .chain(waiting)
            .chain(orders)
            .map(|(request, error)| (request, ClientReply::Failed(error)))
            .collect()
    }

    /// The membership in force.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.raft.membership()
    }

    /// The state machine, as applied so far.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The last entry applied to [`Self::store`].
    #[must_use]
    pub const fn last_applied(&self) -> LogId {
        self.last_applied
    }

    /// How old the state here is at most, microseconds ([`Raft::silent_micros`]). `None`: that is
    /// not known. So it is while an installed snapshot is known to the core, and its state has not
    /// taken its place here. And what a node holds that is about to move into another cluster is no
    /// state of that cluster.
    #[must_use]
    pub fn silent_micros(&self, now: Time) -> Option<u64> {
        let has_all = self.last_applied().index >= self.raft.last_applied();
        self.raft.silent_micros(now).filter(|_| has_all && !self.is_reserved())
    }

    /// The core, to look at.
    #[must_use]
    pub const fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Whether this is a cluster of one that never took a write with an effect (committed or not),
    /// a change of membership, or a reservation. Only such a node may be absorbed by another
    /// cluster.
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        let idle = self.writes.len() == 0 && self.change.is_none() && !self.is_reserved();
        idle && !self.has_data()
    }

    /// Whether this node has anything to lose: it took a write with an effect (committed or not),
    /// or a change of membership, or it is a member of a cluster of several.
    #[must_use]
    pub fn has_data(&self) -> bool {
        let membership = self.raft.membership();
        let alone = membership.members.len() == 1 && membership.voters.contains(&self.raft.id());
        let unchanged = membership.next_member_id == NodeId::new(2);
        !(alone && unchanged && self.is_untouched())
    }

    /// Whether no command was ever logged, committed or not.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        let logged = self.raft.log_after(LogIndex::ZERO);
        // What a snapshot covers is in the store; a snapshot alone may be one of elections.
        logged.iter().all(|entry| entry.kind() != EntryKind::Command) && self.store.is_untouched()
    }

    /// Whether the cluster is being made, and most of its voters are missing.
    #[must_use]
    pub fn is_founding(&self) -> bool {
        let Some(needed) = self.founding else { return false };
        let (membership, _) = self.raft.membership_at(self.raft.commit_index());
        let has_voters = membership.voters.len() >= needed && !membership.is_joint();
        !has_voters && self.store.is_untouched()
    }

    /// Whether this node has not applied yet all that it knew to be committed when it started. A
    /// member that has applied nothing at all knows nothing of its cluster: the first entry of each
    /// is committed.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.last_applied.index < self.committed_at_start || self.last_applied == LogId::ZERO
    }

    /// Whether it has applied all that it knew to be committed when it started: its users, roles
    /// and tokens are not older than they were then.
    #[must_use]
    pub fn knows_its_rules(&self) -> bool {
        self.last_applied.index >= self.committed_at_start
    }

    /// Whether this node is known to have been removed from its cluster: a committed membership
    /// lists it no longer, here or at a member that said so.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        let commit = self.raft.commit_index();
        let is_told = matches!(self.raft.withdrawn(), Some(Withdrawal::Removed { .. }));
        is_told || commit > LogIndex::ZERO && self.raft.membership_at(commit).0.proves_removed(self.raft.id())
    }

    /// Whether this node is reserved for another cluster now.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.reserved_until.is_some_and(|until| self.now < until)
    }

    /// An input that cannot be refused.
    pub(super) fn input(&mut self, input: Input) {
        let taken = self.raft.step(self.now, input);
        debug_assert!(taken.is_ok(), "only requests are refused");
    }

    pub(super) fn reply(&mut self, request: RequestId, reply: ClientReply) {
        self.actions.replies.push((request, reply));
    }

    pub(super) fn fail(&mut self, request: RequestId, error: ClientError) {
        self.reply(request, ClientReply::Failed(error));
    }

    fn handle_storage(&mut self, event: StorageEvent) {
        match event {
            StorageEvent::Durable { receipt, installed, refused } => {
                if installed.is_some() {
                    self.installing = installed;
                }
                if let Some(refused) = refused {
                    self.handle_snapshot_unstored(*refused);
                }
                self.disk_pace.durable(self.now, &receipt);
                self.input(Input::Durable(receipt));
            }
            StorageEvent::SnapshotSaved(meta) => self.handle_snapshot_saved(meta),
            StorageEvent::SnapshotFailed { last, reason } => self.handle_snapshot_failed(last, reason),
            StorageEvent::ChunkRead { to, session, chunk } => self.handle_chunk_read(to, session, chunk),
            StorageEvent::DiskFull(full) => {
                if self.disk_full && !full {
                    self.policy.room_is_back();
                }
                self.disk_full = full;
                self.maybe_make_room();
            }
            StorageEvent::LogFull(full) => self.log_full = full,
            StorageEvent::SegmentDamaged { through } => self.handle_segment_damaged(through),
            StorageEvent::SnapshotDamaged { last, reason } => self.handle_snapshot_damaged(last, &reason),
            // The storage's worker has logged it; it changes nothing here.
            StorageEvent::SegmentNotReady { .. } => {}
        }
    }

    /// Lets the log say what is committed. After the writes: it is in them, or in those before.
    fn note_commit(&mut self) {
        let commit = self.raft.commit_index();
        if commit > self.noted_commit {
            self.noted_commit = commit;
            self.actions.storage.push(StorageRequest::Committed(commit));
        }
    }

    fn ask_reads(&mut self) {
        let Some((question, by_round)) = self.reads.ask(self.now, self.raft.term()) else { return };
        let input = if by_round { Input::ReadByRound(question) } else { Input::Read(question) };
        if self.raft.step(self.now, input).is_err() {
            // It has too many already.
            let retry_at = self.now.plus(READ_RETRY_MICROS);
            self.reads.refused(question, retry_at, ReadRefusal::Overloaded);
        }
    }

    fn expire(&mut self) {
        let (not_appended, unknown) = self.writes.expire(self.now);
        for request in not_appended {
            self.fail(request, ClientError::NoLeader);
        }
        for request in unknown {
            self.fail(request, ClientError::Unknown);
        }
        for (asker, error) in self.reads.expire(self.now) {
            self.fail_read(asker, error);
        }
        for request in self.lease_calls.expire(self.now) {
            self.fail(request, ClientError::NoQuorum);
        }
        self.serve_watches();
        if self.change.is_some_and(|change| change.deadline <= self.now) {
            self.replace_change(None);
        }
        self.expire_transfer();
    }
}
