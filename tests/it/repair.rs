//! A member whose data directory is damaged comes back by itself, with everything that was
//! acknowledged.

use crate::support::{Cluster, Node, eventually, failed_start};
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Files of the node's data whose name ends like this, oldest first.
fn files(node: &Node, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in ["wal-1", "wal-2", "snapshots-1", "snapshots-2", "."] {
        let Ok(entries) = fs::read_dir(node.data_dir().join(name)) else { continue };
        let named = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        found.extend(named.filter(|path| path.to_string_lossy().ends_with(end)));
    }
    found.sort();
    found
}

fn change(file: &Path, damage: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    damage(&mut bytes);
    fs::write(file, bytes).unwrap();
}

fn stop(node: &Node) {
    node.signal(Signal::TERM);
    node.wait_for_end();
}

/// Where the first of these bytes stand.
fn place_of(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).expect("they are there")
}

fn write(node: &Node, name: &str, count: usize) {
    for key in 0..count {
        assert_eq!(node.set(&format!("{name}-{key}"), &format!("value of {name} {key}")).status, 200);
    }
}

fn assert_written(node: &Node, name: &str, count: usize) {
    for key in 0..count {
        let found = node.get(&format!("/get?key={name}-{key}"));
        assert!(found.body.contains(&format!("value of {name} {key}")), "{found:?}");
    }
}

#[test]
fn a_flipped_bit_in_the_middle_of_the_log_is_mended_by_peers() {
    let cluster = Cluster::start(3, &[]);
    let damaged = &cluster.nodes[(cluster.leader() + 1) % 3];
    write(damaged, "before", 60);
    stop(damaged);
    change(&files(damaged, ".seg")[0], |bytes| {
        let at = place_of(bytes, b"value of before 20");
        bytes[at] ^= 4;
    });
    let leader = &cluster.nodes[cluster.leader()];
    write(leader, "since", 30);
    damaged.start();
    damaged.wait_until_ready();
    assert!(damaged.log().contains("REPAIRED"), "{}", damaged.log());
    assert_written(damaged, "before", 60);
    assert_written(damaged, "since", 30);
    cluster.assert_same_state();
    // The damaged file is kept, and the next start finds nothing to mend.
    assert_eq!(fs::read_dir(damaged.data_dir().join("damaged")).unwrap().count(), 1);
    stop(damaged);
    damaged.start();
    damaged.wait_until_ready();
    assert_eq!(damaged.log().matches("REPAIRED").count(), 1);
}

#[test]
fn damage_of_any_file_is_mended_by_peers() {
    let flags = ["--snapshot-log-entries=100", "--log-tail-entries=10", "--segment-bytes=64KiB"];
    let cluster = Cluster::start(3, &flags);
    let damaged = &cluster.nodes[(cluster.leader() + 1) % 3];
    let mut rounds = 0;
    let mut round = |what: &str, damage: &dyn Fn(&Node)| {
        rounds += 1;
        let name = format!("round{rounds}");
        write(damaged, &name, 250);
        eventually("a snapshot", || {
            let index = damaged.status()?["snapshot"]["index"].as_u64()?;
            (index > 100 * rounds).then_some(())
        });
        stop(damaged);
        damage(damaged);
        let leader = &cluster.nodes[cluster.leader()];
        write(leader, "meanwhile", 20);
        damaged.start();
        damaged.wait_until_ready();
        assert_written(damaged, &name, 250);
        assert_written(damaged, "meanwhile", 20);
        cluster.assert_same_state();
        println!("{what}: back");
    };
    round("both snapshots", &|node| {
        for file in files(node, ".snap") {
            change(&file, |bytes| bytes[5000] ^= 1);
        }
    });
    round("the head of the last segment", &|node| {
        change(files(node, ".seg").last().unwrap(), |bytes| bytes[100] ^= 1);
    });
    round("the identity", &|node| change(&files(node, "identity")[0], |bytes| bytes[40] ^= 1));
    round("the identity is gone", &|node| fs::remove_file(&files(node, "identity")[0]).unwrap());
    round("a segment is gone", &|node| fs::remove_file(&files(node, ".seg")[0]).unwrap());
    round("the log is gone", &|node| {
        for file in files(node, ".seg") {
            fs::remove_file(file).unwrap();
        }
    });
    round("half of the last segment", &|node| {
        change(files(node, ".seg").last().unwrap(), |bytes| bytes.truncate(bytes.len() / 2));
    });
    round("everything but the identity", &|node| {
        for file in files(node, ".seg").into_iter().chain(files(node, ".snap")) {
            change(&file, |bytes| bytes.fill(0x5a));
        }
    });
}

