//! Members are listed, added, promoted, replaced and removed, and leadership is handed over, while
//! clients write.

use crate::support::{Cluster, Load, Node, Shell, assert_linearizable, eventually};
use serde_json::{Value, json};

/// What a call answers: the status, and the body as JSON.
#[track_caller]
fn ask(node: &Node, method: &str, target: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = node.call(method, target, &body);
    (answer.status, serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}")))
}

#[track_caller]
fn done(node: &Node, method: &str, target: &str, body: &Value) -> Value {
    let (status, answer) = ask(node, method, target, body);
    assert_eq!(status, 200, "{method} {target}: {answer}");
    answer
}

#[track_caller]
fn refused(node: &Node, method: &str, target: &str, body: &Value, status: u16, code: &str) -> Value {
    let answer = ask(node, method, target, body);
    assert_eq!((answer.0, answer.1["code"].as_str()), (status, Some(code)), "{method} {target}: {answer:?}");
    answer.1
}

fn members(node: &Node) -> Value {
    done(node, "GET", "/v1/members", &Value::Null)
}

/// The names of the members whose field is that.
fn names(view: &Value, field: &str, value: &Value) -> Vec<String> {
    let members = view["members"].as_array().unwrap().iter();
    let found = members.filter(|member| member[field] == *value);
    found.map(|member| member["name"].as_str().unwrap().to_owned()).collect()
}

/// A node with flags of its own, which is a cluster of itself.
fn spare(cluster: &Cluster, name: &str, flags: &[&str]) -> Node {
    let node = Node::new(cluster.dir.path(), name, flags);
    node.start();
    node.wait_until_ready();
    node
}

fn address(node: &Node) -> Value {
    json!({ "name": node.name, "raft_addr": format!("localhost:{}", node.raft_port) })
}

#[test]
fn every_node_lists_the_members_as_the_leader_sees_them() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let all = ["node-1", "node-2", "node-3"];
    for node in &cluster.nodes {
        let answer = node.call("GET", "/v1/members", "");
        let view: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(names(&view, "standing", &"voter".into()), all, "{view}");
        assert_eq!(names(&view, "health", &"ok".into()), all, "{view}");
        assert_eq!(names(&view, "leader", &true.into()), [&*cluster.nodes[leader].name]);
        assert_eq!(view["told_by"], cluster.nodes[leader].name.as_str());
        assert_eq!(answer.header("etag").unwrap(), format!("\"{}\"", view["configuration"]));
    }
    let follower = &cluster.nodes[(leader + 1) % 3];
    let view = done(follower, "GET", "/v1/members?level=local", &Value::Null);
    assert_eq!((view["told_by"].as_str(), view["committed"].as_bool()), (Some(&*follower.name), Some(true)));
    assert_eq!(names(&view, "health", &"unknown".into()), all, "only the leader knows: {view}");
}

#[test]
fn a_member_is_removed_by_name_or_id_and_ends_if_it_was_told_to() {
    let cluster = Cluster::start(4, &["--exit-when-removed"]);
    let first = &cluster.nodes[0];
    let view = members(first);
    let stale = view["configuration"].as_u64().unwrap();
    let removed = done(first, "DELETE", "/v1/members/node-4", &Value::Null);
    assert_eq!(removed["removed"], json!([{ "id": 4, "name": "node-4" }]));
    assert!(removed["configuration"].as_u64() > Some(stale));
    let gone = &cluster.nodes[3];
    assert_eq!(gone.wait_for_end().code(), Some(7), "{}", gone.log());
    refused(first, "DELETE", "/v1/members/node-4", &Value::Null, 404, "no-member");

    // A precondition: the configuration that the operator has seen.
    let expect = |index: u64| {
        let head = format!("DELETE /v1/members/3 HTTP/1.1\r\nhost: test\r\nif-match: \"{index}\"\r\n\r\n");
        crate::support::Connection::open(first.http_port).unwrap().raw(head.as_bytes()).unwrap()
    };
    let now = members(first)["configuration"].as_u64().unwrap();
    let answer = expect(stale);
    assert_eq!((answer.status, answer.header("etag")), (412, Some(&*format!("\"{now}\""))), "{answer:?}");
    assert!(answer.body.contains("\"condition-failed\"") && answer.body.contains("\"not-applied\""));
    assert_eq!(expect(now).status, 200);
    assert_eq!(cluster.nodes[2].wait_for_end().code(), Some(7));
    assert_eq!(names(&members(first), "standing", &"voter".into()), ["node-1", "node-2"]);
}

