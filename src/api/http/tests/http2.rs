//! HTTP/2 on the port of HTTP/1.

use crate::api::HttpOptions;
use crate::api::http::frames::{Flood, FrameLimits, Frames};
use crate::api::http::http2::PREFACE;
use crate::api::http::tests::crowd::ask_from_elsewhere;
use crate::api::http::tests::fixture::{Fixture, HELD_KEY, RELEASE_KEY, receive_all};
use crate::api::http::tests::http2_kit::{
    Client2, begin, frame, headers, piece, read_frame, settings, try_read_frame, until_closed,
};
use crate::runtime::Env;
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

#[tokio::test]
async fn http2_serves_what_http1_serves_on_one_port() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let client = Client2::connect(&fixture).await;
    let put = client.ask("PUT", "/v1/kv/a%00/b", &[0, 159, 255]).await;
    assert_eq!((put.code, put.text()), (200, "{\"revision\":1,\"version\":1}\n"));
    let got = client.ask("GET", "/v1/kv/a%00/b", b"").await;
    assert_eq!((got.code, &got.body[..], got.header("etag")), (200, &[0, 159, 255][..], Some("\"1\"")));
    let head = client.ask("HEAD", "/v1/kv/a%00/b", b"").await;
    assert_eq!((head.code, head.body.len(), head.header("content-length")), (200, 0, Some("3")));
    let missing = client.ask("GET", "/v1/kv/none", b"").await;
    assert_eq!((missing.code, missing.header("content-type")), (404, Some("application/problem+json")));
    let set = client.ask("POST", "/set", br#"{"key":"k","value":"v","action":"set"}"#).await;
    assert_eq!(set.text(), "\"Set Successfull\"\n");
    assert_eq!(fixture.ask("GET", "/get?key=k", b"").await.text(), "{\"key\":\"k\",\"value\":\"v\"}\n");
    // A body that is refused unread is no reason to end the connection.
    let refused = client.ask_with("POST", "/v1/txn", &[("origin", "http://evil.example")], b"{}").await;
    assert_eq!((refused.code, refused.header("connection")), (403, None));
    let large = vec![7; 1 << 20];
    assert_eq!(client.ask("PUT", "/v1/kv/large", &large).await.code, 200);
    assert_eq!(client.ask("GET", "/v1/kv/large", b"").await.body, large);
    let too_large = client.ask("PUT", "/v1/kv/large", &[large, vec![7]].concat()).await;
    assert_eq!(too_large.code, 413);
    assert_eq!(client.ask("GET", "/livez", b"").await.text(), "ok\n");
}

#[tokio::test]
async fn a_preface_may_come_byte_by_byte_and_a_method_may_begin_like_one() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let mut stream = fixture.connect().await;
    stream.set_nodelay(true).expect("a socket");
    for byte in PREFACE {
        stream.write_all(&[*byte]).await.expect("it is read");
        tokio::task::yield_now().await;
    }
    stream.write_all(&settings()).await.expect("it is read");
    assert_eq!(read_frame(&mut stream).await.0, SETTINGS);

    for at in 1..16 {
        let mut stream = fixture.connect().await;
        stream.set_nodelay(true).expect("a socket");
        let (first, rest) = b"PRI * HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n".split_at(at);
        stream.write_all(first).await.expect("it is read");
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        stream.write_all(rest).await.expect("it is read");
        let answered = receive_all(&mut stream).await;
        assert_eq!((at, answered.code, answered.text()), (at, 404, "\"Not Found\"\n"));
    }
    // One that ends within what might have become the preface.
    let mut stream = fixture.connect().await;
    stream.write_all(&PREFACE[..7]).await.expect("it is read");
    stream.shutdown().await.expect("a socket");
    until_closed(&mut stream).await;
}

