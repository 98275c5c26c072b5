//! What a client of the keyspace wants, and the request that says so: docs/api has several ways for
//! most.

use crate::madsim_engine::http::Request;
use crate::madsim_engine::keyspace::forms::{
    Target, bytes_field, in_path, key_target, order_name, range_fields,
};
use crate::madsim_engine::keyspace::right;
use crate::madsim_engine::keyspace::wanted::{Condition, ExpectedWrite};
use bytes::Bytes;
use infinitystore::kv::{
    Command, Compare, CompareOrder, Detail, KeyRange, LeaseId, Op, Put, Query, RangeQuery, Revision,
    Target as Of, Txn, TxnOp,
};
use infinitystore::replica::{ClientRequest, Level};
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::{Map, Value, json};

/// Keys over which a careless server stumbles where they stand in a path, a query or JSON. All of
/// them begin as those of the other clients do.
const AWKWARD: [&[u8]; 12] = [
    b"k/%41%zz%",
    b"k/../up",
    b"k/..",
    b"k//twice//",
    b"k/a+b c",
    b"k/a?key=b&at=1#end",
    b"k/\"quoted\"\\",
    b"k/\r\ndata: x\n\n",
    "k/\u{e9}\u{65e5}\u{1f600}\u{2028}".as_bytes(),
    b"k/\xc3\x28\x00\x7f",
    b"k/%2F%00;=,",
    b"k/ ",
];
/// The length of a long key.
const LONG_BYTES: usize = 3_000;

/// What is wanted.
#[derive(Clone, Debug)]
pub(super) enum Question {
    /// Under a name, perhaps; and with what its client had seen before it asked first, if it says
    /// that.
    Write {
        wanted: ExpectedWrite,
        name: Option<Bytes>,
        since: Option<Revision>,
    },
    Get {
        key: Bytes,
        at: Option<u64>,
        condition: Option<Condition>,
        json: bool,
    },
    Poll {
        key: Bytes,
        after: Option<u64>,
        micros: u64,
    },
    Range {
        query: RangeQuery,
        count: Option<u64>,
    },
    Leases {
        from: LeaseId,
        limit: usize,
    },
    Lease {
        id: LeaseId,
        from: Bytes,
        limit: usize,
    },
    Renew(LeaseId),
    Settings,
}

/// A request, and what it is about.
#[derive(Clone, Debug)]
pub(super) struct KeyspaceRequest {
    pub question: Question,
    pub request: Request,
    /// How fresh the answer of a read has to be.
    pub level: Level,
    /// How many commands or questions it makes of a node, one after the other.
    pub steps: u64,
}

/// Bounds on the age of a state that clients ask for, microseconds.
const STALENESS: [u64; 4] = [0, 20_000, 500_000, 30_000_000];

/// Some reads of a node's own state bound its age instead. Nothing is drawn for that: it goes by
/// the revision that there is about now.
fn with_a_bound(request: ClientRequest, now: u64) -> ClientRequest {
    match request {
        ClientRequest::Read { query, level: Level::Local } if now.is_multiple_of(2) => {
            let number = usize::try_from(now / 2 % STALENESS.len() as u64).unwrap_or_default();
            let level = Level::Fresh { max_staleness_micros: STALENESS[number] };
            ClientRequest::Read { query, level }
        }
        other => other,
    }
}

