//! A run's schedule: faults and client operations, as data.
//!
//! It is generated from a seed, replayed, minimised by dropping parts, and kept as a file when it found a bug. Everything that
//! is not in it (delays, what survives a power loss) is drawn from the streams of its seed.

use crate::streams::{Stream, stream};
use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

/// Microseconds in a second.
pub const SECOND: u64 = 1_000_000;
/// Microseconds in a millisecond.
pub const MILLI: u64 = 1_000;

/// Everything that is decided before a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Seed of all that is drawn during the run.
    pub seed: u64,
    /// Machines that are voters from the start: slots `0..voters`.
    pub voters: usize,
    /// Machines that may be added: slots `voters..voters + spares`.
    pub spares: usize,
    /// How long faults and clients go on; afterwards faults end, and the cluster has to recover.
    pub duration_micros: u64,
    /// How the surroundings behave all the time.
    pub settings: Settings,
    /// What strikes when, in order of time.
    pub faults: Vec<Timed<Fault>>,
    /// What each client asks, in order of time.
    pub clients: Vec<Vec<Timed<Operation>>>,
}

/// Something at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed<T> {
    /// Microseconds from the start.
    pub at: u64,
    /// What.
    pub what: T,
}

/// How network, disks, clocks and replicas behave all the time. Each part may be off in a run (swarm testing).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// One-way delay of a message: from.
    pub delay_min_micros: u64,
    /// One-way delay of a message: to. A wide range reorders.
    pub delay_max_micros: u64,
    /// Messages lost, of a million.
    pub loss_ppm: u32,
    /// Messages delivered twice, of a million.
    pub duplicate_ppm: u32,
    /// Messages whose bits flip, of a million.
    pub corrupt_ppm: u32,
    /// Messages that take ten times as long, of a million.
    pub straggler_ppm: u32,
    /// A batch's write and sync: from.
    pub sync_min_micros: u64,
    /// A batch's write and sync: to.
    pub sync_max_micros: u64,
    /// Each machine's clock runs faster or slower by up to so many millionths.
    pub drift_ppm: u32,
    /// Election time-out of the cores.
    pub election_timeout_micros: u64,
    /// Heartbeat interval of the cores.
    pub heartbeat_interval_micros: u64,
    /// A snapshot is due after so many entries.
    pub snapshot_log_entries: u64,
    /// Entries kept behind a snapshot.
    pub log_tail_entries: u64,
    /// Bytes of a snapshot chunk.
    pub snapshot_chunk_bytes: u64,
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Bytes of entries in one append, at most.
    pub append_bytes_max: u64,
    /// Appends in flight to one peer, at most.
    pub inflight_messages_max: usize,
    /// How many keys the clients share.
    pub keys: u8,
    /// Bytes of a value, at least enough for its name.
    pub value_bytes: usize,
    /// How long a client waits for an answer.
    pub client_timeout_micros: u64,
}

/// How the network is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cut {
    /// Those in the set reach each other, the others reach each other, and nobody crosses.
    Split(Vec<usize>),
    /// One machine's messages do not leave it.
    Mute(usize),
    /// Nothing reaches one machine.
    Deaf(usize),
    /// Two halves that share one machine, the bridge.
    Bridge(usize),
    /// Each machine reaches only its neighbours.
    Ring,
    /// One direction of one link.
    OneWay(usize, usize),
}

/// Something that strikes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The process dies; files stay as the page cache has them. It comes back by itself after a while.
    Kill {
        /// Which machine.
        slot: usize,
        /// When it comes back, from now.
        back_micros: u64,
    },
    /// The power goes: of what was not synced, any part survives.
    PowerLoss {
        /// Which machine.
        slot: usize,
        /// When it comes back, from now.
        back_micros: u64,
    },
    /// The power goes everywhere at once.
    Blackout {
        /// When they come back, from now (each a little later than the one before).
        back_micros: u64,
    },
    /// The process stands still.
    Pause {
        /// Which machine.
        slot: usize,
        /// How long.
        for_micros: u64,
    },
    /// The network is cut (in addition to other cuts).
    Partition {
        /// How.
        cut: Cut,
        /// How long.
        for_micros: u64,
    },
    /// A machine's messages take so much longer, both ways.
    SlowNode {
        /// Which machine.
        slot: usize,
        /// How much longer.
        by_micros: u64,
        /// How long.
        for_micros: u64,
    },
    /// A machine's disk takes so much longer.
    SlowDisk {
        /// Which machine.
        slot: usize,
        /// How much longer each batch takes.
        by_micros: u64,
        /// How long.
        for_micros: u64,
    },
    /// The next fsync fails; the process has to end, and is started again.
    FailSync {
        /// Which machine.
        slot: usize,
    },
    /// The next write fails; the process has to end, and is started again.
    FailWrite {
        /// Which machine.
        slot: usize,
    },
    /// The disk has no room left for new files.
    DiskFull {
        /// Which machine.
        slot: usize,
        /// How long.
        for_micros: u64,
    },
    /// A bit flips on disk while the machine is off.
    Rot {
        /// Which machine.
        slot: usize,
        /// A part of the file's path.
        file: String,
    },
    /// The machine loses its disk and comes back as a new member.
    Wipe {
        /// Which machine.
        slot: usize,
    },
    /// The monotonic clock jumps ahead (the machine was suspended).
    ClockJump {
        /// Which machine.
        slot: usize,
        /// By how much.
        by_micros: u64,
    },
    /// A spare machine joins.
    Join {
        /// Which machine.
        slot: usize,
    },
    /// A member is removed.
    Remove {
        /// Which machine.
        slot: usize,
    },
    /// The leader is asked to hand over.
    Transfer {
        /// To which machine; `None`: to anyone.
        slot: Option<usize>,
    },
}

