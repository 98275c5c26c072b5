//! A workload with a model beside it: what has been acknowledged, and so must be there after
//! whatever happens.

use crate::kv::Store;
use crate::raft::{Entry, HardState, LogId, LogIndex, LogRecords, NodeId, Restored, SnapshotMeta, StoreId};
use crate::replica::{StorageEvent, StorageRequest};
use crate::storage::tests::kit::{
    bootstrap, entry, incoming, marker, options, save_request, store, vote, write, write_request,
};
use crate::storage::{MemoryDisk, OpenError, Opened, Storage, StorageError};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

/// The state that a start has to find.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) hard_state: HardState,
    pub(super) entries: BTreeMap<u64, Entry>,
    pub(super) snapshot: Option<(LogId, u128)>,
    pub(super) store_id: u128,
}

impl Model {
    pub(super) fn fresh() -> Self {
        let Restored { hard_state, entries, .. } = bootstrap().initial;
        let entries = entries.into_iter().map(|entry| (entry.index().get(), entry)).collect();
        Self { hard_state, entries, snapshot: None, store_id: 11 }
    }

    pub(super) fn last_index(&self) -> u64 {
        let covered = self.snapshot.map_or(0, |(last, _)| last.index.get());
        self.entries.last_key_value().map_or(covered, |(index, _)| covered.max(*index))
    }

    fn apply(&mut self, records: &LogRecords, state_hash: Option<u128>) {
        if let Some(hard_state) = records.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(from) = records.truncate_from {
            self.entries.retain(|index, _| *index < from.get());
        }
        if let (Some(meta), Some(hash)) = (&records.snapshot, state_hash) {
            self.snapshot = Some((meta.last, hash));
        }
        for entry in &records.entries {
            self.entries.insert(entry.index().get(), entry.clone());
        }
    }

    /// Whether a start found exactly this. Entries that the snapshot covers may be gone, but not be
    /// different.
    pub(super) fn check(&self, opened: &Opened) -> Result<(), String> {
        let restored = &opened.restored;
        let found = restored.snapshot.as_ref().map(|meta| (meta.last, opened.store.state_hash()));
        if opened.identity.store != StoreId(self.store_id) {
            return Err(format!("store {} instead of {}", opened.identity.store, self.store_id));
        }
        if found != self.snapshot {
            return Err(format!("snapshot {found:?} instead of {:?}", self.snapshot));
        }
        if restored.hard_state != self.hard_state {
            return Err(format!("{:?} instead of {:?}", restored.hard_state, self.hard_state));
        }
        let covered = self.snapshot.map_or(0, |(last, _)| last.index.get());
        if restored.entries.first().is_some_and(|first| first.index().get() > covered + 1) {
            return Err(format!(
                "the log starts at {:?}, the snapshot ends at {covered}",
                restored.entries.first()
            ));
        }
        for entry in &restored.entries {
            if self.entries.get(&entry.index().get()) != Some(entry) {
                return Err(format!("{entry:?} was never acknowledged, or is void"));
            }
        }
        let last = restored.entries.last().map_or(covered, |entry| entry.index().get());
        if last != self.last_index() {
            return Err(format!("the log ends at {last} instead of {}", self.last_index()));
        }
        Ok(())
    }
}

/// A node whose disk loses power, again and again.
pub(super) struct Workload {
    pub(super) disk: MemoryDisk,
    rng: SmallRng,
    storage: Option<Storage<MemoryDisk>>,
    acknowledged: Model,
    /// What the step under way would make of it.
    attempted: Model,
    /// A call with many writes may make several batches: what is there when only the first ones are
    /// durable.
    between: Vec<Model>,
    log: Vec<String>,
    adoptions: u64,
}

impl Workload {
    pub(super) fn new(seed: u64) -> Self {
        let rng = SmallRng::seed_from_u64(seed);
        let acknowledged = Model::fresh();
        let attempted = acknowledged.clone();
        Self {
            disk: MemoryDisk::new(),
            rng,
            storage: None,
            acknowledged,
            attempted,
            between: Vec::new(),
            log: Vec::new(),
            adoptions: 0,
        }
    }

