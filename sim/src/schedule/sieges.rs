//! More series of faults that belong together: around changes of membership, the installing of
//! snapshots, and disks that do things wrong while their machines run.
//!
//! They draw from a stream of their own, so that the rest of a seed's schedule does not depend on
//! them.

use crate::schedule::fault::{Cut, DiskTrouble, Fault, INSTALLER, LEADER};
use crate::schedule::plan::Timed;
use crate::schedule::settings::{MILLI, SECOND, STALL_MICROS, Settings};
use rand::Rng;
use rand::rngs::SmallRng;

/// What a series is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Siege {
    /// One, two or all voters are exchanged for another machine, and what can go wrong in the joint
    /// state does.
    Exchange,
    /// Machines join as learners that stay learners, and a leader is left alone with them.
    Learners,
    /// A machine that was away gets a snapshot in many chunks, onto a slow disk, while leaders
    /// change.
    Install,
    /// Disks that run do things wrong, the leader's too.
    Disks,
}

const SIEGES: [Siege; 4] = [Siege::Exchange, Siege::Learners, Siege::Install, Siege::Disks];

/// Adds what is drawn for a run.
pub(crate) fn lay(
    rng: &mut SmallRng,
    (voters, spares): (usize, usize),
    duration: u64,
    settings: &mut Settings,
    faults: &mut Vec<Timed<Fault>>,
) {
    for siege in SIEGES {
        let share = match siege {
            Siege::Exchange if spares > 0 => 0.25,
            Siege::Learners if spares > 0 => 0.12,
            Siege::Install if voters >= 3 => 0.2,
            Siege::Disks => 0.2,
            _ => 0.0,
        };
        if !rng.random_bool(share) {
            continue;
        }
        let timeout = settings.election_timeout_micros;
        let at = rng.random_range(0..duration / 3);
        if siege == Siege::Install {
            settings.snapshot_log_entries = rng.random_range(5..20);
            settings.log_tail_entries = 0;
            settings.snapshot_chunk_bytes = if settings.value_bytes > 100 { 1_000 } else { 100 };
        }
        let mut laying = Laying { rng, faults, at, voters, slots: voters + spares, timeout, settings };
        for _ in 0..laying.rng.random_range(2..=8) {
            laying.at += match siege {
                Siege::Exchange => laying.exchange(),
                Siege::Learners => laying.learners(),
                Siege::Install => laying.install(),
                Siege::Disks => laying.disks(),
            };
            if laying.at >= duration {
                break;
            }
        }
    }
}

/// What a later series is about: situations that need the same leader for long, or a disk that is
/// slow at the right time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LateSiege {
    /// A machine that installs a snapshot takes long for it. Meanwhile it is cut off, or loses its
    /// leader.
    SlowInstall,
    /// One machine is away again and again, while the same leader goes on, and gets rid of its log.
    Laggard,
    /// The leader's newest snapshot is damaged while a member needs it, and the leader goes on.
    RottenSnapshot,
    /// Disks are full at the time when snapshots give room back.
    Full,
    /// One machine loses its power again and again within a write of many sectors.
    Torn,
    /// A machine comes back at another address, and the leader, which has to be told, goes just
    /// then.
    Moves,
    /// A machine joins while one write comes after the other, so that there is always one under
    /// way.
    Busy,
}

const LATE_SIEGES: [LateSiege; 7] = [
    LateSiege::SlowInstall,
    LateSiege::Laggard,
    LateSiege::RottenSnapshot,
    LateSiege::Full,
    LateSiege::Torn,
    LateSiege::Busy,
    LateSiege::Moves,
];

/// What the last series are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastSiege {
    /// All disks take longer for a sync than an election timeout, and all machines hear each other.
    Sluggish,
    /// All disks are full, and the leader's is for longest.
    AllFull,
}

const LAST_SIEGES: [LastSiege; 2] = [LastSiege::Sluggish, LastSiege::AllFull];

/// How long a leader is without room: it tries to hand over every five seconds.
const WITHOUT_ROOM_MICROS: u64 = 16 * SECOND;

