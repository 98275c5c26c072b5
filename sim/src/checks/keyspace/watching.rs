//! What clients that wait for a change are told: every change of their range from a revision on, in
//! order, whole revisions at a time, once, without a gap; nothing that the member has not applied;
//! and of a compaction only if it took something away.

use crate::checks::keyspace::model::Model;
use crate::checks::keyspace::rights::NeededRight;
use crate::record::violation::{Violation, check};
use infinitystore::kv::{Changes, ChangesQuery, Principal, ReadError};
use infinitystore::replica::{ClientReply, RequestId};
use std::collections::BTreeMap;

/// A client that waits.
#[derive(Clone, Debug)]
struct Watcher {
    query: ChangesQuery,
    by: Option<Principal>,
    slot: usize,
    /// What the machine had applied when it was asked.
    asked: usize,
    /// What it had applied when it was looked at last.
    seen: usize,
    /// The revision before which all has been looked at, and nothing was wanted.
    place: u64,
    /// The machine's state was replaced by a snapshot meanwhile.
    is_replaced: bool,
}

impl Watcher {
    fn wanted(&self) -> NeededRight {
        NeededRight::Changes(self.query.range.clone())
    }
}

/// A question this far behind may be worked out beside the driver (after 2,000 looks, up to ten for
/// a revision). Then it is answered at once, with what there is: it goes on behind that.
const FAR_REVISIONS: u64 = 200;

/// Those that wait.
#[derive(Debug, Default)]
pub struct Watching {
    waiting: BTreeMap<RequestId, Watcher>,
}

impl Watching {
    /// A machine is asked, which has applied everything up to `applied`.
    pub fn asked(
        &mut self,
        id: RequestId,
        slot: usize,
        (by, query): (Option<Principal>, &ChangesQuery),
        applied: usize,
    ) {
        let (query, place) = (query.clone(), query.from.0);
        let watcher = Watcher { query, by, slot, asked: applied, seen: applied, place, is_replaced: false };
        self.waiting.insert(id, watcher);
    }

    /// The process has ended.
    pub fn forget(&mut self, id: RequestId) {
        self.waiting.remove(&id);
    }

    /// A machine's state is replaced by a snapshot.
    pub fn replaced(&mut self, slot: usize) {
        for watcher in self.waiting.values_mut().filter(|watcher| watcher.slot == slot) {
            watcher.is_replaced = true;
        }
    }

    /// A machine was stepped, and has given its answers: nobody waits for what it has applied.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn stepped(&mut self, model: &Model, slot: usize, applied: usize) -> Result<(), Violation> {
        let Some(sums) = model.at(applied) else { return Ok(()) };
        for (id, watcher) in self.waiting.iter_mut().filter(|(_, watcher)| watcher.slot == slot) {
            for revision in watcher.place..=sums.revision {
                let events = model.wanted(&watcher.query, revision);
                check!(
                    "a watch is told what has changed",
                    events.is_empty(),
                    "machine {slot} has applied {applied}, and {id:?} still waits with {:?} for {events:?} of {revision}",
                    watcher.query
                );
            }
            watcher.place = watcher.place.max(sums.revision + 1);
            watcher.seen = applied;
            let may = model.may_see(watcher.by.as_ref(), &watcher.wanted(), applied);
            check!(
                "a watch ends with its right",
                may.is_ok(),
                "machine {slot} has applied {applied}, and {id:?} still waits: {watcher:?}; {may:?}"
            );
        }
        Ok(())
    }

    /// An answer, by a machine that has applied everything up to `applied`. `is_due`: its time was
    /// up. What was met, for the marks.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn answered(
        &mut self,
        model: &Model,
        id: RequestId,
        reply: &ClientReply,
        applied: usize,
        is_due: bool,
    ) -> Result<Option<&'static str>, Violation> {
        let Some(watcher) = self.waiting.remove(&id) else { return Ok(None) };
        // What it has waited through was looked at. It may be told what it could see since then.
        let is_denied = matches!(reply, ClientReply::Failed(_));
        let span = if is_denied { watcher.asked } else { watcher.seen }..=applied;
        if model.check_right(watcher.by.as_ref(), &watcher.wanted(), reply, span)? {
            let at_once = watcher.seen == watcher.asked;
            return Ok(Some(if at_once { "watch denied" } else { "watch ended with its right" }));
        }
        match reply {
            ClientReply::Changes(Ok(changes)) => told(model, &watcher, changes, applied, is_due),
            ClientReply::Changes(Err(error)) => refused(model, &watcher, *error, applied),
            ClientReply::Failed(_) => Ok(None),
            reply => {
                let what = format!("{:?} was answered with {reply:?}", watcher.query);
                Err(Violation { check: "an answer answers the question", what })
            }
        }
    }
}

