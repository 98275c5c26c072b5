//! Clients that go on whatever happens to the nodes, and write down what they saw.

use crate::support::http::{Connection, Response};
use crate::support::node::Node;
use infinitystore::history::{Action, Effort, Operation, Recorder, Verdict, check};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

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
    clients: Vec<JoinHandle<Client>>,
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

struct Client {
    id: u64,
    plan: Plan,
    ports: Vec<u16>,
    /// Which of `ports` it talks to.
    at: usize,
    connection: Option<Connection>,
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
        let ports: Vec<u16> = nodes.iter().map(|node| node.http_port).collect();
        let spawn = |id: u64| {
            let at = usize::try_from(id).unwrap() % ports.len();
            let mut client = Client {
                id,
                plan,
                ports: ports.clone(),
                at,
                connection: None,
                start,
                recorder: Recorder::new(),
                sequence: 0,
                acknowledged: Vec::new(),
                acknowledged_at: Vec::new(),
            };
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
        let mut recorder = Recorder::new();
        let mut acknowledged_at = Vec::new();
        for client in self.clients {
            let client = client.join().expect("the client does not panic");
            acknowledged_at.extend(client.acknowledged_at);
            recorder.merge(client.recorder);
        }
        let end = micros(self.start);
        let mut reader = Client {
            id: u64::MAX,
            plan: Plan::Mixed,
            ports: Vec::new(),
            at: 0,
            connection: None,
            start: self.start,
            recorder,
            sequence: 0,
            acknowledged: Vec::new(),
            acknowledged_at: Vec::new(),
        };
        for node in nodes.iter().filter(|node| node.is_running()) {
            reader.ports = vec![node.http_port];
            reader.connection = None;
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

impl Client {
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
        let done = self.write(
            key,
            Action::Set(value.clone().into()),
            &serde_json::json!(
                {"key": key, "value": value, "action": "set"}
            ),
        );
        if done && self.plan == Plan::FreshKeys {
            self.acknowledged.push(Acknowledged { key: key.to_owned(), value });
        }
        done
    }

    fn delete(&mut self, key: &str) -> bool {
        self.write(key, Action::Delete, &serde_json::json!({"key": key, "action": "delete"}))
    }

    fn write(&mut self, key: &str, action: Action, body: &serde_json::Value) -> bool {
        if !self.connect() {
            return false;
        }
        let operation = self.recorder.call(self.id, key.to_owned(), action, micros(self.start));
        match self.request("POST", "/set", &body.to_string()) {
            Ok(answer) if answer.status == 200 => {
                self.recorder.done(operation, micros(self.start));
                self.acknowledged_at.push(micros(self.start));
                true
            }
            Ok(answer) if answer.header("infinitystore-outcome") == Some("not-appended") => {
                self.recorder.failed(operation);
                self.go_to_next_node();
                false
            }
            // Unknown: it may have happened.
            Ok(_) | Err(_) => {
                self.go_to_next_node();
                false
            }
        }
    }

    fn get(&mut self, key: &str) -> bool {
        if !self.connect() {
            return false;
        }
        let operation = self.recorder.call(self.id, key.to_owned(), Action::Get, micros(self.start));
        let answer = self.request("GET", &format!("/get?key={key}"), "");
        let value = match answer {
            Ok(answer) if answer.status == 404 => None,
            Ok(answer) if answer.status == 200 => {
                let body: serde_json::Value = serde_json::from_str(&answer.body).expect("an answer is JSON");
                Some(body["value"].as_str().expect("it has a value").to_owned().into())
            }
            Ok(_) | Err(_) => {
                self.recorder.failed(operation);
                self.go_to_next_node();
                return false;
            }
        };
        self.recorder.got(operation, micros(self.start), value);
        true
    }

    /// A write on a connection that could not be opened has not happened for sure.
    fn connect(&mut self) -> bool {
        if self.connection.is_none() {
            self.connection = Connection::open_with_timeout(self.ports[self.at], CLIENT_TIMEOUT).ok();
        }
        if self.connection.is_none() {
            self.go_to_next_node();
        }
        self.connection.is_some()
    }

    fn request(&mut self, method: &str, target: &str, body: &str) -> io::Result<Response> {
        let connection = self.connection.as_mut().expect("it was opened");
        connection.request(method, target, body)
    }

    fn go_to_next_node(&mut self) {
        self.connection = None;
        self.at = (self.at + 1) % self.ports.len();
    }
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
