use crate::codec::FeatureLevels;
use crate::peer::address_book::{AddressBook, Me};
use crate::peer::discovery::Discovery;
use crate::peer::greeting::{Greeting, SpokenLevels};
use crate::peer::hello::{Hello, HelloAnswer, PeerHello, Starts};
use crate::peer::link::{Link, write_while_bytes_flow};
use crate::peer::options::TransportOptions;
use crate::raft::{ClusterId, Incarnation, Member, Membership, NodeId, StoreId, Time};
use crate::runtime::work::{WorkQueue, Worker};
use crate::runtime::{Env, Listener, Metrics, TokioEnv};
use crate::storage::MemoryDisk;
use std::future::{Future, pending};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

fn member(number: u64, raft_addr: &str) -> (NodeId, Member) {
    let (name, raft_addr, http_addr) = (format!("n{number}"), raft_addr.to_owned(), "x:1".to_owned());
    (NodeId::new(number), Member { name, raft_addr, http_addr, store_id: StoreId(u128::from(number)) })
}

fn book_of_a_node_with_a_peer_at(addr: &str) -> AddressBook {
    let members = [member(1, "127.0.0.1:1"), member(2, addr)];
    let membership = Membership {
        voters: [NodeId::new(1), NodeId::new(2)].into(),
        outgoing: None,
        learners: [].into(),
        members: members.into(),
        next_member_id: NodeId::new(3),
    };
    let me = Me {
        cluster: ClusterId(5),
        id: NodeId::new(1),
        store: StoreId(1),
        starts: Starts::new(Incarnation::new(1), vec![1]),
        name: "n1".to_owned(),
        raft_addr: "127.0.0.1:1".to_owned(),
        http_addr: "x:1".to_owned(),
        speaks: FeatureLevels::OF_THIS_RELEASE,
    };
    AddressBook::new(me, membership)
}

/// A node of this release lets a member in.
async fn let_in(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let here = SpokenLevels::of_any_cluster(FeatureLevels::OF_THIS_RELEASE);
    let greeting = Greeting::read(stream, here.speaks).await.unwrap();
    assert!(matches!(greeting.hello, Hello::Peer(_)));
    HelloAnswer::Accepted.write(stream, greeting.manner(here)).await.unwrap();
}

#[tokio::test]
async fn a_peer_whose_process_ends_right_after_it_let_this_node_in_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let (_queue_in, queue) = mpsc::channel(1);
    let (found_in, mut found) = mpsc::channel(4);
    let link = Link {
        env: TokioEnv::new(MemoryDisk::new()),
        address_book: Arc::new(book_of_a_node_with_a_peer_at(&addr)),
        to: NodeId::new(2),
        queue,
        options: TransportOptions::default(),
        metrics: Metrics::new(),
        discoveries: found_in,
    };
    let running = tokio::spawn(link.run());
    let (mut stream, _) = listener.accept().await.unwrap();
    let_in(&mut stream).await;
    drop(listener);
    drop(stream);
    let found = found.recv().await;
    assert!(matches!(found, Some(Discovery::PeerGone { peer }) if peer == NodeId::new(2)), "{found:?}");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_is_kept_while_bytes_flow_and_a_stuck_one_is_not() {
    let env = TokioEnv::new(MemoryDisk::new());
    let bytes = vec![7; 1 << 20];
    let (mut here, mut there) = tokio::io::duplex(64 << 10);
    // Takes 48 s for all of it, and 3 s for a part.
    let reading = tokio::spawn(async move {
        let (mut block, mut all) = (vec![0; 64 << 10], 0);
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            match there.read(&mut block).await.unwrap() {
                0 => return all,
                count => all += count,
            }
        }
    });
    write_while_bytes_flow(&env, &mut here, &bytes, 5_000_000).await.unwrap();
    drop(here);
    assert_eq!(reading.await.unwrap(), bytes.len());
    let (mut here, _there) = tokio::io::duplex(64 << 10);
    let stuck = write_while_bytes_flow(&env, &mut here, &bytes, 5_000_000).await;
    assert_eq!(stuck.unwrap_err().kind(), ErrorKind::TimedOut);
}

/// Tokio's clock and tasks. The test takes the other end of each connection, and the address that
/// was called.
#[derive(Clone)]
struct CalledEnv {
    env: TokioEnv<MemoryDisk>,
    calls: mpsc::UnboundedSender<(String, DuplexStream)>,
}

