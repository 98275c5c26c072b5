use crate::raft::{ClusterId, HardState, LogRecords, LogWrite, NodeId, Restored, StoreId, Term};
use crate::replica::StorageRequest;
use crate::server::metrics::Metrics;
use crate::server::storage_workers::{LogJob, LogWorker, SnapshotQueues, SnapshotWorker, StorageNews};
use crate::server::work::{WorkQueue, run_on_thread};
use crate::storage::{Bootstrap, MemoryDisk, SpareMode, Storage, StorageOptions};
use tokio::sync::mpsc;

/// An open data directory in memory, whose log is in term 2.
fn storage() -> Storage<MemoryDisk> {
    let bootstrap = Bootstrap {
        name: "a".to_owned(),
        cluster: ClusterId(5),
        member: NodeId::new(1),
        store: StoreId(11),
        initial: Restored { hard_state: in_term(2), ..Restored::default() },
    };
    let options = StorageOptions { spare_mode: SpareMode::Inline, ..StorageOptions::new("/data") };
    Storage::open(MemoryDisk::new(), options, &bootstrap).unwrap().0
}

const fn in_term(term: u64) -> HardState {
    HardState { term: Term::new(term), voted_for: None }
}

fn failure(news: &mut mpsc::UnboundedReceiver<StorageNews>) -> String {
    match news.try_recv().unwrap() {
        StorageNews::Failed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_worker_that_panics_says_that_nothing_is_durable_any_more() {
    let (queue, snapshots) = (WorkQueue::new(), SnapshotQueues::new());
    let (news_in, mut news) = mpsc::unbounded_channel();
    let worker = LogWorker::new(storage(), snapshots, news_in, Metrics::new());
    // A bug of the core's, which the storage does not put up with: a term that goes back.
    let records = LogRecords { hard_state: Some(in_term(1)), ..LogRecords::default() };
    let write = StorageRequest::Write(LogWrite::for_test(records, 1));
    queue.push_all(&mut vec![LogJob::Request(write)]);
    let thread = std::thread::spawn(move || run_on_thread(worker, &queue));
    assert!(thread.join().is_err(), "it panicked");
    assert!(failure(&mut news).contains("writes the log panicked"));
}

#[test]
fn a_snapshot_worker_that_panics_ends_the_node() {
    let (news_in, mut news) = mpsc::unbounded_channel();
    let worker = SnapshotWorker::new(storage().snapshot_files(), news_in);
    let thread = std::thread::spawn(move || {
        let _held = worker;
        panic!("as a bug would");
    });
    assert!(thread.join().is_err(), "it panicked");
    assert!(failure(&mut news).contains("writes snapshots panicked"));
}

#[test]
fn a_worker_that_ends_well_says_nothing_of_a_panic() {
    let queue = WorkQueue::new();
    let (news_in, mut news) = mpsc::unbounded_channel();
    let worker = LogWorker::new(storage(), SnapshotQueues::new(), news_in, Metrics::new());
    queue.close();
    run_on_thread(worker, &queue);
    assert!(matches!(news.try_recv(), Ok(StorageNews::Closed)));
    assert!(matches!(news.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
}