#[tokio::test]
async fn requests_are_under_way_at_once_each_with_its_part_of_the_memory() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let client = Client2::connect(&fixture).await;
    assert_eq!(client.ask("PUT", "/v1/kv/other", b"x").await.code, 200);
    let held: Vec<_> = (0..50).map(|_| client.send("GET", &format!("/v1/kv/{HELD_KEY}"), &[], b"")).collect();
    // Answered although the others before it are not.
    assert_eq!(client.ask("GET", "/v1/kv/other", b"").await.text(), "x");
    assert_eq!(fixture.memory_used(), 49 * (16 << 10), "the first stream of a connection costs nothing");
    assert_eq!(client.ask("GET", &format!("/v1/kv/{RELEASE_KEY}"), b"").await.code, 404);
    for one in held {
        let answer = one.await.expect("an answer");
        assert_eq!(answer.status(), 404);
        answer.into_body().collect().await.expect("its body");
    }
    drop(client);
    fixture.wait_until_all_closed().await;
    assert_eq!(fixture.memory_used(), 0);
}

#[tokio::test]
async fn requests_above_the_budget_are_refused_and_the_connection_goes_on() {
    // Of which one caller gets three quarters.
    let memory_bytes_max = 44 << 10;
    let fixture = Fixture::start(HttpOptions { memory_bytes_max, ..HttpOptions::default() }).await;
    let client = Client2::connect(&fixture).await;
    let held: Vec<_> =
        (0..5).map(|_| client.send("GET", &format!("/get?key={HELD_KEY}"), &[], b"")).collect();
    let refused = client.ask("GET", "/get?key=other", b"").await;
    assert_eq!((refused.code, refused.header("retry-after")), (503, Some("1")));
    let other = Client2::connect(&fixture).await;
    assert_eq!(other.ask("GET", &format!("/get?key={RELEASE_KEY}"), b"").await.code, 404);
    let mut codes = Vec::new();
    for one in held {
        codes.push(one.await.expect("an answer").status().as_u16());
    }
    assert_eq!(codes, [404, 404, 404, 503, 503], "one for nothing, two that fit, and no more");
    // Of a body as much counts as may come before anybody reads it.
    let large = other.ask("PUT", "/v1/kv/k", &[7; 50 << 10]).await;
    let told: serde_json::Value = serde_json::from_str(large.text()).expect("a problem");
    assert_eq!(
        (large.code, &told["code"], &told["outcome"]),
        (503, &"no-memory".into(), &"not-applied".into())
    );
    assert_eq!(other.ask("PUT", "/v1/kv/k", &[7; 5 << 10]).await.code, 200);
    // Headers count too, short ones as the memory that each takes.
    let names: Vec<_> = (0..220).map(|number| format!("h{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    assert_eq!(other.ask_with("GET", "/livez", &many, b"").await.code, 503);
    assert_eq!(other.ask("GET", "/livez", b"").await.code, 200);
}

#[tokio::test]
async fn an_answer_counts_until_the_client_has_been_sent_it() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let value = vec![7; 1 << 20];
    assert_eq!(fixture.ask("PUT", "/v1/kv/large", &value).await.code, 200);
    // It asks, and takes no more than a little.
    let client = Client2::with_window(&fixture, 1000).await;
    let mut slow = client.send("GET", "/v1/kv/large", &[], b"").await.expect("a head").into_body();
    let first = slow.frame().await.expect("data").expect("data").into_data().expect("data");
    assert!(first.len() <= 1000);
    assert!(fixture.memory_used() >= value.len(), "{}", fixture.memory_used());
    // Others of the connection are not held up.
    assert_eq!(client.ask("GET", "/livez", b"").await.text(), "ok\n");
    let rest = slow.collect().await.expect("the rest").to_bytes();
    assert_eq!(first.len() + rest.len(), value.len());
    drop(client);
    fixture.wait_until_all_closed().await;
    assert_eq!(fixture.memory_used(), 0);
}

#[tokio::test]
async fn a_watch_is_a_stream_beside_others() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let client = Client2::connect(&fixture).await;
    let mut watch = client.send("GET", "/v1/watch?prefix=a/", &[], b"").await.expect("a head").into_body();
    let progress = piece(&mut watch).await.expect("it goes on");
    assert_eq!(progress, "event: progress\nid: 0\ndata: {\"revision\":0}\n\n");
    for revision in 1..=20 {
        assert_eq!(client.ask("PUT", "/v1/kv/a/1", b"x").await.code, 200);
        let told = piece(&mut watch).await.expect("it goes on");
        assert!(told.starts_with(&format!("id: {revision}\ndata: ")), "{told}");
    }
}

