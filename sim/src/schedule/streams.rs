//! Randomness: one seed, separate streams, so that one more draw of the network does not reshuffle
//! the disks.

use rand::SeedableRng;
use rand::rngs::SmallRng;

/// The streams of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Which faults are on, when they strike, what clients ask.
    Schedule,
    /// Delays, losses, duplicates.
    Network,
    /// What survives a power loss; latencies.
    Disk,
    /// Seeds of the cores.
    Cores,
}

/// The stream `stream` of `seed`, for one of several users (a node, say).
#[must_use]
pub fn stream(seed: u64, stream: Stream, user: u64) -> SmallRng {
    let name: u64 = match stream {
        Stream::Schedule => 1,
        Stream::Network => 2,
        Stream::Disk => 3,
        Stream::Cores => 4,
    };
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&name.to_le_bytes());
    bytes[16..].copy_from_slice(&user.to_le_bytes());
    SmallRng::seed_from_u64(xxhash_rust::xxh3::xxh3_64(&bytes))
}
