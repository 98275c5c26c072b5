//! Watches over `/v1`.

use crate::api::HttpOptions;
use crate::api::http::tests::fixture::Fixture;
use crate::runtime::Env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A connection that watches, and what has come over it.
struct Watch {
    stream: TcpStream,
    /// Chunks taken off.
    text: String,
    raw: Vec<u8>,
    ended: bool,
}

impl Watch {
    async fn begin(fixture: &Fixture, query: &str, headers: &str) -> Self {
        let mut stream = fixture.connect().await;
        let request = format!("GET /v1/watch?{query} HTTP/1.1\r\nhost: t\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut watch = Self { stream, text: String::new(), raw: Vec::new(), ended: false };
        while !watch.raw.windows(4).any(|window| window == b"\r\n\r\n") {
            watch.read().await;
        }
        let end = watch.raw.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8(watch.raw.drain(..end).collect()).expect("text");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"), "{head}");
        watch
    }

    async fn read(&mut self) {
        let mut buffer = vec![0; 64 << 10];
        let count = self.stream.read(&mut buffer).await.expect("it can be read");
        self.raw.extend_from_slice(&buffer[..count]);
        self.ended |= count == 0;
    }

    /// Takes chunks off what has come.
    fn take_chunks(&mut self) {
        while let Some(end) = self.raw.windows(2).position(|window| window == b"\r\n") {
            let length = usize::from_str_radix(std::str::from_utf8(&self.raw[..end]).expect("text"), 16);
            let length = length.expect("a length");
            if self.raw.len() < end + 2 + length + 2 {
                return;
            }
            self.text.push_str(std::str::from_utf8(&self.raw[end + 2..end + 2 + length]).expect("text"));
            self.raw.drain(..end + 2 + length + 2);
            self.ended |= length == 0;
        }
    }

    /// The next message; `None`: it has ended.
    async fn next(&mut self) -> Option<String> {
        loop {
            self.take_chunks();
            if let Some(end) = self.text.find("\n\n") {
                return Some(self.text.drain(..end + 2).collect());
            }
            if self.ended {
                return None;
            }
            self.read().await;
        }
    }

    /// The next messages that tell of a change: their ids.
    async fn ids(&mut self, count: usize) -> Vec<u64> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let message = self.next().await.expect("it goes on");
            if let Some(id) = message.strip_prefix("id: ") {
                ids.push(id.split_once('\n').expect("a line").0.parse().expect("a revision"));
            }
        }
        ids
    }
}

async fn put(fixture: &Fixture, key: &str, value: &[u8]) {
    assert_eq!(fixture.ask("PUT", &format!("/v1/kv/{key}"), value).await.code, 200);
}

#[tokio::test]
async fn changes_are_told_as_they_happen() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    put(&fixture, "a/1", b"before").await;
    let mut watch = Watch::begin(&fixture, "prefix=a/&previous", "").await;
    assert_eq!(watch.next().await.as_deref(), Some("event: progress\nid: 1\ndata: {\"revision\":1}\n\n"));
    put(&fixture, "b", b"another").await;
    put(&fixture, "a/1", b"\xff").await;
    let message = "id: 3\ndata: {\"revision\":3,\"events\":[{\"type\":\"put\",\"key\":\"a/1\",\"value64\":\"/w==\",\
        \"create_revision\":1,\"mod_revision\":3,\"version\":2,\"lease\":0,\"previous\":{\"value\":\"before\",\
        \"create_revision\":1,\"mod_revision\":1,\"version\":1,\"lease\":0}}]}\n\n";
    assert_eq!(watch.next().await.as_deref(), Some(message));
    let txn = br#"{"then":[{"put":{"key":"a/2","value":"x"}},{"delete":{"key":"a/1"}},{"put":{"key":"b","value":""}}]}"#;
    assert_eq!(fixture.ask("POST", "/v1/txn", txn).await.code, 200);
    let message = watch.next().await.expect("one message for the revision");
    assert!(
        message.starts_with("id: 4\ndata: {\"revision\":4,\"events\":[{\"type\":\"put\",\"key\":\"a/2\""),
        "{message}"
    );
    assert!(message.contains("{\"type\":\"delete\",\"key\":\"a/1\",\"previous\":{\"value64\":"), "{message}");
    assert!(!message.contains("\"key\":\"b\""), "{message}");
}