#[tokio::test]
async fn a_server_that_stops_answers_what_is_under_way_and_ends_watches() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let client = Client2::connect(&fixture).await;
    let mut watch = client.send("GET", "/v1/watch", &[], b"").await.expect("a head").into_body();
    assert!(piece(&mut watch).await.is_some());
    let held = client.send("GET", &format!("/get?key={HELD_KEY}"), &[], b"");
    // Answered after the one that is held was taken in.
    assert_eq!(client.ask("GET", "/get?key=other", b"").await.code, 404);
    let handle = fixture.node.clone();
    let (_, answer, watched) = tokio::join!(
        fixture.server.stop(fixture.env.now().plus(60_000_000)),
        async {
            // The server has been told to stop, and waits for this.
            let release = crate::replica::ClientRequest::read(RELEASE_KEY, crate::replica::Level::Local);
            handle.request(release).await;
            held.await.expect("an answer").status()
        },
        async { while piece(&mut watch).await.is_some() {} }
    );
    assert_eq!((answer, watched), (hyper::StatusCode::NOT_FOUND, ()));
    assert!(client.connection.await.expect("no panic"), "the connection ended well");
    assert_eq!(fixture.memory_used(), 0);
}

#[tokio::test]
async fn a_name_that_is_not_ours_is_refused_wherever_it_stands() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let client = Client2::connect(&fixture).await;
    assert_eq!(client.ask("GET", "http://evil.example/get?key=k", b"").await.code, 421);
    assert_eq!(client.ask("GET", "http://node-1.local:8001/get?key=k", b"").await.code, 404);
    let both = client.ask_with("GET", "http://test/get?key=k", &[("host", "evil.example")], b"").await;
    assert_eq!(both.code, 421);
    let own = [("origin", "http://test")];
    let other = [("origin", "http://other")];
    let body = br#"{"key":"k","value":"v","action":"set"}"#;
    assert_eq!(client.ask_with("POST", "/set", &own, body).await.code, 200);
    assert_eq!(client.ask_with("POST", "/set", &other, body).await.code, 403);
    let absolute = b"GET http://evil.example/get?key=k HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    assert_eq!(fixture.raw(absolute).await.code, 421);
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let client = Client2::connect(&fixture).await;
    let long = "x".repeat(100 << 10);
    assert_eq!(client.ask_with("GET", "/livez", &[("long", &long)], b"").await.code, 431);
    assert_eq!(client.ask("GET", "/livez", b"").await.code, 200);
    // A block of headers that does not end.
    let mut stream = begin(&fixture).await;
    let _ = stream.write_all(&frame(HEADERS, END_STREAM, 1, &headers("/livez"))).await;
    for _ in 0..1000 {
        // A header of 16,000 bytes that is not kept.
        let mut block = vec![0x00, 0x01, b'a', 0x7f, 0x81, 0x7c];
        block.resize(16_006, b'x');
        if stream.write_all(&frame(0x9, 0, 1, &block)).await.is_err() {
            break;
        }
    }
    until_closed(&mut stream).await;
}

#[tokio::test]
async fn a_client_that_opens_and_resets_again_and_again_is_cut_off() {
    let options = HttpOptions { http2_resets_per_second_max: 100, ..HttpOptions::default() };
    let fixture = Fixture::start(options).await;
    let mut stream = begin(&fixture).await;
    let mut resets = 0;
    'open: for id in (1..40_001).step_by(2) {
        let target = format!("/get?key={HELD_KEY}");
        let open = frame(HEADERS, END_STREAM | END_HEADERS, id, &headers(&target));
        let ping = frame(PING, 0, 0, &[7; 8]);
        if stream.write_all(&[open, ping].concat()).await.is_err() {
            break;
        }
        // The request is under way when the ping is answered: h2 alone counts those that are not.
        loop {
            match try_read_frame(&mut stream).await {
                None => break 'open,
                Some((PING, ..)) => break,
                Some(_) => {}
            }
        }
        let reset = frame(RST_STREAM, 0, id, &8u32.to_be_bytes());
        if stream.write_all(&reset).await.is_err() {
            break;
        }
        resets += 1;
    }
    assert!(resets < 20_000, "it took all of them");
    fixture.wait_until_all_closed().await;
    assert_eq!(fixture.memory_used(), 0);
}

