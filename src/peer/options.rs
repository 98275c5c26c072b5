//! Limits and timings of the peer transport.

use crate::codec::FeatureLevels;
use crate::kv::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::tls::PortTls;
use std::sync::Arc;

/// Bytes of one message, at most: what a node sends at once, with room for what one large command
/// adds to it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 8 << 20;
// The largest command that a client can send, in a message that was nearly full.
const _: () = assert!(MESSAGE_BYTES_MAX > 2 * (KEY_BYTES_MAX + VALUE_BYTES_MAX) + (2 << 20));

/// Limits and timings of the peer transport, and its certificates.
#[derive(Clone, Debug)]
pub struct TransportOptions {
    /// Messages waiting for one peer's connection, at most; more are dropped (Raft sends again what
    /// matters).
    pub peer_queue_max: usize,
    /// Bytes of messages waiting for one peer's connection, at most (one longer message still waits
    /// alone); more are dropped.
    pub peer_queue_bytes_max: usize,
    /// Bytes of messages written at once, about.
    pub write_bytes_max: usize,
    /// Batches of received messages waiting for the replica, at most; then the sockets are no
    /// longer read.
    pub receive_queue_max: usize,
    /// Bytes of received messages waiting for the replica, at most (and at least one message); then
    /// the sockets are no longer read.
    pub receive_bytes_max: usize,
    /// Incoming connections, at most.
    pub connections_max: usize,
    /// Incoming connections from one address, at most.
    pub connections_per_address_max: usize,
    /// A connection that takes longer to be established, or to say its hello, is given up.
    pub connect_timeout_micros: u64,
    /// A write that takes longer ends the connection.
    pub write_timeout_micros: u64,
    /// The pause before a second attempt to connect; doubled for each one after it.
    pub backoff_min_micros: u64,
    /// The longest pause between two attempts.
    pub backoff_max_micros: u64,
    /// This node's certificate, and whom it trusts; `None`: connections between nodes are not
    /// secured.
    pub tls: Option<Arc<PortTls>>,
    /// The levels that this node speaks.
    pub speaks: FeatureLevels,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            peer_queue_max: 4096,
            peer_queue_bytes_max: 32 << 20,
            write_bytes_max: 1 << 20,
            receive_queue_max: 256,
            receive_bytes_max: 64 << 20,
            connections_max: 1024,
            connections_per_address_max: 128,
            connect_timeout_micros: 3_000_000,
            write_timeout_micros: 5_000_000,
            backoff_min_micros: 50_000,
            backoff_max_micros: 1_000_000,
            tls: None,
            speaks: FeatureLevels::OF_THIS_RELEASE,
        }
    }
}

impl TransportOptions {
    /// Bytes of messages of which only a part has come, at most, over all connections. Two of the
    /// longest always have room.
    pub(crate) const fn part_bytes_max(&self) -> usize {
        let (part, least) = (self.receive_bytes_max / 4, 2 * MESSAGE_BYTES_MAX);
        if part > least { part } else { least }
    }
}
