//! Certificates of the nodes, in runs whose nodes speak TLS with each other.
//!
//! They are the same in all runs. What a handshake draws at random (keys, mostly) comes from the
//! system and differs from run to run, so nothing may depend on the bytes of a secured connection.
//! Their number is always the same: all keys are of curves whose keys and signatures have one
//! length. So no bit flips on such connections; TLS would find it, and where it flipped would
//! matter.

use crate::madsim_engine::connections::SimStream;
use crate::madsim_engine::time::now;
use crate::madsim_engine::world::Shared;
use crate::schedule::SECOND;
use infinitystore::tls::{
    Audience, Callee, CertificateSource, ClientCertificates, ClientTls, PemSet, PortTls, Stream, TlsError,
    WallClock,
};
use std::sync::Arc;

/// The time of day when a run begins: 2030-03-17.
const BEGINS_SECONDS: u64 = 1_900_000_000;
const AUTHORITY: &str = include_str!("certificates/ca.pem");
const NODES: &str = include_str!("certificates/nodes.pem");
const OTHER_AUTHORITY: &str = include_str!("certificates/other-ca.pem");
const OTHER_NODE: &str = include_str!("certificates/other-node.pem");
/// How often the files change.
const CHANGES_MICROS: u64 = 7 * SECOND;
/// Where a certificate begins.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// A certificate and its key, in one text.
#[derive(Debug)]
struct Fixed {
    name: String,
    pair: String,
    is_ours: bool,
}

impl CertificateSource for Fixed {
    fn read(&self) -> Result<PemSet, TlsError> {
        // The files change again and again, so that nodes take them into use while connections
        // live.
        let turn = if (now() / CHANGES_MICROS).is_multiple_of(2) { "" } else { "\n" };
        let (certificate, key) =
            (format!("{}{turn}", self.pair).into_bytes(), self.pair.clone().into_bytes());
        // A node that trusts another cluster, too, is not trusted by it for that.
        let others = if self.is_ours { "" } else { OTHER_AUTHORITY };
        let authorities = format!("{AUTHORITY}{others}").into_bytes();
        Ok(PemSet { certificate, key, authorities })
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

fn load(name: String, pair: &str, is_ours: bool) -> Arc<PortTls> {
    let clock = WallClock::new(|| BEGINS_SECONDS + now() / SECOND);
    let source = Fixed { name: name.clone(), pair: format!("{BEGIN}{pair}"), is_ours };
    PortTls::load(Audience::Members { name }, Arc::new(source), clock).expect("it is checked in")
}

/// The certificate of the node of that number.
pub(super) fn of_node(number: usize) -> Arc<PortTls> {
    let pair = NODES.split(BEGIN).nth(number + 1).expect("there are as many as machines");
    load(format!("node{number}"), pair, true)
}

/// A certificate of another cluster, of a node that has the name of one of ours.
pub(super) fn of_stranger() -> Arc<PortTls> {
    let pair = OTHER_NODE.split(BEGIN).nth(1).expect("there is one");
    load("node0".to_owned(), pair, false)
}

/// What a node shows at its port for clients, some of whom have certificates.
pub(super) fn of_client_port(number: usize) -> Arc<PortTls> {
    let pair = NODES.split(BEGIN).nth(number + 1).expect("there are as many as machines");
    let source = Fixed { name: format!("node{number}"), pair: format!("{BEGIN}{pair}"), is_ours: true };
    let clock = WallClock::new(|| BEGINS_SECONDS + now() / SECOND);
    let audience = Audience::Clients { certificates: ClientCertificates::Optional };
    PortTls::load(audience, Arc::new(source), clock).expect("it is checked in")
}

/// A client's handshake. It shows the certificate of the node of that number, if there is one: it
/// is as good as any of the same authority, and names somebody.
pub(super) async fn as_client(
    addr: &str,
    stream: SimStream,
    number: Option<usize>,
) -> std::io::Result<Stream<SimStream>> {
    let pair = number.and_then(|number| NODES.split(BEGIN).nth(number + 1));
    let pair = pair.map_or(Vec::new(), |pair| format!("{BEGIN}{pair}").into_bytes());
    let authorities = AUTHORITY.as_bytes().to_vec();
    let pem = PemSet { certificate: pair.clone(), key: pair, authorities };
    let clock = WallClock::new(|| BEGINS_SECONDS + now() / SECOND);
    let tls = ClientTls::new(&pem, clock).map_err(std::io::Error::other)?;
    tls.connect(addr, stream).await
}

/// As [`PortTls::connect`], by the node of number 0, if nodes have certificates in this run.
pub(super) async fn secured(
    shared: &Shared,
    addr: &str,
    stream: SimStream,
) -> std::io::Result<Stream<SimStream>> {
    if !shared.lock().limits.secured {
        return Ok(Stream::Plain(stream));
    }
    let tls = of_node(0);
    tls.connect(stream, Callee::Address(addr)).await.map_err(std::io::Error::other)
}