    /// Some steps, a loss of power somewhere in them or in the starts after it, a start that finds
    /// it all.
    pub(super) fn round(&mut self, steps: u64) {
        let power = self.rng.random_range(0..60 * steps);
        self.disk.fail_power_after(power);
        for _ in 0..steps {
            if !self.step() {
                break;
            }
        }
        self.storage = None;
        for _ in 0..self.rng.random_range(0..3) {
            self.lose_power();
            let power = self.rng.random_range(0..60);
            self.disk.fail_power_after(power);
            // Whether it gets through or not: the next one has to find the same.
            let _ = self.open();
            self.storage = None;
        }
        self.lose_power();
        if let Err(error) = self.open() {
            panic!("{error}\nafter {:#?}\nwith {:?}", self.log, self.disk.files());
        }
    }

    fn lose_power(&mut self) {
        let mode = self.rng.random_range(0..4);
        self.log.push(format!("power lost, mode {mode}"));
        let rng = &mut self.rng;
        match mode {
            0 => self.disk.kill(),
            1 => self.disk.crash(|_| false),
            2 => self.disk.crash(|_| rng.random_bool(0.8)),
            _ => self.disk.crash(|_| rng.random_bool(0.5)),
        }
    }

    fn open(&mut self) -> Result<(), OpenError> {
        let (storage, opened) = Storage::open(self.disk.clone(), options(), &bootstrap())?;
        if let Some(found) = self.between.drain(..).find(|model| model.check(&opened).is_ok()) {
            self.attempted = found;
        }
        let as_acknowledged = self.acknowledged.check(&opened);
        let as_attempted = self.attempted.check(&opened);
        match (as_acknowledged, as_attempted) {
            (_, Ok(())) => self.acknowledged = self.attempted.clone(),
            (Ok(()), _) => self.attempted = self.acknowledged.clone(),
            (Err(one), Err(other)) => {
                panic!(
                    "neither what was acknowledged ({one}) nor what was tried ({other}), after {:#?}",
                    self.log
                )
            }
        }
        self.storage = Some(storage);
        Ok(())
    }

    /// Carries one step out. `false` when the power has failed.
    fn step(&mut self) -> bool {
        if self.storage.is_none() && self.open().is_err() {
            return false;
        }
        let choice = self.rng.random_range(0..20);
        self.log.push(format!("step {choice} at {}", self.disk.changes()));
        let done = match choice {
            0..10 => self.append(),
            10..12 => self.overwrite(),
            12 => self.vote(),
            13..15 => self.save(),
            15 => self.install(),
            16..18 => self.idle(),
            18 => self.adopt(),
            _ => {
                self.storage = None;
                return true;
            }
        };
        if done {
            self.between.clear();
            self.acknowledged = self.attempted.clone();
        }
        done
    }

    fn storage(&mut self) -> &mut Storage<MemoryDisk> {
        self.storage.as_mut().expect("the step opened it")
    }

    /// Writes a batch; what it asks for is attempted from now on.
    fn write(&mut self, writes: Vec<LogRecords>) -> bool {
        for records in &writes {
            self.attempted.apply(records, None);
            self.between.push(self.attempted.clone());
        }
        write(self.storage(), writes).is_ok()
    }

    fn entries(&mut self, from: u64, count: u64, term: u64) -> LogRecords {
        let bytes = match self.rng.random_range(0..10) {
            0 => 5000,
            1..4 => 1500,
            _ => 40,
        };
        let entries = (from..from + count).map(|index| entry(index, term, bytes)).collect();
        LogRecords { entries, ..LogRecords::default() }
    }

    fn append(&mut self) -> bool {
        let mut writes = Vec::new();
        let mut from = self.attempted.last_index() + 1;
        for _ in 0..self.rng.random_range(1..4) {
            let count = self.rng.random_range(1..8);
            let term = self.attempted.hard_state.term.get().max(1);
            writes.push(self.entries(from, count, term));
            from += count;
        }
        self.write(writes)
    }

