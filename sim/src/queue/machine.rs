//! One machine: a disk that outlives processes, and at times a process: replica and storage.

use crate::checks::Violation;
use crate::clock::Clock;
use crate::disk::SimDisk;
use crate::durable::{DurableModel, WriteSketch};
use crate::marks::Marks;
use crate::paths::{Shown, mark_recovery};
use crate::schedule::{PROMOTE_LAG_ENTRIES, STALL_MICROS, Settings};
use infinitystore::raft::{ClusterId, Config, LogId, LogIndex, Member, NodeId, StoreId, Time};
use infinitystore::replica::{
    Event, Replica, ReplicaConfig, ReplicaStart, RequestId, StorageEvent, StorageRequest,
};
use infinitystore::storage::{Bootstrap, SnapshotFiles, SpareMode, Storage, StorageClock, StorageOptions};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The identity that a machine's disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) struct Identity {
    /// Member id.
    pub(in crate::queue) id: NodeId,
    /// Store id.
    pub(in crate::queue) store: StoreId,
}

/// For a member that catches up, a leader keeps this many times as much of its log in memory.
pub(in crate::queue) const LAGGARD_TIMES: u64 = 3;

/// Where a request that a process holds comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) enum Asker {
    /// A client of the schedule.
    Client(usize),
    /// The operator, which does not wait for the answer.
    Operator,
    /// The probe of the last phase.
    Probe,
}

/// A machine.
pub(in crate::queue) struct Machine {
    /// Its number.
    pub(in crate::queue) slot: usize,
    /// Its disk.
    pub(in crate::queue) disk: SimDisk,
    /// Its clock.
    pub(in crate::queue) clock: Clock,
    /// Its process, while one runs.
    pub(in crate::queue) process: Option<Process>,
    /// Counts processes: what was meant for an earlier one is dropped.
    pub(in crate::queue) life: u32,
    /// Its identity; `None` before it is a member of the cluster.
    pub(in crate::queue) identity: Option<Identity>,
    /// What its disk has to hold.
    pub(in crate::queue) durable: DurableModel,
    /// The writes of the batch that was being written when the process ended.
    pub(in crate::queue) under_way: Vec<WriteSketch>,
    /// It stands still until then.
    pub(in crate::queue) paused_until: u64,
    /// What came meanwhile.
    pub(in crate::queue) inbox: Vec<Event>,
    /// How much longer its disk takes, and until when.
    pub(in crate::queue) slow_disk: (u64, u64),
    /// A bit was flipped since it was last started: it may refuse to start.
    pub(in crate::queue) rotten: bool,
    /// That bit is in the newest of two snapshots: it has to start all the same.
    pub(in crate::queue) has_older: bool,
}

/// A running process.
pub(in crate::queue) struct Process {
    /// The replica.
    pub(in crate::queue) replica: Replica,
    /// Its storage.
    pub(in crate::queue) storage: Storage<SimDisk>,
    /// Its snapshot files.
    pub(in crate::queue) snapshots: SnapshotFiles<SimDisk>,
    /// What waits for the storage.
    pub(in crate::queue) queue: Vec<StorageRequest>,
    /// The batch that is being written.
    pub(in crate::queue) batch: Vec<StorageRequest>,
    /// Whether a batch is being written; when it is done, `queue` follows.
    pub(in crate::queue) busy: bool,
    /// Since when, by the machine's clock.
    pub(in crate::queue) busy_since: Time,
    /// The snapshot that was saved last, if nothing has happened to its file since.
    pub(in crate::queue) saved: Option<LogId>,
    /// A name could not be changed: what was to be removed may be there still.
    pub(in crate::queue) names_failed: bool,
    /// Snapshots that could not be saved.
    pub(in crate::queue) saves_failed: u64,
    /// Whether a look at the idle storage is planned.
    pub(in crate::queue) idle_planned: bool,
    /// The disk has no room.
    pub(in crate::queue) disk_full: bool,
    /// When the replica wants to be woken.
    pub(in crate::queue) wake_at: Option<u64>,
    /// The next alarm that is planned: not after `wake_at`.
    pub(in crate::queue) alarm: Option<u64>,
    /// Whether what it has to do after events is planned to be carried out.
    pub(in crate::queue) settle_planned: bool,
    /// Events of the storage that the replica was not given yet.
    pub(in crate::queue) receipts: VecDeque<StorageEvent>,
    /// Where each request comes from.
    pub(in crate::queue) askers: BTreeMap<RequestId, Asker>,
    /// Of those, what was asked when it knew that it was removed.
    pub(in crate::queue) asked_in_vain: BTreeSet<RequestId>,
    /// What the checks have seen of the replica.
    pub(in crate::queue) shown: Shown,
    /// Where its last snapshot ends, own or installed, and whether it may want another before the
    /// log has grown.
    pub(in crate::queue) last_snapshot: (LogIndex, bool),
}

/// Why a process did not start.
pub(in crate::queue) enum StartError {
    /// The disk's content is refused.
    Refused(String),
    /// What was recovered is not what was acknowledged.
    Violation(Violation),
}

impl Machine {
    /// A machine that is off.
    #[must_use]
    pub(in crate::queue) fn new(slot: usize, clock: Clock) -> Self {
        Self {
            slot,
            disk: SimDisk::default(),
            clock,
            process: None,
            life: 0,
            identity: None,
            durable: DurableModel::default(),
            under_way: Vec::new(),
            paused_until: 0,
            inbox: Vec::new(),
            slow_disk: (0, 0),
            rotten: false,
            has_older: false,
        }
    }

