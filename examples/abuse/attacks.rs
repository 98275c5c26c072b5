//! The kinds of abuse. Each is many tasks that do one thing again and again.

use crate::{ROOT, Result};
use infinitystore::codec::to_base64;
use infinitystore::tls::{ClientTls, WallClock};
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The client has 127.0.0.1.
const FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Connections that are held.
const MANY: usize = 4_000;
/// Connections that work as fast as they can.
const BUSY: usize = 64;
const SECOND: Duration = Duration::from_secs(1);
/// Wrong passwords in all.
const PASSWORDS: u32 = 100_000;

/// A kind of abuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    SlowHeaders,
    SlowBodies,
    UnreadAnswers,
    Idle,
    Churn,
    RapidReset,
    Handshakes,
    WrongPasswords,
    Requests,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::SlowHeaders,
        Self::SlowBodies,
        Self::UnreadAnswers,
        Self::Idle,
        Self::Churn,
        Self::RapidReset,
        Self::Handshakes,
        Self::WrongPasswords,
        Self::Requests,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SlowHeaders => "slow-headers",
            Self::SlowBodies => "slow-bodies",
            Self::UnreadAnswers => "unread-answers",
            Self::Idle => "idle",
            Self::Churn => "churn",
            Self::RapidReset => "rapid-reset",
            Self::Handshakes => "handshakes",
            Self::WrongPasswords => "wrong-passwords",
            Self::Requests => "requests",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self> {
        let names = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("there is no kind {name}; there are {names}").into())
    }

    pub(crate) const fn wants_tls(self) -> bool {
        matches!(self, Self::Handshakes)
    }
}

/// Abuses the node at that port for so long.
pub(crate) fn run(kind: Kind, port: u16, time: Duration) -> Result<()> {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: files.maximum, ..files };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match kind {
            Kind::SlowHeaders => repeat(MANY, move || slow(port, "GET / HTTP/1.1\r\nhost: localhost\r\nx: ")),
            Kind::SlowBodies => repeat(MANY, move || {
                slow(port, "POST /set HTTP/1.1\r\nhost: localhost\r\ncontent-length: 6000000\r\n\r\n")
            }),
            Kind::UnreadAnswers => repeat(MANY / 4, move || unread(port)),
            Kind::Idle => repeat(2 * MANY, move || idle(port)),
            Kind::Churn => repeat(BUSY, move || churn(port)),
            Kind::RapidReset => repeat(BUSY, move || rapid_reset(port)),
            Kind::Handshakes => {
                let hello = hello().await?;
                repeat(4 * BUSY, move || handshake(port, hello.clone()));
            }
            Kind::WrongPasswords => repeat(BUSY, move || wrong_passwords(port)),
            Kind::Requests => repeat(16 * BUSY, move || requests(port)),
        }
        tokio::time::sleep(time).await;
        Ok(())
    })
}

/// `count` tasks that begin anew whenever they end.
fn repeat<F: Future<Output = io::Result<()>> + Send + 'static>(
    count: usize,
    begin: impl Fn() -> F + Clone + Send + 'static,
) {
    for _ in 0..count {
        let begin = begin.clone();
        tokio::spawn(async move {
            loop {
                if begin().await.is_err() {
                    tokio::time::sleep(SECOND / 20).await;
                }
            }
        });
    }
}

async fn connect(port: u16) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((FROM, 0).into())?;
    socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
}

/// Says the beginning, and then a byte a second.
async fn slow(port: u16, beginning: &str) -> io::Result<()> {
    let mut stream = connect(port).await?;
    stream.write_all(beginning.as_bytes()).await?;
    loop {
        tokio::time::sleep(SECOND).await;
        stream.write_all(b"x").await?;
    }
}

/// Asks for large answers, and takes none.
async fn unread(port: u16) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    socket.bind((FROM, 0).into())?;
    let mut stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    stream.write_all("GET /v1/kv/large HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100).as_bytes()).await?;
    loop {
        tokio::time::sleep(SECOND).await;
        // Fails once the node has ended it.
        stream.write_all(b"\r\n").await?;
    }
}

