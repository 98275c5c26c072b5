//! What strikes.

use crate::schedule::settings::STALL_MICROS;
use serde::{Deserialize, Serialize};

/// In place of a machine's number: the machine that leads when the fault strikes. If none does, the
/// fault misses.
pub const LEADER: usize = usize::MAX;

/// In place of a machine's number: the machine that installs a snapshot when the fault strikes.
pub const INSTALLER: usize = usize::MAX - 1;

/// How the network is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cut {
    /// Machines in the set reach each other, the others reach each other, and no message crosses.
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
    /// The process dies; files stay as the page cache has them. It comes back by itself after a
    /// while.
    Kill {
        /// The machine.
        slot: usize,
        /// When it comes back, from now.
        back_micros: u64,
    },
    /// The process dies, and comes back at another address, if the cluster is well otherwise. In
    /// the queue engine, whose messages need no addresses, it just dies.
    Move {
        /// The machine.
        slot: usize,
        /// When it comes back, from now.
        back_micros: u64,
    },
    /// The process ends, and the machine comes back with another release.
    Release {
        /// The machine.
        slot: usize,
        /// Whether with the newest one; else with the oldest, if its directory lets it.
        newest: bool,
        /// When it comes back, from now.
        back_micros: u64,
    },
    /// The power goes: of what was not synced, any part survives.
    PowerLoss {
        /// The machine.
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
        /// The machine.
        slot: usize,
        /// How long, microseconds.
        for_micros: u64,
    },
    /// The network is cut (in addition to other cuts).
    Partition {
        /// Which links are cut.
        cut: Cut,
        /// How long, microseconds.
        for_micros: u64,
    },
    /// Messages of a machine take longer, both ways.
    SlowNode {
        /// The machine.
        slot: usize,
        /// How much longer, microseconds.
        by_micros: u64,
        /// How long, microseconds.
        for_micros: u64,
    },
    /// A machine's disk takes longer.
    SlowDisk {
        /// The machine.
        slot: usize,
        /// How much longer each batch takes.
        by_micros: u64,
        /// How long, microseconds.
        for_micros: u64,
    },
    /// The next fsync fails; the process has to end, and is started again.
    FailSync {
        /// The machine.
        slot: usize,
    },
    /// The next write fails; the process has to end, and is started again.
    FailWrite {
        /// The machine.
        slot: usize,
    },
    /// The disk has no room left for new files.
    DiskFull {
        /// The machine.
        slot: usize,
        /// How long, microseconds.
        for_micros: u64,
    },
    /// A bit flips on disk while the machine is off.
    Rot {
        /// The machine.
        slot: usize,
        /// A part of the file's path.
        file: String,
    },
    /// The next write lands a block further on, and is acknowledged; what it missed keeps its old
    /// content.
    Misdirect {
        /// The machine.
        slot: usize,
    },
    /// The machine's disk does one thing wrong.
    Disk {
        /// The machine.
        slot: usize,
        /// What it does wrong.
        trouble: DiskTrouble,
    },
    /// The machine loses its disk and comes back as a new member.
    Wipe {
        /// The machine.
        slot: usize,
    },
    /// The monotonic clock jumps ahead (the machine was suspended).
    ClockJump {
        /// The machine.
        slot: usize,
        /// By how much, microseconds.
        by_micros: u64,
    },
    /// A spare machine joins.
    Join {
        /// The machine.
        slot: usize,
    },
    /// A machine that is no member joins, and takes the place of voters that are well (queue
    /// engine).
    Exchange {
        /// The machine.
        slot: usize,
        /// The machines whose places it takes, if they are voters.
        with: Vec<usize>,
    },
    /// A machine that is no member joins, and stays a learner (queue engine).
    Learn {
        /// The machine.
        slot: usize,
    },
    /// A fault that strikes some time after the next joint state comes into force on its leader
    /// (queue engine).
    InJointState {
        /// How long, microseconds.
        after_micros: u64,
        /// The fault that strikes.
        what: Box<Fault>,
    },
    /// A fault that strikes some time after the last chunk of a snapshot has reached a machine's
    /// storage, which has not written it yet (queue engine). [`INSTALLER`] is that machine.
    WhenInstalling {
        /// How long, microseconds.
        after_micros: u64,
        /// The fault that strikes.
        what: Box<Fault>,
    },
    /// In a joint state, the machines that only the old configuration has are cut off from those
    /// that only the new one has (queue engine).
    SplitJoint {
        /// Bit by bit, on which side each other machine is.
        shared: u64,
        /// How long, microseconds.
        for_micros: u64,
    },
    /// The leader is asked for one write after the other, of a key that no client asks for (queue
    /// engine).
    Flood {
        /// How long.
        for_micros: u64,
        /// The time between two of them.
        every_micros: u64,
    },
    /// A member is removed.
    Remove {
        /// The machine.
        slot: usize,
    },
    /// The leader is asked to hand over.
    Transfer {
        /// The machine to hand over to; `None`: to any.
        slot: Option<usize>,
    },
}

