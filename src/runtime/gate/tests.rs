//! Which callers are let through, and when.

use crate::runtime::door::Caller;
use crate::runtime::gate::{Gate, Pace};
use crate::runtime::{Env, TokioEnv};
use crate::storage::MemoryDisk;
use std::future::{pending, poll_fn};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use tokio::task::JoinSet;

type TestGate = Arc<Gate<TokioEnv<MemoryDisk>>>;

const PACE: Pace = Pace { steps: 4, pause_micros: 10_000 };
/// In no test is this over.
const LONG_MICROS: u64 = 3_600_000_000;

fn gate(pace: Pace) -> (TokioEnv<MemoryDisk>, TestGate) {
    let env = TokioEnv::new(MemoryDisk::new());
    (env.clone(), Gate::new(env, pace))
}

fn caller(number: usize) -> Caller {
    Caller::of(&format!("10.0.0.{number}:1"))
}

/// One after the other comes, as (caller, steps); whose step was taken when, milliseconds.
async fn steps(all: &[(usize, usize)]) -> Vec<(u64, usize)> {
    steps_of(all, |number, _| caller(number)).await
}

/// The same; `who` says who a caller of that number is, at its place in the list.
async fn steps_of(all: &[(usize, usize)], who: impl Fn(usize, usize) -> Caller) -> Vec<(u64, usize)> {
    let (env, gate) = gate(PACE);
    let taken = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for (place, &(number, steps)) in all.iter().enumerate() {
        let caller = who(number, place);
        let (env, gate, taken) = (env.clone(), gate.clone(), taken.clone());
        tasks.spawn(async move {
            let mut left = steps;
            let work = poll_fn(|cx| {
                taken.lock().unwrap().push((env.now().get() / 1_000, number));
                left -= 1;
                if left == 0 {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            });
            gate.pass(&caller, work).await;
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    Arc::try_unwrap(taken).unwrap().into_inner().unwrap()
}

#[tokio::test]
async fn few_steps_are_taken_between_two_pauses() {
    let crowd = vec![(1, 3); 20];
    let taken = steps(&crowd).await;
    assert_eq!(taken.len(), 60);
    for (place, (at, _)) in taken.iter().enumerate() {
        let pauses = u64::try_from(place / PACE.steps).unwrap();
        assert!(*at >= 10 * pauses, "step {place} was taken after {at} ms");
    }
}

#[tokio::test]
async fn a_caller_waits_for_one_step_of_each_other_caller() {
    let mut all = vec![(1, 1); 20];
    all.extend([(2, 2), (3, 1)]);
    let taken = steps(&all).await;
    let places = |number| taken.iter().position(|(_, of)| *of == number).unwrap();
    // Four of the crowd were there before; then they take turns.
    assert!(places(2) < 8 && places(3) < 8, "{:?}", &taken[..12]);
    let second = taken.iter().rposition(|(_, of)| *of == 2).unwrap();
    assert!(second < 16, "{:?}", &taken[..20]);
}

/// A network of 48 bits has 65,536 of 64.
#[tokio::test]
async fn a_site_takes_no_more_turns_than_one_caller() {
    let mut all = vec![(1, 1); 20];
    all.push((2, 1));
    let who = |number, place| match number {
        1 => Caller::of(&format!("[2001:db8:7:{place:x}::1]:1")),
        _ => Caller::of("10.0.0.2:1"),
    };
    let taken = steps_of(&all, who).await;
    let place = taken.iter().position(|(_, of)| *of == 2).unwrap();
    assert!(place < 8, "{taken:?}");
}

#[tokio::test]
async fn one_that_goes_away_leaves_its_place() {
    let (_, gate) = gate(Pace { pause_micros: LONG_MICROS, ..PACE });
    // All steps are taken.
    for _ in 0..PACE.steps {
        gate.pass(&caller(1), async {}).await;
    }
    let mut gone = JoinSet::new();
    for _ in 0..40 {
        let gate = gate.clone();
        gone.spawn(async move { gate.pass(&caller(1), pending::<()>()).await });
    }
    tokio::task::yield_now().await;
    assert_eq!(gate.lock().waiting.values().map(|of| of.len()).sum::<usize>(), 40);
    gone.shutdown().await;
    let state = gate.lock();
    assert!(state.waiting.is_empty() && state.passes.is_empty(), "{state:?}");
}
