//! The calls of `/v1`: what each asks, and what it makes of good answers and of bad ones.

use crate::client::tests::scripted::{Act, Scripted, answer, client, problem};
use crate::client::{
    ContestKind, ErrorKind, KeyPage, LeaseChoice, ListQuery, ReadOptions, StepDone, WriteOptions,
};
use crate::kv::{
    Compare, CompareOrder, Detail, KeyRange, LEASE_TTL_SECONDS_MAX, LeaseId, Put, RangeQuery, Revision,
    Settings, Target, Txn, TxnOp,
};
use crate::replica::Level;
use bytes::Bytes;
use std::time::Duration;

fn say(text: String) -> Act {
    Act::Say(text.into())
}

fn json(text: &str) -> Act {
    say(answer("200 OK", "", text))
}

/// The first line of a request, without its version.
fn line(request: &str) -> &str {
    request.split(" HTTP/1.1\r\n").next().expect("a first line")
}

#[tokio::test]
async fn a_value_comes_as_it_is_with_its_versions() {
    let headers = "etag: \"17\"\r\ninfinitystore-create-revision: 3\r\ninfinitystore-version: 4\r\n";
    let leased = format!("{headers}infinitystore-lease: 18446744073709551615\r\n");
    let server = Scripted::start(vec![vec![
        say(answer("200 OK", headers, "v\0\n")),
        say(answer("200 OK", &leased, "")),
        say(problem("404 x", "key-not-found", "")),
        say(problem("410 x", "compacted", ",\"revision\":12")),
        say(answer("200 OK", "", "a page of something else")),
    ]])
    .await;
    let mut client = client(&[&server]);
    let found = client.get_key(b"a b", ReadOptions::default()).await.expect("answered").expect("there");
    assert_eq!((&found.key[..], &found.value[..]), (&b"a b"[..], &b"v\0\n"[..]));
    assert_eq!((found.create_revision, found.mod_revision, found.version), (Revision(3), Revision(17), 4));
    assert!(found.lease.is_none());
    let options = ReadOptions { level: Level::Fresh { max_staleness_micros: 5 }, at: Some(Revision(9)) };
    let found = client.get_key(b"k", options).await.expect("answered").expect("there");
    assert_eq!((found.value.len(), found.lease), (0, LeaseId(u64::MAX)));
    let local = ReadOptions { level: Level::Local, at: None };
    assert_eq!(client.get_key(b"k", local).await.expect("answered"), None);
    let error = client.get_key(b"k", ReadOptions::default()).await.expect_err("it is gone");
    assert_eq!(error.refusal().expect("an answer").revision, Some(Revision(12)));
    let error = client.get_key(b"k", ReadOptions::default()).await.expect_err("no versions");
    assert_eq!(error.kind(), ErrorKind::Other, "{error}");
    let asked = server.asked();
    assert_eq!(line(&asked[0]), "GET /v1/kv/a%20b");
    assert_eq!(line(&asked[1]), "GET /v1/kv/k?level=local&max_staleness=5us&at=9");
    assert_eq!(line(&asked[2]), "GET /v1/kv/k?level=local");
}

#[tokio::test]
async fn pages_go_on_where_the_one_before_ended() {
    let first = "{\"revision\":5,\"kvs\":[{\"key\":\"a/1\",\"value64\":\"/wA=\",\"create_revision\":1,\
         \"mod_revision\":2,\"version\":2,\"lease\":7}],\"prefixes\":[\"a/x/\",{\"prefix64\":\"/w==\"}],\"count\":2,\
         \"more\":true,\"cursor\":\"c+d\"}";
    let second = "{\"revision\":5,\"kvs\":[{\"key64\":\"/w==\",\"value\":\"\"}],\"count\":2,\"more\":false}";
    let answers = vec![json(first), say(problem("503 x", "no-quorum", "")), json(second)];
    let server = Scripted::start(vec![answers.clone(), answers[2..].to_vec()]).await;
    let mut client = client(&[&server]);
    let range = KeyRange::prefix(&b"a/"[..]);
    let query =
        ListQuery { delimiter: Some(Bytes::from_static(b"/")), page_keys: Some(1), ..ListQuery::of(range) };
    let mut pages = client.list(&query);
    let page = pages.next().await.expect("answered").expect("a page");
    let KeyPage { revision, kvs, prefixes, count } = page;
    assert_eq!(
        (revision, count, &kvs[0].value[..], kvs[0].lease),
        (Revision(5), 2, &b"\xff\0"[..], LeaseId(7))
    );
    assert_eq!(prefixes, [&b"a/x/"[..], b"\xff"]);
    pages.next().await.expect_err("not now");
    let page = pages.next().await.expect("the same page again").expect("a page");
    assert_eq!(&page.kvs[0].key[..], b"\xff");
    assert_eq!(pages.next().await.expect("no question"), None);
    let asked = server.asked();
    assert_eq!(line(&asked[0]), "GET /v1/kv?prefix=a/&delimiter=/&limit=1");
    assert_eq!(line(&asked[1]), "GET /v1/kv?cursor=c%2Bd");
    assert_eq!(asked[1], asked[2]);
}

