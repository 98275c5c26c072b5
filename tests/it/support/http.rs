//! HTTP/1.1 over a bare socket: what is sent is what the test says, what comes back is what the
//! node sent.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer takes no longer, or the connection is given up. Longer than a node's own request
/// time-out.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Status and body, for comparisons to the byte.
    pub(crate) fn pair(&self) -> (u16, &str) {
        (self.status, &self.body)
    }
}

/// A connection that is kept for several requests.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub(crate) fn request(&mut self, method: &str, target: &str, body: &str) -> io::Result<Response> {
        let length = body.len();
        let request =
            format!("{method} {target} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{body}");
        self.raw(request.as_bytes())
    }

    /// Sends bytes as they are and reads one answer.
    pub(crate) fn raw(&mut self, request: &[u8]) -> io::Result<Response> {
        let sent = self.stream.get_mut().write_all(request);
        // A request that was refused early is answered though it could not be sent to its end.
        self.read_response().or_else(|error| sent.and(Err(error)))
    }

    fn read_response(&mut self) -> io::Result<Response> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let line = self.read_line()?;
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| bad(&format!("no status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").ok_or_else(|| bad("a header without a colon"))?;
            headers.push((name.to_lowercase(), value.to_owned()));
        }
        let mut response = Response { status, headers, body: String::new() };
        let length: usize =
            response.header("content-length").unwrap_or("0").parse().map_err(|_| bad("length"))?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        response.body = String::from_utf8(body).map_err(|_| bad("the body is not UTF-8"))?;
        Ok(response)
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches("\r\n").to_owned())
    }
}

/// One request on a connection of its own.
pub(crate) fn call(port: u16, method: &str, target: &str, body: &str) -> io::Result<Response> {
    Connection::open(port)?.request(method, target, body)
}
