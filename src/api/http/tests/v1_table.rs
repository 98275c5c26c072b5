//! The table of routes, and what is made of it.

use crate::api::HttpOptions;
use crate::api::http::route::WhileStarting;
use crate::api::http::routes::Routes;
use crate::api::http::tests::fixture::Fixture;
use crate::api::service::ErrorCode;
use crate::runtime::TokioEnv;
use crate::storage::MemoryDisk;
use std::collections::BTreeSet;

type Table = Routes<TokioEnv<MemoryDisk>>;

#[tokio::test]
async fn the_description_is_what_the_server_does() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let described = fixture.ask("GET", "/openapi.json", b"").await.json();
    assert_eq!(described["openapi"], "3.1.0");
    let paths = described["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), Table::all().count());
    let mut ids = BTreeSet::new();
    for (path, operations) in paths {
        let target = path.replace("{key}", "k").replace("{id}", "1").replace("{name}", "n");
        let operations = operations.as_object().expect("operations");
        // Each method that is described is taken, and no other one.
        let refused = fixture.ask("BREW", &target, b"").await;
        let allowed: BTreeSet<String> =
            refused.header("allow").expect("methods").split(", ").map(str::to_ascii_lowercase).collect();
        let mut known: BTreeSet<String> = operations.keys().cloned().collect();
        if known.contains("get") {
            known.insert("head".to_owned());
        }
        assert_eq!(allowed, known, "{path}");
        for (method, operation) in operations {
            assert!(
                ids.insert(operation["operationId"].as_str().expect("an id").to_owned()),
                "{path} {method}"
            );
            if !path.starts_with("/v1/") || path == "/v1/status" {
                continue;
            }
            // Each parameter that is described is known, and no other one.
            let method = method.to_ascii_uppercase();
            let unknown = fixture.ask(&method, &format!("{target}?no-such-parameter=1"), b"").await;
            assert_eq!(unknown.problem(), (400, "unknown-parameter".to_owned()), "{method} {path}");
            for parameter in operation["parameters"].as_array().expect("parameters") {
                if parameter["in"] != "query" {
                    continue;
                }
                let name = parameter["name"].as_str().expect("a name");
                // Twice: refused, and therefore without an effect, but only if it is known.
                let twice = fixture.ask(&method, &format!("{target}?{name}&{name}"), b"").await;
                assert_eq!(twice.problem(), (400, "repeated-parameter".to_owned()), "{method} {path} {name}");
            }
        }
    }
}

/// What takes the one header and passes the other over would be done twice.
#[tokio::test]
async fn every_write_with_an_idempotency_key_takes_what_was_seen_before() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let mut asked = BTreeSet::new();
    for route in Table::all() {
        for operation in route.operations {
            let takes = |name: &str| operation.headers.contains(&name);
            assert_eq!(takes("Idempotency-Key"), takes("Idempotency-Since"), "{}", operation.id);
            if !takes("Idempotency-Key") {
                continue;
            }
            let target = route.path.replace("{key}", "k").replace("{id}", "1").replace("{name}", "n");
            let (target, body): (_, &[u8]) = match operation.id {
                "putKeyOfQuery" => (format!("{target}?key=k"), b"v"),
                "deleteKeys" => (format!("{target}?prefix=k"), b""),
                "transact" => (target, b"{\"then\":[]}"),
                "grantLease" => (target, b"{\"ttl\":9}"),
                "compact" => (target, b"{\"revision\":0}"),
                "putSettings" => {
                    (target, b"{\"history_bytes\":33554432,\"quota_bytes\":9,\"answers_bytes\":2097152}")
                }
                "takeLock" | "campaign" => (target, b"v"),
                "putLockValue" | "proclaim" => (format!("{target}?lease=1"), b"v"),
                "releaseLock" | "resign" => (format!("{target}?lease=1"), b""),
                "putKey" => (target, b"v"),
                _ => (target, b""),
            };
            let headers = "idempotency-key: k\r\nidempotency-since: x\r\n";
            let refused = fixture.ask_with(operation.method, &target, headers, body).await;
            assert_eq!(refused.problem(), (400, "bad-idempotency-since".to_owned()), "{}", operation.id);
            assert_eq!(refused.json()["outcome"], "not-applied", "{}", operation.id);
            asked.insert(operation.id);
        }
    }
    assert_eq!(asked.len(), 16, "{asked:?}");
}

