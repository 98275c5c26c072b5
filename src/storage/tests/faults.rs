//! Disks that fail or fill up, and directories that cannot be opened: each with its own error and
//! remedy.

use crate::raft::{ClusterId, LogIndex, LogRecords, NodeId, Session, SnapshotRead, SnapshotRefusal, StoreId};
use crate::replica::{StorageEvent, StorageRequest};
use crate::storage::format::FORMAT_VERSION;
use crate::storage::tests::kit::{
    DIR, bootstrap, entries, incoming, indices, open, options, save_request, segments, store, wal_dir, write,
};
use crate::storage::{
    Bootstrap, Disk, DumpItem, FaultKind, MemoryDisk, OpenError, RealDisk, RecoveryNote, SnapshotError,
    SpareMode, Storage, StorageOptions, dump,
};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Formats of an identity.
const OLDEST: u32 = 7;
const NEWEST: u32 = 8;

fn opened() -> (MemoryDisk, Storage<MemoryDisk>) {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    storage.idle(&mut Vec::new()).unwrap();
    (disk, storage)
}

fn refused(disk: &MemoryDisk) -> OpenError {
    open(disk).map(|_| ()).unwrap_err()
}

#[test]
fn failed_write_or_sync_is_never_tried_again() {
    for (kind, operation) in [(FaultKind::Write, "writing"), (FaultKind::SyncData, "syncing")] {
        let (disk, mut storage) = opened();
        disk.fail(kind, "", 0, ErrorKind::Other);
        let error = write(&mut storage, vec![entries(2, 2, 1, 10)]).unwrap_err();
        assert_eq!(error.operation, operation);
        assert_eq!(error.file, segments(&disk).pop().unwrap());
        disk.clear_faults();
        let syncs = disk.syncs();
        let again = write(&mut storage, vec![entries(2, 2, 1, 10)]).unwrap_err();
        assert_eq!(again.operation, operation, "the first failure stands");
        storage.idle(&mut Vec::new()).unwrap_err();
        storage.close().unwrap_err();
        assert_eq!(disk.syncs(), syncs, "nothing was written any more");
    }
}

#[test]
fn full_disk_is_reported_before_the_log_needs_the_room_and_again_when_there_is_room() {
    let (disk, mut storage) = opened();
    let mut events = Vec::new();
    let mut index = 2;
    let count = segments(&disk).len();
    disk.set_capacity(Some(disk.used_bytes()));
    while segments(&disk).len() == count {
        events = write(&mut storage, vec![entries(index, index, 1, 3000)]).unwrap();
        index += 1;
    }
    assert!(matches!(events[..], [StorageEvent::Durable { .. }, StorageEvent::DiskFull(true)]), "{events:?}");
    let events = write(&mut storage, vec![entries(index, index, 1, 10)]).unwrap();
    assert!(
        matches!(events[..], [StorageEvent::Durable { .. }]),
        "what is reserved can still be written: {events:?}"
    );
    disk.set_capacity(None);
    let mut events = Vec::new();
    storage.idle(&mut events).unwrap();
    assert!(matches!(events[..], [StorageEvent::DiskFull(false)]), "{events:?}");
}

#[test]
fn segment_that_cannot_be_prepared_is_reported_with_its_reason_and_is_no_full_disk() {
    let (disk, mut storage) = opened();
    let count = segments(&disk).len();
    let (mut index, mut events) = (2, Vec::new());
    while segments(&disk).len() == count {
        // The segment that is ready is taken, and the one after it cannot be made.
        disk.fail(FaultKind::Create, "spare", 0, ErrorKind::PermissionDenied);
        events = write(&mut storage, vec![entries(index, index, 1, 3000)]).unwrap();
        index += 1;
    }
    let [StorageEvent::Durable { .. }, StorageEvent::SegmentNotReady { reason }] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(reason.contains("permission denied"), "{reason}");
    disk.clear_faults();
    let mut events = Vec::new();
    storage.idle(&mut events).unwrap();
    assert!(events.is_empty(), "it is there now: {events:?}");
}

