//! The madsim engine: whole nodes (the async driver, the peer transport, hyper's HTTP server) as
//! tasks of madsim's executor, in its virtual time, over simulated disks, clocks and connections;
//! clients speak HTTP.
//!
//! madsim brings the executor, which picks among ready tasks at random from the seed, the timers,
//! and nodes whose tasks can be killed and paused. Connections are this module's own
//! (`connections`): madsim's never break, take every write whole, and end cleanly through a
//! partition.

mod book;
mod budgets;
mod client;
mod connections;
mod cut_off;
mod door;
mod env;
mod exam;
mod faults;
mod figures;
mod http;
mod inspect;
mod joins;
mod laws;
mod listening;
mod machine;
mod operator;
mod probe;
mod removed;
mod reverts;
mod run;
mod service;
mod standing;
mod telling;
mod text;
mod upkeep;
mod world;

pub use run::run;
pub use upkeep::snapshot_worker_percent;

use madsim::time::TimeHandle;
use std::cell::OnceCell;
use std::pin::pin;
use std::time::Duration;

thread_local! {
    /// The clock of the run, which has its thread to itself.
    static CLOCK: OnceCell<TimeHandle> = const { OnceCell::new() };
}

/// Microseconds of the simulation.
pub(in crate::madsim_engine) fn now() -> u64 {
    CLOCK.with(|clock| micros(clock.get_or_init(TimeHandle::current)))
}

/// What a clock of madsim shows, in microseconds of the simulation.
fn micros(clock: &TimeHandle) -> u64 {
    u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Waits until `at`, microseconds of the simulation.
pub(in crate::madsim_engine) async fn sleep_until(at: u64) {
    let handle = TimeHandle::current();
    let left = Duration::from_micros(at).saturating_sub(handle.elapsed());
    if left.is_zero() {
        return;
    }
    // madsim rounds short sleeps up to a millisecond, unless the deadline is set afterwards.
    let deadline = handle.now_instant() + left;
    let mut sleep = pin!(handle.sleep(left));
    sleep.as_mut().reset(deadline);
    sleep.await;
}
