//! Real disks that fail, fill up, slow down or lie: the processes run with a preloaded library that
//! the test builds.

use crate::support::{Cluster, Node, eventually, failed_start_with};
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The library, built once.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // Two runs of the tests may build it at once.
        let (built, library) =
            (target.join(format!("faulty-disk-{}.so", std::process::id())), target.join("faulty-disk.so"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/faulty_disk/library.c");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&built)
            .arg(&source)
            .arg("-ldl");
        let done = compiler.output().expect("a C compiler is there");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        fs::rename(&built, &library).unwrap();
        library
    })
}

/// The faults of one node's disk.
struct Faults(PathBuf);

impl Faults {
    /// For the node of that name in a directory.
    fn of(dir: &Path, name: &str) -> Self {
        let folder = dir.join(format!("{name}.faults"));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// The variables of a process whose disk has these faults.
    fn variables(&self) -> [(String, String); 2] {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        [("LD_PRELOAD".to_owned(), text(library())), ("FAULTY_DISK".to_owned(), text(&self.0))]
    }

    fn begin(&self, fault: &str) {
        fs::write(self.0.join(fault), "").unwrap();
    }

    fn end(&self, fault: &str) {
        fs::remove_file(self.0.join(fault)).unwrap();
    }
}

/// Small files, so that the log needs new ones all the time.
const FLAGS: [&str; 2] = ["--segment-bytes=64KiB", "--snapshot-log-entries=100000"];

/// A cluster of `count` nodes whose disks may have faults.
fn cluster(count: usize, flags: &[&str]) -> (Cluster, Vec<Faults>) {
    let flags: Vec<&str> = FLAGS.iter().chain(flags).copied().collect();
    let mut cluster = Cluster::of_none(&flags);
    let mut faults = Vec::new();
    for number in 1..=count {
        let own = Faults::of(cluster.dir.path(), &format!("node-{number}"));
        cluster.add_node_with(&own.variables());
        faults.push(own);
    }
    cluster.wait_until_ready();
    (cluster, faults)
}

fn large() -> String {
    "v".repeat(8_000)
}

/// Keys `from..to` through this node, all acknowledged.
fn write(node: &Node, from: usize, to: usize) {
    for key in from..to {
        let done = node.set(&format!("key-{key}"), &format!("{key} {}", large()));
        assert_eq!(done.status, 200, "{}", done.body);
    }
}

fn assert_written(node: &Node, to: usize) {
    for key in 0..to {
        let found = node.get(&format!("/get?key=key-{key}"));
        assert!(found.body.contains(&format!("\"{key} v")), "key {key}: {found:?}");
    }
}

fn put(node: &Node, key: &str) -> (u16, String) {
    let answer = node.call("PUT", &format!("/v1/kv/{key}"), "v");
    (answer.status, answer.body)
}

#[test]
fn a_follower_on_a_full_disk_refuses_writes_answers_reads_and_goes_on_by_itself() {
    let (cluster, faults) = cluster(3, &[]);
    let leader = cluster.leader();
    let full = (leader + 1) % 3;
    write(&cluster.nodes[leader], 0, 5);
    faults[full].begin("full");
    // Far more than the files that the follower has prepared.
    write(&cluster.nodes[leader], 5, 80);
    let node = &cluster.nodes[full];
    let refused = eventually("it to refuse writes", || {
        let (status, body) = put(node, "refused");
        (status != 200).then_some((status, body))
    });
    assert!(refused.0 == 507 && refused.1.contains("disk-full"), "{refused:?}");
    assert!(refused.1.contains("not-applied"), "{refused:?}");
    assert_eq!(node.get("/get?key=key-1&level=local").status, 200);
    assert_eq!(node.status().unwrap()["disk_full"], true);
    assert!(node.get("/readyz").body.contains("disk-room"));
    faults[full].end("full");
    node.wait_until_ready();
    assert_eq!(put(node, "taken").0, 200);
    assert_written(node, 80);
    cluster.assert_same_state();
    assert!(node.log().contains("the log has room again"), "{}", node.log());
}

#[test]
fn a_node_that_is_started_on_a_full_disk_waits_and_serves_by_itself() {
    let (cluster, faults) = cluster(1, &[]);
    let node = &cluster.nodes[0];
    write(node, 0, 20);
    node.kill();
    faults[0].begin("full");
    node.start();
    eventually("it to say so", || {
        let ready = node.try_get("/readyz")?;
        (ready.status == 503 && ready.body.contains("no room")).then_some(())
    });
    faults[0].end("full");
    node.wait_until_ready();
    assert_written(node, 20);
    write(node, 20, 30);
}

#[test]
fn a_leader_whose_sync_or_write_fails_hands_over_and_ends_with_its_own_code() {
    for fault in ["sync-fails", "write-fails"] {
        // The test's patience is shorter than an election timeout.
        let (cluster, faults) = cluster(3, &["--election-timeout=600s"]);
        let leader = cluster.leader();
        write(&cluster.nodes[leader], 0, 5);
        faults[leader].begin(fault);
        let answered = cluster.nodes[leader].try_set("lost", "v");
        // Its followers may have stored it, and they are a majority.
        let is_stored = answered.is_some_and(|answer| answer.status == 200);
        let node = &cluster.nodes[leader];
        assert_eq!(node.wait_for_end().code(), Some(6), "{}", node.log());
        assert!(node.log().contains("cannot know what is durable"), "{}", node.log());
        let next = cluster.leader();
        assert_ne!(next, leader);
        write(&cluster.nodes[next], 5, 10);
        faults[leader].end(fault);
        node.start();
        node.wait_until_ready();
        assert_written(node, 10);
        assert!(!is_stored || node.get("/get?key=lost").status == 200, "it was acknowledged");
        cluster.assert_same_state();
    }
}

#[test]
fn a_leader_with_a_slow_disk_hands_over_to_a_quicker_member() {
    let (cluster, faults) = cluster(3, &[]);
    let slow = cluster.leader();
    faults[slow].begin("slow");
    let mut key = 0;
    let next = eventually("another to lead", || {
        write(&cluster.nodes[(slow + 1) % 3], key, key + 1);
        key += 1;
        Some(cluster.leader()).filter(|leader| *leader != slow)
    });
    let node = &cluster.nodes[slow];
    assert!(node.log().contains("it hands over"), "{}", node.log());
    assert_eq!(node.log().matches("THE DISK IS SLOW").count(), 1, "{}", node.log());
    assert_eq!(node.status().unwrap()["disk"]["slow"], true);
    assert!(node.get("/metrics").body.contains("infinitystore_disk_slow 1"));
    faults[slow].end("slow");
    eventually("it to be quick again", || {
        write(&cluster.nodes[next], key, key + 1);
        key += 1;
        (node.status()?["disk"]["slow"] == false).then_some(())
    });
    cluster.assert_same_state();
}

#[test]
fn an_acknowledged_write_that_a_disk_lost_is_found_by_what_was_written_after_it() {
    let (cluster, faults) = cluster(1, &[]);
    let node = &cluster.nodes[0];
    write(node, 0, 10);
    faults[0].begin("write-lost");
    write(node, 10, 13);
    faults[0].end("write-lost");
    write(node, 13, 14);
    node.kill();
    let flags = node.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (code, text) = failed_start_with(cluster.dir.path(), &flags, &[]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("is damaged"), "{text}");
}

#[test]
fn an_acknowledged_end_of_the_log_that_a_disk_lost_is_found_by_the_peers() {
    let (cluster, faults) = cluster(3, &[]);
    let leader = cluster.leader();
    let lying = (leader + 1) % 3;
    write(&cluster.nodes[leader], 0, 10);
    faults[lying].begin("write-lost");
    write(&cluster.nodes[leader], 10, 20);
    eventually("it to acknowledge them", || {
        let applied = |node: usize| cluster.nodes[node].status()?["applied_index"].as_u64();
        (applied(lying)? == applied(leader)?).then_some(())
    });
    let node = &cluster.nodes[lying];
    node.signal(Signal::KILL);
    node.wait_for_end();
    faults[lying].end("write-lost");
    node.start();
    let found = eventually("it to be found", || {
        let status = node.status()?;
        let is_whole = status["applied_index"] == cluster.nodes[leader].status()?["applied_index"];
        let why = status["withdrawn"].as_str().map(str::to_owned);
        let is_new = node.log().contains("joins its cluster anew under its name");
        let mended = is_whole && (is_new || node.log().contains("REPAIRED"));
        why.or_else(|| mended.then(|| "it has repaired itself".to_owned()))
    });
    println!("found: {found}");
    for other in [leader, (leader + 2) % 3] {
        assert_written(&cluster.nodes[other], 20);
    }
}