fn is_durable(event: &StorageEvent) -> bool {
    matches!(event, StorageEvent::Durable { .. })
}

/// Writes entries until the log has no room for one. Returns the index of that one.
fn fill_the_disk(disk: &MemoryDisk, storage: &mut Storage<MemoryDisk>) -> u64 {
    disk.set_capacity(Some(disk.used_bytes()));
    for index in 2..200 {
        let events = write(storage, vec![entries(index, index, 1, 3000)]).unwrap();
        if !events.iter().any(is_durable) {
            assert!(events.iter().any(|event| matches!(event, StorageEvent::LogFull(true))), "{events:?}");
            return index;
        }
    }
    panic!("a disk has an end")
}

#[test]
fn writes_wait_for_room_and_are_answered_once_there_is_some() {
    let (disk, mut storage) = opened();
    let first = fill_the_disk(&disk, &mut storage);
    // Nothing more is acknowledged, and nothing is made on the disk in vain.
    let files = disk.files();
    for index in first + 1..first + 4 {
        let mut events = write(&mut storage, vec![entries(index, index, 1, 3000)]).unwrap();
        storage.idle(&mut events).unwrap();
        assert!(events.is_empty(), "{events:?}");
    }
    assert_eq!(disk.files(), files);
    disk.set_capacity(None);
    let mut events = Vec::new();
    storage.idle(&mut events).unwrap();
    assert!(events.iter().any(is_durable), "{events:?}");
    assert!(events.iter().any(|event| matches!(event, StorageEvent::LogFull(false))), "{events:?}");
    drop(storage);
    disk.crash(|_| false);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(indices(&opened.restored), (1..first + 4).collect::<Vec<_>>());
}

#[test]
fn what_waits_for_room_when_a_node_ends_was_never_acknowledged() {
    for stops in [true, false] {
        let (disk, mut storage) = opened();
        let first = fill_the_disk(&disk, &mut storage);
        if stops {
            storage.close().unwrap();
        } else {
            drop(storage);
        }
        disk.set_capacity(None);
        let (_storage, opened) = open(&disk).unwrap();
        assert_eq!(indices(&opened.restored), (1..first).collect::<Vec<_>>());
    }
}

#[test]
fn background_thread_reports_a_full_disk_too() {
    let disk = MemoryDisk::new();
    let options = StorageOptions { spare_mode: SpareMode::Thread, ..options() };
    let (mut storage, _) = Storage::open(disk.clone(), options, &bootstrap()).unwrap();
    let count = segments(&disk).len();
    let mut index = 2;
    let mut events = Vec::new();
    while segments(&disk).len() == count {
        // From the first spare on there is no room for another.
        disk.set_capacity(Some(disk.used_bytes().max(2 * 65_536 + 4096)));
        events = write(&mut storage, vec![entries(index, index, 1, 3000)]).unwrap();
        index += 1;
    }
    events.retain(|event| !matches!(event, StorageEvent::Durable { .. }));
    while events.is_empty() {
        storage.idle(&mut events).unwrap();
        std::thread::yield_now();
    }
    assert!(matches!(events[..], [StorageEvent::DiskFull(true)]), "{events:?}");
}

#[test]
fn snapshot_that_cannot_be_saved_is_no_failure_of_the_log() {
    for kind in
        [FaultKind::Create, FaultKind::Write, FaultKind::SyncData, FaultKind::Rename, FaultKind::SyncDir]
    {
        let (disk, mut storage) = opened();
        disk.fail(kind, "snapshots", 0, ErrorKind::StorageFull);
        let save = StorageRequest::SaveSnapshot(Box::new(save_request(1, 1, &store(3))));
        let mut events = Vec::new();
        storage.handle(&mut vec![save], &mut events).unwrap();
        assert!(matches!(events[..], [StorageEvent::SnapshotFailed { .. }]), "{kind:?}: {events:?}");
        write(&mut storage, vec![entries(2, 2, 1, 10)]).unwrap();
        if kind != FaultKind::SyncDir {
            assert!(!disk.files().iter().any(|file| file.starts_with(Path::new(DIR).join("snapshots-1"))));
        }
    }
}