impl KeyspaceRequest {
    /// A request that asks for this. `revision_of` says at which revision a key is about now;
    /// `None`: it is asked for in another way.
    pub(super) fn of(
        rng: &mut SmallRng,
        request: ClientRequest,
        revision_of: impl Fn(&[u8]) -> u64,
        now: u64,
    ) -> Option<Self> {
        Some(match with_a_bound(request, now) {
            ClientRequest::Write(command) => Self::write(rng, command, revision_of),
            ClientRequest::Read { query: Query::Key(key), level } => {
                let key = awkward(rng, key);
                let revision = revision_of(&key);
                if rng.random_bool(0.25) {
                    // Its last change is news, or only the next one is.
                    let after = match rng.random_range(0..4) {
                        0 | 1 if revision > 0 => Some(revision - 1),
                        3 => None,
                        _ => Some(now.saturating_sub(rng.random_range(0..4))),
                    };
                    return Some(Self::poll(rng, key, after));
                }
                Self::get(rng, key, revision, now, level)
            }
            ClientRequest::Read { query: Query::Range(query), level } => {
                Self::range(rng, RangeQuery { count: true, resume: None, ..query }, level)
            }
            ClientRequest::Read { query: Query::Leases(from, limit), level } => {
                let mut target = Target::new("/v1/leases");
                target.add("limit", limit.to_string());
                if !from.is_none() || rng.random() {
                    target.add("from", from.0.to_string());
                }
                target.level(rng, level);
                let question = Question::Leases { from, limit };
                Self { question, request: Request::get(target.text), level, steps: 1 }
            }
            ClientRequest::Read { query: Query::LeaseKeys(id, from, limit), .. } => {
                Self::lease(rng, id, from, limit)
            }
            ClientRequest::Read { query: Query::Lease(id), .. }
            | ClientRequest::Lease { lease: id, renew: false } => Self::lease(rng, id, Bytes::new(), 1_000),
            ClientRequest::Read { query: Query::Settings, level } => {
                let mut target = Target::new("/v1/settings");
                target.level(rng, level);
                let question = Question::Settings;
                Self { question, request: Request::get(target.text), level, steps: 1 }
            }
            ClientRequest::Lease { lease, renew: true } => {
                let request = Request { body: None, ..post(format!("/v1/leases/{}/keepalive", lease.0), "") };
                Self { question: Question::Renew(lease), request, level: Level::Linearizable, steps: 1 }
            }
            _ => return None,
        })
    }

    fn write(rng: &mut SmallRng, command: Command, revision_of: impl Fn(&[u8]) -> u64) -> Self {
        let name = (command.idempotency_key, command.since);
        let mut steps = 1;
        let (wanted, mut request) = match command.op {
            Op::Put(put) => {
                let put = Put { key: awkward(rng, put.key), ..put };
                let mut target = key_target(rng, "/v1/kv", &put.key);
                let condition = rng.random_bool(0.3).then(|| Condition::draw(rng, revision_of(&put.key)));
                let mut request =
                    Request { method: "PUT", body: Some(put.value.to_vec()), ..Request::get("") };
                request.chunked = rng.random_bool(0.2);
                if let Some(condition) = condition {
                    request.headers.push(condition.header(rng));
                } else if put.lease.is_none() && rng.random_bool(0.15) {
                    let seconds = rng.random_range(1..4u64);
                    let text =
                        [format!("{seconds}s"), format!("{}ms", seconds * 1_000 - 1), seconds.to_string()];
                    target.add("ttl", text[rng.random_range(0..3)].clone());
                    request.target = target.text;
                    steps = 3;
                    let wanted = ExpectedWrite::Leased(put.key, put.value, seconds.max(2));
                    return Self::named(rng, wanted, request, name, steps);
                }
                if !put.lease.is_none() {
                    target.add("lease", put.lease.0.to_string());
                }
                request.target = target.text;
                let wanted = match condition {
                    Some(condition) => ExpectedWrite::If(condition, put.key.clone(), TxnOp::Put(put)),
                    None => ExpectedWrite::Op(Op::Put(put)),
                };
                (wanted, request)
            }
            Op::Delete(range) => delete(rng, range, revision_of),
            Op::Txn(txn) => {
                let txn = expressible(*txn);
                let body = txn_body(rng, &txn).to_string();
                (ExpectedWrite::Op(Op::Txn(Box::new(txn))), post("/v1/txn", body))
            }
            Op::Increment { key, by } => {
                let mut target = Target::new(&format!("/v1/incr/{}", in_path(rng, &key)));
                if by != 1 || rng.random() {
                    target.add("by", by.to_string());
                }
                (
                    ExpectedWrite::Op(Op::Increment { key, by }),
                    Request { body: None, ..post(target.text, "") },
                )
            }
            Op::Compact(revision) => {
                let request = post("/v1/compact", json!({ "revision": revision.0 }).to_string());
                (ExpectedWrite::Op(Op::Compact(revision)), request)
            }
            Op::Grant { id, ttl_seconds } => {
                let mut body = json!({ "ttl": ttl_seconds });
                if !id.is_none() || rng.random() {
                    body["id"] = id.0.into();
                }
                (ExpectedWrite::Op(Op::Grant { id, ttl_seconds }), post("/v1/leases", body.to_string()))
            }
            Op::Revoke(id) => {
                let request = Request { method: "DELETE", ..Request::get(format!("/v1/leases/{}", id.0)) };
                (ExpectedWrite::Op(Op::Revoke(id)), request)
            }
            op @ (Op::Configure(_) | Op::Expire { .. } | Op::Secure(_)) => {
                let settings = if let Op::Configure(settings) = &op { *settings } else { Default::default() };
                let body = right::settings(&settings).to_string();
                let request = Request { method: "PUT", ..post("/v1/settings", body) };
                (ExpectedWrite::Op(Op::Configure(settings)), request)
            }
        };
        if request.method == "POST" && request.body.is_some() {
            request.chunked = rng.random_bool(0.2);
        }
        Self::named(rng, wanted, request, name, steps)
    }

