//! Snapshots that are being sent stay readable, whatever takes their places, and no longer.

use crate::raft::{LogRecords, NodeId, Session, SnapshotMeta, SnapshotRead};
use crate::storage::tests::kit::{entries, open, save_request, store, write};
use crate::storage::{MemoryDisk, SnapshotFiles};

fn read(to: u64, meta: &SnapshotMeta, offset: u64) -> SnapshotRead {
    let (to, session) = (NodeId::new(to), Session::new(4));
    SnapshotRead { to, session, snapshot: meta.last, offset, bytes_max: 20_000 }
}

fn reads(files: &SnapshotFiles<MemoryDisk>, to: u64, meta: &SnapshotMeta, offset: u64) -> bool {
    files.read_chunk(&read(to, meta, offset)).is_ok()
}

/// Five snapshots of which a peer each has got the first chunk. The names of all but the two newest
/// are gone.
fn being_sent() -> (SnapshotFiles<MemoryDisk>, Vec<SnapshotMeta>) {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    let (files, content) = (storage.snapshot_files(), store(700));
    write(&mut storage, vec![entries(2, 19, 1, 10)]).unwrap();
    let mut metas = Vec::new();
    for peer in 2..=6_u64 {
        let meta = files.save(save_request(peer * 2, 1, &content)).unwrap();
        let marker = LogRecords { snapshot: Some(Box::new(meta.clone())), ..LogRecords::default() };
        write(&mut storage, vec![marker]).unwrap();
        assert!(reads(&files, peer, &meta, 0));
        metas.push(meta);
    }
    assert!(disk.content(&files.path(metas[2].last)).is_none(), "its name is gone");
    (files, metas)
}

#[test]
fn transfers_of_several_snapshots_do_not_end_each_other() {
    let (files, metas) = being_sent();
    for offset in [20_000, 40_000] {
        for (peer, meta) in (2..).zip(&metas) {
            assert!(reads(&files, peer, meta, offset), "member {peer} is being sent {}", meta.last);
        }
    }
}

#[test]
fn a_transfer_that_has_ended_gives_its_room_back_when_others_need_it() {
    let (files, metas) = being_sent();
    let (first, newest) = (&metas[0], &metas[4]);
    // Its last chunk.
    assert!(reads(&files, 2, first, first.bytes - 10));
    // Another one was given up, and its peer is sent the newest one.
    assert!(reads(&files, 3, newest, 0));
    assert!(!reads(&files, 2, first, 0) && !reads(&files, 3, &metas[1], 0));
    assert!(reads(&files, 4, &metas[2], 20_000), "others go on");
    // A peer that is gone holds nothing for ever.
    for _ in 0..1_100 {
        assert!(reads(&files, 6, newest, 0) && reads(&files, 5, &metas[3], 0));
    }
    assert!(!reads(&files, 4, &metas[2], 40_000));
}
