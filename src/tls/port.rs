//! The TLS of one port: its certificate, who is let in, and how both are replaced while the port is
//! in use.

use crate::codec::host_of;
use crate::tls::certificate::{Certificate, PeerCertificate};
use crate::tls::clock::WallClock;
use crate::tls::files::{self, CertificateSource, PemSet, TlsError};
use crate::tls::stream::{Begun, HandshakeBounds, Stream};
use crate::tls::verify::{ChainTooLong, MemberVerifier, ShortChains};
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::{fmt, io};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// How every handshake begins: a record of that kind.
const HANDSHAKE: u8 = 0x16;
/// What a caller may send before it is let in: its hello, certificates as long as they may be, and
/// what is around them. Rustls holds a message until it is complete, up to 64 KiB.
const HANDSHAKE_BOUNDS: HandshakeBounds = HandshakeBounds { hello: Some(16 << 10), all: 40 << 10 };
/// What clients may speak, the preferred first.
const CLIENT_PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What kind of caller a port is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// For clients.
    Clients {
        /// Whether they show certificates.
        certificates: ClientCertificates,
    },
    /// For the members of a cluster, each of which shows the certificate of a node.
    Members {
        /// The `--node-id` of this node, which its certificate has to name.
        name: String,
    },
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None are asked for.
    NotAsked,
    /// They are asked for one. A client that has none is let in all the same.
    Optional,
    /// A client without one is not let in.
    Required,
}

/// The TLS of one port. It is shared; all that use it see a new certificate at once, and
/// connections that are open stay as they are.
pub struct PortTls {
    audience: Audience,
    source: Arc<dyn CertificateSource>,
    clock: WallClock,
    loaded: Mutex<Arc<Loaded>>,
    trouble: Mutex<Option<String>>,
    handshakes: AtomicU64,
    handshakes_failed: AtomicU64,
    reloads: AtomicU64,
}

/// What is in use now.
struct Loaded {
    pem: PemSet,
    certificate: Certificate,
    accepting: Arc<ServerConfig>,
    /// On the raft port.
    connecting: Option<Arc<ClientConfig>>,
}

/// What is known of a port's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Where it comes from.
    pub source: String,
    /// Its name.
    pub name: String,
    /// Until when it is valid, seconds since 1970.
    pub not_after: u64,
    /// Seconds until then; negative afterwards.
    pub expires_in_seconds: i64,
    /// Why what is there now is not in use, if it is not.
    pub trouble: Option<String>,
    /// How often a new one was taken into use.
    pub reloads: u64,
    /// Handshakes that went well.
    pub handshakes: u64,
    /// Handshakes that failed.
    pub handshakes_failed: u64,
}

/// Whom a connection is made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee<'n> {
    /// The member of that name, wherever it is.
    Member(&'n str),
    /// The node at that address (`host:port`), which has to be one of its certificate's.
    Address(&'n str),
    /// The member of that name, or the node at that address.
    Either(&'n str, &'n str),
}

/// Why a connection was not accepted.
#[derive(Debug)]
pub enum NotAccepted<S> {
    /// The caller hung up before it said anything.
    Silent,
    /// The caller does not speak TLS. Here is its stream, without its first byte.
    NoTls(S),
    /// The handshake failed. In words, for an operator.
    Failed(String),
}

/// What a reload came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// Nothing has changed.
    Same,
    /// A new certificate, or new authorities, are in use.
    New(CertificateStatus),
    /// What is there now is no good, which is news. The old one stays in use.
    Bad(TlsError),
}

impl PartialEq for PortTls {
    /// Whether they are the same one.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for PortTls {}

impl fmt::Debug for PortTls {
    /// Says nothing of keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortTls").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl PortTls {
    /// Reads the certificates of a port.
    ///
    /// # Errors
    /// [`TlsError`]: they cannot be read, do not fit together, or are not for that audience.
    pub fn load(
        audience: Audience,
        source: Arc<dyn CertificateSource>,
        clock: WallClock,
    ) -> Result<Arc<Self>, TlsError> {
        let loaded = Loaded::build(source.read()?, &audience, &clock)
            .map_err(|TlsError(why)| TlsError(format!("{}: {why}", source.name())))?;
        Ok(Arc::new(Self {
            audience,
            source,
            clock,
            loaded: Mutex::new(Arc::new(loaded)),
            trouble: Mutex::default(),
            handshakes: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
        }))
    }

