//! The TLS of a client of the HTTP API.

use crate::tls::certificate::PeerCertificate;
use crate::tls::clock::WallClock;
use crate::tls::files::{self, PemSet, TlsError};
use crate::tls::port::{connect, provider, server_name, unusable, words};
use crate::tls::stream::Stream;
use rustls::{AlertDescription, ClientConfig};
use std::error::Error;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// Whom a client trusts, and what it shows.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    name: Option<PeerCertificate>,
}

impl PartialEq for ClientTls {
    /// Whether they are the same one.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for ClientTls {}

impl ClientTls {
    /// Trusts the authorities, and shows the certificate if there is one.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(pem: &PemSet, clock: WallClock) -> Result<Self, TlsError> {
        let roots = files::authorities(&pem.authorities)?;
        let builder = ClientConfig::builder_with_details(provider(), Arc::new(clock))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(roots);
        let (mut config, name) = if pem.certificate.is_empty() {
            (builder.with_no_client_auth(), None)
        } else {
            let (chain, _) = files::chain(&pem.certificate)?;
            let name = chain.first().and_then(PeerCertificate::of);
            let key = files::key(&pem.key)?;
            (builder.with_client_auth_cert(chain, key).map_err(unusable)?, name)
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), name })
    }

    /// Makes the handshake with the server at `addr` (`host:port`), which has to be named in its
    /// certificate.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        addr: &str,
        stream: S,
    ) -> io::Result<Stream<S>> {
        let name = server_name(addr).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{addr} is no name for TLS"))
        })?;
        let connected = connect(self.config.clone(), name, stream).await;
        connected.map(|stream| Stream::Tls(Box::new(stream))).map_err(io::Error::other)
    }

    /// The name in the certificate that it shows, if it shows one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|certificate| certificate.name.as_str())
    }
}

/// Why the other side has not let this one in, if that is what an error says: an alert about the
/// certificate that was shown, or was not. With TLS 1.3 it comes when the client's part of the
/// handshake is over, and instead of the first answer.
#[must_use]
pub fn refusal_in(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found @ rustls::Error::AlertReceived(alert)) =
            inner.and_then(|inner| inner.downcast_ref::<rustls::Error>())
            && is_about_certificates(*alert)
        {
            return Some(words(found));
        }
        next = error.source();
    }
    None
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
    )
}
