//! Users, roles and tokens over HTTP: in runs that have them, authentication is enabled before the
//! clients begin, and disabled when faults have ended. All other clients show the operator's token.
//!
//! An administrator changes roles, passwords and tokens while faults go on. Callers show names with
//! passwords, and tokens, right ones and wrong ones, and each answer is held against the rules of
//! the committed log (`checks::keyspace::rights`).

use crate::checks::keyspace::callers::OPERATOR_IS;
use crate::checks::keyspace::model::Model;
use crate::checks::keyspace::rights::NeededRight;
use crate::checks::keyspace::rules::Rules;
use crate::madsim_engine::http::{Answer, Http, Request};
use crate::madsim_engine::keyspace::{AtSending, HttpClient};
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::{Shared, World};
use crate::record::violation::Violation;
use crate::schedule::{MILLI, SECOND, Stream, stream};
use bytes::Bytes;
use infinitystore::codec::to_base64;
use infinitystore::kv::{
    Access, AdminRights, Grant, KeyRange, LeaseId, Op, Outcome, Principal, Put, Query, ROOT_ROLE, RangeQuery,
    SecurityChange, Subject, TokenOwner, Txn, TxnOp,
};
use infinitystore::node::NodeHandle;
use infinitystore::replica::{ClientError, ClientReply, ClientRequest};
use rand::Rng;
use rand::rngs::SmallRng;

#[cfg(test)]
mod tests;

/// The operator's token.
pub(super) const OPERATOR_TOKEN: &str = "inft_operator";
const OPERATOR_HASH: &str = "8f2938ad9fc32e0b7ee4938a08493544bbad3da6d2cd127248e4680e593e1690";
/// Tokens that come and go: the name of each, and its hash. It shows `inft_` and its name.
const TOKENS: [(&str, &str); 3] = [
    ("s", "4c4ea6fc7e33ec5c0f0bdf291a96deed094dec1c2714ff7ed9b5d074649960bc"),
    ("t", "1c07f18641680f5b8a8208037976e48ec226ce946beb147b427ae81fb4b4ba87"),
    ("u", "25d89b24d0946611dca77c68586b79aff7782544f9a62f046c9ea13bbf4c7aee"),
];
const USERS: [&str; 3] = ["a", "b", "node9"];
/// Callers that have a certificate where clients speak TLS: its number, and the name in it. The
/// second is no user's.
const HOLDERS: [(usize, &str); 2] = [(9, "node9"), (10, "node10")];
const ROLES: [&str; 2] = ["app", "other"];
/// Hashes of `pass-0`, `pass-1` and `pass-2`, which cost little.
const PASSWORDS: [&str; 3] = [
    "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0c2FsMA$nhDJcvJfCG40velCcKMEjLDExHpusAngM2nbinBsKo8",
    "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0c2FsMQ$EWE0PCuSVByaChgalkckyZttDbVI9MDaxPZE6MA6ZIc",
    "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0c2FsMg$DKoqkXl5GjhtvQA6sXbp3AppALWNQdD27G1ov3+wASU",
];
/// All keys of these callers begin with this.
const PREFIX: &[u8] = b"r/";
const KEYS: [&str; 3] = ["r/a", "r/b", "r/c/x"];
/// How many ask, and how many watch.
const CALLERS: usize = 4;
const WATCHERS: u64 = 3;
/// Streams of the seed are told apart by this.
const FIRST_STREAM: u64 = 7_000;
/// Between two changes, and between two requests, at most.
const PAUSE_MICROS: u64 = 900 * MILLI;

fn hash_of(text: &str) -> [u8; 32] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap_or(0))
}