    /// Reads them again. What is no good is not taken into use.
    pub fn reload(&self) -> Reloaded {
        let built = self.source.read().and_then(|pem| {
            if pem == self.loaded().pem {
                return Ok(None);
            }
            let loaded = Loaded::build(pem, &self.audience, &self.clock)?;
            if loaded.certificate.not_after <= self.clock.seconds() {
                return Err(TlsError("the new certificate has ended already".to_owned()));
            }
            Ok(Some(loaded))
        });
        let mut trouble = lock(&self.trouble);
        match built {
            Ok(None) => {
                *trouble = None;
                Reloaded::Same
            }
            Ok(Some(loaded)) => {
                *trouble = None;
                drop(trouble);
                *lock(&self.loaded) = Arc::new(loaded);
                self.reloads.fetch_add(1, Ordering::Relaxed);
                Reloaded::New(self.status())
            }
            Err(error) => {
                let is_news = trouble.as_ref() != Some(&error.0);
                *trouble = Some(error.0.clone());
                if is_news { Reloaded::Bad(error) } else { Reloaded::Same }
            }
        }
    }

    /// What is known of the certificate.
    #[must_use]
    pub fn status(&self) -> CertificateStatus {
        let loaded = self.loaded();
        let signed = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        let not_after = loaded.certificate.not_after;
        CertificateStatus {
            source: self.source.name(),
            name: loaded.certificate.name().to_owned(),
            not_after,
            expires_in_seconds: signed(not_after) - signed(self.clock.seconds()),
            trouble: lock(&self.trouble).clone(),
            reloads: self.reloads.load(Ordering::Relaxed),
            handshakes: self.handshakes.load(Ordering::Relaxed),
            handshakes_failed: self.handshakes_failed.load(Ordering::Relaxed),
        }
    }

    /// Waits until a caller begins a handshake, which costs next to nothing. The caller of this
    /// sees to it that it does not take for ever.
    ///
    /// # Errors
    /// [`NotAccepted`].
    pub async fn begin<S: AsyncRead + Unpin>(&self, mut stream: S) -> Result<Begun<S>, NotAccepted<S>> {
        let mut first = [0];
        match stream.read(&mut first).await {
            Ok(1) if first[0] == HANDSHAKE => Ok(Begun::new(Some(first[0]), stream)),
            Ok(1) => {
                self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                Err(NotAccepted::NoTls(stream))
            }
            Ok(_) | Err(_) => Err(NotAccepted::Silent),
        }
    }

    /// Takes the handshake that a caller has begun. Returns its stream, and its certificate if it
    /// has shown one. The caller of this sees to it that it does not take for ever, and that not
    /// too many are taken at once.
    ///
    /// # Errors
    /// [`NotAccepted`].
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        begun: Begun<S>,
    ) -> Result<(Stream<S>, Option<PeerCertificate>), NotAccepted<S>> {
        let acceptor = TlsAcceptor::from(self.loaded().accepting.clone());
        let accepted = acceptor.accept(begun.within(HANDSHAKE_BOUNDS)).await;
        let mut accepted = accepted.map_err(|error| {
            self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            NotAccepted::Failed(handshake_words(&error))
        })?;
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        accepted.get_mut().0.end_handshake();
        let shown = accepted.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let peer = match shown {
            None => None,
            // What cannot be read could be anybody's, so it is nobody's.
            Some(der) => match PeerCertificate::of(der) {
                Some(peer) => Some(peer),
                None => {
                    self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                    return Err(NotAccepted::Failed("its certificate cannot be read".to_owned()));
                }
            },
        };
        Ok((Stream::Tls(Box::new(TlsStream::from(accepted))), peer))
    }

