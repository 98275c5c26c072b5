//! The surroundings in production: tokio's sockets, clock and tasks, threads of the operating
//! system, a real disk.

use crate::codec::is_link_local;
use crate::raft::Time;
use crate::runtime::env::{Env, Listener};
use crate::runtime::work::{WorkQueue, Worker, run_on_thread};
use crate::storage::Disk;
use rand::TryRngCore;
use rustix::net::sockopt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;

/// A silent connection is probed after this time, …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// … then at this interval, …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// … and given up after this many probes without an answer.
const KEEPALIVE_PROBES: u32 = 3;
/// Addresses of one name that are tried, at most, …
const ADDRESSES_MAX: usize = 8;
/// … each of them a moment after the one before, if that is silent.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Sent bytes that stay without acknowledgement for this time end a connection between nodes,
/// milliseconds. Linux limits by it how long the other end may have no room for more, too. So it is
/// not for clients, which may pause: the server says for how long.
const USER_TIMEOUT_MILLIS: u32 = 10_000;
/// What the kernel takes of an answer before the caller's window has room for it, bytes. A
/// thousand callers that read nothing could fill the kernel's memory for TCP otherwise, and it
/// lets everybody wait then.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// Tokio, on a disk `D`. Has to be used within a tokio runtime.
#[derive(Clone, Debug)]
pub struct TokioEnv<D> {
    disk: D,
    clock: Clock,
}

/// A clock that goes on while the machine sleeps. Tokio's stands still then, and with it a leader's
/// lease, while others elect another.
#[derive(Clone, Copy, Debug)]
enum Clock {
    /// The machine's.
    #[cfg(any(target_os = "linux", test))]
    Machine {
        /// For how long the machine is switched on, asleep or not. Never less than before.
        uptime: fn() -> Duration,
        /// That at time 0.
        origin: Duration,
    },
    /// Tokio's: tests move it, and not every system tells its uptime.
    #[cfg(any(not(target_os = "linux"), test))]
    Tokio { origin: Instant },
}

impl Clock {
    #[cfg(all(target_os = "linux", not(test)))]
    fn new() -> Self {
        Self::of_machine(uptime)
    }

    #[cfg(any(not(target_os = "linux"), test))]
    fn new() -> Self {
        Self::Tokio { origin: Instant::now() }
    }

    #[cfg(any(target_os = "linux", test))]
    fn of_machine(uptime: fn() -> Duration) -> Self {
        Self::Machine { uptime, origin: uptime() }
    }

    fn now(&self) -> Time {
        Time::new(micros(match *self {
            #[cfg(any(target_os = "linux", test))]
            Self::Machine { uptime, origin } => uptime().saturating_sub(origin),
            #[cfg(any(not(target_os = "linux"), test))]
            Self::Tokio { origin } => origin.elapsed(),
        }))
    }

    /// How long it takes until then, if the machine does not sleep meanwhile.
    fn wait(&self, time: Time) -> Duration {
        Duration::from_micros(time.get().saturating_sub(self.now().get()))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(all(target_os = "linux", not(test)))]
fn uptime() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

impl<D: Disk> TokioEnv<D> {
    /// With data on `disk`; its clock starts now.
    pub fn new(disk: D) -> Self {
        Self { disk, clock: Clock::new() }
    }
}

impl<D: Disk> Env for TokioEnv<D> {
    type Stream = TcpStream;
    type Listener = TokioListener;
    type Disk = D;
    const THREADS: bool = true;

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn wall_micros(&self) -> u64 {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since_1970.map_or(0, micros)
    }

    fn sleep_until(&self, deadline: Time) -> impl Future<Output = ()> + Send + 'static {
        let wait = self.clock.wait(deadline);
        async move {
            match Instant::now().checked_add(wait) {
                // Tokio rounds up to the next millisecond.
                Some(_) if wait.is_zero() => {}
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    fn start_worker<W: Worker>(
        &self,
        name: &str,
        worker: W,
        queue: Arc<WorkQueue<W::Job>>,
    ) -> io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned());
        let run = move || {
            if W::IS_PATIENT {
                lower_priority();
            }
            run_on_thread(worker, &queue);
        };
        thread.spawn(run).map(drop)
    }

    async fn connect(&self, addr: &str) -> io::Result<TcpStream> {
        connect_to(lookup_host(addr).await?).await
    }

