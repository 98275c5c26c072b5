//! Certificates, and streams that are encrypted with them: rustls behind one door.
//!
//! # Code map
//! - `certificate`: what a certificate says of its holder. `files`: certificates and keys as they
//!   come. `clock`: the time of day.
//! - `port`: the TLS of one port of a node: handshakes of those that call it, and of calls to other
//!   nodes; how a new certificate is taken into use. `verify`: which certificates are believed
//!   between members.
//! - `client`: the TLS of a client of the HTTP API. `stream`: what comes out of a handshake.
//! - `create`: an authority and certificates for a whole cluster.
//!
//! # Absences
//! No socket, task or deadline: a handshake runs over any stream of bytes, and its caller gives it
//! up in time. Nothing here knows what is said over a stream.

mod certificate;
mod client;
mod clock;
mod create;
mod files;
mod port;
mod stream;
mod verify;

pub use certificate::{Certificate, PeerCertificate};
pub use client::{ClientTls, refusal_in};
pub use clock::WallClock;
pub use create::{Created, Lifetime, NamedHosts, Order, create, show};
pub use files::{CertificateFiles, CertificateSource, PemSet, TlsError, read_file};
pub use port::{Audience, Callee, CertificateStatus, ClientCertificates, NotAccepted, PortTls, Reloaded};
pub use stream::{Begun, Stream};
