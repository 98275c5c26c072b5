//! What clients see when leaders fail.

use crate::raft::{Body, Change, EntryKind, LogIndex, RoleName};
use crate::replica::tests::{Cluster, id};
use crate::replica::{
    ClientError, ClientReply, ClientRequest, Event, Level, PeerMessage, ReplicaConfig, StorageEvent,
};

#[test]
fn a_write_without_a_leader_waits_for_one() {
    let mut cluster = Cluster::without_leader(3, &Default::default());
    let write = cluster.write(id(2), "k", "v");
    assert!(matches!(cluster.run_until_answered(write), ClientReply::Written(_)));
}

#[test]
fn a_write_that_never_found_a_leader_is_not_appended_and_a_read_has_no_quorum() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    cluster.isolate(follower);
    cluster.run(3_000_000);
    assert_ne!(cluster.replicas[&follower].raft().role(), RoleName::Leader);
    let (write, read) = (cluster.write(follower, "k", "v"), cluster.read(follower, "k", Level::Linearizable));
    assert_eq!(cluster.run_until_answered(write), ClientReply::Failed(ClientError::NoLeader));
    assert_eq!(cluster.run_until_answered(read), ClientReply::Failed(ClientError::NoQuorum));
    let local = cluster.read(follower, "k", Level::Local);
    assert_eq!(cluster.value(local), Some("nothing".into()), "local reads are always served");
}

#[test]
fn a_write_that_a_cut_off_leader_proposed_is_unknown_when_its_time_is_up() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cluster.isolate(leader);
    let write = cluster.write(leader, "k", "v");
    assert_eq!(cluster.run_until_answered(write), ClientReply::Failed(ClientError::Unknown));
}

#[test]
fn a_leader_that_gives_up_has_not_handed_over() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cluster.isolate(leader);
    let transfer = cluster.ask(leader, ClientRequest::TransferLeadership(None));
    assert_eq!(cluster.run_until_answered(transfer), ClientReply::Failed(ClientError::Unknown));
    assert_ne!(cluster.replicas[&leader].raft().role(), RoleName::Leader, "and leads no longer");
}

#[test]
fn a_write_that_a_deposed_leader_proposed_in_vain_is_proven_lost_and_sent_again() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cluster.isolate(leader);
    let write = cluster.write(leader, "k", "v");
    cluster.run_until_succeeded(leader);
    assert_eq!(cluster.reply(write), None);
    cluster.heal();
    assert!(matches!(cluster.run_until_answered(write), ClientReply::Written(_)));
    let version = |node| cluster.replicas[&id(node)].store().get(b"k").map(|value| value.version);
    assert_eq!(version(leader.get()), Some(1), "it was applied once");
}

fn take_forwards(cluster: &mut Cluster) -> Vec<PeerMessage> {
    let (forwards, rest) = std::mem::take(&mut cluster.network)
        .into_iter()
        .partition(|message| matches!(message, PeerMessage::Forward(_)));
    cluster.network = rest;
    Vec::from_iter::<std::collections::VecDeque<_>>(forwards)
}

#[test]
fn a_forward_that_was_lost_is_sent_again_under_its_number() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    let write = cluster.write(follower, "k", "v");
    let lost = take_forwards(&mut cluster);
    assert_eq!(lost.len(), 1);
    cluster.run(400_000);
    assert!(matches!(cluster.reply(write), Some(ClientReply::Written(_))), "{:?}", cluster.reply(write));
    // It was late, and not lost.
    cluster.network.extend(lost);
    cluster.run(1_000_000);
    let versions: Vec<_> =
        cluster.replicas.values().map(|r| r.store().get(b"k").map(|v| v.version)).collect();
    assert_eq!(versions, [Some(1); 3], "applied once");
}

#[test]
fn the_newest_of_lost_forwards_proves_that_the_others_were_lost() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    let writes = ["1", "2", "3"].map(|value| cluster.write(follower, "k", value));
    let lost = take_forwards(&mut cluster);
    cluster.run(500_000);
    for write in writes {
        assert!(matches!(cluster.reply(write), Some(ClientReply::Written(_))), "{:?}", cluster.reply(write));
    }
    cluster.network.extend(lost);
    cluster.run(1_000_000);
    let versions: Vec<_> =
        cluster.replicas.values().map(|r| r.store().get(b"k").map(|v| v.version)).collect();
    assert_eq!(versions, [Some(3); 3], "each was applied once");
}

