//! The log on the real disk, beside what the disk itself can do.
//!
//! Each size of batch is measured twice: through the storage (encode, checksum, stamp, write, sync,
//! receipt), and as a bare write and sync of as many bytes over a zero-filled file. The first line
//! of each pair over the second is what the log costs; the log's includes the zeros that a thread
//! writes ahead for segments that nothing recycles here. Criterion's files go below `target/`, the
//! log to a temporary directory (`TMPDIR`): a RAM disk there measures no disk.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use infinitystore::raft::{
    ClusterId, Config, Entry, Incarnation, Input, Member, NodeId, Raft, Setup, StoreId, Time, bootstrap_log,
};
use infinitystore::replica::{StorageEvent, StorageRequest};
use infinitystore::storage::{Bootstrap, Disk, DiskFile, RealDisk, Storage, StorageOptions};
use std::path::Path;
use std::time::{Duration, Instant};

const DATA_BYTES: usize = 256;
const BATCHES: [u32; 4] = [1, 16, 64, 256];
const BLOCK_BYTES: usize = 4096;
/// A bare file wraps around at the length of a segment, as recycled segments do.
const FILE_BYTES: usize = 64 << 20;
const RECOVERED_ENTRIES: u32 = 200_000;

fn member() -> Member {
    Member {
        name: "bench".into(),
        raft_addr: "localhost:0".into(),
        http_addr: ":0".into(),
        store_id: StoreId(1),
    }
}

/// A cluster of one: the core makes the writes, the storage carries them out.
struct Node {
    raft: Raft,
    storage: Storage<RealDisk>,
    requests: Vec<StorageRequest>,
    events: Vec<StorageEvent>,
}

impl Node {
    fn start(dir: &Path) -> Self {
        let bootstrap = Bootstrap {
            name: "bench".into(),
            cluster: ClusterId(1),
            member: NodeId::new(1),
            store: StoreId(1),
            initial: bootstrap_log([member()]).expect("one sound member"),
        };
        let options = StorageOptions::new(dir);
        let (storage, opened) = Storage::open(RealDisk, options, &bootstrap).expect("the directory opens");
        let config = Config { disk_stall_micros: u64::MAX, ..Config::default() };
        let (id, time) = (NodeId::new(1), Time::new(0));
        let raft = Raft::new(Setup {
            id,
            incarnation: opened.incarnation,
            seed: 1,
            config,
            restored: opened.restored,
            now: time,
        })
        .expect("the log is good");
        let mut node = Self { raft, storage, requests: Vec::new(), events: Vec::new() };
        // It elects itself.
        while !node.settle() {
            let wake = Time::new(10_000_000);
            node.raft.step(wake, Input::Wake).expect("a wake is always taken");
        }
        while node.settle() {}
        node
    }

    /// Carries out what the core wants, once; whether there was anything to write.
    fn settle(&mut self) -> bool {
        let output = self.raft.take_output();
        let now = Time::new(10_000_000);
        if let Some(last) = output.committed.last().map(Entry::index) {
            self.raft.step(now, Input::Applied(last)).expect("taken");
        }
        let Some(write) = output.write else { return false };
        self.requests.push(StorageRequest::Write(write));
        self.storage.handle(&mut self.requests, &mut self.events).expect("the disk works");
        for event in self.events.drain(..) {
            if let StorageEvent::Durable { receipt, .. } = event {
                self.raft.step(now, Input::Durable(receipt)).expect("taken");
            }
        }
        true
    }

