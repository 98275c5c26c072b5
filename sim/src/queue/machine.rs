//! One machine: a disk that outlives processes, and at times a process: replica and storage.

use crate::checks::durable::{DurableModel, WriteSketch};
use crate::checks::observed::{Observed, mark_recovery};
use crate::hardware::disk::SimDisk;
use crate::machines::{Machine, replica_config};
use crate::record::marks::Marks;
use crate::record::violation::Violation;
use crate::schedule::Settings;
use infinitystore::codec::FeatureLevels;
use infinitystore::kv::Principal;
use infinitystore::raft::{ClusterId, LogId, LogIndex, Member, NodeId, StoreId, Term, Time};
use infinitystore::replica::{
    Event, Replica, ReplicaConfig, ReplicaStart, RequestId, StorageEvent, StorageRequest,
};
use infinitystore::storage::{
    Bootstrap, OpenError, SnapshotFiles, SpareMode, Storage, StorageClock, StorageOptions,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Deref, DerefMut};

/// The identity that a machine's disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Member id.
    pub(super) id: NodeId,
    /// Store id.
    pub(super) store: StoreId,
}

/// For a member that catches up, a leader keeps this many times as much of its log in memory.
pub(super) const LAGGARD_TIMES: u64 = 3;

/// Where a request that a process holds comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A client of the schedule.
    Client(usize),
    /// A client of the keyspace, whose write holds so many bytes at most.
    Keyspace {
        /// The client.
        client: usize,
        /// The bytes.
        bytes: u64,
        /// Who the client is.
        by: Option<Principal>,
    },
    /// The operator, which does not wait for the answer.
    Operator,
    /// The probe of the last phase.
    Probe,
}

impl Asker {
    /// A word for it.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::Keyspace { .. } => "keyspace",
            Self::Operator => "operator",
            Self::Probe => "probe",
        }
    }
}

/// A machine, and at times a process on it.
pub(super) struct ReplicaHost {
    /// The machine.
    pub(super) hardware: Machine,
    /// Its process, while one runs.
    pub(super) process: Option<Process>,
    /// Its identity; `None` before it is a member of the cluster.
    pub(super) identity: Option<Identity>,
    /// The writes of the batch that was being written when the process ended.
    pub(super) under_way: Vec<WriteSketch>,
    /// What came while it stood still.
    pub(super) inbox: VecDeque<Event>,
    /// If a bit was flipped, it is in the newest of two snapshots: the machine has to start all the
    /// same.
    pub(super) has_older: bool,
}

impl Deref for ReplicaHost {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.hardware
    }
}

impl DerefMut for ReplicaHost {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.hardware
    }
}

/// A running process.
pub(super) struct Process {
    /// The replica.
    pub(super) replica: Replica,
    /// Its storage.
    pub(super) storage: Storage<SimDisk>,
    /// Its snapshot files.
    pub(super) snapshots: SnapshotFiles<SimDisk>,
    /// What waits for the storage.
    pub(super) queue: Vec<StorageRequest>,
    /// The batch that is being written.
    pub(super) batch: Vec<StorageRequest>,
    /// Writes that the storage was given before, and has not answered: there was no room.
    unanswered: VecDeque<(u64, WriteSketch)>,
    /// Whether a batch is being written; when it is done, `queue` follows.
    pub(super) busy: bool,
    /// Since when, by the machine's clock.
    pub(super) busy_since: Time,
    /// Since when something has waited for the storage at every step, by the machine's clock.
    pub(super) occupied_since: Option<Time>,
    /// The snapshot that was saved last, if nothing has happened to its file since.
    pub(super) saved: Option<LogId>,
    /// A name could not be changed: what was to be removed may be there still.
    pub(super) names_failed: bool,
    /// Snapshots that could not be saved.
    pub(super) saves_failed: u64,
    /// Whether a look at the idle storage is planned.
    pub(super) idle_planned: bool,
    /// The disk has no room.
    pub(super) disk_full: bool,
    /// The log has none at all: writes wait for it.
    pub(super) log_full: bool,
    /// How often in a row it had time to look at a disk that had room.
    pub(super) idle_with_room: u32,
    /// Which levels each member spoke when it connected last.
    pub(super) met: BTreeMap<NodeId, FeatureLevels>,
    /// How much of its log has been looked at for levels, and of which term.
    pub(super) looked_at: (Term, LogIndex),
    /// Whether the replica had withdrawn when it was last settled.
    pub(super) is_withdrawn: bool,
    /// When the replica wants to be woken.
    pub(super) wake_at: Option<u64>,
    /// The next alarm that is planned: not after `wake_at`.
    pub(super) alarm: Option<u64>,
    /// Whether what it has to do after events is planned to be carried out.
    pub(super) settle_planned: bool,
    /// Events of the storage that the replica was not given yet.
    pub(super) receipts: VecDeque<StorageEvent>,
    /// Where each request comes from.
    pub(super) askers: BTreeMap<RequestId, Asker>,
    /// The writes among `askers`.
    pub(super) writes_waiting: BTreeSet<RequestId>,
    /// Of those, what was asked when it knew that it was removed.
    pub(super) asked_in_vain: BTreeSet<RequestId>,
    /// The term in which it led last, and how much of its log has been looked at for the ends of
    /// leases.
    pub(super) proposed: Option<(Term, LogIndex)>,
    /// What the checks have seen of the replica.
    pub(super) shown: Observed,
    /// Where its last snapshot ends, own or installed, and whether it may want another before the
    /// log has grown.
    pub(super) last_snapshot: (LogIndex, bool),
}

