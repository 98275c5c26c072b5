//! `lock` and `elect`, on a real cluster: one at a time, and stopped when what was held is lost.

use crate::support::{Cluster, Shell, argument, eventually};
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_infinitystore");
/// Says so when it is told to stop, and then stops.
pub(crate) const OBEDIENT: &str =
    "trap 'echo told to stop; exit 9' TERM; echo runs; while :; do sleep 0.05; done";
/// Does not stop by itself.
const STUBBORN: &str = "trap '' TERM; echo runs; while :; do sleep 0.05; done";

pub(crate) fn one_node() -> (Cluster, Shell) {
    let cluster = Cluster::start(1, &[]);
    let shell = Shell::of(&cluster.nodes);
    (cluster, shell)
}

/// The lease of the lock's holder.
pub(crate) fn lease_of(cluster: &Cluster, lock: &str) -> Option<String> {
    let answer = cluster.nodes[0].try_get(&format!("/v1/locks/{lock}"))?;
    let body: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
    Some(body.get("lease")?.to_string())
}

/// Whether any process still has this word in its arguments.
fn runs(word: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .any(|line| line.windows(word.len()).any(|part| part == word.as_bytes()))
}

#[test]
fn a_command_runs_under_a_lock_with_its_fence() {
    let (cluster, shell) = one_node();
    let script = "echo $INFINITYSTORE_FENCE $INFINITYSTORE_LEASE; cat; exit 7";
    let ran = shell.run_with(&["lock", "a b/c", "--", "sh", "-c", script], b"input\n");
    assert_eq!(ran.code, 7, "the command's own: {ran:?}");
    let (first, rest) = ran.text().split_once('\n').unwrap();
    assert_eq!(rest, "input\n");
    let (fence, lease) = first.split_once(' ').unwrap();
    assert!(fence.parse::<u64>().unwrap() > 0 && lease.parse::<u64>().unwrap() > 0, "{ran:?}");
    let again = shell.run(&["lock", "a b/c", "--wait", "0s", "--", "sh", "-c", "echo $INFINITYSTORE_FENCE"]);
    assert!(again.ok().trim_end().parse::<u64>().unwrap() > fence.parse().unwrap(), "fences rise: {again:?}");
    assert_eq!(shell.run(&["lease", "ls"]).ok(), "", "nothing is left behind");
    assert_eq!(shell.run(&["kv", "ls"]).ok(), "");
    // Ended by a signal, not there, not to be run.
    assert_eq!(shell.run(&["lock", "x", "--", "sh", "-c", "kill -KILL $$"]).code, 137);
    shell.run(&["lock", "x", "--", "/no/such/command"]).failed(127, "/no/such/command");
    shell.run(&["lock", "x", "--", "/"]).failed(126, "cannot run /");
    assert_eq!(shell.run(&["lease", "ls"]).ok(), "", "nothing is left behind");
    assert_eq!(lease_of(&cluster, "x"), None);
}

#[test]
fn one_holds_the_lock_and_the_next_gets_it_afterwards() {
    let (_cluster, shell) = one_node();
    let dir = TempDir::new().unwrap();
    let go = dir.path().join("go");
    let script = format!("echo runs; while [ ! -e {} ]; do sleep 0.05; done", argument(&go));
    let mut first = shell.start(&["lock", "l", "--", "sh", "-c", &script]);
    assert_eq!(first.line(), "runs");
    shell.run(&["lock", "l", "--wait", "0s", "--", "echo", "second"]).failed(4, "held");
    shell.run(&["lock", "l", "--wait", "100ms", "--", "echo", "second"]).failed(4, "held");
    assert_eq!(shell.run(&["lease", "ls"]).ok().lines().count(), 1, "whoever gave up has left no lease");
    assert_eq!(shell.run(&["lock", "other", "--wait", "0s", "--", "echo", "free"]).ok(), "free\n");
    let second = shell.start(&["lock", "l", "--", "echo", "second"]);
    eventually("the second to stand in the queue", || {
        (shell.run(&["kv", "ls", "--count"]).ok() == "2\n").then_some(())
    });
    fs::write(&go, "").unwrap();
    first.end().ok();
    assert_eq!(second.end().ok(), "second\n");
}

