//! A running node: what its parts are, and how they are put together.

use crate::codec::{FeatureLevel, HostPort, host_of};
use crate::node::address::{advertised, check_address};
use crate::node::admission::{Admission, spawn_until};
use crate::node::announce::{Origin, announce_address};
use crate::node::beside::beside;
use crate::node::clients::Clients;
use crate::node::driver::Driver;
use crate::node::foreign_call::Called;
use crate::node::founding::Course;
use crate::node::handle::{DriverOrder, MembershipView, NodeFacts, NodeHandle, OperatorCall};
use crate::node::inbox::Inbox;
use crate::node::initial_cluster::InitialCluster;
use crate::node::join::{JOINS_MAX, Joiner};
use crate::node::join_turns::Turns;
use crate::node::options::{NodeExit, NodeOptions, PANICKED, StartError};
use crate::node::past_reads::{PastReads, PastWorker};
use crate::node::peer_questions::PeerQuestions;
use crate::node::repair::repair;
use crate::node::rivals::Rivals;
use crate::node::scrub::ScrubWorker;
use crate::node::scrub_queue::{ScrubJob, ScrubQueue};
use crate::node::storage_workers::{
    LogJob, LogWorker, REBUILDS_MAX, SnapshotQueues, SnapshotWorker, WorkerNews,
};
use crate::peer::address_book::{AddressBook, Me};
use crate::peer::hello::Starts;
use crate::peer::incoming::{Incoming, ROOM_UNIT_BYTES};
use crate::peer::links::Links;
use crate::peer::secured::{Dialer, Guard};
use crate::raft::{ClusterId, Member, NodeId, StoreId, Time, Withdrawal, bootstrap_log};
use crate::replica::{Event, Replica, ReplicaStart};
use crate::runtime::work::WorkQueue;
use crate::runtime::{Env, Listener, Metrics, watch};
use crate::storage::{
    Bootstrap, Disk, Identity, OpenError, Opened, Predecessor, Rejoin, SpareMode, Storage, StorageClock,
    StorageOptions, Survey, check_name, free_aside, read_alarms, read_called, read_predecessor, read_rebuild,
    read_rejoin, read_withdrawn, remove_rejoin, settle_withdrawal,
};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{info, warn};

/// The id of the member that makes a cluster of itself.
const FIRST_MEMBER: NodeId = NodeId::new(1);
/// Orders waiting for the driver, at most.
const ORDER_QUEUE_MAX: usize = 64;
/// Calls of operators waiting to be begun, at most.
const JOIN_QUEUE_MAX: usize = 16;
/// Until when a node that was started to join stays reserved.
const FOR_EVER: Time = Time::new(u64::MAX);

/// A running node. Dropping it does not stop it: [`Self::stop`] does.
#[derive(Debug)]
pub struct Node {
    handle: NodeHandle,
    raft_addr: String,
    stop: watch::Sender<bool>,
    exit: watch::Receiver<Option<NodeExit>>,
}