    /// Makes the handshake of a connection to another node, and makes sure that it is the one that
    /// was called.
    ///
    /// # Errors
    /// Why it is not, in words.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        callee: Callee<'_>,
    ) -> Result<Stream<S>, String> {
        let Some(config) = self.loaded().connecting.clone() else {
            return Err("this certificate is not for calling other nodes".to_owned());
        };
        let fail = |why: String| {
            self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            why
        };
        let connected = connect(config, nobody(), stream).await.map_err(fail)?;
        let shown = connected.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let der = shown.ok_or_else(|| fail("it has shown no certificate".to_owned()))?;
        check_callee(der, callee).map_err(fail)?;
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        Ok(Stream::Tls(Box::new(connected)))
    }

    fn loaded(&self) -> Arc<Loaded> {
        lock(&self.loaded).clone()
    }
}

impl Loaded {
    fn build(pem: PemSet, audience: &Audience, clock: &WallClock) -> Result<Self, TlsError> {
        let (chain, certificate) = files::chain(&pem.certificate)?;
        let (accepting, connecting) = match audience {
            Audience::Clients { certificates } => (for_clients(&pem, chain, *certificates, clock)?, None),
            Audience::Members { name } => {
                if !certificate.is_of_member(name) {
                    let found = certificate.name();
                    return Err(TlsError(format!(
                        "this certificate is of {found:?}, and this node is called {name:?}: the common name of its \
                         certificate has to be its --node-id"
                    )));
                }
                let (accepting, connecting) = for_members(&pem, chain, clock)?;
                (accepting, Some(connecting))
            }
        };
        Ok(Self { pem, certificate, accepting, connecting })
    }
}

fn for_clients(
    pem: &PemSet,
    chain: Vec<CertificateDer<'static>>,
    certificates: ClientCertificates,
    clock: &WallClock,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match certificates {
        ClientCertificates::NotAsked => builder.with_no_client_auth(),
        ClientCertificates::Optional | ClientCertificates::Required => {
            let roots = files::authorities(&pem.authorities)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let is_optional = certificates == ClientCertificates::Optional;
            let verifier = if is_optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(ShortChains::new(verifier.build().map_err(unusable)?))
        }
    };
    let mut config = builder.with_single_cert(chain, files::key(&pem.key)?).map_err(unusable)?;
    if certificates != ClientCertificates::NotAsked {
        take_up_no_session(&mut config);
    }
    config.alpn_protocols = CLIENT_PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

/// Each connection shows its certificate anew: a session that is taken up again would bring one
/// that was verified when the session began, and may have ended since.
fn take_up_no_session(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
}

/// The configurations of the raft port: to accept, and to connect.
fn for_members(
    pem: &PemSet,
    chain: Vec<CertificateDer<'static>>,
    clock: &WallClock,
) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>), TlsError> {
    let roots = files::authorities(&pem.authorities)?;
    let verifier = MemberVerifier::new(roots, provider()).map_err(unusable)?;
    // What the other nodes would say of it. Its dates are not looked at: it may have ended, and the
    // node is to start all the same, since its operator has to get at it.
    if let (Some(now), Some((own, between))) = (clock.current_time(), chain.split_first())
        && let Err(error) = verifier.verify(own, between, now)
        && !is_about_dates(&error)
    {
        let error = words(&error);
        return Err(TlsError(format!("the authorities given with it do not vouch for it: {error}")));
    }
    let key = files::key(&pem.key)?;
    let mut accepting = ServerConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier.clone())
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(unusable)?;
    take_up_no_session(&mut accepting);
    let mut connecting = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(unusable)?;
    connecting.resumption = Resumption::disabled();
    connecting.enable_sni = false;
    Ok((Arc::new(accepting), Arc::new(connecting)))
}