    /// Its name, as `--node-id` would have it.
    #[must_use]
    pub(in crate::queue) fn name(&self) -> String {
        format!("node{}", self.slot)
    }

    /// How it is described in the membership.
    #[must_use]
    pub(in crate::queue) fn member(&self, store_id: StoreId) -> Member {
        let (raft_addr, http_addr) = (format!("m{}:8000", self.slot), format!("m{}:8001", self.slot));
        Member { name: self.name(), raft_addr, http_addr, store_id }
    }

    /// Its clock's time.
    #[must_use]
    pub(in crate::queue) fn time(&self, now: u64) -> Time {
        self.clock.read(now)
    }

    /// Starts a process on what the disk holds, or on `bootstrap` if it is empty.
    ///
    /// # Errors
    /// [`StartError`].
    pub(in crate::queue) fn start(
        &mut self,
        now: u64,
        settings: &Settings,
        seed: u64,
        bootstrap: Bootstrap,
        marks: &mut Marks,
    ) -> Result<(), StartError> {
        self.life += 1;
        let mut options = StorageOptions::new("/data");
        options.segment_bytes = settings.segment_bytes;
        options.spare_mode = SpareMode::Inline;
        options.clock = StorageClock::still();
        options.seed = seed;
        if settings.torn_files_max > 0 {
            options.torn_files_max = settings.torn_files_max;
        }
        let (storage, opened) = Storage::open(self.disk.clone(), options, &bootstrap)
            .map_err(|error| StartError::Refused(error.to_string()))?;
        mark_recovery(&opened.notes, marks);
        let under_way = std::mem::take(&mut self.under_way);
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
        (self.rotten, self.has_older) = (false, false);
        let snapshots = storage.snapshot_files();
        let start = ReplicaStart {
            id: opened.identity.member,
            incarnation: opened.incarnation,
            seed,
            restored: opened.restored,
            store: opened.store,
        };
        let replica = Replica::new(small_config(settings), start, self.time(now))
            .map_err(|error| StartError::Refused(error.to_string()))?;
        let applied = replica.last_applied().index;
        self.process = Some(Process {
            replica,
            storage,
            snapshots,
            queue: Vec::new(),
            batch: Vec::new(),
            busy: false,
            busy_since: Time::new(0),
            saved: None,
            names_failed: false,
            idle_planned: false,
            disk_full: false,
            wake_at: None,
            alarm: None,
            settle_planned: false,
            receipts: VecDeque::new(),
            askers: BTreeMap::new(),
            asked_in_vain: BTreeSet::new(),
            saves_failed: 0,
            shown: Shown::at_start(applied),
            last_snapshot: (applied, false),
        });
        Ok(())
    }

    /// The process ends here and now.
    pub(in crate::queue) fn stop(&mut self) -> Option<Process> {
        self.life += 1;
        self.inbox.clear();
        self.paused_until = 0;
        let process = self.process.take();
        self.under_way.iter_mut().for_each(|write| write.settle_snapshot(&self.disk));
        self.disk.process_died();
        process
    }
}

impl Process {
    /// What the batch under way does.
    #[must_use]
    pub(in crate::queue) fn sketches(&self) -> Vec<WriteSketch> {
        let writes = self.batch.iter().filter_map(|request| match request {
            StorageRequest::Write(write) => Some(WriteSketch::of(write.records())),
            _ => None,
        });
        writes.collect()
    }

    /// Whether something waits that has to be written at once.
    #[must_use]
    pub(in crate::queue) fn has_writes(&self) -> bool {
        self.queue.iter().any(|request| matches!(request, StorageRequest::Write(_)))
    }

    /// Nothing has been written for a while.
    ///
    /// # Errors
    /// The storage's error: the process has to end.
    pub(in crate::queue) fn idle(&mut self) -> Result<Vec<StorageEvent>, String> {
        let mut events = Vec::new();
        // What is worth no sync of its own.
        self.storage.handle(&mut self.queue, &mut events).map_err(|error| error.to_string())?;
        self.storage.idle(&mut events).map_err(|error| error.to_string())?;
        Ok(events)
    }

    /// Writes the batch under way, and makes it durable.
    ///
    /// # Errors
    /// The storage's error: the process has to end.
    pub(in crate::queue) fn write_batch(&mut self) -> Result<Vec<StorageEvent>, String> {
        let mut events = Vec::new();
        let mut batch = std::mem::take(&mut self.batch);
        self.storage.handle(&mut batch, &mut events).map_err(|error| error.to_string())?;
        Ok(events)
    }
}

/// The cluster of every run.
#[must_use]
pub(in crate::queue) fn cluster_id() -> ClusterId {
    ClusterId(0x1234_5678)
}

/// The limits of a schedule.
#[must_use]
pub(crate) fn replica_config(settings: &Settings) -> ReplicaConfig {
    let default = Config::default();
    let uncommitted_bytes_max = match settings.uncommitted_bytes_max {
        0 => default.uncommitted_bytes_max,
        few => few,
    };
    ReplicaConfig {
        raft: Config {
            heartbeat_interval_micros: settings.heartbeat_interval_micros,
            election_timeout_micros: settings.election_timeout_micros,
            inflight_messages_max: settings.inflight_messages_max,
            append_bytes_max: settings.append_bytes_max,
            snapshot_chunk_bytes: settings.snapshot_chunk_bytes,
            log_tail_entries: settings.log_tail_entries,
            promote_lag_entries: PROMOTE_LAG_ENTRIES,
            uncommitted_bytes_max,
            disk_stall_micros: STALL_MICROS,
            ..default
        },
        snapshot_log_entries: settings.snapshot_log_entries,
        ..ReplicaConfig::default()
    }
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
