//! An attacker, as it would go about it: every route, without credentials, with stolen names of the
//! cluster, and with the rights of each role.
//!
//! What `/openapi.json` lists is walked, so a new route fails here until the model below knows what
//! it needs. `tls` has the raft port.

use crate::support::{Connection, Node, Response, Shell};
use crate::tls::Folder;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use tempfile::TempDir;

const PASSWORD: &str = "planted-password-5711";
const KEY: &str = "app/planted-key-5712";
const VALUE: &str = "planted-value-5713";

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// Credentials, whoever's.
    Credentials,
    Read,
    Write,
    ReadAndWrite,
    /// Some key that may be written, whichever.
    WriteAnything,
    /// All keys, or those that nobody but `root` has.
    All,
    Right(&'static str),
}

/// What it needs, its path behind the route's beginning, and its body, all about the keys below
/// `app/`. By the route's name in `/openapi.json`.
fn model(id: &str, raft_port: u16, lease: u64) -> (Needs, String, String) {
    use Needs::{All, Credentials, Nothing, Read, ReadAndWrite, Right, Write, WriteAnything};
    let here = |name: &str| json!({"name": name, "raft_addr": format!("localhost:{raft_port}")}).to_string();
    let of = |needs: Needs, target: &str, body: &str| (needs, target.to_owned(), body.to_owned());
    match id {
        "live" => of(Nothing, "/livez", ""),
        "ready" => of(Nothing, "/readyz", ""),
        "help" => of(Nothing, "/", ""),
        "openapi" => of(Nothing, "/openapi.json", ""),
        "status" => of(Nothing, "/v1/status", ""),
        "metrics" => of(Credentials, "/metrics", ""),
        "set" => of(Write, "/set", r#"{"key":"app/k","value":"x","action":"set"}"#),
        "get" => of(Read, "/get?key=app/k", ""),
        "join" => of(Right("members"), &format!("/join?nodeid=n9&nodeaddr=localhost:{raft_port}"), ""),
        "getKey" => of(Read, "/v1/kv/app%2Fk", ""),
        "putKey" => of(Write, "/v1/kv/app%2Fk", "x"),
        "deleteKey" => of(Write, "/v1/kv/app%2Fk", ""),
        "listKeys" => of(Read, "/v1/kv?prefix=app/", ""),
        "putKeyOfQuery" => of(Write, "/v1/kv?key=app/k", "x"),
        "deleteKeys" => of(Write, "/v1/kv?prefix=app/x", ""),
        "askRange" => of(Read, "/v1/range", r#"{"prefix":"app/"}"#),
        "watch" => of(Read, "/v1/watch?prefix=app/", ""),
        "transact" => of(Write, "/v1/txn", r#"{"then":[{"put":{"key":"app/k","value":"x"}}]}"#),
        "increment" => of(ReadAndWrite, "/v1/incr/app%2Fn", ""),
        "grantLease" => of(WriteAnything, "/v1/leases", r#"{"ttl":60}"#),
        "listLeases" => of(All, "/v1/leases", ""),
        "getLease" => of(Read, &format!("/v1/leases/{lease}"), ""),
        "renewLease" => of(Write, &format!("/v1/leases/{lease}/keepalive"), ""),
        "revokeLease" => of(Write, &format!("/v1/leases/{lease}"), ""),
        "takeLock" => of(All, "/v1/locks/nightly", ""),
        "campaign" => of(All, "/v1/elections/nightly", ""),
        "getLock" => of(All, "/v1/locks/nightly", ""),
        "getLeader" => of(All, "/v1/elections/nightly", ""),
        "putLockValue" | "releaseLock" => of(All, "/v1/locks/nightly?lease=1", ""),
        "proclaim" | "resign" => of(All, "/v1/elections/nightly?lease=1", ""),
        "compact" => of(Right("settings"), "/v1/compact", r#"{"revision":0}"#),
        "getSettings" => of(Credentials, "/v1/settings", ""),
        "putSettings" => of(
            Right("settings"),
            "/v1/settings",
            r#"{"history_bytes":67108864,"quota_bytes":1073741824,"answers_bytes":16777216}"#,
        ),
        "backup" => of(Right("backups"), "/v1/snapshot", ""),
        "listMembers" => of(Credentials, "/v1/members", ""),
        "addMembers" => of(Right("members"), "/v1/members", &here("n9")),
        "removeMember" => of(Right("members"), "/v1/members/nobody", ""),
        "promoteMember" => of(Right("members"), "/v1/members/nobody/promote", ""),
        "transferLeadership" => of(Right("members"), "/v1/leader/transfer", r#"{"to":"nobody"}"#),
        "listAlarms" => of(Credentials, "/v1/alarms", ""),
        "acknowledgeAlarm" => of(Right("members"), "/v1/alarms/99", ""),
        "authStatus" => of(Credentials, "/v1/auth/status", ""),
        _ => security_model(id),
    }
}

/// The same of users, roles and tokens.
fn security_model(id: &str) -> (Needs, String, String) {
    let (target, body) = match id {
        "enableAuth" => ("/v1/auth/enable", ""),
        "disableAuth" => ("/v1/auth/disable", ""),
        "listUsers" => ("/v1/auth/users", ""),
        "addUser" => ("/v1/auth/users", r#"{"name":"x"}"#),
        "removeUser" => ("/v1/auth/users/nobody", ""),
        "setPassword" => ("/v1/auth/users/nobody/password", r#"{"password":"x"}"#),
        "changeUser" => ("/v1/auth/users/nobody/roles", "{}"),
        "listRoles" => ("/v1/auth/roles", ""),
        "addRole" => ("/v1/auth/roles", r#"{"name":"x"}"#),
        "removeRole" => ("/v1/auth/roles/nobody", ""),
        "changeRole" => ("/v1/auth/roles/nobody/grants", "{}"),
        "listTokens" => ("/v1/auth/tokens", ""),
        "addToken" => ("/v1/auth/tokens", r#"{"name":"x","user":"root"}"#),
        "revokeToken" => ("/v1/auth/tokens/nobody", ""),
        new => panic!("{new} is a new route: say here what it needs, and in docs/security.md"),
    };
    (Needs::Right("security"), target.to_owned(), body.to_owned())
}

/// What each of them may do.
#[derive(Clone, Copy, Debug)]
struct Role {
    name: &'static str,
    /// As `POST /v1/auth/roles` takes it.
    grants: &'static str,
    reads: bool,
    writes: bool,
    right: &'static str,
}

const ROLES: [Role; 8] = [
    Role {
        name: "reads",
        grants: r#""grants":[{"access":"read","prefix":"app/"}]"#,
        reads: true,
        writes: false,
        right: "",
    },
    Role {
        name: "writes",
        grants: r#""grants":[{"access":"write","prefix":"app/"}]"#,
        reads: false,
        writes: true,
        right: "",
    },
    Role {
        name: "both",
        grants: r#""grants":[{"access":"read-write","prefix":"app/"}]"#,
        reads: true,
        writes: true,
        right: "",
    },
    // Beside it, and a part of it.
    Role {
        name: "beside",
        grants: r#""grants":[{"access":"read-write","prefix":"app0"},{"access":"read-write","key":"app/"}]"#,
        reads: false,
        writes: false,
        right: "",
    },
    Role {
        name: "settings",
        grants: r#""admin":["settings"]"#,
        reads: false,
        writes: false,
        right: "settings",
    },
    Role { name: "members", grants: r#""admin":["members"]"#, reads: false, writes: false, right: "members" },
    Role { name: "backups", grants: r#""admin":["backups"]"#, reads: false, writes: false, right: "backups" },
    Role {
        name: "security",
        grants: r#""admin":["security"]"#,
        reads: false,
        writes: false,
        right: "security",
    },
];

impl Role {
    fn may(&self, needs: Needs) -> bool {
        match needs {
            Needs::Nothing | Needs::Credentials => true,
            Needs::Read => self.reads,
            Needs::Write => self.writes,
            Needs::ReadAndWrite => self.reads && self.writes,
            Needs::WriteAnything => self.grants.contains("write"),
            Needs::All => false,
            Needs::Right(right) => self.right == right,
        }
    }
}

fn ask(node: &Node, method: &str, target: &str, token: &str, body: &str) -> Response {
    let length = body.len();
    let header = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
    let request =
        format!("{method} {target} HTTP/1.1\r\nhost: test\r\n{header}content-length: {length}\r\n\r\n{body}");
    Connection::open(node.http_port).unwrap().raw(request.as_bytes()).unwrap()
}

/// Methods and names of all operations.
fn operations(description: &str) -> Vec<(String, String)> {
    let description: Value = serde_json::from_str(description).unwrap();
    let paths = description["paths"].as_object().unwrap();
    let of = |operations: &Value| {
        let operations = operations.as_object().unwrap().clone();
        operations
            .into_iter()
            .map(|(method, one)| (method.to_uppercase(), one["operationId"].as_str().unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    let all: Vec<_> = paths.values().flat_map(of).collect();
    assert!(all.len() > 40, "{all:?}");
    all
}

/// A lease with a key below `app/`, which the caller of that token makes.
fn lease_with_key(node: &Node, token: &str) -> u64 {
    let made: Value =
        serde_json::from_str(&ask(node, "POST", "/v1/leases", token, r#"{"ttl":600}"#).body).unwrap();
    let lease = made["id"].as_u64().unwrap();
    assert_eq!(ask(node, "PUT", &format!("/v1/kv/app%2Fleased?lease={lease}"), token, "x").status, 200);
    lease
}

#[test]
fn each_role_may_do_what_the_model_says() {
    let dir = TempDir::new().unwrap();
    let node = Node::new(dir.path(), "n1", &[]);
    node.start();
    node.wait_until_ready();
    let made = |response: Response| {
        assert_eq!(response.status, 200, "{}", response.body);
        serde_json::from_str::<Value>(&response.body).unwrap_or_default()
    };
    let token = |name: &str, of: &str| {
        let body = format!(r#"{{"name":"{name}",{of}}}"#);
        made(ask(&node, "POST", "/v1/auth/tokens", "", &body))["token"].as_str().unwrap().to_owned()
    };
    let root = format!(r#"{{"name":"root","password":"{PASSWORD}","roles":["root"]}}"#);
    made(ask(&node, "POST", "/v1/auth/users", "", &root));
    let root = token("of-root", r#""user":"root""#);
    let mut tokens = BTreeMap::new();
    for role in ROLES {
        made(ask(
            &node,
            "POST",
            "/v1/auth/roles",
            "",
            &format!(r#"{{"name":"{}",{}}}"#, role.name, role.grants),
        ));
        tokens.insert(role.name, token(role.name, &format!(r#""roles":["{}"]"#, role.name)));
    }
    made(ask(&node, "POST", "/v1/auth/enable", "", ""));
    let operations = operations(&node.get("/openapi.json").body);
    let mut wrong = Vec::new();
    for role in ROLES {
        for (method, id) in &operations {
            // One may end it.
            let lease = lease_with_key(&node, &root);
            let (needs, target, body) = model(id, node.raft_port, lease);
            if id == "disableAuth" && role.may(needs) {
                // It would be the end of this test.
                continue;
            }
            let answered = ask(&node, method, &target, &tokens[role.name], &body);
            let is_let_in = !matches!(answered.status, 401 | 403);
            let learns = !is_let_in && answered.body.contains("nobody");
            if is_let_in != role.may(needs) || answered.status == 401 || learns {
                wrong.push(format!("{} {method} {target}: {} {}", role.name, answered.status, answered.body));
            }
        }
    }
    for (method, id) in &operations {
        let (_, target, body) = model(id, node.raft_port, lease_with_key(&node, &root));
        if id != "disableAuth" {
            let answered = ask(&node, method, &target, &root, &body);
            if matches!(answered.status, 401 | 403) {
                wrong.push(format!("root {method} {target}: {}", answered.body));
            }
        }
    }
    assert!(wrong.is_empty(), "against the model:\n{}", wrong.join("\n"));
}

/// Requests that curl makes one after the other over TLS; their answers, heads and all.
fn curl(folder: &Folder, port: u16, requests: &[(&str, &str, String, String)]) -> Vec<(u16, String)> {
    let mut config = String::new();
    for (place, (method, target, header, body)) in requests.iter().enumerate() {
        if place > 0 {
            config.push_str("next\n");
        }
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        writeln!(config, "url = \"https://localhost:{port}{}\"\nrequest = {method}", quoted(target)).unwrap();
        writeln!(config, "cacert = certs/ca.pem\nsilent\ninclude\nhttp1.1\nmax-time = 20").unwrap();
        if !header.is_empty() {
            writeln!(config, "header = \"{header}\"").unwrap();
        }
        if !body.is_empty() {
            writeln!(config, "data-binary = \"{}\"", quoted(body)).unwrap();
        }
        writeln!(config, "write-out = \"\\n=%{{http_code}}=\\n\"").unwrap();
    }
    fs::write(folder.path("requests"), config).unwrap();
    let ran = Shell::at("localhost:1").script("curl -q -K requests", folder.dir());
    let mut answers = Vec::new();
    let mut text = String::new();
    for line in ran.ok().lines() {
        match line.strip_prefix('=').and_then(|line| line.strip_suffix('=')) {
            Some(code) => answers.push((code.parse().unwrap(), std::mem::take(&mut text))),
            None => text.extend([line, "\n"]),
        }
    }
    assert_eq!(answers.len(), requests.len(), "{ran:?}");
    answers
}

/// What comes behind the head of an answer.
fn body_of(answer: &str) -> &str {
    answer.split_once("\n\n").unwrap().1.trim()
}

#[test]
fn without_credentials_nothing_is_learnt_and_nothing_is_done() {
    let folder = Folder::with(&["the-planted-name"]);
    let node = folder.secured("the-planted-name", &[]);
    node.start();
    let port = node.http_port;
    let one = |method: &str, target: &str, header: &str, body: &str| {
        let request = (method, target, header.to_owned(), body.to_owned());
        curl(&folder, port, &[request]).pop().unwrap()
    };
    let root = format!(r#"{{"name":"root","password":"{PASSWORD}","roles":["root"]}}"#);
    assert_eq!(one("POST", "/v1/auth/users", "", &root).0, 200);
    let (_, made) = one("POST", "/v1/auth/tokens", "", r#"{"name":"of-root","user":"root"}"#);
    let made: Value = serde_json::from_str(body_of(&made)).unwrap();
    let root = format!("authorization: Bearer {}", made["token"].as_str().unwrap());
    assert_eq!(one("PUT", &format!("/v1/kv/{KEY}"), "", VALUE).0, 200);
    assert_eq!(one("POST", "/v1/auth/enable", "", "").0, 200);
    let look = || {
        let targets =
            ["/v1/kv", "/v1/leases", "/v1/settings", "/v1/auth/users", "/v1/auth/roles", "/v1/auth/tokens"];
        let requests = targets.map(|target| ("GET", target, root.clone(), String::new()));
        let (code, status) = one("GET", "/v1/status", &root, "");
        assert_eq!(code, 200);
        let status: Value = serde_json::from_str(body_of(&status)).unwrap();
        let seen: Vec<_> = curl(&folder, port, &requests)
            .into_iter()
            .map(|(code, text)| {
                assert_eq!(code, 200, "{text}");
                body_of(&text).to_owned()
            })
            .collect();
        (status, seen)
    };
    let (status, before) = look();
    let text = |pointer: &str| {
        let found = status.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {status}"));
        found.as_str().map_or_else(|| found.to_string(), str::to_owned)
    };
    let (cluster, store) = (text("/cluster"), text("/members/0/store"));
    let (_, described) = one("GET", "/openapi.json", "", "");
    let operations = operations(body_of(&described));
    // What a caller may have stolen opens nothing.
    let stolen = [
        String::new(),
        format!("authorization: Bearer {cluster}"),
        format!("authorization: Bearer {store}"),
        format!("infinitystore-served-by: {store}"),
    ];
    for header in stolen {
        let models: Vec<_> =
            operations.iter().map(|(method, id)| (method, model(id, node.raft_port, 1))).collect();
        let requests: Vec<_> = models
            .iter()
            .map(|(method, (_, target, body))| {
                (method.as_str(), target.as_str(), header.clone(), body.clone())
            })
            .collect();
        for ((method, (needs, target, _)), (code, answer)) in
            models.iter().zip(curl(&folder, port, &requests))
        {
            let name = format!("{method} {target} with {header:?}: {answer}");
            match needs {
                Needs::Nothing if target == "/v1/status" && !header.contains("Bearer") => {
                    assert!(answer.ends_with("\n\n{\"alive\":true,\"ready\":true}\n\n"), "{name}");
                }
                Needs::Nothing if target != "/v1/status" => assert_eq!(code, 200, "{name}"),
                // After a few wrong ones it has to wait.
                _ => assert!(matches!(code, 401 | 429), "{name}"),
            }
            let secrets = [PASSWORD, KEY, VALUE, &cluster, &store, "the-planted-name", "of-root", "argon2"];
            for secret in secrets {
                assert!(!answer.contains(secret), "{secret} is in the answer of {name}");
            }
            let raft_addr = format!("localhost:{}", node.raft_port);
            assert!(!answer.contains(&raft_addr), "{name}");
        }
    }
    let (after, seen) = look();
    assert_eq!(seen, before);
    for pointer in ["/members", "/term", "/revision", "/cluster"] {
        assert_eq!(after.pointer(pointer), status.pointer(pointer), "{pointer}");
    }
}