#[test]
fn a_member_that_was_down_when_it_was_removed_is_told_when_it_is_back() {
    let cluster = Cluster::start(4, &[]);
    let gone = &cluster.nodes[3];
    gone.kill();
    done(&cluster.nodes[1], "DELETE", "/v1/members/node-4", &Value::Null);
    gone.start();
    let status = eventually("it to know", || gone.status().filter(|status| status["removed"] == true));
    assert!(status["withdrawn"].as_str().unwrap().contains("was removed from its cluster"), "{status}");
    let ready = gone.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("[-] member: this node was removed"), "{}", ready.body);
    assert_eq!(status["role"], "follower", "it does not stand for election");
}

#[test]
fn a_leader_that_is_removed_hands_over_first_and_its_client_is_answered() {
    let cluster = Cluster::start(3, &["--exit-when-removed"]);
    let leader = &cluster.nodes[cluster.leader()];
    let others: Vec<&Node> = cluster.nodes.iter().filter(|node| node.name != leader.name).collect();
    let load = Load::mixed(&cluster.nodes, 4);
    load.wait_for(200);
    let term = others[0].status().unwrap()["term"].as_u64().unwrap();
    let removed = done(leader, "DELETE", &format!("/v1/members/{}", leader.name), &Value::Null);
    assert_eq!(removed["removed"][0]["name"], leader.name.as_str());
    assert_eq!(leader.wait_for_end().code(), Some(7), "{}", leader.log());
    load.wait_for(200);
    let seen = load.finish(&cluster.nodes);
    assert_linearizable(&seen.operations);
    assert!(leader.log().contains("role or leader changed"));
    let status = others[0].status().unwrap();
    assert!(status["term"].as_u64().unwrap() > term, "another node led before it was removed");
    assert_eq!(names(&members(others[1]), "standing", &"voter".into()).len(), 2);
    cluster.assert_same_state();
}

#[test]
fn a_removal_that_would_lose_the_quorum_is_refused_unless_forced() {
    let cluster = Cluster::start(3, &["--request-timeout=1s"]);
    let leader = &cluster.nodes[cluster.leader()];
    let others: Vec<&Node> = cluster.nodes.iter().filter(|node| node.name != leader.name).collect();
    others[0].kill();
    eventually("the leader to know", || {
        let view = members(leader);
        (names(&view, "health", &"silent".into()) == [&*others[0].name]).then_some(())
    });
    let target = format!("/v1/members/{}", others[1].name);
    let why = refused(leader, "DELETE", &target, &Value::Null, 409, "would-lose-quorum");
    let detail = why["detail"].as_str().unwrap();
    assert!(detail.contains(&*others[0].name) && !detail.contains(&*others[1].name), "{detail}");
    assert_eq!(why["outcome"], "not-applied");
    assert_eq!(names(&members(leader), "standing", &"voter".into()).len(), 3);

    // Forced: it is done once the one that is needed is back.
    let forced =
        refused(leader, "DELETE", &format!("{target}?force=true"), &Value::Null, 504, "outcome-unknown");
    assert_eq!(forced["outcome"], "unknown");
    others[0].start();
    eventually("the forced removal to be done", || {
        let view = others[0].try_get("/v1/members").filter(|answer| answer.status == 200)?;
        let view: Value = serde_json::from_str(&view.body).ok()?;
        (names(&view, "standing", &"voter".into()).len() == 2).then_some(())
    });
    others[0].wait_until_ready();
    assert_eq!(others[0].set("k", "v").status, 200);
}

#[test]
fn nodes_are_added_as_voters_or_as_learners_and_learners_are_promoted() {
    let cluster = Cluster::start(1, &[]);
    let first = &cluster.nodes[0];
    assert_eq!(first.set("k", "v").status, 200);
    let two = spare(&cluster, "node-2", &[]);
    let added = done(first, "POST", "/v1/members", &address(&two));
    assert_eq!(added["members"], json!([{ "id": 2, "name": "node-2", "standing": "voter" }]));
    // An order that is repeated does no harm.
    assert_eq!(done(&two, "POST", "/v1/members", &address(&two))["members"], added["members"]);

    let learner = spare(&cluster, "node-3", &[]);
    let mut body = address(&learner);
    body["learner"] = true.into();
    let added = done(&two, "POST", "/v1/members", &body);
    assert_eq!(added["members"], json!([{ "id": 3, "name": "node-3", "standing": "learner" }]));
    learner.wait_until_ready();
    assert_eq!(learner.get("/get?key=k").status, 200);
    assert_eq!(names(&members(&learner), "standing", &"learner".into()), ["node-3"]);
    refused(&learner, "POST", "/v1/leader/transfer", &json!({ "to": "node-3" }), 409, "cannot-lead");
    let promoted = done(&learner, "POST", "/v1/members/node-3/promote", &Value::Null);
    assert_eq!(promoted["members"][0]["standing"], "voter");
    assert_eq!(names(&members(first), "standing", &"voter".into()), ["node-1", "node-2", "node-3"]);

    // What cannot be added is refused, and nothing has changed.
    let before = members(first)["configuration"].clone();
    let nowhere = json!({ "name": "node-9", "raft_addr": "localhost:9" });
    refused(first, "POST", "/v1/members", &nowhere, 409, "node-unreachable");
    let other = spare(&cluster, "other", &[]);
    assert_eq!(other.set("its own", "x").status, 200);
    refused(first, "POST", "/v1/members", &address(&other), 409, "node-has-data");
    let mut misnamed = address(&other);
    misnamed["name"] = "another".into();
    refused(first, "POST", "/v1/members", &misnamed, 400, "wrong-name");
    refused(first, "POST", "/v1/members", &json!({ "name": "node-9" }), 400, "bad-field");
    refused(first, "POST", "/v1/members/node-9/promote", &Value::Null, 404, "no-member");
    assert_eq!(members(first)["configuration"], before);
}