    fn named(
        rng: &mut SmallRng,
        wanted: ExpectedWrite,
        mut request: Request,
        (name, since): (Option<Bytes>, Option<Revision>),
        steps: u64,
    ) -> Self {
        if let Some(name) = &name {
            let header = if rng.random() { "Idempotency-Key" } else { "idempotency-key" };
            request.headers.push((header, name.to_vec()));
        }
        let level = Level::Linearizable;
        let question = Question::Write { wanted, name, since: None };
        let asked = Self { question, request, level, steps };
        match since {
            Some(since) => asked.said_since(since),
            None => asked,
        }
    }

    /// The same, of a client that says what it had seen before it asked first, if it has not said
    /// so yet.
    pub(super) fn said_since(mut self, seen: Revision) -> Self {
        if let Question::Write { name: Some(_), since: since @ None, .. } = &mut self.question {
            *since = Some(seen);
            let header = if seen.0.is_multiple_of(2) { "Idempotency-Since" } else { "idempotency-since" };
            self.request.headers.push((header, seen.0.to_string().into_bytes()));
        }
        self
    }

    fn get(rng: &mut SmallRng, key: Bytes, revision: u64, now: u64, level: Level) -> Self {
        let mut target = key_target(rng, "/v1/kv", &key);
        let at = rng.random_bool(0.2).then(|| now.saturating_sub(rng.random_range(0..6)));
        if let Some(at) = at {
            target.add("at", at.to_string());
        }
        target.level(rng, level);
        let mut request = Request::get(target.text);
        let condition = rng.random_bool(0.3).then(|| Condition::draw(rng, revision));
        request.headers.extend(condition.map(|condition| condition.header(rng)));
        let json = rng.random_bool(0.3);
        if json {
            let all = ["application/json", "text/html, application/json;q=0.9", "Application/JSON"];
            request.headers.push(("accept", all[rng.random_range(0..3)].into()));
        } else if rng.random_bool(0.2) {
            request.headers.push(("Accept", "*/*".into()));
        }
        if rng.random_bool(0.2) {
            request.method = "HEAD";
        }
        Self { question: Question::Get { key, at, condition, json }, request, level, steps: 1 }
    }

