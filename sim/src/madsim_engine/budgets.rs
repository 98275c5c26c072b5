//! What a node may hold, derived from its configuration: files and bytes on its disk, descriptors,
//! connections. The engine looks at it all the time.

use crate::checks::Violation;
use crate::madsim_engine::now;
use crate::madsim_engine::world::World;
use crate::schedule::SECOND;
use std::collections::VecDeque;

/// Snapshots after which a segment that was full before the first of them is gone: two are kept,
/// one is written, one is sent.
const SNAPSHOTS: usize = 4;
/// Bytes that a write takes beside its entries, at most: its block, and a spare part of the
/// segment.
const WRITE_BYTES: u64 = 4096 + 512;
/// Files that are no segments: identity, incarnation, lock, two snapshots, one being written, one
/// being received, a torn tail.
const OTHER_FILES: u64 = 14;
/// Segments beside those that hold what has to be held: the one being written, spares, one that is
/// being given up.
const SEGMENTS: u64 = 10;
/// Descriptors beside those of segments.
const HANDLES: u64 = 16;
/// Torn tails that are kept: four, and the next while it is written.
const TORN_TAILS: u64 = 5;
/// How long a node may be above its budget: the worker that removes files may be slow.
const PATIENCE_MICROS: u64 = 3 * SECOND;

/// What a process has written.
#[derive(Clone, Debug, Default)]
pub(in crate::madsim_engine) struct Written {
    /// Bytes in all, with what was there at its start.
    pub bytes: u64,
    /// `bytes` at each of the last snapshots.
    at_snapshots: VecDeque<u64>,
    /// Since when its disk holds too much.
    above_since: Option<u64>,
}

impl Written {
    /// For a process that finds `bytes` on its disk.
    pub(in crate::madsim_engine) fn from(bytes: usize) -> Self {
        Self { bytes: bytes as u64, ..Self::default() }
    }

    /// A write with `bytes` of entries is asked for.
    pub(in crate::madsim_engine) const fn write(&mut self, bytes: u64) {
        self.bytes += bytes + WRITE_BYTES;
    }

    /// A snapshot was taken, or installed.
    pub(in crate::madsim_engine) fn snapshot(&mut self) {
        if self.at_snapshots.len() == SNAPSHOTS {
            self.at_snapshots.pop_front();
        }
        self.at_snapshots.push_back(self.bytes);
    }

    /// Bytes that the log may still hold.
    fn live(&self) -> u64 {
        let gone = if self.at_snapshots.len() == SNAPSHOTS { self.at_snapshots[0] } else { 0 };
        self.bytes - gone
    }
}

impl World {
    /// Looks at what each machine holds; now and then.
    pub(in crate::madsim_engine) fn look_at_budgets(&mut self) {
        for slot in 0..self.machines.len() {
            if let Some(what) = self.above_budget(slot) {
                let machine = &mut self.machines[slot];
                let since = *machine.written.above_since.get_or_insert(now());
                let slow = machine.slow_disk.1.saturating_add(PATIENCE_MICROS);
                if now() > (since + PATIENCE_MICROS).max(slow) {
                    let what = format!("machine {slot} since {since}: {what}");
                    self.judge(Err(Violation { check: "a node stays within its budget", what }));
                }
            } else {
                self.machines[slot].written.above_since = None;
            }
        }
    }

    fn above_budget(&self, slot: usize) -> Option<String> {
        let (machine, settings) = (&self.machines[slot], &self.schedule.settings);
        if !machine.on || machine.handle.is_none() || machine.disk.armed() {
            return None;
        }
        let usage = machine.disk.usage();
        let segment = settings.segment_bytes;
        let store = self.stores.values().next_back().map_or(0, |(_, _, bytes)| *bytes);
        let live = machine.written.live();
        // What does not fit into a segment begins the next.
        let segments = SEGMENTS + live.div_ceil(segment);
        let bytes = segments * segment + live + 6 * (2 * store + (128 << 10));
        let most = [
            ("files", usage.files, OTHER_FILES + segments),
            ("bytes", usage.bytes, bytes),
            ("open files", usage.handles, HANDLES + segments),
            ("snapshots", usage.snapshots, 5),
            ("torn tails", usage.torn, TORN_TAILS),
        ];
        let above = most.iter().find(|(_, found, most)| found > most);
        above.map(|(what, found, most)| format!("{found} {what} where {most} are enough"))
    }
}