impl Fault {
    /// Its name, as campaigns count it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::PowerLoss { .. } => "power loss",
            Self::Blackout { .. } => "blackout",
            Self::Pause { .. } => "pause",
            Self::Partition { .. } => "partition",
            Self::SlowNode { .. } => "slow node",
            Self::SlowDisk { .. } => "slow disk",
            Self::FailSync { .. } => "fsync fails",
            Self::FailWrite { .. } => "write fails",
            Self::DiskFull { .. } => "disk full",
            Self::Rot { .. } => "rot",
            Self::Wipe { .. } => "wipe",
            Self::ClockJump { .. } => "clock jump",
            Self::Join { .. } => "join",
            Self::Remove { .. } => "remove",
            Self::Transfer { .. } => "transfer",
        }
    }
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Which machine it asks.
    pub slot: usize,
    /// Which key.
    pub key: u8,
    /// What.
    pub kind: OperationKind,
}

/// What a client does with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationKind {
    /// Sets it to a value that no one else sets.
    Set,
    /// Removes it.
    Delete,
    /// Reads it, linearizably.
    Get,
}

impl Schedule {
    /// The schedule of a seed.
    #[must_use]
    pub fn generate(seed: u64) -> Self {
        let mut rng = stream(seed, Stream::Schedule, 0);
        let voters = *pick(&mut rng, &[3, 3, 3, 5, 5, 1, 2, 4]);
        let spares = rng.random_range(0..=2);
        let duration_micros = 30 * SECOND;
        let settings = settings(&mut rng);
        let mut faults = faults(&mut rng, voters, spares, duration_micros, &settings);
        faults.sort_by_key(|fault| fault.at);
        let clients = clients(&mut rng, voters + spares, duration_micros, &settings);
        Self { seed, voters, spares, duration_micros, settings, faults, clients }
    }

    /// All machines.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.voters + self.spares
    }
}

fn pick<'a, T>(rng: &mut SmallRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

/// A rate that is off in half of the runs.
fn rate(rng: &mut SmallRng, max_ppm: u32) -> u32 {
    if rng.random() { 0 } else { rng.random_range(0..=max_ppm) }
}

fn settings(rng: &mut SmallRng) -> Settings {
    let delay_min_micros = *pick(rng, &[50, 200, 1_000, 5_000]);
    let delay_max_micros = delay_min_micros * *pick(rng, &[1, 2, 5, 20]) + 10;
    let sync_min_micros = *pick(rng, &[50, 500, 5_000]);
    let heartbeat_interval_micros = *pick(rng, &[50 * MILLI, 100 * MILLI]);
    let small_log = rng.random_bool(0.7);
    Settings {
        delay_min_micros,
        delay_max_micros,
        loss_ppm: rate(rng, 50_000),
        duplicate_ppm: rate(rng, 50_000),
        corrupt_ppm: rate(rng, 10_000),
        straggler_ppm: rate(rng, 20_000),
        sync_min_micros,
        sync_max_micros: sync_min_micros * *pick(rng, &[1, 3, 10]) + 10,
        drift_ppm: *pick(rng, &[0, 0, 100, 50_000]),
        election_timeout_micros: heartbeat_interval_micros * *pick(rng, &[4, 6, 10]),
        heartbeat_interval_micros,
        snapshot_log_entries: if small_log { rng.random_range(5..60) } else { 100_000 },
        log_tail_entries: *pick(rng, &[0, 3, 20]),
        snapshot_chunk_bytes: *pick(rng, &[500, 4_096, 1 << 20]),
        segment_bytes: *pick(rng, &[64 << 10, 64 << 10, 256 << 10]),
        append_bytes_max: *pick(rng, &[1, 300, 2_000, 1 << 20]),
        inflight_messages_max: *pick(rng, &[1, 2, 8, 64]),
        keys: *pick(rng, &[1, 2, 5, 12]),
        value_bytes: *pick(rng, &[12, 12, 100, 2_000]),
        client_timeout_micros: *pick(rng, &[300 * MILLI, SECOND, 3 * SECOND]),
    }
}

