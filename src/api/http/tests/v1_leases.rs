//! Leases, locks and elections over `/v1`.

use crate::api::HttpOptions;
use crate::api::http::tests::fixture::Fixture;
use crate::kv::{LeaseId, Op, Query};
use crate::node::NodeHandle;
use crate::node::handle::ClientCall;
use crate::replica::ClientRequest;
use serde_json::json;
use tokio::sync::mpsc;

/// Its time and its keys are two questions.
#[tokio::test]
async fn a_lease_that_ends_while_it_is_looked_at_has_no_keys_to_tell() {
    let fixture = Fixture::start_without_node(HttpOptions::default()).await;
    let (clients, mut calls) = mpsc::channel::<ClientCall>(64);
    fixture.slot.fill(NodeHandle { clients, ..fixture.node.clone() });
    let node = fixture.node.clone();
    tokio::spawn(async move {
        while let Some(call) = calls.recv().await {
            if let ClientRequest::Read { query: Query::LeaseKeys(..), .. } = call.request {
                node.request(ClientRequest::write(Op::Revoke(LeaseId(1)))).await;
            }
            let _ = node.clients.send(call).await;
        }
    });
    assert_eq!(fixture.ask("POST", "/v1/leases", b"{\"ttl\":10}").await.code, 200);
    assert_eq!(fixture.ask("PUT", "/v1/kv/k?lease=1", b"v").await.code, 200);
    let answered = fixture.ask("GET", "/v1/leases/1", b"").await;
    assert_eq!(answered.problem(), (404, "no-lease".to_owned()));
}

#[tokio::test]
async fn a_lease_is_made_looked_at_renewed_and_ended() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    assert_eq!(fixture.ask("POST", "/v1/leases", b"{\"ttl\":10}").await.text(), "{\"id\":1,\"ttl\":10}\n");
    let chosen = fixture.ask("POST", "/v1/leases", b"{\"ttl\":1,\"id\":18446744073709551615}").await;
    assert_eq!(chosen.text(), "{\"id\":18446744073709551615,\"ttl\":2}\n", "the least that there is");
    for key in ["a", "b", "%ff"] {
        assert_eq!(fixture.ask("PUT", &format!("/v1/kv/{key}?lease=1"), b"").await.code, 200);
    }
    let one = fixture.ask("GET", "/v1/leases/1?limit=2", b"").await;
    let expected = "{\"id\":1,\"ttl\":10,\"left\":10.000,\"count\":3,\"keys\":[{\"key\":\"a\"},{\"key\":\"b\"}],\"more\":true,\"next64\":\"/w==\"}\n";
    assert_eq!(one.text(), expected);
    let rest = fixture.ask("GET", "/v1/leases/1?from64=/w%3D%3D", b"").await.json();
    assert_eq!((&rest["keys"], &rest["more"]), (&json!([{"key64": "/w=="}]), &json!(false)));
    let list = fixture.ask("GET", "/v1/leases?limit=1", b"").await;
    let expected = "{\"revision\":3,\"leases\":[{\"id\":1,\"ttl\":10,\"keys\":3}],\"more\":true,\"next\":18446744073709551615}\n";
    assert_eq!(list.text(), expected);
    let list = fixture.ask("GET", "/v1/leases?from=2", b"").await.json();
    assert_eq!(list["leases"], json!([{"id": u64::MAX, "ttl": 2, "keys": 0}]));
    let renewed = fixture.ask("POST", "/v1/leases/1/keepalive", b"").await;
    assert_eq!(renewed.text(), "{\"id\":1,\"ttl\":10,\"left\":10.000}\n");
    assert_eq!(fixture.ask("DELETE", "/v1/leases/1", b"").await.text(), "{\"revision\":4,\"deleted\":3}\n");
    for (method, target, body, status, code) in [
        ("GET", "/v1/leases/1", "", 404, "no-lease"),
        ("DELETE", "/v1/leases/1", "", 404, "no-lease"),
        ("POST", "/v1/leases/1/keepalive", "", 404, "no-lease"),
        ("GET", "/v1/leases/one", "", 400, "bad-parameter"),
        ("GET", "/v1/leases/", "", 400, "bad-parameter"),
        ("DELETE", "/v1/leases/99999999999999999999", "", 400, "bad-parameter"),
        ("GET", "/v1/leases?limit=0", "", 400, "bad-parameter"),
        ("GET", "/v1/leases?limit=10000", "", 400, "bad-parameter"),
        ("GET", "/v1/leases/1/2", "", 404, "no-such-route"),
        ("POST", "/v1/leases", "{\"ttl\":10,\"id\":18446744073709551615}", 409, "lease-exists"),
        ("POST", "/v1/leases", "{}", 400, "bad-field"),
        ("POST", "/v1/leases", "{\"ttl\":-1}", 400, "bad-field"),
        ("POST", "/v1/leases", "{\"ttl\":0}", 400, "bad-field"),
        ("PUT", "/v1/kv/k?ttl=0", "v", 400, "bad-parameter"),
        ("PUT", "/v1/kv/k?ttl=0ms", "v", 400, "bad-parameter"),
        ("PUT", "/v1/kv?key=k&ttl=0s", "v", 400, "bad-parameter"),
        ("POST", "/v1/locks/n?ttl=0", "v", 400, "bad-parameter"),
        ("POST", "/v1/elections/n?ttl=0s", "v", 400, "bad-parameter"),
        ("POST", "/v1/leases", "{\"ttl\":1,\"TTL\":1}", 400, "bad-field"),
        ("POST", "/v1/leases", "ttl=10", 400, "bad-json"),
    ] {
        let answered = fixture.ask(method, target, body.as_bytes()).await;
        assert_eq!(answered.problem(), (status, code.to_owned()), "{method} {target} {body}");
    }
}

