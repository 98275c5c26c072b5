//! Clients of the keyspace: what they ask, as their plans and what they have seen so far decide.

use crate::checks::keyspace::callers::{Caller, awkward, change};
use crate::checks::keyspace::model::Model;
use crate::record::violation::{Violation, check};
use crate::schedule::{KeyspaceKind, KeyspaceOperation, MILLI, SECOND, Schedule, Timed};
use bytes::Bytes;
use infinitystore::kv::{
    ChangesQuery, Command, Compare, CompareOrder, Detail, Found, KeyRange, LEASE_ID_CHOSEN_MIN, LeaseId, Op,
    Outcome, Principal, Put, Query, QueryAnswer, RangeQuery, ReadError, Revision, Settings, Target, Txn,
    TxnOp,
};
use infinitystore::replica::{ClientError, ClientReply, ClientRequest, Level, RequestId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, VecDeque};

/// Requests of these clients are numbered from here on.
const FIRST_REQUEST: u64 = 1 << 40;
/// All their keys begin with this.
const PREFIX: &[u8] = b"k/";
/// What comes behind it: also bytes that are no text, and keys that are beginnings of others.
const KEYS: [&[u8]; 10] = [b"", b"a", b"a\0", b"a\xff", b"b/x", b"b/y", b"b/", b"\xff\xff", b"\0\0", b"n1"];
/// This one and those behind it mostly hold numbers.
const NUMBERS_FROM: usize = 8;
/// Ids that clients choose for leases.
const LEASES: [u64; 5] = [0, LEASE_ID_CHOSEN_MIN, LEASE_ID_CHOSEN_MIN + 1, LEASE_ID_CHOSEN_MIN + 6, u64::MAX];
/// A question is asked again at most so often.
const TRIES_MAX: u32 = 6;

/// A request that is to be made.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Which machine is asked.
    pub slot: usize,
    /// Who asks.
    pub caller: Caller,
    /// What. A command may say itself that somebody else asks.
    pub request: ClientRequest,
    /// How long its answer may take, microseconds; `None`: as long as that of any client.
    pub timeout_micros: Option<u64>,
    tries: u32,
}

#[derive(Clone, Debug)]
struct Pending {
    wish: Wish,
    /// The newest revision that any client had been told when this was asked.
    floor: u64,
}

#[derive(Debug, Default)]
struct KeyspaceClient {
    plan: Vec<Timed<KeyspaceOperation>>,
    next: usize,
    waiting: BTreeMap<RequestId, Pending>,
    /// What it asks before it goes on with its plan.
    follow: VecDeque<Wish>,
    watch: Option<ChangesQuery>,
    rng: Option<SmallRng>,
    /// Who it was when it asked last.
    was: Option<Principal>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct KeyspaceClients {
    clients: Vec<KeyspaceClient>,
    slots: usize,
    /// Whether they come as somebody.
    users: bool,
    /// The most that the cluster may keep of its history.
    history_bytes: u64,
    last_request: u64,
    /// Commands that were sent under idempotency keys, and for whom; with what some client had been
    /// told before.
    named: Vec<(Command, Caller, Revision)>,
    /// The newest revision that any client was told by an answer that had to be new.
    told: u64,
    /// What was met since it was last taken.
    met: Vec<&'static str>,
}

impl KeyspaceClients {
    /// Those of a schedule.
    #[must_use]
    pub fn new(schedule: &Schedule) -> Self {
        let clients = schedule.keyspace.iter();
        let clients =
            clients.map(|plan| KeyspaceClient { plan: plan.clone(), ..KeyspaceClient::default() }).collect();
        let (slots, history_bytes) = (schedule.slots(), schedule.settings.history_bytes());
        let users = schedule.users;
        Self { clients, slots, users, history_bytes, last_request: FIRST_REQUEST, ..Self::default() }
    }

    /// One of them was told that the store has had this revision.
    pub fn have_seen(&mut self, revision: u64) {
        self.told = self.told.max(revision);
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Whether any of them waits for an answer.
    #[must_use]
    pub fn are_waiting(&self) -> bool {
        self.clients.iter().any(|client| !client.waiting.is_empty())
    }

    /// What was met since this was asked last, for the marks.
    pub fn take_met(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.met)
    }

