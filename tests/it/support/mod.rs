//! Clusters of real processes, clients that record what they saw, and bare HTTP.

mod cluster;
mod command;
mod http;
mod load;
mod node;

pub(crate) use cluster::Cluster;
pub(crate) use command::{Ran, Shell, argument};
pub(crate) use http::{Connection, Response, call};
pub(crate) use load::{Acknowledged, Load, assert_linearizable};
pub(crate) use node::{Node, failed_start, failed_start_with};

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Whatever is waited for comes within this time even on a busy machine; a test that waits longer
/// has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `look` finds something.
///
/// # Panics
/// When it has not come for a long time; `what` says what was waited for.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// A port on which nobody listens, each time another one. Below the range from which the system
/// takes ports for outgoing connections, so that it is still free when a node that was killed comes
/// back to it.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 15_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap();
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(start);
        let port = FIRST + offset % COUNT;
        let free = ["127.0.0.1", "0.0.0.0", "[::1]"].iter().all(|host| {
            // A host without IPv6 has no listener there either.
            let bound = TcpListener::bind(format!("{host}:{port}"));
            bound.is_ok() || bound.is_err_and(|error| error.kind() != std::io::ErrorKind::AddrInUse)
        });
        if free {
            return port;
        }
    }
    panic!("no free port");
}

/// A port for `dev` to begin at, each time a hundred further on. It takes those behind it too,
/// which [`free_port`] must not give to others: a node that is called as a member of another
/// cluster withdraws.
pub(crate) fn free_base_port() -> u16 {
    const FIRST: u16 = 30_050;
    const COUNT: u16 = 26;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap();
    FIRST + 100 * (NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(start) % COUNT)
}
