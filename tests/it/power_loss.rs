//! The power of all three nodes fails at once in the middle of load, and the disks lose any part of
//! what was not synced: every acknowledged write is there afterwards. (kill -9 alone shows less: it
//! keeps the page cache.)

use bytes::Bytes;
use infinitystore::kv::Op;
use infinitystore::node::{Node, NodeHandle, NodeOptions};
use infinitystore::replica::{ClientReply, ClientRequest, Level};
use infinitystore::runtime::{Metrics, TokioEnv};
use infinitystore::storage::MemoryDisk;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const ROUNDS: u64 = 5;
const WRITERS: u64 = 24;
const ACKNOWLEDGED_IN_A_ROUND: usize = 400;
const NAMES: [&str; 3] = ["a", "b", "c"];

/// A node that outlives its processes: disk and address stay.
struct Machine {
    name: &'static str,
    disk: MemoryDisk,
    addr: String,
    node: Node,
}

impl Machine {
    async fn new(name: &'static str) -> Self {
        let disk = MemoryDisk::new();
        let node = start(name, &disk, "127.0.0.1:0").await;
        Self { name, disk, addr: node.raft_addr().to_owned(), node }
    }

    async fn restart(&mut self) {
        self.node = start(self.name, &self.disk, &self.addr).await;
    }
}

async fn start(name: &str, disk: &MemoryDisk, addr: &str) -> Node {
    let mut options = NodeOptions::new(name);
    options.data_dir = "/data".into();
    options.raft_addr = addr.to_owned();
    // Small, so that segments fill up, snapshots are taken and old segments go in the time of the
    // test.
    options.segment_bytes = 128 << 10;
    options.replica.snapshot_log_entries = 300;
    options.replica.raft.log_tail_entries = 50;
    options.replica.raft.laggard_log_bytes_max = 1;
    Node::start(TokioEnv::new(disk.clone()), options, Metrics::new()).await.expect("the node starts")
}

/// What a client was told: the key has this value.
struct Acknowledged {
    key: String,
    value: u64,
}

/// Writes fresh keys, and one key again and again, until it is told to stop.
async fn write(
    node: NodeHandle,
    writer: u64,
    from: u64,
    told: mpsc::UnboundedSender<Acknowledged>,
    stop: Arc<AtomicBool>,
) -> u64 {
    let mut value = from;
    while !stop.load(Ordering::Relaxed) {
        value += 1;
        let key = if value.is_multiple_of(2) { format!("{writer}") } else { format!("{writer}-{value}") };
        let set = Op::set(Bytes::from(key.clone()), Bytes::from(value.to_string()));
        if let ClientReply::Written(_) = node.request(ClientRequest::write(set)).await {
            let _ = told.send(Acknowledged { key, value });
        }
    }
    value
}

async fn read(node: &NodeHandle, key: &str) -> Option<u64> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let reply = node.request(ClientRequest::read(key, Level::Linearizable)).await;
    let Some(found) = reply.key() else { panic!("a cluster of three live nodes answers reads: {reply:?}") };
    let number = |value| String::from_utf8_lossy(value).parse().expect("only numbers were written");
    found.as_ref().map(|found| number(&found.value))
}

/// A number that depends on all of the parts: which unsynced sectors are lost differs in each round
/// and on each disk.
fn mix(parts: [u64; 3]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |mixed: u64, part| {
        (mixed ^ part).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(27)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_a_power_loss_of_all_nodes() {
    let mut machines = Vec::new();
    for name in NAMES {
        machines.push(Machine::new(name).await);
    }
    for other in &machines[1..] {
        let joined = machines[0].node.handle().join(other.name.to_owned(), other.addr.clone()).await;
        assert!(joined.is_ok(), "{joined:?}");
    }
    let mut attempted = vec![0; usize::try_from(WRITERS).expect("few")];
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..ROUNDS {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, mut acknowledgements) = mpsc::unbounded_channel();
        let mut writers = JoinSet::new();
        for (writer, from) in (0u64..).zip(attempted.iter().copied()) {
            let node = machines[usize::try_from(writer % 3).expect("below 3")].node.handle();
            let (told, stop) = (told.clone(), stop.clone());
            writers.spawn(async move { (writer, write(node, writer, from, told, stop).await) });
        }
        drop(told);
        for _ in 0..ACKNOWLEDGED_IN_A_ROUND {
            let Acknowledged { key, value } = acknowledgements.recv().await.expect("writers go on");
            acknowledged.insert(key, value);
        }
        // The power is gone: from here on no disk takes anything. What was durable before may still
        // be acknowledged.
        for machine in &machines {
            machine.disk.fail_power_after(0);
        }
        stop.store(true, Ordering::Relaxed);
        for machine in &machines {
            machine.node.stop();
            machine.node.stopped().await;
        }
        for (writer, last) in writers.join_all().await {
            attempted[usize::try_from(writer).expect("few")] = last;
        }
        while let Some(Acknowledged { key, value }) = acknowledgements.recv().await {
            acknowledged.insert(key, value);
        }
        for (number, machine) in (0u64..).zip(&mut machines) {
            machine.disk.crash(|question| mix([round, number, question]).is_multiple_of(2));
            machine.restart().await;
        }
        for (number, (key, &value)) in acknowledged.iter().enumerate() {
            let found = read(&machines[number % 3].node.handle(), key).await;
            match key.parse::<usize>() {
                // A key that was written again and again: what was not acknowledged may have been
                // written too.
                Ok(writer) => {
                    assert!(
                        found.is_some_and(|found| value <= found && found <= attempted[writer]),
                        "{key} = {found:?}; {value} was acknowledged, in round {round}"
                    );
                }
                Err(_) => assert_eq!(found, Some(value), "{key} was acknowledged; round {round}"),
            }
        }
    }
    let snapshot = machines[0].node.handle().status().await.replica.snapshot;
    assert!(snapshot.index.get() > 0, "snapshots were taken meanwhile");
}