    /// When a client wants to ask next; `None` while it waits, and at the end of its plan.
    #[must_use]
    pub fn next(&self, client: usize) -> Option<u64> {
        let client = &self.clients[client];
        if !client.waiting.is_empty() {
            return None;
        }
        if !client.follow.is_empty() {
            return Some(0);
        }
        client.plan.get(client.next).map(|operation| operation.at)
    }

    /// What a client asks next. The plan goes on by one operation.
    pub fn wishes(&mut self, client: usize, model: &Model) -> Vec<Wish> {
        if let Some(wish) = self.clients[client].follow.pop_front() {
            return vec![wish];
        }
        let state = &mut self.clients[client];
        let Some(operation) = state.plan.get(state.next).map(|operation| operation.what.clone()) else {
            return Vec::new();
        };
        state.next += 1;
        let mut rng = SmallRng::seed_from_u64(operation.draw);
        let mut caller = if self.users { Caller::of(client, &operation) } else { Caller::Nobody };
        let mut requests = self.requests(client, &operation, &mut caller, model, &mut rng);
        self.clients[client].rng = Some(rng);
        if self.users {
            requests.iter_mut().for_each(|request| awkward(request, operation.draw));
        }
        let is_watch = operation.kind == KeyspaceKind::Watch;
        let timeout_micros = is_watch.then(|| 1_000 * (operation.draw % 3_000 + 100));
        let slot = operation.slot;
        requests.into_iter().map(|request| Wish { slot, caller, request, timeout_micros, tries: 0 }).collect()
    }

    /// Who a client is that asks a machine which has applied the entries up to `applied`.
    pub fn principal(
        &mut self,
        client: usize,
        caller: Caller,
        model: &Model,
        applied: usize,
    ) -> Option<Principal> {
        let state = &mut self.clients[client];
        let principal = caller.principal(model.rules(applied), state.was);
        if let Caller::Known(_) = caller {
            state.was = principal;
        }
        principal
    }

    /// A wish is sent.
    pub fn sent(&mut self, client: usize, wish: Wish) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        let floor = self.told;
        self.clients[client].waiting.insert(id, Pending { wish, floor });
        id
    }

