//! A running node finds damage on its disk, and replaces what is damaged.

use crate::node::tests::cluster::{TestNode, is_set};
use crate::node::{NodeExit, ScrubOptions};
use crate::storage::{Disk, DiskFile, MemoryDisk};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A node alone that reads all it has at rest again and again.
async fn scrubbing_node() -> TestNode {
    TestNode::start_with("a", MemoryDisk::new(), |options| {
        options.segment_bytes = 64 << 10;
        options.scrub = ScrubOptions { bytes_per_second: 1 << 30, rest_micros: 10_000 };
    })
    .await
}

fn files(disk: &MemoryDisk, end: &str) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|file| file.extension().is_some_and(|it| it == end)).collect()
}

fn flip(disk: &MemoryDisk, file: &Path, at: u64) {
    let file = disk.open(file).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, at).unwrap();
    file.write_at(&[byte[0] ^ 1], at).unwrap();
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain: {what}");
}

#[tokio::test]
async fn a_node_alone_misses_files_that_somebody_removed_and_writes_them_anew() {
    let node = scrubbing_node().await;
    let value = "v".repeat(3_000);
    let fill = async |from: usize| {
        for key in from..from + 40 {
            assert!(is_set(&node.set(&format!("key-{key}"), &value).await));
        }
    };
    fill(0).await;
    let segment = files(&node.disk, "seg")[0].clone();
    node.disk.remove(&segment).unwrap();
    until("a snapshot to take its place", || files(&node.disk, "snap").len() == 1).await;
    until("it to be noted", || node.metrics.scrub.status().mended == 1).await;
    // The newest snapshot, and then the segment that is being written.
    let snapshot = files(&node.disk, "snap")[0].clone();
    node.disk.remove(&snapshot).unwrap();
    until("the snapshot to be there again", || node.metrics.scrub.status().mended == 2).await;
    assert!(!files(&node.disk, "snap").is_empty());
    fill(40).await;
    let active = files(&node.disk, "seg").last().unwrap().clone();
    node.disk.remove(&active).unwrap();
    until("the log to go on elsewhere", || node.metrics.scrub.status().mended == 3).await;
    fill(80).await;
    let alarms = node.metrics.alarm_board.list();
    assert_eq!(alarms.len(), 3, "{alarms:?}");
    assert!(alarms.iter().all(|alarm| alarm.text.contains("it is gone")), "{alarms:?}");
    let disk = node.disk.clone();
    node.node.stop();
    assert_eq!(node.node.stopped().await, NodeExit::Stopped);
    let back = TestNode::start_with("a", disk, |_| {}).await;
    for key in 0..120 {
        assert_eq!(back.get(&format!("key-{key}")).await.as_deref(), Some(&*value), "{key}");
    }
}

#[tokio::test]
async fn a_file_that_is_damaged_another_time_raises_another_alarm() {
    let node = scrubbing_node().await;
    let value = "v".repeat(3_000);
    for key in 0..40 {
        assert!(is_set(&node.set(&format!("key-{key}"), &value).await));
    }
    // A damaged segment brings the first snapshot.
    flip(&node.disk, &files(&node.disk, "seg")[0], 9_000);
    until("a snapshot", || node.metrics.scrub.status().mended == 1).await;
    for round in 2..4 {
        for alarm in node.metrics.alarm_board.list() {
            assert!(node.metrics.alarm_board.acknowledge(alarm.id).is_some());
        }
        let snapshot = files(&node.disk, "snap").last().unwrap().clone();
        flip(&node.disk, &snapshot, 6_000);
        until("it to be mended", || node.metrics.scrub.status().mended == round).await;
        let alarms = node.metrics.alarm_board.list();
        assert!(alarms.len() == 1 && alarms[0].text.contains(".snap"), "round {round}: {alarms:?}");
    }
}

#[tokio::test]
async fn a_damaged_note_of_the_alarms_is_an_alarm() {
    let node = TestNode::start("a").await;
    node.metrics.alarm_board.raise("damage", "a file", true);
    let disk = node.disk.clone();
    assert_eq!(node.stop().await, NodeExit::Stopped);
    let note = Path::new("/data/alarms");
    assert!(disk.flip_bit(note, 40, 1), "it was written at the end at the latest");
    let back = TestNode::start_with("a", disk, |_| {}).await;
    let alarms = back.metrics.alarm_board.list();
    assert_eq!(alarms.iter().map(|alarm| &*alarm.kind).collect::<Vec<_>>(), ["alarms-lost"], "{alarms:?}");
    assert!(alarms[0].id > 1_000_000, "no number is given twice: {alarms:?}");
    let disk = back.disk.clone();
    assert_eq!(back.stop().await, NodeExit::Stopped);
    let again = TestNode::start_with("a", disk, |_| {}).await;
    assert_eq!(again.metrics.alarm_board.list(), alarms, "the note is sound again");
}