#[test]
fn a_forward_is_sent_again_a_few_times_while_nothing_is_committed() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    cluster.disks_work = false;
    let writes = ["1", "2", "3"].map(|value| cluster.write(follower, "k", value));
    cluster.run(4_000_000);
    assert!((4..=12).contains(&cluster.forwards), "{}", cluster.forwards);
    cluster.disks_work = true;
    for write in writes {
        assert!(matches!(cluster.run_until_answered(write), ClientReply::Written(_)));
    }
    let version = cluster.replicas[&follower].store().get(b"k").map(|value| value.version);
    assert_eq!(version, Some(3), "each was applied once");
}

#[test]
fn a_forward_that_never_came_goes_to_the_leader_of_a_later_term() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.cut.insert((follower, leader));
    let write = cluster.write(follower, "k", "v");
    cluster.run(1_000_000);
    assert_eq!(cluster.reply(write), None, "it may be on its way still");
    let transfer = cluster.ask(leader, ClientRequest::TransferLeadership(None));
    assert_eq!(cluster.run_until_answered(transfer), ClientReply::Transferred);
    assert!(matches!(cluster.run_until_answered(write), ClientReply::Written(_)));
}

#[test]
fn a_forward_that_a_later_one_overtook_is_sent_again_and_applied_once() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    let (first, second) = (cluster.write(follower, "k", "1"), cluster.write(follower, "k", "2"));
    let forwards = |cluster: &Cluster| {
        let is_forward = |message: &&PeerMessage| matches!(message, PeerMessage::Forward(_));
        cluster.network.iter().filter(is_forward).cloned().collect::<Vec<_>>()
    };
    let [overtaken, _] = &forwards(&cluster)[..] else { panic!("each is forwarded for itself") };
    cluster.network.retain(|message| message != overtaken);
    assert!(matches!(cluster.run_until_answered(second), ClientReply::Written(_)));
    cluster.network.push_back(overtaken.clone());
    cluster.run(200_000);
    assert!(
        matches!(cluster.reply(first), Some(ClientReply::Written(_))),
        "the log proves that it is not in it"
    );
    cluster.network.push_back(overtaken.clone());
    cluster.run(200_000);
    let value = cluster.replicas[&leader].store().get(b"k").unwrap();
    assert_eq!((value.version, &value.value[..]), (2, &b"1"[..]), "each was applied once");
}

#[test]
fn a_forward_to_a_leader_that_is_none_any_more_is_refused_and_goes_to_the_new_one() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    let write = cluster.write(follower, "k", "v");
    let forward = cluster.network.pop_front().expect("it is forwarded");
    cluster.isolate(leader);
    cluster.run_until_succeeded(leader);
    cluster.heal();
    cluster.network.push_back(forward);
    assert!(matches!(cluster.run_until_answered(write), ClientReply::Written(_)));
    cluster.run(500_000);
    let versions: Vec<_> =
        cluster.replicas.values().map(|r| r.store().get(b"k").map(|v| v.version)).collect();
    assert_eq!(versions, [Some(1); 3]);
}

#[test]
fn a_cut_off_leader_serves_no_linearizable_read() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let write = cluster.write(leader, "k", "old");
    cluster.run_until_answered(write);
    cluster.isolate(leader);
    let stale = cluster.read(leader, "k", Level::Linearizable);
    let new = cluster.run_until_succeeded(leader);
    let write = cluster.write(new, "k", "new");
    cluster.run_until_answered(write);
    assert_eq!(cluster.reply(stale), None);
    cluster.heal();
    cluster.run_until_answered(stale);
    assert_eq!(cluster.value(stale), Some("new".into()), "once it follows, the read goes to the new leader");
}

#[test]
fn nothing_is_answered_before_a_quorum_is_durable() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cluster.disks_work = false;
    let write = cluster.write(leader, "k", "v");
    cluster.run(50_000);
    assert_eq!(cluster.reply(write), None);
    cluster.disks_work = true;
    assert!(matches!(cluster.run_until_answered(write), ClientReply::Written(_)));
}