impl Node {
    /// Opens the data directory (or makes a new cluster of one in it), listens for peers, and
    /// starts the node's tasks.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start<E: Env>(env: E, options: NodeOptions, metrics: Metrics) -> Result<Self, StartError> {
        let listener = Self::listen(&env, &options).await?;
        Self::start_on(env, options, metrics, listener).await
    }

    /// Listens for peers. Those that connect before the node has started wait until it has.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn listen<E: Env>(env: &E, options: &NodeOptions) -> Result<E::Listener, StartError> {
        options.check_secured()?;
        listen(env, &options.raft_addr).await
    }

    /// As [`Self::start`], on a listener from [`Self::listen`].
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_on<E: Env>(
        env: E,
        options: NodeOptions,
        metrics: Metrics,
        listener: E::Listener,
    ) -> Result<Self, StartError> {
        let (raft_addr, http_addr) = addresses(&env, &options, &listener).await?;
        let mut listener = listener;
        let ready = loop {
            let opening =
                Opening { options: options.clone(), addresses: (raft_addr.clone(), http_addr.clone()) };
            let opener = env.clone();
            match beside(&env, "opening", move || opening.run(&opener)).await?? {
                StartPoint::Ready(ready) => {
                    if metrics.repair.is_sound() {
                        info!("the data directory is sound after all, and was not changed");
                    }
                    break ready;
                }
                StartPoint::Damaged(survey) => {
                    repair(&env, &options, &mut listener, *survey, &metrics).await?;
                }
            }
        };
        let Ready { storage, identity, starts, replica, notes, alarms } = *ready;
        metrics.alarm_board.recall(alarms, E::THREADS);
        let me = Me {
            cluster: identity.cluster,
            id: identity.member,
            store: identity.store,
            starts,
            name: identity.name,
            raft_addr: raft_addr.clone(),
            http_addr,
            speaks: options.transport.speaks,
        };
        info!(name = %me.name, cluster = %me.cluster, id = me.id.get(), store = %me.store, addr = %me.raft_addr, "starting");
        let node = NodeBuilder { env, options, metrics, me, replica, notes }.start(storage, listener)?;
        Ok(node)
    }

    /// A handle to ask the node. It may outlive the node.
    #[must_use]
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// Where peers reach it.
    #[must_use]
    pub fn raft_addr(&self) -> &str {
        &self.raft_addr
    }

    /// Asks it to stop gracefully: hand leadership over, finish the log. Returns at once; see
    /// [`Self::stopped`].
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until it has ended, asked or not.
    pub async fn stopped(&self) -> NodeExit {
        let exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
        ended.unwrap_or_else(|| NodeExit::Failed(PANICKED.to_owned()))
    }
}

/// A node about to run.
struct NodeBuilder<E: Env> {
    env: E,
    options: NodeOptions,
    metrics: Metrics,
    me: Me,
    replica: Replica,
    notes: Notes,
}

/// What notes in a data directory say of the member.
struct Notes {
    /// The member that it was could not go on: it joins its cluster anew.
    rejoin: Option<Rejoin>,
    /// Why it takes no part any more.
    withdrawn: Option<Withdrawal>,
    /// Another cluster called it as its member, when it had nothing of its own.
    called: Option<(ClusterId, NodeId)>,
    /// The cluster that this one was made of.
    predecessor: Option<Predecessor>,
}

/// What the driver holds of the storage's workers.
struct Workers<D: Disk> {
    log: Arc<WorkQueue<LogJob>>,
    snapshots: SnapshotQueues<D>,
    scrub: ScrubQueue<D>,
    past_reads: PastReads,
    past_changes: PastReads,
    news: mpsc::UnboundedReceiver<WorkerNews>,
}