#[test]
fn a_command_is_stopped_when_its_lease_is_revoked_behind_its_back() {
    let (cluster, shell) = one_node();
    let mut lock = shell.start(&["lock", "l", "--", "sh", "-c", OBEDIENT]);
    assert_eq!(lock.line(), "runs");
    shell.run(&["lease", "revoke", &lease_of(&cluster, "l").unwrap()]).ok();
    let ran = lock.end();
    assert_eq!(ran.text(), "told to stop\n", "{ran:?}");
    ran.failed(4, "the lock l was lost");
}

#[test]
fn a_command_is_stopped_when_its_lock_is_given_away() {
    let (cluster, shell) = one_node();
    let mut lock = shell.start(&["lock", "l", "--ttl", "600s", "--", "sh", "-c", OBEDIENT]);
    assert_eq!(lock.line(), "runs");
    // The lease lives on; the key that stands for the lock does not.
    let lease = lease_of(&cluster, "l").unwrap();
    assert_eq!(cluster.nodes[0].call("DELETE", &format!("/v1/locks/l?lease={lease}"), "").status, 200);
    let ran = lock.end();
    assert_eq!(ran.text(), "told to stop\n", "{ran:?}");
    ran.failed(4, "its key was deleted, or another one took it away");
    assert_eq!(shell.run(&["lease", "ls"]).ok(), "", "the lease is given back");
}

#[test]
fn a_command_that_does_not_stop_is_killed_with_all_that_it_started() {
    let (cluster, shell) = one_node();
    let word = format!("stubborn-{}", std::process::id());
    // A shell within the shell.
    let script = format!("trap '' TERM; sh -c \"{STUBBORN}\" {word}; :");
    let mut lock = shell.start_apart(&[BINARY, "lock", "l", "--grace", "100ms", "--", "sh", "-c", &script]);
    assert_eq!(lock.line(), "runs");
    assert!(runs(&word));
    shell.run(&["lease", "revoke", &lease_of(&cluster, "l").unwrap()]).ok();
    lock.end().failed(4, "was stopped");
    eventually("all of it to be gone", || (!runs(&word)).then_some(()));
}

#[test]
fn a_command_is_stopped_before_a_lease_that_nobody_renews_can_end() {
    let (cluster, shell) = one_node();
    let mut lock = shell.start(&["lock", "l", "--ttl", "2s", "--", "sh", "-c", OBEDIENT]);
    assert_eq!(lock.line(), "runs");
    cluster.nodes[0].kill();
    let ran = lock.end();
    assert_eq!(ran.text(), "told to stop\n", "{ran:?}");
    ran.failed(4, "could not be renewed");
    assert!(ran.err.contains("it ends by itself within 2s"), "{ran:?}");
}

#[test]
fn a_lock_outlives_the_node_that_it_was_taken_from() {
    let cluster = Cluster::start(3, &[]);
    let shell = Shell::of(&cluster.nodes);
    let dir = TempDir::new().unwrap();
    let go = dir.path().join("go");
    let script = format!("echo runs; while [ ! -e {} ]; do sleep 0.05; done; echo done", argument(&go));
    let mut lock = shell.start(&["lock", "l", "--ttl", "5s", "--", "sh", "-c", &script]);
    assert_eq!(lock.line(), "runs");
    // The leader, of which it asked everything so far.
    assert_eq!(cluster.leader(), 0);
    cluster.nodes[0].kill();
    let holder = || shell.run(&["kv", "ls", "--count"]);
    // Longer than the lease lives without a renewal: a new leader gives it its whole time anew.
    let id = shell.run(&["lease", "ls"]).ok().trim_end().to_owned();
    for _ in 0..2 {
        // Each renewal brings the time left up again.
        let left =
            || -> f64 { shell.run(&["lease", "info", &id, "-o", "raw"]).ok().trim_end().parse().unwrap() };
        let before = left();
        eventually("a renewal", || (left() > before).then_some(()));
    }
    assert_eq!(holder().ok(), "1\n");
    fs::write(&go, "").unwrap();
    assert_eq!(lock.end().ok(), "done\n");
}