/// What a disk does wrong, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskTrouble {
    /// The next read fails.
    ReadFails,
    /// The next change of a directory fails, or its sync.
    NameFails,
    /// The next write fails, and leaves at most this many bytes.
    WriteTorn(u32),
    /// The next write lands a block before its place, and is acknowledged.
    WriteBack,
    /// The next write is acknowledged and lost. The bound: another one has reached the disk behind
    /// it in the same file, so that something durable tells. What was last before the machine
    /// stopped is not lost.
    WriteLost,
    /// A bit flips while the machine runs; it is killed later, and reads what it finds.
    Rot {
        /// A part of the file's path.
        file: String,
        /// How much later.
        after_micros: u64,
    },
}

impl DiskTrouble {
    /// Its name, as campaigns count it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ReadFails => "read fails",
            Self::NameFails => "directory fails",
            Self::WriteTorn(_) => "write fails in part",
            Self::WriteBack => "write lands before its place",
            Self::WriteLost => "write lost",
            Self::Rot { .. } => "rot while running",
        }
    }
}

impl Fault {
    /// Its name, as campaigns count it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Move { .. } => "move",
            Self::Release { newest: true, .. } => "upgrade",
            Self::Release { newest: false, .. } => "downgrade",
            Self::PowerLoss { .. } => "power loss",
            Self::Blackout { .. } => "blackout",
            Self::Pause { .. } => "pause",
            Self::Partition { .. } => "partition",
            Self::SlowNode { .. } => "slow node",
            Self::SlowDisk { by_micros, .. } if *by_micros >= STALL_MICROS => "stalled disk",
            Self::SlowDisk { .. } => "slow disk",
            Self::FailSync { .. } => "fsync fails",
            Self::FailWrite { .. } => "write fails",
            Self::DiskFull { .. } => "disk full",
            Self::Rot { .. } => "rot",
            Self::Misdirect { .. } => "misdirected write",
            Self::Disk { trouble, .. } => trouble.name(),
            Self::Wipe { .. } => "wipe",
            Self::ClockJump { .. } => "clock jump",
            Self::Join { .. } => "join",
            Self::Exchange { .. } => "exchange",
            Self::Learn { .. } => "learner joins",
            Self::InJointState { .. } => "ambush in a joint state",
            Self::WhenInstalling { .. } => "ambush while a snapshot is installed",
            Self::SplitJoint { .. } => "old cut from new",
            Self::Flood { .. } => "flood of writes",
            Self::Remove { .. } => "remove",
            Self::Transfer { .. } => "transfer",
        }
    }

    /// The fault with [`LEADER`] made the machine that leads; `None` if it needs one and there is
    /// none.
    #[must_use]
    pub fn aimed(mut self, leader: Option<usize>) -> Option<Self> {
        for slot in self.slots_mut() {
            if *slot == LEADER {
                *slot = leader?;
            }
        }
        Some(self)
    }

    /// The fault with [`INSTALLER`] made a machine.
    #[must_use]
    pub fn aimed_at_installer(mut self, installer: usize) -> Self {
        for slot in self.slots_mut() {
            if *slot == INSTALLER {
                *slot = installer;
            }
        }
        self
    }

    fn slots_mut(&mut self) -> Vec<&mut usize> {
        match self {
            Self::Kill { slot, .. }
            | Self::Move { slot, .. }
            | Self::Release { slot, .. }
            | Self::PowerLoss { slot, .. }
            | Self::Pause { slot, .. }
            | Self::SlowNode { slot, .. }
            | Self::SlowDisk { slot, .. }
            | Self::FailSync { slot }
            | Self::FailWrite { slot }
            | Self::DiskFull { slot, .. }
            | Self::Rot { slot, .. }
            | Self::Misdirect { slot }
            | Self::Disk { slot, .. }
            | Self::Wipe { slot }
            | Self::ClockJump { slot, .. }
            | Self::Join { slot }
            | Self::Exchange { slot, .. }
            | Self::Learn { slot }
            | Self::Remove { slot }
            | Self::Transfer { slot: Some(slot) } => vec![slot],
            Self::Partition { cut, .. } => match cut {
                Cut::Split(side) => side.iter_mut().collect(),
                Cut::Mute(slot) | Cut::Deaf(slot) | Cut::Bridge(slot) => vec![slot],
                Cut::OneWay(from, to) => vec![from, to],
                Cut::Ring => Vec::new(),
            },
            // What waits is aimed when it strikes.
            Self::InJointState { .. }
            | Self::WhenInstalling { .. }
            | Self::SplitJoint { .. }
            | Self::Flood { .. }
            | Self::Blackout { .. }
            | Self::Transfer { slot: None } => Vec::new(),
        }
    }
}
