//! Lets through what strangers make a node work at, a little at a time.
//!
//! A step of a TLS handshake takes longer than a whole request, and one thread does all of a node's
//! work. Thousands of callers at once would keep the node from hearing its leader. So few steps are
//! taken, and then there is a pause, in which the node does what else it has to do.

use crate::raft::Time;
use crate::runtime::door::Caller;
use crate::runtime::env::Env;
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::ops::Bound;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// How fast strangers are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Steps without a pause in between; at least one.
    pub steps: usize,
    /// The pause after them, microseconds.
    pub pause_micros: u64,
}

impl Default for Pace {
    /// A step takes about 150 µs: that is a third of a thread at most.
    fn default() -> Self {
        Self { steps: 8, pause_micros: 4_000 }
    }
}

/// Lets steps through. Callers that wait take turns, however many steps each of them wants. A site
/// of IPv6 is one caller, however many networks it has.
#[derive(Debug)]
pub(crate) struct Gate<E> {
    env: E,
    pace: Pace,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Steps that may be taken before `refill_at`.
    left: usize,
    /// When there are all of them again.
    refill_at: Time,
    /// The callers that wait, by caller and number.
    waiting: BTreeMap<Caller, BTreeMap<u64, Waker>>,
    /// The caller that was let through last after it had waited.
    last: Option<Caller>,
    /// Those that may take a step, and have not come for it yet.
    passes: BTreeSet<u64>,
    next_number: u64,
    /// A task waits for `refill_at`.
    refills: bool,
}

/// A place at the gate, given up when its task ends, however it ends.
struct Place<'g, E: Env> {
    gate: &'g Arc<Gate<E>>,
    caller: Caller,
    number: u64,
}

impl<E: Env> Gate<E> {
    pub(crate) fn new(env: E, pace: Pace) -> Arc<Self> {
        Arc::new(Self { env, pace, state: Mutex::default() })
    }

    /// The result of `future`, which belongs to `caller`. Each time that it is polled is a step.
    pub(crate) async fn pass<F: Future>(self: &Arc<Self>, caller: &Caller, future: F) -> F::Output {
        let number = {
            let mut state = self.lock();
            state.next_number += 1;
            state.next_number
        };
        let place = Place { gate: self, caller: caller.group(), number };
        let mut future = pin!(future);
        poll_fn(|cx| if place.may_step(cx.waker()) { future.as_mut().poll(cx) } else { Poll::Pending }).await
    }

    /// Lets the next ones through at each refill, until nobody waits.
    async fn refill(self: Arc<Self>) {
        loop {
            let at = self.lock().refill_at;
            self.env.sleep_until(at).await;
            let mut state = self.lock();
            state.refill(self.env.now(), self.pace);
            let woken = state.let_through();
            state.refills = !state.waiting.is_empty();
            let is_over = !state.refills;
            drop(state);
            woken.into_iter().for_each(Waker::wake);
            if is_over {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn refill(&mut self, now: Time, pace: Pace) {
        self.left = pace.steps.max(1);
        self.refill_at = now.plus(pace.pause_micros);
    }

    /// Gives out what is left, one step to each caller in turn.
    fn let_through(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while self.left > 0
            && let Some((caller, number, waker)) = self.next()
        {
            self.left -= 1;
            self.passes.insert(number);
            self.last = Some(caller);
            woken.push(waker);
        }
        woken
    }

    /// The first that waits of the caller behind the last one, taken out.
    fn next(&mut self) -> Option<(Caller, u64, Waker)> {
        let behind = self.last.as_ref().and_then(|last| {
            self.waiting.range((Bound::Excluded(last), Bound::Unbounded)).next().map(|(caller, _)| caller)
        });
        let caller = behind.or_else(|| self.waiting.keys().next())?.clone();
        let (number, waker) = self.waiting.get_mut(&caller)?.pop_first()?;
        self.forget_if_gone(&caller);
        Some((caller, number, waker))
    }

    /// No caller is in there of whom nobody waits.
    fn forget_if_gone(&mut self, caller: &Caller) {
        if self.waiting.get(caller).is_some_and(BTreeMap::is_empty) {
            self.waiting.remove(caller);
        }
    }
}

impl<E: Env> Place<'_, E> {
    /// Whether a step may be taken now. If not, `waker` is woken when it may.
    fn may_step(&self, waker: &Waker) -> bool {
        let gate = self.gate;
        let mut state = gate.lock();
        if state.passes.remove(&self.number) {
            return true;
        }
        let now = gate.env.now();
        if state.waiting.is_empty() {
            if now >= state.refill_at {
                state.refill(now, gate.pace);
            }
            if state.left > 0 {
                state.left -= 1;
                return true;
            }
        }
        state.waiting.entry(self.caller.clone()).or_default().insert(self.number, waker.clone());
        if !std::mem::replace(&mut state.refills, true) {
            gate.env.spawn(gate.clone().refill());
        }
        false
    }
}

impl<E: Env> Drop for Place<'_, E> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.passes.remove(&self.number);
        if let Some(of_caller) = state.waiting.get_mut(&self.caller) {
            of_caller.remove(&self.number);
            state.forget_if_gone(&self.caller);
        }
    }
}

#[cfg(test)]
mod tests;
