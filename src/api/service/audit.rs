//! The audit log: who did what, on which keys, and what became of it. Never a value, a password or
//! a token.
//!
//! Written down are changes of keys and leases, everything that is done with the cluster, and
//! everything that was refused for want of a right or of credentials, up to a bound (`refusals`).
//! Reads that succeed are not: they would be most of it.
//!
//! A line is one JSON object. Lines wait in a bounded queue for a worker that writes them. Where it
//! cannot, on a full disk say, they are lost, which is counted and logged once: requests do not
//! wait for it.

use crate::api::service::audit::refusals::{LeftOut, Refusals};
use crate::api::service::error::{ErrorCode, ServiceError};
use crate::api::service::identity::Identity;
use crate::codec::to_base64;
use crate::kv::{ChangesQuery, KeyRange, Op, Outcome, Query, SecurityChange, Txn, TxnOp};
use crate::raft::Time;
use crate::replica::{ClientReply, ClientRequest};
use crate::runtime::work::{WorkQueue, Worker};
use crate::runtime::{Env, until};
use serde_json::{Map, Value, json};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

mod refusals;

/// Bytes of lines that wait, at most, …
const WAITING_BYTES_MAX: usize = 8 << 20;
/// … and of those, what lines may take that are not about what was done with the cluster.
const OTHERS_BYTES_MAX: usize = WAITING_BYTES_MAX / 4 * 3;
/// Ranges of one line, at most. A transaction may have more.
const RANGES_MAX: usize = 32;
/// Bytes that the ranges of one line take, at most, unless the first one takes more: nobody fills
/// the files with a few lines.
const RANGES_BYTES_MAX: usize = 3 << 10;
/// Bytes of a key that are written down, at most.
const KEY_BYTES_MAX: usize = 1024;
/// A longer key is written as base64 where that is shorter: as text, one byte may take six.
const ESCAPED_BYTES_MAX: usize = 256;
/// How long the last lines may take to be written.
const STOP_MICROS: u64 = 2_000_000;

/// Where lines go.
pub trait AuditSink: Send + 'static {
    /// Writes whole lines.
    ///
    /// # Errors
    /// What the system says. The lines are lost.
    fn write(&mut self, lines: &[u8]) -> io::Result<()>;
}

/// The audit log of a node. Cheap to clone.
#[derive(Clone)]
pub struct AuditLog {
    queue: Arc<WorkQueue<Vec<u8>>>,
    counts: Arc<Counts>,
    refusals: Arc<Mutex<Refusals>>,
}

#[derive(Debug, Default)]
struct Counts {
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
    is_failing: AtomicBool,
    /// Told when all is written, after the end.
    ended: Notify,
}

impl AuditLog {
    /// Begins to write.
    ///
    /// # Errors
    /// The system refused a thread.
    pub fn start<E: Env>(env: &E, sink: Box<dyn AuditSink>) -> io::Result<Self> {
        let queue = WorkQueue::new();
        let counts = Arc::new(Counts::default());
        let worker = LineWorker { sink, counts: counts.clone() };
        env.start_worker("audit", worker, queue.clone())?;
        Ok(Self { queue, counts, refusals: Arc::default() })
    }

    /// Runs `node`, whose requests are written down here. However it ends, its last lines are
    /// written, or two seconds have passed.
    pub async fn kept_by<E: Env, T>(log: Option<Self>, env: &E, node: impl Future<Output = T>) -> T {
        let ended = node.await;
        if let Some(log) = log {
            let _ = until(env, env.now().plus(STOP_MICROS), log.finish(env)).await;
        }
        ended
    }

    /// Lines that were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Writes what waits, and ends.
    async fn finish<E: Env>(&self, env: &E) {
        self.push_left_out(env, None);
        self.queue.close();
        self.counts.ended.notified().await;
    }

    /// Writes down that somebody was not let in, unless that was the case too often.
    pub(crate) fn note_refused<E: Env>(&self, env: &E, who: &Identity, error: &ServiceError) {
        self.push_left_out(env, Some(env.now()));
        if self.lock_refusals().admits(env.now(), who) {
            self.push_deed(env, who, Deed::admin("authenticate", None), Err(error));
        }
    }

    /// Writes down what became of something. If it was refused, unless that was the case too often.
    pub(crate) fn note<E: Env>(
        &self,
        env: &E,
        who: &Identity,
        deed: Deed,
        done: Result<Option<u64>, &ServiceError>,
    ) {
        self.push_left_out(env, Some(env.now()));
        if !done.is_err_and(is_denied) || self.lock_refusals().admits(env.now(), who) {
            self.push_deed(env, who, deed, done);
        }
    }

    /// Writes down how many refusals were not, if it is time to.
    fn push_left_out<E: Env>(&self, env: &E, now: Option<Time>) {
        let left_out = self.lock_refusals().end(now);
        if let Some(LeftOut { count, by }) = left_out {
            let time = rfc3339(env.wall_micros());
            let line = json!({ "time": time, "action": "refused", "left_out": count, "by": by });
            self.push(format!("{line}\n").into_bytes(), OTHERS_BYTES_MAX);
        }
    }

