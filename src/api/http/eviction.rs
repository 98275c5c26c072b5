//! What becomes of a newcomer when the port is full: the caller with the most connections gives up
//! idle ones.
//!
//! Anybody can open connections and be silent. Without this, the first to come would keep all
//! others out.

use crate::api::http::context::{Connections, OpenConnection};
use crate::api::http::control::{Order, Phase};
use crate::runtime::door::Caller;
use std::sync::atomic::Ordering;

/// Connections that are ended at once, at most: to find them takes a look at all.
const ENDED_AT_ONCE: usize = 16;

impl Connections {
    /// Ends idle connections, without credentials, of the caller that has the most, and of no one
    /// that has about as few as `newcomer`. Whether there is room now. `tick` is the sweep's clock.
    pub(super) fn make_room_for(&mut self, newcomer: &Caller, tick: u32) -> bool {
        // To look in vain costs as much, and callers may come again and again.
        if self.none_to_end == Some(tick) {
            return false;
        }
        let few = self.places.of(newcomer) + 1;
        let Some((busiest, count)) = self.places.busiest().filter(|(_, count)| *count > few) else {
            return false;
        };
        let ended_max = ((count - few) / 2).clamp(1, ENDED_AT_ONCE);
        let missing = self.places.missing(newcomer);
        if missing > ended_max {
            // It has many itself, and what is left is kept for others.
            return false;
        }
        let is_idle = |(_, one): &(&u64, &OpenConnection)| one.is_idle(tick);
        let idle = self.open.iter().filter(is_idle);
        let of_busiest = idle.clone().filter(|(_, one)| one.caller.group() == *busiest);
        let mut ids: Vec<u64> = of_busiest.map(|(id, _)| *id).take(ended_max).collect();
        if ids.len() < missing {
            let others = idle.filter(|(_, one)| self.places.of(&one.caller) > few);
            ids = others.map(|(id, _)| *id).take(missing).collect();
        }
        if ids.len() < missing {
            self.none_to_end = Some(tick);
            return false;
        }
        for id in &ids {
            if let Some(ended) = self.open.remove(id) {
                ended.control.tell(Order::Abort);
                self.places.give_back(&ended.caller);
            }
        }
        true
    }
}

impl OpenConnection {
    /// Whether its client, of which nobody knows who it is, has asked nothing, or has begun to ask
    /// a tick ago and not ended.
    fn is_idle(&self, tick: u32) -> bool {
        let waits = match self.control.waits() {
            (Phase::Idle, _) => true,
            (Phase::Head, since) => since < tick,
            (Phase::Answering | Phase::Sending, _) => false,
        };
        waits && !self.control.is_known.load(Ordering::Relaxed)
    }
}
