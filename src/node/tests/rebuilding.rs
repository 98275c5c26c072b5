//! A member whose state differs from a majority's sets its data aside, and joins anew by itself.

use crate::node::NodeExit;
use crate::node::handle::DriverOrder;
use crate::node::tests::cluster::{TestNode, is_set};
use crate::raft::{LogIndex, Withdrawal};
use crate::runtime::Alarm;
use crate::storage::Disk;
use std::path::Path;
use std::time::Duration;

#[tokio::test]
async fn a_member_that_has_come_back_three_times_stays_withdrawn() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    for number in 1..=3 {
        let dir = format!("/data/damaged-{number}");
        b.disk.create_dir_all(Path::new(&dir)).unwrap();
        drop(b.disk.create(&Path::new(&dir).join("rebuild")).unwrap());
    }
    let why = Withdrawal::Diverged { index: LogIndex::new(256) };
    b.handle().orders.send(DriverOrder::Withdraw(why)).await.unwrap();
    let gave_up = |alarms: &[Alarm]| alarms.iter().any(|it| it.text.contains("set its data aside 3 times"));
    while !gave_up(&b.metrics.alarm_board.list()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let status = b.handle().status().await;
    assert!(status.replica.withdrawn.is_some(), "it takes no part: {status:?}");
    assert!(b.disk.content(Path::new("/data/rebuild")).is_none(), "nothing is set aside at the next start");
    let disk = b.disk.clone();
    assert_eq!(b.stop().await, NodeExit::Stopped);
    // Another start has the same state.
    let again = TestNode::start_with("b", disk.clone(), |_| {}).await;
    let status = again.handle().status().await;
    assert!(status.replica.withdrawn.is_some(), "it takes no part: {status:?}");
    assert_eq!(again.stop().await, NodeExit::Stopped);
    // A person has looked into it, and wants it back.
    for number in 1..=3 {
        disk.remove_dir_all(Path::new(&format!("/data/damaged-{number}"))).unwrap();
    }
    let back = TestNode::start_with("b", disk.clone(), |_| {}).await;
    while !back.handle().status().await.has_data {
        tokio::task::yield_now().await;
    }
    assert!(back.handle().status().await.replica.withdrawn.is_none(), "it has joined anew");
    assert!(disk.content(Path::new("/data/damaged-1/rebuild")).is_some(), "and is counted");
}

#[tokio::test]
async fn a_member_whose_state_differs_comes_back_as_a_new_one_and_says_so() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    assert!(is_set(&b.set("k", "v").await));
    let why = Withdrawal::Diverged { index: LogIndex::new(256) };
    b.handle().orders.send(DriverOrder::Withdraw(why)).await.unwrap();
    let exit = b.node.stopped().await;
    assert!(matches!(&exit, NodeExit::Rebuild(said) if said.contains("256")), "{exit:?}");
    let was = a.handle().status().await.replica.members.iter().map(|it| it.id).collect::<Vec<_>>();
    let back = TestNode::start_with("b", b.disk.clone(), |_| {}).await;
    while !back.handle().status().await.has_data {
        tokio::task::yield_now().await;
    }
    assert_eq!(back.get("k").await.as_deref(), Some("v"));
    // The old member leaves with the change that makes the new one a voter.
    let members = loop {
        let members = a.handle().status().await.replica.members;
        if members.len() == 3 {
            break members;
        }
        tokio::task::yield_now().await;
    };
    assert!(members.iter().any(|member| !was.contains(&member.id)), "it is a new member: {members:?}");
    assert!(back.disk.files().iter().any(|file| file.starts_with(Path::new("/data/damaged-1"))));
    let alarms = back.metrics.alarm_board.list();
    assert!(alarms.iter().any(|alarm| alarm.kind == "state-differed"), "{alarms:?}");
    // The next start is one as any other.
    let disk = back.disk.clone();
    assert_eq!(back.stop().await, NodeExit::Stopped);
    let again = TestNode::start_with("b", disk, |_| {}).await;
    assert_eq!(again.get("k").await.as_deref(), Some("v"));
}