#[test]
fn a_second_copy_of_a_forward_that_was_proposed_is_not_refused_by_a_leader_that_has_stepped_down() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    let write = cluster.write(follower, "k", "v");
    let copy = cluster.network.front().cloned().expect("it is forwarded");
    assert!(matches!(copy, PeerMessage::Forward(_)));
    // The leader proposes it; then it is cut off before the origin learns of the commit, and steps
    // down.
    let origin = follower;
    cluster.cut.insert((leader, origin));
    cluster.deliver();
    cluster.isolate(leader);
    cluster.run_until(|cluster| cluster.replicas[&leader].raft().role() != RoleName::Leader);
    // The second copy arrives, and whatever is answered reaches the origin.
    cluster.give(leader, Event::Peer(copy));
    cluster.cut.remove(&(leader, origin));
    cluster.deliver();
    cluster.heal();
    cluster.run_until_answered(write);
    cluster.run(1_000_000);
    let versions: Vec<_> =
        cluster.replicas.values().map(|r| r.store().get(b"k").map(|v| v.version)).collect();
    assert_eq!(versions, [Some(1); 3], "applied once");
}

#[test]
fn a_leader_that_was_elected_on_a_full_disk_hands_over() {
    let mut cluster = Cluster::new(3);
    let (leader, full) = (cluster.leader().unwrap(), cluster.follower());
    cluster.give(full, Event::Storage(StorageEvent::DiskFull(true)));
    let transfer = cluster.ask(leader, ClientRequest::TransferLeadership(Some(full)));
    assert_eq!(cluster.run_until_answered(transfer), ClientReply::Transferred);
    assert_eq!(cluster.leader(), Some(full));
    let next = cluster.run_until_succeeded(full);
    let write = cluster.write(next, "k", "v");
    assert!(matches!(cluster.run_until_answered(write), ClientReply::Written(_)));
}

#[test]
fn a_second_copy_of_a_forward_that_was_proposed_is_not_refused_by_a_leader_that_was_restarted() {
    let mut cluster = Cluster::new(3);
    let (leader, origin) = (cluster.leader().unwrap(), cluster.follower());
    let write = cluster.write(origin, "k", "v");
    let copy = cluster.network.front().cloned().expect("it is forwarded");
    // The leader commits it with the third; the origin does not learn of it.
    cluster.cut.insert((leader, origin));
    cluster.deliver();
    // The next life of the leader does not know what it proposed in this term.
    cluster.restart(leader);
    cluster.heal();
    cluster.give(leader, Event::Peer(copy));
    cluster.run_until_answered(write);
    cluster.run(1_000_000);
    let versions: Vec<_> =
        cluster.replicas.values().map(|r| r.store().get(b"k").map(|v| v.version)).collect();
    assert_eq!(versions, [Some(1); 3], "applied once");
}

#[test]
fn a_restarted_node_without_a_quorum_denies_no_key_that_it_knew_to_be_committed() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    let leader = cluster.leader().unwrap();
    let write = cluster.write(leader, "k", "v");
    cluster.run_until_answered(write);
    cluster.run(200_000);
    cluster.isolate(follower);
    cluster.restart(follower);
    assert!(cluster.replicas[&follower].status(cluster.now).starting);
    let read = cluster.read(follower, "k", Level::Local);
    assert_eq!(cluster.reply(read), Some(&ClientReply::Failed(ClientError::Starting)), "not yet applied");
    cluster.run(1_000);
    assert!(!cluster.replicas[&follower].status(cluster.now).starting);
    let read = cluster.read(follower, "k", Level::Local);
    assert_eq!(cluster.value(read), Some("v".into()));
}

#[test]
fn a_node_that_has_applied_nothing_denies_no_key() {
    let mut cluster = Cluster::without_leader(3, &Default::default());
    let read = cluster.read(id(2), "k", Level::Local);
    assert_eq!(cluster.reply(read), Some(&ClientReply::Failed(ClientError::Starting)));
    cluster.elect();
    let read = cluster.read(id(2), "k", Level::Local);
    assert_eq!(cluster.value(read), Some("nothing".into()));
}

#[test]
fn the_storage_is_told_of_each_advance_of_the_commit_index_once_and_behind_its_entries() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cluster.run(200_000);
    cluster.disks_work = false;
    let write = cluster.write(leader, "k", "v");
    cluster.run(1_000);
    assert_eq!(cluster.reply(write), None);
    cluster.disks_work = true;
    cluster.noted.clear();
    cluster.run_until_answered(write);
    cluster.run(500_000);
    for (node, replica) in &cluster.replicas {
        let noted: Vec<_> =
            cluster.noted.iter().filter(|(at, _)| at == node).map(|(_, index)| *index).collect();
        assert_eq!(noted, [replica.raft().commit_index()], "at node {node}");
    }
}