#[tokio::test]
async fn a_lock_is_held_by_one_and_passed_on_in_order() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    assert_eq!(fixture.ask("GET", "/v1/locks/n", b"").await.problem(), (404, "no-holder".to_owned()));
    let first = fixture.ask("POST", "/v1/locks/n?ttl=10s", b"me").await;
    let expected = "{\"lease\":1,\"fence\":1,\"ttl\":10,\"key\":\"\\u0000lock/n\\u00000000000000000001\"}\n";
    assert_eq!(first.text(), expected);
    let holder = fixture.ask("GET", "/v1/locks/n", b"").await.json();
    assert_eq!(
        (&holder["value"], &holder["waiting"], &holder["fence"]),
        (&json!("me"), &json!(0), &json!(1))
    );
    let refused = fixture.ask("POST", "/v1/locks/n", b"").await;
    assert_eq!(
        (refused.problem(), &refused.json()["present"]["lease"]),
        ((409, "held".to_owned()), &json!(1))
    );
    assert_eq!(
        fixture.ask("GET", "/v1/leases", b"").await.json()["leases"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(fixture.ask("POST", "/v1/locks/n/other", b"").await.code, 200, "another name is another lock");
    let (second, ended) = tokio::join!(fixture.ask("POST", "/v1/locks/n?wait=1h", b""), async {
        while fixture.ask("GET", "/v1/locks/n", b"").await.json()["waiting"] != 1 {}
        fixture.ask("DELETE", "/v1/locks/n?lease=1", b"").await
    });
    assert_eq!((second.code, ended.code), (200, 200));
    let fence = second.json()["fence"].as_u64().expect("a number");
    assert!(fence > 1, "fencing numbers rise");
    // A holder that ends passes it on, too.
    let lease = second.json()["lease"].clone();
    let (third, _) = tokio::join!(fixture.ask("POST", "/v1/locks/n?wait=1h", b""), async {
        while fixture.ask("GET", "/v1/locks/n", b"").await.json()["waiting"] != 1 {}
        fixture.ask("DELETE", &format!("/v1/leases/{lease}"), b"").await
    });
    assert!(third.json()["fence"].as_u64() > Some(fence));
    for (method, target, status, code) in [
        ("DELETE", "/v1/locks/n?lease=1", 404, "not-holder"),
        ("DELETE", "/v1/locks/n", 400, "missing-parameter"),
        ("POST", "/v1/locks/n?lease=1&ttl=1", 400, "conflicting-parameters"),
        ("POST", "/v1/locks/n?lease=77", 404, "no-lease"),
        ("POST", "/v1/locks/n?wait=long", 400, "bad-parameter"),
        ("POST", "/v1/locks/", 400, "bad-name"),
        ("POST", "/v1/locks/%00", 400, "bad-name"),
        ("GET", "/v1/locks/%zz", 400, "bad-encoding"),
    ] {
        let answered = fixture.ask(method, target, b"").await;
        assert_eq!(answered.problem(), (status, code.to_owned()), "{method} {target}");
    }
}

#[tokio::test]
async fn a_lock_may_be_taken_with_a_lease_that_is_there() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    assert_eq!(fixture.ask("POST", "/v1/leases", b"{\"ttl\":10,\"id\":1000000000000005}").await.code, 200);
    for _ in 0..2 {
        let taken = fixture.ask("POST", "/v1/locks/n?lease=1000000000000005", b"").await.json();
        assert_eq!(
            (&taken["lease"], &taken["fence"]),
            (&json!(1_000_000_000_000_005_u64), &json!(1)),
            "once more is the same"
        );
    }
    let under_a_key = "idempotency-key: x\r\n";
    for _ in 0..2 {
        let taken = fixture.ask_with("POST", "/v1/locks/m?ttl=10", under_a_key, b"").await;
        assert_eq!(taken.json()["fence"], 2, "{}", taken.text());
    }
}

#[tokio::test]
async fn a_leader_proclaims_and_resigns() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let won = fixture.ask("POST", "/v1/elections/api?ttl=10", b"http://a").await.json();
    assert_eq!((&won["lease"], &won["fence"]), (&json!(1), &json!(1)));
    assert_eq!(
        fixture.ask("PUT", "/v1/elections/api?lease=1", b"http://b").await.text(),
        "{\"revision\":2}\n"
    );
    let leader = fixture.ask("GET", "/v1/elections/api?level=local", b"").await.json();
    assert_eq!((&leader["value"], &leader["fence"]), (&json!("http://b"), &json!(1)));
    assert_eq!(fixture.ask("POST", "/v1/leases", b"{\"ttl\":10,\"id\":1000000000000005}").await.code, 200);
    let (second, _) =
        tokio::join!(fixture.ask("POST", "/v1/elections/api?lease=1000000000000005&wait=1h", b"c"), async {
            while fixture.ask("GET", "/v1/elections/api", b"").await.json()["waiting"] != 1 {}
            let waits = fixture.ask("PUT", "/v1/elections/api?lease=1000000000000005", b"http://c").await;
            assert_eq!(waits.problem(), (404, "not-holder".to_owned()), "the other one leads");
            fixture.ask("DELETE", "/v1/elections/api?lease=1", b"").await
        });
    assert_eq!((second.code, second.json().get("ttl")), (200, None));
    assert_eq!(fixture.ask("GET", "/v1/elections/api", b"").await.json()["value"], "c");
    assert_eq!(
        fixture.ask("PUT", "/v1/elections/api?lease=1", b"").await.problem(),
        (404, "not-holder".to_owned())
    );
}