/// So many keys are in several leaves of a tree.
const MANY_KEYS: u8 = 240;
/// A share of the runs has as many.
const MANY: f64 = 0.06;

/// Adds what is drawn for a run of the last series, from a stream of their own, and whether it has
/// many keys.
pub(crate) fn lay_last(
    rng: &mut SmallRng,
    (voters, spares): (usize, usize),
    settings: &mut Settings,
    faults: &mut Vec<Timed<Fault>>,
) {
    for siege in LAST_SIEGES {
        let is_laid = rng.random_bool(0.05);
        if !is_laid || voters < 3 {
            continue;
        }
        let at = rng.random_range(SECOND..6 * SECOND);
        let timeout = settings.election_timeout_micros;
        if siege == LastSiege::AllFull {
            settings.value_bytes = 2_000;
            settings.segment_bytes = 64 << 10;
            settings.snapshot_chunk_bytes = settings.snapshot_chunk_bytes.max(4_096);
            faults.retain(|fault| fault.at < at || fault.at > at + WITHOUT_ROOM_MICROS);
        }
        let mut laying = Laying { rng, faults, at, voters, slots: voters + spares, timeout, settings };
        match siege {
            LastSiege::Sluggish => laying.sluggish(),
            LastSiege::AllFull => laying.all_full(),
        }
    }
    if rng.random_bool(MANY) {
        settings.keys = MANY_KEYS;
        settings.value_bytes = settings.value_bytes.min(100);
        settings.snapshot_chunk_bytes = settings.snapshot_chunk_bytes.max(4_096);
    }
}

/// How long a busy time lasts. Nothing else strikes then.
const BUSY_MICROS: u64 = 9 * SECOND;
/// The time between two of its writes: shorter than one takes.
const BUSY_WRITE_MICROS: u64 = 10 * MILLI;

/// Adds what is drawn for a run of the later series, from a stream of their own.
pub(crate) fn lay_late(
    rng: &mut SmallRng,
    (voters, spares): (usize, usize),
    duration: u64,
    settings: &mut Settings,
    faults: &mut Vec<Timed<Fault>>,
) {
    for siege in LATE_SIEGES {
        let share = match siege {
            LateSiege::Busy => 0.02 * f64::from(u8::from(spares > 0)),
            LateSiege::Full | LateSiege::Torn => 0.08,
            _ => 0.08 * f64::from(u8::from(voters >= 3)),
        };
        if !rng.random_bool(share) {
            continue;
        }
        let at = rng.random_range(SECOND..duration / 4);
        if !matches!(siege, LateSiege::Torn | LateSiege::Busy | LateSiege::Moves) {
            settings.log_tail_entries = 0;
            settings.snapshot_log_entries = rng.random_range(5..20);
        }
        match siege {
            LateSiege::Torn => {
                settings.value_bytes = 2_000;
                settings.snapshot_chunk_bytes = settings.snapshot_chunk_bytes.max(4_096);
                settings.torn_files_max = 1;
            }
            LateSiege::SlowInstall => settings.snapshot_chunk_bytes = 1 << 20,
            LateSiege::Moves => {}
            LateSiege::Laggard => {
                settings.snapshot_log_entries = rng.random_range(30..60);
                settings.log_bytes_max = 6 * (settings.value_bytes as u64 + 80);
            }
            LateSiege::RottenSnapshot => {
                settings.snapshot_chunk_bytes = if settings.value_bytes > 100 { 1_000 } else { 100 };
                // In half of the runs the newest snapshot is of the last entry, mostly: it is saved
                // again under its name.
                if rng.random() {
                    (settings.snapshot_log_entries, settings.keys) = (1, 2);
                    settings.value_bytes = 2_000;
                    settings.snapshot_chunk_bytes = 1_000;
                }
            }
            LateSiege::Busy => {
                (settings.loss_ppm, settings.duplicate_ppm) = (0, 0);
                (settings.corrupt_ppm, settings.straggler_ppm) = (0, 0);
                (settings.delay_min_micros, settings.delay_max_micros) = (5 * MILLI, 6 * MILLI);
                (settings.sync_min_micros, settings.sync_max_micros) = (5 * MILLI, 6 * MILLI);
                (settings.link_spread, settings.settle_max_micros) = (1, 0);
                settings.snapshot_log_entries = 100_000;
                settings.snapshot_chunk_bytes = settings.snapshot_chunk_bytes.max(4_096);
                settings.append_bytes_max = settings.append_bytes_max.max(2_000);
                faults.retain(|fault| fault.at < at || fault.at > at + BUSY_MICROS);
            }
            LateSiege::Full => {
                settings.value_bytes = 2_000;
                settings.segment_bytes = 64 << 10;
                settings.snapshot_chunk_bytes = settings.snapshot_chunk_bytes.max(4_096);
            }
        }
        let timeout = settings.election_timeout_micros;
        let mut laying = Laying { rng, faults, at, voters, slots: voters + spares, timeout, settings };
        let one = laying.rng.random_range(0..laying.voters);
        let count = match siege {
            LateSiege::Torn => 20,
            LateSiege::Busy => 1,
            _ => laying.rng.random_range(3..=8),
        };
        for _ in 0..count {
            laying.at += match siege {
                LateSiege::Torn => laying.torn(one),
                LateSiege::SlowInstall => laying.slow_install(),
                LateSiege::Laggard => laying.laggard(one),
                LateSiege::RottenSnapshot => laying.rotten_snapshot(),
                LateSiege::Full => laying.full(),
                LateSiege::Busy => laying.busy(),
                LateSiege::Moves => laying.moves(),
            };
            if laying.at >= duration {
                break;
            }
        }
    }
}