#[test]
fn incoming_snapshot_is_installed_with_its_marker() {
    let (disk, mut storage) = opened();
    write(&mut storage, vec![entries(2, 5, 1, 10)]).unwrap();
    let (meta, chunks) = incoming(40, 1, &store(900), 70_000);
    assert!(chunks.len() > 3);
    let count = chunks.len();
    for (number, mut chunk) in chunks.into_iter().enumerate() {
        let done = number + 1 == count;
        chunk.truncate_from = done.then_some(LogIndex::new(1));
        let events = write(&mut storage, vec![chunk]).unwrap();
        let [StorageEvent::Durable { installed, refused: None, .. }, ..] = &events[..] else {
            panic!("{events:?}")
        };
        match installed {
            Some(content) => {
                let (installed, content) = &**content;
                assert!(done);
                assert_eq!((installed, content.state_hash()), (&meta, store(900).state_hash()));
            }
            None => assert!(!done),
        }
    }
    write(&mut storage, vec![entries(41, 41, 1, 10)]).unwrap();
    drop(storage);
    disk.crash(|_| false);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(opened.restored.snapshot, Some(meta));
    assert_eq!(opened.store.state_hash(), store(900).state_hash());
    assert_eq!(indices(&opened.restored), [41]);
}

#[test]
fn incoming_snapshot_that_does_not_verify_changes_nothing() {
    type Change = fn(&mut Vec<crate::raft::LogRecords>);
    let cases: [(&str, Change); 4] = [
        ("a chunk is missing", |chunks| drop(chunks.remove(1))),
        ("a chunk has other content", |chunks| {
            let chunk = &mut chunks[1].snapshot_chunks[0];
            let mut data = chunk.data.to_vec();
            data[500] ^= 1;
            chunk.data = data.into();
        }),
        ("the first chunk is missing", |chunks| drop(chunks.remove(0))),
        ("chunks of two snapshots are mixed", |chunks| {
            chunks[1].snapshot_chunks[0].snapshot.hash ^= 1;
        }),
    ];
    for (what, change) in cases {
        let (disk, mut storage) = opened();
        write(&mut storage, vec![entries(2, 5, 1, 10)]).unwrap();
        let (meta, mut chunks) = incoming(40, 1, &store(30), 2000);
        chunks.last_mut().unwrap().truncate_from = Some(LogIndex::new(1));
        change(&mut chunks);
        let events: Vec<StorageEvent> = write(&mut storage, chunks).unwrap();
        let last = events.iter().rfind(|event| matches!(event, StorageEvent::Durable { .. })).unwrap();
        let StorageEvent::Durable { installed: None, refused: Some(refused), .. } = last else {
            panic!("{what}: {events:?}")
        };
        assert_eq!(refused.last, meta.last, "{what}");
        write(&mut storage, vec![entries(6, 6, 1, 10)]).unwrap();
        drop(storage);
        let (_storage, opened) = open(&disk).unwrap();
        assert_eq!(opened.restored.snapshot, None, "{what}");
        assert_eq!(indices(&opened.restored), [1, 2, 3, 4, 5, 6], "{what}");
    }
}

