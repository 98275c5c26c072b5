//! Many requests and many connections of one caller, beside another one.

use crate::api::HttpOptions;
use crate::api::http::tests::auth::{basic, secured_with};
use crate::api::http::tests::fixture::{Answered, Fixture, HELD_KEY, RELEASE_KEY, receive_all};
use crate::kv::{KeyRange, Subject};
use crate::runtime::door::Caller;
use std::num::NonZeroU32;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const HOUR_MICROS: u64 = 3_600_000_000;
/// One caller never has to wait with so many.
const FEW: usize = 8;

/// Connects as another caller than the rest of a test.
async fn connect_from_elsewhere(fixture: &Fixture) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.2:0".parse().expect("an address")).expect("an address of this machine");
    socket.connect(fixture.addr.parse().expect("an address")).await.expect("it listens")
}

pub(super) async fn ask_from_elsewhere(fixture: &Fixture, target: &str) -> Answered {
    let mut stream = connect_from_elsewhere(fixture).await;
    let request = format!("GET {target} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    receive_all(&mut stream).await
}

async fn begin(fixture: &Fixture, request: &str) -> TcpStream {
    let mut stream = fixture.connect().await;
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream
}

/// Requests that are held, as many as never have to wait, and one more, which does.
async fn hold_and_ask(fixture: &Fixture) -> (Vec<TcpStream>, TcpStream) {
    let held = format!("GET /get?key={HELD_KEY} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
    let mut streams = Vec::new();
    for _ in 0..FEW {
        streams.push(begin(fixture, &held).await);
    }
    let request = "GET /get?key=foo HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
    let mut last = begin(fixture, request).await;
    while fixture.server.context.metrics.requests_delayed.get() == 0 {
        // They may come in another order.
        assert_eq!(fixture.ask("GET", "/livez", b"").await.code, 200);
        if last.try_read(&mut [0; 1]).is_ok() {
            last = begin(fixture, request).await;
        }
    }
    (streams, last)
}

#[tokio::test]
async fn one_with_many_requests_waits_and_others_do_not() {
    let fixture = Fixture::start(HttpOptions { requests_max: FEW, ..HttpOptions::default() }).await;
    let (held, mut last) = hold_and_ask(&fixture).await;
    assert_eq!(ask_from_elsewhere(&fixture, "/get?key=foo").await.code, 404);
    assert_eq!(fixture.ask("GET", "/readyz", b"").await.code, 200, "whoever asks");
    assert!(last.try_read(&mut [0; 1]).is_err(), "its turn has not come");
    assert_eq!(ask_from_elsewhere(&fixture, &format!("/get?key={RELEASE_KEY}")).await.code, 404);
    assert_eq!(receive_all(&mut last).await.code, 404);
    for mut stream in held {
        assert_eq!(receive_all(&mut stream).await.code, 404);
    }
}

/// The clock stands as long as anything goes on.
#[tokio::test]
async fn a_request_whose_turn_does_not_come_is_refused() {
    let fixture = Fixture::start(HttpOptions { requests_max: FEW, ..HttpOptions::default() }).await;
    let (_held, mut last) = hold_and_ask(&fixture).await;
    let mut problem =
        begin(&fixture, "PUT /v1/kv/foo HTTP/1.1\r\nhost: t\r\ncontent-length: 1\r\n\r\nx").await;
    let plain = receive_all(&mut last).await;
    assert_eq!((plain.code, plain.header("retry-after")), (503, Some("1")), "{}", plain.text());
    let problem = receive_all(&mut problem).await;
    assert_eq!(problem.problem(), (503, "crowded".to_owned()));
    assert_eq!(problem.json()["outcome"], "not-applied");
    assert_eq!(problem.header("retry-after"), Some("1"));
    assert_eq!(fixture.server.context.metrics.requests_refused.get(), 2);
}

/// Neither bodies that do not come nor those that wait for something make work.
#[tokio::test]
async fn requests_that_make_no_work_are_in_nobodys_way() {
    let fixture = Fixture::start(HttpOptions { requests_max: 1, ..HttpOptions::default() }).await;
    let mut streams = Vec::new();
    for _ in 0..2 * FEW {
        for request in [
            "PUT /v1/kv/foo HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n",
            "GET /v1/kv/foo?wait=50s&after=0 HTTP/1.1\r\nhost: t\r\n\r\n",
            "GET /v1/watch?key=foo HTTP/1.1\r\nhost: t\r\n\r\n",
        ] {
            streams.push(begin(&fixture, request).await);
        }
        // Its body is asked for.
        let body = streams.len() - 3;
        assert_eq!(&read_some(&mut streams[body]).await, "HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(fixture.ask("GET", "/get?key=foo", b"").await.code, 404);
    }
    assert_eq!(fixture.server.context.metrics.requests_delayed.get(), 0);
    streams[0].write_all(b"x").await.expect("sent");
    assert!(read_some(&mut streams[0]).await.starts_with("HTTP/1.1 200 OK"));
}

/// The node has room for so many that wait for a change.
#[tokio::test]
async fn one_that_waits_for_many_changes_keeps_nobody_from_waiting() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    assert_eq!(fixture.ask("PUT", "/v1/kv/k", b"1").await.code, 200);
    let context = &fixture.server.context;
    let account = context.connections().accounts.of(&Caller::of("127.0.0.1:1"));
    let take_all = |range: KeyRange| {
        std::iter::from_fn(|| context.questions.reserve_question(&account, &range)).collect::<Vec<_>>()
    };
    let many = (take_all(KeyRange::prefix(vec![b'x'; 30 << 10])), take_all(KeyRange::one("k")));
    assert!((300..600).contains(&many.0.len()), "{}", many.0.len());
    // It is told what is there, and cannot wait for more.
    let poll = "/v1/kv/k?wait=10ms&after=";
    assert_eq!(fixture.ask("GET", &format!("{poll}0"), b"").await.code, 200);
    assert_eq!(fixture.ask("GET", "/v1/kv/k?wait=0s&after=1", b"").await.code, 304);
    let refused = fixture.ask("GET", &format!("{poll}1"), b"").await;
    assert_eq!(refused.problem(), (503, "overloaded".to_owned()));
    let refused = fixture.ask("POST", "/v1/locks/n?wait=10ms", b"").await;
    assert_eq!(refused.problem(), (503, "overloaded".to_owned()));
    assert_eq!(refused.json()["outcome"], "not-applied");
    let mut watch = begin(&fixture, "GET /v1/watch?from=1&key=k HTTP/1.1\r\nhost: t\r\n\r\n").await;
    let mut told = String::new();
    while !told.contains("id: 1\ndata: {\"revision\":1,") {
        told.push_str(&read_some(&mut watch).await);
    }
    // Others wait as ever, for the same too.
    assert_eq!(ask_from_elsewhere(&fixture, &format!("{poll}1")).await.code, 304);
    let mut other = connect_from_elsewhere(&fixture).await;
    other.write_all(b"GET /v1/watch?from=2&key=k HTTP/1.1\r\nhost: t\r\n\r\n").await.expect("sent");
    assert!(read_some(&mut other).await.starts_with("HTTP/1.1 200"));
    assert_eq!(fixture.ask("PUT", "/v1/kv/k", b"2").await.code, 200);
    told.clear();
    while !told.contains("id: 2\ndata: {\"revision\":2,") {
        told.push_str(&read_some(&mut other).await);
    }
    drop((many, account));
    assert_eq!(fixture.ask("GET", &format!("{poll}2"), b"").await.code, 304);
}

/// One that waits because of its user's rate makes no work either.
#[tokio::test]
async fn requests_of_a_user_that_has_to_wait_are_in_no_other_users_way() {
    let rate = NonZeroU32::MIN;
    let fixture = secured_with(|options| {
        (options.requests_max, options.rate_per_user) = (1, Some(rate));
    })
    .await;
    let context = &fixture.server.context;
    let id = fixture.node.facts().security().user("app").expect("it is there").id;
    let later = crate::runtime::Env::now(&context.env).plus(HOUR_MICROS);
    assert!(context.users.take(Subject::User(id), later, rate).is_ok());
    let delayed = context.metrics.requests_delayed.get();
    let request = format!("GET /v1/kv/shared HTTP/1.1\r\nhost: t\r\n{}\r\n", basic("app"));
    let mut streams = Vec::new();
    for _ in 0..FEW {
        streams.push(begin(&fixture, &request).await);
    }
    while context.metrics.requests_delayed.get() < delayed + FEW as u64 {
        tokio::task::yield_now().await;
    }
    let other = fixture.ask_with("GET", "/v1/kv/shared", &basic("root"), b"").await;
    assert_eq!(other.code, 404);
    assert_eq!(context.metrics.requests_delayed.get(), delayed + FEW as u64, "it did not wait");
    for stream in &mut streams {
        assert!(read_some(stream).await.starts_with("HTTP/1.1 429"));
    }
}

async fn read_some(stream: &mut TcpStream) -> String {
    let mut bytes = [0; 4096];
    let count = stream.read(&mut bytes).await.expect("an answer");
    String::from_utf8(bytes[..count].to_vec()).expect("text")
}

#[tokio::test]
async fn an_address_that_makes_too_many_requests_is_refused() {
    let rate = NonZeroU32::MIN;
    let options = HttpOptions { rate_per_address: Some(rate), ..HttpOptions::default() };
    let fixture = Fixture::start(options).await;
    let later = {
        let context = &fixture.server.context;
        let account = context.connections().accounts.of(&Caller::of("127.0.0.1:1"));
        // As if it had made the requests of an hour.
        assert!(account.take_request(crate::runtime::Env::now(&context.env).plus(HOUR_MICROS), rate).is_ok());
        account
    };
    let refused = fixture.ask("PUT", "/v1/kv/foo", b"x").await;
    assert_eq!(refused.problem(), (429, "too-many-requests".to_owned()));
    assert_eq!(
        (refused.header("retry-after"), &refused.json()["outcome"]),
        (Some("1"), &"not-applied".into())
    );
    for probe in ["/livez", "/readyz"] {
        assert_eq!(fixture.ask("GET", probe, b"").await.code, 200, "{probe}");
    }
    // Of those it may make many, and not all that it likes.
    let now = crate::runtime::Env::now(&fixture.server.context.env);
    assert!(later.take_probe(now.plus(HOUR_MICROS), rate).is_ok());
    let refused = fixture.ask("GET", "/livez", b"").await;
    assert_eq!((refused.code, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(ask_from_elsewhere(&fixture, "/livez").await.code, 200);
    assert_eq!(ask_from_elsewhere(&fixture, "/get?key=foo").await.code, 404, "nothing was written");
    assert_eq!(fixture.server.context.metrics.requests_refused.get(), 2);
    drop(later);
}

#[tokio::test]
async fn a_user_that_makes_too_many_requests_is_refused() {
    let rate = NonZeroU32::MIN;
    let fixture = secured_with(|options| options.rate_per_user = Some(rate)).await;
    let context = &fixture.server.context;
    let id = fixture.node.facts().security().user("app").expect("it is there").id;
    let later = crate::runtime::Env::now(&context.env).plus(HOUR_MICROS);
    assert!(context.users.take(Subject::User(id), later, rate).is_ok());
    let refused = fixture.ask_with("GET", "/v1/kv/shared", &basic("app"), b"").await;
    assert_eq!(refused.problem(), (429, "too-many-requests".to_owned()));
    assert_eq!(refused.header("infinitystore-served-by"), Some("node-1"), "it is known");
    let other = fixture.ask_with("GET", "/v1/kv/app/a", &basic("nobody"), b"").await;
    assert_eq!(other.code, 403, "another user has a bucket of its own");
}

fn small() -> HttpOptions {
    HttpOptions { connections_max: 4, connections_per_address_max: 4, ..HttpOptions::default() }
}

#[tokio::test]
async fn a_newcomer_gets_the_place_of_the_oldest_idle_connection_of_the_busiest() {
    let fixture = Fixture::start(small()).await;
    // The oldest of all has a request under way.
    let request = format!("GET /get?key={HELD_KEY} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
    let mut busy = begin(&fixture, &request).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(begin(&fixture, "GET /livez HTTP/1.1\r\nhost: t\r\n\r\n").await);
        assert!(read_some(idle.last_mut().expect("one")).await.starts_with("HTTP/1.1 200 OK"));
    }
    assert_eq!(ask_from_elsewhere(&fixture, &format!("/get?key={RELEASE_KEY}")).await.code, 404);
    assert_eq!(idle[0].read(&mut [0; 1]).await.expect("its end"), 0);
    assert_eq!(receive_all(&mut busy).await.code, 404);
    for stream in &mut idle[1..] {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: t\r\n\r\n").await.expect("sent");
        assert!(read_some(stream).await.starts_with("HTTP/1.1 200 OK"));
    }
    assert_eq!(fixture.server.context.metrics.connections_evicted.get(), 1);
}

#[tokio::test]
async fn one_that_has_as_many_as_others_gets_no_place_of_theirs() {
    let fixture = Fixture::start(small()).await;
    let (mut mine, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        mine.push(fixture.connect().await);
        theirs.push(connect_from_elsewhere(&fixture).await);
    }
    assert_eq!(receive_all(&mut fixture.connect().await).await.code, 503);
    assert_eq!(receive_all(&mut connect_from_elsewhere(&fixture).await).await.code, 503);
    for stream in mine.iter_mut().chain(&mut theirs) {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: t\r\n\r\n").await.expect("sent");
        assert!(read_some(stream).await.starts_with("HTTP/1.1 200 OK"));
    }
}

#[tokio::test]
async fn connections_with_credentials_are_not_ended_for_others() {
    let fixture = secured_with(|options| {
        (options.connections_max, options.connections_per_address_max) = (4, 4);
    })
    .await;
    fixture.wait_until_all_closed().await;
    let mut known = Vec::new();
    for _ in 0..4 {
        let request = format!("GET /v1/kv/shared HTTP/1.1\r\nhost: t\r\n{}\r\n", basic("app"));
        known.push(begin(&fixture, &request).await);
        assert!(read_some(known.last_mut().expect("one")).await.starts_with("HTTP/1.1 404"));
    }
    let mut newcomer = connect_from_elsewhere(&fixture).await;
    assert_eq!(receive_all(&mut newcomer).await.code, 503);
    // Now one of them has none.
    known[2].write_all(b"GET /livez HTTP/1.1\r\nhost: t\r\n\r\n").await.expect("sent");
    assert!(read_some(&mut known[2]).await.starts_with("HTTP/1.1 200 OK"));
    while ask_from_elsewhere(&fixture, "/livez").await.code == 503 {
        // In this second it was looked for in vain.
    }
    assert_eq!(known[2].read(&mut [0; 1]).await.expect("its end"), 0);
}
