//! Looks for new certificates, and warns of old ones, for as long as a node runs.

use crate::node::beside::beside;
use crate::raft::Time;
use crate::runtime::{Env, Metrics};
use crate::tls::{CertificateStatus, PortTls, Reloaded};
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::{error, info, warn};

/// How often the files are read. They are compared by their content: a certificate may be replaced
/// by renaming a folder above it, on a file system that notifies nobody, and within the same
/// second. Reading a few KiB every ten seconds costs nothing that can be measured.
const LOOK_MICROS: u64 = 10_000_000;
/// So long before its end an operator is warned …
const WARN_SECONDS: i64 = 30 * DAY_SECONDS;
/// … again and again, after this time.
const WARN_AGAIN_MICROS: u64 = 86_400_000_000;
const DAY_SECONDS: i64 = 86_400;

/// Takes new certificates into use when their files change, on all ports that
/// [`Metrics`] knows to speak TLS. What is no good is not taken, and is said once.
pub async fn keep_certificates<E: Env>(env: E, metrics: Metrics) {
    let ports = metrics.certificates.ports();
    if ports.is_empty() {
        return;
    }
    let mut warned: BTreeMap<&'static str, Time> = BTreeMap::new();
    loop {
        for (port, tls) in &ports {
            warn_of_end(&env, &mut warned, port, &tls.status());
        }
        env.sleep_until(env.now().plus(LOOK_MICROS)).await;
        for (port, tls) in &ports {
            look(&env, port, tls).await;
        }
    }
}

async fn look<E: Env>(env: &E, port: &'static str, tls: &Arc<PortTls>) {
    let again = tls.clone();
    // A file system that does not answer must not hold up the node.
    match beside(env, "certificates", move || again.reload()).await {
        Ok(Reloaded::Same) => {}
        Ok(Reloaded::New(status)) => {
            info!(port, source = %status.source, days = status.expires_in_seconds / DAY_SECONDS, "a new certificate is in use");
        }
        Ok(Reloaded::Bad(why)) => {
            let source = tls.status().source;
            error!(port, %source, %why, "the new certificate is no good; the old one stays in use");
        }
        Err(why) => warn!(port, %why, "cannot look for new certificates"),
    }
}

fn warn_of_end<E: Env>(
    env: &E,
    warned: &mut BTreeMap<&'static str, Time>,
    port: &'static str,
    status: &CertificateStatus,
) {
    if status.expires_in_seconds > WARN_SECONDS {
        warned.remove(port);
        return;
    }
    let now = env.now();
    if warned.get(port).is_some_and(|at| now.since(*at) < WARN_AGAIN_MICROS) {
        return;
    }
    warned.insert(port, now);
    let (source, days) = (&status.source, status.expires_in_seconds / DAY_SECONDS);
    if status.expires_in_seconds > 0 {
        warn!(port, %source, days, "a certificate ends soon; put a new one in its place, the node takes it by itself");
    } else {
        error!(port, %source, days, "A CERTIFICATE HAS ENDED: nobody believes it any more; put a new one in its place");
    }
}