fn clients(
    rng: &mut SmallRng,
    slots: usize,
    duration: u64,
    settings: &Settings,
) -> Vec<Vec<Timed<Operation>>> {
    let count = rng.random_range(2..=6);
    let per_client = rng.random_range(40..=150);
    let read_share = rng.random_range(0.1..0.8);
    let sticky = rng.random_bool(0.5);
    (0..count)
        .map(|_| {
            let home = rng.random_range(0..slots);
            let mut operations: Vec<Timed<Operation>> = (0..per_client)
                .map(|_| {
                    let kind = if rng.random_bool(read_share) {
                        OperationKind::Get
                    } else if rng.random_bool(0.15) {
                        OperationKind::Delete
                    } else {
                        OperationKind::Set
                    };
                    let slot = if sticky { home } else { rng.random_range(0..slots) };
                    let what = Operation { slot, key: rng.random_range(0..settings.keys), kind };
                    Timed { at: rng.random_range(0..duration), what }
                })
                .collect();
            operations.sort_by_key(|operation| operation.at);
            operations
        })
        .collect()
}

/// Which kinds of faults a run has, and how many of each: drawn anew for each seed, so that some runs have one kind only.
fn faults(
    rng: &mut SmallRng,
    voters: usize,
    spares: usize,
    duration: u64,
    settings: &Settings,
) -> Vec<Timed<Fault>> {
    const KINDS: usize = 16;
    let mut faults = Vec::new();
    let share = *pick(rng, &[0.1, 0.3, 0.6, 0.9]);
    let slots = voters + spares;
    for kind in 0..KINDS {
        if !rng.random_bool(share) {
            continue;
        }
        for _ in 0..rng.random_range(1..=6) {
            let at = rng.random_range(0..duration);
            let slot = rng.random_range(0..slots);
            let brief = rng.random_range(10 * MILLI..2 * SECOND);
            let long = rng.random_range(settings.election_timeout_micros..8 * SECOND);
            let what = match kind {
                0 => Fault::Kill { slot, back_micros: brief },
                1 => Fault::PowerLoss { slot, back_micros: brief },
                2 => Fault::Blackout { back_micros: brief },
                3 => Fault::Pause { slot, for_micros: brief },
                4 => Fault::Partition { cut: cut(rng, slots), for_micros: long },
                5 => Fault::Partition { cut: cut(rng, slots), for_micros: brief },
                6 => Fault::SlowNode { slot, by_micros: rng.random_range(0..300 * MILLI), for_micros: long },
                7 => Fault::SlowDisk { slot, by_micros: rng.random_range(0..SECOND), for_micros: long },
                8 => Fault::FailSync { slot },
                9 => Fault::FailWrite { slot },
                10 => Fault::DiskFull { slot, for_micros: long },
                11 => Fault::Rot { slot, file: (*pick(rng, &["wal", "snap", "identity", ""])).to_owned() },
                12 => Fault::Wipe { slot },
                13 => Fault::ClockJump { slot, by_micros: rng.random_range(0..5 * SECOND) },
                14 if spares > 0 && rng.random_bool(0.6) => {
                    Fault::Join { slot: voters + rng.random_range(0..spares) }
                }
                14 => Fault::Remove { slot },
                _ => Fault::Transfer { slot: rng.random_bool(0.5).then_some(slot) },
            };
            faults.push(Timed { at, what });
        }
    }
    faults
}

fn cut(rng: &mut SmallRng, slots: usize) -> Cut {
    let slot = rng.random_range(0..slots);
    match rng.random_range(0..7) {
        0 => Cut::Mute(slot),
        1 => Cut::Deaf(slot),
        2 => Cut::Bridge(slot),
        3 => Cut::Ring,
        4 => Cut::OneWay(slot, rng.random_range(0..slots)),
        _ => Cut::Split((0..slots).filter(|_| rng.random()).collect()),
    }
}
