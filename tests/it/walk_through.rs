//! The original's page, with our answers to the byte.

use crate::support::{Cluster, Connection, eventually};
use rustix::process::Signal;

const SET: &str = "\"Set Successfull\"\n";
const INVALID: &str = "\"Invalid Body\"\n";
const ABSENT: &str = "\"Key does not exist\"\n";

#[test]
fn the_walk_through_of_the_original_works_to_the_letter() {
    let mut cluster = Cluster::of_one(&[]);
    cluster.start_node();
    cluster.start_node();
    let [leader, follower, third] = &cluster.nodes[..] else { panic!("three nodes were started") };
    leader.wait_until_ready();
    assert_eq!(leader.join(follower).pair(), (200, "\"Voter added\"\n"));
    assert_eq!(leader.join(third).pair(), (200, "\"Voter added\"\n"));

    // The lines of the page, as curl sends them.
    let set = r#"{"key":"foo", "value":"bar","action":"set"}"#;
    assert_eq!(leader.call("POST", "/set", set).pair(), (200, SET));
    assert_eq!(follower.get("/get?key=foo").pair(), (200, "{\"key\":\"foo\",\"value\":\"bar\"}\n"));
    let delete = r#"{"key":"foo", "value":"bar","action":"delete"}"#;
    assert_eq!(leader.call("POST", "/set", delete).pair(), (200, SET));
    assert_eq!(third.get("/get?key=foo").pair(), (404, ABSENT));
    // Deleting what is not there is no error.
    assert_eq!(leader.call("POST", "/set", delete).pair(), (200, SET));

    // What every member may be asked, followers included.
    assert_eq!(follower.set("by a follower", "x").pair(), (200, SET));
    assert_eq!(
        third.get("/get?key=by+a+follower").pair(),
        (200, "{\"key\":\"by a follower\",\"value\":\"x\"}\n")
    );
    for node in &cluster.nodes {
        assert!(node.data_dir().join("identity").is_file(), "{} has its data in data/<node-id>", node.name);
        let status = node.status().unwrap();
        assert_eq!(status["members"].as_array().unwrap().len(), 3);
        assert_eq!(status["leader"]["name"], "node-1");
    }

    // All stop cleanly.
    for node in &cluster.nodes {
        node.signal(Signal::TERM);
        assert_eq!(node.wait_for_end().code(), Some(0), "{}", node.log());
    }
}

