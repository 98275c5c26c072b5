//! A small HTTP/1.1 client: one connection, kept alive, one request at a time.

use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer's head is no longer than this, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A connection to a node.
pub(super) struct Client {
    stream: TcpStream,
    host: String,
    request: Vec<u8>,
    received: Vec<u8>,
    body: std::ops::Range<usize>,
    /// The server closes the connection after its last answer.
    ending: bool,
}

/// What matters of an answer's head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) code: u16,
    /// Bytes of the head, its empty line included.
    pub(super) length: usize,
    pub(super) body_length: usize,
    pub(super) close: bool,
}

impl Client {
    pub(super) async fn connect(addr: &str) -> io::Result<Self> {
        // `:8001` is how a node is told to listen on every interface; from here that is this
        // machine.
        let addr = if addr.starts_with(':') { format!("localhost{addr}") } else { addr.to_owned() };
        let stream = TcpStream::connect(&addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: addr, request: Vec::new(), received: Vec::new(), body: 0..0, ending: false })
    }

    /// Whether the connection takes another request.
    pub(super) fn reusable(&self) -> bool {
        !self.ending
    }

    /// Sends a request and takes in its answer. The code; the body is in [`Self::body`].
    pub(super) async fn send(&mut self, method: &str, target: &str, body: &[u8]) -> io::Result<u16> {
        self.request.clear();
        for part in [method, " ", target, " HTTP/1.1\r\nhost: ", &self.host, "\r\n"] {
            self.request.extend_from_slice(part.as_bytes());
        }
        if method != "GET" {
            self.request.extend_from_slice(b"content-length: ");
            self.request.extend_from_slice(body.len().to_string().as_bytes());
            self.request.extend_from_slice(b"\r\n");
        }
        self.request.extend_from_slice(b"\r\n");
        self.request.extend_from_slice(body);
        self.stream.write_all(&self.request).await?;
        self.receive().await
    }

    /// The body of the last answer.
    pub(super) fn body(&self) -> &[u8] {
        &self.received[self.body.clone()]
    }

    async fn receive(&mut self) -> io::Result<u16> {
        self.received.clear();
        let head = loop {
            self.fill().await?;
            if let Some(head) = parse_head(&self.received)? {
                break head;
            }
            if self.received.len() > HEAD_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer's head is too long"));
            }
        };
        let end = head.length + head.body_length;
        while self.received.len() < end {
            self.fill().await?;
        }
        self.body = head.length..end;
        self.ending = head.close;
        Ok(head.code)
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")),
            _ => Ok(()),
        }
    }
}

/// Reads an answer's head, if it is complete.
pub(super) fn parse_head(received: &[u8]) -> io::Result<Option<Head>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&received[..end]).map_err(|_| bad("the answer is not HTTP"))?;
    let mut lines = text.split("\r\n");
    let code = lines
        .next()
        .filter(|line| line.starts_with("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .ok_or_else(|| bad("the answer is not HTTP"))?;
    let mut head = Head { code, length: end + 4, body_length: 0, close: false };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.body_length = value.parse().map_err(|_| bad("the answer's length is no number"))?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(bad("the answer comes in chunks: that is no InfinityStore"));
        } else if name.eq_ignore_ascii_case("connection") {
            head.close = value.eq_ignore_ascii_case("close");
        }
    }
    Ok(Some(head))
}