#[tokio::test]
async fn a_client_that_sends_frames_without_a_request_is_cut_off() {
    let options = HttpOptions { http2_frames_per_second_max: 1000, ..HttpOptions::default() };
    let fixture = Fixture::start(options).await;
    let update = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    for flood in
        [frame(PING, 0, 0, &[7; 8]), settings(), frame(0x2, 0, 1, &[0; 5]), frame(0xee, 0, 0, b"x"), update]
    {
        let stream = begin(&fixture).await;
        let (mut reading, mut writing) = stream.into_split();
        let read = tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while reading.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        });
        let mut sent = 0;
        while sent < 1_000_000 && writing.write_all(&flood).await.is_ok() {
            sent += 1;
        }
        assert!(sent < 1_000_000, "frame of kind {}", flood[3]);
        read.await.expect("no panic");
    }
    // Frames that carry something do not count.
    let mut stream = begin(&fixture).await;
    for id in (1..4001).step_by(2) {
        let open = frame(HEADERS, END_STREAM | END_HEADERS, id, &headers("/livez"));
        stream.write_all(&open).await.expect("it is read");
        while read_frame(&mut stream).await.0 != DATA {}
    }
}

#[test]
fn frames_that_carry_nothing_count_whatever_they_are() {
    let limits = FrameLimits { resets_max: 0, others_max: 10 };
    let update = frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
    let unfinished = frame(HEADERS, 0, 1, b"");
    for (first, flood) in
        [(&[][..], &update), (&[], &frame(DATA, 0, 1, b"")), (&unfinished, &frame(CONTINUATION, 0, 1, b""))]
    {
        let mut frames = Frames::new(limits);
        frames.look_at(first, 1).expect("it is one");
        frames.look_at(&flood.repeat(10), 1).expect("ten are let through");
        frames.look_at(&flood.repeat(10), 2).expect("ten more in the next second");
        assert_eq!(frames.look_at(flood, 2), Err(Flood::Others), "{flood:?}");
    }
    let mut frames = Frames::new(limits);
    for _ in 0..100 {
        // The client takes what it was sent, and sends a body.
        frames.note_sent(1 << 10);
        frames.look_at(&update, 1).expect("it answers something");
        frames.look_at(&frame(DATA, 0, 1, b"x"), 1).expect("it carries something");
        frames.look_at(&frame(DATA, END_STREAM, 1, b""), 1).expect("it ends something");
    }
}

#[test]
fn headers_behind_a_body_end_the_connection() {
    let mut frames = Frames::new(FrameLimits { resets_max: 10, others_max: 10 });
    let open = |id| frame(HEADERS, END_HEADERS, id, &headers("/"));
    frames.look_at(&[open(1), frame(DATA, 0, 1, b"x"), open(3)].concat(), 1).expect("two requests");
    assert_eq!(frames.look_at(&frame(HEADERS, END_STREAM | END_HEADERS, 1, b""), 1), Err(Flood::Trailers));
}

/// h2 makes a map of what has come of it, which is far larger.
#[tokio::test]
async fn headers_that_do_not_end_are_counted() {
    let patient = HttpOptions {
        header_timeout_seconds: 1_000_000,
        idle_timeout_seconds: 1_000_000,
        ..HttpOptions::default()
    };
    let fixture = Fixture::start(HttpOptions { memory_bytes_max: 600 << 10, ..patient.clone() }).await;
    let mut stream = begin(&fixture).await;
    stream.write_all(&frame(HEADERS, END_STREAM, 1, &headers("/livez"))).await.expect("sent");
    timeout(Duration::from_secs(60), until_closed(&mut stream)).await.expect("there is no room for it");
    // With room for it, it may take its time, and the room is given back when it has ended.
    let fixture = Fixture::start(patient).await;
    let client = Client2::connect(&fixture).await;
    let long = "x".repeat(60 << 10);
    assert_eq!(client.ask_with("GET", "/livez", &[("long", &long)], b"").await.code, 200);
    drop(client);
    fixture.wait_until_all_closed().await;
    assert_eq!(fixture.memory_used(), 0);
}

#[tokio::test]
async fn a_client_may_take_a_long_answer_little_by_little() {
    let options = HttpOptions { http2_frames_per_second_max: 50, ..HttpOptions::default() };
    let fixture = Fixture::start(options).await;
    let value = vec![7; 1 << 20];
    assert_eq!(fixture.ask("PUT", "/v1/kv/large", &value).await.code, 200);
    let client = Client2::with_window(&fixture, 4 << 10).await;
    assert_eq!(client.ask("GET", "/v1/kv/large", b"").await.body, value);
}

