//! The certificates of a node's ports, for those that look after them.

use crate::tls::{CertificateStatus, PortTls};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// `client` or `peer`, and its TLS.
type Ports = Vec<(&'static str, Arc<PortTls>)>;

/// The ports that speak TLS. All clones are one; shared between the ports, the task that looks for
/// new certificates, and the HTTP server that shows them.
#[derive(Clone, Debug, Default)]
pub struct Certificates(Arc<Mutex<Ports>>);

impl Certificates {
    /// A port speaks TLS: `client` or `peer`.
    pub fn add(&self, port: &'static str, tls: &Arc<PortTls>) {
        self.lock().push((port, tls.clone()));
    }

    /// The ports that do.
    #[must_use]
    pub fn ports(&self) -> Vec<(&'static str, Arc<PortTls>)> {
        self.lock().clone()
    }

    /// What is known of a port's certificate; `None`: it does not speak TLS.
    #[must_use]
    pub fn status(&self, port: &str) -> Option<CertificateStatus> {
        self.lock().iter().find(|(known, _)| *known == port).map(|(_, tls)| tls.status())
    }

    fn lock(&self) -> MutexGuard<'_, Ports> {
        // A list that only grows: consistent wherever a panic could have struck.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
