//! Who may do what, over HTTP.

use crate::api::http::credentials::{BadCredentials, parse};
use crate::api::http::route::Needs;
use crate::api::http::routes::Routes;
use crate::api::http::tests::fixture::{Answered, Fixture};
use crate::api::service::Credentials;
use crate::api::{HttpOptions, PasswordCost};
use crate::codec::to_base64;
use crate::runtime::TokioEnv;
use crate::storage::MemoryDisk;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Table = Routes<TokioEnv<MemoryDisk>>;

/// The header of a user whose password is the name backwards.
pub(super) fn basic(user: &str) -> String {
    let password: String = user.chars().rev().collect();
    basic_with(user, &password)
}

pub(super) fn basic_with(user: &str, password: &str) -> String {
    format!("authorization: Basic {}\r\n", to_base64(format!("{user}:{password}").as_bytes()))
}

pub(super) fn options() -> HttpOptions {
    HttpOptions { password_cost: PasswordCost { memory_kib: 8, passes: 1 }, ..HttpOptions::default() }
}

/// A server that is not open: `root` may do everything, `app` may read and write below `app/` and
/// read `shared`, `blind` may write below `app/`, and `nobody` may do nothing.
pub(super) async fn secured() -> Fixture {
    secured_with(|_| {}).await
}

