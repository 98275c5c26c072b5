//! Watches: whole, in order, without a gap, whichever nodes come and go.

use crate::client::events::{EventMessage, EventReader, TooLong};
use crate::client::tests::scripted::{
    Act, Scripted, answer, client, client_of, events, nobody, options, problem,
};
use crate::client::{CallFailure, Client, ClientOptions, ErrorKind, Watch, WatchMessage, WatchQuery};
use crate::kv::{KeyRange, LeaseId, Revision};
use bytes::Bytes;
use std::time::Duration;

fn put(revision: u64) -> String {
    format!(
        "id: {revision}\ndata: {{\"revision\":{revision},\"events\":[{{\"type\":\"put\",\"key\":\"a\",\
         \"value\":\"x\",\"create_revision\":1,\"mod_revision\":{revision},\"version\":3,\"lease\":0}}]}}\n\n"
    )
}

fn progress(revision: u64) -> String {
    format!("event: progress\nid: {revision}\ndata: {{\"revision\":{revision}}}\n\n")
}

/// Events, and then the connection breaks.
fn cut(pieces: &[&str]) -> Vec<Act> {
    vec![Act::SayAndClose(events(pieces))]
}

/// Events, and then silence.
fn stay(pieces: &[&str]) -> Vec<Act> {
    vec![Act::SayAndHang(events(pieces))]
}

fn query() -> WatchQuery {
    WatchQuery::of(KeyRange::prefix(&b"a"[..]))
}

/// The revision that it says next, and whether that is progress.
async fn told(watch: &mut Watch) -> (u64, bool) {
    match watch.next().await.expect("it goes on") {
        WatchMessage::Changes(changes) => (changes.revision.0, false),
        WatchMessage::Progress(revision) => (revision.0, true),
        WatchMessage::Compacted(revision) => panic!("compacted: {revision}"),
    }
}

fn first_line(request: &str) -> &str {
    request.lines().next().expect("a first line")
}

#[tokio::test]
async fn changes_come_whole_and_in_order() {
    let two = "id: 18\ndata: {\"revision\":18,\"events\":[{\"type\":\"delete\",\"key64\":\"/w==\",\
         \"previous\":{\"value64\":\"/wA=\",\"create_revision\":2,\"mod_revision\":9,\"version\":3,\"lease\":4}},\
         {\"type\":\"put\",\"key\":\"b\",\"value\":\"\",\"create_revision\":18,\"mod_revision\":18,\"version\":1,\
         \"lease\":0}]}\n\n";
    let (before, rest) = two.split_at(40);
    let pieces =
        [&*progress(16), ": a comment\n\nevent: of a later version\ndata: 1\n\n", &put(17), before, rest];
    let server = Scripted::start(vec![stay(&pieces)]).await;
    let query = WatchQuery { previous: true, deletions: false, ..query() };
    let mut watch = client(&[&server]).watch(query);
    assert_eq!(told(&mut watch).await, (16, true));
    assert_eq!(told(&mut watch).await, (17, false));
    let WatchMessage::Changes(changes) = watch.next().await.expect("it goes on") else {
        panic!("no changes")
    };
    let [deletion, put] = &changes.events[..] else { panic!("{changes:?}") };
    assert_eq!((&deletion.key[..], &deletion.now), (&b"\xff"[..], &None));
    let previous = deletion.previous.as_ref().expect("it was there");
    assert_eq!((&previous.value[..], previous.lease), (&b"\xff\0"[..], LeaseId(4)));
    let now = put.now.as_ref().expect("it is there");
    assert_eq!((now.create_revision, now.version, &put.previous), (Revision(18), 1, &None));
    assert_eq!(
        first_line(&server.asked()[0]),
        "GET /v1/watch?prefix=a&puts_only=true&previous=true HTTP/1.1"
    );
}

#[tokio::test]
async fn a_watch_that_lost_its_node_goes_on_with_the_next_revision() {
    let first = Scripted::start(vec![cut(&[&progress(4), &put(5), &put(7), "id: 8\ndata: {\"revi"])]).await;
    let second = Scripted::start(vec![stay(&[&progress(7), &put(8), &progress(20)])]).await;
    let mut watch = client(&[&first, &second]).watch(query());
    for expected in [(4, true), (5, false), (7, false), (8, false), (20, true)] {
        assert_eq!(told(&mut watch).await, expected);
    }
    assert_eq!(first_line(&first.asked()[0]), "GET /v1/watch?prefix=a HTTP/1.1");
    assert_eq!(first_line(&second.asked()[0]), "GET /v1/watch?prefix=a&from=8 HTTP/1.1");
}

#[tokio::test]
async fn progress_is_a_place_to_go_on_from() {
    let first = Scripted::start(vec![cut(&[&progress(4)]), stay(&[&progress(4), &put(9)])]).await;
    let mut watch = client(&[&first]).watch(query());
    assert_eq!(told(&mut watch).await, (4, true));
    assert_eq!(told(&mut watch).await, (9, false), "what was said already is not said again");
    assert_eq!(first_line(&first.asked()[1]), "GET /v1/watch?prefix=a&from=5 HTTP/1.1");
}

