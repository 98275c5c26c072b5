//! The time of a run.

use madsim::time::TimeHandle;
use std::cell::OnceCell;
use std::pin::pin;
use std::time::Duration;

thread_local! {
    /// The clock of the run, which has its thread to itself.
    static CLOCK: OnceCell<TimeHandle> = const { OnceCell::new() };
}

/// Microseconds of the simulation.
pub(super) fn now() -> u64 {
    CLOCK.with(|clock| micros(clock.get_or_init(TimeHandle::current)))
}

/// What a clock of madsim shows, in microseconds of the simulation.
pub(super) fn micros(clock: &TimeHandle) -> u64 {
    u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Waits until `at`, microseconds of the simulation.
pub(super) async fn sleep_until(at: u64) {
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
