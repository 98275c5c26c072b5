//! What a seed's schedule is: drawn, in one order, from one stream of the seed.

use crate::schedule::fault::{Cut, Fault, LEADER};
use crate::schedule::keyspace;
use crate::schedule::plan::{Operation, OperationKind, Schedule, Timed};
use crate::schedule::settings::{CALM_MICROS, MILLI, SECOND, STALL_MICROS, Settings};
use crate::schedule::sieges;
use crate::schedule::streams::{Stream, stream};
use rand::Rng;
use rand::rngs::SmallRng;

/// One run of so many has lease reads.
const LEASE_READS_EVERY: u64 = 5;
/// And one of so many has users.
const USERS_EVERY: u64 = 7;
/// And one of so many begins with an older release on all machines.
const MIXED_EVERY: u64 = 8;

impl Schedule {
    /// The schedule of a seed.
    #[must_use]
    pub fn generate(seed: u64) -> Self {
        let mut rng = stream(seed, Stream::Schedule, 0);
        let voters = *pick(&mut rng, &[3, 3, 3, 5, 5, 1, 2, 4]);
        let spares = rng.random_range(0..=2);
        let duration_micros = 30 * SECOND;
        let mut settings = settings(&mut rng);
        let mut faults = faults(&mut rng, voters, spares, duration_micros, &settings);
        attacks(&mut rng, voters, spares, duration_micros, &mut settings, &mut faults);
        let mut siege_rng = stream(seed, Stream::Schedule, 1);
        sieges::lay(&mut siege_rng, (voters, spares), duration_micros, &mut settings, &mut faults);
        let mut late_rng = stream(seed, Stream::Schedule, 3);
        sieges::lay_late(&mut late_rng, (voters, spares), duration_micros, &mut settings, &mut faults);
        small_limits(seed, &mut settings);
        let mut last_rng = stream(seed, Stream::Schedule, 4);
        sieges::lay_last(&mut last_rng, (voters, spares), &mut settings, &mut faults);
        limits_of_chunks(seed, &mut settings);
        let mixed = seed % MIXED_EVERY == 5;
        if mixed {
            releases(seed, voters + spares, duration_micros, &mut settings, &mut faults);
        }
        faults.sort_by_key(|fault| fault.at);
        let clients = clients(&mut rng, voters + spares, duration_micros, &settings, &faults);
        let users = seed % USERS_EVERY == 4;
        let keyspace = keyspace::plans(seed, voters + spares, duration_micros, &faults, users);
        settings.lease_reads = seed % LEASE_READS_EVERY == 3;
        if settings.lease_reads {
            // Leases bound how far clocks are off in rate. No bound covers a clock that jumps.
            faults.retain(|fault| !matches!(fault.what, Fault::ClockJump { .. }));
        }
        Self { seed, voters, spares, duration_micros, settings, faults, clients, keyspace, users, mixed }
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
    let election_timeout_micros = heartbeat_interval_micros * *pick(rng, &[4, 6, 10]);
    // Links so slow that no election can be won would test nothing.
    let spread_max = u32::try_from(election_timeout_micros / 3 / delay_max_micros).unwrap_or(u32::MAX);
    let link_spread = (*pick(rng, &[1, 1, 4, 20])).min(spread_max.max(1));
    let value_bytes = *pick(rng, &[12, 12, 100, 2_000]);
    // If values are large, the last of that many chunks would not arrive before the end.
    let small_chunk_bytes = if value_bytes > 100 { 500 } else { rng.random_range(16..64) };
    Settings {
        delay_min_micros,
        delay_max_micros,
        loss_ppm: rate(rng, 50_000),
        duplicate_ppm: rate(rng, 200_000),
        corrupt_ppm: rate(rng, 10_000),
        straggler_ppm: rate(rng, 50_000),
        straggler_max_micros: *pick(rng, &[0, 300 * MILLI, 3 * SECOND]),
        link_spread,
        sync_min_micros,
        sync_max_micros: sync_min_micros * *pick(rng, &[1, 3, 10]) + 10,
        drift_ppm: *pick(rng, &[0, 0, 100, 50_000]),
        lease_reads: false,
        election_timeout_micros,
        heartbeat_interval_micros,
        snapshot_log_entries: if small_log { rng.random_range(5..60) } else { 100_000 },
        log_tail_entries: *pick(rng, &[0, 3, 20]),
        snapshot_chunk_bytes: *pick(rng, &[small_chunk_bytes, 500, 4_096, 1 << 20]),
        snapshot_inflight_bytes_max: 0,
        snapshot_bytes_per_second_max: 0,
        segment_bytes: *pick(rng, &[64 << 10, 64 << 10, 256 << 10]),
        append_bytes_max: *pick(rng, &[1, 300, 2_000, 1 << 20]),
        inflight_messages_max: *pick(rng, &[1, 2, 8, 64]),
        // A few values, of the largest.
        uncommitted_bytes_max: *pick(rng, &[0, 0, 16 << 10]),
        apply_entries_max: 0,
        apply_bytes_max: 0,
        log_tail_bytes: 0,
        pending_write_bytes_max: 0,
        log_bytes_max: 0,
        torn_files_max: 0,
        keys: *pick(rng, &[1, 2, 5, 12]),
        value_bytes,
        // Some client has to wait long enough for an answer: to the leader, to a majority, and
        // back.
        client_timeout_micros: (*pick(rng, &[100 * MILLI, 300 * MILLI, SECOND, 3 * SECOND, 8 * SECOND]))
            .max(8 * delay_max_micros),
        settle_max_micros: *pick(rng, &[0, 0, 300, 3 * MILLI, 15 * MILLI]),
        level_settle_micros: 0,
    }
}

/// Limits that few runs reach, made small in some runs. They are drawn from a stream of their own,
/// so that nothing else changes with them.
fn small_limits(seed: u64, settings: &mut Settings) {
    let mut rng = stream(seed, Stream::Schedule, 2);
    settings.log_tail_bytes = *pick(&mut rng, &[0, 0, 1, 1_000]);
    let few = 2 * settings.value_bytes as u64 + 8;
    settings.pending_write_bytes_max = *pick(&mut rng, &[0, 0, 0, few]);
    settings.apply_entries_max = *pick(&mut rng, &[0, 0, 0, 0, 1, 3]);
    settings.apply_bytes_max = *pick(&mut rng, &[0, 0, 0, 0, 1, 500]);
    // A few entries: what a laggard lacks is soon gone from memory, whether a snapshot covers it or
    // not.
    let entry = settings.value_bytes as u64 + 80;
    let short = *pick(&mut rng, &[0, 0, 0, 6 * entry]);
    settings.log_bytes_max = settings.log_bytes_max.max(short);
    settings.torn_files_max = settings.torn_files_max.max(*pick(&mut rng, &[0, 1]));
}

/// Chunks go one by one in some runs, or three at a time, and in some not faster than a snapshot in
/// two seconds. Drawn when it is known how large chunks are, from a stream of their own.
fn limits_of_chunks(seed: u64, settings: &mut Settings) {
    let mut rng = stream(seed, Stream::Schedule, 7);
    let several = 3 * settings.snapshot_chunk_bytes;
    let inflight_bytes_max = *pick(&mut rng, &[0, 0, 1, several]);
    let is_slow = rng.random_bool(0.2);
    // Where few entries stay in memory, a snapshot that is slow to come has to be followed by the
    // next one, for ever.
    if settings.log_bytes_max == 0 {
        settings.snapshot_inflight_bytes_max = inflight_bytes_max;
        settings.snapshot_bytes_per_second_max = if is_slow { settings.snapshot_bytes() / 2 } else { 0 };
    }
}

fn clients(
    rng: &mut SmallRng,
    slots: usize,
    duration: u64,
    settings: &Settings,
    faults: &[Timed<Fault>],
) -> Vec<Vec<Timed<Operation>>> {
    // In bursts, when something strikes: then much is under way.
    let bursts: Vec<u64> = if !faults.is_empty() && rng.random_bool(0.4) {
        (0..rng.random_range(3..=10)).map(|_| pick(rng, faults).at).collect()
    } else {
        Vec::new()
    };
    let count = if bursts.is_empty() { rng.random_range(2..=6) } else { rng.random_range(4..=12) };
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
                    let at = match bursts.get(rng.random_range(0..bursts.len().max(1))) {
                        Some(burst) => (burst + rng.random_range(0..SECOND))
                            .saturating_sub(200 * MILLI)
                            .min(duration - 1),
                        None => rng.random_range(0..duration),
                    };
                    Timed { at, what }
                })
                .collect();
            // And some more when faults have ended.
            for _ in 0..rng.random_range(3..=8) {
                let kind = if rng.random() { OperationKind::Set } else { OperationKind::Get };
                let slot = if sticky { home } else { rng.random_range(0..slots) };
                let what = Operation { slot, key: rng.random_range(0..settings.keys), kind };
                operations.push(Timed { at: duration + rng.random_range(0..CALM_MICROS), what });
            }
            operations.sort_by_key(|operation| operation.at);
            if settings.keys > WAVES_FROM_KEYS {
                operations.iter_mut().for_each(delete_in_waves);
            }
            operations
        })
        .collect()
}

