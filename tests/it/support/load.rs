//! Clients that go on whatever happens to the nodes, and write down what they saw.

use crate::support::node::Node;
use infinitystore::client::{CallError, Client, ClientOptions, Endpoint, WriteOutcome};
use infinitystore::history::{Action, Effort, Operation, OperationId, Recorder, Verdict, check};
use infinitystore::replica::Level;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// A client gives an answer up after this, and goes to another node.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
/// After a failure, before the next attempt: a cluster without a leader is not made faster by being
/// asked all the time.
const PAUSE: Duration = Duration::from_millis(5);

/// Clients on threads of their own.
pub(crate) struct Load {
    start: Instant,
    stop: Arc<AtomicBool>,
    /// Operations that were answered, over all clients.
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<LoadClient>>,
}

/// What all clients saw.
pub(crate) struct Seen {
    pub(crate) operations: Vec<Operation>,
    /// The longest time in which no write was acknowledged.
    pub(crate) longest_gap: Duration,
}

/// A write that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Acknowledged {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// What the clients do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// Sets, gets and deletes of a few keys that all clients share.
    Mixed,
    /// Sets of keys that are never set again.
    FreshKeys,
}

struct LoadClient {
    id: u64,
    plan: Plan,
    client: Client,
    /// Runs the client's calls, one at a time.
    runtime: Runtime,
    start: Instant,
    recorder: Recorder,
    sequence: u64,
    acknowledged: Vec<Acknowledged>,
    acknowledged_at: Vec<u64>,
}

impl Load {
    /// `clients` clients, spread over the nodes, that set, get and delete a few keys.
    pub(crate) fn mixed(nodes: &[Node], clients: u64) -> Self {
        Self::start(nodes, clients, Plan::Mixed)
    }

    /// `clients` clients, spread over the nodes, that set keys that are never set again.
    pub(crate) fn fresh_keys(nodes: &[Node], clients: u64) -> Self {
        Self::start(nodes, clients, Plan::FreshKeys)
    }

    fn start(nodes: &[Node], clients: u64, plan: Plan) -> Self {
        let start = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let spawn = |id: u64| {
            let mut client = LoadClient::new(id, plan, nodes, start);
            let (stop, answered) = (stop.clone(), answered.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if client.act() {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
                client
            })
        };
        let clients = (0..clients).map(spawn).collect();
        Self { start, stop, answered, clients }
    }

    /// Waits until so many more operations have been answered.
    #[track_caller]
    pub(crate) fn wait_for(&self, more: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        let what = format!("{more} more operations");
        crate::support::eventually(&what, || (self.answered.load(Ordering::Relaxed) >= goal).then_some(()));
    }

    /// Stops the clients, reads every key once more through every node that runs, and returns all
    /// that was seen.
    pub(crate) fn finish(self, nodes: &[Node]) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut reader = LoadClient::new(u64::MAX, Plan::Mixed, nodes, self.start);
        let mut acknowledged_at = Vec::new();
        for client in self.clients {
            let client = client.join().expect("the client does not panic");
            acknowledged_at.extend(client.acknowledged_at);
            reader.recorder.merge(client.recorder);
        }
        let end = micros(self.start);
        for node in nodes.iter().filter(|node| node.is_running()) {
            reader.client = client_of(std::slice::from_ref(node));
            for key in 0..KEYS {
                assert!(reader.get(&format!("key-{key}")), "{} does not answer at the end", node.name);
            }
        }
        acknowledged_at.push(0);
        acknowledged_at.push(end);
        acknowledged_at.sort_unstable();
        let gap = acknowledged_at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        Seen { operations: reader.recorder.into_operations(), longest_gap: Duration::from_micros(gap) }
    }

    /// Stops the clients; all writes that were acknowledged.
    pub(crate) fn acknowledged(self) -> Vec<Acknowledged> {
        self.stop.store(true, Ordering::Relaxed);
        let clients =
            self.clients.into_iter().map(|client| client.join().expect("the client does not panic"));
        clients.flat_map(|client| client.acknowledged).collect()
    }
}

