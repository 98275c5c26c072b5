//! Whose connections are looked at next.
//!
//! One thread does all of a node's work. It polls tasks in the order in which they were woken, and
//! a connection is a task. A caller with a thousand busy connections would put a thousand tasks in
//! front of everybody else's, and of the node's own. So while more than one caller is busy, the
//! tasks of each are polled a few times a round, and no more. What else it has waits in a line of
//! its own for the next rounds.
//!
//! A round is over when all tasks have been polled that were woken before it began. A task of its
//! own sees to that: it puts itself behind all others, again and again, while anybody waits. With
//! several threads it only gets behind those of one of them; callers still take turns.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

/// Polls of one caller's tasks in a round.
const POLLS_MAX: usize = 16;

/// The rounds of one server.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    round: AtomicU64,
    /// Seconds, as the sweep counts them.
    second: AtomicU64,
    /// Callers of which a task was polled in this second, …
    busy: AtomicUsize,
    /// … and in the one before.
    busy_before: AtomicUsize,
    /// The lines that are not empty.
    waiting: Mutex<Vec<Arc<Line>>>,
    /// Told when the first of them begins to wait, and at the end.
    begun: Notify,
    /// Nobody waits any more.
    is_over: AtomicBool,
}

/// The tasks of one caller that wait for a round.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The last second in which a task of the caller was polled, and one more; 0: none was.
    busy_in: AtomicU64,
    state: Mutex<LineState>,
}

#[derive(Debug, Default)]
struct LineState {
    /// The round that `polls` counts in.
    round: u64,
    polls: usize,
    waiting: VecDeque<Arc<Seat>>,
}

/// The place of one task.
#[derive(Debug, Default)]
struct Seat {
    state: Mutex<SeatState>,
}

#[derive(Debug, Default)]
enum SeatState {
    #[default]
    Free,
    /// It stands in the line.
    Waits(Waker),
    /// Its turn has come.
    Called,
}

/// A task that is polled when it is its caller's turn, or when `is_urgent`.
pub(super) struct TakingPart<F, U> {
    rounds: Arc<Rounds>,
    line: Arc<Line>,
    seat: Arc<Seat>,
    is_urgent: U,
    task: Pin<Box<F>>,
}

impl Rounds {
    /// A task of the caller whose line that is. It need not wait while `is_urgent`: it was told to
    /// end, say.
    pub(super) fn take_part<F: Future, U: Fn() -> bool>(
        self: &Arc<Self>,
        line: Arc<Line>,
        is_urgent: U,
        task: F,
    ) -> TakingPart<F, U> {
        TakingPart { rounds: self.clone(), line, seat: Arc::default(), is_urgent, task: Box::pin(task) }
    }

    /// Calls those that wait, round by round, until [`Self::end`].
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            // Looked at first: who comes after that does not wait.
            let is_over = self.is_over.load(Ordering::SeqCst);
            while self.begin_round() {
                go_behind_all_others().await;
            }
            if is_over {
                return;
            }
            self.begun.notified().await;
        }
    }

    /// A second has passed.
    pub(super) fn tick(&self) {
        self.busy_before.store(self.busy.swap(0, Ordering::SeqCst), Ordering::SeqCst);
        self.second.fetch_add(1, Ordering::SeqCst);
    }

    /// Lets all go on that wait, and nobody wait any more.
    pub(super) fn end(&self) {
        let waiting = lock(&self.waiting);
        self.is_over.store(true, Ordering::SeqCst);
        self.begun.notify_one();
        drop(waiting);
    }

    /// Whether callers have to take turns.
    fn is_contended(&self, line: &Line) -> bool {
        let second = self.second.load(Ordering::SeqCst) + 1;
        if line.busy_in.swap(second, Ordering::SeqCst) != second {
            self.busy.fetch_add(1, Ordering::SeqCst);
        }
        self.has_several() && !self.is_over.load(Ordering::SeqCst)
    }

    fn has_several(&self) -> bool {
        self.busy.load(Ordering::SeqCst).max(self.busy_before.load(Ordering::SeqCst)) > 1
    }

    /// Whether the task may be polled now. If not, `waker` is told when its turn has come.
    fn may_go_on(&self, line: &Arc<Line>, seat: &Arc<Seat>, waker: &Waker) -> bool {
        let mut own = lock(&seat.state);
        match &mut *own {
            SeatState::Free => {}
            SeatState::Waits(known) => {
                known.clone_from(waker);
                return false;
            }
            SeatState::Called => {
                *own = SeatState::Free;
                return true;
            }
        }
        if !self.is_contended(line) {
            return true;
        }
        let mut state = lock(&line.state);
        let round = self.round.load(Ordering::SeqCst);
        if state.round != round {
            (state.round, state.polls) = (round, 0);
        }
        if state.waiting.is_empty() {
            if state.polls < POLLS_MAX {
                state.polls += 1;
                return true;
            }
            let mut waiting = lock(&self.waiting);
            if self.is_over.load(Ordering::SeqCst) {
                return true;
            }
            waiting.push(line.clone());
            self.begun.notify_one();
        }
        state.waiting.push_back(seat.clone());
        *own = SeatState::Waits(waker.clone());
        false
    }

    /// Begins a round. Returns whether anybody had waited for it.
    fn begin_round(&self) -> bool {
        let lines = mem::take(&mut *lock(&self.waiting));
        let round = self.round.fetch_add(1, Ordering::SeqCst) + 1;
        let has_waited = !lines.is_empty();
        let is_bounded = self.has_several() && !self.is_over.load(Ordering::SeqCst);
        let calls_max = if is_bounded { POLLS_MAX } else { usize::MAX };
        for line in lines {
            let mut state = lock(&line.state);
            let calls = state.waiting.len().min(calls_max);
            (state.round, state.polls) = (round, calls);
            let called: Vec<_> = state.waiting.drain(..calls).collect();
            if state.waiting.is_empty() {
                state.waiting = VecDeque::new();
            } else {
                lock(&self.waiting).push(line.clone());
            }
            drop(state);
            for seat in called {
                let before = mem::replace(&mut *lock(&seat.state), SeatState::Called);
                if let SeatState::Waits(waker) = before {
                    waker.wake();
                }
            }
        }
        has_waited
    }
}

impl<F: Future, U: Fn() -> bool + Unpin> Future for TakingPart<F, U> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let is_turn = self.rounds.may_go_on(&self.line, &self.seat, cx.waker());
        if is_turn || (self.is_urgent)() { self.task.as_mut().poll(cx) } else { Poll::Pending }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ready once everybody was polled who had been woken before.
async fn go_behind_all_others() {
    let mut has_gone = false;
    poll_fn(|cx| {
        if mem::replace(&mut has_gone, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;
