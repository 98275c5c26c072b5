//! What a node may hold, derived from its configuration: files and bytes on its disk, descriptors,
//! connections. The engine looks at it all the time.

use crate::madsim_engine::time::now;
use crate::madsim_engine::world::World;
use crate::record::violation::Violation;
use crate::schedule::SECOND;

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

impl World {
    /// Looks at what each machine holds; now and then.
    pub(super) fn look_at_budgets(&mut self) {
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
        let keys = self.stores.values().next_back().map_or(0, |store| store.bytes);
        let store = keys + settings.history_bytes();
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
