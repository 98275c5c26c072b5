//! Keeps a lease alive, and knows until when it is certain that it lives.

use crate::client::{CallError, Client, ErrorKind, Watch, WatchMessage};
use crate::kv::LeaseId;
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

    /// Renews the lease, until that fails.
    pub(super) async fn keep(&mut self) -> Loss {
        loop {
            sleep_until(self.confirmed + self.ttl / RENEW_AFTER).await;
            // A quarter of the time is left to stop what relies on it.
            let deadline = self.confirmed + self.ttl / 4 * 3;
            let mut last = "no node answered in time".to_owned();
            loop {
                let asked = Instant::now();
                match timeout_at(deadline, self.client.keep_lease_alive(self.lease)).await {
                    Ok(Ok(_)) => {
                        self.confirmed = asked;
                        break;
                    }
                    Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
                        return Loss::Gone(format!("lease {} has ended", self.lease));
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

/// Waits until the key is deleted that stands for what is held.
pub(super) async fn deleted(watch: &mut Watch) -> Loss {
    loop {
        match watch.next().await {
            Ok(WatchMessage::Changes(_)) => return Loss::Gone("another one took it away".to_owned()),
            Ok(WatchMessage::Progress(_) | WatchMessage::Compacted(_)) => {}
            // The renewals go on, and notice the end of the lease.
            Err(error) => {
                tracing::debug!(%error, "the lock's key is not watched now");
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}
