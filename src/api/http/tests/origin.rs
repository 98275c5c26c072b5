//! What a page in a browser could send.

use crate::api::HttpOptions;
use crate::api::http::tests::fixture::Fixture;

const BODY: &str = r#"{"key":"foo","value":"bar","action":"set"}"#;

async fn ask(fixture: &Fixture, method: &str, target: &str, headers: &str) -> (u16, String) {
    let length = if method == "POST" { BODY.len() } else { 0 };
    let request = format!(
        "{method} {target} HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{}",
        &BODY[..length]
    );
    let answered = fixture.raw(request.as_bytes()).await;
    (answered.code, answered.text().to_owned())
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_write() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for (headers, code) in [
        ("host: localhost:8001\r\norigin: http://evil.example\r\n", 403),
        ("host: localhost:8001\r\norigin: http://localhost:3000\r\n", 403),
        ("host: localhost:8001\r\norigin: null\r\n", 403),
        ("host: localhost:8001\r\nsec-fetch-site: cross-site\r\n", 403),
        ("host: localhost:8001\r\nsec-fetch-site: same-site\r\n", 403),
        ("host: localhost:8001\r\norigin: http://localhost:8001\r\nsec-fetch-site: same-origin\r\n", 200),
        ("host: LOCALHOST:8001\r\norigin: http://localhost:8001\r\n", 200),
        ("host: localhost:8001\r\nsec-fetch-site: none\r\n", 200),
        ("host: localhost:8001\r\n", 200),
    ] {
        let (answered, text) = ask(&fixture, "POST", "/set", headers).await;
        assert_eq!(answered, code, "{headers} {text}");
        if code == 403 {
            assert!(text.contains("another origin"), "{text}");
            assert_eq!(ask(&fixture, "POST", "/join?nodeid=good&nodeaddr=h:1", headers).await.0, 403);
            assert_eq!(ask(&fixture, "GET", "/livez", headers).await.0, 200, "probes are answered");
        }
    }
}

#[tokio::test]
async fn only_names_that_are_ours_are_served() {
    let hosts = vec!["node-1.example.com".to_owned()];
    let fixture = Fixture::start(HttpOptions { hosts, ..HttpOptions::default() }).await;
    for host in [
        "127.0.0.1:8001",
        "10.0.0.1",
        "[::1]:8001",
        "localhost:8001",
        "node-1",
        "node-1:8001",
        "app.localhost",
        "node-1.local:8001",
        "infinitystore.default.svc.cluster.local:8001",
        "Node-1.Example.com:8001",
        "node-1.example.com.",
    ] {
        assert_eq!(ask(&fixture, "GET", "/", &format!("host: {host}\r\n")).await.0, 200, "{host}");
    }
    for host in ["evil.example:8001", "node-1.example.com.evil.example", "localhost.evil.example", "x.y:1"] {
        for (method, target) in [("GET", "/get?key=foo"), ("POST", "/set"), ("GET", "/v1/status")] {
            let (code, text) = ask(&fixture, method, target, &format!("host: {host}\r\n")).await;
            assert_eq!(code, 421, "{host}");
            assert!(text.contains("--allow-host"), "{text}");
        }
        let probed = ask(&fixture, "GET", "/livez", &format!("host: {host}\r\n")).await;
        assert_eq!(probed.0, 200, "probes are answered under any name");
    }
    assert_eq!(ask(&fixture, "GET", "/", "").await.0, 200, "browsers always send a Host");
    let any = Fixture::start(HttpOptions { hosts: vec!["*".to_owned()], ..HttpOptions::default() }).await;
    assert_eq!(ask(&any, "GET", "/", "host: any.example\r\n").await.0, 200);
}