#[tokio::test]
async fn a_range_is_named_by_its_bounds() {
    let page = "{\"revision\":5,\"count\":3,\"kvs\":[]}";
    let server = Scripted::saying(&answer("200 OK", "", page)).await;
    let mut client = client(&[&server]);
    let range = KeyRange { start: Bytes::from_static(b"\xff\xff\xff"), end: None };
    assert_eq!(client.count(&range, Level::Local).await.expect("counted"), (3, Revision(5)));
    client.count(&KeyRange::all(), Level::Linearizable).await.expect("counted");
    let bounds = KeyRange { start: Bytes::from_static(b"a&b"), end: Some(Bytes::from_static(b"b")) };
    client.count(&bounds, Level::Linearizable).await.expect("counted");
    let keys = ListQuery { detail: Detail::Keys, at: Some(Revision(4)), ..ListQuery::of(KeyRange::all()) };
    client.list(&keys).next().await.expect("listed");
    let asked = server.asked();
    let lines: Vec<&str> = asked.iter().map(|request| line(request)).collect();
    assert_eq!(
        lines,
        [
            "GET /v1/kv?prefix64=____&count_only=true&level=local",
            "GET /v1/kv?start=&count_only=true",
            "GET /v1/kv?start=a%26b&end=b&count_only=true",
            "GET /v1/kv?start=&keys_only=true&at=4",
        ]
    );
}

#[tokio::test]
async fn deletions_say_how_many_there_were() {
    let server = Scripted::saying(&answer("200 OK", "", "{\"revision\":8,\"deleted\":2}")).await;
    let mut client = client(&[&server]);
    let deleted = client.delete_range(&KeyRange::prefix(&b"a/"[..])).await.expect("deleted");
    assert_eq!((deleted.revision, deleted.count), (Revision(8), 2));
    client.delete_range(&KeyRange::all()).await.expect("deleted");
    client.delete_key(b"k", &WriteOptions::default()).await.expect("deleted");
    client.revoke_lease(LeaseId(5)).await.expect("revoked");
    let asked = server.asked();
    let lines: Vec<&str> = asked.iter().map(|request| line(request)).collect();
    assert_eq!(
        lines,
        ["DELETE /v1/kv?prefix=a/", "DELETE /v1/kv?all=true", "DELETE /v1/kv/k", "DELETE /v1/leases/5"]
    );
}