async fn idle(port: u16) -> io::Result<()> {
    let mut stream = connect(port).await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Err(io::ErrorKind::UnexpectedEof.into())
}

async fn churn(port: u16) -> io::Result<()> {
    let mut stream = connect(port).await?;
    stream.write_all(b"GET /v1/kv/mine HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    stream.read_to_end(&mut Vec::new()).await.map(drop)
}

/// Streams of HTTP/2 that are called back at once.
async fn rapid_reset(port: u16) -> io::Result<()> {
    let mut stream = connect(port).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    // GET, http, /v1/kv/mine, localhost; none of it in the table of the connection.
    let head = [&b"\x82\x86\x04\x0b/v1/kv/mine\x01\x09localhost"[..]].concat();
    let mut id: u32 = 1;
    loop {
        let mut frames = Vec::new();
        for _ in 0..64 {
            frames.extend([0, 0, u8::try_from(head.len()).unwrap_or_default(), 1, 5]);
            frames.extend(id.to_be_bytes());
            frames.extend(&head);
            frames.extend([0, 0, 4, 3, 0]);
            frames.extend(id.to_be_bytes());
            frames.extend(8_u32.to_be_bytes());
            id += 2;
        }
        stream.write_all(&frames).await?;
        let _ = stream.try_read(&mut [0; 16 << 10]);
        tokio::task::yield_now().await;
    }
}

/// What a client of TLS says first.
async fn hello() -> Result<Vec<u8>> {
    let (near, mut far) = tokio::io::duplex(16 << 10);
    let pem = unknown_authority()?;
    let tls = ClientTls::new(&pem, WallClock::of_the_system())?;
    tokio::spawn(async move { tls.connect("localhost:1", near).await.map(drop) });
    let mut hello = vec![0; 16 << 10];
    let count = far.read(&mut hello).await?;
    hello.truncate(count);
    Ok(hello)
}

/// An authority that nobody knows: what the node answers is not read.
fn unknown_authority() -> Result<infinitystore::tls::PemSet> {
    use infinitystore::tls::{Lifetime, Order, PemSet, create, read_file};
    let dir = std::env::temp_dir().join(format!("abuse-authority-{}", std::process::id()));
    let lifetime = Lifetime { days: 1, authority_days: 1 };
    let (authority_dir, nodes, clients) = (None, Vec::new(), vec!["nobody".to_owned()]);
    let order = Order { dir: dir.clone(), authority_dir, nodes, clients, lifetime };
    create(&order, &WallClock::of_the_system())?;
    let authorities = read_file(&dir.join("ca.pem"))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(PemSet { authorities, ..PemSet::default() })
}

/// The node answers the hello, which takes it longer than all the rest, and is left alone.
async fn handshake(port: u16, hello: Vec<u8>) -> io::Result<()> {
    let mut stream = connect(port).await?;
    stream.write_all(&hello).await?;
    stream.read(&mut [0; 1024]).await.map(drop)
}

async fn wrong_passwords(port: u16) -> io::Result<()> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = TRIED.fetch_add(1, Ordering::Relaxed);
        if number >= PASSWORDS {
            return std::future::pending().await;
        }
        let shown = to_base64(format!("{}:wrong-{number}", ROOT.0).as_bytes());
        let mut stream = connect(port).await?;
        let request = format!(
            "GET /v1/kv/mine HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Basic {shown}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut Vec::new()).await?;
    }
}

/// As many requests as there may be.
async fn requests(port: u16) -> io::Result<()> {
    let mut stream = connect(port).await?;
    let mut answer = [0; 4096];
    loop {
        stream.write_all(b"GET /v1/kv/mine HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        if stream.read(&mut answer).await? == 0 {
            return Ok(());
        }
    }
}