    /// One batch: the time from the core's write to its receipt.
    fn append(&mut self, batch: u32, data: &bytes::Bytes) -> Duration {
        for _ in 0..batch {
            self.raft.propose(Time::new(10_000_000), data).expect("it leads");
        }
        let output = self.raft.take_output();
        let write = output.write.expect("something was proposed");
        self.requests.push(StorageRequest::Write(write));
        let started = Instant::now();
        self.storage.handle(&mut self.requests, &mut self.events).expect("the disk works");
        let elapsed = started.elapsed();
        let now = Time::new(10_000_000);
        for event in self.events.drain(..) {
            if let StorageEvent::Durable { receipt, .. } = event {
                self.raft.step(now, Input::Durable(receipt)).expect("taken");
            }
        }
        let committed = self.raft.take_output().committed;
        if let Some(last) = committed.last().map(Entry::index) {
            self.raft.step(now, Input::Applied(last)).expect("taken");
        }
        elapsed
    }
}

fn append(c: &mut Criterion) {
    let data = bytes::Bytes::from(vec![7; DATA_BYTES]);
    let mut group = c.benchmark_group("append and sync");
    let mut ratios = Vec::new();
    for batch in BATCHES {
        group.throughput(Throughput::Elements(u64::from(batch)));
        let (mut ours, mut bare) = ((Duration::ZERO, 0), (Duration::ZERO, 0));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut node = Node::start(dir.path());
        group.bench_function(BenchmarkId::new("log", batch), |b| {
            b.iter_custom(|count| {
                let elapsed = (0..count).map(|_| node.append(batch, &data)).sum();
                ours = (ours.0 + elapsed, ours.1 + count);
                elapsed
            });
        });
        let file = RealDisk.create(&dir.path().join("bare")).expect("a file");
        file.write_at(&vec![0; FILE_BYTES], 0).and_then(|()| file.sync_data()).expect("it fills");
        // Entry, its header and the record's, in whole blocks.
        let length = (batch as usize * (DATA_BYTES + 34)).next_multiple_of(BLOCK_BYTES);
        let bytes = vec![7; length];
        let mut offset = 0;
        group.bench_function(BenchmarkId::new("bare write", batch), |b| {
            b.iter_custom(|count| {
                let started = Instant::now();
                for _ in 0..count {
                    file.write_at(&bytes, offset).and_then(|()| file.sync_data()).expect("the disk works");
                    offset = (offset + length as u64) % (FILE_BYTES - length) as u64;
                    offset -= offset % BLOCK_BYTES as u64;
                }
                let elapsed = started.elapsed();
                bare = (bare.0 + elapsed, bare.1 + count);
                elapsed
            });
        });
        let mean = |(time, count): (Duration, u64)| time.as_secs_f64() / count.max(1) as f64;
        ratios.push((batch, mean(ours), mean(bare)));
    }
    group.finish();
    println!("\nentries of {DATA_BYTES} bytes, means over the whole run:");
    for (batch, ours, bare) in ratios {
        let rate = |seconds: f64| f64::from(batch) / seconds / 1000.0;
        println!(
            "batch {batch:>3}: log {:7.1} k/s, bare write {:7.1} k/s, the log at {:.2} of the disk",
            rate(ours),
            rate(bare),
            bare / ours
        );
    }
}

fn recover(c: &mut Criterion) {
    let data = bytes::Bytes::from(vec![7; DATA_BYTES]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut node = Node::start(dir.path());
    for _ in 0..RECOVERED_ENTRIES / 256 {
        node.append(256, &data);
    }
    node.storage.close().expect("the disk works");
    let mut group = c.benchmark_group("recovery");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(u64::from(RECOVERED_ENTRIES) * DATA_BYTES as u64));
    group.bench_function("200,000 entries", |b| {
        b.iter_batched(
            || (),
            |()| {
                let options = StorageOptions::new(dir.path());
                let bootstrap = Bootstrap {
                    name: "bench".into(),
                    cluster: ClusterId(1),
                    member: NodeId::new(1),
                    store: StoreId(1),
                    initial: bootstrap_log([member()]).expect("one sound member"),
                };
                let (storage, opened) = Storage::open(RealDisk, options, &bootstrap).expect("it opens");
                assert!(opened.incarnation > Incarnation::new(1));
                (storage, opened)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, append, recover);
criterion_main!(benches);