    fn requests(
        &mut self,
        client: usize,
        operation: &KeyspaceOperation,
        caller: &mut Caller,
        model: &Model,
        rng: &mut SmallRng,
    ) -> Vec<ClientRequest> {
        let now = model.now().revision;
        let op = match operation.kind {
            KeyspaceKind::Put => Op::Put(put(rng, model)),
            KeyspaceKind::Delete => Op::Delete(range(rng)),
            KeyspaceKind::Txn => Op::Txn(Box::new(txn(rng, model, 0))),
            KeyspaceKind::Increment => {
                let by = if rng.random_bool(0.05) { i64::MAX } else { rng.random_range(-3..5) };
                Op::Increment { key: key(if rng.random_bool(0.9) { number(rng) } else { 1 }), by }
            }
            KeyspaceKind::Swap => Op::Txn(Box::new(swap(rng, model))),
            KeyspaceKind::Grant => {
                Op::Grant { id: LeaseId(pick(rng, &LEASES)), ttl_seconds: rng.random_range(0..4) }
            }
            KeyspaceKind::Revoke => Op::Revoke(lease(rng, model)),
            KeyspaceKind::Compact => {
                let revision = match rng.random_range(0..6) {
                    0 => model.now().compacted.saturating_sub(1),
                    1 => now,
                    2 => now + 1,
                    _ => rng.random_range(model.now().compacted..=now),
                };
                Op::Compact(Revision(revision))
            }
            KeyspaceKind::Limit => Op::Configure(self.limits(rng, model)),
            KeyspaceKind::Unlimit => {
                Op::Configure(Settings { history_bytes: self.history_bytes, ..Settings::default() })
            }
            KeyspaceKind::Repeat | KeyspaceKind::Reuse => {
                let last = self.named.len().saturating_sub(8);
                let recent = &self.named[last..];
                let Some((named, of, seen)) = recent.get(rng.random_range(0..recent.len().max(1))) else {
                    return Vec::new();
                };
                let mut command = named.clone();
                // Some say nothing, and may be done again; one is of another store.
                command.since = match operation.draw / 8 % 16 {
                    0..4 => None,
                    4 => Some(Revision(now + 1)),
                    _ => Some(*seen),
                };
                if operation.draw % 5 > 1 {
                    *caller = *of;
                }
                if operation.kind == KeyspaceKind::Reuse {
                    command.op = Op::Put(put(rng, model));
                }
                return vec![ClientRequest::Write(command)];
            }
            KeyspaceKind::Regrant => {
                let id = LeaseId(LEASES[1 + rng.random_range(0..2)]);
                let ttl_seconds = rng.random_range(2..4);
                return vec![
                    ClientRequest::write(Op::Revoke(id)),
                    ClientRequest::write(Op::Grant { id, ttl_seconds }),
                ];
            }
            KeyspaceKind::Key => {
                let level = level(rng);
                return vec![ClientRequest::Read { query: Query::Key(any_key(rng)), level }];
            }
            KeyspaceKind::Scan | KeyspaceKind::Past => {
                let mut query = range_query(rng);
                if operation.kind == KeyspaceKind::Past {
                    query.at = Some(past(rng, model));
                }
                return vec![ClientRequest::Read { query: Query::Range(query), level: level(rng) }];
            }
            KeyspaceKind::List => {
                let query = match rng.random_range(0..4) {
                    0 => Query::Lease(lease(rng, model)),
                    1 => Query::Leases(LeaseId(rng.random_range(0..4)), rng.random_range(1..5)),
                    2 => {
                        let from = if rng.random() { any_key(rng) } else { Bytes::new() };
                        Query::LeaseKeys(lease(rng, model), from, rng.random_range(1..5))
                    }
                    _ => Query::Settings,
                };
                return vec![ClientRequest::Read { query, level: level(rng) }];
            }
            KeyspaceKind::Renew | KeyspaceKind::TimeLeft => {
                let renew = operation.kind == KeyspaceKind::Renew;
                return vec![ClientRequest::Lease { lease: lease(rng, model), renew }];
            }
            KeyspaceKind::Watch => {
                let known = self.clients[client].watch.clone().filter(|_| !rng.random_bool(0.12));
                let query = known.unwrap_or_else(|| watch(rng, model));
                self.clients[client].watch = Some(query.clone());
                return vec![ClientRequest::Watch(query)];
            }
            KeyspaceKind::Secure => Op::Secure(Box::new(change(rng, model.rules(usize::MAX)))),
        };
        let mut command = Command::from(op);
        if rng.random_bool(0.4) {
            let name = format!("{client}.{}", self.clients[client].next);
            command.idempotency_key = Some(Bytes::from(name));
            let seen = Revision(self.told);
            self.named.push((command.clone(), *caller, seen));
            // Most first attempts say nothing.
            command.since = operation.draw.is_multiple_of(8).then_some(seen);
        }
        vec![ClientRequest::Write(command)]
    }

    fn limits(&self, rng: &mut SmallRng, model: &Model) -> Settings {
        let mut settings = Settings { history_bytes: self.history_bytes, ..Settings::default() };
        let used = model.now().bytes + 128 * model.now().leases;
        if rng.random_bool(0.6) {
            settings.history_bytes = pick(rng, &[0, 200, 1_000, 5_000]).min(self.history_bytes);
        }
        if rng.random_bool(0.4) {
            settings.quota_bytes = (used + rng.random_range(0..600)).saturating_sub(200);
        }
        if rng.random_bool(0.5) {
            settings.answers_bytes = pick(rng, &[0, 200, 600, 2_000]);
        }
        settings
    }