#[tokio::test]
async fn a_watch_resumes_where_it_was() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for _ in 0..5 {
        put(&fixture, "k", b"v").await;
        put(&fixture, "other", b"v").await;
    }
    assert_eq!(Watch::begin(&fixture, "key=k&from=3", "").await.ids(4).await, [3, 5, 7, 9]);
    assert_eq!(Watch::begin(&fixture, "key=k&from=3", "last-event-id: 5\r\n").await.ids(2).await, [7, 9]);
    assert_eq!(Watch::begin(&fixture, "start=l&from=0", "").await.ids(2).await, [2, 4]);
    let mut watch = Watch::begin(&fixture, "from=13", "").await;
    assert_eq!(watch.next().await.as_deref(), Some(": waiting\n\n"), "nobody knows the future");
    for _ in 0..3 {
        put(&fixture, "k", b"v").await;
    }
    assert_eq!(watch.ids(1).await, [13]);
    assert_eq!(fixture.ask("DELETE", "/v1/kv/k", b"").await.code, 200);
    assert_eq!(Watch::begin(&fixture, "from=9&deletes_only", "").await.ids(1).await, [14]);
    let mut watch = Watch::begin(&fixture, "from=13&puts_only", "").await;
    put(&fixture, "k", b"v").await;
    assert_eq!(watch.ids(2).await, [13, 15]);
}

#[tokio::test]
async fn a_watch_from_what_was_compacted_says_where_to_go_on_and_ends() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for _ in 0..5 {
        put(&fixture, "k", b"v").await;
    }
    assert_eq!(fixture.ask("POST", "/v1/compact", b"{\"revision\":3}").await.code, 200);
    let mut watch = Watch::begin(&fixture, "from=2", "").await;
    watch.next().await.expect("progress");
    let message = watch.next().await.expect("why");
    assert!(
        message.starts_with("event: compacted\ndata: {\"revision\":4,\"code\":\"compacted\","),
        "{message}"
    );
    assert_eq!(watch.next().await, None);
    assert_eq!(Watch::begin(&fixture, "from=4", "").await.ids(2).await, [4, 5]);
}

#[tokio::test]
async fn watchers_of_the_same_share_one_page() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let mut watches = Vec::new();
    for _ in 0..20 {
        watches.push(Watch::begin(&fixture, "prefix=k", "").await);
    }
    let numbers: Vec<u64> = (1..=50).collect();
    for number in &numbers {
        put(&fixture, &format!("k{number}"), b"v").await;
    }
    for watch in &mut watches {
        assert_eq!(watch.next().await.as_deref(), Some("event: progress\nid: 0\ndata: {\"revision\":0}\n\n"));
        assert_eq!(watch.ids(50).await, numbers, "each once, in order");
    }
    let metrics = fixture.ask("GET", "/metrics", b"").await;
    assert!(metrics.text().contains("infinitystore_http_watchers 20\n"), "{}", metrics.text());
    drop(watches);
    let far = fixture.env.now().plus(3_600_000_000);
    fixture.server.stop(far).await;
    assert_eq!(fixture.server.context.pages.watchers(), 0);
}

