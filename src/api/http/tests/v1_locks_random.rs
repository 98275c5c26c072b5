//! Mutual exclusion, whatever comes and goes: clients that hang up and ask again, times that are
//! over, nodes that stop.
//!
//! Each client holds the lock until it gives it up by itself. No lease ends by its time here: who
//! is told that it has won must be alone until then, and its fence is greater than all before it.

use crate::api::HttpOptions;
use crate::api::http::tests::fixture::{Answered, Fixture, take_apart};
use crate::runtime::Env;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;

const NODES: usize = 3;
const CLIENTS: usize = 5;
const ROUNDS: usize = 30;
/// A client that is told nothing asks this often before it gives up.
const ATTEMPTS: usize = 12;

struct World {
    /// Serves all the time, for those that look.
    steady: Fixture,
    nodes: Mutex<Vec<Arc<Fixture>>>,
    /// The fence of the client that holds the lock; 0: none does.
    inside: AtomicU64,
    /// The greatest fence that was told.
    last: AtomicU64,
    /// Values of candidates whose clients are gone for good. Their leases end, as if by their time.
    gone: Mutex<BTreeSet<String>>,
    clients: AtomicUsize,
    won: AtomicUsize,
}

/// How a client asks for the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// With a new lease, and no way to come back.
    Once,
    /// With a new lease, under one idempotency key.
    Named,
    /// With a lease of its own.
    Leased,
    /// With a lease of its own, and it keeps its place.
    Staying,
}

#[tokio::test]
async fn one_holds_the_lock_whoever_comes_and_goes() {
    let steady = Fixture::start(HttpOptions::default()).await;
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(Arc::new(steady.beside().await));
    }
    let world = Arc::new(World {
        steady,
        nodes: Mutex::new(nodes),
        inside: AtomicU64::new(0),
        last: AtomicU64::new(0),
        gone: Mutex::default(),
        clients: AtomicUsize::new(CLIENTS),
        won: AtomicUsize::new(0),
    });
    let mut tasks = vec![tokio::spawn(restart_nodes(world.clone())), tokio::spawn(end_leases(world.clone()))];
    for number in 0..CLIENTS {
        let world = world.clone();
        tasks.push(tokio::spawn(async move {
            let mut rng = SmallRng::seed_from_u64(number as u64);
            for round in 0..ROUNDS {
                world.stand(&mut rng, &format!("{number}-{round}")).await;
            }
            world.clients.fetch_sub(1, Ordering::SeqCst);
        }));
    }
    for task in tasks {
        task.await.expect("no invariant is broken");
    }
    assert!(world.won.load(Ordering::SeqCst) > 0, "nobody has held it");
}

/// Stops one node after the other, and puts another one in its place.
async fn restart_nodes(world: Arc<World>) {
    let mut at = 0;
    while world.clients.load(Ordering::SeqCst) > 0 {
        let new = Arc::new(world.steady.beside().await);
        let old = std::mem::replace(&mut world.nodes.lock().expect("no panic")[at % NODES], new);
        let far = old.env.now().plus(3_600_000_000);
        old.server.stop(far).await;
        at += 1;
        for _ in 0..20 {
            world.steady.ask("GET", "/v1/locks/n", b"").await;
        }
    }
}

/// Ends the leases of candidates that are first and whose clients are gone.
async fn end_leases(world: Arc<World>) {
    while world.clients.load(Ordering::SeqCst) > 0 {
        let holder = world.steady.ask("GET", "/v1/locks/n", b"").await.json();
        let is_gone = holder["value"]
            .as_str()
            .is_some_and(|value| world.gone.lock().expect("no panic").contains(value));
        if is_gone {
            world.steady.ask("DELETE", &format!("/v1/leases/{}", holder["lease"]), b"").await;
        }
    }
}

/// Asks a node that may stop, or be gone. `None`: there is no whole answer.
async fn try_ask(addr: &str, method: &str, target: &str, headers: &str, body: &str) -> Option<Answered> {
    let mut stream = TcpStream::connect(addr).await.ok()?;
    let length = body.len();
    let head = format!("{method} {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    let request = format!("{head}content-length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.ok()?;
    bytes.windows(4).any(|window| window == b"\r\n\r\n").then(|| take_apart(&bytes))
}

async fn yields(count: usize) {
    for _ in 0..count {
        yield_now().await;
    }
}

impl World {
    fn any_node(&self, rng: &mut SmallRng) -> String {
        self.nodes.lock().expect("no panic")[rng.random_range(0..NODES)].addr.clone()
    }

    /// One client that wants the lock, until it has had it or has given up.
    async fn stand(&self, rng: &mut SmallRng, name: &str) {
        let style = [Style::Once, Style::Named, Style::Leased, Style::Staying][rng.random_range(0..4)];
        let lease = match style {
            Style::Once | Style::Named => None,
            Style::Leased | Style::Staying => {
                let granted = self.steady.ask("POST", "/v1/leases", b"{\"ttl\":10}").await;
                Some(granted.json()["id"].clone())
            }
        };
        for _ in 0..ATTEMPTS {
            let mut target = format!("/v1/locks/n?wait={}ms", rng.random_range(0..20));
            if let Some(lease) = &lease {
                target += &format!("&lease={lease}");
            }
            if style == Style::Staying {
                target += "&stay";
            }
            let headers =
                if style == Style::Named { format!("idempotency-key: {name}\r\n") } else { String::new() };
            let addr = self.any_node(rng);
            let asking = try_ask(&addr, "POST", &target, &headers, name);
            let answered = if rng.random_bool(0.4) {
                // It goes away at some moment, or not.
                tokio::select! {
                    answered = asking => answered,
                    () = yields(rng.random_range(0..300)) => None,
                }
            } else {
                asking.await
            };
            let problem = answered.as_ref().map(Answered::problem);
            match problem.as_ref().map(|(status, code)| (*status, code.as_str())) {
                Some((200, _)) => {
                    let won = answered.expect("it won").json();
                    return self.hold(rng, (won["fence"].as_u64().expect("a number"), &won["lease"])).await;
                }
                // Its own earlier request, that it went away from, may have given the place up.
                Some((404, "no-lease" | "not-holder")) => break,
                Some((409, "held")) if style != Style::Staying => break,
                Some((409, "held") | (503, "stopping")) | None => {}
                other => panic!("{other:?}"),
            }
            if style == Style::Once {
                break;
            }
        }
        match lease {
            Some(lease) => drop(self.steady.ask("DELETE", &format!("/v1/leases/{lease}"), b"").await),
            None => drop(self.gone.lock().expect("no panic").insert(name.to_owned())),
        }
    }

    async fn hold(&self, rng: &mut SmallRng, (fence, lease): (u64, &serde_json::Value)) {
        assert_eq!(self.inside.swap(fence, Ordering::SeqCst), 0, "another one holds it");
        let last = self.last.swap(fence, Ordering::SeqCst);
        assert!(fence > last, "fence {fence} comes after {last}");
        for _ in 0..rng.random_range(0..8) {
            yields(rng.random_range(0..40)).await;
            let holder = self.steady.ask("GET", "/v1/locks/n", b"").await.json();
            assert_eq!((&holder["fence"], &holder["lease"]), (&fence.into(), lease), "it holds it still");
        }
        self.won.fetch_add(1, Ordering::SeqCst);
        assert_eq!(self.inside.swap(0, Ordering::SeqCst), fence, "it was alone");
        let ended = self.steady.ask("DELETE", &format!("/v1/leases/{lease}"), b"").await;
        assert_eq!(ended.code, 200, "its lease lived: {}", ended.text());
    }
}
