//! File descriptors: how many the system gives, and how they are divided.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// For the log, snapshots, listeners, standard streams and what the runtime needs.
const OWN: u64 = 64;
/// Descriptors for the raft port, at most and at least: a few for each member, and for callers that
/// are turned away.
const RAFT_MAX: u64 = 1024;
const RAFT_MIN: u64 = 16;
/// The raft port gets one descriptor in this many.
const RAFT_ONE_IN: u64 = 8;
/// HTTP connections that are turned away need a descriptor too: they get one in this many of the
/// rest.
const REFUSED_ONE_IN: u64 = 16;
const REFUSED_MAX: u64 = 128;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// For clients.
    pub(super) http: usize,
    /// For other nodes.
    pub(super) raft: usize,
    /// For clients that are turned away.
    pub(super) refused: usize,
}

/// Raises the soft limit of open files to the hard one. Returns the limit then; `None` if there is
/// none.
pub(super) fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => {
            debug!(from = current, to = maximum, "raised the limit of open files");
            maximum
        }
        Err(error) => {
            warn!(%error, limit = current, "the limit of open files could not be raised");
            current
        }
    }
}

/// Divides `limit` so that connections never take what the log needs; `http` is what was asked for.
pub(super) fn share(limit: Option<u64>, http: usize) -> Shares {
    let Some(limit) = limit else {
        return Shares { http, raft: number(RAFT_MAX), refused: number(REFUSED_MAX) };
    };
    let raft = (limit / RAFT_ONE_IN).clamp(RAFT_MIN, RAFT_MAX);
    let rest = limit.saturating_sub(raft + OWN);
    let refused = (rest / REFUSED_ONE_IN).min(REFUSED_MAX);
    let room = (rest - refused).max(1);
    Shares { http: http.min(number(room)), raft: number(raft), refused: number(refused) }
}

fn number(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