#[test]
fn incoming_snapshot_is_refused_with_the_first_chunk_that_cannot_be_stored() {
    let cases = [
        (FaultKind::Create, ErrorKind::StorageFull, SnapshotRefusal::NoRoom),
        (FaultKind::Write, ErrorKind::QuotaExceeded, SnapshotRefusal::NoRoom),
        (FaultKind::Write, ErrorKind::Other, SnapshotRefusal::Disk),
    ];
    for (kind, error, why) in cases {
        let (disk, mut storage) = opened();
        let (meta, chunks) = incoming(40, 1, &store(900), 70_000);
        disk.fail(kind, "incoming", 0, error);
        let events = write(&mut storage, vec![chunks[0].clone()]).unwrap();
        let [StorageEvent::Durable { installed: None, refused: Some(refused), .. }] = &events[..] else {
            panic!("{kind:?}: {events:?}")
        };
        assert_eq!((refused.last, refused.why), (meta.last, why), "{kind:?}");
        assert!(refused.reason.contains("incoming"), "it names the file: {}", refused.reason);
        assert_eq!(unfinished(&disk), [""; 0], "its room is given back");
        // The log goes on, and so does the snapshot when there is room.
        disk.clear_faults();
        write(&mut storage, vec![entries(2, 2, 1, 10)]).unwrap();
        let events = write(&mut storage, vec![chunks[0].clone()]).unwrap();
        assert!(matches!(events[..], [StorageEvent::Durable { refused: None, .. }]), "{events:?}");
    }
}