/// Why a process did not start.
pub(super) enum StartError {
    /// The disk's content is refused.
    Refused(String),
    /// The release is older than the disk's content.
    TooOld(String),
    /// What was recovered is not what was acknowledged.
    Violation(Violation),
}

impl ReplicaHost {
    /// A machine that is off.
    #[must_use]
    pub(super) fn new(hardware: Machine) -> Self {
        Self {
            hardware,
            process: None,
            identity: None,
            under_way: Vec::new(),
            inbox: VecDeque::new(),
            has_older: false,
        }
    }

    /// Its name, as `--node-id` would have it.
    #[must_use]
    pub(super) fn name(&self) -> String {
        format!("node{}", self.slot)
    }

    /// How it is described in the membership.
    #[must_use]
    pub(super) fn member(&self, store_id: StoreId) -> Member {
        let (raft_addr, http_addr) = (format!("m{}:8000", self.slot), format!("m{}:8001", self.slot));
        Member { name: self.name(), raft_addr, http_addr, store_id }
    }

    /// Its clock's time.
    #[must_use]
    pub(super) fn time(&self, now: u64) -> Time {
        self.clock.read(now)
    }

    /// Starts a process on what the disk holds, or on `bootstrap` if it is empty.
    ///
    /// # Errors
    /// [`StartError`].
    pub(super) fn start(
        &mut self,
        now: u64,
        settings: &Settings,
        seed: u64,
        bootstrap: Bootstrap,
        marks: &mut Marks,
    ) -> Result<(), StartError> {
        self.starts();
        let mut options = StorageOptions::new("/data");
        options.segment_bytes = settings.segment_bytes;
        options.spare_mode = SpareMode::Inline;
        options.clock = StorageClock::still();
        options.seed = seed;
        options.promised_micros = replica_config(settings).raft.promise_micros();
        options.speaks = self.speaks;
        if settings.torn_files_max > 0 {
            options.torn_files_max = settings.torn_files_max;
        }
        let (storage, opened) =
            Storage::open(self.disk.clone(), options, &bootstrap).map_err(|error| match error {
                OpenError::NewerFormat { .. } if self.speaks == FeatureLevels::OF_THE_OLDEST => {
                    StartError::TooOld(error.to_string())
                }
                error => StartError::Refused(error.to_string()),
            })?;
        mark_recovery(&opened.notes, marks);
        let under_way = std::mem::take(&mut self.under_way);
        if self.rotten {
            self.durable.reopened();
        }
        if self.durable == DurableModel::default() {
            self.durable = DurableModel::of(&opened.restored);
        } else {
            self.durable = self.durable.check_recovery(&under_way, &opened.restored).map_err(|what| {
                StartError::Violation(Violation {
                    check: "acknowledged is recovered",
                    what: format!("{}: {what}", self.name()),
                })
            })?;
        }
        self.opened();
        self.has_older = false;
        let snapshots = storage.snapshot_files();
        let start = ReplicaStart {
            id: opened.identity.member,
            incarnation: opened.incarnation,
            seed,
            restored: opened.restored,
            store: opened.store,
        };
        let config = ReplicaConfig { speaks: self.speaks, ..small_config(settings) };
        let replica = Replica::new(config, start, self.time(now))
            .map_err(|error| StartError::Refused(error.to_string()))?;
        let applied = replica.last_applied().index;
        self.process = Some(Process {
            replica,
            storage,
            snapshots,
            queue: Vec::new(),
            batch: Vec::new(),
            unanswered: VecDeque::new(),
            busy: false,
            busy_since: Time::new(0),
            occupied_since: None,
            saved: None,
            names_failed: false,
            idle_planned: false,
            disk_full: false,
            log_full: false,
            wake_at: None,
            alarm: None,
            settle_planned: false,
            receipts: VecDeque::new(),
            askers: BTreeMap::new(),
            writes_waiting: BTreeSet::new(),
            asked_in_vain: BTreeSet::new(),
            met: BTreeMap::new(),
            looked_at: (Term::ZERO, LogIndex::ZERO),
            is_withdrawn: false,
            idle_with_room: 0,
            saves_failed: 0,
            proposed: None,
            shown: Observed::at_start(applied),
            last_snapshot: (applied, false),
        });
        Ok(())
    }

