//! Keeps a lease alive, and knows until when it is certain that it lives.

use crate::client::{CallError, Client, ErrorKind, ReadOptions, Watch, WatchMessage};
use crate::kv::{LeaseId, Revision};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// A renewal is due when this part of the lease's time has passed since the last one.
const RENEW_AFTER: u32 = 4;
/// Between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Why something is not held any more.
#[derive(Debug)]
pub(super) enum Loss {
    /// The lease has ended, or the key was deleted.
    Gone(String),
    /// Nobody has confirmed the lease for most of its time. It may end at that instant.
    Unconfirmed(Instant, String),
}

/// A lease, and when it was last known to begin anew.
pub(super) struct Keeper {
    client: Client,
    lease: LeaseId,
    ttl: Duration,
    /// When the last renewal that was confirmed was asked for: the lease lives at least until its
    /// time has passed since then.
    confirmed: Instant,
}

impl Keeper {
    /// Of a lease that was asked for at that instant, or later.
    pub(super) fn new(client: Client, (lease, ttl): (LeaseId, Duration), confirmed: Instant) -> Self {
        Self { client, lease, ttl, confirmed }
    }

    /// Renews the lease at once if much of its time has passed already: nodes that did not answer
    /// come before the one that granted it.
    pub(super) async fn begin(&mut self) -> Option<Loss> {
        if self.confirmed.elapsed() < self.ttl / RENEW_AFTER {
            return None;
        }
        let asked = Instant::now();
        match self.client.keep_lease_alive(self.lease).await {
            Ok(_) => self.confirmed = asked,
            Err(error) if error.kind() == ErrorKind::NotFound => return Some(self.gone()),
            // Whether there is time for another attempt is judged as always.
            Err(error) => tracing::debug!(%error, "the new lease is not renewed yet"),
        }
        None
    }

    fn gone(&self) -> Loss {
        Loss::Gone(format!("lease {} has ended", self.lease))
    }

    /// Whether the time is over within which what relies on the lease may go on.
    pub(super) fn overdue(&self) -> Option<Loss> {
        let why = || format!("lease {} was not renewed in time", self.lease);
        (Instant::now() >= self.deadline()).then(|| Loss::Unconfirmed(self.confirmed + self.ttl, why()))
    }

    /// A quarter of the time is left then to stop what relies on it.
    fn deadline(&self) -> Instant {
        self.confirmed + self.ttl / 4 * 3
    }

    /// Renews the lease, until that fails.
    pub(super) async fn keep(&mut self) -> Loss {
        loop {
            sleep_until(self.confirmed + self.ttl / RENEW_AFTER).await;
            let deadline = self.deadline();
            let mut last = "no node answered in time".to_owned();
            loop {
                let asked = Instant::now();
                match timeout_at(deadline, self.client.keep_lease_alive(self.lease)).await {
                    Ok(Ok(_)) => {
                        self.confirmed = asked;
                        break;
                    }
                    Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
                        return self.gone();
                    }
                    Ok(Err(error)) if Instant::now() < deadline => {
                        last = error.to_string();
                        sleep(RETRY_PAUSE).await;
                    }
                    Ok(Err(CallError { endpoint, failure, .. })) => last = format!("{endpoint}: {failure}"),
                    Err(_) => {}
                }
                if Instant::now() >= deadline {
                    let why = format!("lease {} could not be renewed: {last}", self.lease);
                    return Loss::Unconfirmed(self.confirmed + self.ttl, why);
                }
            }
        }
    }
}

/// Waits until the key is deleted that stands for what is held. It was created at `fence`.
pub(super) async fn deleted(watch: &mut Watch, client: &mut Client, (key, fence): (&[u8], Revision)) -> Loss {
    loop {
        match watch.next().await {
            Ok(WatchMessage::Changes(_)) => return taken_away(),
            Ok(WatchMessage::Progress(_)) => {}
            // Its deletion may be in what is gone from history.
            Ok(WatchMessage::Compacted(_)) => {
                if !is_there(client, key, fence).await {
                    return taken_away();
                }
            }
            // The renewals go on, and notice the end of the lease.
            Err(error) => {
                tracing::debug!(%error, "the lock's key is not watched now");
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

fn taken_away() -> Loss {
    Loss::Gone("its key was deleted, or another one took it away".to_owned())
}

/// Whether the key is there that was created at that revision. Asks until somebody knows.
async fn is_there(client: &mut Client, key: &[u8], fence: Revision) -> bool {
    loop {
        match client.get_key(key, ReadOptions::default()).await {
            Ok(found) => return found.is_some_and(|found| found.create_revision == fence),
            Err(error) => {
                tracing::debug!(%error, "nobody says whether the lock's key is there");
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}
