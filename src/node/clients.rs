//! Clients that wait for an answer of the replica.

use crate::raft::Time;
use crate::replica::{ClientReply, RequestId};
use tokio::sync::oneshot;

/// Waiting clients, in reused slots: no allocation and no search for a request.
#[derive(Debug, Default)]
pub(super) struct Clients {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    /// How often the slot was used: a late answer to an earlier user finds another number.
    generation: u32,
    waiting: Option<Waiting>,
}

/// A client that waits for its answer.
#[derive(Debug)]
pub(super) struct Waiting {
    /// When it came.
    pub since: Time,
    /// Whether it is a write.
    pub write: bool,
    /// Where the answer goes.
    pub reply: oneshot::Sender<ClientReply>,
}

impl Clients {
    /// Takes a client in, and numbers its request.
    pub(super) fn insert(&mut self, waiting: Waiting) -> RequestId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("the replica bounds waiting requests far below 2^32")
        });
        let slot = &mut self.slots[index as usize];
        slot.waiting = Some(waiting);
        RequestId(u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// Removes and returns the client of that request.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<Waiting> {
        let (generation, index) = (id.0 >> 32, u32::try_from(id.0 & 0xffff_ffff).ok()?);
        let slot = self.slots.get_mut(index as usize)?;
        if u64::from(slot.generation) != generation {
            return None;
        }
        let waiting = slot.waiting.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(waiting)
    }

    /// Whether no client waits.
    pub(super) fn is_empty(&self) -> bool {
        self.taken() == 0
    }

    /// Slots that are not free.
    pub(super) fn taken(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// All of them.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Waiting> {
        self.free.clear();
        std::mem::take(&mut self.slots).into_iter().filter_map(|slot| slot.waiting)
    }
}

#[cfg(test)]
mod tests;
