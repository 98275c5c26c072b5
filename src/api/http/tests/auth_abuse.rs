//! What callers without rights may try, and what it gets them.

use crate::api::http::health::{Check, withhold_reasons};
use crate::api::http::tests::auth::{basic, basic_with, options, secured};
use crate::api::http::tests::fixture::Fixture;
use crate::api::service::{Credentials, ErrorCode, Identity, Shown};
use crate::api::{AuditLog, AuditSink, HttpOptions, PasswordCost};
use crate::kv::Store;
use crate::node::NodeHandle;
use crate::node::handle::ClientCall;
use crate::replica::{ClientError, ClientReply};
use crate::runtime::TokioEnv;
use crate::storage::MemoryDisk;
use std::io;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Keeps the lines.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl AuditSink for Lines {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().extend_from_slice(lines);
        Ok(())
    }
}

impl Lines {
    /// An audit log that writes them.
    pub(super) fn log(&self, env: &TokioEnv<MemoryDisk>) -> AuditLog {
        AuditLog::start(env, Box::new(self.clone())).expect("a thread")
    }

    /// All that were written, once that has ended.
    pub(super) async fn of(self, log: AuditLog, env: &TokioEnv<MemoryDisk>) -> Vec<serde_json::Value> {
        AuditLog::kept_by(Some(log), env, async {}).await;
        let lines = self.0.lock().unwrap();
        lines
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }
}

/// Another server on the node of a fixture.
async fn beside(options: HttpOptions, node: NodeHandle) -> Fixture {
    let beside = Fixture::start_without_node(options).await;
    beside.slot.fill(node);
    beside
}