#[tokio::test]
async fn a_client_that_stalls_is_disconnected() {
    let options = HttpOptions {
        header_timeout_seconds: 0,
        idle_timeout_seconds: 1000,
        write_timeout_seconds: 1000,
        ..HttpOptions::default()
    };
    let fixture = Fixture::start(options).await;
    let block = headers("/livez");
    let whole = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
    // Within the preface, a frame's head, a frame, and a block of headers.
    let mut stream = fixture.connect().await;
    stream.write_all(&PREFACE[..20]).await.expect("sent");
    until_closed(&mut stream).await;
    for part in [&whole[..4], &whole[..12], &frame(HEADERS, END_STREAM, 1, &block)[..]] {
        let mut stream = begin(&fixture).await;
        stream.write_all(part).await.expect("sent");
        until_closed(&mut stream).await;
    }
}

#[tokio::test]
async fn an_idle_connection_ends_and_one_with_a_stream_stays() {
    let options = HttpOptions { idle_timeout_seconds: 0, ..HttpOptions::default() };
    let fixture = Fixture::start(options).await;
    let busy = Client2::connect(&fixture).await;
    let held = busy.send("GET", &format!("/get?key={HELD_KEY}"), &[], b"");
    assert_eq!(busy.ask("GET", "/get?key=other", b"").await.code, 404);
    let idle = Client2::connect(&fixture).await;
    idle.connection.await.expect("no panic");
    assert_eq!(busy.ask("GET", &format!("/get?key={RELEASE_KEY}"), b"").await.code, 404);
    assert_eq!(held.await.expect("an answer").status(), 404);
    busy.connection.await.expect("no panic");
}

#[tokio::test]
async fn a_stream_that_is_not_taken_ends_and_the_others_go_on() {
    let options = HttpOptions {
        write_timeout_seconds: 0,
        write_bytes_per_second_min: usize::MAX,
        ..HttpOptions::default()
    };
    let fixture = Fixture::start(options).await;
    assert_eq!(fixture.ask("PUT", "/v1/kv/large", &vec![7; 1 << 20]).await.code, 200);
    let mut stream = fixture.connect().await;
    // The window of a stream is 1000 bytes.
    let few = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 3, 232]);
    let slow = frame(HEADERS, END_STREAM | END_HEADERS, 1, &headers("/v1/kv/large"));
    let watch = frame(HEADERS, END_STREAM | END_HEADERS, 3, &headers("/v1/watch?from=2"));
    stream.write_all(&[&PREFACE[..], &few, &slow, &watch].concat()).await.expect("sent");
    loop {
        let (kind, id, _) = read_frame(&mut stream).await;
        if (kind, id) == (RST_STREAM, 1) {
            break;
        }
        assert!(kind != RST_STREAM, "stream {id} was reset");
    }
    assert_eq!(fixture.ask("PUT", "/v1/kv/k", b"x").await.code, 200);
    loop {
        let (kind, id, payload) = read_frame(&mut stream).await;
        assert!(kind != RST_STREAM, "stream {id} was reset");
        if (kind, id) == (DATA, 3) && payload.starts_with(b"id: 2\n") {
            break;
        }
    }
}

/// What a stream gives at once may be large: it goes out in several pieces.
#[tokio::test]
async fn a_watch_or_a_backup_that_is_taken_no_further_ends() {
    let options = HttpOptions {
        write_timeout_seconds: 1,
        write_bytes_per_second_min: usize::MAX,
        idle_timeout_seconds: 1000,
        ..HttpOptions::default()
    };
    let fixture = Fixture::start(options).await;
    assert_eq!(fixture.ask("PUT", "/v1/kv/large", &vec![b'v'; 200_000]).await.code, 200);
    for target in ["/v1/watch?from=1", "/v1/snapshot"] {
        let mut stream = fixture.connect().await;
        // The window of a stream is 40,000 bytes: the first piece leaves, and not all of the next.
        let few = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0x9c, 0x40]);
        let asked = frame(HEADERS, END_STREAM | END_HEADERS, 1, &headers(target));
        stream.write_all(&[&PREFACE[..], &few, &asked].concat()).await.expect("sent");
        let ended = async {
            while let Some((kind, id, _)) = try_read_frame(&mut stream).await {
                if (kind, id) == (RST_STREAM, 1) {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(60), ended).await.unwrap_or_else(|_| panic!("{target} goes on"));
        drop(stream);
        fixture.wait_until_all_closed().await;
        assert_eq!(fixture.memory_used(), 0, "{target}");
    }
}