#[tokio::test]
async fn a_repaired_directory_says_so_before_it_counts_as_whole() {
    let node = TestNode::start_with("a", MemoryDisk::new(), |options| {
        // One for each round below: none is under way at the end.
        options.replica.snapshot_log_entries = 40;
        options.segment_bytes = 64 << 10;
    })
    .await;
    let disk = node.disk.clone();
    for _ in 0..3 {
        let before = files(&disk, "snap").last().cloned();
        for key in 0..40 {
            assert!(is_set(&node.set(&format!("key-{}", key % 7), &"v".repeat(3_000)).await));
        }
        until("a newer snapshot", || files(&disk, "snap").last().cloned() > before).await;
    }
    until("the last two alone", || files(&disk, "snap").len() == 2).await;
    assert_eq!(node.stop().await, NodeExit::Stopped);
    let snapshots = files(&disk, "snap");
    assert_eq!(snapshots.len(), 2);
    // What the newest snapshot covers is damaged, and so is the older snapshot.
    flip(&disk, &files(&disk, "seg")[0], 9_000);
    flip(&disk, &snapshots[0], 6_000);
    let back = TestNode::start_with("a", disk.clone(), |_| {}).await;
    assert_eq!(back.metrics.repair.status().mended, 1);
    // Nothing of the node has run yet but its start.
    let note = String::from_utf8(disk.content(Path::new("/data/alarms")).unwrap()).unwrap();
    assert!(note.contains("repaired"), "{note}");
}

#[tokio::test]
async fn a_node_alone_mends_a_damaged_segment_and_a_damaged_snapshot_out_of_its_memory() {
    let node = scrubbing_node().await;
    let value = "v".repeat(3_000);
    for key in 0..100 {
        assert!(is_set(&node.set(&format!("key-{key}"), &value).await));
    }
    let damaged = files(&node.disk, "seg")[0].clone();
    flip(&node.disk, &damaged, 9_000);
    until("the segment to go", || !files(&node.disk, "seg").contains(&damaged)).await;
    until("it to be noted", || node.metrics.scrub.status().mended == 1).await;
    let alarms = node.metrics.alarm_board.list();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert!(alarms[0].kind == "damage" && alarms[0].text.contains(".seg"), "{alarms:?}");
    // The snapshot that took its place.
    let snapshot = files(&node.disk, "snap").last().unwrap().clone();
    flip(&node.disk, &snapshot, 6_000);
    until("the snapshot to be mended", || node.metrics.scrub.status().mended == 2).await;
    assert!(is_set(&node.set("last", "v").await));
    let disk = node.disk.clone();
    node.stop().await;
    let back = TestNode::start_with("a", disk, |_| {}).await;
    assert_eq!(back.get("key-0").await, Some(value));
    assert_eq!(back.get("last").await.as_deref(), Some("v"));
    assert_eq!(back.metrics.alarm_board.list().len(), 2, "alarms outlive the process");
    assert_eq!(back.metrics.alarm_board.acknowledge(1).map(|alarm| alarm.id), Some(1));
    back.handle().note_alarms().await;
    let disk = back.disk.clone();
    back.stop().await;
    let again = TestNode::start_with("a", disk, |_| {}).await;
    assert_eq!(again.metrics.alarm_board.list().len(), 1, "until they are acknowledged");
}

#[tokio::test]
async fn a_node_writes_its_identity_anew_if_somebody_removed_or_changed_it() {
    let node = scrubbing_node().await;
    assert!(is_set(&node.set("k", "v").await));
    let (identity, started) = (Path::new("/data/identity"), Path::new("/data/started"));
    let written = node.disk.content(identity);
    node.disk.remove(identity).unwrap();
    until("the identity to be there again", || node.metrics.scrub.status().mended == 1).await;
    assert_eq!(node.disk.content(identity), written);
    assert!(node.disk.flip_bit(identity, 40, 1));
    until("the identity to be as it was", || node.metrics.scrub.status().mended == 2).await;
    assert_eq!(node.disk.content(identity), written);
    node.disk.remove(started).unwrap();
    until("the number of the start to be there again", || node.metrics.scrub.status().mended == 3).await;
    let alarms = node.metrics.alarm_board.list();
    assert!(alarms.iter().all(|alarm| alarm.kind == "damage"), "{alarms:?}");
    assert!(alarms.iter().any(|alarm| alarm.text.contains("identity is damaged on the disk: it is gone")));
    let disk = node.disk.clone();
    assert_eq!(node.stop().await, NodeExit::Stopped);
    let back = TestNode::start_with("a", disk, |_| {}).await;
    assert_eq!(back.get("k").await.as_deref(), Some("v"));
}
