//! Backups: whole and equal, or refused; and data directories made of them.

use crate::codec::{FeatureLevel, FeatureLevels};
use crate::kv::{Command, LeaseId, Op, Put, Settings, Store};
use crate::raft::{ClusterId, LogId, LogIndex, Member, StoreId, Term};
use crate::storage::tests::kit::{DIR, bootstrap, open, options, store};
use crate::storage::{
    BackupError, BackupHeader, BackupReader, BackupSource, BackupWriter, Disk, DiskFile, FaultKind,
    MemoryDisk, OpenError, RecoveryNote, Remains, RestoredState, Storage, StorageOptions, restore,
};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, proptest};
use std::io::ErrorKind;
use std::path::Path;

/// A state with some of everything.
fn rich() -> Store {
    let mut store = Store::new();
    let mut apply = |command: Command| drop(store.apply(1, &command));
    apply(Op::Configure(Settings { history_bytes: 20_000, ..Settings::default() }).into());
    apply(Op::Grant { id: LeaseId(3), ttl_seconds: 10 }.into());
    for number in 0..12u8 {
        let (key, value) = (vec![number % 5, 0xff].into(), vec![number; usize::from(number) * 60].into());
        let op = Op::Put(Put { key, value, lease: LeaseId(u64::from(number % 2) * 3) });
        apply(Command { idempotency_key: Some(vec![number].into()), since: None, by: None, op });
    }
    apply(Op::delete(vec![2, 0xff]).into());
    store
}

fn last() -> LogId {
    LogId::new(Term::new(4), LogIndex::new(77))
}

fn source(store: Store) -> BackupSource {
    BackupSource { cluster: ClusterId(21), store_id: StoreId(22), last: last(), store }
}

fn written(store: Store) -> Vec<u8> {
    BackupWriter::new(source(store)).flatten().collect()
}

fn read(bytes: &[u8], piece: usize) -> Result<(BackupHeader, Store), BackupError> {
    let mut reader = BackupReader::of_state();
    bytes.chunks(piece).try_for_each(|piece| reader.push(piece))?;
    reader.finish().map(|(header, store)| (header, store.expect("it was wanted")))
}

fn check_bytes(bytes: &[u8]) -> Result<BackupHeader, BackupError> {
    let mut reader = BackupReader::of_bytes();
    reader.push(bytes)?;
    reader.finish().map(|(header, _)| header)
}

#[test]
fn a_backup_is_the_state_however_it_is_cut() {
    for store in [Store::new(), rich(), store(3000)] {
        let bytes = written(store.clone());
        for piece in [7, 1000, 64 << 10, usize::MAX] {
            let (header, found) = read(&bytes, piece).unwrap();
            assert_eq!((header.cluster, header.store, header.last), (ClusterId(21), StoreId(22), last()));
            assert_eq!((header.revision, header.keys), (store.revision(), store.len() as u64));
            assert_eq!(found.state_hash(), store.state_hash());
            assert_eq!(written(found), bytes, "one state has one backup");
        }
        assert_eq!(check_bytes(&bytes).unwrap().state_hash, store.state_hash());
    }
}

/// The format, held against these bytes: a program of another day has to read them.
#[test]
fn the_bytes_are_those_of_the_page() {
    let bytes = written(Store::new());
    assert_eq!(&bytes[..12], b"ISbackup\x01\0\0\0");
    assert_eq!((bytes[12], bytes[28]), (21, 22), "cluster and store");
    assert_eq!((bytes[44], bytes[52], bytes[60]), (4, 77, 0), "term, index and revision");
    let length = u32::from_le_bytes(bytes[104..108].try_into().unwrap()) as usize;
    let end = 104 + 8 + length;
    assert_eq!(bytes[end..end + 4], [0; 4], "the end");
    assert_eq!(bytes[end + 8..end + 16], (length as u64).to_le_bytes());
    assert_eq!(bytes.len(), end + 32);
}