fn is_gone(error: SnapshotError) -> bool {
    matches!(error, SnapshotError::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// Snapshot files that are not in place.
fn unfinished(disk: &MemoryDisk) -> Vec<String> {
    let mut names: Vec<PathBuf> = disk.files();
    names.retain(|file| file.extension().is_some_and(|end| end == "tmp"));
    names.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn abandoned_incoming_snapshot_leaves_no_file() {
    let (disk, mut storage) = opened();
    let (_, older) = incoming(40, 1, &store(30), 2000);
    let (_, newer) = incoming(50, 1, &store(30), 2000);
    write(&mut storage, older[..2].to_vec()).unwrap();
    let [begun] = &unfinished(&disk)[..] else { panic!("it is being received") };
    // The leader begins a newer one before this one is complete.
    write(&mut storage, newer[..2].to_vec()).unwrap();
    let [other] = &unfinished(&disk)[..] else { panic!("{:?}", unfinished(&disk)) };
    assert_ne!(begun, other);
    // A chunk that does not follow ends it.
    write(&mut storage, vec![newer[3].clone()]).unwrap();
    assert_eq!(unfinished(&disk), [""; 0]);
    // Entries come instead of more of it: it held its content in memory too.
    write(&mut storage, newer[..2].to_vec()).unwrap();
    assert_eq!(unfinished(&disk).len(), 1);
    write(&mut storage, vec![entries(2, 2, 1, 10)]).unwrap();
    assert_eq!(unfinished(&disk), [""; 0]);
}

#[test]
fn incoming_snapshot_that_cannot_be_put_in_place_leaves_no_file() {
    let (disk, mut storage) = opened();
    let (meta, mut chunks) = incoming(40, 1, &store(30), 2000);
    chunks.last_mut().unwrap().truncate_from = Some(LogIndex::new(1));
    disk.fail(FaultKind::Rename, "snapshots", 0, ErrorKind::StorageFull);
    let events = write(&mut storage, chunks).unwrap();
    let is_refused = |event: &StorageEvent| match event {
        StorageEvent::Durable { refused: Some(refused), .. } => refused.last == meta.last,
        _ => false,
    };
    assert!(events.iter().any(is_refused), "{events:?}");
    assert_eq!(unfinished(&disk), [""; 0]);
}

#[test]
fn chunks_read_for_a_peer_add_up_to_the_body() {
    let (_disk, mut storage) = opened();
    let content = store(700);
    let save = save_request(1, 1, &content);
    let meta = storage.snapshot_files().save(save).unwrap();
    let body: Vec<u8> = content.snapshot_pieces().flatten().collect();
    for bytes_max in [1000, 65_536, 1 << 20] {
        let mut read = Vec::new();
        loop {
            let offset = read.len() as u64;
            let ask = SnapshotRead {
                to: NodeId::new(2),
                session: Session::new(4),
                snapshot: meta.last,
                offset,
                bytes_max,
            };
            let mut events = Vec::new();
            storage.handle(&mut vec![StorageRequest::ReadChunk(ask)], &mut events).unwrap();
            let Some(StorageEvent::ChunkRead { chunk: Ok(chunk), .. }) = events.pop() else {
                panic!("no chunk")
            };
            assert_eq!((&*chunk.snapshot, chunk.offset), (&meta, offset));
            read.extend_from_slice(&chunk.data);
            if chunk.done {
                break;
            }
        }
        assert!(read == body, "in chunks of {bytes_max}");
    }
    let gone = SnapshotRead {
        to: NodeId::new(2),
        session: Session::new(4),
        snapshot: crate::raft::LogId::ZERO,
        offset: 0,
        bytes_max: 10,
    };
    assert!(storage.snapshot_files().read_chunk(&gone).is_err_and(is_gone));
}

#[test]
fn what_is_being_sent_can_be_read_to_its_end_after_newer_snapshots_took_its_place() {
    let (disk, mut storage) = opened();
    let files = storage.snapshot_files();
    let content = store(700);
    let first = files.save(save_request(1, 1, &content)).unwrap();
    let read = |offset| SnapshotRead {
        to: NodeId::new(2),
        session: Session::new(4),
        snapshot: first.last,
        offset,
        bytes_max: 20_000,
    };
    let mut body = files.read_chunk(&read(0)).unwrap().data.to_vec();
    write(&mut storage, vec![entries(2, 9, 1, 10)]).unwrap();
    for index in [3, 5, 7] {
        let meta = files.save(save_request(index, 1, &content)).unwrap();
        let marker = LogRecords { snapshot: Some(Box::new(meta)), ..LogRecords::default() };
        write(&mut storage, vec![marker]).unwrap();
    }
    assert!(disk.content(&files.path(first.last)).is_none(), "its name is gone");
    while (body.len() as u64) < first.bytes {
        body.extend_from_slice(&files.read_chunk(&read(body.len() as u64)).unwrap().data);
    }
    assert!(body == content.snapshot_pieces().flatten().collect::<Vec<u8>>());
    // Nobody is being sent it any more: its room is given back.
    files.close_readers();
    assert!(files.read_chunk(&read(0)).is_err_and(is_gone));
}

#[test]
fn a_snapshot_that_was_damaged_is_read_again_once_it_was_saved_again() {
    let (disk, storage) = opened();
    let files = storage.snapshot_files();
    let save = save_request(1, 1, &store(700));
    let meta = files.save(save.clone()).unwrap();
    let (to, snapshot) = (NodeId::new(2), meta.last);
    let read = |offset| SnapshotRead { to, session: Session::new(4), snapshot, offset, bytes_max: 5_000 };
    files.read_chunk(&read(0)).unwrap();
    assert!(disk.flip_bit(&files.path(meta.last), 5_000, 3));
    assert!(files.read_chunk(&read(0)).is_err());
    assert_eq!(files.save(save).unwrap(), meta, "the content of one entry is the same whenever it is saved");
    files.read_chunk(&read(0)).unwrap();
}

#[test]
fn adopted_node_starts_empty_under_its_new_identity_and_keeps_its_lock() {
    let (disk, mut storage) = opened();
    write(&mut storage, vec![entries(2, 5, 1, 10)]).unwrap();
    let (storage, opened) = storage.adopt(ClusterId(77), NodeId::new(3), StoreId(78)).unwrap();
    assert!(opened.restored.entries.is_empty() && opened.store.is_empty());
    assert!(opened.incarnation.number() > 1);
    assert!(matches!(refused(&disk), OpenError::InUse { .. }));
    assert!(!disk.exists(&wal_dir()).unwrap(), "the old log is gone");
    drop(storage);
    disk.crash(|_| false);
    let (storage, opened) = open(&disk).unwrap();
    assert_eq!(opened.identity.cluster, ClusterId(77));
    assert_eq!((opened.identity.member, opened.identity.store), (NodeId::new(3), StoreId(78)));
    let (_storage, opened) = storage.adopt(ClusterId(80), NodeId::new(9), StoreId(81)).unwrap();
    assert_eq!(opened.identity.generation, 1, "two generations take turns");
}

#[test]
fn each_reason_not_to_open_has_its_error_and_remedy() {
    let base = opened().0;
    base.kill();
    let identity = Path::new(DIR).join("identity");
    let text = String::from_utf8(base.content(&identity).unwrap()).unwrap();

    let other = Bootstrap { name: "node2".into(), ..bootstrap() };
    let error = Storage::open(base.copy(), options(), &other).map(|_| ()).unwrap_err();
    assert!(
        matches!(error, OpenError::OtherNode { .. }) && error.to_string().contains("--node-id node1"),
        "{error}"
    );

    let bad = Bootstrap { name: "a\nb".into(), ..bootstrap() };
    let error = Storage::open(MemoryDisk::new(), options(), &bad).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::BadName { .. }), "{error}");

    let disk = base.copy();
    let of_format = |format: u32| {
        let body = text.replace(&format!("format = {OLDEST}"), &format!("format = {format}"));
        let body = &body[..body.rfind("checksum").unwrap()];
        format!("{body}checksum = {:08x}\n", crate::codec::checksum(body.as_bytes())).into_bytes()
    };
    disk.overwrite(&identity, of_format(NEWEST + 1));
    let error = refused(&disk);
    assert!(matches!(error, OpenError::NewerFormat { found, .. } if found == NEWEST + 1), "{error}");

    let disk = base.copy();
    disk.overwrite(&identity, of_format(OLDEST - 1));
    let error = refused(&disk);
    assert!(matches!(error, OpenError::OlderFormat { found, .. } if found == OLDEST - 1), "{error}");
    assert!(error.to_string().contains("the program that wrote it"), "{error}");

    let disk = base.copy();
    let file = segments(&disk).pop().unwrap();
    disk.flip_bit(&file, 8 + 8 + 1, 0);
    assert!(matches!(refused(&disk), OpenError::NewerFormat { .. }));
    let disk = base.copy();
    disk.flip_bit(&file, 8 + 8, 2);
    assert!(matches!(refused(&disk), OpenError::OlderFormat { found, .. } if found == FORMAT_VERSION ^ 4));

    let disk = base.copy();
    disk.overwrite(&identity, text.replace("member = 1", "member = 2").into_bytes());
    let error = refused(&disk);
    assert!(matches!(error, OpenError::IdentityDamaged { .. }), "{error}");

    let disk = base.copy();
    disk.remove(&identity).unwrap();
    let error = refused(&disk);
    assert!(
        matches!(error, OpenError::IdentityMissing { .. }) && error.to_string().contains("repairs itself"),
        "{error}"
    );

    let disk = base.copy();
    disk.remove_dir_all(&wal_dir()).unwrap();
    let error = refused(&disk);
    assert!(matches!(error, OpenError::LogMissing { .. }), "{error}");

    let disk = base.copy();
    for file in segments(&disk) {
        disk.remove(&file).unwrap();
    }
    assert!(matches!(refused(&disk), OpenError::LogMissing { .. }));

    let disk = MemoryDisk::new();
    disk.fail(FaultKind::Create, "", 0, ErrorKind::PermissionDenied);
    let error = refused(&disk);
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error}");

    let disk = base.copy();
    disk.fail(FaultKind::Write, "wal-1", 0, ErrorKind::StorageFull);
    let error = refused(&disk);
    assert!(matches!(error, OpenError::Io { .. }) && error.to_string().contains("make room"), "{error}");
}