    fn lock_refusals(&self) -> std::sync::MutexGuard<'_, Refusals> {
        // Counts: consistent wherever a panic could have struck.
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a line written, unless `bytes_max` wait with it.
    fn push(&self, line: Vec<u8>, bytes_max: usize) {
        let length = line.len();
        if self.counts.waiting_bytes.fetch_add(length, Ordering::Relaxed) + length > bytes_max {
            self.counts.waiting_bytes.fetch_sub(length, Ordering::Relaxed);
            self.counts.lose(1, "too many lines wait to be written");
            return;
        }
        self.queue.push_all(&mut vec![line]);
    }

    fn push_deed<E: Env>(
        &self,
        env: &E,
        who: &Identity,
        deed: Deed,
        done: Result<Option<u64>, &ServiceError>,
    ) {
        let mut line =
            json!({ "time": rfc3339(env.wall_micros()), "address": who.address, "action": deed.action });
        let mut set = |name: &str, value: Value| {
            if let Some(object) = line.as_object_mut() {
                object.insert(name.to_owned(), value);
            }
        };
        let certificate = who.certificate_name();
        let known =
            [("user", who.user.as_ref()), ("token", who.token.as_ref()), ("certificate", certificate)];
        for (name, value) in known {
            if let Some(value) = value {
                set(name, value.clone().into());
            }
        }
        if let Some(about) = deed.about {
            set("about", about.into());
        }
        if !deed.ranges.is_empty() {
            set("ranges", deed.ranges.into());
        }
        match done {
            Ok(revision) => {
                set("outcome", "done".into());
                if let Some(revision) = revision {
                    set("revision", revision.into());
                }
            }
            Err(error) => set("outcome", error.code.name().into()),
        }
        let mut line = line.to_string().into_bytes();
        line.push(b'\n');
        // What is done with keys takes no place away from what is done with the cluster.
        let is_order = deed.is_order && done.is_ok();
        self.push(line, if is_order { WAITING_BYTES_MAX } else { OTHERS_BYTES_MAX });
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog").field("lost", &self.lost()).finish_non_exhaustive()
    }
}

impl Counts {
    fn lose(&self, lines: u64, why: &str) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "the audit log loses lines: {why}; they are counted until it can be written again"
            );
        }
    }
}

struct LineWorker {
    sink: Box<dyn AuditSink>,
    counts: Arc<Counts>,
}

impl Worker for LineWorker {
    type Job = Vec<u8>;

    fn work(&mut self, lines: Vec<Vec<u8>>) -> bool {
        let count = lines.len() as u64;
        let lines = lines.concat();
        match self.sink.write(&lines) {
            Ok(()) => {
                if self.counts.is_failing.swap(false, Ordering::Relaxed) {
                    let lost = self.counts.lost.load(Ordering::Relaxed);
                    tracing::warn!(lost, "the audit log is written again");
                }
            }
            Err(error) => self.counts.lose(count, &error.to_string()),
        }
        self.counts.waiting_bytes.fetch_sub(lines.len(), Ordering::Relaxed);
        true
    }

    fn close(&mut self) {
        self.counts.ended.notify_one();
    }
}

/// What somebody did, or wanted to do.
#[derive(Clone, Debug)]
pub(crate) struct Deed {
    action: &'static str,
    about: Option<String>,
    ranges: Vec<Value>,
    /// What the ranges take as they are written down, bytes.
    ranges_bytes: usize,
    /// It is written down even if it succeeds.
    is_kept: bool,
    /// It is done with the cluster, and not with keys.
    is_order: bool,
}

impl Deed {
    /// Something that is done with the cluster.
    pub(crate) fn admin(action: &'static str, about: Option<String>) -> Self {
        Self { about, is_kept: true, is_order: true, ..Self::named(action) }
    }

    fn named(action: &'static str) -> Self {
        Self { action, about: None, ranges: Vec::new(), ranges_bytes: 0, is_kept: false, is_order: false }
    }

    /// A watch that is to begin.
    pub(crate) fn watch(range: &KeyRange) -> Self {
        let mut deed = Self::named("watch");
        deed.add(range);
        deed
    }

    /// What a request of the store is.
    pub(crate) fn of(request: &ClientRequest) -> Self {
        let mut deed = Self::named("read");
        match request {
            ClientRequest::Write(command) => deed.take_op(&command.op),
            ClientRequest::Read { query, .. } => deed.take_query(query),
            ClientRequest::Watch(ChangesQuery { range, .. }) => return Self::watch(range),
            ClientRequest::Lease { lease, renew } => {
                deed.action = if *renew { "renew lease" } else { "read lease" };
                deed.about = Some(lease.to_string());
            }
            ClientRequest::Barrier => deed.action = "barrier",
            ClientRequest::ChangeMembership(_) | ClientRequest::TransferLeadership(_) => {
                deed.action = "change members";
                (deed.is_kept, deed.is_order) = (true, true);
            }
        }
        deed
    }