impl<E: Env> NodeBuilder<E> {
    fn start(mut self, storage: Storage<E::Disk>, listener: E::Listener) -> Result<Node, StartError> {
        let told = self.options.told_addresses();
        let admission = self.seek_admission();
        let now = self.env.now();
        if let Some(why) = self.notes.withdrawn {
            self.replica.step(now, Event::Withdraw(why));
        }
        let called = self.notes.called.filter(|_| !self.replica.has_data() && !admission.is_awaited);
        let (clients_in, clients) = mpsc::channel(self.options.client_queue_max);
        let (orders_in, orders) = mpsc::channel(ORDER_QUEUE_MAX);
        let (peers_in, peers) = mpsc::channel(self.options.transport.receive_queue_max);
        let (discoveries_in, discoveries) = mpsc::channel(ORDER_QUEUE_MAX);
        let (joins_in, joins) = mpsc::channel(JOIN_QUEUE_MAX);
        let view = MembershipView { membership: self.replica.membership().clone(), committed: false };
        let (membership_in, membership) = watch::channel(view);
        let (exit_in, exit) = watch::channel(None);
        let (ended_in, ended) = watch::channel(false);
        let (stop_in, stop) = watch::channel(false);
        let last = Arc::new(OnceLock::new());
        let facts = Arc::new(NodeFacts::of(self.me.name.clone()));
        let handle = NodeHandle {
            clients: clients_in,
            orders: orders_in.clone(),
            joins: joins_in,
            membership,
            last: last.clone(),
            facts: facts.clone(),
        };
        let address_book = Arc::new(AddressBook::new(self.me.clone(), self.replica.membership().clone()));
        address_book.tell_addresses(told);
        address_book.set_level(self.replica.store().level());
        let joiner = Joiner {
            env: self.env.clone(),
            dialer: Dialer {
                env: self.env.clone(),
                tls: self.options.transport.tls.clone(),
                names: Some(address_book.clone()),
                speaks: self.options.transport.speaks,
            },
            handle: handle.clone(),
            address_book: address_book.clone(),
            timings: self.options.join_timings,
            turns: Turns::default(),
            places: Arc::new(Semaphore::new(JOINS_MAX)),
            initial_cluster: admission.initial.clone(),
            predecessor: self.notes.predecessor.as_ref().map(|before| before.cluster),
        };
        let incoming = Arc::new(Incoming {
            env: self.env.clone(),
            address_book: address_book.clone(),
            messages: peers_in,
            service: PeerQuestions { joiner: joiner.clone() },
            discoveries: discoveries_in.clone(),
            options: self.options.transport.clone(),
            metrics: self.metrics.clone(),
            ended: ended.clone(),
            room: Arc::new(Semaphore::new(
                self.options.transport.receive_bytes_max.div_ceil(ROOM_UNIT_BYTES),
            )),
            parts: Arc::new(Semaphore::new(
                self.options.transport.part_bytes_max().div_ceil(ROOM_UNIT_BYTES),
            )),
            guard: Guard::of(&self.env, self.options.transport.tls.as_ref()),
            refusals: Default::default(),
            rounds: Default::default(),
        });
        let Workers { log, snapshots, scrub, past_reads, past_changes, news } =
            self.start_workers(storage)?;
        let transport = self.options.transport.clone();
        let links = Links::new(
            self.env.clone(),
            address_book.clone(),
            transport,
            self.metrics.clone(),
            discoveries_in,
        );
        let alarms = self.metrics.alarm_board.clone();
        let driver = Driver {
            env: self.env.clone(),
            inbox: Inbox { storage: news, peers, discoveries, orders, clients },
            replica: self.replica,
            config: self.options.replica.clone(),
            address_book,
            place: (self.me.cluster, self.me.id),
            links,
            log,
            snapshots,
            past_reads,
            past_changes,
            scrub,
            leaving_members: BTreeSet::new(),
            clients: Clients::default(),
            request_timeout_micros: self.options.request_timeout_micros,
            metrics: self.metrics,
            membership: membership_in,
            last,
            facts,
            silence_measured_at: Time::new(0),
            reservation: None,
            awaits_join: admission.is_awaited,
            rejoins: self.notes.rejoin.and_then(|rejoin| rejoin.cluster),
            predecessor: self.notes.predecessor.as_ref().map(|before| before.cluster),
            foreign_call: called.map(|called| Called::at(now, called)),
            complaints: Default::default(),
            joins_under_way: 0,
            adoption: None,
            stopping: None,
            founding: admission.founding(),
            exits_when_removed: self.options.exits_when_removed,
            outgrown: None,
        };
        let (closed_in, closed) = oneshot::channel();
        self.env.spawn(async move {
            incoming.run(listener).await;
            let _ = closed_in.send(());
        });
        self.env.spawn(async move {
            let exit = driver.run().await;
            ended_in.send_replace(true);
            // Code that waits for the end may use the port again at once.
            let _ = closed.await;
            exit_in.send_replace(Some(exit));
        });
        self.env.spawn(pass_stop_on(stop, orders_in));
        self.env.spawn(serve_joins(joiner.clone(), joins, ended.clone()));
        if let Some(predecessor) = self.notes.predecessor {
            let rivals = Rivals { joiner: joiner.clone(), predecessor, alarms };
            spawn_until(&self.env, ended.clone(), rivals.watch());
        }
        let origin = Origin::of(&self.options);
        spawn_until(&self.env, ended.clone(), announce_address(joiner.clone(), origin));
        admission.pursue(joiner, ended);
        Ok(Node { handle, raft_addr: self.me.raft_addr, stop: stop_in, exit })
    }