#[tokio::test]
async fn a_watcher_that_does_not_read_holds_one_page_and_misses_nothing() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(fixture.addr.parse().expect("an address")).await.expect("it listens");
    stream.write_all(b"GET /v1/watch?prefix= HTTP/1.1\r\nhost: t\r\n\r\n").await.expect("sent");
    let mut first = [0; 15];
    stream.read_exact(&mut first).await.expect("a head");
    let value = vec![b'v'; 300_000];
    for number in 0..60 {
        put(&fixture, &format!("k{number}"), &value).await;
        let used = fixture.memory_used();
        assert!(used < 4 << 20, "{used} bytes are held for it after {number} writes");
    }
    let mut watch = Watch { stream, text: String::new(), raw: first.to_vec(), ended: false };
    while !watch.raw.windows(4).any(|window| window == b"\r\n\r\n") {
        watch.read().await;
    }
    let end = watch.raw.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    watch.raw.drain(..end);
    watch.next().await.expect("progress");
    assert_eq!(watch.ids(60).await, (1..=60).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_watch_ends_with_its_client() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let mut watch = Watch::begin(&fixture, "prefix=k", "").await;
    watch.next().await.expect("progress");
    // The beginning of a next request is not the end.
    watch.stream.write_all(b"GET").await.expect("sent");
    put(&fixture, "k", b"v").await;
    assert_eq!(watch.ids(1).await, [1]);
    let mut other = Watch::begin(&fixture, "prefix=k", "").await;
    other.next().await.expect("progress");
    other.stream.shutdown().await.expect("it is open");
    assert_eq!(other.next().await, None, "nobody is told of progress who has gone");
    drop((watch, other));
}

#[tokio::test]
async fn a_server_that_stops_ends_its_watches() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let mut watch = Watch::begin(&fixture, "prefix=k", "").await;
    put(&fixture, "k", b"v").await;
    assert_eq!(watch.ids(1).await, [1]);
    let far = fixture.env.now().plus(3_600_000_000);
    fixture.server.stop(far).await;
    assert_eq!(watch.next().await, None, "ended as an answer ends, not cut off");
    assert!(watch.ended);
}

#[tokio::test]
async fn a_server_that_stops_answers_those_that_wait() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    assert_eq!(fixture.ask("POST", "/v1/locks/n", b"").await.code, 200);
    let far = fixture.env.now().plus(3_600_000_000);
    let (poll, lock, ()) = tokio::join!(
        fixture.ask("GET", "/v1/kv/k?wait=1h", b""),
        fixture.ask("POST", "/v1/locks/n?wait=1h", b""),
        async {
            while fixture.ask("GET", "/v1/locks/n", b"").await.json()["waiting"] != 1 {}
            fixture.server.stop(far).await;
        }
    );
    for answered in [poll, lock] {
        assert_eq!(answered.problem(), (503, "stopping".to_owned()));
    }
}

#[tokio::test]
async fn an_idle_watch_outlives_every_time_out() {
    let options = HttpOptions { idle_timeout_seconds: 0, write_timeout_seconds: 0, ..HttpOptions::default() };
    let fixture = Fixture::start(options).await;
    let mut watch = Watch::begin(&fixture, "key=k", "").await;
    watch.next().await.expect("progress");
    let mut idle = fixture.connect().await;
    assert_eq!(idle.read(&mut [0; 1]).await.expect("the end"), 0, "the sweep ends what does nothing");
    put(&fixture, "k", b"v").await;
    assert_eq!(watch.ids(1).await, [1]);
}

#[tokio::test]
async fn a_watch_that_makes_no_sense_is_refused() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for (query, headers, code) in [
        ("key=a&prefix=a", "", "conflicting-parameters"),
        ("puts_only&deletes_only", "", "conflicting-parameters"),
        ("start=b&end=a", "", "empty-range"),
        ("key=", "", "empty-key"),
        ("from=now", "", "bad-parameter"),
        ("prefix=a", "last-event-id: x\r\n", "bad-event-id"),
        ("filter=a", "", "unknown-parameter"),
    ] {
        let answered = fixture.ask_with("GET", &format!("/v1/watch?{query}"), headers, b"").await;
        assert_eq!(answered.problem(), (400, code.to_owned()), "{query}");
    }
    let head = fixture.ask("HEAD", "/v1/watch", b"").await;
    assert_eq!((head.code, head.header("content-type")), (200, Some("text/event-stream")));
}