    /// An answer reached a client. Whether it waited for it.
    ///
    /// # Errors
    /// [`Violation`]: the answer cannot follow those before.
    pub fn answered(
        &mut self,
        client: usize,
        id: RequestId,
        reply: &ClientReply,
        is_repeated: bool,
    ) -> Result<bool, Violation> {
        let Some(pending) = self.clients[client].waiting.remove(&id) else { return Ok(false) };
        let revision = match reply {
            ClientReply::Written(outcome) if !is_repeated => outcome.revision(),
            ClientReply::Answer(answer) => Some(answer.revision),
            _ => None,
        };
        let is_local = matches!(
            pending.wish.request,
            ClientRequest::Read { level: Level::Local | Level::Fresh { .. }, .. }
        );
        if let Some(revision) = revision.filter(|_| !is_local) {
            check!(
                "revisions fit real time",
                revision.0 >= pending.floor,
                "client {client} is told revision {revision} by {reply:?}; another was told {} before it asked {:?}",
                pending.floor,
                pending.wish.request
            );
            self.have_seen(revision.0);
        }
        self.mark(reply, is_repeated);
        self.follow(client, pending, reply);
        Ok(true)
    }

    /// A client's time is up, or its connection broke. Whether it waited for that request.
    pub fn gave_up(&mut self, client: usize, id: RequestId) -> bool {
        let Some(pending) = self.clients[client].waiting.remove(&id) else { return false };
        self.follow(client, pending, &ClientReply::Failed(ClientError::Unknown));
        true
    }

    /// What an answer leads to: the next page, the next change, another try.
    fn follow(&mut self, client: usize, Pending { wish, floor }: Pending, reply: &ClientReply) {
        let slots = self.slots;
        let state = &mut self.clients[client];
        let mut rng = state.rng.take().unwrap_or_else(|| SmallRng::seed_from_u64(0));
        let slot = if rng.random() { wish.slot } else { rng.random_range(0..slots) };
        let again = Wish { slot, tries: wish.tries + 1, ..wish.clone() };
        match (&wish.request, reply) {
            (ClientRequest::Write(command), ClientReply::Failed(ClientError::Unknown))
                if command.idempotency_key.is_some() && wish.tries < TRIES_MAX =>
            {
                self.met.push("write repeated under its idempotency key");
                let since = command.since.or(Some(Revision(floor)));
                let request = ClientRequest::Write(Command { since, ..command.clone() });
                state.follow.push_back(Wish { request, ..again });
            }
            (
                ClientRequest::Read { query: Query::Range(query), .. },
                ClientReply::Answer(QueryAnswer { revision, found: Found::Range(Ok(page)) }),
            ) if page.next.is_some() && wish.tries < TRIES_MAX => {
                let at = query.at.or(Some(*revision));
                let query = Query::Range(RangeQuery { at, resume: page.next.clone(), ..query.clone() });
                let level = level(&mut rng);
                self.met.push("next page of a scan");
                state.follow.push_back(Wish { request: ClientRequest::Read { query, level }, ..again });
            }
            (ClientRequest::Watch(query), ClientReply::Changes(Ok(changes))) => {
                let query = ChangesQuery { from: changes.next, ..query.clone() };
                state.watch = Some(query.clone());
                if !changes.revisions.is_empty() && wish.tries < TRIES_MAX && rng.random() {
                    state.follow.push_back(Wish { request: ClientRequest::Watch(query), ..again });
                }
            }
            (ClientRequest::Watch(query), ClientReply::Changes(Err(ReadError::Compacted(first)))) => {
                state.watch = Some(ChangesQuery { from: *first, ..query.clone() });
            }
            _ => {}
        }
        state.rng = Some(rng);
    }