    /// Decides how it comes into its cluster. Until it is a member, nobody is served.
    fn seek_admission(&mut self) -> Admission {
        let join = self.join_addresses();
        // A member that set its data aside never makes a cluster again.
        let rejoins = self.notes.rejoin.is_some();
        let initial = InitialCluster::of(&self.options.initial_cluster, &self.me.name).filter(|_| !rejoins);
        let course = Course::of(initial.as_ref(), &self.replica);
        let is_awaited = !join.is_empty() || rejoins || course == Course::Begin;
        if course == Course::GoOn
            && let Some(initial) = &initial
        {
            self.replica.step(self.env.now(), Event::Found { voters: initial.majority() });
        }
        if is_awaited {
            self.replica.step(self.env.now(), Event::Reserve { until: FOR_EVER });
        }
        Admission { join, initial, course, is_awaited }
    }

    /// The threads that write and read the disk.
    fn start_workers(&self, storage: Storage<E::Disk>) -> Result<Workers<E::Disk>, StartError> {
        let (news_in, news) = mpsc::unbounded_channel();
        let (log, snapshots) = (WorkQueue::new(), SnapshotQueues::new());
        let files = storage.snapshot_files();
        let saver = SnapshotWorker::new(files.clone(), news_in.clone());
        let reader = SnapshotWorker::new(files, news_in.clone());
        let (scrub, options) = (WorkQueue::new(), self.options.scrub);
        scrub.push_all(&mut vec![ScrubJob::Begin]);
        let scrubber = storage.scrubber();
        let scrubber = ScrubWorker::new(&self.env, scrubber, options, self.metrics.clone(), news_in.clone());
        let ended = scrubber.ended.clone();
        let log_worker =
            LogWorker::new(storage, snapshots.clone(), scrub.clone(), news_in, self.metrics.clone());
        let (saves, reads) = (snapshots.saves.clone(), snapshots.reads.clone());
        self.env.start_worker("snapshots", saver, saves).map_err(StartError::Thread)?;
        self.env.start_worker("snapshot-reads", reader, reads).map_err(StartError::Thread)?;
        self.env.start_worker("log", log_worker, log.clone()).map_err(StartError::Thread)?;
        self.env.start_worker("scrub", scrubber, scrub.clone()).map_err(StartError::Thread)?;
        let past_reads = PastReads(WorkQueue::new());
        self.env.start_worker("past-reads", PastWorker, past_reads.0.clone()).map_err(StartError::Thread)?;
        let past_changes = PastReads(WorkQueue::new());
        let changes = past_changes.0.clone();
        self.env.start_worker("past-changes", PastWorker, changes).map_err(StartError::Thread)?;
        let scrub = ScrubQueue { queue: scrub, ended, told: BTreeSet::new() };
        Ok(Workers { log, snapshots, scrub, past_reads, past_changes, news })
    }

    /// The addresses to ask for membership; none if there is data already.
    fn join_addresses(&mut self) -> Vec<String> {
        let mut join = std::mem::take(&mut self.options.join);
        let known = self.notes.rejoin.iter().flat_map(|rejoin| rejoin.peers.iter().cloned());
        join.extend(known);
        if join.is_empty() || self.replica.is_pristine() {
            return join;
        }
        let alone = self.replica.membership().members.len() == 1;
        if alone && self.replica.membership().members.contains_key(&self.me.id) {
            warn!(
                "--join is ignored: this node is a cluster of its own, with data; to join another one, wipe its data directory"
            );
        } else {
            info!("--join is ignored: this node is a member of a cluster already");
        }
        Vec::new()
    }
}

async fn listen<E: Env>(env: &E, addr: &str) -> Result<E::Listener, StartError> {
    env.listen(addr).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => StartError::PortInUse { addr: addr.to_owned() },
        _ => StartError::Listen { addr: addr.to_owned(), error },
    })
}