/// What a follower's client asks while the leader hands over is held, and goes to the next leader.
#[test]
fn a_forward_to_a_leader_that_hands_over_is_held_for_the_next() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.ask(leader, ClientRequest::TransferLeadership(None));
    let write = cluster.write(follower, "k", "v");
    let own = cluster.write(leader, "l", "w");
    assert!(matches!(cluster.run_until_answered(write), ClientReply::Written(_)));
    assert!(matches!(cluster.run_until_answered(own), ClientReply::Written(_)));
    assert_ne!(cluster.leader(), Some(leader));
}

#[test]
fn a_forward_to_a_leader_that_hands_over_in_vain_goes_to_it_in_the_end() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    let target = *cluster.replicas.keys().find(|id| **id != leader && **id != follower).unwrap();
    cluster.ask(leader, ClientRequest::TransferLeadership(Some(target)));
    cluster.isolate(target);
    let write = cluster.write(follower, "k", "v");
    assert!(matches!(cluster.run_until_answered(write), ClientReply::Written(_)));
    assert_eq!(cluster.leader(), Some(leader));
}

#[test]
fn a_followers_client_is_told_that_the_leaders_disk_is_full() {
    let mut cluster = Cluster::new(3);
    for node in [1, 2, 3] {
        cluster.give(id(node), Event::Storage(StorageEvent::DiskFull(true)));
    }
    let write = cluster.write(cluster.follower(), "k", "v");
    assert_eq!(cluster.run_until_answered(write), ClientReply::Failed(ClientError::DiskFull));
}

#[test]
fn a_member_whose_log_has_no_room_refuses_writes_and_answers_reads() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.give(follower, Event::Storage(StorageEvent::LogFull(true)));
    let refused = cluster.write(follower, "k", "v");
    assert_eq!(cluster.run_until_answered(refused), ClientReply::Failed(ClientError::DiskFull));
    let taken = cluster.write(leader, "k", "w");
    assert!(matches!(cluster.run_until_answered(taken), ClientReply::Written(_)));
    let read = cluster.read(follower, "k", Level::Linearizable);
    cluster.run_until_answered(read);
    assert_eq!(cluster.value(read), Some("w".into()));
    cluster.give(follower, Event::Storage(StorageEvent::LogFull(false)));
    let taken = cluster.write(follower, "k", "x");
    assert!(matches!(cluster.run_until_answered(taken), ClientReply::Written(_)));
}

#[test]
fn a_leader_whose_log_has_no_room_takes_no_forwards_and_hands_over() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    let write = cluster.write(follower, "k", "v");
    // A segment was ready, so that the disk does not count as full; but it was too small.
    cluster.give(leader, Event::Storage(StorageEvent::LogFull(true)));
    cluster.deliver();
    let log = cluster.replicas[&leader].raft().log_after(LogIndex::ZERO);
    assert!(log.iter().all(|entry| entry.kind() != EntryKind::Command), "{log:?}");
    assert_eq!(cluster.run_until_answered(write), ClientReply::Failed(ClientError::DiskFull));
    cluster.run_until_succeeded(leader);
}

#[test]
fn a_leader_whose_storage_failed_names_a_successor_at_once() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cluster.give(leader, Event::StorageFailed);
    assert_ne!(cluster.replicas[&leader].raft().role(), RoleName::Leader);
    let is_told = |message: &PeerMessage| match message {
        PeerMessage::Raft(message) => matches!(message.body, Body::TimeoutNow),
        _ => false,
    };
    assert!(cluster.network.iter().any(is_told), "{:?}", cluster.network);
}

