//! How connections between nodes are secured: both ends show certificates, before anything else is
//! said. Without certificates they are as they are.

use crate::codec::FeatureLevels;
use crate::peer::address_book::AddressBook;
use crate::peer::hello::{HelloAnswer, Manner};
use crate::raft::Time;
use crate::runtime::door::Caller;
use crate::runtime::gate::Gate;
use crate::runtime::{Env, Pace, until};
use crate::tls::{Callee, NotAccepted, PeerCertificate, PortTls, Stream};
use std::io;
use std::sync::Arc;
use tokio::io::AsyncReadExt;

/// A caller without TLS says at most so much before it hears the answer.
const FIRST_WORDS_BYTES: usize = 4 << 10;
/// What a node hears that calls without TLS.
const SPEAKS_TLS: &str = "this node speaks TLS with the others: start yours with --peer-tls-cert, --peer-tls-key and \
     --peer-tls-ca";

/// How this node calls others.
#[derive(Clone, Debug)]
pub(crate) struct Dialer<E> {
    /// Sockets and time.
    pub env: E,
    /// This node's certificate, and whom it trusts.
    pub tls: Option<Arc<PortTls>>,
    /// The names of the members.
    pub names: Option<Arc<AddressBook>>,
    /// The levels that it speaks.
    pub speaks: FeatureLevels,
}

impl<E: Env> Dialer<E> {
    /// One that has no certificates.
    #[cfg(test)]
    pub(crate) fn plain(env: &E) -> Self {
        Self { env: env.clone(), tls: None, names: None, speaks: FeatureLevels::OF_THIS_RELEASE }
    }

    /// Calls the member of that name; without a name, the node at the address.
    ///
    /// # Errors
    /// What the system says, or why that is not whom this node called.
    pub(crate) async fn call_member(&self, name: Option<&str>, addr: &str) -> io::Result<Stream<E::Stream>> {
        self.call(addr, name.map_or(Callee::Address(addr), Callee::Member)).await
    }

    /// Calls the node at the address.
    ///
    /// # Errors
    /// As [`Self::call_member`].
    pub(crate) async fn call_address(&self, addr: &str) -> io::Result<Stream<E::Stream>> {
        let name = self.names.as_ref().and_then(|names| names.name_at(addr));
        let callee = name.as_ref().map_or(Callee::Address(addr), |name| Callee::Either(name, addr));
        self.call(addr, callee).await
    }

    /// Calls the member of that name, or else the node, at an address that somebody else has named,
    /// who may not have this machine talk to its own link.
    ///
    /// # Errors
    /// As [`Self::call_member`].
    pub(crate) async fn call_stranger(
        &self,
        name: Option<&str>,
        addr: &str,
    ) -> io::Result<Stream<E::Stream>> {
        let known = self.names.as_ref().and_then(|names| names.name_at(addr));
        let callee = match (name, &known) {
            (Some(name), _) => Callee::Member(name),
            (None, Some(known)) => Callee::Either(known, addr),
            (None, None) => Callee::Address(addr),
        };
        self.secure(self.env.connect_beyond_link(addr).await?, callee).await
    }

    async fn call(&self, addr: &str, callee: Callee<'_>) -> io::Result<Stream<E::Stream>> {
        self.secure(self.env.connect(addr).await?, callee).await
    }

    async fn secure(&self, stream: E::Stream, callee: Callee<'_>) -> io::Result<Stream<E::Stream>> {
        match &self.tls {
            None => Ok(Stream::Plain(stream)),
            Some(tls) => tls.connect(stream, callee).await.map_err(io::Error::other),
        }
    }
}

/// A caller that was not let in.
pub(crate) struct TurnedAway {
    /// The kind of reason.
    pub kind: &'static str,
    /// The reason. Empty: it has hung up by itself.
    pub reason: String,
}

/// How this node takes handshakes: with its certificate, and not too many at once.
#[derive(Debug)]
pub(crate) struct Guard<E> {
    /// Its certificate, and whom it trusts.
    pub tls: Arc<PortTls>,
    /// Lets handshakes go on.
    pub gate: Arc<Gate<E>>,
}

impl<E: Env> Guard<E> {
    /// With that certificate, if there is one.
    pub(crate) fn of(env: &E, tls: Option<&Arc<PortTls>>) -> Option<Self> {
        let gate = || Gate::new(env.clone(), Pace::default());
        tls.map(|tls| Self { tls: tls.clone(), gate: gate() })
    }
}

/// Takes the handshake of a caller, if this node has certificates. A caller without TLS is told so.
///
/// # Errors
/// [`TurnedAway`].
pub(crate) async fn accept_secured<E: Env>(
    env: &E,
    guard: Option<&Guard<E>>,
    (stream, from): (E::Stream, &str),
    deadline: Time,
) -> Result<(Stream<E::Stream>, Option<PeerCertificate>), TurnedAway> {
    let Some(Guard { tls, gate }) = guard else { return Ok((Stream::Plain(stream), None)) };
    let away = |kind, reason: &str| TurnedAway { kind, reason: reason.to_owned() };
    let caller = Caller::of(from);
    let handshake = async {
        let begun = tls.begin(stream).await?;
        gate.pass(&caller, tls.accept(begun)).await
    };
    match until(env, deadline, handshake).await {
        None => Err(away("silent", "it made no TLS handshake in time")),
        Some(Ok((stream, Some(certificate)))) => Ok((stream, Some(certificate))),
        Some(Ok((_, None))) => Err(away("tls", "it has shown no certificate")),
        Some(Err(NotAccepted::Silent)) => Err(away("gone", "")),
        Some(Err(NotAccepted::Failed(why))) => Err(away("tls", &why)),
        Some(Err(NotAccepted::NoTls(mut stream))) => {
            // Its words are taken in, so that the system does not throw the answer away; then it is
            // given the time to read it.
            let answering = async {
                let mut words = vec![0; FIRST_WORDS_BYTES];
                let _ = stream.read(&mut words).await?;
                let manner = Manner::for_anybody(FeatureLevels::OF_THIS_RELEASE);
                HelloAnswer::Refused(SPEAKS_TLS.to_owned()).write(&mut stream, manner).await?;
                stream.read(&mut words).await
            };
            let _ = until(env, deadline, answering).await;
            Err(away("no tls", "it does not speak TLS"))
        }
    }
}