/// A condition that nobody looks at would let a write happen whether it holds or not.
#[tokio::test]
async fn a_write_refuses_conditions_that_it_does_not_look_at() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    assert_eq!(fixture.ask("PUT", "/v1/kv/k", b"1").await.code, 200);
    let before = fixture.ask("GET", "/v1/settings", b"").await.text().to_owned();
    let settings = b"{\"history_bytes\":33554432,\"quota_bytes\":1,\"answers_bytes\":2097152}";
    let mut refused = BTreeSet::new();
    for route in Table::all().filter(|route| route.has_problems()) {
        let target = route.path.replace("{key}", "k").replace("{id}", "1").replace("{name}", "n");
        for operation in route.operations.iter().filter(|one| one.method != "GET") {
            for name in ["If-Match", "If-None-Match"] {
                if operation.headers.contains(&name) {
                    continue;
                }
                let (method, header) = (operation.method, format!("{name}: \"5\"\r\n"));
                let body = if route.path == "/v1/settings" { &settings[..] } else { b"{\"ttl\":9}" };
                let answered = fixture.ask_with(method, &target, &header, body).await;
                assert_eq!(answered.problem(), (400, "bad-condition".to_owned()), "{method} {target} {name}");
                if operation.while_starting == WhileStarting::RefusesWrite {
                    assert_eq!(answered.json()["outcome"], "not-applied", "{method} {target}");
                }
                refused.insert(operation.id);
            }
        }
    }
    for id in ["increment", "transact", "grantLease", "takeLock", "putSettings", "enableAuth"] {
        assert!(refused.contains(id), "{id} is not among {refused:?}");
    }
    let same = fixture.ask("GET", "/v1/kv/k", b"").await;
    assert_eq!((same.text(), same.header("infinitystore-revision")), ("1", Some("1")));
    assert_eq!(fixture.ask("GET", "/v1/leases", b"").await.json()["leases"], serde_json::json!([]));
    assert_eq!(fixture.ask("GET", "/v1/settings", b"").await.text(), before);
    // A read passes them over: caches send them by themselves.
    let read = fixture.ask_with("GET", "/v1/settings", "if-none-match: \"1\"\r\n", b"").await;
    assert_eq!(read.code, 200);
}

/// A page of another site must not learn anything, not even from how an answer fails to load.
#[tokio::test]
async fn a_page_of_another_site_gets_nothing_but_probes() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for site in ["cross-site", "same-site"] {
        let headers = format!("sec-fetch-site: {site}\r\n");
        for route in Table::all() {
            let target = route.path.replace("{key}", "k").replace("{id}", "1").replace("{name}", "n");
            for method in route.operations.iter().map(|one| one.method).chain(["HEAD", "BREW"]) {
                let answered = fixture.ask_with(method, &target, &headers, b"").await;
                let (path, is_probe) = (route.path, route.is_probe);
                assert_eq!(answered.code == 403, !is_probe, "{method} {path}: {}", answered.code);
                assert_eq!(answered.header("x-content-type-options"), Some("nosniff"), "{method} {path}");
                let policy = answered.header("cross-origin-resource-policy");
                assert_eq!(policy, Some("same-origin"), "{method} {path}");
            }
        }
        let unknown = fixture.ask_with("GET", "/nothing", &headers, b"").await;
        assert_eq!(unknown.code, 403);
    }
    for site in ["same-origin", "none"] {
        let headers = format!("sec-fetch-site: {site}\r\n");
        assert_eq!(fixture.ask_with("GET", "/", &headers, b"").await.code, 200, "{site}");
    }
}

/// They are the same for everybody, and the only long answers that anybody may ask for.
#[tokio::test]
async fn the_pages_take_no_memory_of_requests() {
    let fixture = Fixture::start(HttpOptions { memory_bytes_max: 1, ..HttpOptions::default() }).await;
    let described = fixture.ask("GET", "/openapi.json", b"").await;
    assert!(described.code == 200 && described.body.len() > 16 << 10, "{}", described.code);
    assert_eq!(fixture.ask("GET", "/", b"").await.code, 200);
}

#[tokio::test]
async fn an_unknown_path_of_the_versioned_api_is_a_problem() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for target in ["/v1/", "/v1/nothing", "/v1/kvs", "/v1/leases/1/keepalive/", "/v1/txn/"] {
        let answered = fixture.ask("GET", target, b"").await;
        assert_eq!(answered.problem(), (404, "no-such-route".to_owned()), "{target}");
        assert_eq!(answered.header("infinitystore-served-by"), Some("node-1"), "{target}");
    }
    let answered = fixture.ask("PATCH", "/v1/kv/a", b"").await;
    assert_eq!(answered.problem(), (405, "method-not-allowed".to_owned()));
    assert_eq!(answered.header("allow"), Some("GET, HEAD, PUT, DELETE"));
}

#[tokio::test]
async fn a_node_that_starts_refuses_and_a_write_has_not_happened() {
    let fixture = Fixture::start_without_node(HttpOptions::default()).await;
    let read = fixture.ask("GET", "/v1/kv/a", b"").await;
    assert_eq!((read.problem(), read.json().get("outcome")), ((503, "starting".to_owned()), None));
    let write = fixture.ask("PUT", "/v1/kv/a", b"x").await;
    assert_eq!(write.problem(), (503, "starting".to_owned()));
    assert_eq!(write.json()["outcome"], "not-applied");
    assert_eq!(fixture.ask("GET", "/openapi.json", b"").await.code, 200);
}

#[test]
fn every_code_is_documented() {
    let page = include_str!("../../../../docs/api/README.md");
    for code in ErrorCode::ALL {
        assert!(page.contains(&format!("`{}`", code.name())), "{} is not in docs/api/README.md", code.name());
    }
}
