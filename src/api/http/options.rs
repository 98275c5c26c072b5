//! Limits and time-outs of the HTTP server.

use crate::api::service::{AuditLog, PasswordCost};
use crate::kv::{KEY_BYTES_MAX, Settings, VALUE_BYTES_MAX};
use crate::runtime::Pace;
use crate::tls::PortTls;
use std::num::NonZeroU32;
use std::sync::Arc;

/// The longest that JSON makes of one byte: `\u0000`.
const ESCAPED_BYTES_MAX: usize = 6;

/// Limits and time-outs of the HTTP server. The defaults suit all uses that we know of.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Connections at the same time; one more is answered 503 and closed. One in 16 is kept for
    /// addresses with few.
    pub connections_max: usize,
    /// Connections at the same time from one address (of IPv6: one network of 64 bits).
    pub connections_per_address_max: usize,
    /// Connections that are being told that there are too many; more are closed without a word.
    pub refusals_max: usize,
    /// The files and sockets that the process may have open, if that is known: to be shown.
    pub open_files_max: Option<u64>,
    /// Names under which this node is served, beside addresses, names of one label, and those that
    /// end with `.localhost`, `.local` or `.internal`. `*` is every name.
    pub hosts: Vec<String>,
    /// Bytes of requests and answers that may be held at the same time, over all connections; more
    /// is answered 503.
    pub memory_bytes_max: usize,
    /// Requests under way at the same time; with more, callers take turns.
    pub requests_max: usize,
    /// Requests a second from one address (of IPv6: one network of 64 bits, and four times as many
    /// from one of 48 bits). `None`: as many as there are.
    pub rate_per_address: Option<NonZeroU32>,
    /// Requests a second of one user, token or certificate.
    pub rate_per_user: Option<NonZeroU32>,
    /// Bytes of a request's line and headers; more is answered 431.
    pub header_bytes_max: usize,
    /// Bytes of a request's body; more is answered 413, before it is read where its length is
    /// announced.
    pub body_bytes_max: usize,
    /// From the first byte of a request to the end of its headers, seconds; then the connection is
    /// closed.
    pub header_timeout_seconds: u64,
    /// For a request's body to arrive, seconds; then it is answered 408.
    pub body_timeout_seconds: u64,
    /// For a client to take an answer, seconds, plus the time that the answer takes at
    /// [`Self::write_bytes_per_second_min`]. Then the connection is closed.
    pub write_timeout_seconds: u64,
    /// Bytes of an answer that a client has to take a second, after the time-out that all get; not
    /// 0.
    pub write_bytes_per_second_min: usize,
    /// A connection without a request is closed after this many seconds, or after a tenth of that
    /// while most of the allowed connections are open.
    pub idle_timeout_seconds: u64,
    /// HTTP/2: requests under way on one connection at the same time; more are refused.
    pub http2_streams_max: u32,
    /// HTTP/2: requests that a client may call back on one connection within a second; after more
    /// the connection is closed.
    pub http2_resets_per_second_max: u32,
    /// The certificate, and whether clients show theirs; `None`: clients are served without TLS. A
    /// handshake may take as long as a request's head.
    pub tls: Option<Arc<PortTls>>,
    /// How fast handshakes of clients go on.
    pub handshakes: Pace,
    /// HTTP/2: pings, settings and the like on one connection within a second; after more it is
    /// closed.
    pub http2_frames_per_second_max: u32,
    /// Limits of the cluster below these are refused: with fewer bytes of history every watch would
    /// end at once, and with fewer of answers a command that is sent again would be done twice.
    pub settings_min: Settings,
    /// What one hash of a password costs.
    pub password_cost: PasswordCost,
    /// Where it is written down who did what; `None`: nowhere.
    pub audit: Option<AuditLog>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_address_max: 7_500,
            refusals_max: 128,
            open_files_max: None,
            hosts: Vec::new(),
            memory_bytes_max: 256 << 20,
            requests_max: 512,
            rate_per_address: None,
            rate_per_user: None,
            header_bytes_max: 80 << 10,
            body_bytes_max: (KEY_BYTES_MAX + VALUE_BYTES_MAX) * ESCAPED_BYTES_MAX + 1024,
            header_timeout_seconds: 10,
            body_timeout_seconds: 30,
            write_timeout_seconds: 30,
            write_bytes_per_second_min: 64 << 10,
            idle_timeout_seconds: 90,
            http2_streams_max: 256,
            http2_resets_per_second_max: 1_000,
            http2_frames_per_second_max: 10_000,
            tls: None,
            settings_min: Settings { history_bytes: 1 << 20, quota_bytes: 0, answers_bytes: 1 << 20 },
            handshakes: Pace::default(),
            password_cost: PasswordCost::default(),
            audit: None,
        }
    }
}