/// A node that has not applied yet that the cluster is open no more.
#[tokio::test]
async fn a_node_that_is_behind_takes_no_orders_without_a_right() {
    let fixture = secured().await;
    let orders = [
        ("POST", "/join?nodeid=good&nodeaddr=localhost:8010", ""),
        ("DELETE", "/v1/members/2", ""),
        ("POST", "/v1/members", r#"{"name":"a","raft_addr":"localhost:1"}"#),
        ("POST", "/v1/leader/transfer", "{}"),
    ];
    for (method, target, body) in orders {
        for (headers, code) in [(String::new(), 401), (basic("app"), 403), (basic("root"), 200)] {
            fixture.node.facts.note_security(Store::new().security(), true);
            let answered = fixture.ask_with(method, target, &headers, body.as_bytes()).await;
            assert_eq!(answered.code, code, "{method} {target}: {}", answered.text());
        }
    }
}

/// A node that starts may not have applied yet that credentials are wanted.
#[tokio::test]
async fn a_node_that_does_not_know_yet_whether_credentials_count_finds_out() {
    let fixture = secured().await;
    for (headers, code) in [(basic("app"), 404), (basic_with("app", "wrong"), 401), (String::new(), 401)] {
        fixture.node.facts.note_security(Store::new().security(), false);
        let answered = fixture.ask_with("GET", "/v1/kv/app%2Fa", &headers, b"").await;
        assert_eq!(answered.code, code, "{}", answered.text());
    }
    let open = Fixture::start(options()).await;
    open.node.facts.note_security(Store::new().security(), false);
    let answered = open.ask_with("GET", "/v1/kv/a", &basic("app"), b"").await;
    assert_eq!(answered.code, 404, "nobody wants them: {}", answered.text());
}

/// A node that has not applied yet that credentials are wanted does not look at any. It cannot say
/// that they are wrong.
#[tokio::test]
async fn credentials_that_were_not_looked_at_are_not_wrong() {
    let fixture = secured().await;
    for (method, target) in [("GET", "/v1/kv/app%2Fa"), ("PUT", "/v1/kv/app%2Fa"), ("GET", "/get?key=app/a")]
    {
        for (headers, code) in [(basic("app"), 503), (String::new(), 401)] {
            fixture.node.facts.note_security(Store::new().security(), true);
            let answered = fixture.ask_with(method, target, &headers, b"").await;
            assert_eq!(answered.code, code, "{method} {target}: {}", answered.text());
            let is_told = answered.text().contains("ask again");
            assert_eq!(is_told, code == 503, "{}", answered.text());
            assert!(method != "PUT" || answered.text().contains("not-applied"), "{}", answered.text());
        }
    }
}

/// What was carried out under its key before is not said not to have happened.
#[tokio::test]
async fn credentials_that_were_not_looked_at_say_nothing_of_an_earlier_attempt() {
    let fixture = secured().await;
    let headers = format!("{}idempotency-key: once\r\n", basic("app"));
    assert_eq!(fixture.ask_with("PUT", "/v1/kv/app%2Fa", &headers, b"x").await.code, 200);
    fixture.node.facts.note_security(Store::new().security(), true);
    let again = fixture.ask_with("PUT", "/v1/kv/app%2Fa", &headers, b"x").await;
    assert_eq!(again.code, 503, "{}", again.text());
    assert!(again.text().contains("ask again"), "{}", again.text());
    assert!(!again.text().contains("not-applied"), "{}", again.text());
}

/// It cannot find out whether they are newer than what it knows.
#[tokio::test]
async fn a_node_without_a_quorum_is_no_place_to_guess_at() {
    let secured = secured().await;
    let (clients, _) = mpsc::channel(1);
    let alone = beside(options(), NodeHandle { clients, ..secured.node.clone() }).await;
    let mut codes = Vec::new();
    for number in 0..12 {
        let headers = basic_with("root", &format!("guess {number}"));
        codes.push(alone.ask_with("GET", "/v1/kv/a", &headers, b"").await.code);
    }
    assert_eq!(codes.last(), Some(&429), "{codes:?}");
}

/// Anybody may ask whether it is ready, and nobody learns what is on its disk.
#[tokio::test]
async fn a_stranger_does_not_learn_why_a_node_is_not_ready() {
    let secured = secured().await;
    let (clients, _) = mpsc::channel(1);
    let alone = beside(options(), NodeHandle { clients, ..secured.node.clone() }).await;
    let answered = alone.ask("GET", "/readyz", b"").await;
    assert_eq!(
        (answered.code, answered.text()),
        (503, "[-] quorum: no quorum confirms this node\nnot ready\n")
    );
    let mut checks: Vec<Check> =
        ["storage", "trusted", "quorum", "leader"].map(|name| (name, Err("secret".to_owned()))).into();
    checks.push(("member", Ok(())));
    withhold_reasons(&mut checks);
    let told: Vec<_> = checks.iter().filter(|(_, held)| *held == Err("secret".to_owned())).collect();
    assert_eq!(told.len(), 1, "what has no words of the node's is told: {checks:?}");
    assert!(checks[4].1.is_ok());
}

/// Invented credentials make no difference.
#[tokio::test]
async fn a_stranger_does_not_learn_why_a_node_withdrew() {
    let secured = secured().await;
    let (clients, mut calls) = mpsc::channel::<ClientCall>(4);
    tokio::spawn(async move {
        while let Some(call) = calls.recv().await {
            let failed = ClientError::Refused("its disk is of cluster 7, at 10.0.0.7".to_owned());
            let _ = call.reply.send(ClientReply::Failed(failed));
        }
    });
    let withdrawn = beside(options(), NodeHandle { clients, ..secured.node.clone() }).await;
    for headers in [basic_with("root", "wrong"), "authorization: Bearer nonsense\r\n".to_owned()] {
        for target in ["/v1/kv/a", "/get?key=a", "/v1/status"] {
            let answered = withdrawn.ask_with("GET", target, &headers, b"").await;
            assert_eq!(answered.code, 503, "{target}: {}", answered.text());
            assert!(!answered.text().contains('7'), "{target}: {}", answered.text());
        }
    }
    // Who is known is told.
    let known = withdrawn.ask_with("GET", "/v1/kv/app%2Fa", &basic("app"), b"").await;
    assert!(known.code == 503 && known.text().contains("cluster 7"), "{}", known.text());
}

/// As many guesses as are made at once, from networks of one site.
#[tokio::test]
async fn guesses_at_once_count_as_guesses_one_after_the_other() {
    let fixture = secured().await;
    let mut guesses = JoinSet::new();
    for number in 0..60 {
        let (context, node, env) =
            (fixture.server.context.clone(), fixture.node.clone(), fixture.env.clone());
        guesses.spawn(async move {
            let address = format!("[2001:db8:7:{number:x}::1]:80");
            let who = Identity { address, ..Identity::default() };
            let guess = Credentials::Password { user: "root".to_owned(), password: vec![number] };
            let found = context.authenticator.authenticate(&env, &node, Some(&guess), true, who).await;
            found.expect_err("it is wrong").code
        });
    }
    let codes = guesses.join_all().await;
    let tried = codes.iter().filter(|code| **code == ErrorCode::Unauthenticated).count();
    let waited = codes.iter().filter(|code| **code == ErrorCode::TooManyAttempts).count();
    // A few more, if they take longer than the first pauses.
    assert!((8..20).contains(&tried) && tried + waited == 60, "{codes:?}");
}

#[tokio::test]
async fn a_certificate_of_no_user_is_no_wrong_guess() {
    let fixture = secured().await;
    let who = |name: &str, ends_at: u64| Identity {
        address: "10.0.0.7:1".to_owned(),
        certificate: Some(Shown { name: name.to_owned(), ends_at }),
        ..Identity::default()
    };
    let authenticate = async |who: Identity, wants: bool| {
        let authenticator = &fixture.server.context.authenticator;
        authenticator.authenticate(&fixture.env, &fixture.node, None, wants, who).await
    };
    for _ in 0..20 {
        let found = authenticate(who("probe", u64::MAX), true).await;
        assert!(found.expect("nobody is wrong").by.is_none());
    }
    let found = authenticate(who("app", u64::MAX), true).await.unwrap();
    assert_eq!((found.by.is_some(), found.user.as_deref()), (true, Some("app")));
    // A connection may outlive its certificate.
    assert!(authenticate(who("app", 1), true).await.unwrap().by.is_none());
    // The credentials of the header win, and count.
    let headers = basic("root");
    assert_eq!(fixture.ask_with("GET", "/v1/kv/app/a", &headers, b"").await.code, 404);
    // Whether the node lives is told without asking the cluster.
    let (clients, _) = mpsc::channel(1);
    let alone = NodeHandle { clients, ..fixture.node.clone() };
    let authenticator = &fixture.server.context.authenticator;
    let told = authenticator.authenticate(&fixture.env, &alone, None, false, who("probe", u64::MAX)).await;
    assert!(told.is_ok(), "{told:?}");
    let refused = authenticator.authenticate(&fixture.env, &alone, None, true, who("probe", u64::MAX)).await;
    assert_ne!(refused.unwrap_err().code, ErrorCode::Unauthenticated);
}

/// Others change all the time.
#[tokio::test]
async fn a_password_is_remembered_whatever_else_changes() {
    let fixture = secured().await;
    let ask = async |user: &str, method: &str, target: &str, body: &str| {
        fixture.ask_with(method, target, &basic(user), body.as_bytes()).await.code
    };
    for user in ["root", "app"] {
        assert_eq!(ask(user, "GET", "/v1/kv/app/a", "").await, 404);
    }
    for number in 0..20 {
        fixture.ask_with("GET", "/v1/kv/a", &basic_with("root", &format!("guess {number}")), b"").await;
    }
    // What is not remembered would have to wait now.
    assert_eq!(ask("root", "POST", "/v1/auth/roles", r#"{"name":"another"}"#).await, 200);
    assert_eq!(ask("root", "PUT", "/v1/auth/users/app/password", r#"{"password":"another"}"#).await, 200);
    assert_eq!(ask("root", "GET", "/v1/kv/app/a", "").await, 404);
    assert!(matches!(ask("app", "GET", "/v1/kv/app/a", "").await, 401 | 429), "its password was changed");
}

/// A server that can hash nothing: what it refuses it has judged before.
#[tokio::test]
async fn no_password_is_hashed_for_a_caller_without_the_right() {
    let secured = secured().await;
    let cost = PasswordCost { memory_kib: 0, passes: 0 };
    let fixture = beside(HttpOptions { password_cost: cost, ..options() }, secured.node.clone()).await;
    let change = async |by: &str, user: &str| {
        let target = format!("/v1/auth/users/{user}/password");
        fixture.ask_with("PUT", &target, &basic(by), br#"{"password":"x"}"#).await.code
    };
    assert_eq!(change("app", "root").await, 403);
    assert_eq!(change("app", "nobody").await, 403);
    // These it would carry out.
    assert_eq!(change("app", "app").await, 503);
    assert_eq!(change("root", "app").await, 503);
    let user = br#"{"name":"x","password":"x","roles":[]}"#;
    assert_eq!(fixture.ask_with("POST", "/v1/auth/users", &basic("app"), user).await.code, 403);
}

/// It was denied nothing, and did nothing.
#[tokio::test]
async fn an_alarm_that_is_not_there_is_not_written_down_as_acknowledged() {
    let secured = secured().await;
    let lines = Lines::default();
    let log = lines.log(&secured.env);
    let fixture = beside(HttpOptions { audit: Some(log.clone()), ..options() }, secured.node.clone()).await;
    let board = &fixture.server.context.metrics.alarm_board;
    board.raise("damage", "a file", true);
    let there = board.list()[0].id;
    for (id, code) in [(there + 1, 404), (there, 200)] {
        let answered = fixture.ask_with("DELETE", &format!("/v1/alarms/{id}"), &basic("root"), b"").await;
        assert_eq!(answered.code, code, "{}", answered.text());
    }
    let written = lines.of(log, &secured.env).await;
    let outcomes: Vec<_> = written.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["no-alarm", "done"], "{written:?}");
}

#[tokio::test]
async fn a_denied_order_is_written_down_as_what_it_was() {
    let secured = secured().await;
    let lines = Lines::default();
    let log = lines.log(&secured.env);
    let options = HttpOptions { audit: Some(log.clone()), ..options() };
    let fixture = beside(options, secured.node.clone()).await;
    let denied = [
        ("DELETE", "/v1/members/2", "", "order"),
        ("POST", "/join?nodeid=good&nodeaddr=localhost:8010", "", "join"),
        ("GET", "/v1/snapshot", "", "back up"),
        ("PUT", "/v1/auth/users/root/password", r#"{"password":"x"}"#, "set the password of user"),
        ("POST", "/v1/auth/users", r#"{"name":"x","password":"x","roles":[]}"#, "add user"),
    ];
    for (method, target, body, _) in denied {
        let answered = fixture.ask_with(method, target, &basic("app"), body.as_bytes()).await;
        assert_eq!(answered.code, 403, "{method} {target}");
    }
    let written = lines.of(log, &secured.env).await;
    let actions: Vec<_> = written.iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(actions, denied.map(|(.., action)| action), "{written:?}");
    assert!(
        written.iter().all(|line| line["outcome"] == "forbidden" && line["user"] == "app"),
        "{written:?}"
    );
    assert!(written[0]["about"].as_str().unwrap().contains("Remove"), "{written:?}");
}

/// Nobody is told who asks before there are rules.
#[tokio::test]
async fn a_stranger_does_not_learn_what_is_repaired() {
    let fixture = Fixture::start_without_node(options()).await;
    let repair = &fixture.server.context.metrics.repair;
    repair.begin(vec!["secret damage".to_owned()]);
    repair.note("entries 3 to 9 are needed (10.0.0.7:8000: no answer)", 7);
    for target in ["/v1/status", "/v1/kv/a", "/readyz", "/readyz?verbose", "/get?key=a"] {
        let answered = fixture.ask("GET", target, b"").await;
        let text = answered.text();
        assert_eq!(answered.code, 503, "{target}: {text}");
        assert!(text.contains("repairing"), "{target}: {text}");
        assert!(!text.contains("10.0.0.7") && !text.contains("secret") && !text.contains('7'), "{text}");
    }
}
