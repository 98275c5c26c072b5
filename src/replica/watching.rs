//! Serves clients that wait for a change: they stand in the table of `watches`. One that was
//! answered asks again from where its answer ended, so that nothing is kept for it in between. A
//! watch is a chain of such requests, and however slow its client is, it costs no memory here.

use crate::kv::{Changes, ChangesQuery, KeyRange, Principal, ReadError, Revision, Store};
use crate::raft::Time;
use crate::replica::api::{ClientError, ClientReply, RequestId};
use crate::replica::replica::Replica;
use crate::replica::watches::Waiting;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;

/// One question looks at no more changes than this within a step, and all of a step at no more than
/// [`STEP_LOOKS_MAX`]: what is further behind is worked out beside the driver, which has heartbeats
/// to send.
const NEAR_LOOKS_MAX: usize = 2_000;
const STEP_LOOKS_MAX: usize = 20_000;

/// What a question finds within a step; `None`: it is too far behind.
type Near = Option<Result<Arc<Changes>, ReadError>>;

/// The same question is asked by many: its answer is worked out once.
#[derive(Default)]
struct LastAnswer(Option<(ChangesQuery, Near)>);

impl LastAnswer {
    fn to(&mut self, query: &ChangesQuery, store: &Store, looks: &mut usize) -> Near {
        match &self.0 {
            Some((same, answer)) if same == query => answer.clone(),
            _ => {
                let answer = near(query, store, looks);
                self.0 = Some((query.clone(), answer.clone()));
                answer
            }
        }
    }
}

/// `looks` is what this step has looked at so far.
fn near(query: &ChangesQuery, store: &Store, looks: &mut usize) -> Near {
    let looks_max = NEAR_LOOKS_MAX.min(STEP_LOOKS_MAX.saturating_sub(*looks));
    Some(store.changes_near(query, looks_max, looks)?.map(Arc::new))
}

impl Replica {
    /// A client waits for a change. It is answered at once if there is one already, however many
    /// wait.
    pub(super) fn handle_watch(
        &mut self,
        id: RequestId,
        deadline: Time,
        by: Option<Principal>,
        mut query: ChangesQuery,
    ) {
        if self.is_removed() {
            return self.fail(id, ClientError::Removed);
        }
        if self.is_starting() {
            return self.fail(id, ClientError::Starting);
        }
        if let Err(denial) = self.store.judge_changes(by.as_ref(), &query.range) {
            return self.fail(id, ClientError::Denied(denial));
        }
        match near(&query, &self.store, &mut self.watches.looks) {
            Some(Ok(changes)) if changes.revisions.is_empty() && changes.next > self.store.revision() => {
                let bytes = self.watches.bytes() + query.range.bytes() as u64;
                let limit = self.config.pending_watch_bytes_max;
                if self.watches.len() >= self.config.pending_requests_max || bytes > limit {
                    return self.fail(id, ClientError::Overloaded);
                }
                // The range's strings may be parts of a much larger buffer.
                let KeyRange { start, end } = &query.range;
                let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
                query.range = KeyRange { start: own(start), end: end.as_ref().map(own) };
                query.from = changes.next;
                self.watches.insert(id, Waiting { deadline, by, query });
            }
            answer => self.answer_changes(id, &query, answer),
        }
    }

    fn answer_changes(&mut self, id: RequestId, query: &ChangesQuery, answer: Near) {
        let reply = match answer {
            Some(answer) => ClientReply::Changes(answer),
            None => ClientReply::PastChanges(Box::new(self.store.past_changes(query))),
        };
        self.reply(id, reply);
    }

    /// Answers those for which something has changed, and those whose time is up.
    pub(super) fn serve_watches(&mut self) {
        self.end_denied_watches();
        let mut last = LastAnswer::default();
        let from = self.watches.last_served_revision.next();
        for request in self.watches.touched(&self.store, from) {
            self.answer_watch(request, from, &mut last);
        }
        for (request, next) in self.watches.expire(self.now, self.store.revision()) {
            let changes = Changes { revisions: Vec::new(), next };
            self.reply(request, ClientReply::Changes(Ok(Arc::new(changes))));
        }
    }

    /// The state was replaced by another one: everybody looks again.
    pub(super) fn look_again(&mut self) {
        self.end_denied_watches();
        let mut last = LastAnswer::default();
        let all: Vec<RequestId> = self.watches.waiting.keys().copied().collect();
        let from = self.watches.last_served_revision.next();
        for request in all {
            self.answer_watch(request, from, &mut last);
        }
        self.watches.last_served_revision = self.store.revision();
    }

    /// Nothing before `from` is wanted: it was looked at, so it does not matter if it has been
    /// compacted since.
    fn answer_watch(&mut self, request: RequestId, from: Revision, last: &mut LastAnswer) {
        let Some(mut waiting) = self.watches.take(request) else { return };
        waiting.query.from = waiting.query.from.max(from);
        match last.to(&waiting.query, &self.store, &mut self.watches.looks) {
            Some(Ok(changes)) if changes.revisions.is_empty() && changes.next > self.store.revision() => {
                let query = ChangesQuery { from: changes.next, ..waiting.query };
                self.watches.insert(request, Waiting { query, ..waiting });
            }
            answer => self.answer_changes(request, &waiting.query, answer),
        }
    }

    /// A watch does not outlive the right to it: before anything more is told, those without it are
    /// told why they end.
    fn end_denied_watches(&mut self) {
        for (request, denial) in self.watches.denied(&self.store) {
            self.fail(request, ClientError::Denied(denial));
        }
    }

    /// Nobody is to wait any longer: this node ends.
    pub(super) fn end_watches(&mut self) {
        for request in self.watches.give_up() {
            self.fail(request, ClientError::Stopping);
        }
    }
}