/// Makes a handshake.
///
/// # Errors
/// Why it failed, in words.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: S,
) -> Result<TlsStream<Begun<S>>, String> {
    let connected = TlsConnector::from(config).connect(name, Begun::new(None, stream)).await;
    connected.map(TlsStream::from).map_err(|error| handshake_words(&error))
}

/// Whether a certificate is that of whom was called.
fn check_callee(der: &CertificateDer<'_>, callee: Callee<'_>) -> Result<(), String> {
    match callee {
        Callee::Member(name) => {
            let found = Certificate::read(der).ok_or("its certificate cannot be read")?;
            if found.is_of_member(name) {
                return Ok(());
            }
            Err(format!("its certificate is of {:?}, and {name:?} was called", found.name()))
        }
        Callee::Either(name, addr) => {
            check_callee(der, Callee::Member(name)).or_else(|_| check_callee(der, Callee::Address(addr)))
        }
        Callee::Address(addr) => {
            let host = host_of(addr);
            let name = server_name(addr).ok_or_else(|| format!("{host:?} is no name for a certificate"))?;
            let parsed = ParsedCertificate::try_from(der).map_err(|error| words(&error))?;
            verify_server_name(&parsed, &name)
                .map_err(|_| format!("its certificate is not for {host}; make one that names that host"))
        }
    }
}

/// The host of an address, as a certificate names it.
pub(super) fn server_name(addr: &str) -> Option<ServerName<'static>> {
    let host = host_of(addr);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned()).ok()
}

/// A name that is not looked at.
fn nobody() -> ServerName<'static> {
    ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// The cryptography: ring's.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())).clone()
}

/// Rustls refuses what it was given.
pub(super) fn unusable(error: impl std::fmt::Display) -> TlsError {
    TlsError(format!("certificate and key cannot be used: {error}"))
}

fn is_about_dates(error: &rustls::Error) -> bool {
    use rustls::CertificateError as Wrong;
    matches!(
        error,
        rustls::Error::InvalidCertificate(
            Wrong::Expired
                | Wrong::ExpiredContext { .. }
                | Wrong::NotValidYet
                | Wrong::NotValidYetContext { .. }
        )
    )
}

/// Why a handshake failed, for an operator.
fn handshake_words(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(error) => words(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the connection was closed during the TLS handshake".to_owned()
        }
        None => error.to_string(),
    }
}

/// The same in the words of this program, where an operator can do something about it.
pub(super) fn words(error: &rustls::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Wrong, Error};
    match error {
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        Error::NoCertificatesPresented => "it has shown no certificate".to_owned(),
        Error::InvalidCertificate(Wrong::UnknownIssuer) => {
            "its certificate is of an authority that is not trusted here".to_owned()
        }
        Error::InvalidCertificate(Wrong::Expired | Wrong::ExpiredContext { .. }) => {
            "its certificate has ended".to_owned()
        }
        Error::InvalidCertificate(Wrong::NotValidYet | Wrong::NotValidYetContext { .. }) => {
            "its certificate is not valid yet; look at the clocks".to_owned()
        }
        Error::InvalidCertificate(Wrong::NotValidForName | Wrong::NotValidForNameContext { .. }) => {
            "its certificate is not for that name".to_owned()
        }
        Error::InvalidCertificate(Wrong::InvalidPurpose | Wrong::InvalidPurposeContext { .. }) => {
            "its certificate is not for this purpose: members need one for servers and clients".to_owned()
        }
        Error::InvalidCertificate(Wrong::Other(other)) if other.0.is::<ChainTooLong>() => {
            ChainTooLong.to_string()
        }
        Error::AlertReceived(Alert::UnknownCA) => {
            "it does not trust the authority of this certificate".to_owned()
        }
        Error::AlertReceived(Alert::CertificateRequired) => "it wants a certificate".to_owned(),
        Error::AlertReceived(Alert::CertificateExpired) => {
            "it says that this certificate has ended".to_owned()
        }
        other => other.to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole values are replaced: consistent wherever a panic could have struck.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
