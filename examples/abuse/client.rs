//! The well-behaved client: one connection, a write and a read in turn, a hundred times a second.

use crate::attacks::Kind;
use crate::{ROOT, Result, eventually};
use infinitystore::codec::to_base64;
use infinitystore::tls::{ClientTls, PemSet, Stream, WallClock, read_file};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// Between two requests: a client that waits for nothing else would measure itself.
const PAUSE: Duration = Duration::from_millis(10);
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The times of a client's requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Requests that were refused, or took too long.
    pub(crate) failed: usize,
}

pub(crate) struct Client {
    runtime: Runtime,
    port: u16,
    tls: Option<ClientTls>,
    /// The header of its credentials.
    header: String,
    kind: Kind,
}

impl Client {
    pub(crate) fn new(port: u16, authority: Option<&Path>, kind: Kind) -> Result<Self> {
        let tls = match authority {
            None => None,
            Some(path) => {
                let authorities = read_file(path)?;
                let pem = PemSet { authorities, ..PemSet::default() };
                Some(ClientTls::new(&pem, WallClock::of_the_system())?)
            }
        };
        let header = if kind == Kind::WrongPasswords {
            let shown = to_base64(format!("{}:{}", ROOT.0, ROOT.1).as_bytes());
            format!("authorization: Basic {shown}\r\n")
        } else {
            String::new()
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, port, tls, header, kind })
    }

    /// Waits until the node serves, and puts there what the abuse needs.
    pub(crate) fn prepare(&self) -> Result<()> {
        let ask = |method: &'static str, target: &'static str, body: Vec<u8>| {
            self.runtime.block_on(async {
                let mut stream = self.connect().await?;
                let code = self.ask(&mut stream, method, target, &body).await?;
                if code == 200 { Ok(()) } else { Err(format!("{method} {target}: {code}").into()) }
            })
        };
        eventually(|| ask("GET", "/readyz", Vec::new()))?;
        ask("PUT", "/v1/kv/large", vec![b'x'; 1 << 20])?;
        if self.kind == Kind::WrongPasswords {
            let user = format!(r#"{{"name":"{}","password":"{}","roles":["root"]}}"#, ROOT.0, ROOT.1);
            ask("POST", "/v1/auth/users", user.into_bytes())?;
            ask("POST", "/v1/auth/enable", Vec::new())?;
        }
        ask("PUT", "/v1/kv/mine", b"x".to_vec())
    }

    /// Asks for so long.
    pub(crate) fn run(&self, time: Duration) -> Result<Times> {
        self.runtime.block_on(async {
            let (begun, mut times, mut failed) = (Instant::now(), Vec::new(), 0);
            let mut stream = None;
            while begun.elapsed() < time {
                let asked = Instant::now();
                let turn = tokio::time::timeout(PATIENCE, self.turn(&mut stream)).await;
                if let Ok(Ok(())) = turn {
                    times.push(asked.elapsed() / 2);
                } else {
                    failed += 1;
                    stream = None;
                }
                tokio::time::sleep(PAUSE).await;
            }
            times.sort_unstable();
            let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
            Ok(Times { p50: at(50), p99: at(99), failed })
        })
    }

    /// A write and a read.
    async fn turn(&self, stream: &mut Option<Stream<TcpStream>>) -> Result<()> {
        let stream = match stream {
            Some(stream) => stream,
            None => stream.insert(self.connect().await?),
        };
        for (method, body) in [("PUT", &b"x"[..]), ("GET", b"")] {
            let code = self.ask(stream, method, "/v1/kv/mine", body).await?;
            if code != 200 {
                return Err(format!("{method}: {code}").into());
            }
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Stream<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Stream::Plain(stream)),
            Some(tls) => Ok(tls.connect("localhost:1", stream).await?),
        }
    }

    /// One request; the code of its answer.
    async fn ask(
        &self,
        stream: &mut Stream<TcpStream>,
        method: &str,
        target: &str,
        body: &[u8],
    ) -> Result<u16> {
        let (header, length) = (&self.header, body.len());
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\n{header}content-length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        let head_bytes = loop {
            if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut answer).await? == 0 {
                return Err("the connection has ended".into());
            }
        };
        let head = String::from_utf8_lossy(&answer[..head_bytes]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let body_bytes: usize = length.map_or(Ok(0), str::parse)?;
        while answer.len() < head_bytes + body_bytes {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err("the connection has ended".into());
            }
        }
        Ok(head.split(' ').nth(1).ok_or("no code")?.parse()?)
    }
}