    async fn connect_beyond_link(&self, addr: &str) -> io::Result<TcpStream> {
        let (of_link, beyond): (Vec<_>, Vec<_>) =
            lookup_host(addr).await?.partition(|addr| is_link_local(addr.ip()));
        if beyond.is_empty() && !of_link.is_empty() {
            let what = "it is an address of one link, where no node is called";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        connect_to(beyond.into_iter()).await
    }

    async fn listen(&self, addr: &str) -> io::Result<TokioListener> {
        Ok(TokioListener { listener: bind(addr).await?, is_of_clients: false })
    }

    async fn listen_to_clients(&self, addr: &str) -> io::Result<TokioListener> {
        Ok(TokioListener { listener: bind(addr).await?, is_of_clients: true })
    }

    async fn host_name(&self) -> String {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let resolves = !name.is_empty() && lookup_host((name.as_str(), 0)).await.is_ok();
        if !resolves {
            warn!(
                %name,
                "this machine's name cannot be looked up: the node calls itself 127.0.0.1 where no address is given \
                 (`--advertise-raft-addr`, `--advertise-http-addr`)"
            );
        }
        if resolves { name } else { "127.0.0.1".to_owned() }
    }

    fn disk(&self) -> &D {
        &self.disk
    }

    fn seed(&self) -> u64 {
        rand::rngs::OsRng.try_next_u64().expect("the operating system's random generator always answers")
    }
}

async fn bind(addr: &str) -> io::Result<TcpListener> {
    match addr.strip_prefix(':') {
        // Both families if the machine has them, IPv4 alone if it has no IPv6.
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind(format!("0.0.0.0:{port}")).await
            }
            bound => bound,
        },
        None => TcpListener::bind(addr).await,
    }
}

async fn connect_to(addrs: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let stream = first_to_answer(addrs.take(ADDRESSES_MAX).collect(), TcpStream::connect).await?;
    tune_between_nodes(&stream)?;
    Ok(stream)
}

/// A listening TCP socket.
#[derive(Debug)]
pub struct TokioListener {
    listener: TcpListener,
    /// Its connections are of clients, and not of nodes.
    is_of_clients: bool,
}

impl Listener for TokioListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, String)> {
        loop {
            let (stream, from) = self.listener.accept().await?;
            // A connection that is gone already is no failure of the listener.
            let tuned = if self.is_of_clients { tune(&stream) } else { tune_between_nodes(&stream) };
            if tuned.is_ok() {
                bound_unsent(&stream);
                return Ok((stream, from.to_string()));
            }
        }
    }

    fn local_addr(&self) -> io::Result<String> {
        Ok(self.listener.local_addr()?.to_string())
    }
}

/// Connects to each of the addresses of one name until one answers. The next one is tried when one
/// fails, and after a moment in any case, while the others may still answer.
async fn first_to_answer<S, F>(addrs: Vec<SocketAddr>, connect: impl Fn(SocketAddr) -> F) -> io::Result<S>
where
    S: Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let mut rest = addrs.into_iter();
    let mut attempts = JoinSet::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match rest.next() {
            Some(addr) => drop(attempts.spawn(connect(addr))),
            None if attempts.is_empty() => return Err(failed),
            None => {}
        }
        let ended = tokio::select! {
            biased;
            ended = attempts.join_next() => ended,
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if rest.len() > 0 => None,
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            // Nobody listens there only if that is so at each address.
            Some(Ok(Err(error))) if error.kind() != io::ErrorKind::ConnectionRefused => failed = error,
            Some(Ok(Err(error))) if failed.kind() == io::ErrorKind::NotFound => failed = error,
            Some(_) | None => {}
        }
    }
}

/// Switches Nagle's algorithm off, and lets the kernel notice a peer that is gone without a word.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}

/// Lets the kernel notice a node that is gone while something is on its way to it, too.
fn tune_between_nodes(stream: &TcpStream) -> io::Result<()> {
    tune(stream)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, USER_TIMEOUT_MILLIS)?;
    Ok(())
}

/// Lets the kernel keep no more than [`UNSENT_BYTES_MAX`], beside what is on its way to the caller.
/// Not every system can.
fn bound_unsent(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX) {
        tracing::debug!(%error, "what a caller does not take fills the kernel's buffers");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

/// The calling thread gets a third of the processor time of its competitors, as long as there are
/// any. Only Linux keeps priorities per thread.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        const NICE: i32 = 5;
        let lowered = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
        if let Err(error) = lowered {
            tracing::debug!(%error, "a worker keeps its priority");
        }
    }
}

#[cfg(test)]
mod tests;
