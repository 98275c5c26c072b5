//! Memory under far more load than a cluster can take: large values, readers that do not read, many
//! connections.
//!
//! A few seconds by default. For a long run, from the shell:
//!
//!     PRESSURE_SECONDS=600 PRESSURE_CONNECTIONS=2000 \
//!         cargo test --release --test it pressure -- --nocapture

use crate::support::{Cluster, Connection};
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Values are so large, bytes.
const VALUE_BYTES: usize = 1 << 20;
/// Different keys: what the store itself may hold.
const KEYS: usize = 24;
/// `--request-memory` of the nodes.
const REQUEST_MEMORY: usize = 64 << 20;
/// Writers: with one value each, ten times what the budget has room for at all nodes.
const WRITERS: usize = 320;
/// What one connection may hold beside the budget, bytes: two buffers and a task.
const CONNECTION_BYTES: usize = 96 << 10;
/// What a node holds beside the budget, the connections and the store: the log's tail, what is on
/// its way to the disk and to two peers, a snapshot that is being written, and the process itself.
const REST_BYTES: usize = 640 << 20;

fn parameter(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn memory_stays_below_what_the_settings_promise() {
    let seconds = parameter("PRESSURE_SECONDS", 4);
    let connections = parameter("PRESSURE_CONNECTIONS", 400);
    let writers = WRITERS.min(connections / 2);
    let cluster = Cluster::start(3, &["--request-memory=64MiB"]);
    let addrs: Vec<SocketAddr> =
        cluster.nodes.iter().map(|node| SocketAddr::from(([127, 0, 0, 1], node.http_port))).collect();
    let promised = REQUEST_MEMORY + connections * CONNECTION_BYTES + 3 * KEYS * VALUE_BYTES + REST_BYTES;
    let value = "v".repeat(VALUE_BYTES);
    for key in 0..KEYS {
        assert_eq!(cluster.nodes[0].set(&format!("key-{key}"), &value).status, 200);
    }
    let idle: Vec<TcpStream> = (0..connections - writers - writers / 2)
        .map(|number| TcpStream::connect(addrs[number % addrs.len()]).unwrap())
        .collect();
    let (stop, written, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut highest = vec![0; cluster.nodes.len()];
    thread::scope(|scope| {
        for number in 0..writers {
            let (node, value, stop) = (&cluster.nodes[number % 3], &value, &stop);
            let (written, refused) = (&written, &refused);
            scope.spawn(move || {
                let key = format!("key-{}", number % KEYS);
                let body = serde_json::json!({"key": key, "value": value, "action": "set"}).to_string();
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    let Ok(open) = connection.take().map_or_else(|| Connection::open(node.http_port), Ok)
                    else {
                        continue;
                    };
                    let mut open = open;
                    match open.request("POST", "/set", &body) {
                        Ok(answer) if answer.status == 200 => {
                            written.fetch_add(1, Ordering::Relaxed);
                            connection = Some(open);
                        }
                        // Refused before the body was read: the connection ends, and the client
                        // waits as it is told to.
                        Ok(_) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            thread::sleep(Duration::from_millis(50));
                        }
                        Err(_) => {}
                    }
                }
            });
        }
        for number in 0..writers / 2 {
            let (addr, stop) = (addrs[number % addrs.len()], &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    ask_and_hardly_read(addr, number % KEYS, stop);
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(seconds as u64);
        while Instant::now() < end {
            for (node, highest) in cluster.nodes.iter().zip(&mut highest) {
                *highest = resident_bytes(node.pid().as_raw_nonzero().get()).max(*highest);
            }
            thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (written, refused) = (written.into_inner(), refused.into_inner());
    let highest: Vec<usize> = highest.into_iter().map(|bytes| bytes >> 20).collect();
    println!("{written} written, {refused} refused; resident {highest:?} MiB of {} MiB", promised >> 20);
    assert!(written > 0);
    assert!(highest.iter().all(|&mebibytes| mebibytes < promised >> 20), "{highest:?} MiB");
    drop(idle);
    cluster.wait_until_ready();
    assert_eq!(cluster.nodes[0].set("after", "all").status, 200);
}

/// Asks for a value over a connection with a small buffer, and takes little of it, slowly.
fn ask_and_hardly_read(addr: SocketAddr, key: usize, stop: &AtomicBool) {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(1))).unwrap();
    if connect(&socket, &addr).is_err() {
        return;
    }
    let mut stream = TcpStream::from(socket);
    let asked = write!(stream, "GET /get?key=key-{key}&level=local HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut some = [0; 512];
    while asked.is_ok() && !stop.load(Ordering::Relaxed) && stream.read(&mut some).is_ok_and(|read| read > 0)
    {
        thread::sleep(Duration::from_millis(100));
    }
}

/// Resident memory of a process.
fn resident_bytes(pid: i32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}