/// With more keys than this, most are set for some seconds and most are deleted for some seconds:
/// leaves of trees split, and become one again.
const WAVES_FROM_KEYS: u8 = 100;
const WAVE_MICROS: u64 = 4 * SECOND;

fn delete_in_waves(operation: &mut Timed<Operation>) {
    if operation.what.kind == OperationKind::Set && operation.at / WAVE_MICROS % 2 == 1 {
        operation.what.kind = OperationKind::Delete;
    }
}

/// Which kinds of faults a run has, and how many of each: drawn anew for each seed, so that some
/// runs have one kind only.
fn faults(
    rng: &mut SmallRng,
    voters: usize,
    spares: usize,
    duration: u64,
    settings: &Settings,
) -> Vec<Timed<Fault>> {
    const KINDS: usize = 18;
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
                7 => Fault::SlowDisk { slot, by_micros: slowness(rng), for_micros: long },
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
                15 => {
                    let what = Fault::PowerLoss { slot, back_micros: brief };
                    faults.push(Timed { at: at + rng.random_range(0..300 * MILLI), what });
                    Fault::Misdirect { slot }
                }
                16 => Fault::Move { slot, back_micros: brief },
                _ => Fault::Transfer { slot: rng.random_bool(0.5).then_some(slot) },
            };
            faults.push(Timed { at, what });
        }
    }
    faults
}

