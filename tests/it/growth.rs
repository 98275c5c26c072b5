//! Nodes that come late: after the log has gone, or while clients go on.

use crate::support::{Cluster, Load, assert_linearizable, eventually};

#[test]
fn a_node_that_missed_more_than_the_log_keeps_catches_up_by_snapshot() {
    let flags = ["--segment-bytes=128KiB", "--snapshot-log-entries=400", "--log-tail-entries=50"];
    let cluster = Cluster::start(3, &flags);
    let late = (cluster.leader() + 1) % 3;
    let missed_from = cluster.nodes[late].status().unwrap()["last_log"]["index"].as_u64().unwrap();
    cluster.nodes[late].kill();

    let load = Load::mixed(&cluster.nodes, 8);
    load.wait_for(3_000);
    let leader = &cluster.nodes[cluster.leader()];
    eventually("the leader to have a snapshot beyond the log of the late node", || {
        let status = leader.status()?;
        (status["snapshot"]["index"].as_u64()? > missed_from + 500).then_some(())
    });
    cluster.nodes[late].start();
    cluster.nodes[late].wait_until_ready();
    let snapshot = eventually("the late node to have installed a snapshot", || {
        let index = cluster.nodes[late].status()?["snapshot"]["index"].as_u64()?;
        (index > missed_from).then_some(index)
    });
    println!("had entries up to {missed_from}, came back with a snapshot of {snapshot}");
    load.wait_for(300);
    let seen = load.finish(&cluster.nodes);
    assert_linearizable(&seen.operations);
    cluster.assert_same_state();

    // What it installed is durable.
    cluster.nodes[late].kill();
    cluster.nodes[late].start();
    cluster.assert_same_state();
}

#[test]
fn a_fourth_and_a_fifth_node_join_under_load() {
    let mut cluster = Cluster::start(3, &["--snapshot-log-entries=500", "--log-tail-entries=50"]);
    let load = Load::mixed(&cluster.nodes, 8);
    load.wait_for(1_500);
    cluster.add_node();
    load.wait_for(300);
    // Joined through a follower: it knows whom to ask.
    cluster.start_node();
    let follower = (cluster.leader() + 1) % 4;
    let answer = cluster.nodes[follower].join(&cluster.nodes[4]);
    assert_eq!(answer.pair(), (200, "\"Voter added\"\n"));
    load.wait_for(300);
    cluster.wait_until_ready();
    let status = cluster.nodes[4].status().unwrap();
    let members = status["members"].as_array().unwrap();
    assert_eq!(members.len(), 5);
    assert!(members.iter().all(|member| member["standing"] == "voter"), "{status:#}");

    // Five tolerate two.
    let leader = cluster.leader();
    cluster.nodes[leader].kill();
    cluster.nodes[(leader + 1) % 5].kill();
    load.wait_for(300);
    let seen = load.finish(&cluster.nodes);
    println!("longest time without an acknowledged write: {:?}", seen.longest_gap);
    assert_linearizable(&seen.operations);
    cluster.assert_same_state();
}

#[test]
fn nodes_that_are_told_to_join_find_the_cluster_by_themselves() {
    let mut cluster = Cluster::start(1, &[]);
    let join = format!("--join=localhost:{}", cluster.nodes[0].raft_port);
    for name in ["node-2", "node-3"] {
        let node = crate::support::Node::new(cluster.dir.path(), name, &[&join]);
        node.start();
        cluster.nodes.push(node);
    }
    eventually("three voters", || {
        let status = cluster.nodes[0].status()?;
        let members = status["members"].as_array()?;
        (members.len() == 3 && members.iter().all(|member| member["standing"] == "voter")).then_some(())
    });
    cluster.wait_until_ready();
    assert_eq!(cluster.nodes[2].set("k", "v").status, 200);

    // Said again to one that is a member, it changes nothing.
    cluster.nodes[1].kill();
    cluster.nodes[1].start();
    cluster.wait_until_ready();
    assert_eq!(cluster.nodes[1].get("/get?key=k").status, 200);
    assert_eq!(cluster.nodes[0].status().unwrap()["members"].as_array().unwrap().len(), 3);
}

#[test]
fn a_node_with_data_is_not_absorbed() {
    let mut cluster = Cluster::start(1, &[]);
    cluster.start_node();
    let [first, other] = &cluster.nodes[..] else { panic!("two nodes were started") };
    other.wait_until_ready();
    assert_eq!(other.set("mine", "v").status, 200);
    let answer = first.join(other);
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(answer.body.contains("wipe"), "it says what to do: {}", answer.body);
    // Nobody lost anything, and both go on.
    assert_eq!(other.get("/get?key=mine").status, 200);
    assert_eq!(first.set("k", "v").status, 200);
    assert_eq!(first.status().unwrap()["members"].as_array().unwrap().len(), 1);
}

#[test]
fn a_wiped_node_is_not_its_old_self_until_it_is_joined_again() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let wiped = &cluster.nodes[(leader + 1) % 3];
    assert_eq!(cluster.nodes[leader].set("k", "v").status, 200);
    let old_id = wiped.status().unwrap()["id"].clone();
    wiped.kill();
    std::fs::remove_dir_all(wiped.data_dir()).unwrap();
    wiped.start();
    // Its peers call it as the member that it was.
    let why =
        eventually("the wiped node to withdraw", || wiped.status()?["withdrawn"].as_str().map(str::to_owned));
    assert!(why.contains("Join it again"), "{why}");
    assert_eq!(wiped.set("k", "lost with its cluster of one").status, 500, "it takes nothing meanwhile");
    assert_eq!(cluster.nodes[leader].join(wiped).pair(), (200, "\"Voter added\"\n"));
    wiped.wait_until_ready();
    let status = wiped.status().unwrap();
    assert_ne!(status["id"], old_id, "a member id is never used twice");
    assert_eq!(status["members"].as_array().unwrap().len(), 3, "it replaced its old self: {status:#}");
    assert_eq!(wiped.get("/get?key=k&level=local").status, 200);
    cluster.assert_same_state();
}
