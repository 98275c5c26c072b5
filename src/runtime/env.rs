//! What a node needs of its surroundings. There are two implementations: tokio's and the
//! simulator's (madsim).

use crate::raft::Time;
use crate::replica::{Actions, Replica, StorageEvent};
use crate::runtime::work::{WorkQueue, Worker};
use crate::storage::{Disk, Opened};
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// Sockets, time, tasks, a disk. The driver, the transport and the HTTP server are written against
/// this, and name no clock, socket or thread of their own.
pub trait Env: Clone + Send + Sync + 'static {
    /// A connected byte stream.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// A listening socket.
    type Listener: Listener<Stream = Self::Stream>;
    /// Where the data directory is.
    type Disk: Disk;
    /// Whether workers have threads of their own. If they are tasks, nothing else may start a
    /// thread either.
    const THREADS: bool;

    /// The monotonic clock.
    fn now(&self) -> Time;
    /// The wall clock: microseconds since 1970. It may be wrong, and go back. Tokens end by it, and
    /// lines of the audit log have it; nothing else depends on it.
    fn wall_micros(&self) -> u64;
    /// Waits until `deadline`; returns at once if it has passed. Costs nothing before it is polled.
    fn sleep_until(&self, deadline: Time) -> impl Future<Output = ()> + Send + 'static;
    /// Starts a task.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);
    /// Runs `worker` beside the tasks, until its queue is closed: on a thread of its own in
    /// production ([`work::run_on_thread`](crate::runtime::work::run_on_thread)), as a task in a
    /// simulation ([`run_as_task`](crate::runtime::run_as_task)).
    ///
    /// # Errors
    /// When no thread could be started.
    fn start_worker<W: Worker>(&self, name: &str, worker: W, queue: Arc<WorkQueue<W::Job>>)
    -> io::Result<()>;
    /// Resolves `addr` (`host:port`) now and connects to it, without Nagle's algorithm.
    fn connect(&self, addr: &str) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    /// The same, but not to an address that is good on one link only, however it is written and
    /// whatever a name stands for. A simulation has none.
    fn connect_beyond_link(&self, addr: &str) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        self.connect(addr)
    }
    /// Binds `addr` (`host:port`, or `:port` for every interface) and listens.
    fn listen(&self, addr: &str) -> impl Future<Output = io::Result<Self::Listener>> + Send;
    /// The same, for connections of clients, which may pause for as long as the server allows. A
    /// peer that is silent is given up by the system, where it can.
    fn listen_to_clients(&self, addr: &str) -> impl Future<Output = io::Result<Self::Listener>> + Send {
        self.listen(addr)
    }
    /// The name under which this machine reaches itself, for a node that listens on every interface
    /// and was not told what to advertise.
    fn host_name(&self) -> impl Future<Output = String> + Send;
    /// The disk.
    fn disk(&self) -> &Self::Disk;
    /// A fresh seed: random in production, from the run's seed in a simulation.
    fn seed(&self) -> u64;

    /// A data directory was opened, or has become another member's. For a simulation that checks
    /// what was recovered. Does nothing in production.
    #[inline]
    fn watch_opened(&self, _opened: &Opened) {}
    /// The storage's answer is about to be given to the replica. For a simulation that checks what
    /// is durable.
    #[inline]
    fn watch_stored(&self, _event: &StorageEvent) {}
    /// The replica was stepped, and this is what it wants; none of it has been carried out. For a
    /// simulation that checks it.
    #[inline]
    fn watch_stepped(&self, _replica: &Replica, _actions: &Actions) {}
}

/// A listening socket.
pub trait Listener: Send + 'static {
    /// What it accepts.
    type Stream;
    /// The next connection, with the peer's address for log lines.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, String)>> + Send;
    /// The address it is bound to (the port chosen, if 0 was asked for).
    ///
    /// # Errors
    /// What the system says.
    fn local_addr(&self) -> io::Result<String>;
}

/// `future`'s result, or `None` when `deadline` comes first.
pub async fn until<E: Env, T>(env: &E, deadline: Time, future: impl Future<Output = T>) -> Option<T> {
    let sleep = env.sleep_until(deadline);
    tokio::select! {
        biased;
        value = future => Some(value),
        () = sleep => None,
    }
}