fn pick<T: Copy>(rng: &mut SmallRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// Makes the rules and enables them, before anything goes wrong.
pub(super) async fn enable(shared: &Shared) {
    let root = || vec![ROOT_ROLE.to_owned()];
    let (name, password) = ("first".to_owned(), Some(PASSWORDS[0].to_owned()));
    let owner = TokenOwner::Roles(root());
    let operator = SecurityChange::AddToken {
        name: "operator".to_owned(),
        hash: hash_of(OPERATOR_HASH),
        owner,
        ends_at: Some(u64::MAX),
    };
    let first = SecurityChange::AddUser { name, password, roles: root() };
    for change in [first, operator] {
        change_it(shared, change, None).await;
    }
    let mut rng = stream(shared.lock().schedule.seed, Stream::Schedule, FIRST_STREAM);
    for name in ROLES {
        let (name, grants) = (name.to_owned(), grants(&mut rng));
        change_it(shared, SecurityChange::AddRole { name, grants, admin: AdminRights::NONE }, None).await;
    }
    for name in USERS {
        let password = Some(pick(&mut rng, &PASSWORDS).to_owned());
        let user = SecurityChange::AddUser { name: name.to_owned(), password, roles: roles(&mut rng) };
        change_it(shared, user, None).await;
    }
    change_it(shared, SecurityChange::Enable, None).await;
    let mut world = shared.lock();
    if world.violation.is_none() {
        (world.token, world.enabled_at) = (Some(OPERATOR_TOKEN), world.checks.ledger.model().applied());
        world.mark("authentication enabled");
    }
}

/// Opens the cluster again, for all that follows.
pub(super) async fn disable(shared: &Shared) {
    change_it(shared, SecurityChange::Disable, Some(OPERATOR_IS)).await;
}

/// Asks one member after the other for a change, until one says what became of it.
async fn change_it(shared: &Shared, change: SecurityChange, by: Option<Principal>) {
    for tries in 0.. {
        let Some(node) = any_node(shared, tries) else { return };
        if let Some(node) = node
            && let ClientReply::Written(_) | ClientReply::Failed(ClientError::Denied(_)) =
                ask(shared, node, &change, by).await
        {
            return;
        }
        sleep_until(now() + 20 * MILLI).await;
    }
}

type Process = (usize, u32);

/// A node that runs; `None`: the run is over.
fn any_node(shared: &Shared, turn: usize) -> Option<Option<(Process, NodeHandle)>> {
    let world = shared.lock();
    if world.violation.is_some() {
        return None;
    }
    let members = world.machines.iter().enumerate().filter(|(_, machine)| machine.member.is_some());
    let running: Vec<_> =
        members.filter_map(|(slot, machine)| Some(((slot, machine.life), machine.handle.clone()?))).collect();
    Some(running.get(turn % running.len().max(1)).cloned())
}

async fn ask(
    shared: &Shared,
    (process, node): (Process, NodeHandle),
    change: &SecurityChange,
    by: Option<Principal>,
) -> ClientReply {
    let asked = now();
    shared.lock().book.asked_beside(process);
    let order = ClientRequest::write(Op::Secure(Box::new(change.clone())));
    let reply = node.request_as(by, order).await;
    shared.lock().book.answered_beside(process, now() - asked + 1);
    reply
}

fn grants(rng: &mut SmallRng) -> Vec<Grant> {
    let all: [KeyRange; 5] = [
        KeyRange::prefix(PREFIX),
        KeyRange::prefix(PREFIX),
        KeyRange::one(&b"r/a"[..]),
        KeyRange { start: Bytes::from_static(b"r/b"), end: None },
        KeyRange { start: Bytes::from_static(b"r/"), end: Some(Bytes::from_static(b"r/c")) },
    ];
    let one = |rng: &mut SmallRng| Grant {
        range: all[rng.random_range(0..all.len())].clone(),
        access: pick(rng, &[Access::Read, Access::Write, Access::ReadWrite, Access::ReadWrite]),
    };
    (0..rng.random_range(1..3)).map(|_| one(rng)).collect()
}

fn roles(rng: &mut SmallRng) -> Vec<String> {
    ROLES.into_iter().filter(|_| rng.random_bool(0.6)).map(str::to_owned).collect()
}

/// Changes the rules until the faults end.
pub(super) async fn administrate(shared: Shared) {
    let mut rng = stream(shared.lock().schedule.seed, Stream::Schedule, FIRST_STREAM + 1);
    loop {
        sleep_until(now() + rng.random_range(0..PAUSE_MICROS)).await;
        if shared.lock().calm {
            return;
        }
        let change = {
            let world = shared.lock();
            change(&mut rng, world.checks.ledger.model().rules(usize::MAX))
        };
        let Some(node) = any_node(&shared, rng.random_range(0..64)) else { return };
        let Some(node) = node else { continue };
        if let ClientReply::Written(Outcome::Secured(_)) =
            ask(&shared, node, &change, Some(OPERATOR_IS)).await
        {
            shared.lock().mark("rights changed");
        }
    }
}

fn change(rng: &mut SmallRng, rules: &Rules) -> SecurityChange {
    let (user, role) = (pick(rng, &USERS).to_owned(), pick(rng, &ROLES).to_owned());
    let (token, hash) = pick(rng, &TOKENS);
    let has = rules.grants(&role);
    match rng.random_range(0..12) {
        0..5 => SecurityChange::ChangeRole {
            name: role,
            grant: if rng.random() { grants(rng) } else { Vec::new() },
            revoke: has.get(rng.random_range(0..has.len() + 1)).cloned().into_iter().collect(),
            grant_admin: AdminRights::NONE,
            revoke_admin: AdminRights::NONE,
        },
        5 | 6 => SecurityChange::ChangeUser { name: user, grant: roles(rng), revoke: roles(rng) },
        7 | 8 if rules.password(&user).is_some() => {
            SecurityChange::SetPassword { name: user, password: Some(pick(rng, &PASSWORDS).to_owned()) }
        }
        9 if rules.has(&user) => SecurityChange::RemoveUser(user),
        7..10 => SecurityChange::AddUser {
            name: user,
            password: Some(pick(rng, &PASSWORDS).to_owned()),
            roles: roles(rng),
        },
        _ if rules.token(token).is_some() => SecurityChange::RevokeToken(token.to_owned()),
        _ => {
            let owner = if rng.random() { TokenOwner::User(user) } else { TokenOwner::Roles(roles(rng)) };
            // By the clocks of the machines, which begin with the run.
            let ends_at = rng.random_bool(0.5).then(|| now() / SECOND + rng.random_range(0..8));
            SecurityChange::AddToken { name: token.to_owned(), hash: hash_of(hash), owner, ends_at }
        }
    }
}

/// What a caller shows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shown {
    Nothing,
    Password(&'static str, usize),
    Token(&'static str, &'static str),
    /// A certificate, and nothing else.
    Certificate(&'static str),
}

impl Shown {
    fn draw(rng: &mut SmallRng, rules: &Rules) -> Self {
        match rng.random_range(0..16) {
            0 => Self::Nothing,
            1..7 => {
                let (name, hash) = pick(rng, &TOKENS);
                Self::Token(name, hash)
            }
            draw => {
                let user = pick(rng, &USERS);
                let right = PASSWORDS.iter().position(|hash| rules.password(user) == Some(hash));
                let wrong = rng.random_range(0..PASSWORDS.len());
                Self::Password(user, if draw == 7 { wrong } else { right.unwrap_or(wrong) })
            }
        }
    }

    fn header(self) -> (&'static str, Vec<u8>) {
        let value = match self {
            Self::Nothing | Self::Certificate(_) => String::new(),
            Self::Password(user, number) => {
                format!("Basic {}", to_base64(format!("{user}:pass-{number}").as_bytes()))
            }
            Self::Token(name, _) => format!("Bearer inft_{name}"),
        };
        ("authorization", value.into_bytes())
    }

    /// Who that is, by the rules; and when that ends.
    fn principal(self, rules: &Rules) -> Option<(Principal, u64)> {
        let (name, is_right, end) = match self {
            Self::Nothing => return None,
            Self::Certificate(user) => (user, rules.has(user), None),
            Self::Password(user, number) => (user, rules.password(user) == Some(PASSWORDS[number]), None),
            Self::Token(name, hash) => {
                let (is, end) = rules.token(name)?;
                (name, *is == hash_of(hash), end)
            }
        };
        let principal = rules.principal(name).filter(|_| is_right)?;
        Some((principal, end.unwrap_or(u64::MAX)))
    }
}

/// The mark of what was told or done.
const ALLOWED: &str = "allowed over HTTP";

/// What is to be answered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Right {
    Told,
    Denied,
    Unknown,
}

/// A request, and what it needs.
struct JudgedRequest {
    request: Request,
    wanted: NeededRight,
    /// Of a write: the value that nothing else sets.
    value: Option<String>,
    is_local: bool,
}

fn draw(rng: &mut SmallRng, number: usize, count: u64) -> JudgedRequest {
    let key = pick(rng, &KEYS);
    let path = key.replace('/', "%2F");
    let bytes = Bytes::from_static(key.as_bytes());
    let value = format!("r{number}.{count}");
    let put = Put { key: bytes.clone(), value: Bytes::from(value.clone()), lease: LeaseId::NONE };
    let is_local = rng.random_bool(0.3);
    let level = if is_local { "local" } else { "linearizable" };
    let (request, wanted, is_write) = match rng.random_range(0..9) {
        0..3 => {
            let request = Request { method: "PUT", ..Request::post(format!("/v1/kv/{path}"), value.clone()) };
            (request, NeededRight::Command(Op::Put(put)), true)
        }
        3 => {
            let other = pick(rng, &KEYS);
            let range = KeyRange::one(other.as_bytes());
            let body = format!(
                "{{\"then\":[{{\"txn\":{{\"then\":[{{\"get\":{{\"key\":\"{other}\"}}}},{{\"put\":{{\"key\":\"{key}\",\"value\":\"{value}\"}}}}]}}}}]}}"
            );
            let success = vec![TxnOp::Get(RangeQuery::of(range)), TxnOp::Put(put)];
            let inner = TxnOp::Txn(Box::new(Txn { success, ..Txn::default() }));
            let txn = Op::Txn(Box::new(Txn { success: vec![inner], ..Txn::default() }));
            (Request::post("/v1/txn", body), NeededRight::Command(txn), true)
        }
        4 => {
            let request = Request::get(format!("/v1/leases?level={level}"));
            (request, NeededRight::Query(Query::Leases(LeaseId::NONE, 1)), false)
        }
        5 | 6 => {
            let request = Request::get(format!("/v1/kv?prefix=r%2F&level={level}"));
            (request, NeededRight::Query(Query::Range(RangeQuery::of(KeyRange::prefix(PREFIX)))), false)
        }
        _ => {
            let request = Request::get(format!("/v1/kv/{path}?level={level}"));
            (request, NeededRight::Query(Query::Key(bytes)), false)
        }
    };
    JudgedRequest { request, wanted, value: is_write.then_some(value), is_local: is_local && !is_write }
}

/// Starts all of them.
pub(super) fn begin(shared: &Shared) {
    madsim::task::spawn(administrate(shared.clone()));
    for number in 0..CALLERS {
        madsim::task::spawn(call(shared.clone(), number));
    }
    for number in 0..WATCHERS {
        madsim::task::spawn(watch(shared.clone(), number));
    }
}

async fn call(shared: Shared, number: usize) {
    let rng = stream(shared.lock().schedule.seed, Stream::Schedule, FIRST_STREAM + 10 + number as u64);
    let mut client = HttpClient::new(shared.clone(), rng, 2_000 + number);
    let holder = if shared.lock().has_secured_clients() { HOLDERS.get(number) } else { None };
    client.certificate = holder.map(|(number, _)| *number);
    for count in 0.. {
        let pause = client.rng.random_range(0..PAUSE_MICROS / 2);
        sleep_until(now() + pause).await;
        let (slot, shown) = {
            let world = shared.lock();
            if world.calm {
                return;
            }
            let slot = client.rng.random_range(0..world.machines.len());
            (slot, Shown::draw(&mut client.rng, world.checks.ledger.model().rules(usize::MAX)))
        };
        // What stands in the request counts before the certificate.
        let shown = match holder {
            Some((_, name)) if client.rng.random() => Shown::Certificate(name),
            _ => shown,
        };
        let shown = match (holder, shown) {
            (Some((_, name)), Shown::Nothing) => Shown::Certificate(name),
            _ => shown,
        };
        if !shared.lock().is_open(slot) {
            continue;
        }
        let mut asked = draw(&mut client.rng, number, count);
        asked.request.headers.push(shown.header());
        let Some((sent, due, answer)) = client.put_to(slot, &asked.request).await else { continue };
        let mut world = shared.lock();
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => {
                world.served(due, Some(&format!("no answer: {why:?}")));
                continue;
            }
        };
        let passes = matches!(answer.code, 503 | 504 | 507);
        world.served(due, passes.then(|| answer.text()).as_deref());
        if passes || world.violation.is_some() {
            continue;
        }
        match judge(&world, &asked, shown, &sent, &answer) {
            Ok(mark) => {
                if matches!(shown, Shown::Certificate(_)) && mark == ALLOWED {
                    world.mark("allowed by a certificate");
                }
                world.mark(mark);
            }
            Err(what) => {
                let (method, target) = (asked.request.method, &asked.request.target);
                let (code, text) = (answer.code, answer.text());
                let what = format!(
                    "machine {slot} to {shown:?}, {method} {target}, asked when {} was committed and {} applied: \
                     {code} {text:.300}: {what}",
                    sent.committed, sent.applied
                );
                world.judge(Err(Violation { check: "a right decides", what }));
            }
        }
    }
}