fn told(
    model: &Model,
    watcher: &Watcher,
    changes: &Changes,
    applied: usize,
    is_due: bool,
) -> Result<Option<&'static str>, Violation> {
    let Some(sums) = model.at(applied) else { return Ok(None) };
    let (from, next) = (watcher.query.from.0, changes.next.0);
    check!(
        "a watch is never ahead",
        next >= from && next <= from.max(sums.revision + 1),
        "{watcher:?} is to go on at {next}; the store is at {}",
        sums.revision
    );
    let compacted = model.at(watcher.asked).map_or(0, |sums| sums.compacted);
    check!(
        "a watch is told of a compaction",
        compacted == 0 || from > compacted,
        "{watcher:?} is told {changes:?}, and what was up to {compacted} was forgotten when it was asked"
    );
    let right: Vec<_> = (from..next)
        .map(|revision| (revision, model.wanted(&watcher.query, revision)))
        .filter(|(_, events)| !events.is_empty())
        .collect();
    let is_right = right.len() == changes.revisions.len()
        && right
            .iter()
            .zip(&changes.revisions)
            .all(|((revision, events), told)| told.revision.0 == *revision && told.events == *events);
    check!(
        "a watch is told what has changed",
        is_right,
        "{watcher:?} is told {changes:?} and should be told {right:?}"
    );
    let seen = model.at(watcher.seen).map_or(0, |sums| sums.revision);
    let has_waited = is_due && next >= from.max(seen + 1);
    check!(
        "a watch waits for a change",
        !changes.revisions.is_empty() || has_waited || next >= from + FAR_REVISIONS,
        "{watcher:?} is told {changes:?}; the store is at {}; its time was up: {is_due}",
        sums.revision
    );
    Ok(Some(match changes.revisions.len() {
        0 => "watch told of progress",
        _ if watcher.is_replaced => "watch woken by an installed snapshot",
        1 => "watch told of a revision",
        _ => "watch told of several revisions",
    }))
}

fn refused(
    model: &Model,
    watcher: &Watcher,
    error: ReadError,
    applied: usize,
) -> Result<Option<&'static str>, Violation> {
    let ReadError::Compacted(first) = error else {
        let what = format!("{watcher:?} is told {error:?}");
        return Err(Violation { check: "a watch from a future revision waits", what });
    };
    let is_right = (watcher.asked..=applied)
        .any(|index| model.at(index).is_some_and(|sums| sums.compacted + 1 == first.0));
    check!(
        "a watch is told the first revision that is there",
        is_right && first > watcher.query.from,
        "{watcher:?} is told to go on at {first}; the machine has applied {applied}: {:?}",
        model.at(applied)
    );
    // What it has looked at is not taken away from it.
    let asked = model.at(watcher.asked).map_or(0, |sums| sums.compacted);
    let seen = model.at(watcher.seen).map_or(0, |sums| sums.revision);
    check!(
        "a watch that keeps up misses nothing",
        watcher.query.from.0 <= asked || watcher.is_replaced || first.0 > seen + 1,
        "{watcher:?} has seen all up to {seen}, and is told that only {first} and later is there"
    );
    Ok(Some("watch told of a compaction"))
}
