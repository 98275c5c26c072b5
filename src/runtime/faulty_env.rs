//! Surroundings for tests: Tokio's, with faults that it does not have by itself.

use crate::raft::{LogIndex, Time};
use crate::replica::{Actions, Replica};
use crate::runtime::env::Env;
use crate::runtime::tokio_env::{TokioEnv, TokioListener};
use crate::runtime::work::{WorkQueue, Worker};
use crate::storage::MemoryDisk;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tokio's surroundings, with faults.
#[derive(Clone)]
pub(crate) struct FaultyEnv {
    pub(crate) env: TokioEnv<MemoryDisk>,
    /// The driver panics once it has committed so much: as an invariant that fails would have it.
    pub(crate) panics_at: Option<LogIndex>,
    /// The system has no thread to give.
    pub(crate) has_no_thread: Arc<AtomicBool>,
}

impl FaultyEnv {
    /// No fault yet.
    pub(crate) fn new(disk: MemoryDisk) -> Self {
        Self { env: TokioEnv::new(disk), panics_at: None, has_no_thread: Arc::default() }
    }
}

impl Env for FaultyEnv {
    type Stream = tokio::net::TcpStream;
    type Listener = TokioListener;
    type Disk = MemoryDisk;
    const THREADS: bool = true;

    fn now(&self) -> Time {
        self.env.now()
    }
    fn wall_micros(&self) -> u64 {
        self.env.wall_micros()
    }
    fn sleep_until(&self, deadline: Time) -> impl Future<Output = ()> + Send + 'static {
        self.env.sleep_until(deadline)
    }
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.env.spawn(task);
    }
    fn start_worker<W: Worker>(
        &self,
        name: &str,
        worker: W,
        queue: Arc<WorkQueue<W::Job>>,
    ) -> io::Result<()> {
        if self.has_no_thread.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.env.start_worker(name, worker, queue)
    }
    async fn connect(&self, addr: &str) -> io::Result<Self::Stream> {
        self.env.connect(addr).await
    }
    async fn listen(&self, addr: &str) -> io::Result<TokioListener> {
        self.env.listen(addr).await
    }
    async fn listen_to_clients(&self, addr: &str) -> io::Result<TokioListener> {
        self.env.listen_to_clients(addr).await
    }
    async fn host_name(&self) -> String {
        self.env.host_name().await
    }
    fn disk(&self) -> &MemoryDisk {
        self.env.disk()
    }
    fn seed(&self) -> u64 {
        self.env.seed()
    }
    fn watch_stepped(&self, replica: &Replica, _actions: &Actions) {
        let bug = self.panics_at.is_some_and(|at| replica.raft().commit_index() >= at);
        assert!(!bug, "a bug of the core");
    }
}
