use crate::kv::Store;
use crate::node::storage_workers::{
    LogJob, LogWorker, SnapshotJob, SnapshotQueues, SnapshotWorker, WorkerNews,
};
use crate::raft::{
    ClusterId, HardState, LogId, LogIndex, LogRecords, LogWrite, Member, Membership, NodeId, Restored,
    Session, SnapshotChunk, SnapshotMeta, SnapshotRead, StoreId, Term, Withdrawal,
};
use crate::replica::{SnapshotSave, StorageEvent, StorageRequest};
use crate::runtime::Metrics;
use crate::runtime::work::{WorkQueue, Worker, run_on_thread};
use crate::storage::{Bootstrap, Disk, FaultKind, MemoryDisk, SpareMode, Storage, StorageOptions};
use std::io::ErrorKind;
use std::path::Path;
use tokio::sync::mpsc;

/// An open data directory in memory, whose log is in term 2.
fn storage() -> Storage<MemoryDisk> {
    storage_on(MemoryDisk::new())
}

fn storage_on(disk: MemoryDisk) -> Storage<MemoryDisk> {
    let bootstrap = Bootstrap {
        name: "a".to_owned(),
        cluster: ClusterId(5),
        member: NodeId::new(1),
        store: StoreId(11),
        initial: Restored { hard_state: in_term(2), ..Restored::default() },
    };
    let options = StorageOptions { spare_mode: SpareMode::Inline, ..StorageOptions::new("/data") };
    Storage::open(disk, options, &bootstrap).unwrap().0
}

const fn in_term(term: u64) -> HardState {
    HardState { term: Term::new(term), voted_for: None }
}

fn member() -> Member {
    let (name, raft_addr, http_addr) = ("a".to_owned(), "a:1".to_owned(), "a:2".to_owned());
    Member { name, raft_addr, http_addr, store_id: StoreId(11) }
}

