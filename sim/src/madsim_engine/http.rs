//! An HTTP client of the simulator's own. It sees every byte of an answer, and follows no library's
//! habits.

#[cfg(test)]
mod tests;

use crate::madsim_engine::certificates;
use crate::madsim_engine::connections::{FarEnd, SimStream};
use crate::madsim_engine::listening::connect;
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::Shared;
use crate::record::violation::Violation;
use crate::schedule::SECOND;
use bytes::{Buf, Bytes, BytesMut};
use infinitystore::tls::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// No answer has a longer head.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// An answer that takes longer never comes.
pub(super) const PATIENCE_MICROS: u64 = 40 * SECOND;

/// Taken from a connection at once, about.
const READ_BYTES: usize = 8 << 10;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// `GET`, say.
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    /// The body, if there is one.
    pub body: Option<Vec<u8>>,
    /// Whether its length is told beforehand, or it comes in chunks.
    pub chunked: bool,
    /// Further headers.
    pub headers: Vec<(&'static str, Vec<u8>)>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The status code.
    pub code: u16,
    /// Names in small letters, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The connection broke, or was closed between two answers.
    Broken,
    /// The client's time is up.
    Late,
}

/// A connection to a node.
pub(super) struct Http {
    shared: Shared,
    stream: Stream<SimStream>,
    far_end: FarEnd,
    read: BytesMut,
    /// The machine.
    pub slot: usize,
    /// Its process.
    pub life: u32,
    /// There were too many connections when this one was made.
    met_full: bool,
    /// What was asked and not answered: its methods, routes, and when.
    waiting: std::collections::VecDeque<(&'static str, &'static str, u64)>,
    /// Whether an answer has come.
    spoken: bool,
    /// Whether the node has said that it will close.
    pub closing: bool,
}

impl Request {
    /// A request without a body.
    pub(super) fn get(target: impl Into<String>) -> Self {
        Self { method: "GET", target: target.into(), body: None, chunked: false, headers: Vec::new() }
    }

    /// A request with a body.
    pub(super) fn post(target: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { method: "POST", body: Some(body.into()), ..Self::get(target) }
    }

    fn encode(&self, slot: usize, token: Option<&str>) -> Vec<u8> {
        let mut bytes =
            format!("{} {} HTTP/1.1\r\nHost: m{slot}:8001\r\n", self.method, self.target).into_bytes();
        let shows = |(name, _): &(&str, Vec<u8>)| *name == "authorization";
        if let Some(token) = token.filter(|_| !self.headers.iter().any(shows)) {
            bytes.extend_from_slice(format!("authorization: Bearer {token}\r\n").as_bytes());
        }
        // An empty one: nobody asks.
        let is_nobody = |(name, value): &&(&str, Vec<u8>)| *name == "authorization" && value.is_empty();
        for (name, value) in self.headers.iter().filter(|header| !is_nobody(header)) {
            bytes.extend_from_slice(format!("{name}: ").as_bytes());
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        match &self.body {
            None => bytes.extend_from_slice(b"\r\n"),
            Some(body) if self.chunked && !body.is_empty() => {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for piece in body.chunks(body.len().div_ceil(3)) {
                    bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    bytes.extend_from_slice(piece);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
            Some(body) => {
                bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(body);
            }
        }
        bytes
    }

    /// The route, as the node's metrics call it.
    pub(super) fn route(&self) -> &'static str {
        route_of(self.target.split('?').next().unwrap_or(""))
    }
}

/// The routes that have no part that may be anything.
const ROUTES: [&str; 16] = [
    "/set",
    "/get",
    "/join",
    "/v1/status",
    "/livez",
    "/readyz",
    "/metrics",
    "/",
    "/v1/kv",
    "/v1/txn",
    "/v1/leases",
    "/v1/watch",
    "/v1/compact",
    "/v1/settings",
    "/v1/snapshot",
    "/v1/alarms",
];

/// Those that have one: what stands before it, whether it takes slashes, what stands behind it.
const OPEN_ROUTES: [(&str, bool, &str, &str); 7] = [
    ("/v1/kv/", true, "", "/v1/kv/{key}"),
    ("/v1/incr/", true, "", "/v1/incr/{key}"),
    ("/v1/leases/", false, "/keepalive", "/v1/leases/{id}/keepalive"),
    ("/v1/leases/", false, "", "/v1/leases/{id}"),
    ("/v1/alarms/", false, "", "/v1/alarms/{id}"),
    ("/v1/locks/", true, "", "/v1/locks/{name}"),
    ("/v1/elections/", true, "", "/v1/elections/{name}"),
];

fn route_of(path: &str) -> &'static str {
    if let Some(route) = ROUTES.into_iter().find(|route| *route == path) {
        return route;
    }
    let is_it = |(before, rest, after, _): &(&str, bool, &str, &str)| {
        let open = path.strip_prefix(before).and_then(|path| path.strip_suffix(after));
        open.is_some_and(|open| *rest || !open.contains('/'))
    };
    OPEN_ROUTES.into_iter().find(is_it).map_or("other", |(.., name)| name)
}

impl Answer {
    /// A header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(super) fn text(&self) -> String {
        match std::str::from_utf8(&self.body) {
            Ok(text) => text.to_owned(),
            Err(_) => String::from_utf8_lossy(&self.body).into_owned(),
        }
    }
}