    fn poll(rng: &mut SmallRng, key: Bytes, after: Option<u64>) -> Self {
        let mut target = key_target(rng, "/v1/kv", &key);
        let millis = rng.random_range(1..1_500u64);
        target.add("wait", format!("{millis}ms"));
        if let Some(after) = after {
            target.add("after", after.to_string());
        }
        let question = Question::Poll { key, after, micros: millis * 1_000 };
        Self { question, request: Request::get(target.text), level: Level::Linearizable, steps: 2 }
    }

    fn range(rng: &mut SmallRng, query: RangeQuery, level: Level) -> Self {
        let mut target = Target::new("/v1/kv");
        if query.range != KeyRange::all() || rng.random_bool(0.2) {
            target.range(rng, &query.range);
        }
        if query.limit > 0 {
            target.add("limit", query.limit.to_string());
        }
        let mut flag = |target: &mut Target, name: &str| match rng.random_range(0..3) {
            0 => target.flag(name),
            1 => target.add(name, "true".to_owned()),
            _ => target.add(name, "1".to_owned()),
        };
        match query.detail {
            Detail::Values => {}
            Detail::Keys => flag(&mut target, "keys_only"),
            Detail::Count => flag(&mut target, "count_only"),
        }
        if let Some(delimiter) = &query.delimiter {
            target.bytes(rng, "delimiter", delimiter);
        }
        if let Some(at) = query.at {
            target.add("at", at.0.to_string());
        }
        target.level(rng, level);
        let question = Question::Range { query, count: None };
        Self { question, request: Request::get(target.text), level, steps: 1 }
    }

    /// The page behind one that ended at `resume`, of the same revision.
    pub(super) fn next_page(
        rng: &mut SmallRng,
        before: &RangeQuery,
        (resume, at, count): (Bytes, Revision, u64),
        cursor: &str,
    ) -> Self {
        let mut query = RangeQuery { resume: Some(resume), at: Some(at), ..before.clone() };
        let mut target = Target::new("/v1/kv");
        target.add("cursor", cursor.to_owned());
        if rng.random_bool(0.3) {
            query.limit = rng.random_range(1..4);
            target.add("limit", query.limit.to_string());
        }
        let level = if rng.random_bool(0.6) { Level::Linearizable } else { Level::Local };
        target.level(rng, level);
        let question = Question::Range { query, count: Some(count) };
        Self { question, request: Request::get(target.text), level, steps: 1 }
    }

    fn lease(rng: &mut SmallRng, id: LeaseId, from: Bytes, limit: usize) -> Self {
        let mut target = Target::new(&format!("/v1/leases/{}", id.0));
        if !from.is_empty() {
            target.bytes(rng, "from", &from);
        }
        if limit != 1_000 {
            target.add("limit", limit.to_string());
        }
        let question = Question::Lease { id, from, limit };
        Self { question, request: Request::get(target.text), level: Level::Linearizable, steps: 2 }
    }
}

/// Now and then another key.
fn awkward(rng: &mut SmallRng, key: Bytes) -> Bytes {
    match rng.random_range(0..10) {
        0..3 => Bytes::from_static(AWKWARD[rng.random_range(0..AWKWARD.len())]),
        3 if rng.random_bool(0.1) => Bytes::from([b"k/", "long/".repeat(LONG_BYTES / 5).as_bytes()].concat()),
        _ => key,
    }
}

fn post(target: impl Into<String>, body: impl Into<Vec<u8>>) -> Request {
    Request::post(target, body)
}

fn delete(
    rng: &mut SmallRng,
    range: KeyRange,
    revision_of: impl Fn(&[u8]) -> u64,
) -> (ExpectedWrite, Request) {
    let method = "DELETE";
    let Some(key) = range.one_key() else {
        let mut target = Target::new("/v1/kv");
        target.range(rng, &range);
        return (ExpectedWrite::Op(Op::Delete(range)), Request { method, ..Request::get(target.text) });
    };
    let key = awkward(rng, key.clone());
    let mut request = Request { method, ..Request::get(key_target(rng, "/v1/kv", &key).text) };
    if rng.random_bool(0.4) {
        let condition = Condition::draw(rng, revision_of(&key));
        request.headers.push(condition.header(rng));
        let step = TxnOp::Delete(KeyRange::one(key.clone()));
        return (ExpectedWrite::If(condition, key, step), request);
    }
    (ExpectedWrite::Op(Op::delete(key)), request)
}