#[test]
fn file_in_place_of_the_data_directory_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let options = StorageOptions { dir: file.path().to_path_buf(), ..options() };
    let error = Storage::open(RealDisk, options, &bootstrap()).map(|_| ()).unwrap_err();
    assert!(
        error.to_string().contains("choose another --data-dir") || matches!(error, OpenError::Io { .. }),
        "{error}"
    );
}

#[test]
fn interrupted_creation_is_done_again_whenever_the_power_failed() {
    let disk = MemoryDisk::new();
    drop(open(&disk).unwrap());
    for changes in 0..disk.changes() {
        for keep in [0, u64::MAX, 0x5555_5555, 0x3333_3333] {
            let disk = MemoryDisk::new();
            disk.fail_power_after(changes);
            drop(open(&disk));
            disk.crash(|question| keep >> (question % 64) & 1 == 1);
            let (_storage, opened) =
                open(&disk).unwrap_or_else(|error| panic!("{changes} {keep:x}: {error}"));
            assert_eq!(opened.restored, bootstrap().initial);
            assert!(!matches!(opened.notes.first(), Some(RecoveryNote::TornTail { .. })));
        }
    }
}

#[test]
fn dump_shows_every_record_and_where_the_damage_is() {
    let (disk, mut storage) = opened();
    write(&mut storage, vec![entries(2, 3, 1, 10)]).unwrap();
    write(&mut storage, vec![entries(4, 4, 1, 10)]).unwrap();
    storage.snapshot_files().save(save_request(1, 1, &store(3))).unwrap();
    storage.close().unwrap();
    let lines: Vec<String> = dump(&disk, Path::new(DIR)).map(|item| item.to_string()).collect();
    for part in ["node \"node1\"", "segment ", "batch 1", "entry 4@1", "snapshot "] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part:?} is not in {lines:#?}");
    }
    let file = segments(&disk).pop().unwrap();
    disk.flip_bit(&file, 2 * 4096 + 80, 0);
    let items: Vec<DumpItem> = dump(&disk, Path::new(DIR)).collect();
    assert!(
        items.iter().any(|item| matches!(item, DumpItem::Damage(damage) if damage.offset == 2 * 4096)),
        "{items:#?}"
    );
    let behind: Vec<&DumpItem> =
        items.iter().filter(|item| matches!(item, DumpItem::Batch { behind_damage: true, .. })).collect();
    assert_eq!(behind.len(), 2, "the batches behind the damage are shown: {items:#?}");
    let nothing: Vec<String> = dump(&disk, &PathBuf::from("/nowhere")).map(|item| item.to_string()).collect();
    assert_eq!(nothing.len(), 1, "{nothing:?}");
}