/// Machines are upgraded one by one, and some of them go back for a while. In some runs one stays
/// behind.
fn releases(seed: u64, slots: usize, duration: u64, settings: &mut Settings, faults: &mut Vec<Timed<Fault>>) {
    let mut rng = stream(seed, Stream::Schedule, 12);
    settings.level_settle_micros = *pick(&mut rng, &[1, 200 * MILLI, SECOND, 3 * SECOND]);
    let stays = rng.random_bool(0.2).then(|| rng.random_range(0..slots));
    for slot in (0..slots).filter(|slot| Some(*slot) != stays) {
        let mut at = rng.random_range(SECOND..duration * 3 / 4);
        let mut newest = true;
        loop {
            let back_micros = rng.random_range(10 * MILLI..SECOND);
            faults.push(Timed { at, what: Fault::Release { slot, newest, back_micros } });
            at += rng.random_range(back_micros..6 * SECOND);
            if at >= duration || newest && !rng.random_bool(0.4) {
                break;
            }
            newest = !newest;
        }
    }
}

/// How much longer a slow disk takes: a little, or so long that a leader should give up.
fn slowness(rng: &mut SmallRng) -> u64 {
    if rng.random_bool(0.3) {
        rng.random_range(STALL_MICROS..2 * STALL_MICROS)
    } else {
        rng.random_range(0..SECOND)
    }
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

/// Series of faults that follow the machine that leads, or one machine. They bring about what
/// single faults at random hardly ever do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    /// The leader is cut off, alone or with another, for about as long as the others need to
    /// notice.
    Flapping,
    /// The leader stops, and comes back before or after the others have elected another.
    Decapitation,
    /// It hands over, and something happens to it before it knows that another leads.
    HandOver,
    /// The membership changes, again before that is through, and the leader that changes it goes.
    Churn,
    /// A leader that was cut off for long comes back, and the one after it goes.
    Return,
    /// One machine restarts again and again, and then hears but is not heard.
    ShortLives,
    /// Two machines lead by turns, and what one of them appends in the meantime is void.
    PingPong,
    /// The leader of two leaves, is not heard, and stops: only itself may hold the entry that
    /// removes it.
    Parting,
}