    fn overwrite(&mut self) -> bool {
        let floor = self.attempted.snapshot.map_or(1, |(last, _)| last.index.get());
        let last = self.attempted.last_index();
        if last <= floor {
            return self.append();
        }
        let from = self.rng.random_range(floor + 1..=last);
        let term = self.attempted.hard_state.term.get() + 1;
        let mut records = self.entries(from, 2, term);
        records.truncate_from = Some(LogIndex::new(from));
        records.hard_state = Some(vote(term, None));
        self.write(vec![records])
    }

    fn vote(&mut self) -> bool {
        let hard_state = vote(self.attempted.hard_state.term.get() + 1, Some(1));
        self.write(vec![LogRecords { hard_state: Some(hard_state), ..LogRecords::default() }])
    }

    fn content(&mut self) -> Store {
        let keys = self.rng.random_range(0..40);
        store(keys)
    }

    fn save(&mut self) -> bool {
        let index = self.attempted.last_index();
        let covered = self.attempted.snapshot.map_or(0, |(last, _)| last.index.get());
        let Some(entry) = self.attempted.entries.get(&index) else { return true };
        if index <= covered {
            return true;
        }
        let (term, state) = (entry.term().get(), self.content());
        let mut events = Vec::new();
        let save = StorageRequest::SaveSnapshot(Box::new(save_request(index, term, &state)));
        if self.storage().handle(&mut vec![save], &mut events).is_err() {
            return false;
        }
        let Some(meta) = events.into_iter().find_map(|event| match event {
            StorageEvent::SnapshotSaved(meta) => Some(*meta),
            _ => None,
        }) else {
            return false;
        };
        self.attempted.apply(&marker(&meta), Some(state.state_hash()));
        write(self.storage(), vec![marker(&meta)]).is_ok()
    }

    fn install(&mut self) -> bool {
        let index = self.attempted.last_index() + self.rng.random_range(1..20);
        let (term, state) = (self.attempted.hard_state.term.get().max(1), self.content());
        let (meta, mut chunks) = incoming(index, term, &state, 5000);
        if let Some(last) = chunks.last_mut() {
            last.truncate_from = Some(LogIndex::new(1));
        }
        let count = chunks.len();
        for (number, records) in chunks.into_iter().enumerate() {
            if number + 1 == count {
                self.attempted.apply(&records, Some(state.state_hash()));
                self.attempted.entries.clear();
            }
            let mut events = Vec::new();
            let result: Result<(), StorageError> =
                self.storage().handle(&mut vec![write_request(records)], &mut events);
            if result.is_err() {
                return false;
            }
            if refused(&events, &meta) {
                // The power failed while the file was written: nothing of it counts.
                self.attempted = self.acknowledged.clone();
                return false;
            }
        }
        true
    }

    fn idle(&mut self) -> bool {
        self.storage().idle(&mut Vec::new()).is_ok()
    }

    fn adopt(&mut self) -> bool {
        if self.rng.random_bool(0.7) {
            return true;
        }
        self.adoptions += 1;
        let store_id = 100 + self.adoptions;
        self.attempted = Model { store_id: u128::from(store_id), ..Model::default() };
        let storage = self.storage.take().expect("the step opened it");
        match storage.adopt(crate::raft::ClusterId(9), NodeId::new(4), StoreId(u128::from(store_id))) {
            Ok((storage, opened)) => {
                self.attempted.check(&opened).expect("an absorbed node starts empty");
                self.storage = Some(storage);
                true
            }
            Err(_) => false,
        }
    }
}

fn refused(events: &[StorageEvent], meta: &SnapshotMeta) -> bool {
    events
        .iter()
        .any(|event| matches!(event, StorageEvent::Durable { refused: Some(refused), .. } if refused.last == meta.last))
}