impl Http {
    /// A new connection to a machine's HTTP port, if it is there in time.
    pub(super) async fn open(shared: &Shared, slot: usize, give_up: u64) -> Option<Self> {
        Self::open_as(shared, slot, give_up, None).await
    }

    /// The same. Where the port speaks TLS, the client shows the certificate of this number.
    pub(super) async fn open_as(
        shared: &Shared,
        slot: usize,
        give_up: u64,
        certificate: Option<usize>,
    ) -> Option<Self> {
        if !shared.lock().knows_rights(slot) {
            return None;
        }
        let addr = shared.lock().machines[slot].http_addr();
        let stream = within(give_up, connect(shared, None, &addr)).await?.ok()?;
        let (life, met_full) = (stream.far_life()?, stream.met_full());
        shared.lock().mark("http connection");
        shared.lock().book.connected((slot, life));
        let (read, waiting) = (BytesMut::new(), std::collections::VecDeque::new());
        let (far_end, is_secured) = (stream.far_end(), shared.lock().has_secured_clients());
        let stream = if is_secured {
            within(give_up, certificates::as_client(&addr, stream, certificate)).await?.ok()?
        } else {
            Stream::Plain(stream)
        };
        let shared = shared.clone();
        Some(Self {
            shared,
            stream,
            far_end,
            read,
            slot,
            life,
            met_full,
            waiting,
            spoken: false,
            closing: false,
        })
    }

    /// Whether another request may be sent to `slot` on it, as far as a client can tell.
    pub(super) fn is_usable(&self, slot: usize) -> bool {
        let is_secured = matches!(self.stream, Stream::Tls(_));
        self.slot == slot && !self.closing && !self.far_end.is_over(is_secured)
    }

    /// Whether the process that it was made to still runs: a machine without power does not say
    /// that its has ended.
    pub(super) fn is_to_present_process(&self) -> bool {
        self.shared.lock().machines[self.slot].life == self.life
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&mut self, request: &Request, give_up: u64) -> Result<Answer, NoAnswer> {
        self.send(request, give_up).await?;
        self.receive(give_up).await
    }

    /// Asks.
    pub(super) async fn send(&mut self, request: &Request, give_up: u64) -> Result<(), NoAnswer> {
        let token = self.shared.lock().token;
        let bytes = request.encode(self.slot, token);
        self.send_bytes(request.method, request.route(), &bytes, give_up).await
    }