#[test]
fn a_forward_that_a_refused_one_overtook_is_not_left_without_an_answer() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    let (first, second) = (cluster.write(follower, "k", "1"), cluster.write(follower, "k", "2"));
    let is_forward = |message: &PeerMessage| matches!(message, PeerMessage::Forward(_));
    let place = cluster.network.iter().position(is_forward).unwrap();
    let overtaken = cluster.network.remove(place).unwrap();
    cluster.give(leader, Event::Storage(StorageEvent::DiskFull(true)));
    assert_eq!(cluster.run_until_answered(second), ClientReply::Failed(ClientError::DiskFull));
    cluster.give(leader, Event::Storage(StorageEvent::DiskFull(false)));
    cluster.network.push_back(overtaken.clone());
    assert!(matches!(cluster.run_until_answered(first), ClientReply::Written(_)), "no entry proves it lost");
    cluster.network.push_back(overtaken);
    cluster.run(200_000);
    let value = cluster.replicas[&leader].store().get(b"k").unwrap();
    assert_eq!((value.version, &value.value[..]), (1, &b"1"[..]), "it was applied once");
}

#[test]
fn a_followers_client_is_told_that_its_command_is_too_long_and_the_others_are_served() {
    let mut config = ReplicaConfig::default();
    config.raft.uncommitted_bytes_max = 1_000;
    let mut cluster = Cluster::without_leader(3, &config);
    cluster.elect();
    let follower = cluster.follower();
    cluster.isolate(cluster.leader().unwrap());
    let long = cluster.write(follower, "k", &"v".repeat(2_000));
    let short = cluster.write(follower, "l", "w");
    cluster.heal();
    let refused = cluster.run_until_answered(long);
    let is_final = |reply: &ClientReply| {
        matches!(reply, ClientReply::Failed(ClientError::CommandTooLarge { bytes: 2_000.., limit: 1_000 }))
    };
    assert!(is_final(&refused), "{refused:?}");
    assert!(matches!(cluster.run_until_answered(short), ClientReply::Written(_)));
    // The leader says the same to its own clients.
    let leader = cluster.leader().unwrap();
    let long = cluster.write(leader, "k", &"v".repeat(2_000));
    assert!(is_final(&cluster.run_until_answered(long)));
}

#[test]
fn a_node_that_ends_says_which_writes_it_never_sent() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    let sent = cluster.write(follower, "k", "v");
    cluster.isolate(follower);
    cluster.run(2_000_000);
    let held = cluster.write(follower, "l", "w");
    let answers = cluster.replicas.get_mut(&follower).unwrap().give_up();
    let failed = |request, error| (request, ClientReply::Failed(error));
    assert_eq!(answers, [failed(held, ClientError::Stopping), failed(sent, ClientError::Unknown)]);
}

#[test]
fn a_node_that_ends_does_not_say_that_an_order_came_to_nothing() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let removed = cluster.follower();
    let change = Change::Remove { members: [removed].into() };
    let change = cluster.ask(leader, ClientRequest::ChangeMembership(change.into()));
    // Its entry may have left, and the others may commit it.
    let answers = cluster.replicas.get_mut(&leader).unwrap().give_up();
    assert_eq!(answers, [(change, ClientReply::Failed(ClientError::Unknown))]);
}

#[test]
fn a_removed_node_says_so_at_once() {
    let mut cluster = Cluster::new(3);
    let (leader, removed) = (cluster.leader().unwrap(), cluster.follower());
    let change = Change::Remove { members: [removed].into() };
    let change = cluster.ask(leader, ClientRequest::ChangeMembership(change.into()));
    assert!(matches!(cluster.run_until_answered(change), ClientReply::MembershipChanged(_)));
    cluster.run_until(|cluster| cluster.replicas[&removed].is_removed());
    let (write, read) = (cluster.write(removed, "k", "v"), cluster.read(removed, "k", Level::Linearizable));
    for request in [write, read] {
        assert_eq!(cluster.reply(request), Some(&ClientReply::Failed(ClientError::Removed)));
    }
    assert!(cluster.replicas.iter().all(|(id, replica)| *id == removed || !replica.is_removed()));
}

#[test]
fn a_transfer_to_a_member_is_not_done_when_another_one_leads() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.leader().unwrap();
    let named = cluster.replicas.keys().copied().find(|node| *node != leader).unwrap();
    // The word to begin is lost, and one of the three others is elected.
    cluster.isolate(leader);
    cluster.isolate(named);
    let transfer = cluster.ask(leader, ClientRequest::TransferLeadership(Some(named)));
    let elected = cluster.run_until_succeeded(leader);
    assert_ne!(elected, named);
    cluster.cut.retain(|(from, to)| [from, to].contains(&&named));
    let reply = cluster.run_until_answered(transfer);
    assert_eq!(reply, ClientReply::Failed(ClientError::AnotherLeads(elected)));
}
