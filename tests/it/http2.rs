//! HTTP/2 without TLS, as `curl --http2-prior-knowledge` speaks it, against real nodes; and what a
//! local read tells of its age.

use crate::support::{Cluster, Node, eventually};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use std::future::Future;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// A connection to a node. Requests on it are under way at the same time.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    /// Whether it ended well.
    connection: JoinHandle<bool>,
    port: u16,
}

impl Client {
    async fn connect(node: &Node) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", node.http_port)).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        let connection = tokio::spawn(async { connection.await.is_ok() });
        Self { sender, connection, port: node.http_port }
    }

    /// Sends a request; the answer is to come.
    fn send(
        &self,
        method: &str,
        target: &str,
        body: &str,
    ) -> impl Future<Output = hyper::Result<hyper::Response<Incoming>>> + Send + use<> {
        let uri = format!("http://localhost:{}{target}", self.port);
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let request = Request::builder().method(method).uri(uri).body(body).unwrap();
        self.sender.clone().send_request(request)
    }

    async fn ask(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let (head, body) = self.send(method, target, body).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// What comes until `part` has come.
async fn until(body: &mut Incoming, part: &str) -> String {
    let mut text = String::new();
    while !text.contains(part) {
        let frame = body.frame().await.unwrap_or_else(|| panic!("it ended without {part}: {text}"));
        text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
    }
    text
}

#[test]
fn hundreds_of_writes_and_a_watch_share_a_connection() {
    let cluster = Cluster::start(3, &[]);
    runtime().block_on(async {
        let clients = [Client::connect(&cluster.nodes[0]).await, Client::connect(&cluster.nodes[2]).await];
        let watch = clients[1].send("GET", "/v1/watch?prefix=k/&from=1", "").await.unwrap();
        let mut watch = watch.into_body();
        // More than a node takes of a connection at once: the client keeps the rest back.
        let puts: Vec<_> = (0..600)
            .map(|number| clients[number % 2].send("PUT", &format!("/v1/kv/k/{number}"), "v"))
            .collect();
        for put in puts {
            assert_eq!(put.await.unwrap().status(), 200);
        }
        assert_eq!(
            clients[0].ask("GET", "/v1/kv?prefix=k/&count_only", "").await.1,
            "{\"revision\":600,\"count\":600,\"more\":false}\n"
        );
        let told = until(&mut watch, "\nid: 600\n").await;
        assert_eq!(told.matches("\n\nid: ").count(), 600, "each revision once");
        assert_eq!(
            clients[1].ask("POST", "/set", "{\"key\":\"x\",\"value\":\"y\",\"action\":\"set\"}").await.0,
            200
        );
        // The same port speaks HTTP/1.1.
        assert_eq!(cluster.nodes[2].get("/get?key=x").body, "{\"key\":\"x\",\"value\":\"y\"}\n");
    });
}

#[test]
fn a_node_that_stops_ends_its_connections_in_order() {
    let cluster = Cluster::start(1, &[]);
    let node = &cluster.nodes[0];
    runtime().block_on(async {
        let client = Client::connect(node).await;
        let mut watch = client.send("GET", "/v1/watch", "").await.unwrap().into_body();
        until(&mut watch, "event: progress").await;
        let poll = client.send("GET", "/v1/kv/k?wait=600s", "");
        assert_eq!(client.ask("GET", "/v1/kv/k", "").await.0, 404);
        node.signal(Signal::TERM);
        // What waits is answered, the watch ends, and the connection is closed in good order.
        assert_eq!(poll.await.unwrap().status(), 503);
        while let Some(frame) = watch.frame().await {
            frame.unwrap();
        }
        assert!(client.connection.await.unwrap());
    });
    assert!(node.wait_for_end().success());
}

#[test]
fn the_age_of_a_local_read_grows_while_no_leader_is_heard() {
    let cluster = Cluster::start(3, &[]);
    let node = &cluster.nodes[0];
    assert_eq!(node.call("PUT", "/v1/kv/k", "v").status, 200);
    let age = || {
        let answered = node.get("/v1/kv/k?level=local");
        assert_eq!(answered.body, "v");
        answered.header("infinitystore-age-ms").and_then(|age| age.parse::<u64>().ok())
    };
    // Heartbeats keep it low.
    eventually("an age below a second", || age().filter(|age| *age < 1000));
    for other in &cluster.nodes[1..] {
        other.kill();
    }
    eventually("an age above two seconds", || age().filter(|age| *age > 2000));
    for other in &cluster.nodes[1..] {
        other.start();
    }
    eventually("an age below a second again", || age().filter(|age| *age < 1000));
    assert_eq!(node.get("/v1/kv/k").header("infinitystore-age-ms"), None, "a linearizable read has none");
}