    /// Asks with exactly these bytes, which may be only a part of a request.
    pub(super) async fn send_bytes(
        &mut self,
        method: &'static str,
        route: &'static str,
        bytes: &[u8],
        give_up: u64,
    ) -> Result<(), NoAnswer> {
        self.waiting.push_back((method, route, now()));
        self.shared.lock().book.sent(self.slot, self.life, route);
        let written = within(give_up, async {
            self.stream.write_all(bytes).await?;
            // With TLS the end of it may wait to be encrypted, or for room.
            self.stream.flush().await
        })
        .await;
        written.ok_or(NoAnswer::Late)?.map_err(|_| NoAnswer::Broken)
    }

    /// Asks, and waits until the answer begins to come.
    pub(super) async fn begin(&mut self, request: &Request, give_up: u64) -> Result<(), NoAnswer> {
        self.send(request, give_up).await?;
        self.read.reserve(READ_BYTES);
        match within(give_up, self.stream.read_buf(&mut self.read)).await {
            None => Err(NoAnswer::Late),
            Some(Err(_) | Ok(0)) => Err(NoAnswer::Broken),
            Some(Ok(_)) => Ok(()),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not come in time, or something else does.
    pub(super) async fn closed(&mut self, give_up: u64) -> Result<(), NoAnswer> {
        match within(give_up, self.stream.read_buf(&mut self.read)).await {
            None => Err(NoAnswer::Late),
            Some(Err(_) | Ok(0)) => Ok(()),
            Some(Ok(_)) => Err(NoAnswer::Broken),
        }
    }

    /// Waits for the next answer.
    pub(super) async fn receive(&mut self, give_up: u64) -> Result<Answer, NoAnswer> {
        let (method, route, asked) = self.waiting.pop_front().ok_or(NoAnswer::Broken)?;
        let answer = loop {
            match parse(&mut self.read, method == "HEAD") {
                Ok(Some(answer)) => break answer,
                Ok(None) => {}
                Err(what) => {
                    let what = format!("machine {} answered {method} {route}: {what}", self.slot);
                    self.shared.lock().judge(Err(Violation { check: "answers are HTTP", what }));
                    return Err(NoAnswer::Broken);
                }
            }
            self.read_more(give_up).await?;
        };
        self.note(&answer, route, asked);
        Ok(answer)
    }

    /// Waits for the head of an answer that streams; what it sends is then read with
    /// [`Self::next_piece`]. An answer that does not stream comes whole.
    pub(super) async fn receive_stream(&mut self, give_up: u64) -> Result<Answer, NoAnswer> {
        loop {
            match parse_head(&self.read) {
                Ok(Some(((code, headers), end))) => {
                    if !headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked")
                    {
                        return self.receive(give_up).await;
                    }
                    self.read.advance(end);
                    let (_, route, asked) = self.waiting.pop_front().ok_or(NoAnswer::Broken)?;
                    let answer = Answer { code, headers, body: Bytes::new() };
                    self.note(&answer, route, asked);
                    self.closing = true;
                    return Ok(answer);
                }
                Ok(None) => {}
                Err(_) => return self.receive(give_up).await,
            }
            self.read_more(give_up).await?;
        }
    }

    /// The next piece of an answer that streams; `None`: it has ended.
    pub(super) async fn next_piece(&mut self, give_up: u64) -> Result<Option<Bytes>, NoAnswer> {
        loop {
            if let Some(end) = self.read.windows(2).position(|bytes| bytes == b"\r\n") {
                let length = std::str::from_utf8(&self.read[..end]).ok();
                let Some(length) = length.and_then(|text| usize::from_str_radix(text, 16).ok()) else {
                    let what = format!("machine {} sends a piece of no length", self.slot);
                    self.shared.lock().judge(Err(Violation { check: "answers are HTTP", what }));
                    return Err(NoAnswer::Broken);
                };
                if self.read.len() >= end + 4 + length {
                    self.read.advance(end + 2);
                    let piece = self.read.split_to(length).freeze();
                    self.read.advance(2);
                    return Ok((length > 0).then_some(piece));
                }
            }
            self.read_more(give_up).await?;
        }
    }

    async fn read_more(&mut self, give_up: u64) -> Result<(), NoAnswer> {
        self.read.reserve(READ_BYTES);
        match within(give_up, self.stream.read_buf(&mut self.read)).await {
            None => Err(NoAnswer::Late),
            Some(Err(_) | Ok(0)) => Err(NoAnswer::Broken),
            Some(Ok(_)) => Ok(()),
        }
    }

    /// An answer has come.
    fn note(&mut self, answer: &Answer, route: &'static str, asked: u64) {
        self.closing |= answer.header("connection") == Some("close");
        // A client that is turned away at the door is counted there.
        let mut world = self.shared.lock();
        let process = (self.slot, self.life);
        if !std::mem::replace(&mut self.spoken, true) {
            world.book.spoke(process);
        }
        if answer.code == 503 && answer.text().contains("too many connections") {
            world.book.was_turned_away(process);
            if !self.met_full {
                let what = format!(
                    "machine {}: {:?}, and there were not so many when the connection was made",
                    self.slot,
                    answer.text()
                );
                world.judge(Err(Violation { check: "a refusal has its reason", what }));
            }
        } else {
            world.book.answered(self.slot, self.life, route, answer.code);
            world.book.took(process, route, now() - asked);
            if answer.code == 503 && answer.text().contains("too many bytes of requests") {
                world.book.had_no_room(process);
            }
        }
    }
}

/// The head of an answer.
type Head = (u16, Vec<(String, String)>);

/// The head at the beginning of what was read, and where it ends; `None`: it is not complete.
fn parse_head(read: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        let is_long = read.len() > HEAD_BYTES_MAX;
        return if is_long { Err("its head has no end".to_owned()) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&read[..end]).map_err(|error| error.to_string())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or("");
    let code = status.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|it| it.parse().ok());
    let code = code.ok_or_else(|| format!("its first line is {status:?}"))?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or_else(|| format!("a header is {line:?}"))?;
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    Ok(Some(((code, headers), end + 4)))
}

/// Takes an answer off the beginning of what was read; `None`: it is not complete.
fn parse(read: &mut BytesMut, is_head: bool) -> Result<Option<Answer>, String> {
    let Some(((code, headers), end)) = parse_head(read)? else { return Ok(None) };
    let mut lengths = headers.iter().filter(|(name, _)| name == "content-length");
    let length = lengths.next().and_then(|(_, value)| value.parse::<usize>().ok());
    let length = match length {
        // It cannot have a body.
        None if code == 304 => 0,
        found => found.ok_or_else(|| format!("it has no length: {code} {headers:?}"))?,
    };
    if lengths.next().is_some() {
        return Err("it has two lengths".to_owned());
    }
    let body = if is_head { 0 } else { length };
    if read.len() < end + body {
        return Ok(None);
    }
    read.advance(end);
    Ok(Some(Answer { code, headers, body: read.split_to(body).freeze() }))
}

/// Asks on a connection of its own for something that is answered at once.
pub(super) async fn ask(shared: &Shared, slot: usize, request: &Request) -> Result<Answer, String> {
    let give_up = now() + PATIENCE_MICROS;
    let connection = Http::open(shared, slot, give_up).await;
    let mut connection = connection.ok_or_else(|| format!("machine {slot} takes no connection"))?;
    let answer = connection.ask(request, give_up).await;
    answer.map_err(|why| {
        format!("machine {slot} does not answer {} {}: {why:?}", request.method, request.target)
    })
}

/// `future`'s result, unless the time is up first.
pub(super) async fn within<T>(deadline: u64, future: impl Future<Output = T>) -> Option<T> {
    if now() >= deadline {
        return None;
    }
    tokio::select! {
        biased;
        value = future => Some(value),
        () = sleep_until(deadline) => None,
    }
}
