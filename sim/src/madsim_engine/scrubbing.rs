//! What is at rest is read again: on a disk that was never damaged nothing is ever called damaged.

use crate::madsim_engine::world::World;
use crate::record::violation::Violation;

impl World {
    /// Looks at what the processes that run have found.
    pub(super) fn look_at_scrubbing(&mut self) {
        for slot in 0..self.machines.len() {
            let machine = &self.machines[slot];
            let Some(scrub) = machine.scrub.as_ref().filter(|_| machine.on) else { continue };
            let found = scrub.status();
            if found.passes > 0 {
                self.mark("all at rest read again");
            }
            if !self.machines[slot].was_damaged && (!found.damaged.is_empty() || found.mended > 0) {
                let what = format!("machine {slot}: {found:?}");
                return self.judge(Err(Violation { check: "a sound file is not called damaged", what }));
            }
        }
    }
}
