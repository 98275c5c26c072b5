//! Requests under way, and whose turn it is when there are many.
//!
//! One thread does all of a node's work. A caller with thousands of connections would have
//! thousands of requests in front of each one of another caller. So no more than a number of
//! requests are under way at the same time, and while there are as many, no caller has more of them
//! than an equal share. What it asks beyond that waits until one of its own is answered. A caller
//! with few never waits, and neither does anybody while there are few in all.
//!
//! A request that waits for something to happen (a watch, a lock), or for its body, is not under
//! way meanwhile: it makes no work.

use crate::api::http::account::{Account, UnderWay};
use crate::runtime::{Env, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many requests of one caller never wait.
const FEW: usize = 8;
/// A request whose turn does not come within this time is refused, microseconds.
const PATIENCE_MICROS: u64 = 5_000_000;

/// The requests under way, of all callers.
#[derive(Debug)]
pub(super) struct Turns {
    max: usize,
    under_way: AtomicUsize,
    /// Callers that have any under way.
    callers: AtomicUsize,
}

/// A place among the requests under way, given up when this is dropped.
#[derive(Debug)]
pub(super) struct TurnPlace {
    turns: Arc<Turns>,
    account: Arc<Account>,
}

/// A request that waits, until it waits no more.
struct Waiting<'a>(&'a UnderWay);

impl Turns {
    /// `max` requests at the same time, before callers have to take turns.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, under_way: AtomicUsize::new(0), callers: AtomicUsize::new(0) })
    }

    /// A place for a request, if it need not wait for one. Four atomic operations.
    pub(super) fn try_take(self: &Arc<Self>, account: &Arc<Account>) -> Option<TurnPlace> {
        let account = account.site();
        let mine = &account.under_way;
        // Those that came before it go first.
        let is_first = mine.waiting.load(Ordering::SeqCst) == 0;
        if is_first || mine.count.load(Ordering::SeqCst) < FEW { self.take(account) } else { None }
    }

    /// A place for a request, when it is its turn. `None`: it has not come in a long time.
    pub(super) async fn wait<E: Env>(self: &Arc<Self>, env: &E, account: &Arc<Account>) -> Option<TurnPlace> {
        let account = account.site();
        let mine = &account.under_way;
        let _waiting = Waiting::begin(mine);
        let turn = async {
            loop {
                // Told in between, it is told at once.
                if let Some(place) = self.take(account) {
                    return place;
                }
                mine.turn.notified().await;
            }
        };
        let deadline = env.now().plus(PATIENCE_MICROS);
        let place = until(env, deadline, turn).await?;
        // There may be room for more than one: shares grow when others have left.
        if mine.waiting.load(Ordering::SeqCst) > 1 {
            mine.turn.notify_one();
        }
        Some(place)
    }

    fn take(self: &Arc<Self>, account: &Arc<Account>) -> Option<TurnPlace> {
        let mine = account.under_way.count.fetch_add(1, Ordering::SeqCst) + 1;
        if mine == 1 {
            self.callers.fetch_add(1, Ordering::SeqCst);
        }
        let all = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        if all <= self.max || mine <= self.share() {
            return Some(TurnPlace { turns: self.clone(), account: account.clone() });
        }
        self.give_back(account);
        None
    }

    fn give_back(&self, account: &Account) {
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        if account.under_way.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.callers.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// What one caller gets while there are too many.
    fn share(&self) -> usize {
        (self.max / self.callers.load(Ordering::SeqCst).max(1)).max(FEW)
    }
}

impl Drop for TurnPlace {
    fn drop(&mut self) {
        self.turns.give_back(&self.account);
        let mine = &self.account.under_way;
        if mine.waiting.load(Ordering::SeqCst) > 0 {
            mine.turn.notify_one();
        }
    }
}

impl<'a> Waiting<'a> {
    fn begin(mine: &'a UnderWay) -> Self {
        mine.waiting.fetch_add(1, Ordering::SeqCst);
        Self(mine)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