/// What the rules say of a caller after the entry of an index, by the clock of a machine.
fn right(model: &Model, index: usize, shown: Shown, wanted: &NeededRight, seconds: u64) -> Right {
    let rules = model.rules(index);
    if !rules.enabled {
        return Right::Told;
    }
    match shown.principal(rules) {
        Some((by, end)) if end > seconds => match model.may_see(Some(&by), wanted, index) {
            Ok(()) => Right::Told,
            Err(_) => Right::Denied,
        },
        _ => Right::Unknown,
    }
}

fn judge(
    world: &World,
    asked: &JudgedRequest,
    shown: Shown,
    sent: &AtSending,
    answer: &Answer,
) -> Result<&'static str, String> {
    let model = world.checks.ledger.model();
    let applied = world.had_applied(sent);
    let from = if asked.is_local { applied } else { sent.committed };
    let machine = &world.machines[sent.slot];
    let [then, today] = [sent.at, now()].map(|at| machine.clock.read(at).get() / SECOND);
    let is_ever = |from: usize, right_is: Right| {
        (from..=model.applied()).any(|index| {
            [then, today].into_iter().any(|at| right(model, index, shown, &asked.wanted, at) == right_is)
        })
    };
    match answer.code {
        401 => {
            // What the node has, and what is there when it is judged, may differ.
            let all = applied.min(sent.committed)..=model.applied();
            let who = |index| shown.principal(model.rules(index)).map(|(by, _)| by.subject);
            let since = |index| match shown {
                // Credentials count until they are changed: the user's password is, for a
                // certificate as well.
                Shown::Password(user, _) | Shown::Certificate(user) => {
                    model.rules(index).password_since(user)
                }
                _ => None,
            };
            let first = *all.start();
            let changes = all.clone().any(|index| who(index) != who(first) || since(index) != since(first));
            if changes || is_ever(*all.start(), Right::Unknown) {
                return Ok("caller unknown over HTTP");
            }
            Err("its credentials are good".to_owned())
        }
        // Whoever has guessed wrong has to wait, and so have others from there.
        429 if matches!(shown, Shown::Password(..))
            || matches!(shown, Shown::Token(..)) && is_ever(applied, Right::Unknown) =>
        {
            Ok("caller has to wait over HTTP")
        }
        403 if is_ever(from, Right::Denied) => Ok("denied over HTTP"),
        403 => Err("it has the right".to_owned()),
        _ if answer.code < 500 && answer.code != 429 && is_ever(from, Right::Told) => {
            if let Some(value) = asked.value.as_ref().filter(|_| answer.code == 200) {
                is_done(model, applied.min(sent.committed), shown, value)?;
            }
            Ok(ALLOWED)
        }
        _ => Err("it has no right".to_owned()),
    }
}