#[test]
fn several_members_are_replaced_in_one_change_under_load() {
    let cluster = Cluster::start(3, &[]);
    let load = Load::mixed(&cluster.nodes, 4);
    load.wait_for(100);
    let (four, five) = (spare(&cluster, "node-4", &[]), spare(&cluster, "node-5", &[]));
    let first = &cluster.nodes[0];
    let body = json!({ "add": [address(&four), address(&five)], "replace": ["node-2", 3] });
    let added = done(first, "POST", "/v1/members", &body);
    assert_eq!(added["members"].as_array().unwrap().len(), 2, "{added}");
    let voters = ["node-1", "node-4", "node-5"];
    assert_eq!(names(&members(&five), "standing", &"voter".into()), voters);
    load.wait_for(100);
    assert_linearizable(&load.finish(&cluster.nodes[..1]).operations);
    for gone in &cluster.nodes[1..] {
        eventually("it to know", || gone.status().filter(|status| status["removed"] == true));
    }
}

#[test]
fn leadership_is_handed_to_a_named_member_or_to_the_best() {
    let cluster = Cluster::start(3, &[]);
    for to in ["node-2", "node-3", "node-1"] {
        for node in &cluster.nodes {
            let answer = done(node, "POST", "/v1/leader/transfer", &json!({ "to": to }));
            assert_eq!(answer["leader"]["name"], to, "asked at {}", node.name);
        }
    }
    let answer = done(&cluster.nodes[2], "POST", "/v1/leader/transfer", &Value::Null);
    assert_ne!(answer["leader"]["name"], "node-1", "the best of the others: {answer}");
    refused(&cluster.nodes[0], "POST", "/v1/leader/transfer", &json!({ "to": "nobody" }), 404, "no-member");
}

#[test]
fn the_command_line_manages_members() {
    let cluster = Cluster::start(3, &[]);
    let shell = Shell::of(&cluster.nodes[..2]);
    let four = spare(&cluster, "node-4", &[]);
    let named = |name: &str, node: &Node| format!("{name}=localhost:{}", node.raft_port);
    let added = shell.run(&["member", "add", &named("node-4", &four), "--learner"]);
    assert_eq!(added.ok(), "node-4 is member 4, a learner\n");
    let json = shell.run(&["member", "promote", "4", "-o", "json"]);
    let json: Value = serde_json::from_str(json.ok()).unwrap();
    assert_eq!(json["members"], json!([{ "id": 4, "name": "node-4", "standing": "voter" }]));
    let index = json["configuration"].to_string();
    let five = spare(&cluster, "node-5", &[]);
    let stale = shell.run(&["member", "replace", "node-3", &named("node-5", &five), "--if-configuration=1"]);
    stale.failed(4, "condition-failed");
    let replaced =
        shell.run(&["member", "replace", "node-3", &named("node-5", &five), "--if-configuration", &index]);
    assert_eq!(replaced.ok(), "node-5 is member 5, a voter\n");
    assert_eq!(shell.run(&["member", "ls", "-o", "raw"]).ok(), "node-1\nnode-2\nnode-4\nnode-5\n");
    let table = shell.run(&["member", "ls"]);
    assert!(table.ok().starts_with("id  name    standing  health"), "{table:?}");
    let view: Value = serde_json::from_str(shell.run(&["member", "ls", "-o", "json"]).ok()).unwrap();
    assert_eq!(names(&view, "standing", &"voter".into()).len(), 4);
    assert_eq!(shell.run(&["leader", "transfer", "node-2"]).ok(), "node-2 leads\n");
    assert_eq!(shell.run(&["member", "rm", "node-5"]).ok(), "node-5, member 5, was removed\n");
    shell.run(&["member", "rm", "node-5"]).failed(3, "no-member");
    shell.run(&["member", "add", "node-6"]).failed(2, "NAME=HOST:PORT");
}
