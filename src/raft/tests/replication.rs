//! Replication: Raft §5.3, §5.4, and the traps around it.

use crate::raft::tests::harness::{Cluster, id, index};
use crate::raft::{Body, Config, Input, Message};

#[test]
fn a_proposal_is_committed_and_applied_everywhere() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, "a").unwrap();
    cluster.propose(1, "b").unwrap();
    cluster.run();
    for number in 1..=3 {
        assert_eq!(cluster.commands(number), ["a", "b"], "without waiting for a heartbeat");
        assert_eq!(cluster.raft(number).commit_index(), index(4));
    }
}

#[test]
fn a_follower_that_was_away_catches_up() {
    let mut cluster = behind(Config::default(), 50);
    cluster.advance(500_000);
    assert_eq!(cluster.commands(3).len(), 50);
    cluster.check_log_matching();
}

/// Node 1 leads, and node 3 lacks `entries` entries. Nothing is cut any more.
fn behind(config: Config, entries: usize) -> Cluster {
    let mut cluster = Cluster::with(3, config);
    cluster.elect(1);
    cluster.isolate(3);
    for number in 0..entries {
        cluster.propose(1, &number.to_string()).unwrap();
    }
    cluster.run();
    cluster.heal();
    cluster
}

/// Entries that are on their way from 1 to 3 with this message.
fn entries_to_3(message: &Message) -> usize {
    match &message.body {
        Body::AppendEntries { entries, .. } if message.to == id(3) => entries.len(),
        _ => 0,
    }
}

#[test]
fn appends_that_overtake_each_other_are_not_sent_again_and_again() {
    let mut cluster = behind(Config { append_bytes_max: 1, ..Config::default() }, 300);
    let (mut sent, mut random) = (0, 1_u64);
    while cluster.commands(3).len() < 300 {
        if cluster.network.is_empty() {
            cluster.now += cluster.config.heartbeat_interval_micros;
            cluster.step(1, Input::Wake).unwrap();
        }
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let any = (random >> 33) as usize % cluster.network.len().max(1);
        if let Some(message) = cluster.network.remove(any) {
            sent += entries_to_3(&message);
            cluster.deliver(message);
        }
        (1..=3).for_each(|number| _ = cluster.sync(number));
        assert!(sent < 4 * 300, "{} of 300 arrived after {sent} were sent", cluster.commands(3).len());
    }
}

/// Takes the append to node 3 that begins after this entry from the network, and delivers it.
fn deliver_to_3(cluster: &mut Cluster, after: u64) {
    let begins = |message: &Message| matches!(&message.body, Body::AppendEntries { prev, .. } if prev.index == index(after));
    let at = cluster.network.iter().position(|message| message.to == id(3) && begins(message));
    let message = cluster.network.remove(at.unwrap()).unwrap();
    cluster.deliver(message);
}

/// Two appends overtake the one before them, and their answers arrive in this order: entries that
/// are sent for it.
fn sent_again(order: [usize; 3]) -> usize {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.run();
    cluster.isolate(2);
    for data in ["a", "b", "c"] {
        cluster.propose(1, data).unwrap();
    }
    for after in [3, 4, 2] {
        deliver_to_3(&mut cluster, after);
    }
    cluster.sync(3);
    let answers: Vec<Message> = cluster
        .network
        .drain(..)
        .filter(|it| matches!(it.body, Body::AppendRejected { .. } | Body::AppendAccepted { .. }))
        .collect();
    assert_eq!(answers.len(), 3, "two rejections, and what was accepted: {answers:?}");
    for number in order {
        cluster.deliver(answers[number].clone());
    }
    cluster.network.iter().map(entries_to_3).sum()
}

#[test]
fn an_answer_from_before_a_probe_does_not_have_its_entries_sent_once_more() {
    // One of three entries has arrived: a leader that does not know that yet sends it again with
    // the others.
    for (order, most) in
        [([0, 1, 2], 3), ([0, 2, 1], 3), ([1, 0, 2], 3), ([1, 2, 0], 3), ([2, 0, 1], 2), ([2, 1, 0], 2)]
    {
        let sent = sent_again(order);
        assert!(sent <= most, "{sent} entries were sent again, and {most} were enough: {order:?}");
    }
}