#[tokio::test]
async fn pages_of_events_count_for_the_caller_that_has_them() {
    let fixture = Fixture::start(HttpOptions { memory_bytes_max: 32 << 20, ..HttpOptions::default() }).await;
    assert_eq!(fixture.ask("PUT", "/v1/kv/large", &vec![b'v'; 1 << 20]).await.code, 200);
    let mut stream = fixture.connect().await;
    let few = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0x9c, 0x40]);
    let all = frame(WINDOW_UPDATE, 0, 0, &[0x3f, 0, 0, 0]);
    stream.write_all(&[&PREFACE[..], &few, &all].concat()).await.expect("sent");
    for id in (1..80).step_by(2) {
        // Each has a page of its own.
        let target = format!("/v1/watch?from=1&start=l&end=z{id}");
        let open = frame(HEADERS, END_STREAM | END_HEADERS, id, &headers(&target));
        stream.write_all(&open).await.expect("sent");
    }
    let (mut reading, writing) = stream.into_split();
    let read = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while reading.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    });
    while fixture.server.context.budget.refused() == 0 {
        tokio::task::yield_now().await;
    }
    let answered = ask_from_elsewhere(&fixture, "/v1/kv/large").await;
    assert_eq!((answered.code, answered.body.len()), (200, 1 << 20), "there is room for others");
    drop(writing);
    read.abort();
    fixture.wait_until_all_closed().await;
    assert_eq!(fixture.memory_used(), 0);
}

/// h2 has all of such an answer, and nobody is left who could reset its stream.
#[tokio::test]
async fn a_small_answer_that_is_not_taken_ends_its_connection() {
    let options = HttpOptions {
        write_timeout_seconds: 0,
        idle_timeout_seconds: 1000,
        write_bytes_per_second_min: usize::MAX,
        ..HttpOptions::default()
    };
    let fixture = Fixture::start(options).await;
    let mut stream = fixture.connect().await;
    // The window of a stream is one byte.
    let little = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]);
    let asked = [1, 3, 5].map(|id| frame(HEADERS, END_STREAM | END_HEADERS, id, &headers("/livez")));
    stream.write_all(&[&PREFACE[..], &little, &asked.concat()].concat()).await.expect("sent");
    until_closed(&mut stream).await;
    fixture.wait_until_all_closed().await;
    assert_eq!(fixture.memory_used(), 0);
}

/// Some clients take it for a failure when a stream is called back while they send, and drop the
/// answer with it.
#[tokio::test]
async fn a_small_body_is_taken_before_its_request_is_refused() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let mut stream = begin(&fixture).await;
    let target = "/v1/nothing";
    // POST http /v1/nothing, content-length: 5
    let mut block = vec![0x83, 0x86, 0x04, 11];
    block.extend_from_slice(target.as_bytes());
    block.extend_from_slice(b"\x0f\x0d\x015");
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &block)).await.expect("sent");
    stream.write_all(&frame(PING, 0, 0, &[1; 8])).await.expect("sent");
    let mut kinds = Vec::new();
    loop {
        let (kind, id, payload) = read_frame(&mut stream).await;
        if id == 1 {
            kinds.push(kind);
        }
        match (kind, payload.first()) {
            // The request is there.
            (PING, Some(1)) => stream.write_all(&frame(DATA, END_STREAM, 1, b"12345")).await.expect("sent"),
            (DATA, _) => stream.write_all(&frame(PING, 0, 0, &[2; 8])).await.expect("sent"),
            // Nothing comes behind the answer.
            (PING, Some(2)) => break,
            _ => {}
        }
    }
    assert_eq!(kinds.first(), Some(&HEADERS), "{kinds:?}");
    assert!(!kinds.contains(&RST_STREAM), "it was called back: {kinds:?}");
}
