//! Reads along for the timeline: what connections carry, what workers do, and which tasks panic.

use crate::madsim_engine::time::now;
use crate::madsim_engine::world::{Shared, World};
use crate::record::timeline::Fate;

impl World {
    /// One end of a connection wrote these bytes, one of which was damaged on the way, and the last
    /// parcel holds them.
    pub(super) fn tap_written(&mut self, id: u64, end: usize, bytes: &[u8], damaged_at: Option<usize>) {
        let Some(timeline) = self.trace.timeline() else { return };
        let Some(pipes) = self.connections.pipes(id) else { return };
        let (Some((from, _)), Some((to, _))) = (pipes[end].from, pipes[1 - end].from) else { return };
        pipes[end].tap.spoken = true;
        // Messages come from the end that called, once its hello was answered.
        if end == 1 || !pipes[1].tap.spoken {
            return;
        }
        let pipe = &mut pipes[end];
        let arrives = pipe.parcels.back().and_then(|(at, _)| *at);
        pipe.tap.flying.retain(|(_, at)| at.is_none_or(|at| at > now()));
        let taken = pipe.tap.read(bytes, damaged_at);
        for (number, readable) in self.wire_tap.take((from, to), taken) {
            if readable {
                pipe.tap.flying.push((number, arrives));
            }
            timeline.messages[number].fate = match arrives {
                _ if !readable => Fate::Unreadable,
                Some(at) => Fate::Arrives(at),
                None => Fate::Lost,
            };
        }
    }

    /// A worker of a machine took up all that waits for it, and has done it after `micros`.
    pub(super) fn tap_worker(&mut self, slot: usize, worker: &str, micros: u64) {
        let Some(timeline) = self.trace.timeline() else { return };
        let (at, clock) = (now(), &self.machines[slot].clock);
        let until = clock.when(clock.read(at).plus(micros), at);
        if worker == "log" {
            match self.wire_tap.writes.remove(&slot) {
                Some(writes) => timeline.writes(slot, at, until, &writes),
                None => {
                    timeline.disk(slot, at, until, "write and fsync", "a new identity, in another cluster")
                }
            }
        } else {
            for (kind, text) in self.wire_tap.beside.remove(&slot).unwrap_or_default() {
                timeline.disk(slot, at, until, kind, text);
            }
        }
    }
}

/// A task of a machine: if it panics, the timeline says on which.
pub(super) fn witnessed(
    shared: Shared,
    (slot, life): (usize, u32),
    task: impl Future<Output = ()>,
) -> impl Future<Output = ()> {
    let witness = Witness::new(shared, slot, life);
    async move {
        let _witness = witness;
        task.await;
    }
}

/// Lives as long as a task.
struct Witness {
    shared: Shared,
    slot: usize,
    life: u32,
}

impl Witness {
    fn new(shared: Shared, slot: usize, life: u32) -> Self {
        if let Some(machine) = shared.lock().machines.get_mut(slot) {
            let others = if machine.tasks.0 == life { machine.tasks.1 } else { 0 };
            machine.tasks = (life, others + 1);
        }
        Self { shared, slot, life }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if let Some(machine) = self.shared.lock().machines.get_mut(self.slot)
            && machine.tasks.0 == self.life
        {
            machine.tasks.1 -= 1;
        }
        // Dropped by the panic itself: tasks of machines that are switched off are dropped in
        // peace.
        if std::thread::panicking()
            && let Some(timeline) = self.shared.lock().trace.timeline()
        {
            timeline.note(now(), Some(self.slot), "assertion failed", "the run ends here");
        }
    }
}