#[tokio::test]
async fn a_watch_waits_for_its_node_to_come_back() {
    // It ends, refuses, says that it stops, and then is there again.
    let server = Scripted::start(vec![
        cut(&[&put(5)]),
        vec![Act::SayAndClose(problem("503 x", "starting", "").into())],
        stay(&["event: failed\ndata: {\"code\":\"stopping\"}\n\n"]),
        vec![],
        stay(&[&put(6)]),
    ])
    .await;
    let mut watch = client(&[&server]).watch(WatchQuery { from: Some(Revision(5)), ..query() });
    assert_eq!(told(&mut watch).await, (5, false));
    assert_eq!(told(&mut watch).await, (6, false));
    for request in &server.asked()[1..] {
        assert_eq!(first_line(request), "GET /v1/watch?prefix=a&from=6 HTTP/1.1");
    }
}

#[tokio::test]
async fn a_watch_that_finds_nobody_says_so() {
    let mut watch = client_of(vec![nobody().await, nobody().await]).watch(query());
    let error = watch.next().await.expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // One that was connected tries for as long as it was told to.
    let server = Scripted::start(vec![cut(&[&put(5)])]).await;
    let query = WatchQuery { patience: Duration::ZERO, ..query() };
    let mut watch = client(&[&server]).watch(query);
    assert_eq!(told(&mut watch).await, (5, false));
    assert!(matches!(watch.next().await.expect_err("it is gone").failure, CallFailure::Lost(_)));
}

#[tokio::test]
async fn what_was_compacted_is_told_and_the_watch_can_go_on() {
    let refused = problem("410 x", "compacted", ",\"revision\":30");
    let server = Scripted::start(vec![
        vec![Act::SayAndClose(refused.into())],
        stay(&[&put(30), "event: compacted\ndata: {\"revision\":50,\"code\":\"compacted\"}\n\n"]),
        stay(&[&put(50)]),
    ])
    .await;
    let mut watch = client(&[&server]).watch(WatchQuery { from: Some(Revision(2)), ..query() });
    let compacted = |revision| WatchMessage::Compacted(Revision(revision));
    assert_eq!(watch.next().await.expect("told"), compacted(30));
    assert_eq!(told(&mut watch).await, (30, false));
    assert_eq!(watch.next().await.expect("told"), compacted(50));
    assert_eq!(told(&mut watch).await, (50, false));
    let asked = server.asked();
    assert_eq!(first_line(&asked[1]), "GET /v1/watch?prefix=a&from=30 HTTP/1.1");
    assert_eq!(first_line(&asked[2]), "GET /v1/watch?prefix=a&from=50 HTTP/1.1");
}

#[tokio::test]
async fn a_request_that_is_wrong_in_itself_ends_the_watch() {
    let refused = problem("400 x", "empty-range", "");
    let (first, second) = (Scripted::saying(&refused).await, Scripted::saying(&refused).await);
    let error = client(&[&first, &second]).watch(query()).next().await.expect_err("refused");
    assert_eq!((error.kind(), first.count(), second.count()), (ErrorKind::BadRequest, 1, 0));
}

#[tokio::test]
async fn what_every_node_would_say_ends_the_watch() {
    for (code, kind) in [
        ("revision-too-large", ErrorKind::BadRequest),
        ("forbidden", ErrorKind::Denied),
        ("unauthenticated", ErrorKind::Denied),
    ] {
        let last = format!(
            "event: failed\ndata: {{\"revision\":6,\"code\":\"{code}\",\"detail\":\"in words\"}}\n\n"
        );
        let first = Scripted::start(vec![stay(&[&put(5), &last])]).await;
        let second = Scripted::start(vec![stay(&[&put(6)])]).await;
        let client = client(&[&first, &second]);
        let mut watch = client.watch(WatchQuery { from: Some(Revision(5)), ..query() });
        assert_eq!(told(&mut watch).await, (5, false));
        let error = watch.next().await.expect_err("it is over");
        assert_eq!((error.kind(), error.code()), (kind, Some(code)), "{error}");
        assert_eq!(error.refusal().and_then(|refusal| refusal.revision), Some(Revision(6)));
        assert!(error.to_string().contains("in words"), "{error}");
        assert_eq!((first.count(), second.count()), (1, 0), "nobody else is asked");
    }
}