    /// The process ends here and now.
    pub(super) fn stop(&mut self) -> Option<Process> {
        self.life += 1;
        self.inbox.clear();
        self.paused_until = 0;
        let process = self.process.take();
        self.under_way.iter_mut().for_each(|write| write.settle_snapshot(&self.hardware.disk));
        self.disk.process_died();
        process
    }
}

impl Process {
    /// What the writes do that the storage has not answered, those of the batch under way among
    /// them.
    #[must_use]
    pub(super) fn sketches(&self) -> Vec<WriteSketch> {
        let before = self.unanswered.iter().map(|(_, sketch)| sketch.clone());
        before.chain(self.batch_sketches().map(|(_, sketch)| sketch)).collect()
    }

    fn batch_sketches(&self) -> impl Iterator<Item = (u64, WriteSketch)> + '_ {
        self.batch.iter().filter_map(|request| match request {
            StorageRequest::Write(write) => Some((write.sequence().get(), WriteSketch::of(write.records()))),
            _ => None,
        })
    }

    /// Whether it has room, as its storage has told it.
    pub(super) fn note_room(&mut self, event: &StorageEvent) {
        match event {
            StorageEvent::DiskFull(full) => self.disk_full = *full,
            StorageEvent::LogFull(full) => self.log_full = *full,
            _ => {}
        }
    }

    /// The writes that the storage has answered with these events, in order.
    pub(super) fn answered(&mut self, events: &[StorageEvent]) -> Vec<WriteSketch> {
        let mut answered = Vec::new();
        for event in events {
            let StorageEvent::Durable { receipt, refused, .. } = event else { continue };
            let through = receipt.sequence().get();
            while self.unanswered.front().is_some_and(|(sequence, _)| *sequence <= through) {
                let Some((_, mut sketch)) = self.unanswered.pop_front() else { break };
                if refused.as_ref().is_some_and(|refused| sketch.snapshot() == Some(refused.last)) {
                    sketch.without_snapshot();
                }
                answered.push(sketch);
            }
        }
        answered
    }

    /// Whether something waits that has to be written at once.
    #[must_use]
    pub(super) fn has_writes(&self) -> bool {
        self.queue.iter().any(|request| matches!(request, StorageRequest::Write(_)))
    }

    /// Nothing has been written for a while.
    ///
    /// # Errors
    /// The storage's error: the process has to end.
    pub(super) fn idle(&mut self) -> Result<Vec<StorageEvent>, String> {
        let mut events = Vec::new();
        // What is worth no sync of its own. Without requests a storage is not asked for any.
        if !self.queue.is_empty() {
            self.storage.handle(&mut self.queue, &mut events).map_err(|error| error.to_string())?;
        }
        self.storage.idle(&mut events).map_err(|error| error.to_string())?;
        Ok(events)
    }

    /// It was told to stop, and has nothing to write but what is committed.
    ///
    /// # Errors
    /// The storage's error.
    pub(super) fn close(mut self) -> Result<(), String> {
        self.storage.handle(&mut self.queue, &mut Vec::new()).map_err(|error| error.to_string())?;
        self.storage.close().map_err(|error| error.to_string())
    }

    /// Writes the batch under way, and makes it durable.
    ///
    /// # Errors
    /// The storage's error: the process has to end.
    pub(super) fn write_batch(&mut self) -> Result<Vec<StorageEvent>, String> {
        let mut events = Vec::new();
        let given: Vec<_> = self.batch_sketches().collect();
        self.unanswered.extend(given);
        let mut batch = std::mem::take(&mut self.batch);
        self.storage.handle(&mut batch, &mut events).map_err(|error| error.to_string())?;
        Ok(events)
    }
}

/// The cluster of every run.
#[must_use]
pub(super) fn cluster_id() -> ClusterId {
    ClusterId(0x1234_5678)
}

/// The limits of a schedule, with those that only this engine makes small.
fn small_config(settings: &Settings) -> ReplicaConfig {
    let mut config = replica_config(settings);
    if settings.apply_entries_max > 0 {
        config.raft.apply_entries_max = settings.apply_entries_max;
    }
    if settings.apply_bytes_max > 0 {
        config.raft.apply_bytes_max = settings.apply_bytes_max;
    }
    if settings.log_tail_bytes > 0 {
        config.raft.log_tail_bytes = settings.log_tail_bytes;
    }
    if settings.log_bytes_max > 0 {
        config.raft.log_bytes_max = settings.log_bytes_max;
        config.raft.laggard_log_bytes_max = LAGGARD_TIMES * settings.log_bytes_max;
    }
    if settings.pending_write_bytes_max > 0 {
        config.pending_write_bytes_max = settings.pending_write_bytes_max;
    }
    config
}
