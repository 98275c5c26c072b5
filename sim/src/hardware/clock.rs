//! Each machine's monotonic clock: its own rate, its own start, and jumps ahead.

#[cfg(test)]
mod tests;

use infinitystore::raft::Time;

const MILLION: u128 = 1_000_000;

/// A machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Millionths of a second that it advances in a second of the simulation.
    rate_ppm: u64,
    /// What it shows at the simulation's zero, with all jumps so far.
    offset: u64,
}

impl Clock {
    /// A clock that is `drift_ppm` millionths too fast (or too slow), and starts at `offset`
    /// microseconds.
    #[must_use]
    pub fn new(drift_ppm: i64, offset: u64) -> Self {
        let rate_ppm = u64::try_from(1_000_000_i64.saturating_add(drift_ppm).max(1)).unwrap_or(1_000_000);
        Self { rate_ppm, offset }
    }

    /// It jumps ahead.
    pub fn jump(&mut self, by_micros: u64) {
        self.offset += by_micros;
    }

    /// What it shows at `now` of the simulation.
    #[must_use]
    pub fn read(&self, now: u64) -> Time {
        Time::new(self.offset + scale(now, u128::from(self.rate_ppm), MILLION))
    }

    /// The first instant of the simulation at which it shows `time` or more, not before `now`.
    #[must_use]
    pub fn when(&self, time: Time, now: u64) -> u64 {
        let ahead = time.since(Time::new(self.offset));
        let mut at = scale(ahead, MILLION, u128::from(self.rate_ppm)).max(now);
        while self.read(at) < time {
            at += 1;
        }
        at
    }
}

fn scale(value: u64, by: u128, of: u128) -> u64 {
    u64::try_from(u128::from(value) * by / of).unwrap_or(u64::MAX)
}