#[test]
fn one_that_waits_outlives_the_node_that_it_asks() {
    let cluster = Cluster::start(3, &[]);
    let shell = Shell::of(&cluster.nodes);
    let mut first = shell.start(&["lock", "l", "--", "sh", "-c", OBEDIENT]);
    assert_eq!(first.line(), "runs");
    // It asks another node first, which is stopped as in a restart of all nodes, one after the
    // other.
    let other = Shell::of([&cluster.nodes[1], &cluster.nodes[2], &cluster.nodes[0]]);
    let second = other.start(&["lock", "l", "--", "echo", "second"]);
    eventually("the second to stand in the queue", || {
        (shell.run(&["kv", "ls", "--count"]).ok() == "2\n").then_some(())
    });
    cluster.nodes[1].signal(Signal::TERM);
    assert!(cluster.nodes[1].wait_for_end().success());
    assert_eq!(shell.run(&["kv", "ls", "--count"]).ok(), "2\n", "it keeps its place");
    first.signal(Signal::TERM);
    first.end();
    assert_eq!(second.end().ok(), "second\n");
}

#[test]
fn a_command_is_stopped_when_the_loss_of_its_lock_is_gone_from_history() {
    let cluster = Cluster::start(3, &[]);
    let shell = Shell::of(&cluster.nodes);
    let mut lock = shell.start(&["lock", "l", "--ttl", "600s", "--", "sh", "-c", OBEDIENT]);
    assert_eq!(lock.line(), "runs");
    let lease = lease_of(&cluster, "l").unwrap();
    // It stands still, and hears nothing of the node that it watches at.
    lock.signal(Signal::STOP);
    cluster.nodes[0].kill();
    let node = &cluster.nodes[1];
    eventually("another leader", || {
        let deleted = node.call("DELETE", &format!("/v1/locks/l?lease={lease}"), "");
        matches!(deleted.status, 200 | 404).then_some(())
    });
    let revision: serde_json::Value = serde_json::from_str(&node.get("/v1/kv?count_only").body).unwrap();
    let compact = format!("{{\"revision\":{}}}", revision["revision"]);
    assert_eq!(node.call("POST", "/v1/compact", &compact).status, 200);
    lock.signal(Signal::CONT);
    let ran = lock.end();
    assert_eq!(ran.text(), "told to stop\n", "{ran:?}");
    ran.failed(4, "its key was deleted, or another one took it away");
}

/// A node that grants leases and renews them, and answers in this way whoever stands for a lock.
fn fake_node(answer: &'static str) -> (Shell, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let shell = Shell::at(&listener.local_addr().unwrap().to_string());
    let (asked, heard) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let request = read_request(&mut stream);
            let answer = match request.split(' ').nth(1) {
                Some(path) if path.starts_with("/v1/locks/") => answer,
                Some(_) => "200 OK\n{\"id\":7,\"ttl\":10,\"left\":10.0,\"revision\":1,\"deleted\":1}",
                None => continue,
            };
            let (status, body) = answer.split_once('\n').unwrap();
            let head = "content-type: application/problem+json\r\nconnection: close\r\n";
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\n{head}content-length: {length}\r\n\r\n{body}").unwrap();
            if asked.send(request).is_err() {
                return;
            }
        }
    });
    (shell, heard)
}

/// The head of a request; its body is taken in, too.
pub(crate) fn read_request(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&received).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return head.to_owned();
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => received.extend_from_slice(&piece[..count]),
            _ => return text,
        }
    }
}

