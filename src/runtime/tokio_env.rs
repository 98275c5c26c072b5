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
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::Instant;

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
/// A shorter sleep of the machine does not count: its two clocks are not read at once.
const SLEEP_MIN_MICROS: u64 = 1_000;
/// Sent bytes that stay without acknowledgement for this time end the connection, milliseconds.
const USER_TIMEOUT_MILLIS: u32 = 10_000;

/// Tokio, on a disk `D`. Has to be used within a tokio runtime.
#[derive(Clone, Debug)]
pub struct TokioEnv<D> {
    disk: D,
    clock: Clock,
}

/// A clock that goes on while the machine sleeps. Tokio's stands still then, and with it a leader's
/// lease, while others elect another.
#[derive(Clone, Debug)]
struct Clock {
    /// Time 0.
    origin: Instant,
    /// For how long the machine has slept since it was switched on. May say a little too little.
    machine_slept: fn() -> Duration,
    /// The same at time 0, and the most that was said since, microseconds.
    slept_before: u64,
    slept_until_now: Arc<AtomicU64>,
}

impl Clock {
    fn new(machine_slept: fn() -> Duration) -> Self {
        let slept_before = micros(machine_slept().max(machine_slept()).max(machine_slept()));
        let slept_until_now = Arc::new(AtomicU64::new(slept_before));
        Self { origin: Instant::now(), machine_slept, slept_before, slept_until_now }
    }

    /// For how long the machine has slept since time 0. Never less than before.
    fn slept(&self) -> Duration {
        let (said, known) = (micros((self.machine_slept)()), self.slept_until_now.load(Ordering::Relaxed));
        let slept = if said > known + SLEEP_MIN_MICROS {
            self.slept_until_now.fetch_max(said, Ordering::Relaxed).max(said)
        } else {
            known
        };
        Duration::from_micros(slept - self.slept_before)
    }

    fn now(&self) -> Time {
        Time::new(micros(self.origin.elapsed() + self.slept()))
    }

    /// When tokio has to be asked to wake somebody, if the machine does not sleep meanwhile.
    /// `None`: never.
    fn instant(&self, time: Time) -> Option<Instant> {
        self.origin.checked_add(Duration::from_micros(time.get()).saturating_sub(self.slept()))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// For how long the machine has slept since it was switched on.
#[cfg(target_os = "linux")]
fn machine_slept() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    // In this order: what passes between the two readings does not count as sleep.
    let [with_sleep, without] = [ClockId::Boottime, ClockId::Monotonic]
        .map(|clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default());
    with_sleep.saturating_sub(without)
}

/// Other systems do not say.
#[cfg(not(target_os = "linux"))]
fn machine_slept() -> Duration {
    Duration::ZERO
}

impl<D: Disk> TokioEnv<D> {
    /// With data on `disk`; its clock starts now.
    pub fn new(disk: D) -> Self {
        Self { disk, clock: Clock::new(machine_slept) }
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
        let deadline = self.clock.instant(deadline);
        async move {
            match deadline {
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
        let listener = match addr.strip_prefix(':') {
            // Both families if the machine has them, IPv4 alone if it has no IPv6.
            Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
                Ok(listener) => listener,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
                Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await?,
            },
            None => TcpListener::bind(addr).await?,
        };
        Ok(TokioListener { listener })
    }

    async fn host_name(&self) -> String {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let resolves = !name.is_empty() && lookup_host((name.as_str(), 0)).await.is_ok();
        if resolves { name } else { "127.0.0.1".to_owned() }
    }

    fn disk(&self) -> &D {
        &self.disk
    }

    fn seed(&self) -> u64 {
        rand::rngs::OsRng.try_next_u64().expect("the operating system's random generator always answers")
    }
}

async fn connect_to(addrs: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let stream = first_to_answer(addrs.take(ADDRESSES_MAX).collect(), TcpStream::connect).await?;
    tune(&stream)?;
    Ok(stream)
}

/// A listening TCP socket.
#[derive(Debug)]
pub struct TokioListener {
    listener: TcpListener,
}

impl Listener for TokioListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, String)> {
        loop {
            let (stream, from) = self.listener.accept().await?;
            // A connection that is gone already is no failure of the listener.
            if tune(&stream).is_ok() {
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
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, USER_TIMEOUT_MILLIS)?;
    Ok(())
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