#[tokio::test]
async fn a_transaction_is_written_and_read() {
    let results = "{\"revision\":9,\"succeeded\":true,\"results\":[{\"put\":{\"version\":1}},{\"delete\":{\"deleted\":2}},\
         {\"get\":{\"revision\":9,\"kvs\":[{\"key\":\"k\",\"value\":\"v\"}],\"count\":1,\"more\":false}},\
         {\"txn\":{\"succeeded\":false,\"results\":[]}}]}";
    let server = Scripted::saying(&answer("200 OK", "", results)).await;
    let compare = |target, order| Compare { range: KeyRange::one(&b"k"[..]), target, order };
    let txn = Txn {
        compare: vec![
            compare(Target::ModRevision(Revision(3)), CompareOrder::Equal),
            compare(Target::Value(Bytes::from_static(b"\xff")), CompareOrder::NotEqual),
        ],
        success: vec![
            TxnOp::Put(Put {
                key: Bytes::from_static(b"\xff"),
                value: Bytes::from_static(b"v"),
                lease: LeaseId(4),
            }),
            TxnOp::Delete(KeyRange::prefix(&b"a"[..])),
            TxnOp::Get(RangeQuery::of(KeyRange::one(&b"k"[..]))),
        ],
        failure: vec![TxnOp::Txn(Box::default())],
    };
    let done = client(&[&server]).txn(&txn).await.expect("done");
    assert!(done.succeeded);
    assert!(matches!(&done.results[..], [
        StepDone::Put { version: 1 },
        StepDone::Deleted { count: 2 },
        StepDone::Found(page),
        StepDone::Txn { succeeded: false, .. }
    ] if page.kvs[0].value == "v"));
    let asked = server.asked();
    let body = asked[0].split_once("\r\n\r\n").expect("a body").1;
    let sent: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let get = serde_json::json!({"key": "k", "limit": 0, "keys_only": false, "count_only": false});
    let expected = serde_json::json!({
        "if": [
            {"key": "k", "target": "mod_revision", "op": "=", "to": 3},
            {"key": "k", "target": "value", "op": "!=", "to64": "/w=="},
        ],
        "then": [
            {"put": {"key64": "/w==", "value": "v", "lease": 4}},
            {"delete": {"start": "a", "end": "b"}},
            {"get": get},
        ],
        "else": [{"txn": {"if": [], "then": [], "else": []}}],
    });
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn leases_have_times() {
    let server = Scripted::start(vec![vec![
        json("{\"id\":7,\"ttl\":2}"),
        json("{\"id\":7,\"ttl\":2,\"left\":1.999}"),
        json("{\"id\":7,\"ttl\":2,\"left\":0.5,\"count\":2,\"keys\":[{\"key\":\"a\"},{\"key64\":\"/w==\"}],\"more\":false}"),
        json("{\"revision\":4,\"leases\":[{\"id\":7,\"ttl\":2,\"keys\":1}],\"more\":true,\"next\":9}"),
        json("{\"id\":7,\"ttl\":2,\"left\":-1}"),
    ]])
    .await;
    let mut client = client(&[&server]);
    let granted = client.grant_lease(Duration::from_millis(1001), LeaseId::NONE).await.expect("granted");
    assert_eq!((granted.id, granted.ttl), (LeaseId(7), Duration::from_secs(2)));
    let time = client.keep_lease_alive(LeaseId(7)).await.expect("renewed");
    assert_eq!(time.left, Duration::from_millis(1999));
    let info = client.lease(LeaseId(7)).await.expect("there");
    assert_eq!((info.count, &info.keys[1][..]), (2, &b"\xff"[..]));
    let (leases, next) = client.leases(LeaseId(3)).await.expect("listed");
    assert_eq!((leases.len(), leases[0].keys, next), (1, 1, Some(LeaseId(9))));
    client.keep_lease_alive(LeaseId(7)).await.expect_err("no time is negative");
    let asked = server.asked();
    assert!(asked[0].ends_with("{\"id\":0,\"ttl\":2}"), "whole seconds, rounded up: {}", asked[0]);
    assert_eq!(line(&asked[1]), "POST /v1/leases/7/keepalive");
    assert_eq!(line(&asked[3]), "GET /v1/leases?from=3");
}

/// Whatever an endpoint says, the time of a lease can be added to an instant.
#[tokio::test]
async fn no_lease_has_a_longer_time_than_a_store_gives() {
    let server = Scripted::start(vec![vec![
        json("{\"id\":7,\"ttl\":18446744073709551615,\"left\":1}"),
        json("{\"id\":7,\"ttl\":18446744073709551615}"),
        json("{\"revision\":7,\"version\":1,\"lease\":7,\"ttl\":18446744073709551615}"),
        json("{\"lease\":7,\"fence\":12,\"ttl\":18446744073709551615,\"key\":\"x\"}"),
    ]])
    .await;
    let mut client = client(&[&server]);
    let longest = Duration::from_secs(LEASE_TTL_SECONDS_MAX);
    assert_eq!(client.keep_lease_alive(LeaseId(7)).await.expect("renewed").ttl, longest);
    assert_eq!(client.grant_lease(longest, LeaseId(7)).await.expect("granted").ttl, longest);
    let options = WriteOptions { lease: LeaseChoice::New(longest), ..WriteOptions::default() };
    let done = client.put_key(b"k", "", &options).await.expect("put");
    assert_eq!(done.granted, Some((LeaseId(7), longest)));
    let times = (LeaseChoice::New(longest), Duration::ZERO);
    assert_eq!(client.campaign(ContestKind::Lock, b"k", "", times).await.expect("won").ttl, Some(longest));
}

#[tokio::test]
async fn a_renewal_is_repeated_elsewhere() {
    let first = Scripted::start(vec![vec![Act::SayAndClose(Vec::new())]]).await;
    let second = Scripted::saying(&answer("200 OK", "", "{\"id\":7,\"ttl\":2,\"left\":2.0}")).await;
    client(&[&first, &second]).keep_lease_alive(LeaseId(7)).await.expect("the second node renews it");
    assert_eq!((first.count(), second.count()), (1, 1));
}

#[tokio::test]
async fn locks_and_elections_have_holders() {
    let server = Scripted::start(vec![vec![
        json("{\"lease\":7,\"fence\":12,\"ttl\":10,\"key\":\"x\"}"),
        say(problem("409 x", "held", "")),
        json("{\"lease\":7,\"fence\":12,\"value64\":\"/w==\",\"waiting\":3,\"key\":\"x\"}"),
        say(problem("404 x", "no-holder", "")),
        json("{\"revision\":13}"),
        json("{\"revision\":14}"),
    ]])
    .await;
    let mut client = client(&[&server]);
    let times = (LeaseChoice::New(Duration::from_secs(10)), Duration::from_secs(5));
    let won = client.campaign(ContestKind::Lock, b"a b/c", "me", times).await.expect("won");
    assert_eq!((won.lease, won.fence, won.ttl), (LeaseId(7), Revision(12), Some(Duration::from_secs(10))));
    assert_eq!(&won.key[..], b"x");
    let error = client.campaign(ContestKind::Election, b"e", "", times).await.expect_err("held");
    assert_eq!(error.kind(), ErrorKind::ConditionFailed);
    let holder = client.holder(ContestKind::Election, b"e").await.expect("answered").expect("one holds it");
    assert_eq!((&holder.value[..], holder.waiting), (&b"\xff"[..], 3));
    assert_eq!(client.holder(ContestKind::Lock, b"e").await.expect("answered"), None);
    client.proclaim(b"e", LeaseId(7), "new").await.expect("proclaimed");
    client.resign(ContestKind::Lock, b"e", LeaseId(7)).await.expect("given up");
    let asked = server.asked();
    assert_eq!(line(&asked[0]), "POST /v1/locks/a%20b%2Fc?ttl=10000ms&wait=5000ms");
    assert!(asked[0].ends_with("\r\n\r\nme"), "{}", asked[0]);
    assert_eq!(line(&asked[4]), "PUT /v1/elections/e?lease=7");
    assert_eq!(line(&asked[5]), "DELETE /v1/locks/e?lease=7");
}

#[tokio::test]
async fn settings_numbers_and_compaction() {
    let settings = "{\"history_bytes\":1,\"quota_bytes\":2,\"answers_bytes\":3}";
    let server = Scripted::start(vec![vec![
        json(settings),
        json(settings),
        json("{\"revision\":5,\"version\":2,\"value\":-3}"),
        json("{\"compacted\":4}"),
    ]])
    .await;
    let mut client = client(&[&server]);
    let expected = Settings { history_bytes: 1, quota_bytes: 2, answers_bytes: 3 };
    assert_eq!(client.settings().await.expect("read"), expected);
    assert_eq!(client.configure(expected).await.expect("changed"), expected);
    assert_eq!(client.increment(b"n", -4).await.expect("added").value, -3);
    client.compact(Revision(4)).await.expect("compacted");
    let asked = server.asked();
    assert!(asked[1].ends_with(settings), "{}", asked[1]);
    assert_eq!(line(&asked[2]), "POST /v1/incr/n?by=-4");
    assert!(asked[3].ends_with("{\"revision\":4}"), "{}", asked[3]);
}