/// The raft address and the HTTP address that other nodes are told.
async fn addresses<E: Env>(
    env: &E,
    options: &NodeOptions,
    listener: &E::Listener,
) -> Result<(String, String), StartError> {
    let mut listens = options.raft_addr.clone();
    if let Ok(HostPort { host, port: 0 }) = HostPort::parse(&options.raft_addr) {
        // Port 0 is any free one: the others have to know which.
        let bound =
            listener.local_addr().map_err(|error| StartError::Listen { addr: listens.clone(), error })?;
        let port = HostPort::parse(&bound).map_or(0, |bound| bound.port);
        listens = format!("{host}:{port}");
    }
    // A name server says whether this machine's name resolves. It may take its time, so it is asked
    // only if needed.
    let is_needed = options.advertise.is_none()
        && HostPort::parse(&listens).is_ok_and(|listens| listens.is_every_interface());
    let host_name = if is_needed { env.host_name().await } else { String::new() };
    let raft_addr = advertised(&listens, options.advertise.as_deref(), &host_name);
    let unreachable = |text| StartError::BadOption(format!("--advertise-raft-addr: {text}"));
    check_address(&raft_addr).map_err(unreachable)?;
    let listed = options.initial_cluster.iter().map(|node| &node.raft_addr);
    for addr in options.join.iter().chain(listed) {
        check_address(addr).map_err(StartError::BadOption)?;
    }
    let http_addr = advertised(&options.http_addr, None, host_of(&raft_addr));
    Ok((raft_addr, http_addr))
}

fn open<E: Env>(
    env: &E,
    options: &NodeOptions,
    raft_addr: &str,
    http_addr: &str,
) -> Result<Directory<E::Disk>, StartError> {
    // The core refuses an empty name too, but does not know the name of the flag.
    check_name(&options.name).map_err(|error| StartError::Storage(error.to_string()))?;
    let random = || u128::from(env.seed()) << 64 | u128::from(env.seed());
    let (cluster, store) = (ClusterId(random()), StoreId(random()));
    let member = Member {
        name: options.name.clone(),
        raft_addr: raft_addr.to_owned(),
        http_addr: http_addr.to_owned(),
        store_id: store,
    };
    let name = options.name.clone();
    let mut initial = bootstrap_log([member]).map_err(|why| StartError::Storage(why.to_owned()))?;
    let highest = options.replica.speaks.highest();
    if highest > FeatureLevel::UNTOLD {
        // A new cluster begins with all that its first node can do.
        initial.raise_level(highest);
    }
    let bootstrap = Bootstrap { name, cluster, member: FIRST_MEMBER, store, initial };
    let clock = env.clone();
    let storage_options = StorageOptions {
        segment_bytes: options.segment_bytes,
        spare_mode: if E::THREADS { SpareMode::Thread } else { SpareMode::Inline },
        seed: env.seed(),
        promised_micros: options.replica.raft.promise_micros(),
        speaks: options.replica.speaks,
        clock: StorageClock::new(move || clock.now().get()),
        ..StorageOptions::new(options.data_dir.clone())
    };
    let disk = env.disk().clone();
    // A note that is damaged says that the directory is not to be used.
    let noted = settle_withdrawal(&disk, &options.data_dir, REBUILDS_MAX);
    let opened = match noted.and_then(|()| read_rebuild(&disk, &options.data_dir)) {
        Ok(None) => Storage::open(disk.clone(), storage_options.clone(), &bootstrap),
        Ok(Some(why)) => Err(OpenError::Condemned { dir: options.data_dir.clone(), why }),
        Err(error) => Err(error),
    };
    let opened = opened.map_err(|error| match Survey::of(disk, storage_options, &options.name, &error) {
        Ok(Some(survey)) => Ok(survey),
        Ok(None) => Err(StartError::of_storage(&error)),
        Err(other) => Err(StartError::of_storage(&other)),
    });
    match opened {
        Ok((storage, opened)) => Ok(Directory::Opened(Box::new((storage, opened)))),
        Err(Ok(survey)) => Ok(Directory::Damaged(Box::new(survey))),
        Err(Err(error)) => Err(error),
    }
}

/// A data directory that a start looked at.
enum Directory<D: Disk> {
    Opened(Box<(Storage<D>, Opened)>),
    Damaged(Box<Survey<D>>),
}

fn replica<E: Env>(env: &E, options: &NodeOptions, opened: Opened) -> Result<Replica, StartError> {
    let start = ReplicaStart {
        id: opened.identity.member,
        incarnation: opened.incarnation,
        seed: env.seed(),
        restored: opened.restored,
        store: opened.store,
    };
    let replica = Replica::new(options.replica.clone(), start, env.now());
    replica.map_err(|error| StartError::Storage(error.to_string()))
}

