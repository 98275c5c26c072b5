//! Limits and time-outs of the HTTP server.

use crate::kv::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// The longest that JSON makes of one byte: `\u0000`.
const ESCAPED_BYTES_MAX: usize = 6;

/// Limits and time-outs of the HTTP server. The defaults suit everyone we know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// Connections at the same time; one more is answered 503 and closed.
    pub connections_max: usize,
    /// Bytes of requests and answers that may be held at the same time, over all connections; more is answered 503.
    pub memory_bytes_max: usize,
    /// Bytes of a request's line and headers; more is answered 431.
    pub header_bytes_max: usize,
    /// Bytes of a request's body; more is answered 413, before it is read where its length is announced.
    pub body_bytes_max: usize,
    /// From the first byte of a request to the end of its headers, seconds; then the connection is closed.
    pub header_timeout_seconds: u64,
    /// For a request's body to arrive, seconds; then it is answered 408.
    pub body_timeout_seconds: u64,
    /// An answer that the client has not taken after so many seconds (and one more for each 64 KiB of it) ends the
    /// connection.
    pub write_timeout_seconds: u64,
    /// A connection without a request is closed after so many seconds.
    pub idle_timeout_seconds: u64,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            memory_bytes_max: 256 << 20,
            header_bytes_max: 80 << 10,
            body_bytes_max: (KEY_BYTES_MAX + VALUE_BYTES_MAX) * ESCAPED_BYTES_MAX + 1024,
            header_timeout_seconds: 10,
            body_timeout_seconds: 30,
            write_timeout_seconds: 30,
            idle_timeout_seconds: 90,
        }
    }
}