struct NoListener;

impl Listener for NoListener {
    type Stream = DuplexStream;
    async fn accept(&mut self) -> io::Result<(DuplexStream, String)> {
        pending().await
    }
    fn local_addr(&self) -> io::Result<String> {
        Err(ErrorKind::Unsupported.into())
    }
}

impl Env for CalledEnv {
    type Stream = DuplexStream;
    type Listener = NoListener;
    type Disk = MemoryDisk;
    const THREADS: bool = false;

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
    fn start_worker<W: Worker>(&self, _: &str, _: W, _: Arc<WorkQueue<W::Job>>) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
    async fn connect(&self, addr: &str) -> io::Result<DuplexStream> {
        let (here, there) = tokio::io::duplex(64 << 10);
        self.calls.send((addr.to_owned(), there)).map_err(|_| ErrorKind::ConnectionRefused)?;
        Ok(here)
    }
    async fn listen(&self, _: &str) -> io::Result<NoListener> {
        Ok(NoListener)
    }
    async fn host_name(&self) -> String {
        "n1".to_owned()
    }
    fn disk(&self) -> &MemoryDisk {
        self.env.disk()
    }
    fn seed(&self) -> u64 {
        1
    }
}

/// A link to member 2, and what it calls.
struct Calls {
    env: CalledEnv,
    book: Arc<AddressBook>,
    called: mpsc::UnboundedReceiver<(String, DuplexStream)>,
    _queue: mpsc::Sender<crate::peer::link::Queued>,
    _found: mpsc::Receiver<Discovery>,
}

impl Calls {
    fn of_a_link_to(addr: &str) -> Self {
        let (calls, called) = mpsc::unbounded_channel();
        let env = CalledEnv { env: TokioEnv::new(MemoryDisk::new()), calls };
        let book = Arc::new(book_of_a_node_with_a_peer_at(addr));
        let (queue_in, queue) = mpsc::channel(1);
        let (found_in, found) = mpsc::channel(4);
        let link = Link {
            env: env.clone(),
            address_book: book.clone(),
            to: NodeId::new(2),
            queue,
            options: TransportOptions::default(),
            metrics: Metrics::new(),
            discoveries: found_in,
        };
        tokio::spawn(link.run());
        Self { env, book, called, _queue: queue_in, _found: found }
    }

    /// The next call, which is let in.
    async fn accept(&mut self) -> (String, DuplexStream) {
        let (addr, mut stream) = self.called.recv().await.expect("the link runs");
        let_in(&mut stream).await;
        (addr, stream)
    }

    /// Member 2 calls this node.
    fn peer_calls(&self, start: u64, raft_addr: &str) {
        let hello = PeerHello {
            cluster: ClusterId(5),
            from: NodeId::new(2),
            store: StoreId(2),
            raft_addr: raft_addr.to_owned(),
            to: NodeId::new(1),
            starts: Starts { number: start, nonces: (1..=start).rev().collect() },
        };
        let levels = SpokenLevels::of_any_cluster(FeatureLevels::OF_THIS_RELEASE);
        let connected = self.book.admit((&hello, levels), None, self.env.now()).expect("it is let in");
        self.book.note_call(NodeId::new(2));
        connected.end();
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_lets_this_node_in_and_hangs_up_is_called_less_and_less_often() {
    let mut calls = Calls::of_a_link_to("n2:1");
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(10) && count < 1_000 {
        drop(calls.accept().await);
        count += 1;
    }
    assert!((5..=16).contains(&count), "{count} calls in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_started_again_at_another_address_is_called_there_at_once() {
    let mut calls = Calls::of_a_link_to("old:1");
    let (addr, _silent) = calls.accept().await;
    assert_eq!(addr, "old:1");
    calls.peer_calls(1, "old:1");
    let nothing = timeout(Duration::from_secs(5), calls.accept()).await;
    assert!(nothing.is_err(), "it is connected there");
    // Nothing comes from the old address any more, not even that the connection has ended.
    calls.peer_calls(2, "new:1");
    let (addr, _kept) = timeout(Duration::from_secs(1), calls.accept()).await.expect("a call");
    assert_eq!(addr, "new:1");
    calls.peer_calls(2, "new:1");
    let nothing = timeout(Duration::from_secs(5), calls.accept()).await;
    assert!(nothing.is_err(), "it is connected there");
}
