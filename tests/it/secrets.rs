//! A cluster that is not open: nothing secret is told, and what was done is written down.

use crate::support::{Cluster, Connection, Node, Response, eventually};
use serde_json::Value;
use std::fs;

const PASSWORD: &str = "planted-password-4711";
const VALUE: &str = "planted-value-4712";
const KEY: &str = "app/planted-key-4713";

/// The header of the user `root`, in base64 as a client writes it.
const ROOT: &str = "authorization: Basic cm9vdDpwbGFudGVkLXBhc3N3b3JkLTQ3MTE=";

fn ask(node: &Node, method: &str, target: &str, header: &str, body: &str) -> Response {
    let length = body.len();
    let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
    let request =
        format!("{method} {target} HTTP/1.1\r\nhost: test\r\n{header}content-length: {length}\r\n\r\n{body}");
    Connection::open(node.http_port).unwrap().raw(request.as_bytes()).unwrap()
}

/// A token with the rights to what is below `app/`, of a cluster that wants credentials.
fn secure(node: &Node) -> String {
    let root = format!(r#"{{"name":"root","password":"{PASSWORD}","roles":["root"]}}"#);
    let role = r#"{"name":"app","grants":[{"access":"read-write","prefix":"app/"}]}"#;
    assert_eq!(ask(node, "POST", "/v1/auth/users", "", &root).status, 200);
    assert_eq!(ask(node, "POST", "/v1/auth/roles", "", role).status, 200);
    let made = ask(node, "POST", "/v1/auth/tokens", "", r#"{"name":"ci","roles":["app"],"ttl":3600}"#);
    let made: Value = serde_json::from_str(&made.body).unwrap();
    assert_eq!(ask(node, "POST", "/v1/auth/enable", "", "").status, 200);
    made["token"].as_str().unwrap().to_owned()
}

#[test]
fn planted_secrets_are_nowhere_to_be_found() {
    let cluster = Cluster::start(3, &["--log-level", "trace", "--audit-log", "audit.log"]);
    let (first, last) = (&cluster.nodes[0], &cluster.nodes[2]);
    let token = secure(first);
    let bearer = format!("authorization: Bearer {token}");
    let mut answers = Vec::new();
    let mut ask = |node: &Node, method: &str, target: &str, header: &str, body: &str| {
        let answered = ask(node, method, target, header, body);
        answers.push(format!("{method} {target}: {answered:?}"));
        answered.status
    };
    // Of this node a linearizable read is asked first: it has applied then that credentials count.
    // A node that has not would look at none, and answer 503.
    assert_eq!(ask(last, "GET", "/v1/kv/other", "", ""), 401);
    // On another node than the one where the token was made.
    assert_eq!(ask(last, "PUT", &format!("/v1/kv/{KEY}"), &bearer, VALUE), 200);
    assert_eq!(ask(last, "PUT", "/v1/kv/other", &bearer, VALUE), 403);
    assert_eq!(ask(last, "PUT", "/v1/kv/other", "", VALUE), 401);
    assert_eq!(ask(first, "PUT", "/v1/kv/other", &format!("{bearer}x"), VALUE), 401);
    assert_eq!(ask(first, "PUT", "/v1/kv/other", "authorization: planted-password-4711", VALUE), 401);
    let txn = format!(r#"{{"then":[{{"put":{{"key":"other","value":"{VALUE}"}}}}]}}"#);
    assert_eq!(ask(first, "POST", "/v1/txn", &bearer, &txn), 403);
    assert_eq!(ask(first, "POST", "/v1/incr/app%2Fplanted-key-4713", &bearer, ""), 409);
    let broken = format!(r#"{{"password":{{"{PASSWORD}":1}}"#);
    assert_eq!(ask(first, "PUT", "/v1/auth/users/root/password", ROOT, &broken), 400);
    assert_eq!(ask(first, "DELETE", "/v1/auth/users/root", ROOT, ""), 409);
    for target in
        ["/v1/auth/users", "/v1/auth/roles", "/v1/auth/tokens", "/v1/auth/status", "/v1/status", "/metrics"]
    {
        assert_eq!(ask(first, "GET", target, ROOT, ""), 200, "{target}");
    }
    for target in ["/v1/status", "/livez", "/readyz?verbose"] {
        assert_eq!(ask(first, "GET", target, "", ""), 200, "{target}");
    }
    // What a client asks for by name is its own business: the key stands in the first line.
    let told = answers.iter().map(|answer| answer.replace(KEY, "")).collect::<Vec<_>>().join("\n");
    for node in &cluster.nodes {
        let log = node.log();
        assert!(log.contains(" DEBUG ") || log.contains("TRACE"), "everything is logged");
        for secret in [PASSWORD, VALUE, &token, "planted-key-4713", "argon2id", "cm9vdDpwbGFudGVk"] {
            assert!(!log.contains(secret), "{secret} is in the log of {}", node.name);
        }
    }
    for secret in [PASSWORD, VALUE, &token, "argon2id"] {
        assert!(!told.contains(secret), "{secret} is in an answer");
    }
    // A thread of the node writes it, after the answers.
    let audit = eventually("the last lines of the audit log", || {
        let audit = fs::read_to_string(cluster.dir.path().join("audit.log")).unwrap();
        (audit.ends_with('\n') && audit.contains("would-lock-out")).then_some(audit)
    });
    for secret in [PASSWORD, VALUE, &token, "argon2id"] {
        assert!(!audit.contains(secret), "{secret} is in the audit log");
    }
    audit_says_who_did_what(&audit);
}

fn audit_says_who_did_what(audit: &str) {
    let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is =
        |line: &&Value, action: &str, outcome: &str| line["action"] == action && line["outcome"] == outcome;
    let put = lines.iter().find(|line| is(line, "put", "done")).expect("the put");
    assert_eq!((&put["token"], &put["ranges"][0]["key"]), (&Value::from("ci"), &Value::from(KEY)));
    assert!(put["revision"].as_u64().is_some() && put["address"].as_str().is_some());
    let denied = lines.iter().find(|line| is(line, "transact", "forbidden")).expect("the transaction");
    assert_eq!((&denied["token"], &denied["ranges"][0]["key"]), (&Value::from("ci"), &Value::from("other")));
    let refused = lines.iter().find(|line| is(line, "remove user", "would-lock-out")).expect("the removal");
    assert_eq!((&refused["user"], &refused["about"]), (&Value::from("root"), &Value::from("root")));
    assert!(lines.iter().any(|line| is(&line, "authenticate", "unauthenticated")));
    assert!(lines.iter().any(|line| is(&line, "add user", "done") && line["user"].is_null()));
}

#[test]
fn rights_outlive_restarts_and_reach_nodes_that_join_later() {
    let mut cluster = Cluster::start(1, &[]);
    let token = secure(&cluster.nodes[0]);
    let bearer = format!("authorization: Bearer {token}");
    let second = {
        cluster.start_node();
        &cluster.nodes[1]
    };
    let target = format!("/join?nodeid={}&nodeaddr=localhost:{}", second.name, second.raft_port);
    assert_eq!(ask(&cluster.nodes[0], "POST", &target, "", "").status, 401);
    assert_eq!(ask(&cluster.nodes[0], "POST", &target, &bearer, "").status, 403);
    assert_eq!(ask(&cluster.nodes[0], "POST", &target, ROOT, "").status, 200);
    second.wait_until_ready();
    for node in &cluster.nodes {
        assert_eq!(ask(node, "PUT", "/v1/kv/app/a", &bearer, "x").status, 200, "{}", node.name);
        assert_eq!(ask(node, "PUT", "/v1/kv/app/a", "", "x").status, 401, "{}", node.name);
        assert_eq!(ask(node, "GET", "/v1/kv/a?level=local", &bearer, "").status, 403, "{}", node.name);
    }
    for node in &cluster.nodes {
        node.kill();
    }
    for node in &cluster.nodes {
        node.start();
        // Before it has applied its log, it tells nobody anything.
        assert_ne!(ask(node, "GET", "/metrics", "", "").status, 200);
        assert!(!ask(node, "GET", "/v1/status", "", "").body.contains("node-"));
    }
    cluster.wait_until_ready();
    for node in &cluster.nodes {
        assert_eq!(ask(node, "PUT", "/v1/kv/app/a", &bearer, "x").status, 200, "{}", node.name);
        assert_eq!(ask(node, "GET", "/v1/kv/app/a", "", "").status, 401, "{}", node.name);
    }
}