#[test]
fn two_damaged_members_help_each_other() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let (one, two) = (&cluster.nodes[(leader + 1) % 3], &cluster.nodes[(leader + 2) % 3]);
    write(one, "key", 90);
    eventually("all to have it", || {
        let applied = |node: &Node| node.status()?["applied_index"].as_u64();
        (applied(one)? == applied(two)? && applied(one)? == applied(&cluster.nodes[leader])?).then_some(())
    });
    // Without the third there is no leader, unless both are mended.
    cluster.nodes[leader].kill();
    for (node, value) in [(one, "value of key 20"), (two, "value of key 50")] {
        stop(node);
        change(&files(node, ".seg")[0], |bytes| {
            let at = place_of(bytes, value.as_bytes());
            bytes[at] ^= 1;
        });
    }
    one.start();
    eventually("the first to say that it waits", || {
        let ready = one.try_get("/readyz")?;
        (ready.status == 503 && ready.body.contains("repairing its data directory")).then_some(())
    });
    assert_eq!(one.get("/livez").status, 200);
    two.start();
    two.wait_until_ready();
    one.wait_until_ready();
    assert_written(one, "key", 90);
    assert_written(two, "key", 90);
    cluster.nodes[leader].start();
    cluster.assert_same_state();
}

#[test]
fn a_repair_may_be_interrupted_at_any_moment() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let damaged = &cluster.nodes[(leader + 1) % 3];
    write(damaged, "key", 50);
    stop(damaged);
    change(&files(damaged, ".seg")[0], |bytes| {
        let at = place_of(bytes, b"value of key 20");
        bytes[at] ^= 1;
    });
    // Nobody is there to help.
    for node in cluster.nodes.iter().filter(|node| node.is_running()) {
        node.kill();
    }
    damaged.start();
    eventually("it to wait", || damaged.log().contains("waits for other members").then_some(()));
    stop(damaged);
    damaged.start();
    eventually("it to wait again", || {
        (damaged.log().matches("waits for other members").count() > 1).then_some(())
    });
    damaged.kill();
    for node in &cluster.nodes {
        node.start();
    }
    cluster.assert_same_state();
    assert_written(damaged, "key", 50);
}

#[test]
fn a_node_alone_refuses_to_start_and_names_the_choices() {
    let cluster = Cluster::of_one(&[]);
    let node = &cluster.nodes[0];
    node.wait_until_ready();
    write(node, "key", 30);
    stop(node);
    change(&files(node, ".seg")[0], |bytes| {
        let at = place_of(bytes, b"value of key 20");
        bytes[at] ^= 1;
    });
    let flags = node.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (code, text) = failed_start(cluster.dir.path(), &flags);
    assert_eq!(code, 3, "{text}");
    for part in ["is damaged", "one entry of its log is lost", "--join", "--accept-loss"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let repair = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infinitystore"));
        command.args(["wal", "repair"]).arg(node.data_dir()).args(args).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    let (code, text) = repair(&[]);
    assert!(code == 3 && text.contains("are lost") && text.contains("nothing was changed"), "{text}");
    let (code, text) = repair(&["--accept-loss"]);
    assert!(code == 2 && text.contains("type lose") && text.contains("nothing was changed"), "{text}");
    let (code, text) = repair(&["--accept-loss", "--yes"]);
    assert!(code == 0 && text.contains("repaired"), "{text}");
    let trace = fs::read_to_string(node.data_dir().join("accepted-loss.txt")).unwrap();
    assert!(trace.contains("are lost") && trace.contains("checksum"), "{trace}");
    let kept = fs::read_dir(node.data_dir().join("lost-1/wal-1")).unwrap().count();
    assert!(kept > 0 && text.contains("lost-1"), "{text}");
    let (code, text) = repair(&[]);
    assert!(code == 0 && text.contains("is sound"), "{text}");
    node.start();
    node.wait_until_ready();
    assert_written(node, "key", 20);
    assert_eq!(node.get("/get?key=key-25").status, 404);
    write(node, "after", 5);
}