#[tokio::test]
async fn what_no_node_sends_is_not_passed_on() {
    for bad in [
        Act::Say(answer("200 OK", "", "welcome").into()),
        Act::SayAndHang(events(&["data: x\n\n"])),
        Act::SayAndHang(events(&[
            "data: {\"revision\":4,\"events\":[{\"type\":\"burn\",\"key\":\"a\"}]}\n\n",
        ])),
        Act::SayAndHang(events(&[
            "data: {\"revision\":4,\"events\":[{\"type\":\"put\",\"value\":\"a\"}]}\n\n",
        ])),
        // A revision that was told already.
        Act::SayAndHang(events(&[&put(3)])),
    ] {
        let first = Scripted::start(vec![vec![bad.clone()]]).await;
        let second = Scripted::start(vec![stay(&[&put(4)])]).await;
        let client = client(&[&first, &second]);
        let mut watch = client.watch(WatchQuery { from: Some(Revision(4)), ..query() });
        assert_eq!(told(&mut watch).await, (4, false), "{bad:?}");
        assert_eq!(first_line(&second.asked()[0]), "GET /v1/watch?prefix=a&from=4 HTTP/1.1");
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_watch() {
    // The next node would send the same.
    let long = Act::SayAndHang(events(&["data: ", &"x".repeat(3000), &"x".repeat(3000)]));
    let (first, second) =
        (Scripted::start(vec![vec![long.clone()]]).await, Scripted::start(vec![vec![long]]).await);
    let options = ClientOptions { watch_message_bytes_max: 4096, ..options() };
    let client = Client::new(vec![first.endpoint.clone(), second.endpoint.clone()], options);
    let error = client.watch(query()).next().await.expect_err("it cannot be taken in");
    assert_eq!((error.kind(), first.count(), second.count()), (ErrorKind::BadRequest, 1, 0), "{error}");
}

#[tokio::test]
async fn a_watch_that_is_ended_again_and_again_runs_out_of_patience() {
    let ended = [&*progress(4), "event: failed\ndata: {\"code\":\"removed\"}\n\n"];
    let servers =
        [Scripted::start(vec![stay(&ended); 200]).await, Scripted::start(vec![stay(&ended); 200]).await];
    let query = WatchQuery { patience: Duration::ZERO, from: Some(Revision(5)), ..query() };
    let mut watch = client(&[&servers[0], &servers[1]]).watch(query);
    let error = watch.next().await.expect_err("no node goes on");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(servers.iter().all(|server| server.count() <= 2), "each was asked again, and again");
    // News begin it anew.
    let (good, bad) = (stay(&[&progress(4), &put(5), "event: failed\ndata: {}\n\n"]), stay(&ended));
    let first = Scripted::start(vec![bad.clone(), bad]).await;
    let second = Scripted::start(vec![good, stay(&[&put(6)])]).await;
    let mut watch = client(&[&first, &second]).watch(WatchQuery { from: Some(Revision(5)), ..self::query() });
    assert_eq!(told(&mut watch).await, (5, false));
    assert_eq!(told(&mut watch).await, (6, false));
}

#[tokio::test]
async fn a_node_that_says_nothing_any_more_is_left() {
    // Often enough, and long enough, for a machine on which everything takes its time.
    let first = Scripted::start(vec![stay(&[&put(5)]); 100]).await;
    let second = Scripted::start(vec![stay(&[&put(6)]); 100]).await;
    let options = ClientOptions { watch_silence_max: Duration::from_secs(1), ..options() };
    let client = Client::new(vec![first.endpoint.clone(), second.endpoint.clone()], options);
    let mut watch = client.watch(query());
    assert_eq!(told(&mut watch).await, (5, false));
    assert_eq!(told(&mut watch).await, (6, false));
    assert_eq!(first_line(&second.asked()[0]), "GET /v1/watch?prefix=a&from=6 HTTP/1.1");
}

/// The messages of a stream that comes in pieces of that size.
fn read(text: &str, piece_bytes: usize) -> Result<Vec<EventMessage>, TooLong> {
    let mut reader = EventReader::new(16);
    let mut messages = Vec::new();
    for piece in text.as_bytes().chunks(piece_bytes) {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(message) = reader.take(&mut piece)? {
            messages.push(message);
        }
    }
    Ok(messages)
}

#[test]
fn a_stream_is_taken_apart_wherever_its_pieces_end() {
    let text = ": hello\n\nevent: a\nid: 1\ndata: x\ndata:y\nretry: 5\n\ndata\n\r\nevent: lost\n\nnonsense\ndata: z\r\n\r\n";
    let message = |name: &str, data: &str| EventMessage { name: name.into(), data: data.into() };
    let expected = vec![message("a", "x\ny"), message("", ""), message("", "z")];
    for piece_bytes in 1..text.len() {
        assert_eq!(read(text, piece_bytes), Ok(expected.clone()), "pieces of {piece_bytes}");
    }
    // A line that is too long, and a message of many lines.
    for text in ["data: 0123456789ab", "data: 0123456\ndata: 0123456\ndata: 0\n\n"] {
        for piece_bytes in 1..text.len() {
            assert_eq!(read(text, piece_bytes), Err(TooLong), "pieces of {piece_bytes}");
        }
    }
}
