//! A client of HTTP/2, and frames by hand for what no client sends.

use crate::api::http::http2::PREFACE;
use crate::api::http::tests::fixture::Fixture;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::future::Future;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A connection that speaks HTTP/2.
pub(super) struct Client2 {
    sender: SendRequest<Full<Bytes>>,
    /// Ends with the connection: whether it ended well.
    pub(super) connection: JoinHandle<bool>,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Answered2 {
    pub(super) code: u16,
    pub(super) headers: hyper::HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answered2 {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

impl Client2 {
    pub(super) async fn connect(fixture: &Fixture) -> Self {
        Self::with_window(fixture, 1 << 20).await
    }

    /// That takes so much of all answers before it reads them.
    pub(super) async fn with_window(fixture: &Fixture, bytes: u32) -> Self {
        let stream = TokioIo::new(fixture.connect().await);
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(bytes)
            .initial_connection_window_size(1 << 20)
            .max_header_list_size(1 << 20)
            .handshake(stream)
            .await
            .expect("it speaks HTTP/2");
        Self { sender, connection: tokio::spawn(async { connection.await.is_ok() }) }
    }

    /// Sends a request, in the order of the calls; the answer is to come.
    pub(super) fn send(
        &self,
        method: &str,
        target: &str,
        more: &[(&str, &str)],
        body: &[u8],
    ) -> impl Future<Output = Result<hyper::Response<Incoming>, hyper::Error>> + Send + use<> {
        // A URI with a name in it is how the client knows `:authority`.
        let uri = if target.contains("://") { target.to_owned() } else { format!("http://test{target}") };
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).expect("a request");
        self.sender.clone().send_request(request)
    }

    pub(super) async fn ask(&self, method: &str, target: &str, body: &[u8]) -> Answered2 {
        self.ask_with(method, target, &[], body).await
    }

    pub(super) async fn ask_with(
        &self,
        method: &str,
        target: &str,
        more: &[(&str, &str)],
        body: &[u8],
    ) -> Answered2 {
        let response = self.send(method, target, more, body).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes().to_vec();
        Answered2 { code: head.status.as_u16(), headers: head.headers, body }
    }
}

/// The next piece of a body.
pub(super) async fn piece(body: &mut Incoming) -> Option<String> {
    let frame = body.frame().await?.expect("it goes on");
    Some(String::from_utf8(frame.into_data().expect("data").to_vec()).expect("UTF-8"))
}

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The client's settings: none.
pub(super) fn settings() -> Vec<u8> {
    frame(0x4, 0, 0, &[])
}

/// The headers of `GET path` in HPACK, without an index.
pub(super) fn headers(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).expect("a short path")];
    block.extend_from_slice(path.as_bytes());
    block
}

/// A connection that is about to send frames by hand.
pub(super) async fn begin(fixture: &Fixture) -> TcpStream {
    let mut stream = fixture.connect().await;
    stream.write_all(&[&PREFACE[..], &settings()].concat()).await.expect("sent");
    stream
}

/// Takes in all that comes until the connection ends.
pub(super) async fn until_closed(stream: &mut TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

/// The next frame that the server sends: its kind, its stream, and what is in it.
pub(super) async fn read_frame(stream: &mut TcpStream) -> (u8, u32, Vec<u8>) {
    try_read_frame(stream).await.expect("the connection goes on")
}

/// The same; `None`: the connection has ended.
pub(super) async fn try_read_frame(stream: &mut TcpStream) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let [high, middle, low, kind, _, id @ ..] = head;
    let mut payload = vec![0; usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)];
    stream.read_exact(&mut payload).await.ok()?;
    Some((kind, u32::from_be_bytes(id), payload))
}