    /// Whether it is written down, given what became of it.
    pub(crate) fn is_wanted(&self, done: Result<Option<u64>, &ServiceError>) -> bool {
        self.is_kept || done.is_err_and(is_denied)
    }

    fn take_op(&mut self, op: &Op) {
        self.is_kept = true;
        self.is_order = matches!(op, Op::Compact(_) | Op::Configure(_) | Op::Secure(_));
        match op {
            Op::Put(put) => {
                self.action = "put";
                self.add(&KeyRange::one(put.key.clone()));
            }
            Op::Delete(range) => {
                self.action = "delete";
                self.add(range);
            }
            Op::Increment { key, .. } => {
                self.action = "increment";
                self.add(&KeyRange::one(key.clone()));
            }
            Op::Txn(txn) => {
                self.action = "transact";
                self.take_txn(txn);
            }
            Op::Compact(revision) => {
                self.action = "compact";
                self.about = Some(revision.to_string());
            }
            Op::Grant { id, .. } => {
                self.action = "grant lease";
                self.about = Some(id.to_string());
            }
            Op::Revoke(id) => {
                self.action = "revoke lease";
                self.about = Some(id.to_string());
            }
            Op::Expire { .. } => self.action = "end leases",
            Op::Configure(_) => self.action = "change settings",
            Op::Secure(change) => self.take_change(change),
        }
    }

    fn take_change(&mut self, change: &SecurityChange) {
        let (action, name) = change.in_words();
        self.action = action;
        self.about = (!name.is_empty()).then(|| name.to_owned());
    }

    fn take_txn(&mut self, txn: &Txn) {
        for compare in &txn.compare {
            self.add(&compare.range);
        }
        for step in txn.success.iter().chain(&txn.failure) {
            match step {
                TxnOp::Put(put) => self.add(&KeyRange::one(put.key.clone())),
                TxnOp::Delete(range) => self.add(range),
                TxnOp::Get(query) => self.add(&query.range),
                TxnOp::Txn(inner) => self.take_txn(inner),
            }
        }
    }

    fn take_query(&mut self, query: &Query) {
        match query {
            Query::Key(key) => self.add(&KeyRange::one(key.clone())),
            Query::Range(query) => self.add(&query.range),
            Query::Lease(id) | Query::LeaseKeys(id, ..) => {
                self.action = "read lease";
                self.about = Some(id.to_string());
            }
            Query::Leases(..) => self.action = "list leases",
            Query::Settings => self.action = "read settings",
            Query::Security => self.action = "read users, roles and tokens",
            Query::Permission(right) => {
                self.action = "administer";
                self.about = Some(right.name().to_owned());
            }
        }
    }

    fn add(&mut self, range: &KeyRange) {
        let is_cut_short = self.ranges.last().is_some_and(Value::is_string);
        if is_cut_short {
            return;
        }
        let mut object = Map::new();
        match range.one_key() {
            Some(key) => put(&mut object, "key", key),
            None => {
                put(&mut object, "start", &range.start);
                if let Some(end) = &range.end {
                    put(&mut object, "end", end);
                }
            }
        }
        let range = Value::from(object);
        let bytes = self.ranges_bytes + range.to_string().len();
        let fits = self.ranges.len() < RANGES_MAX && (bytes <= RANGES_BYTES_MAX || self.ranges.is_empty());
        if !fits {
            return self.ranges.push("…".into());
        }
        self.ranges_bytes = bytes;
        self.ranges.push(range);
    }
}

/// Whether it was refused for want of a right or of credentials.
fn is_denied(error: &ServiceError) -> bool {
    matches!(error.code, ErrorCode::Forbidden | ErrorCode::Unauthenticated | ErrorCode::TooManyAttempts)
}

fn put(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    let shown = bytes.get(..KEY_BYTES_MAX).unwrap_or(bytes);
    let is_short = |text: &str| {
        text.len() <= ESCAPED_BYTES_MAX || Value::from(text).to_string().len() <= to_base64(shown).len() + 2
    };
    match std::str::from_utf8(shown) {
        Ok(text) if is_short(text) => object.insert(name.to_owned(), text.into()),
        _ => object.insert(format!("{name}64"), to_base64(shown).into()),
    };
    if shown.len() < bytes.len() {
        object.insert(format!("{name}_bytes"), bytes.len().into());
    }
}

/// What became of a request of the store.
pub(crate) fn done_of(reply: &ClientReply) -> Result<Option<u64>, ServiceError> {
    match reply {
        ClientReply::Written(Outcome::Refused(refusal)) => Err(refusal.clone().into()),
        ClientReply::Written(outcome) => Ok(outcome.revision().map(|revision| revision.0)),
        ClientReply::Failed(error) => Err(ServiceError::of_client(error, false)),
        _ => Ok(None),
    }
}

/// A time as `2026-11-27T07:20:00.123456Z`.
fn rfc3339(micros: u64) -> String {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's days-to-civil, for days since 1970 and not before.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests;