const ATTACKS: [Attack; 8] = [
    Attack::Flapping,
    Attack::Decapitation,
    Attack::HandOver,
    Attack::Churn,
    Attack::Return,
    Attack::ShortLives,
    Attack::PingPong,
    Attack::Parting,
];

fn attacks(
    rng: &mut SmallRng,
    voters: usize,
    spares: usize,
    duration: u64,
    settings: &mut Settings,
    faults: &mut Vec<Timed<Fault>>,
) {
    for attack in ATTACKS {
        let share = match attack {
            Attack::Parting if voters != 2 => 0.0,
            Attack::Parting => 0.5,
            _ => 0.12,
        };
        if !rng.random_bool(share) {
            continue;
        }
        // Answers that come long after their questions do the most harm to a machine whose role has
        // changed since.
        if matches!(attack, Attack::ShortLives | Attack::PingPong) && rng.random_bool(0.7) {
            settings.duplicate_ppm = settings.duplicate_ppm.max(200_000);
            settings.straggler_max_micros = 3 * SECOND;
        }
        let slots = voters + spares;
        let (one, other) = (rng.random_range(0..voters), rng.random_range(0..slots));
        let at = rng.random_range(0..duration / 2);
        let timeout = settings.election_timeout_micros;
        let (delay_max, sync_max) = (settings.delay_max_micros, settings.sync_max_micros);
        let mut assault =
            Assault { rng, faults, at, voters, slots, timeout, delay_max, sync_max, one, other };
        for _ in 0..assault.rng.random_range(3..=15) {
            assault.at += assault.strike(attack);
            if assault.at >= duration {
                break;
            }
        }
    }
}

/// An attack under way.
struct Assault<'a> {
    rng: &'a mut SmallRng,
    faults: &'a mut Vec<Timed<Fault>>,
    /// When it strikes next.
    at: u64,
    voters: usize,
    slots: usize,
    /// The election timeout: what takes as long as that does the most harm.
    timeout: u64,
    delay_max: u64,
    sync_max: u64,
    /// A voter.
    one: usize,
    /// A machine.
    other: usize,
}