/// The same with other options.
pub(super) async fn secured_with(change: impl FnOnce(&mut HttpOptions)) -> Fixture {
    let mut options = options();
    change(&mut options);
    let fixture = Fixture::start(options).await;
    let user = |name: &str, roles: &str| {
        let password: String = name.chars().rev().collect();
        format!(r#"{{"name":"{name}","password":"{password}","roles":[{roles}]}}"#)
    };
    let app = r#"{"name":"app","grants":[{"access":"read-write","prefix":"app/"},{"access":"read","key":"shared"}]}"#;
    let blind = r#"{"name":"blind","grants":[{"access":"write","prefix":"app/"}]}"#;
    for (path, body) in [
        ("/v1/auth/roles", app.to_owned()),
        ("/v1/auth/roles", blind.to_owned()),
        ("/v1/auth/users", user("root", "\"root\"")),
        ("/v1/auth/users", user("app", "\"app\"")),
        ("/v1/auth/users", user("blind", "\"blind\"")),
        ("/v1/auth/users", user("nobody", "")),
        ("/v1/auth/enable", String::new()),
    ] {
        let answered = fixture.ask("POST", path, body.as_bytes()).await;
        assert_eq!(answered.code, 200, "{path} {body} {}", answered.text());
    }
    fixture
}

impl Fixture {
    async fn by(&self, user: &str, method: &str, target: &str, body: &str) -> Answered {
        self.ask_with(method, target, &basic(user), body.as_bytes()).await
    }

    async fn code(&self, user: &str, method: &str, target: &str, body: &str) -> u16 {
        self.by(user, method, target, body).await.code
    }
}

#[tokio::test]
async fn no_route_is_without_a_permission() {
    let fixture = secured().await;
    for route in Table::all() {
        for operation in route.operations {
            let target = route.path.replace("{key}", "k").replace("{id}", "1").replace("{name}", "n");
            let ask = |headers: String| {
                let target = target.clone();
                let fixture = &fixture;
                async move { fixture.ask_with(operation.method, &target, &headers, b"{}").await }
            };
            let name = format!("{} {target}", operation.method);
            let anonymous = ask(String::new()).await;
            let wrong = ask(basic_with("root", "wrong")).await;
            match operation.needs {
                Needs::Nothing => assert!(anonymous.code < 400, "{name} {}", anonymous.code),
                Needs::CredentialsForAll => assert_eq!(anonymous.text(), "{\"alive\":true,\"ready\":true}\n"),
                Needs::Credentials | Needs::Keys | Needs::Right(_) => {
                    assert_eq!(anonymous.code, 401, "{name}");
                    assert!(anonymous.header("www-authenticate").is_some(), "{name}");
                    // After a few of them it has to wait.
                    assert!(matches!(wrong.code, 401 | 429), "{name} {}", wrong.code);
                    for refused in [anonymous, wrong] {
                        assert_eq!(refused.header("infinitystore-served-by"), None, "{name}");
                    }
                }
            }
        }
    }
}

/// A lock's keys cannot be guessed from its name.
#[tokio::test]
async fn who_may_not_take_a_lock_is_told_which_keys_it_is_made_of() {
    let fixture = secured().await;
    for (method, target, keys) in [
        ("POST", "/v1/locks/n", r"\0lock/n\0"),
        ("GET", "/v1/locks/n", r"\0lock/n\0"),
        ("DELETE", "/v1/locks/n?lease=7", r"\0lock/n\0"),
        ("POST", "/v1/elections/a%5Cb%ff", r"\0election/a\\b\xff\0"),
        ("PUT", "/v1/elections/n?lease=7", r"\0election/n\0"),
    ] {
        let refused = fixture.by("app", method, target, "").await;
        assert_eq!(refused.problem(), (403, "forbidden".to_owned()), "{method} {target}");
        let json = refused.json();
        let detail = json["detail"].as_str().expect("a detail");
        let told = format!(
            "locks and elections take read and write access to their keys, here those that begin with {keys}"
        );
        assert!(detail.ends_with(&told), "{method} {target}: {detail}");
    }
}

#[tokio::test]
async fn a_right_to_administer_is_asked_for() {
    let fixture = secured().await;
    let mut seen = 0;
    for route in Table::all() {
        for operation in route.operations {
            if !matches!(operation.needs, Needs::Right(_)) {
                continue;
            }
            let target = match route.path {
                "/join" => "/join?nodeid=good&nodeaddr=localhost:8010".to_owned(),
                path => path.replace("{id}", "1").replace("{name}", "n"),
            };
            let body = match (operation.id, operation.method) {
                ("compact", _) => r#"{"revision":0}"#,
                ("putSettings", _) => r#"{"history_bytes":1048576,"quota_bytes":1,"answers_bytes":1048576}"#,
                ("addMembers", _) => r#"{"name":"a","raft_addr":"localhost:1"}"#,
                ("addUser" | "addRole", _) => r#"{"name":"x"}"#,
                ("addToken", _) => r#"{"name":"x","user":"root"}"#,
                ("transferLeadership" | "changeUser" | "changeRole", _) => "{}",
                _ => "",
            };
            let name = format!("{} {target}", operation.method);
            for user in ["nobody", "app"] {
                let answered = fixture.by(user, operation.method, &target, body).await;
                assert_eq!(answered.code, 403, "{name} by {user}: {}", answered.text());
            }
            seen += 1;
        }
    }
    assert!(seen > 15, "the table has such routes");
    // And a right is enough.
    let role = r#"{"name":"operator","admin":["members","backups","settings"]}"#;
    fixture.by("root", "POST", "/v1/auth/roles", role).await;
    fixture.by("root", "POST", "/v1/auth/users/nobody/roles", r#"{"grant":["operator"]}"#).await;
    assert_eq!(fixture.code("nobody", "DELETE", "/v1/members/2", "").await, 200);
    assert_eq!(fixture.code("nobody", "POST", "/join?nodeid=good&nodeaddr=localhost:8010", "").await, 200);
    assert_eq!(fixture.code("nobody", "GET", "/v1/snapshot", "").await, 200);
    assert_eq!(fixture.code("nobody", "POST", "/v1/compact", r#"{"revision":0}"#).await, 200);
    assert_eq!(fixture.code("nobody", "GET", "/v1/auth/users", "").await, 403);
}

#[tokio::test]
async fn keys_are_judged_whatever_asks_for_them() {
    let fixture = secured().await;
    for (key, user) in [("app/a", "app"), ("shared", "root"), ("other", "root")] {
        assert_eq!(fixture.code(user, "PUT", &format!("/v1/kv/{key}"), "secret").await, 200);
    }
    let allowed = [
        ("GET", "/v1/kv/app/a", ""),
        ("GET", "/v1/kv/shared", ""),
        ("GET", "/get?key=shared", ""),
        ("GET", "/v1/kv?prefix=app/", ""),
        ("GET", "/v1/kv/app/a?at=1", ""),
        ("POST", "/set", r#"{"key":"app/b","value":"x","action":"set"}"#),
        ("DELETE", "/v1/kv?prefix=app/b", ""),
        ("POST", "/v1/incr/app/n", ""),
        ("GET", "/v1/settings", ""),
        ("GET", "/metrics", ""),
        ("GET", "/v1/members", ""),
    ];
    for (method, target, body) in allowed {
        let answered = fixture.by("app", method, target, body).await;
        assert_eq!(answered.code, 200, "{method} {target}: {}", answered.text());
    }
    let txn = |steps: &str| format!(r#"{{"if":[],"then":[{steps}],"else":[]}}"#);
    let get = r#"{"get":{"key":"other"}}"#;
    let nested = txn(&format!(r#"{{"txn":{}}}"#, txn(&format!(r#"{{"txn":{}}}"#, txn(get)))));
    let in_else =
        r#"{"if":[{"key":"app/a","version":1}],"then":[],"else":[{"put":{"key":"other","value":"x"}}]}"#;
    let compare = r#"{"if":[{"key":"other","version":1}],"then":[{"put":{"key":"app/a","value":"x"}}]}"#;
    let forbidden = [
        ("GET", "/v1/kv/other", String::new()),
        ("GET", "/get?key=other", String::new()),
        ("GET", "/get?key=other&level=local", String::new()),
        ("GET", "/v1/kv/other?at=3", String::new()),
        ("GET", "/v1/kv/other?level=local", String::new()),
        ("GET", "/v1/kv/other?wait=0s&after=0", String::new()),
        ("GET", "/v1/kv", String::new()),
        ("GET", "/v1/kv?start=app/", String::new()),
        ("GET", "/v1/kv?start=app/&end=app0a", String::new()),
        ("GET", "/v1/kv?prefix=app", String::new()),
        ("GET", "/v1/kv?count_only", String::new()),
        ("POST", "/v1/range", r#"{"prefix":""}"#.to_owned()),
        ("PUT", "/v1/kv/shared", "x".to_owned()),
        ("PUT", "/v1/kv?key=other", "x".to_owned()),
        ("POST", "/set", r#"{"key":"other","value":"x","action":"set"}"#.to_owned()),
        ("POST", "/set", r#"{"key":"other","action":"delete"}"#.to_owned()),
        ("DELETE", "/v1/kv?all", String::new()),
        ("DELETE", "/v1/kv?start=app/", String::new()),
        ("POST", "/v1/incr/shared", String::new()),
        ("POST", "/v1/txn", txn(get)),
        ("POST", "/v1/txn", nested),
        ("POST", "/v1/txn", in_else.to_owned()),
        ("POST", "/v1/txn", compare.to_owned()),
        ("POST", "/v1/locks/nightly", String::new()),
        ("GET", "/v1/locks/nightly", String::new()),
        ("POST", "/v1/elections/api", String::new()),
        ("GET", "/v1/leases", String::new()),
    ];
    for (method, target, body) in forbidden {
        let answered = fixture.by("app", method, target, &body).await;
        assert_eq!(answered.code, 403, "{method} {target} {body}: {}", answered.text());
        assert!(
            !answered.text().contains("secret") && !answered.text().contains("other"),
            "{}",
            answered.text()
        );
    }
    let unchanged = fixture.by("root", "GET", "/v1/kv/other", "").await;
    assert_eq!(unchanged.text(), "secret");
}

#[tokio::test]
async fn a_condition_and_a_sum_are_reads() {
    let fixture = secured().await;
    assert_eq!(fixture.code("blind", "PUT", "/v1/kv/app/a", "1").await, 200);
    assert_eq!(fixture.code("blind", "POST", "/v1/incr/app/a", "").await, 403);
    let headers = format!("{}if-match: \"1\"\r\n", basic("blind"));
    let conditional = fixture.ask_with("PUT", "/v1/kv/app/a", &headers, b"2").await;
    assert_eq!(conditional.problem(), (403, "forbidden".to_owned()));
    assert_eq!(conditional.json()["outcome"], "not-applied");
}

#[tokio::test]
async fn a_lease_is_as_its_keys_are() {
    let fixture = secured().await;
    let lease = |answered: Answered| answered.json()["id"].as_u64().expect("an id");
    let mine = lease(fixture.by("app", "POST", "/v1/leases", r#"{"ttl":60}"#).await);
    let roots = lease(fixture.by("root", "POST", "/v1/leases", r#"{"ttl":60}"#).await);
    assert_eq!(fixture.code("app", "PUT", &format!("/v1/kv/app/a?lease={mine}"), "x").await, 200);
    // Before it has a key, it is its maker's.
    assert_eq!(fixture.code("app", "PUT", &format!("/v1/kv/app/b?lease={roots}"), "x").await, 403);
    assert_eq!(fixture.code("app", "DELETE", &format!("/v1/leases/{roots}"), "").await, 403);
    assert_eq!(fixture.code("root", "PUT", &format!("/v1/kv/other?lease={roots}"), "x").await, 200);
    for (method, rest) in [("GET", ""), ("POST", "/keepalive"), ("DELETE", "")] {
        let answered = fixture.by("app", method, &format!("/v1/leases/{roots}{rest}"), "").await;
        assert_eq!(answered.code, 403, "{method} {rest}: {}", answered.text());
        assert!(!answered.text().contains("other"));
    }
    for (method, rest) in [("GET", ""), ("POST", "/keepalive"), ("DELETE", "")] {
        let answered = fixture.by("app", method, &format!("/v1/leases/{mine}{rest}"), "").await;
        assert_eq!(answered.code, 200, "{method} {rest}: {}", answered.text());
    }
    assert_eq!(fixture.by("root", "GET", "/v1/kv/other", "").await.text(), "x");
}

#[tokio::test]
async fn a_cursor_is_judged_at_each_page() {
    let fixture = secured().await;
    for key in ["app/a", "app/b", "app/c"] {
        fixture.by("app", "PUT", &format!("/v1/kv/{key}"), "x").await;
    }
    let page = fixture.by("app", "GET", "/v1/kv?prefix=app/&limit=1", "").await.json();
    let next = format!("/v1/kv?cursor={}", page["cursor"].as_str().expect("a cursor"));
    assert_eq!(fixture.code("app", "GET", &next, "").await, 200);
    assert_eq!(fixture.code("nobody", "GET", &next, "").await, 403);
    fixture.by("root", "POST", "/v1/auth/users/app/roles", r#"{"revoke":["app"]}"#).await;
    assert_eq!(fixture.code("app", "GET", &next, "").await, 403);
}

#[tokio::test]
async fn a_token_counts_until_it_is_revoked() {
    let fixture = secured().await;
    let make = |body: &'static str| {
        let fixture = &fixture;
        async move { fixture.by("root", "POST", "/v1/auth/tokens", body).await }
    };
    let made = make(r#"{"name":"ci","roles":["app"]}"#).await.json();
    let text = made["token"].as_str().expect("a token").to_owned();
    assert!(text.starts_with("inft_") && text.len() > 40, "{text}");
    let bearer = format!("authorization: Bearer {text}\r\n");
    let put = async || fixture.ask_with("PUT", "/v1/kv/app/a", &bearer, b"x").await.code;
    assert_eq!(put().await, 200);
    assert_eq!(fixture.ask_with("PUT", "/v1/kv/other", &bearer, b"x").await.code, 403);
    let listed = fixture.by("root", "GET", "/v1/auth/tokens", "").await;
    assert!(listed.text().contains("\"ci\"") && !listed.text().contains(&text));
    assert_eq!(fixture.code("root", "DELETE", "/v1/auth/tokens/ci", "").await, 200);
    assert_eq!(put().await, 401);
    assert_eq!(fixture.code("root", "DELETE", "/v1/auth/tokens/ci", "").await, 404);
    // Its name is free again, and what was shown stays void.
    make(r#"{"name":"ci","roles":["app"]}"#).await;
    assert_eq!(put().await, 401);
}

#[tokio::test]
async fn a_changed_password_counts_at_once() {
    let fixture = secured().await;
    assert_eq!(fixture.code("app", "GET", "/v1/kv?prefix=app/", "").await, 200);
    let changed = fixture.by("app", "PUT", "/v1/auth/users/app/password", r#"{"password":"new"}"#).await;
    assert_eq!(changed.code, 200, "{}", changed.text());
    assert_eq!(fixture.code("app", "GET", "/v1/kv?prefix=app/", "").await, 401);
    let headers = basic_with("app", "new");
    assert_eq!(fixture.ask_with("GET", "/v1/kv?prefix=app/", &headers, b"").await.code, 200);
    // What is left out by mistake takes no password away.
    let without = fixture.ask_with("PUT", "/v1/auth/users/app/password", &headers, b"{}").await;
    assert_eq!(without.problem(), (400, "bad-field".to_owned()));
    assert_eq!(fixture.ask_with("GET", "/v1/kv?prefix=app/", &headers, b"").await.code, 200);
    let none = br#"{"password":null}"#;
    assert_eq!(
        fixture.ask_with("PUT", "/v1/auth/users/blind/password", &basic("root"), none).await.code,
        200
    );
    assert_eq!(fixture.code("blind", "GET", "/v1/kv/app%2Fa", "").await, 401);
    let others =
        fixture.ask_with("PUT", "/v1/auth/users/root/password", &headers, br#"{"password":"x"}"#).await;
    assert_eq!(others.problem(), (403, "forbidden".to_owned()));
}

#[tokio::test]
async fn many_wrong_passwords_have_to_wait_and_right_ones_do_not() {
    let fixture = secured().await;
    assert_eq!(fixture.code("app", "GET", "/v1/kv?prefix=app/", "").await, 200);
    let mut codes = Vec::new();
    for number in 0..12 {
        let headers = basic_with("root", &format!("guess {number}"));
        codes.push(fixture.ask_with("GET", "/v1/kv/a", &headers, b"").await);
    }
    assert_eq!(codes.first().map(|answered| answered.code), Some(401));
    let last = codes.last().expect("some");
    assert_eq!(last.problem(), (429, "too-many-attempts".to_owned()));
    assert!(last.header("retry-after").is_some());
    assert_eq!(fixture.code("app", "GET", "/v1/kv?prefix=app/", "").await, 200);
}

/// Reads a stream until it holds a text, or ends.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let so_far = String::from_utf8_lossy(&read).into_owned();
        if so_far.contains(text) {
            return so_far;
        }
        let count = stream.read(&mut buffer).await.expect("it can be read");
        assert!(count > 0, "{text:?} does not come: {so_far}");
        read.extend_from_slice(&buffer[..count]);
    }
}

async fn watch(fixture: &Fixture, query: &str, headers: &str) -> TcpStream {
    let mut stream = fixture.connect().await;
    let head = format!("GET /v1/watch?{query} HTTP/1.1\r\nhost: test\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.expect("it is open");
    stream
}

#[tokio::test]
async fn a_watch_does_not_outlive_its_right() {
    let fixture = secured().await;
    let mut stream = watch(&fixture, "prefix=app/", &basic("app")).await;
    read_until(&mut stream, "event: progress").await;
    fixture.by("app", "PUT", "/v1/kv/app/a", "seen").await;
    read_until(&mut stream, "seen").await;
    // Another one of the same range asks in the company of the first.
    let mut blind = watch(&fixture, "prefix=app/", &basic("blind")).await;
    let refused = read_until(&mut blind, "forbidden").await;
    assert!(!refused.contains("seen"));
    fixture.by("root", "POST", "/v1/auth/users/app/roles", r#"{"revoke":["app"]}"#).await;
    fixture.by("root", "PUT", "/v1/kv/app/b", "unseen").await;
    let rest = read_until(&mut stream, "event: failed").await;
    assert!(rest.contains("forbidden") && !rest.contains("unseen"), "{rest}");
}

#[tokio::test]
async fn an_open_ended_watch_is_one_of_everything_behind() {
    let fixture = secured().await;
    for query in ["", "start=app/", "start64=AA==&end64=AA==", "prefix=app", "key=other"] {
        let answered = fixture.by("app", "GET", &format!("/v1/watch?{query}&from=1"), "").await;
        // A range that ends where it begins holds nothing.
        let expected = if query.contains("64") { 400 } else { 403 };
        assert_eq!(answered.code, expected, "{query}: {}", answered.text());
    }
    let mut stream = watch(&fixture, "prefix=app/", &basic("app")).await;
    read_until(&mut stream, "event: progress").await;
}

#[tokio::test]
async fn a_watch_that_began_open_ends_when_the_cluster_is_not() {
    let fixture = Fixture::start(options()).await;
    let mut stream = watch(&fixture, "", "").await;
    read_until(&mut stream, "event: progress").await;
    let root = br#"{"name":"root","password":"toor","roles":["root"]}"#;
    fixture.ask("POST", "/v1/auth/users", root).await;
    fixture.ask("POST", "/v1/auth/enable", b"").await;
    fixture.by("root", "PUT", "/v1/kv/a", "unseen").await;
    let rest = read_until(&mut stream, "event: failed").await;
    assert!(rest.contains("unauthenticated") && !rest.contains("unseen"), "{rest}");
}

#[test]
fn credentials_are_read_as_they_are_written() {
    let basic = |text: &str| format!("Basic {}", to_base64(text.as_bytes()));
    let password = |user: &str, password: &str| {
        Ok(Credentials::Password { user: user.to_owned(), password: password.as_bytes().to_vec() })
    };
    let token = |text: &str| Ok(Credentials::Token(text.as_bytes().to_vec()));
    let read = |text: &str| parse(text.as_bytes());
    assert_eq!(read("Bearer inft_abc-_123"), token("inft_abc-_123"));
    assert_eq!(read("bearer   x "), token("x"));
    assert_eq!(read(&basic("alice:secret")), password("alice", "secret"));
    assert_eq!(read(&basic("alice:a:b:")), password("alice", "a:b:"));
    assert_eq!(read(&basic("alice:")), password("alice", ""));
    let bad = [
        "",
        "Bearer",
        "Bearer ",
        "Basic",
        "Basic !",
        "Digest x",
        "inft_abc",
        "Bearer a b",
        "Bearer \u{e9}",
        &basic("alice"),
        &basic(":x"),
        &format!("Bearer {}", "x".repeat(257)),
        &basic(&format!("{}:x", "u".repeat(129))),
        &basic(&format!("u:{}", "x".repeat(1025))),
    ];
    for text in bad {
        assert_eq!(read(text), Err(BadCredentials), "{text:?}");
    }
    assert_eq!(format!("{:?}", read(&basic("alice:secret"))), "Ok(Password(…))");
}