/// A transaction without what its JSON has no words for.
fn expressible(txn: Txn) -> Txn {
    let steps = |steps: Vec<TxnOp>| {
        let each = steps.into_iter().map(|step| match step {
            TxnOp::Get(query) => {
                TxnOp::Get(RangeQuery { resume: None, delimiter: None, count: true, ..query })
            }
            TxnOp::Txn(inner) => TxnOp::Txn(Box::new(expressible(*inner))),
            other => other,
        });
        each.collect()
    };
    Txn { compare: txn.compare, success: steps(txn.success), failure: steps(txn.failure) }
}

fn txn_body(rng: &mut SmallRng, txn: &Txn) -> Value {
    let mut body = Map::new();
    if !txn.compare.is_empty() || rng.random_bool(0.3) {
        let compare: Vec<Value> = txn.compare.iter().map(|one| comparison(rng, one)).collect();
        body.insert("if".to_owned(), compare.into());
    }
    for (name, steps) in [("then", &txn.success), ("else", &txn.failure)] {
        if !steps.is_empty() || rng.random_bool(0.3) {
            let steps: Vec<Value> = steps.iter().map(|one| step(rng, one)).collect();
            body.insert(name.to_owned(), steps.into());
        }
    }
    Value::Object(body)
}

fn comparison(rng: &mut SmallRng, compare: &Compare) -> Value {
    let mut body = Map::new();
    range_fields(rng, &mut body, &compare.range);
    let (name, number) = match &compare.target {
        Of::Value(_) => ("value", 0),
        Of::Version(number) => ("version", *number),
        Of::CreateRevision(revision) => ("create_revision", revision.0),
        Of::ModRevision(revision) => ("mod_revision", revision.0),
        Of::Lease(lease) => ("lease", lease.0),
    };
    let is_short = compare.order == CompareOrder::Equal && rng.random();
    let operand = if is_short { name } else { "to" };
    match &compare.target {
        Of::Value(value) => bytes_field(rng, &mut body, operand, value),
        _ => {
            body.insert(operand.to_owned(), number.into());
        }
    }
    if !is_short {
        body.insert("target".to_owned(), name.into());
        if compare.order != CompareOrder::Equal || rng.random() {
            body.insert("op".to_owned(), order_name(compare.order).into());
        }
    }
    Value::Object(body)
}

fn step(rng: &mut SmallRng, step: &TxnOp) -> Value {
    let mut body = Map::new();
    let name = match step {
        TxnOp::Put(put) => {
            bytes_field(rng, &mut body, "key", &put.key);
            bytes_field(rng, &mut body, "value", &put.value);
            if !put.lease.is_none() {
                body.insert("lease".to_owned(), put.lease.0.into());
            }
            "put"
        }
        TxnOp::Delete(range) => {
            range_fields(rng, &mut body, range);
            "delete"
        }
        TxnOp::Get(query) => {
            range_fields(rng, &mut body, &query.range);
            if query.limit > 0 {
                body.insert("limit".to_owned(), query.limit.into());
            }
            match query.detail {
                Detail::Values => {}
                Detail::Keys => drop(body.insert("keys_only".to_owned(), true.into())),
                Detail::Count => drop(body.insert("count_only".to_owned(), true.into())),
            }
            if let Some(at) = query.at {
                body.insert("at".to_owned(), at.0.into());
            }
            "get"
        }
        TxnOp::Txn(inner) => return json!({ "txn": txn_body(rng, inner) }),
    };
    json!({ name: body })
}