    fn mark(&mut self, reply: &ClientReply, is_repeated: bool) {
        let met = match reply {
            ClientReply::Written(Outcome::Refused(refusal)) => match refusal {
                infinitystore::kv::Refusal::Quota { .. } => "refused for the quota",
                infinitystore::kv::Refusal::NoLease(_) => "refused for want of a lease",
                infinitystore::kv::Refusal::KeyReused => "idempotency key reused",
                infinitystore::kv::Refusal::AnswerForgotten(_) => "answer forgotten",
                infinitystore::kv::Refusal::Compacted(_) => "refused as compacted",
                infinitystore::kv::Refusal::Future(_) => "refused as future",
                infinitystore::kv::Refusal::LeaseExists(_) => "lease existed",
                infinitystore::kv::Refusal::Denied { .. } => "command denied",
                infinitystore::kv::Refusal::Security(_) => "change of rights refused",
                _ => "number refused",
            },
            ClientReply::Written(_) if is_repeated => "answer given again",
            ClientReply::Written(Outcome::Secured(_)) => "rights changed",
            ClientReply::Written(Outcome::Txn { succeeded: true, .. }) => "transaction succeeded",
            ClientReply::Written(Outcome::Txn { succeeded: false, .. }) => "transaction failed",
            ClientReply::Written(Outcome::Revoked { keys: 2.., .. }) => "lease ended with several keys",
            ClientReply::Answer(QueryAnswer {
                found: Found::Range(Err(ReadError::Compacted(_))), ..
            }) => "read refused as compacted",
            ClientReply::Answer(QueryAnswer { found: Found::Range(Err(ReadError::Future(_))), .. }) => {
                "read refused as future"
            }
            ClientReply::Failed(ClientError::BadCommand(_) | ClientError::CommandTooLarge { .. }) => {
                "command refused before it was logged"
            }
            ClientReply::Failed(ClientError::Denied(_)) => "read denied",
            _ => return,
        };
        self.met.push(met);
    }
}