/// A write that was answered as done is in the log, as that caller's, and was done. The node that
/// was asked had the rules of an entry `since` then, or later ones.
fn is_done(model: &Model, since: usize, shown: Shown, value: &str) -> Result<(), String> {
    let is_it =
        |kv: &infinitystore::kv::Event| kv.now.as_ref().is_some_and(|kv| kv.value == value.as_bytes());
    let all = infinitystore::kv::ChangesQuery {
        range: KeyRange::prefix(PREFIX),
        from: infinitystore::kv::Revision(1),
        puts: true,
        deletions: false,
        previous: false,
    };
    let mut revisions = (1..=model.now().revision).rev();
    let at = revisions.find(|revision| model.wanted(&all, *revision).iter().any(is_it));
    let Some(at) = at else { return Err(format!("{value} was never set")) };
    let index = model.indices_of(at).0;
    let by = model.author(index).map(|by| by.subject);
    let rules = (since..=index).map(|index| model.rules(index));
    if may_be_of(by, shown, model.rules(index - 1), rules) {
        Ok(())
    } else {
        Err(format!("{value} is {by:?}'s in the log, at {index}"))
    }
}

/// Whether that may be the principal of a write, in the log after the entry with the rules
/// `before`. The node that was asked had some of `rules`.
fn may_be_of<'r>(
    by: Option<Subject>,
    shown: Shown,
    before: &Rules,
    mut rules: impl Iterator<Item = &'r Rules>,
) -> bool {
    match by {
        // A node that finds the cluster open asks for no name. No other write is done without one.
        None => !before.enabled,
        Some(_) => rules.any(|rules| by == shown.principal(rules).map(|(by, _)| by.subject)),
    }
}