#[test]
fn damage_of_any_byte_and_a_cut_anywhere_are_found() {
    let bytes = written(rich());
    let mut counts = [0; 3];
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            let error = check_bytes(&damaged).expect_err("damage is found without the state");
            assert!(read(&damaged, 999).is_err());
            counts[match error {
                BackupError::NotABackup | BackupError::OtherVersion(_) => 0,
                BackupError::Damaged { .. } => 1,
                _ => 2,
            }] += 1;
        }
        let cut = check_bytes(&bytes[..at]).expect_err("a cut is found");
        assert!(matches!(cut, BackupError::CutShort { .. }), "cut at {at}: {cut}");
    }
    let [unknown, damaged, cut] = counts;
    // A length may promise more than there is.
    assert!(unknown > 20 && damaged > 10_000 && cut < 200, "{counts:?}");
    let more = [&bytes[..], b"x"].concat();
    assert!(matches!(check_bytes(&more), Err(BackupError::Damaged { .. })));
    assert!(matches!(check_bytes(b"{\"export\":1}"), Err(BackupError::NotABackup)));
    assert!(matches!(check_bytes(b""), Err(BackupError::CutShort { at: 0 })));
}

#[test]
fn chunks_that_changed_places_or_come_twice_are_found() {
    let bytes = written(store(3000));
    let mut starts = vec![104];
    loop {
        let at = *starts.last().unwrap();
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if length == 0 {
            break;
        }
        starts.push(at + 8 + length);
    }
    assert!(starts.len() > 8, "several chunks");
    let chunk = |number: usize| &bytes[starts[number]..starts[number + 1]];
    let (head, rest) = (&bytes[..starts[1]], &bytes[starts[3]..]);
    assert_eq!([head, chunk(1), chunk(2), rest].concat(), bytes);
    for wrong in [
        [head, chunk(2), chunk(1), rest].concat(),
        [head, chunk(1), chunk(1), chunk(2), rest].concat(),
        [head, chunk(2), rest].concat(),
        // The end of another backup.
        [&bytes[..*starts.last().unwrap()], &written(rich())[written(rich()).len() - 32..]].concat(),
    ] {
        assert!(check_bytes(&wrong).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_reader_panic(
        bytes in vec(any::<u8>(), 0..600), edits in vec((any::<u16>(), any::<u8>()), 0..4), piece in 1usize..300
    ) {
        let _ = read(&bytes, piece);
        let sound = written(rich());
        let mut edited = sound.clone();
        for (at, byte) in edits {
            let at = usize::from(at) % edited.len();
            edited[at] = byte;
        }
        assert_eq!(read(&edited, piece).is_ok(), edited == sound);
        let _ = read(&[&sound[..104], &bytes].concat(), piece);
    }
}

fn restored_state(store: Store) -> RestoredState {
    let member = Member {
        name: "node1".into(),
        raft_addr: "localhost:8000".into(),
        http_addr: "localhost:8001".into(),
        store_id: StoreId(31),
    };
    RestoredState { cluster: ClusterId(30), predecessor: Some(ClusterId(29)), member, last: last(), store }
}

#[test]
fn a_restored_directory_opens_as_a_cluster_of_one_with_the_state() {
    let disk = MemoryDisk::new();
    let identity = restore(&disk, &options(), restored_state(rich())).unwrap();
    // As if the power failed right after.
    disk.crash(|_| false);
    let (storage, opened) = open(&disk).unwrap();
    assert_eq!((opened.identity.clone(), opened.identity.cluster), (identity, ClusterId(30)));
    assert_eq!(opened.store.state_hash(), rich().state_hash());
    let snapshot = opened.restored.snapshot.unwrap();
    assert_eq!((snapshot.last, snapshot.membership.members.len()), (last(), 1));
    assert_eq!((opened.restored.hard_state.term, opened.restored.entries.len()), (Term::new(4), 0));
    assert!(!opened.notes.contains(&RecoveryNote::Created));
    drop(storage);
    assert!(open(&disk).is_ok(), "and again");
}

#[test]
fn a_restore_overwrites_nothing() {
    let refused = |disk: &MemoryDisk| {
        let before = disk.files();
        let error = restore(disk, &options(), restored_state(rich())).unwrap_err();
        assert!(matches!(error, OpenError::NotEmpty { .. }), "{error}");
        assert_eq!(disk.files(), before);
    };
    let with_data = MemoryDisk::new();
    drop(Storage::open(with_data.clone(), options(), &bootstrap()).unwrap());
    refused(&with_data);
    let identity = Path::new(DIR).join("identity");
    with_data.remove(&identity).unwrap();
    refused(&with_data);
    let with_a_file = MemoryDisk::new();
    with_a_file.create_dir_all(Path::new(DIR)).unwrap();
    with_a_file.create(&Path::new(DIR).join("notes.txt")).unwrap().write_at(b"x", 0).unwrap();
    refused(&with_a_file);
    let empty = MemoryDisk::new();
    empty.create_dir_all(Path::new(DIR)).unwrap();
    restore(&empty, &options(), restored_state(rich())).unwrap();
    refused(&empty);
}

#[test]
fn a_restore_that_fails_anywhere_leaves_no_data_that_looks_whole() {
    let mut failures = 0;
    for after in 0.. {
        let disk = MemoryDisk::new();
        disk.fail(FaultKind::SyncData, "", after, ErrorKind::Other);
        if restore(&disk, &options(), restored_state(rich())).is_ok() {
            break;
        }
        failures += 1;
        disk.crash(|_| true);
        assert!(!disk.files().contains(&Path::new(DIR).join("identity")), "failed at sync {after}");
    }
    assert!(failures >= 3, "{failures}");
}

#[test]
fn no_node_starts_on_what_a_restore_left_and_it_may_be_restored_again() {
    let whole = MemoryDisk::new();
    restore(&whole, &options(), restored_state(rich())).unwrap();
    let mut interrupted = 0;
    for changes in 0..whole.changes() {
        let disk = MemoryDisk::new();
        disk.fail_power_after(changes);
        restore(&disk, &options(), restored_state(rich())).unwrap_err();
        disk.crash(|_| true);
        // Until the restore has said so, there is nothing, as after a restore that never began.
        let has_begun = disk.files().iter().any(|file| file.ends_with("identity.restoring"));
        let (has_identity, untouched) =
            (disk.files().contains(&Path::new(DIR).join("identity")), disk.copy());
        if has_begun && !has_identity {
            interrupted += 1;
            let error = open(&disk).map(|_| ()).unwrap_err();
            assert!(matches!(error, OpenError::RestoreInterrupted { .. }), "after {changes}: {error}");
        }
        if !has_identity {
            restore(&untouched, &options(), restored_state(rich())).unwrap();
        }
        let (_storage, opened) = open(&untouched).unwrap();
        assert_eq!(opened.store.state_hash(), rich().state_hash(), "after {changes}");
    }
    assert!(interrupted > 5, "{interrupted}");
}

/// A member with the rich state.
fn a_member() -> (MemoryDisk, Store) {
    let disk = MemoryDisk::new();
    restore(&disk, &options(), restored_state(rich())).unwrap();
    let (storage, _) = open(&disk).unwrap();
    storage.close().unwrap();
    (disk, rich())
}

#[test]
fn a_recovery_leaves_the_old_member_or_the_new_cluster_wherever_the_power_fails() {
    let mut old = 0;
    for changes in 0.. {
        let (disk, state) = a_member();
        let remains = Remains::of(disk.clone(), options()).unwrap();
        assert_eq!((remains.last(), remains.member_names()), (last(), vec!["node1"]));
        disk.fail_power_after(changes);
        let is_done = remains.recover(ClusterId(40), StoreId(41)).is_ok();
        disk.crash(|question| question % 2 == 0);
        let (_storage, opened) = open(&disk).unwrap();
        assert_eq!(opened.store.state_hash(), state.state_hash(), "the power failed after {changes} changes");
        let cluster = opened.identity.cluster;
        assert!(cluster == ClusterId(40) || cluster == ClusterId(30) && !is_done);
        if is_done {
            break;
        }
        old += usize::from(cluster == ClusterId(30));
    }
    assert!(old > 3, "{old}");
}

#[test]
fn a_backup_of_a_later_release_is_not_restored() {
    let disk = MemoryDisk::new();
    let mut state = restored_state(rich());
    state.store.raise_level(FeatureLevel::NEWEST);
    let options = StorageOptions { speaks: FeatureLevels::only(FeatureLevel::OLDEST), ..options() };
    let refused = restore(&disk, &options, state);
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("feature level"), "{error}");
    assert!(disk.files().is_empty(), "nothing is made");
}
