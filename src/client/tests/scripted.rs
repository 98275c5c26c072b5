//! A little server: each connection has its answers, and every request is kept.

use crate::client::{Client, ClientOptions, Endpoint};
use crate::kv::Revision;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Answers that come at once come well within this time.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the clients have seen.
pub(super) const SEEN: Revision = Revision(3);
/// Bytes of an answer's body that the client takes here.
pub(super) const ANSWER_BYTES_MAX: usize = 4096;

/// What the server does with one request.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Sends these bytes.
    Say(Vec<u8>),
    /// Sends these bytes and closes.
    SayAndClose(Vec<u8>),
    /// Sends these bytes, and nothing more.
    SayAndHang(Vec<u8>),
    /// Never answers.
    Hang,
}

/// A server on a port of its own. It ends with the runtime of its test.
pub(super) struct Scripted {
    pub(super) endpoint: Endpoint,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// One list of acts for each connection, in the order in which they come. A connection whose
    /// acts are done is closed, and so is every connection after the last list.
    pub(super) async fn start(connections: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let endpoint = listener.local_addr().expect("it is bound").to_string().parse().expect("an endpoint");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        tokio::spawn(async move {
            let mut connections = connections.into_iter();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, connections.next().unwrap_or_default(), heard.clone()));
            }
        });
        Self { endpoint, asked }
    }

    /// One connection that answers in this way, again and again.
    pub(super) async fn saying(answer: &str) -> Self {
        Self::start(vec![vec![Act::Say(answer.into()); 10]]).await
    }

    /// The requests so far: their heads and bodies.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no test panics with it").clone()
    }

    /// How many requests there were.
    pub(super) fn count(&self) -> usize {
        self.asked().len()
    }
}

async fn serve(mut stream: TcpStream, acts: Vec<Act>, asked: Arc<Mutex<Vec<String>>>) {
    for act in acts {
        let Some(request) = read_request(&mut stream).await else { return };
        asked.lock().expect("no test panics with it").push(request);
        match act {
            Act::Say(bytes) => stream.write_all(&bytes).await.unwrap_or(()),
            Act::SayAndClose(bytes) => return stream.write_all(&bytes).await.unwrap_or(()),
            Act::SayAndHang(bytes) => {
                stream.write_all(&bytes).await.unwrap_or(());
                std::future::pending().await
            }
            Act::Hang => std::future::pending().await,
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&received).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().expect("a number")) {
                return Some(text);
            }
        }
        if stream.read_buf(&mut received).await.ok()? == 0 {
            return None;
        }
    }
}

/// A client of these servers, which waits for an answer as long as it takes.
pub(super) fn client(servers: &[&Scripted]) -> Client {
    client_of(servers.iter().map(|server| server.endpoint.clone()).collect())
}

/// It has seen a revision, and does not ask for one before it writes.
pub(super) fn client_of(endpoints: Vec<Endpoint>) -> Client {
    Client::new(endpoints, options()).having_seen(SEEN)
}

pub(super) fn options() -> ClientOptions {
    ClientOptions {
        connect_timeout: PATIENCE,
        answer_timeout: PATIENCE,
        answer_bytes_max: ANSWER_BYTES_MAX,
        ..ClientOptions::default()
    }
}

/// An answer with its length.
pub(super) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// A problem (RFC 9457).
pub(super) fn problem(status: &str, code: &str, more: &str) -> String {
    let body = format!("{{\"code\":\"{code}\",\"detail\":\"in words\"{more}}}");
    answer(status, "content-type: application/problem+json\r\n", &body)
}

/// The beginning of a stream of events, in these pieces. It does not end.
pub(super) fn events(pieces: &[&str]) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len()));
    head.to_owned().into_bytes().into_iter().chain(chunks.collect::<String>().into_bytes()).collect()
}

pub(super) fn written() -> String {
    answer("200 OK", "", "\"Set Successfull\"\n")
}

pub(super) fn not_appended() -> String {
    answer(
        "500 Internal Server Error",
        "infinitystore-outcome: not-appended\r\n",
        "\"Couldn't Add to store\"\n",
    )
}

/// An endpoint at which nobody listens.
pub(super) async fn nobody() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    listener.local_addr().expect("it is bound").to_string().parse().expect("an endpoint")
}