/// One that watches the same range as others, with what rights it has.
async fn watch(shared: Shared, number: u64) {
    let mut rng = stream(shared.lock().schedule.seed, Stream::Schedule, FIRST_STREAM + 20 + number);
    let wanted = NeededRight::Changes(KeyRange::prefix(PREFIX));
    while !shared.lock().calm {
        sleep_until(now() + rng.random_range(0..PAUSE_MICROS)).await;
        let (slot, shown) = {
            let world = shared.lock();
            let slot = rng.random_range(0..world.machines.len());
            (slot, Shown::draw(&mut rng, world.checks.ledger.model().rules(usize::MAX)))
        };
        if !shared.lock().is_open(slot) {
            continue;
        }
        let until = now() + rng.random_range(SECOND..6 * SECOND);
        let mut request = Request::get("/v1/watch?prefix=r%2F");
        request.headers.push(shown.header());
        let Some(mut http) = Http::open(&shared, slot, until).await else { continue };
        let sent = shared.lock().sent(slot, http.life);
        if http.send(&request, until).await.is_err() {
            continue;
        }
        let Ok(answer) = http.receive_stream(until).await else { continue };
        let mut text = answer.text();
        while answer.code == 200 && now() < until && !shared.lock().calm {
            let Ok(Some(piece)) = http.next_piece(until).await else { break };
            text.push_str(&String::from_utf8_lossy(&piece));
            while let Some(end) = text.find("\n\n") {
                let message: String = text.drain(..end + 2).collect();
                let told = message.lines().find_map(|line| line.strip_prefix("id: ")?.parse::<u64>().ok());
                let Some(told) = told.filter(|_| message.contains("\"events\"")) else { continue };
                let mut world = shared.lock();
                let model = world.checks.ledger.model();
                let first = model.indices_of(told).0;
                let may = (first..=model.applied())
                    .any(|index| right(model, index, shown, &wanted, 0) == Right::Told);
                world.mark("watcher told over HTTP");
                if !may {
                    let what = format!("machine {slot} tells {shown:?}, who may not see it: {message:.300}");
                    world.judge(Err(Violation { check: "a right decides", what }));
                }
            }
        }
        drop(http);
        shared.lock().keyspace.watcher_left((slot, sent.life));
    }
}
