//! A running node finds damage on its disk, and replaces what is damaged.

use crate::node::ScrubOptions;
use crate::node::tests::cluster::{TestNode, is_set};
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
