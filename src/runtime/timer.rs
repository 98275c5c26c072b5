//! A timer for a task that puts its deadline off with nearly everything it does.

use crate::raft::Time;
use crate::runtime::env::Env;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A timer that is moved far more often than it goes off.
///
/// Nearly every batch puts the replica's next deadline off by a little, and nearly every write a
/// link's next ping. The timer underneath is not moved then. It goes off early, which costs one
/// look at the clock; moving it each time would cost more.
pub(crate) struct Timer<E> {
    env: E,
    wanted: Option<Time>,
    armed: Option<(Time, Sleep)>,
}

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<E: Env> Timer<E> {
    /// A timer that does not go off.
    pub(crate) fn new(env: E) -> Self {
        Self { env, wanted: None, armed: None }
    }

    /// When it goes off.
    pub(crate) fn set(&mut self, at: Option<Time>) {
        self.wanted = at;
        if let Some(at) = at
            && self.armed.as_ref().is_none_or(|(armed, _)| at < *armed)
        {
            self.armed = Some((at, Box::pin(self.env.sleep_until(at))));
        }
    }

    /// Whether the time has come.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.wanted.is_some_and(|at| at <= now)
    }

    /// Ready at the time that was set, or earlier; set it again then.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some((_, sleep)) = &mut self.armed else { return Poll::Pending };
        let polled = sleep.as_mut().poll(context);
        if polled.is_ready() {
            self.armed = None;
        }
        polled
    }
}