#[test]
fn a_start_without_room_for_a_usual_segment_makes_a_smaller_one() {
    let disk = MemoryDisk::new();
    let options = StorageOptions { segment_bytes: 16 << 20, ..options() };
    let start = || Storage::open(disk.clone(), options.clone(), &bootstrap());
    let (mut storage, _) = start().unwrap();
    for index in 2..50 {
        write(&mut storage, vec![entries(index, index, 1, 100_000)]).unwrap();
    }
    storage.close().unwrap();
    let (storage, _) = start().unwrap();
    drop(storage);
    disk.kill();
    // The spare segments go first, and leave room for the log once more, but not for what a start
    // usually makes.
    let log: u64 =
        segments(&disk).iter().filter_map(|path| disk.content(path)).map(|file| file.len() as u64).sum();
    disk.set_capacity(Some(log + (7 << 20)));
    let (mut storage, opened) = start().unwrap();
    assert_eq!(indices(&opened.restored), (1..50).collect::<Vec<_>>());
    write(&mut storage, vec![entries(50, 50, 1, 1_000)]).unwrap();
    storage.close().unwrap();
    disk.set_capacity(Some(0));
    assert!(start().unwrap_err().is_full(), "it may be tried again");
    disk.set_capacity(None);
    assert_eq!(indices(&start().unwrap().1.restored), (1..=50).collect::<Vec<_>>());
}