impl Assault<'_> {
    /// Strikes once. Returns the time until the next strike, microseconds.
    fn strike(&mut self, attack: Attack) -> u64 {
        match attack {
            Attack::Flapping => self.flapping(),
            Attack::Decapitation => self.decapitation(),
            Attack::HandOver => self.hand_over(),
            Attack::Churn => self.churn(),
            Attack::Return => self.return_of_a_leader(),
            Attack::ShortLives => self.short_lives(),
            Attack::PingPong => self.ping_pong(),
            Attack::Parting => self.parting(),
        }
    }

    fn fault(&mut self, after: u64, what: Fault) {
        self.faults.push(Timed { at: self.at + after, what });
    }

    fn timeouts(&mut self, from: u64, to: u64) -> u64 {
        self.rng.random_range(from * self.timeout..to * self.timeout)
    }

    fn flapping(&mut self) -> u64 {
        let what = cut_off_leader(self.rng, self.slots, self.timeout);
        self.fault(0, what);
        self.timeouts(1, 6)
    }

    fn decapitation(&mut self) -> u64 {
        let what = stop_leader(self.rng, self.timeout);
        self.fault(0, what);
        self.timeouts(1, 6)
    }

    fn hand_over(&mut self) -> u64 {
        self.fault(0, Fault::Transfer { slot: None });
        let after = self.rng.random_range(0..3 * self.delay_max);
        let what = hinder_leader(self.rng, self.slots, self.timeout);
        self.fault(after, what);
        self.timeouts(1, 6)
    }

    fn churn(&mut self) -> u64 {
        let cut_off_first = self.rng.random();
        if cut_off_first {
            let what = cut_off_leader(self.rng, self.slots, self.timeout);
            self.fault(0, what);
        }
        for _ in 0..self.rng.random_range(1..=4) {
            let what = match self.rng.random_range(0..6) {
                0 if self.slots > self.voters => {
                    Fault::Join { slot: self.rng.random_range(self.voters..self.slots) }
                }
                1 => Fault::Wipe { slot: self.rng.random_range(0..self.slots) },
                _ => Fault::Remove { slot: self.rng.random_range(0..self.slots) },
            };
            let after = self.rng.random_range(0..200 * MILLI);
            self.fault(after, what);
        }
        let what = if cut_off_first {
            stop_leader(self.rng, self.timeout)
        } else {
            cut_off_leader(self.rng, self.slots, self.timeout)
        };
        let after = self.rng.random_range(0..SECOND);
        self.fault(after, what);
        self.timeouts(1, 6)
    }

    fn return_of_a_leader(&mut self) -> u64 {
        let for_micros = self.timeouts(2, 6);
        self.fault(0, Fault::Partition { cut: Cut::Split(vec![LEADER]), for_micros });
        let after = for_micros - self.timeouts(0, 1);
        let what = stop_leader(self.rng, self.timeout);
        self.fault(after, what);
        self.timeouts(1, 6)
    }

    fn short_lives(&mut self) -> u64 {
        let back_micros = self.rng.random_range(MILLI..100 * MILLI);
        self.fault(0, Fault::Kill { slot: self.one, back_micros });
        let for_micros = self.timeouts(1, 6);
        let after = self.rng.random_range(0..200 * MILLI);
        self.fault(after, Fault::Partition { cut: Cut::Mute(self.one), for_micros });
        self.timeouts(1, 8)
    }

    fn parting(&mut self) -> u64 {
        self.fault(0, Fault::Remove { slot: LEADER });
        let soon = 8 * (self.delay_max + self.sync_max);
        let after = self.rng.random_range(0..soon);
        self.fault(after, Fault::Partition { cut: Cut::Mute(LEADER), for_micros: self.timeout });
        self.fault(after + soon, Fault::Kill { slot: LEADER, back_micros: 10 * MILLI });
        self.timeouts(4, 12)
    }

    fn ping_pong(&mut self) -> u64 {
        let (one, other) = (self.one, self.other);
        self.fault(0, Fault::Transfer { slot: Some(one) });
        let after = self.timeouts(0, 1);
        let for_micros = self.timeouts(1, 4);
        self.fault(after, Fault::Partition { cut: Cut::Split(vec![one, other]), for_micros });
        let healed = after + for_micros;
        let back = healed + self.timeouts(0, 1);
        self.fault(back, Fault::Transfer { slot: Some(one) });
        let one_way = healed + self.timeouts(0, 1);
        self.fault(one_way, Fault::Partition { cut: Cut::OneWay(one, other), for_micros: 3 * self.timeout });
        healed + self.timeouts(1, 4)
    }
}

fn hinder_leader(rng: &mut SmallRng, slots: usize, timeout: u64) -> Fault {
    match rng.random_range(0..3) {
        0 => Fault::Pause { slot: LEADER, for_micros: rng.random_range(0..2 * timeout) },
        1 => {
            let by_micros = rng.random_range(0..timeout);
            Fault::SlowNode { slot: LEADER, by_micros, for_micros: 2 * timeout }
        }
        _ => cut_off_leader(rng, slots, timeout),
    }
}

fn cut_off_leader(rng: &mut SmallRng, slots: usize, timeout: u64) -> Fault {
    let other = rng.random_range(0..slots);
    let cut = match rng.random_range(0..5) {
        0 => Cut::Mute(LEADER),
        1 => Cut::Deaf(LEADER),
        2 => Cut::Split(vec![LEADER, other]),
        3 => Cut::OneWay(LEADER, other),
        _ => Cut::Split(vec![LEADER]),
    };
    Fault::Partition { cut, for_micros: rng.random_range(timeout / 2..3 * timeout) }
}

fn stop_leader(rng: &mut SmallRng, timeout: u64) -> Fault {
    let back_micros = rng.random_range(MILLI..2 * timeout);
    if rng.random() {
        Fault::Kill { slot: LEADER, back_micros }
    } else {
        Fault::PowerLoss { slot: LEADER, back_micros }
    }
}