#[test]
fn what_fails_before_the_command_runs_has_a_code_of_its_own() {
    for (answer, code, part) in [
        ("404 Not Found\n{\"code\":\"no-lease\",\"detail\":\"in words\"}", 4, "was lost"),
        ("404 Not Found\n{\"code\":\"not-holder\",\"detail\":\"in words\"}", 4, "was lost"),
        ("504 x\n{\"code\":\"outcome-unknown\",\"detail\":\"in words\"}", 5, "nothing was run"),
        ("503 x\n{\"code\":\"no-leader\",\"detail\":\"in words\",\"outcome\":\"not-applied\"}", 5, ""),
        ("409 x\n{\"code\":\"held\",\"detail\":\"in words\",\"outcome\":\"unknown\"}", 4, "held"),
    ] {
        let (shell, heard) = fake_node(answer);
        shell.run(&["lock", "l", "--wait", "0s", "--", "echo", "runs"]).failed(code, part);
        let mut asked = heard.try_iter();
        let stood = asked.find(|request| request.starts_with("POST /v1/locks/")).unwrap();
        assert!(stood.starts_with("POST /v1/locks/l?lease=7&stay=true&wait=0ms "), "{stood}");
    }
}

#[test]
fn signals_are_passed_on_and_the_lock_is_given_back() {
    let (_cluster, shell) = one_node();
    for (signal, name) in
        [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP"), (Signal::QUIT, "QUIT")]
    {
        let script =
            format!("trap 'echo got {name}; exit 3' {name}; echo runs; while :; do sleep 0.05; done");
        let mut lock = shell.start_apart(&[BINARY, "lock", "l", "--", "sh", "-c", &script]);
        assert_eq!(lock.line(), "runs");
        lock.signal(signal);
        let ran = lock.end();
        assert_eq!((ran.code, ran.text()), (3, &*format!("got {name}\n")), "{ran:?}");
        assert_eq!(shell.run(&["lease", "ls"]).ok(), "");
    }
    // One that waits leaves the queue at once.
    let mut first = shell.start(&["lock", "l", "--", "sh", "-c", OBEDIENT]);
    assert_eq!(first.line(), "runs");
    let second = shell.start(&["lock", "l", "--", "echo", "second"]);
    eventually("the second to stand in the queue", || {
        (shell.run(&["kv", "ls", "--count"]).ok() == "2\n").then_some(())
    });
    second.signal(Signal::TERM);
    second.end().failed(130, "SIGTERM");
    assert_eq!(shell.run(&["lease", "ls"]).ok().lines().count(), 1);
}

#[test]
fn a_leader_is_seen_by_the_others() {
    let (cluster, shell) = one_node();
    let leader_is = |value: &str| {
        let answer = cluster.nodes[0].get("/v1/elections/api");
        answer.status == 200 && answer.body.contains(value)
    };
    let mut first = shell.start(&["elect", "api", "http://one:80"]);
    assert!(first.line().starts_with("leading: fence "), "without a command it says when it leads");
    assert!(leader_is("http://one:80"));
    shell.run(&["elect", "api", "x", "--wait", "0s", "--", "echo", "leads"]).failed(4, "held");
    let second = shell.start(&["elect", "api", "http://two:80", "--", "sh", "-c", "echo leads; exit 5"]);
    first.signal(Signal::TERM);
    first.end().ok();
    let ran = second.end();
    assert_eq!((ran.code, ran.text()), (5, "leads\n"), "{ran:?}");
    assert_eq!(cluster.nodes[0].get("/v1/elections/api").status, 404);
    let mut third = shell.start(&["elect", "api", "http://three:80"]);
    third.line();
    let lease = shell.run(&["lease", "ls"]).ok().trim_end().to_owned();
    shell.run(&["lease", "revoke", &lease]).ok();
    third.end().failed(4, "the lead of api was lost");
}