/// What a start reads and rewrites on the disk. Done beside the tasks: a large store takes seconds,
/// and the process answers meanwhile.
struct Opening {
    options: NodeOptions,
    /// Raft address and HTTP address.
    addresses: (String, String),
}

/// What a start has found.
enum StartPoint<E: Env> {
    Ready(Box<Ready<E>>),
    /// Something is damaged.
    Damaged(Box<Survey<E::Disk>>),
}

/// What a start has made of a data directory.
struct Ready<E: Env> {
    storage: Storage<E::Disk>,
    /// The identity of the directory.
    identity: Identity,
    /// Which start of it this is.
    starts: Starts,
    /// As its log and its snapshot have it.
    replica: Replica,
    notes: Notes,
    /// The alarms that stood when it ran last, as they were written down, or why they cannot be
    /// read.
    alarms: Result<Vec<String>, String>,
}

impl Opening {
    fn run<E: Env>(&self, env: &E) -> Result<StartPoint<E>, StartError> {
        let (raft_addr, http_addr) = &self.addresses;
        let (storage, opened) = match open(env, &self.options, raft_addr, http_addr)? {
            Directory::Opened(opened) => *opened,
            Directory::Damaged(survey) => return Ok(StartPoint::Damaged(survey)),
        };
        env.watch_opened(&opened);
        for note in &opened.notes {
            if note.is_damage() {
                warn!(%note, "the data directory is damaged; nothing that was acknowledged is lost");
            } else {
                info!(%note, "recovered");
            }
        }
        let identity = opened.identity.clone();
        let starts = Starts::new(opened.incarnation, opened.nonces.clone());
        let replica = replica(env, &self.options, opened)?;
        let of_storage = |error: OpenError| StartError::of_storage(&error);
        let mut rejoin = read_rejoin(env.disk(), &self.options.data_dir).map_err(of_storage)?;
        if rejoin.is_some() && !replica.is_pristine() {
            remove_rejoin(env.disk(), &self.options.data_dir).map_err(of_storage)?;
            rejoin = None;
        }
        let withdrawn = read_withdrawn(env.disk(), &self.options.data_dir).map_err(of_storage)?;
        let called = read_called(env.disk(), &self.options.data_dir);
        let predecessor = read_predecessor(env.disk(), &self.options.data_dir);
        let notes = Notes { rejoin, withdrawn, called, predecessor };
        let alarms = read_alarms(env.disk(), &self.options.data_dir);
        // All that this member has was read just now, and is whole.
        let is_member = replica.membership().members.contains_key(&identity.member);
        if is_member && notes.rejoin.is_none() && notes.withdrawn.is_none() {
            free_older_aside(env.disk(), &self.options.data_dir);
        }
        Ok(StartPoint::Ready(Box::new(Ready { storage, identity, starts, replica, notes, alarms })))
    }
}

/// Of what was set aside, the newest is enough for those who look for the cause.
fn free_older_aside<D: Disk>(disk: &D, dir: &Path) {
    match free_aside(disk, dir, true) {
        Ok(freed) if freed.is_empty() => {}
        Ok(freed) => info!(?freed, "removed logs and snapshots that had been set aside, but the newest"),
        Err(error) => warn!(%error, "what was set aside could not be removed; the next start tries it again"),
    }
}

async fn pass_stop_on(stop: watch::Receiver<bool>, orders: mpsc::Sender<DriverOrder>) {
    if stop.wait_for(|stop| *stop).await.is_ok() {
        let _ = orders.send(DriverOrder::Stop).await;
    }
}

/// Begins what operators ask of this process.
async fn serve_joins<E: Env>(
    joiner: Joiner<E>,
    mut joins: mpsc::Receiver<OperatorCall>,
    ended: watch::Receiver<bool>,
) {
    loop {
        let call = tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => return,
            call = joins.recv() => call,
        };
        let Some(call) = call else { return };
        let this = joiner.clone();
        joiner.env.spawn(async move { this.serve(call).await });
    }
}