/// A series under way.
struct Laying<'a> {
    rng: &'a mut SmallRng,
    faults: &'a mut Vec<Timed<Fault>>,
    /// When the next strike is.
    at: u64,
    voters: usize,
    slots: usize,
    /// The election timeout.
    timeout: u64,
    settings: &'a mut Settings,
}

impl Laying<'_> {
    fn fault(&mut self, after: u64, what: Fault) {
        self.faults.push(Timed { at: self.at + after, what });
    }

    fn timeouts(&mut self, from: u64, to: u64) -> u64 {
        self.rng.random_range(from * self.timeout..to * self.timeout)
    }

    /// A machine takes the place of some voters. How long until the next time.
    fn exchange(&mut self) -> u64 {
        let slot = self.rng.random_range(0..self.slots);
        let slot = if self.rng.random() { slot } else { self.rng.random_range(self.voters..self.slots) };
        let count = match self.rng.random_range(0..5) {
            0..=1 => 1,
            2..=3 => 2,
            _ => self.slots,
        };
        let mut others: Vec<usize> = (0..self.slots).filter(|other| *other != slot).collect();
        let with = (0..count.min(others.len()))
            .map(|_| others.swap_remove(self.rng.random_range(0..others.len())))
            .collect();
        self.fault(0, Fault::Exchange { slot, with });
        for _ in 0..self.rng.random_range(0..=2) {
            let soon = 4 * (self.settings.delay_max_micros + self.settings.sync_max_micros);
            let after_micros = if self.rng.random() { self.rng.random_range(0..soon) } else { 0 };
            let what = Box::new(self.in_joint_state());
            self.fault(0, Fault::InJointState { after_micros, what });
        }
        match self.rng.random_range(0..4) {
            0 => {
                let by_micros = self.rng.random_range(0..2 * self.timeout);
                self.fault(0, Fault::SlowDisk { slot, by_micros, for_micros: 3 * SECOND });
            }
            1 => {
                let for_micros = self.timeouts(1, 4);
                let cut =
                    if self.rng.random() { Cut::OneWay(slot, LEADER) } else { Cut::OneWay(LEADER, slot) };
                self.fault(300 * MILLI, Fault::Partition { cut, for_micros });
            }
            _ => {}
        }
        SECOND + self.timeouts(2, 12)
    }

    fn in_joint_state(&mut self) -> Fault {
        let for_micros = self.timeouts(2, 8);
        let back_micros = self.timeouts(0, 3) + MILLI;
        match self.rng.random_range(0..9) {
            0..=3 => Fault::SplitJoint { shared: self.rng.random(), for_micros },
            4 => Fault::Partition { cut: Cut::Split(vec![LEADER]), for_micros },
            5 => Fault::Kill { slot: LEADER, back_micros },
            6 => Fault::PowerLoss { slot: LEADER, back_micros },
            7 => Fault::Transfer {
                slot: self.rng.random_bool(0.5).then(|| self.rng.random_range(0..self.slots)),
            },
            _ => Fault::Pause { slot: LEADER, for_micros },
        }
    }

    fn learners(&mut self) -> u64 {
        let spares = self.voters..self.slots;
        for slot in spares.clone() {
            self.fault(0, Fault::Learn { slot });
        }
        let after = SECOND + self.timeouts(0, 4);
        let for_micros = self.timeouts(2, 8);
        let side = std::iter::once(LEADER).chain(spares).collect();
        self.fault(after, Fault::Partition { cut: Cut::Split(side), for_micros });
        after + for_micros + self.timeouts(1, 4)
    }

    fn install(&mut self) -> u64 {
        let slot = self.rng.random_range(0..self.slots);
        let away = self.timeouts(3, 10);
        self.fault(0, Fault::Partition { cut: Cut::Split(vec![slot]), for_micros: away });
        let by_micros = self.rng.random_range(0..2 * self.timeout);
        self.fault(away, Fault::SlowDisk { slot, by_micros, for_micros: 3 * SECOND });
        for _ in 0..self.rng.random_range(1..=3) {
            let after = away + self.rng.random_range(0..2 * SECOND);
            let back_micros = self.timeouts(0, 2) + MILLI;
            let what = match self.rng.random_range(0..5) {
                0..=1 => Fault::Transfer { slot: None },
                2 => Fault::Kill { slot: LEADER, back_micros },
                3 => Fault::Partition { cut: Cut::OneWay(LEADER, slot), for_micros: 2 * self.timeout },
                _ => Fault::Kill { slot, back_micros },
            };
            self.fault(after, what);
        }
        away + SECOND + self.timeouts(2, 6)
    }

    fn slow_install(&mut self) -> u64 {
        let slot = self.rng.random_range(0..self.slots);
        let away = self.timeouts(3, 10);
        self.fault(0, Fault::Partition { cut: Cut::Split(vec![slot]), for_micros: away });
        let by_micros = self.timeouts(2, 5);
        self.fault(away, Fault::SlowDisk { slot, by_micros, for_micros: self.timeout + 2 * SECOND });
        let (for_micros, back_micros) = (self.timeouts(3, 8), self.timeouts(1, 4));
        let what = match self.rng.random_range(0..4) {
            0..=1 => Fault::Partition { cut: Cut::Split(vec![INSTALLER]), for_micros },
            2 => Fault::Partition { cut: Cut::OneWay(LEADER, INSTALLER), for_micros },
            _ => Fault::Kill { slot: LEADER, back_micros },
        };
        let after_micros = self.rng.random_range(0..self.timeout);
        self.fault(away, Fault::WhenInstalling { after_micros, what: Box::new(what) });
        away + SECOND + self.timeouts(4, 10)
    }

    fn laggard(&mut self, slot: usize) -> u64 {
        let away = self.timeouts(3, 8);
        self.fault(0, Fault::Partition { cut: Cut::Split(vec![slot]), for_micros: away });
        away + SECOND + self.timeouts(1, 4)
    }

    fn rotten_snapshot(&mut self) -> u64 {
        let slot = self.rng.random_range(0..self.slots);
        let away = self.timeouts(3, 8);
        self.fault(0, Fault::Partition { cut: Cut::Split(vec![slot]), for_micros: away });
        let early = if self.rng.random() { 20 * MILLI } else { 0 };
        let after = away + self.rng.random_range(0..300 * MILLI) / (1 + early / MILLI) - early;
        // It is not started again before the end.
        let trouble = DiskTrouble::Rot { file: "snap".to_owned(), after_micros: 60 * SECOND };
        self.fault(after, Fault::Disk { slot: LEADER, trouble });
        away + SECOND + self.timeouts(4, 12)
    }

    fn torn(&mut self, slot: usize) -> u64 {
        let by_micros = self.rng.random_range(10 * MILLI..200 * MILLI);
        self.fault(0, Fault::SlowDisk { slot, by_micros, for_micros: SECOND });
        let after = self.rng.random_range(100 * MILLI..SECOND);
        self.fault(after, Fault::PowerLoss { slot, back_micros: 20 * MILLI });
        after + self.rng.random_range(100 * MILLI..SECOND)
    }

    fn full(&mut self) -> u64 {
        let slot = if self.rng.random_bool(0.4) { LEADER } else { self.rng.random_range(0..self.slots) };
        let for_micros = self.timeouts(2, 10);
        self.fault(0, Fault::DiskFull { slot, for_micros });
        if self.rng.random_bool(0.3) {
            self.fault(0, Fault::Transfer { slot: None });
        }
        self.timeouts(1, 10)
    }

    fn sluggish(&mut self) {
        let by_micros = (self.timeout + self.rng.random_range(0..self.timeout)).min(STALL_MICROS / 4 - 1);
        let for_micros = self.timeouts(6, 16);
        for slot in 0..self.slots {
            self.fault(0, Fault::SlowDisk { slot, by_micros, for_micros });
        }
    }

    fn all_full(&mut self) {
        // Each is full until the last of its times is over: the leader's for longest.
        self.fault(0, Fault::DiskFull { slot: LEADER, for_micros: WITHOUT_ROOM_MICROS });
        for slot in 0..self.slots {
            let for_micros = self.rng.random_range(2 * SECOND..4 * SECOND);
            self.fault(0, Fault::DiskFull { slot, for_micros });
        }
    }

    fn moves(&mut self) -> u64 {
        let slot = self.rng.random_range(0..self.voters);
        // Another has long been elected by then, if it led.
        let back = self.timeouts(4, 8);
        self.fault(0, Fault::Move { slot, back_micros: back });
        let before = self.rng.random_range(0..40 * MILLI);
        let back_micros = self.rng.random_range(SECOND..3 * SECOND);
        self.fault(back - before, Fault::Kill { slot: LEADER, back_micros });
        back + 3 * SECOND + self.timeouts(4, 12)
    }

    fn busy(&mut self) -> u64 {
        self.fault(0, Fault::Join { slot: self.voters });
        let for_micros = BUSY_MICROS - SECOND;
        self.fault(0, Fault::Flood { for_micros, every_micros: BUSY_WRITE_MICROS });
        BUSY_MICROS
    }

    fn disks(&mut self) -> u64 {
        let slot = if self.rng.random_bool(0.4) { LEADER } else { self.rng.random_range(0..self.slots) };
        let file = ["wal", "snap", ""][self.rng.random_range(0..3)].to_owned();
        let trouble = match self.rng.random_range(0..6) {
            0 => DiskTrouble::ReadFails,
            1 => DiskTrouble::NameFails,
            2 => DiskTrouble::WriteTorn(512 * self.rng.random_range(0..20)),
            3 => DiskTrouble::WriteBack,
            4 => DiskTrouble::WriteLost,
            _ => DiskTrouble::Rot { file, after_micros: self.rng.random_range(0..4 * SECOND) },
        };
        self.fault(0, Fault::Disk { slot, trouble });
        if self.rng.random() {
            let other = self.rng.random_range(0..self.slots);
            let (for_micros, back_micros) = (self.timeouts(1, 4), self.timeouts(0, 3) + MILLI);
            let after = self.rng.random_range(0..SECOND);
            let what = match self.rng.random_range(0..3) {
                0 => Fault::Partition { cut: Cut::Split(vec![other]), for_micros },
                1 => Fault::PowerLoss { slot: other, back_micros },
                _ => Fault::Blackout { back_micros },
            };
            self.fault(after, what);
        }
        self.timeouts(2, 12)
    }
}
