//! What changed, encoded once however many watch it.
//!
//! Watchers that ask for the same changes from the same revision on share one question to the node
//! and one page of events. Pages that were asked for lately are kept for a while, within a bound,
//! so that watchers that are a little behind go along the same pages and meet the others at the
//! end.

use crate::api::http::account::Account;
use crate::api::http::budget::{Budget, MemoryReservation, MemoryUse};
use crate::api::http::context::Context;
use crate::api::http::v1::json::{Json, KEY_VALUE_BYTES};
use crate::api::http::v1::page_cache::{Coming, Held, NoPage, Page, PageKey, Pages, TakenPage};
use crate::api::http::v1::questions::{self, PROGRESS_MICROS};
use crate::api::service::{Asker, ErrorCode, ServiceError};
use crate::kv::{Changes, ChangesQuery, Event, KeyValue, Revision, RevisionChanges};
use crate::node::{NodeHandle, NodeSlot};
use crate::raft::Time;
use crate::runtime::Env;
use bytes::Bytes;
use std::sync::{Arc, Mutex};

/// A page takes in no further revision beyond so many bytes.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// A page larger than this has a part of the budget.
const PAGE_FREE_BYTES: usize = 8 << 10;

impl Pages {
    /// The page that a query asks for, counted for the caller. `last` is when the watcher's last
    /// one came.
    pub(super) async fn get<E: Env>(
        self: &Arc<Self>,
        context: &Arc<Context<E>>,
        (asker, account): (&Asker, &Arc<Account>),
        query: &ChangesQuery,
        last: Option<Time>,
    ) -> Result<TakenPage, ServiceError> {
        loop {
            match self.coming(context, (asker, account), query, last)?.wait().await {
                Ok(page) => {
                    let taken = page.taken(&context.budget, account).or_else(|| {
                        self.known().forget();
                        page.taken(&context.budget, account)
                    });
                    return taken.ok_or_else(no_room);
                }
                // Another caller has too much for this page. That is no reason for this one.
                Err(NoPage { whose: Some(whose), .. }) if !Arc::ptr_eq(&whose, account) => {}
                Err(NoPage { error, .. }) => return Err(error),
            }
        }
    }

    /// The page that a query asks for, which may have come already.
    fn coming<E: Env>(
        self: &Arc<Self>,
        context: &Arc<Context<E>>,
        (asker, account): (&Asker, &Arc<Account>),
        query: &ChangesQuery,
        last: Option<Time>,
    ) -> Result<Arc<Coming>, ServiceError> {
        let question = question(&context.env, &context.slot, asker, query)?;
        let query = &question;
        let (coming, is_new) = {
            let mut known = self.known();
            match known.by_query.get(query) {
                Some(coming) => (coming.clone(), false),
                None => {
                    let coming = Arc::new(Coming::default());
                    known.by_query.insert(query.clone(), coming.clone());
                    (coming, true)
                }
            }
        };
        if is_new {
            // A task of its own: the watcher that asked first may be the first to leave.
            let (pages, own) = (self.clone(), context.clone());
            let (query, coming) = (question.clone(), coming.clone());
            let (asker, account) = (asker.clone(), account.clone());
            let not_before = last.map(|last| last.plus(self.pace_micros()));
            context.env.spawn(async move {
                if let Some(not_before) = not_before {
                    own.env.sleep_until(not_before).await;
                }
                let page = fetch(&own, &pages, (asker, &account), &query.query).await;
                pages.came(&query, &coming, page);
            });
        }
        Ok(coming)
    }
}

/// What is asked, by whom, and by which rules. A token that has ended asks nothing more.
fn question<E: Env>(
    env: &E,
    slot: &NodeSlot,
    asker: &Asker,
    query: &ChangesQuery,
) -> Result<PageKey, ServiceError> {
    let facts = slot.get().map(NodeHandle::facts);
    let rules = match facts {
        Some(facts) if !facts.is_open() => facts.security().revision(),
        _ => 0,
    };
    let by = match &asker.who {
        Some(who) => {
            who.left_micros(env.wall_micros())?;
            who.by
        }
        None => None,
    };
    Ok(PageKey { query: query.clone(), by, rules })
}