/// Keys that the mixed clients share.
const KEYS: u64 = 5;

impl LoadClient {
    fn new(id: u64, plan: Plan, nodes: &[Node], start: Instant) -> Self {
        let place = usize::try_from(id % nodes.len() as u64).unwrap();
        Self {
            id,
            plan,
            client: client_of(nodes).beginning_at(place),
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
            start,
            recorder: Recorder::new(),
            sequence: 0,
            acknowledged: Vec::new(),
            acknowledged_at: Vec::new(),
        }
    }

    /// One operation; whether it was answered as hoped.
    fn act(&mut self) -> bool {
        self.sequence += 1;
        let answered = if self.plan == Plan::FreshKeys {
            self.set(&format!("key-{}-{}", self.id, self.sequence))
        } else {
            // Every client takes the keys in another order and mixes its operations in another way.
            let turn = self.sequence.wrapping_mul(7).wrapping_add(self.id * 3);
            let key = format!("key-{}", turn % KEYS);
            match (self.sequence + self.id) % 8 {
                0 => self.delete(&key),
                1..=3 => self.set(&key),
                _ => self.get(&key),
            }
        };
        if !answered {
            thread::sleep(PAUSE);
        }
        answered
    }

    fn set(&mut self, key: &str) -> bool {
        let value = format!("{}-{}", self.id, self.sequence);
        let operation = self.call(key, Action::Set(value.clone().into()));
        let result = self.runtime.block_on(self.client.set(key, &value));
        let done = self.written(operation, result);
        if done && self.plan == Plan::FreshKeys {
            self.acknowledged.push(Acknowledged { key: key.to_owned(), value });
        }
        done
    }

    fn delete(&mut self, key: &str) -> bool {
        let operation = self.call(key, Action::Delete);
        let result = self.runtime.block_on(self.client.delete(key));
        self.written(operation, result)
    }

    fn get(&mut self, key: &str) -> bool {
        let operation = self.call(key, Action::Get);
        match self.runtime.block_on(self.client.get(key, Level::Linearizable)) {
            Ok(value) => {
                self.recorder.got(operation, micros(self.start), value.map(Into::into));
                true
            }
            Err(_) => {
                self.recorder.failed(operation);
                false
            }
        }
    }

    fn call(&mut self, key: &str, action: Action) -> OperationId {
        self.recorder.call(self.id, key.to_owned(), action, micros(self.start))
    }

    /// Notes what became of a write; whether it was acknowledged.
    fn written(&mut self, operation: OperationId, result: Result<(), CallError>) -> bool {
        match result {
            Ok(()) => {
                self.recorder.done(operation, micros(self.start));
                self.acknowledged_at.push(micros(self.start));
            }
            Err(error) => {
                // Of any other it is not known: it may have happened.
                if error.outcome() == WriteOutcome::NotApplied {
                    self.recorder.failed(operation);
                }
                return false;
            }
        }
        true
    }
}

/// A client of these nodes, which asks the first one first.
fn client_of(nodes: &[Node]) -> Client {
    let endpoint = |node: &Node| format!("127.0.0.1:{}", node.http_port).parse().unwrap();
    let options = ClientOptions {
        connect_timeout: CLIENT_TIMEOUT,
        answer_timeout: CLIENT_TIMEOUT,
        ..ClientOptions::default()
    };
    Client::new(nodes.iter().map(endpoint).collect::<Vec<Endpoint>>(), options)
}

fn micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).expect("a test is short")
}

#[track_caller]
pub(crate) fn assert_linearizable(operations: &[Operation]) {
    let report = check(operations, Effort::default());
    assert_eq!(report.verdict, Verdict::Linearizable, "{report}");
    println!("{report}");
}
