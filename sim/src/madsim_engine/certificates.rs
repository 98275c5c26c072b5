//! Certificates of the nodes, in runs whose nodes speak TLS with each other.
//!
//! They are the same in all runs. What a handshake draws at random (keys, mostly) comes from the
//! system and differs from run to run, so nothing may depend on the bytes of a secured connection.
//! Their number is always the same: all keys are of curves whose keys and signatures have one
//! length. So no bit flips on such connections; TLS would find it, and where it flipped would
//! matter.

use crate::madsim_engine::certificate_files::{AUTHORITY, Files};
use crate::madsim_engine::connections::SimStream;
use crate::madsim_engine::time::now;
use crate::schedule::SECOND;
use infinitystore::tls::{Audience, ClientCertificates, ClientTls, PemSet, PortTls, Stream, WallClock};
use std::sync::Arc;

/// The time of day when a run begins: 2030-03-17.
const BEGINS_SECONDS: u64 = 1_900_000_000;
/// When all certificates end: 2126-11-03.
pub(super) const NOT_AFTER_SECONDS: u64 = 4_949_364_833;
const NODES: &str = include_str!("certificates/nodes.pem");
const OTHER_NODE: &str = include_str!("certificates/other-node.pem");
/// Where a certificate begins.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// The time of day.
pub(super) const fn wall_seconds(now: u64) -> u64 {
    BEGINS_SECONDS + now / SECOND
}

fn load(audience: Audience, name: String, pair: &str, is_ours: bool) -> (Arc<PortTls>, Arc<Files>) {
    let clock = WallClock::new(|| wall_seconds(now()));
    let files = Arc::new(Files::new(name, format!("{BEGIN}{pair}"), is_ours));
    (PortTls::load(audience, files.clone(), clock).expect("it is checked in"), files)
}

/// The certificate of the node of that number.
pub(super) fn of_node(number: usize) -> (Arc<PortTls>, Arc<Files>) {
    let pair = NODES.split(BEGIN).nth(number + 1).expect("there are as many as machines");
    let name = format!("node{number}");
    load(Audience::Members { name: name.clone() }, name, pair, true)
}

/// A certificate of another cluster, of a node that has the name of one of ours.
pub(super) fn of_stranger() -> Arc<PortTls> {
    let pair = OTHER_NODE.split(BEGIN).nth(1).expect("there is one");
    let name = "node0".to_owned();
    load(Audience::Members { name: name.clone() }, name, pair, false).0
}

/// What a node shows at its port for clients, some of whom have certificates.
pub(super) fn of_client_port(number: usize) -> (Arc<PortTls>, Arc<Files>) {
    let pair = NODES.split(BEGIN).nth(number + 1).expect("there are as many as machines");
    let audience = Audience::Clients { certificates: ClientCertificates::Optional };
    load(audience, format!("node{number}"), pair, true)
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
    let clock = WallClock::new(|| wall_seconds(now()));
    let tls = ClientTls::new(&pem, clock).map_err(std::io::Error::other)?;
    tls.connect(addr, stream).await
}