async fn fetch<E: Env>(
    context: &Arc<Context<E>>,
    pages: &Pages,
    (asker, account): (Asker, &Arc<Account>),
    query: &ChangesQuery,
) -> Result<Arc<Page>, NoPage> {
    let asked = questions::ask(context, (asker, account), query.clone(), PROGRESS_MICROS).await;
    let changes = asked.map_err(|error| {
        let has_many = context.questions.has_many_questions(account, &query.range);
        let whose = (error.code == ErrorCode::Overloaded && has_many).then(|| account.clone());
        NoPage { error, whose }
    })?;
    let budget = &context.budget;
    let (revisions, size, next) = first_part(&changes);
    // Set aside before it is written: a refusal then costs little.
    let held = if size > PAGE_FREE_BYTES {
        let held = budget.reserve(account, MemoryUse::Answer, size).or_else(|| {
            // Pages that are kept for later watchers make room for the one that is wanted now.
            pages.known().forget();
            budget.reserve(account, MemoryUse::Answer, size)
        });
        // From now on it counts for those who have it.
        Some(held.map(MemoryReservation::shared).ok_or_else(|| match revisions.first() {
            Some(revision) if size > budget.answer_bytes_max() => {
                too_large(revision.revision, size, budget).into()
            }
            _ => {
                let whose = budget.holds_much(account, size).then(|| account.clone());
                NoPage { error: no_room(), whose }
            }
        })?)
    } else {
        None
    };
    let counted = if held.is_some() { size } else { 0 };
    let mut bytes = Vec::with_capacity(size);
    for revision in revisions {
        message(&mut bytes, None, Some(revision.revision), &encode_revision(revision));
    }
    debug_assert!(bytes.len() <= size, "what it takes was known before");
    let bytes = match held {
        Some(_held) => Bytes::from_owner(Held { bytes, _held }),
        None => Bytes::from(bytes),
    };
    Ok(Arc::new(Page { bytes, next, at: context.env.now(), counted, parts: Mutex::default() }))
}

fn no_room() -> ServiceError {
    ServiceError::new(ErrorCode::Overloaded, "there is no memory for more events now")
}

/// The revisions that make one page, what they take as messages at most, and where the next page
/// begins: one revision, however large, and others as long as they are small.
fn first_part(changes: &Changes) -> (&[RevisionChanges], usize, Revision) {
    let mut bytes = 0;
    for (at, revision) in changes.revisions.iter().enumerate() {
        let more = size_of_revision(revision);
        if at > 0 && bytes + more > PAGE_BYTES_MAX {
            return (&changes.revisions[..at], bytes, revision.revision);
        }
        bytes += more;
    }
    (&changes.revisions, bytes, changes.next)
}

/// No patience helps: this node never holds that much for answers.
fn too_large(revision: Revision, size: usize, budget: &Budget) -> ServiceError {
    let detail = format!(
        "the events of revision {revision} take {size} bytes, and this node holds {} for answers at most; watch smaller ranges, or without previous values, or go on behind it",
        budget.answer_bytes_max()
    );
    ServiceError::new(ErrorCode::RevisionTooLarge, detail).about(revision)
}

/// A message of server-sent events. The data has no line breaks in it: it is JSON.
pub(super) fn message(out: &mut Vec<u8>, event: Option<&str>, id: Option<Revision>, data: &[u8]) {
    if let Some(event) = event {
        out.extend_from_slice(format!("event: {event}\n").as_bytes());
    }
    if let Some(id) = id {
        out.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}

fn encode_revision(changes: &RevisionChanges) -> Vec<u8> {
    let mut json = Json::reserving(size_of_revision(changes));
    json.number("revision", changes.revision.0).list("events", &changes.events, |json, event| {
        json.within(*b"{}", |json| {
            json.text("type", if event.now.is_some() { "put" } else { "delete" });
            json.bytes("key", "key64", &event.key);
            if let Some(now) = &event.now {
                json.bytes("value", "value64", &now.value).numbers(now);
            }
            if let Some(previous) = &event.previous {
                json.field("previous").within(*b"{}", |json| {
                    json.bytes("value", "value64", &previous.value).numbers(previous);
                });
            }
        });
    });
    json.end()
}

/// What its message takes, at most.
fn size_of_revision(changes: &RevisionChanges) -> usize {
    let value =
        |key: &Option<KeyValue>| key.as_ref().map_or(0, |key| KEY_VALUE_BYTES + Json::bytes_of(&key.value));
    let size = |event: &Event| 48 + Json::bytes_of(&event.key) + value(&event.now) + value(&event.previous);
    128 + changes.events.iter().map(size).sum::<usize>()
}