#[test]
fn every_documented_answer_is_given_to_the_byte() {
    let cluster = Cluster::start(1, &[]);
    let node = &cluster.nodes[0];

    for (method, target, body, status, answer) in [
        ("POST", "/set", r#"{"key":"k","value":"v","action":"set"}"#, 200, SET),
        ("POST", "/set", r#"{"action":"set","value":"","key":"empty"}"#, 200, SET),
        ("GET", "/get?key=k", "", 200, "{\"key\":\"k\",\"value\":\"v\"}\n"),
        ("GET", "/get?key=k&level=local", "", 200, "{\"key\":\"k\",\"value\":\"v\"}\n"),
        ("GET", "/get?key=empty", "", 200, "{\"key\":\"empty\",\"value\":\"\"}\n"),
        ("GET", "/get?key=none", "", 404, ABSENT),
        ("GET", "/get?key=", "", 400, "\"Missing Key\"\n"),
        ("GET", "/get", "", 400, "\"Missing Key\"\n"),
        ("POST", "/set", "", 400, INVALID),
        ("POST", "/set", "nonsense", 400, INVALID),
        ("POST", "/set", "[]", 400, INVALID),
        ("POST", "/set", r#"{"key":"k","value":"v","action":"set""#, 400, INVALID),
        ("POST", "/set", r#"{"value":"v","action":"set"}"#, 400, INVALID),
        ("POST", "/set", r#"{"key":"","value":"v","action":"set"}"#, 400, INVALID),
        ("POST", "/set", r#"{"key":"k","action":"set"}"#, 400, INVALID),
        ("POST", "/set", r#"{"key":"k","value":"v"}"#, 400, INVALID),
        ("POST", "/set", r#"{"key":"k","value":"v","action":"increment"}"#, 400, INVALID),
        ("POST", "/set", r#"{"key":"k","value":7,"action":"set"}"#, 400, INVALID),
        ("GET", "/nothing", "", 404, "\"Not Found\"\n"),
        ("GET", "/livez", "", 200, "ok\n"),
        ("GET", "/readyz", "", 200, "ok\n"),
    ] {
        let response = node.call(method, target, body);
        assert_eq!(response.pair(), (status, answer), "{method} {target} {body}");
    }
    for (method, target, allow) in [
        ("GET", "/set", "POST"),
        ("PUT", "/join?nodeid=a&nodeaddr=b:1", "POST"),
        ("POST", "/get?key=k", "GET, HEAD"),
    ] {
        let response = node.call(method, target, "");
        assert_eq!((response.status, response.header("allow")), (405, Some(allow)), "{method} {target}");
    }
    for (target, mentions) in [
        ("/join", "nodeid"),
        ("/join?nodeid=node-2", "nodeaddr"),
        ("/join?nodeid=node-2&nodeaddr=nowhere", "nodeaddr"),
        ("/join?nodeid=&nodeaddr=localhost:1", "nodeid"),
    ] {
        let response = node.call("POST", target, "");
        assert_eq!(response.status, 400, "{target}");
        assert!(response.body.contains(mentions), "{target}: {}", response.body);
    }
    let metrics = node.get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.body.ends_with("# EOF\n"), "the metrics are whole");
}

#[test]
fn any_text_survives() {
    let cluster = Cluster::start(1, &[]);
    let node = &cluster.nodes[0];
    let mut connection = Connection::open(node.http_port).unwrap();
    for text in ["ü€😀", "a\"b\\c", "line\nline\ttab\u{0}nul", " ", "%41&=+#?/", "\u{7f}\u{2028}"] {
        let body = serde_json::json!({"key": text, "value": text, "action": "set"}).to_string();
        assert_eq!(connection.request("POST", "/set", &body).unwrap().pair(), (200, SET), "{text:?}");
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let response = connection.request("GET", &format!("/get?key={encoded}"), "").unwrap();
        let expected = format!("{}\n", serde_json::json!({"key": text, "value": text}));
        assert_eq!(response.pair(), (200, &*expected), "{text:?}");
    }
}

#[test]
fn a_get_at_a_follower_sees_every_set_that_was_answered_before() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let mut connections: Vec<Connection> =
        cluster.nodes.iter().map(|node| Connection::open(node.http_port).unwrap()).collect();
    for round in 0..200 {
        let body = format!(r#"{{"key":"k","value":"{round}","action":"set"}}"#);
        assert_eq!(connections[leader].request("POST", "/set", &body).unwrap().status, 200);
        let expected = format!("{{\"key\":\"k\",\"value\":\"{round}\"}}\n");
        for connection in &mut connections {
            assert_eq!(connection.request("GET", "/get?key=k", "").unwrap().pair(), (200, &*expected));
        }
    }
}

#[test]
fn without_a_majority_nothing_is_promised() {
    let cluster = Cluster::start(3, &["--request-timeout=700ms"]);
    let leader = cluster.leader();
    assert_eq!(cluster.nodes[leader].set("k", "before").pair(), (200, SET));
    for node in cluster.nodes.iter().filter(|node| node.name != cluster.nodes[leader].name) {
        node.kill();
    }
    let node = &cluster.nodes[leader];
    let answer = node.set("k", "during");
    assert_eq!(answer.pair(), (500, "\"Couldn't Add to store\"\n"));
    assert!(["unknown", "not-appended"].contains(&answer.header("infinitystore-outcome").unwrap()));
    assert_eq!(node.get("/get?key=k").status, 503);
    assert_eq!(node.get("/readyz").status, 503);
    assert_eq!(node.get("/livez").status, 200);
    assert_eq!(node.get("/get?key=k&level=local").pair(), (200, "{\"key\":\"k\",\"value\":\"before\"}\n"));
    eventually("the leader to step down", || node.status().filter(|status| status["leader"].is_null()));
    assert_eq!(
        node.call("POST", "/join?nodeid=x&nodeaddr=localhost:1", "").pair(),
        (400, "\"Not a leader\"\n")
    );

    cluster.nodes.iter().filter(|other| other.name != node.name).for_each(|other| other.start());
    cluster.wait_until_ready();
    assert_eq!(node.set("k", "after").pair(), (200, SET));
    assert_eq!(node.get("/get?key=k").pair(), (200, "{\"key\":\"k\",\"value\":\"after\"}\n"));
}
