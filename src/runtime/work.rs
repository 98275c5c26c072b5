//! Synchronous work beside the tasks: what blocks (the disk) gets a queue and a thread of its own.
//!
//! Everything that was queued while the worker was busy is one batch. That makes group commits.
//! Handing a batch over costs one lock and one wake-up, whatever its size.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a worker has nothing to do before [`Worker::idle`] is called for the first time.
pub(super) const IDLE_MICROS: u64 = 20_000;

/// Does the jobs of a queue, in order.
pub trait Worker: Send + 'static {
    /// What it does.
    type Job: Send + 'static;
    /// Whether its work can wait while other threads need the processor.
    const IS_PATIENT: bool = false;
    /// Does everything that was queued since the last call. `false` ends the worker.
    fn work(&mut self, jobs: Vec<Self::Job>) -> bool;
    /// Nothing has been queued for a moment. Returns after how many more microseconds without work
    /// it wants to be called again, if at all.
    fn idle(&mut self) -> Option<u64> {
        None
    }
    /// The queue was closed and is empty. The last call.
    fn close(&mut self) {}
}

/// Jobs on their way to a [`Worker`]. Not bounded here: the code that queues jobs bounds them.
#[derive(Debug)]
pub struct WorkQueue<T> {
    state: Mutex<QueueState<T>>,
    thread: Condvar,
    pub(super) task: Notify,
}

#[derive(Debug)]
struct QueueState<T> {
    jobs: Vec<T>,
    closed: bool,
    /// Whether the worker sleeps. Only then does it have to be woken.
    waiting: bool,
}

/// What a worker finds.
pub(super) enum Taken<T> {
    Jobs(Vec<T>),
    Nothing,
    Closed,
}

impl<T> WorkQueue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let state = QueueState { jobs: Vec::new(), closed: false, waiting: false };
        Arc::new(Self { state: Mutex::new(state), thread: Condvar::new(), task: Notify::new() })
    }

    /// Queues all of `jobs` (which is empty afterwards) and wakes the worker if it sleeps. Returns
    /// how many wait now.
    pub fn push_all(&self, jobs: &mut Vec<T>) -> usize {
        let mut state = self.lock();
        state.jobs.append(jobs);
        let (waiting, depth) = (state.waiting, state.jobs.len());
        state.waiting = false;
        drop(state);
        if waiting {
            self.wake();
        }
        depth
    }

    /// Queues a job that can wait until the worker looks by itself: with the next jobs that wake
    /// it, or before it is idle.
    pub fn push_unhurried(&self, job: T) {
        self.lock().jobs.push(job);
    }

    /// No more jobs come: the worker does what is queued, then closes.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake();
    }

    /// Jobs that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Whether no job waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn wake(&self) {
        self.thread.notify_one();
        self.task.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<T>> {
        // The state is a vector and two flags: consistent at every point where a panic could have
        // struck.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(state: &mut QueueState<T>) -> Taken<T> {
        if !state.jobs.is_empty() {
            state.waiting = false;
            Taken::Jobs(std::mem::take(&mut state.jobs))
        } else if state.closed {
            Taken::Closed
        } else {
            state.waiting = true;
            Taken::Nothing
        }
    }

    /// Blocks until there is something, or `idle` has passed.
    fn wait_on_thread(&self, idle: Option<Duration>) -> Taken<T> {
        let mut state = self.lock();
        loop {
            let found = Self::take(&mut state);
            if !matches!(found, Taken::Nothing) {
                return found;
            }
            match idle {
                None => state = self.thread.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(limit) => {
                    let waited =
                        self.thread.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner);
                    state = waited.0;
                    if waited.1.timed_out() {
                        return Self::take(&mut state);
                    }
                }
            }
        }
    }

    pub(super) fn look(&self) -> Taken<T> {
        Self::take(&mut self.lock())
    }
}

/// Runs `worker` on the calling thread until its queue is closed.
pub fn run_on_thread<W: Worker>(mut worker: W, queue: &WorkQueue<W::Job>) {
    let mut idle = None;
    loop {
        match queue.wait_on_thread(idle) {
            Taken::Jobs(jobs) => {
                if !worker.work(jobs) {
                    return;
                }
                idle = Some(Duration::from_micros(IDLE_MICROS));
            }
            Taken::Nothing => idle = worker.idle().map(Duration::from_micros),
            Taken::Closed => return worker.close(),
        }
    }
}

#[cfg(test)]
mod tests;