fn pick<T: Copy>(rng: &mut SmallRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

fn key(number: usize) -> Bytes {
    Bytes::from([PREFIX, KEYS[number]].concat())
}

fn any_key(rng: &mut SmallRng) -> Bytes {
    key(rng.random_range(0..KEYS.len()))
}

fn number(rng: &mut SmallRng) -> usize {
    rng.random_range(NUMBERS_FROM..KEYS.len())
}

fn level(rng: &mut SmallRng) -> Level {
    if rng.random_bool(0.6) { Level::Linearizable } else { Level::Local }
}

/// A range of these clients' keys.
fn range(rng: &mut SmallRng) -> KeyRange {
    match rng.random_range(0..6) {
        0 => KeyRange::prefix(PREFIX),
        1 => KeyRange::prefix([PREFIX, b"b/"].concat()),
        2 | 3 => KeyRange::one(any_key(rng)),
        _ => {
            let (one, other) = (any_key(rng), any_key(rng));
            let (start, end) = if one < other { (one, other) } else { (other, Bytes::from_static(b"k0")) };
            KeyRange { start, end: Some(end) }
        }
    }
}

fn value(rng: &mut SmallRng) -> Bytes {
    let length = pick(rng, &[0, 3, 20, 60]);
    Bytes::from((0..length).map(|_| rng.random()).collect::<Vec<u8>>())
}

fn put(rng: &mut SmallRng, model: &Model) -> Put {
    let lease = if rng.random_bool(0.5) { LeaseId::NONE } else { lease(rng, model) };
    let number = rng.random_range(0..KEYS.len());
    let value = match number {
        NUMBERS_FROM.. if rng.random_bool(0.8) => Bytes::from(rng.random_range(-9..9).to_string()),
        _ => value(rng),
    };
    Put { key: key(number), value, lease }
}

/// Mostly one that is there.
fn lease(rng: &mut SmallRng, model: &Model) -> LeaseId {
    let leases: Vec<LeaseId> = model.leases_at(model.applied()).map(|lease| lease.id).collect();
    if leases.is_empty() || rng.random_bool(0.1) {
        return LeaseId(pick(rng, &LEASES));
    }
    pick(rng, &leases)
}

fn past(rng: &mut SmallRng, model: &Model) -> Revision {
    let now = model.now();
    Revision(match rng.random_range(0..8) {
        0 => now.compacted,
        1 => now.compacted.saturating_sub(1),
        2 => now.revision + 1,
        3 => now.revision,
        _ => rng.random_range(now.compacted..=now.revision),
    })
}

fn range_query(rng: &mut SmallRng) -> RangeQuery {
    let range = match rng.random_range(0..4) {
        0 => KeyRange::all(),
        1 => range(rng),
        _ => KeyRange::prefix(PREFIX),
    };
    RangeQuery {
        limit: pick(rng, &[0, 1, 2, 3]),
        detail: pick(rng, &[Detail::Values, Detail::Values, Detail::Keys, Detail::Count]),
        delimiter: rng.random_bool(0.3).then(|| Bytes::from_static(b"/")),
        count: rng.random_bool(0.3),
        ..RangeQuery::of(range)
    }
}

fn watch(rng: &mut SmallRng, model: &Model) -> ChangesQuery {
    let now = model.now();
    let from = match rng.random_range(0..8) {
        0 => 0,
        1 => now.compacted,
        2 => now.compacted + 1,
        3 => now.revision + rng.random_range(2..9),
        4 => rng.random_range(now.compacted..=now.revision),
        _ => now.revision + 1,
    };
    let range = match rng.random_range(0..4) {
        0 => KeyRange::all(),
        1 => KeyRange::prefix(PREFIX),
        _ => range(rng),
    };
    let (puts, deletions) = pick(rng, &[(true, true), (true, true), (true, false), (false, true)]);
    ChangesQuery { range, from: Revision(from), puts, deletions, previous: rng.random() }
}

fn compare(rng: &mut SmallRng, model: &Model) -> Compare {
    let range = if rng.random_bool(0.7) { KeyRange::one(any_key(rng)) } else { range(rng) };
    let found = model.range(&range, None).next().cloned();
    let off: u64 = pick(rng, &[0, 0, 0, 1, 2]);
    let near = |is: u64| (is + off).saturating_sub(1).max(u64::from(off == 0) * is);
    let target = match rng.random_range(0..5) {
        0 => Target::Value(match &found {
            Some(found) if rng.random_bool(0.8) => found.value.clone(),
            _ => value(rng),
        }),
        1 => Target::Version(near(found.as_ref().map_or(0, |found| found.version))),
        2 => {
            Target::CreateRevision(Revision(near(found.as_ref().map_or(0, |found| found.create_revision.0))))
        }
        3 => Target::ModRevision(Revision(near(found.as_ref().map_or(0, |found| found.mod_revision.0)))),
        _ => Target::Lease(found.as_ref().map_or(LeaseId::NONE, |found| found.lease)),
    };
    use CompareOrder::{Equal, Greater, Less, NotEqual};
    Compare { range, target, order: pick(rng, &[Equal, Equal, Equal, NotEqual, Less, Greater]) }
}

fn txn(rng: &mut SmallRng, model: &Model, depth: usize) -> Txn {
    for _ in 0..4 {
        let compare = (0..rng.random_range(0..3)).map(|_| compare(rng, model)).collect();
        let txn = Txn { compare, success: steps(rng, model, depth), failure: steps(rng, model, depth) };
        // A few make no sense, and are refused.
        if Op::Txn(Box::new(txn.clone())).check().is_ok() || depth == 0 && rng.random_bool(0.1) {
            return txn;
        }
    }
    Txn::default()
}

fn steps(rng: &mut SmallRng, model: &Model, depth: usize) -> Vec<TxnOp> {
    (0..rng.random_range(0..4))
        .map(|_| match rng.random_range(0..8) {
            0..3 => TxnOp::Put(put(rng, model)),
            3 | 4 => TxnOp::Delete(range(rng)),
            5 if depth < 2 => TxnOp::Txn(Box::new(txn(rng, model, depth + 1))),
            6 => TxnOp::Get(RangeQuery { at: Some(past(rng, model)), ..range_query(rng) }),
            _ => TxnOp::Get(range_query(rng)),
        })
        .collect()
}

/// Sets a key if it is still what it is now, and reads it otherwise.
fn swap(rng: &mut SmallRng, model: &Model) -> Txn {
    let put = put(rng, model);
    let range = KeyRange::one(put.key.clone());
    let is = model.get(&put.key).map_or(Revision(0), |found| found.mod_revision);
    Txn {
        compare: vec![Compare {
            range: range.clone(),
            target: Target::ModRevision(is),
            order: CompareOrder::Equal,
        }],
        success: vec![TxnOp::Put(put)],
        failure: vec![TxnOp::Get(RangeQuery::of(range))],
    }
}

/// How long a client waits for what its timeout leaves open.
#[must_use]
pub const fn patience(timeout_micros: u64) -> u64 {
    timeout_micros + timeout_micros / 4 + 10 * MILLI + SECOND / 100
}