fn failure(news: &mut mpsc::UnboundedReceiver<WorkerNews>) -> String {
    match news.try_recv().unwrap() {
        WorkerNews::Failed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_worker_that_panics_says_that_nothing_is_durable_any_more() {
    let (queue, snapshots) = (WorkQueue::new(), SnapshotQueues::new());
    let (news_in, mut news) = mpsc::unbounded_channel();
    let worker = LogWorker::new(storage(), snapshots, WorkQueue::new(), news_in, Metrics::new());
    // A bug of the core's, which the storage does not put up with: a term that goes back.
    let records = LogRecords { hard_state: Some(in_term(1)), ..LogRecords::default() };
    let write = StorageRequest::Write(LogWrite::for_test(records, 1));
    queue.push_all(&mut vec![LogJob::StorageRequest(write)]);
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
    let worker = LogWorker::new(storage(), SnapshotQueues::new(), WorkQueue::new(), news_in, Metrics::new());
    queue.close();
    run_on_thread(worker, &queue);
    assert!(matches!(news.try_recv(), Ok(WorkerNews::Closed)));
    assert!(matches!(news.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
}

#[test]
fn alarms_that_could_not_be_written_down_are_written_once_there_is_room() {
    let (disk, metrics) = (MemoryDisk::new(), Metrics::new());
    let (news_in, _news) = mpsc::unbounded_channel();
    let storage = storage_on(disk.clone());
    let mut worker =
        LogWorker::new(storage, SnapshotQueues::new(), WorkQueue::new(), news_in, metrics.clone());
    metrics.alarm_board.raise("damage", "a file", false);
    disk.fail(FaultKind::Write, "alarms", 0, ErrorKind::StorageFull);
    worker.work(vec![LogJob::NoteAlarms]);
    let note = Path::new("/data/alarms");
    assert_eq!(disk.content(note), None);
    worker.idle();
    disk.clear_faults();
    worker.idle();
    let noted = disk.content(note).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(noted.as_deref().is_some_and(|text| text.contains("a file")), "{noted:?}");
}

fn save() -> SnapshotSave {
    SnapshotSave {
        last: LogId::new(Term::new(1), LogIndex::new(1)),
        membership: Membership {
            voters: [NodeId::new(1)].into(),
            outgoing: None,
            learners: [].into(),
            members: [(NodeId::new(1), member())].into(),
            next_member_id: NodeId::new(2),
        },
        membership_id: LogId::ZERO,
        store: Store::default(),
    }
}

#[test]
fn a_node_moves_once_the_snapshots_of_its_former_life_are_saved() {
    let disk = MemoryDisk::new();
    let storage = storage_on(disk.clone());
    let (queue, snapshots) = (WorkQueue::new(), SnapshotQueues::new());
    let (news_in, mut news) = mpsc::unbounded_channel();
    let mut saver = SnapshotWorker::new(storage.snapshot_files(), news_in.clone());
    let worker = LogWorker::new(storage, snapshots, WorkQueue::new(), news_in, Metrics::new());
    let adopt = LogJob::Adopt { cluster: ClusterId(6), member: NodeId::new(2), store: StoreId(22) };
    saver.work(vec![SnapshotJob::Save(Box::new(save())), SnapshotJob::PassOn(adopt, queue.clone())]);
    queue.close();
    run_on_thread(worker, &queue);
    assert!(matches!(news.try_recv(), Ok(WorkerNews::StorageEvent(StorageEvent::SnapshotSaved(_)))));
    assert!(matches!(news.try_recv(), Ok(WorkerNews::Adopted(_))));
    let left: Vec<_> = disk.files().into_iter().filter(|file| file.ends_with("1-1.snap")).collect();
    assert!(left.is_empty(), "it went with its directory: {left:?}");
}

#[test]
fn a_worker_that_saves_does_not_close_what_another_reads() {
    let disk = MemoryDisk::new();
    let files = storage_on(disk.clone()).snapshot_files();
    let (news_in, mut news) = mpsc::unbounded_channel();
    let mut saver = SnapshotWorker::new(files.clone(), news_in.clone());
    let mut reader = SnapshotWorker::new(files.clone(), news_in);
    let save = save();
    let (to, session, snapshot) = (NodeId::new(2), Session::new(1), save.last);
    let read = SnapshotRead { to, session, snapshot, offset: 0, bytes_max: 1 };
    let reads = |worker: &mut SnapshotWorker<MemoryDisk>, news: &mut mpsc::UnboundedReceiver<_>| {
        worker.work(vec![SnapshotJob::Read(read.clone())]);
        let told = std::iter::from_fn(|| news.try_recv().ok()).last();
        matches!(told, Some(WorkerNews::StorageEvent(StorageEvent::ChunkRead { chunk: Ok(_), .. })))
    };
    saver.work(vec![SnapshotJob::Save(Box::new(save))]);
    assert!(reads(&mut reader, &mut news));
    // Newer ones take its place, and there is nothing more to save for long.
    disk.remove(&files.path(snapshot)).unwrap();
    for _ in 0..3 {
        saver.idle();
    }
    assert!(reads(&mut reader, &mut news), "it is being sent");
    while reader.idle().is_some() {}
    assert!(!reads(&mut reader, &mut news), "its room is given back");
}

#[test]
fn a_directory_that_is_not_to_be_used_is_marked_as_soon_as_the_disk_lets_it() {
    let disk = MemoryDisk::new();
    let (news_in, mut news) = mpsc::unbounded_channel();
    let storage = storage_on(disk.clone());
    let mut worker =
        LogWorker::new(storage, SnapshotQueues::new(), WorkQueue::new(), news_in, Metrics::new());
    disk.fail(FaultKind::Create, "rebuild.tmp", 0, ErrorKind::StorageFull);
    let why = Withdrawal::Diverged { index: LogIndex::new(256) };
    assert!(worker.work(vec![LogJob::Rebuild(why)]), "it takes no part, and tries again");
    assert!(worker.idle().is_some());
    assert!(news.try_recv().is_err());
    disk.clear_faults();
    worker.idle();
    assert!(matches!(news.try_recv(), Ok(WorkerNews::Condemned(said)) if said == why.to_string()));
    assert!(disk.content(Path::new("/data/rebuild")).is_some());
}

/// A leader's snapshot is what such a node needs, and what it was before is of no use any more.
#[test]
fn what_was_set_aside_makes_room_for_a_snapshot_the_oldest_first() {
    let disk = MemoryDisk::new();
    let log = |number: u32| format!("/data/damaged-{number}/wal-1");
    for number in 1..=3 {
        let dir = log(number);
        disk.create_dir_all(Path::new(&dir)).unwrap();
        disk.overwrite(&Path::new(&dir).join("1.seg"), vec![0; 100]);
    }
    let (news_in, mut news) = mpsc::unbounded_channel();
    let mut worker = LogWorker::new(
        storage_on(disk.clone()),
        SnapshotQueues::new(),
        WorkQueue::new(),
        news_in,
        Metrics::new(),
    );
    let SnapshotSave { membership, membership_id, .. } = save();
    let last = LogId::new(Term::new(1), LogIndex::new(9));
    let snapshot = Box::new(SnapshotMeta { last, membership, membership_id, bytes: 100, hash: 0 });
    let left = [vec![3], vec![], vec![]];
    for (number, left) in (1..).zip(left) {
        disk.fail(FaultKind::Create, "snapshots", 0, ErrorKind::StorageFull);
        let chunk =
            SnapshotChunk { snapshot: snapshot.clone(), offset: 0, data: vec![7; 10].into(), done: false };
        let records = LogRecords { snapshot_chunks: vec![chunk], ..LogRecords::default() };
        let write = StorageRequest::Write(LogWrite::for_test(records, number));
        assert!(worker.work(vec![LogJob::StorageRequest(write)]));
        let refused = |news: WorkerNews| {
            matches!(news, WorkerNews::StorageEvent(StorageEvent::Durable { refused: Some(_), .. }))
        };
        assert!(core::iter::from_fn(|| news.try_recv().ok()).any(refused), "there is no room for it");
        disk.clear_faults();
        let kept = (1..=3).filter(|number| disk.exists(Path::new(&log(*number))).unwrap());
        assert_eq!(kept.collect::<Vec<u32>>(), left);
    }
}
