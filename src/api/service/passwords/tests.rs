use crate::api::service::passwords::{Busy, PasswordCost, Passwords};
use crate::raft::Time;
use crate::runtime::work::{WorkQueue, Worker};
use crate::runtime::{Env, TokioEnv, TokioListener};
use crate::storage::MemoryDisk;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tokio's surroundings, in which the system may have no thread to give.
#[derive(Clone)]
struct Short(TokioEnv<MemoryDisk>, Arc<AtomicBool>);

impl Env for Short {
    type Stream = tokio::net::TcpStream;
    type Listener = TokioListener;
    type Disk = MemoryDisk;
    const THREADS: bool = true;

    fn now(&self) -> Time {
        self.0.now()
    }
    fn wall_micros(&self) -> u64 {
        self.0.wall_micros()
    }
    fn sleep_until(&self, deadline: Time) -> impl Future<Output = ()> + Send + 'static {
        self.0.sleep_until(deadline)
    }
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }
    fn start_worker<W: Worker>(
        &self,
        name: &str,
        worker: W,
        queue: Arc<WorkQueue<W::Job>>,
    ) -> io::Result<()> {
        if self.1.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.start_worker(name, worker, queue)
    }
    async fn connect(&self, addr: &str) -> io::Result<Self::Stream> {
        self.0.connect(addr).await
    }
    async fn listen(&self, addr: &str) -> io::Result<TokioListener> {
        self.0.listen(addr).await
    }
    async fn host_name(&self) -> String {
        self.0.host_name().await
    }
    fn disk(&self) -> &MemoryDisk {
        self.0.disk()
    }
    fn seed(&self) -> u64 {
        self.0.seed()
    }
}

#[tokio::test]
async fn without_a_thread_nobody_waits_for_ever() {
    let is_short = Arc::new(AtomicBool::new(true));
    let env = Short(TokioEnv::new(MemoryDisk::new()), is_short.clone());
    let passwords = Passwords::new(PasswordCost { memory_kib: 8, passes: 1 });
    assert_eq!(passwords.hash(&env, b"secret".to_vec()).await, Err(Busy));
    assert_eq!(passwords.is_right(&env, b"secret", None).await, Err(Busy));
    // It has not given up for ever, and the place in the queue is free again.
    is_short.store(false, Ordering::Relaxed);
    for _ in 0..100 {
        let hash = passwords.hash(&env, b"secret".to_vec()).await.unwrap();
        assert_eq!(passwords.is_right(&env, b"secret", Some(&hash)).await, Ok(true));
    }
}

#[tokio::test]
async fn a_password_is_remembered_by_the_hash_that_it_was_compared_with() {
    let env = TokioEnv::new(MemoryDisk::new());
    let passwords = Passwords::new(PasswordCost { memory_kib: 8, passes: 1 });
    let first = passwords.hash(&env, b"secret".to_vec()).await.unwrap();
    let again = passwords.hash(&env, b"secret".to_vec()).await.unwrap();
    passwords.remember(&env, 7, &first, b"secret");
    assert!(passwords.is_remembered(7, &first, b"secret"));
    assert!(!passwords.is_remembered(7, &first, b"secret2"));
    assert!(!passwords.is_remembered(7, &again, b"secret"), "it was changed, to the same one");
    assert!(!passwords.is_remembered(8, &first, b"secret"), "another user");
}
