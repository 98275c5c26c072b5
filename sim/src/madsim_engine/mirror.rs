//! The mirror. One question has one answer, whichever member is asked, at whichever level, however
//! the question is written, in pages of whatever size, and in whichever life of the process.
//!
//! The questions follow from the keys that the cluster has. Nothing here knows what an answer has
//! to be: it is held against the others.

use crate::madsim_engine::http::{Answer, Http, NoAnswer, PATIENCE_MICROS, Request, ask};
use crate::madsim_engine::laws::same;
use crate::madsim_engine::reflections::{self, Row, may_refuse, patiently};
use crate::madsim_engine::run::Run;
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::Shared;
use crate::schedule::{MILLI, SECOND, Stream, stream};
use infinitystore::codec::{to_base64, to_base64_url};
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// Its stream of the seed.
const STREAM: u64 = 8_000;
/// Keys that are asked for one by one, at most.
const KEYS_MAX: usize = 6;
/// A key that is longer than this is asked for with `POST` alone.
const URL_KEY_BYTES_MAX: usize = 10_000;
/// Questions on their way on one connection.
const WINDOW: usize = 12;
/// How often all is asked again, since something has changed meanwhile.
const ROUNDS_MAX: usize = 5;
/// What was said of an alarm is on the disk after this time.
const NOTED_MICROS: u64 = 3 * SECOND;
/// A member that has caught up with the others is ready within this.
const READY_MICROS: u64 = 5 * SECOND;
/// Of the node that answers, or of the time.
const NODE_HEADERS: [&str; 3] = ["infinitystore-served-by", "infinitystore-term", "infinitystore-age-ms"];
/// What a lease and a member say of the time, and of who leads.
const PASSING: [&str; 10] = [
    "left",
    "told_by",
    "leader",
    "health",
    "role",
    "match_index",
    "lag",
    "replication",
    "silent_seconds",
    "committed",
];
/// What survives a restart of a node in peace, of what `/v1/status` says.
const LASTING: [&str; 25] = [
    "version",
    "cluster",
    "name",
    "id",
    "store",
    "revision",
    "keys",
    "store_bytes",
    "compacted",
    "history_bytes",
    "answers_bytes",
    "leases",
    "state_hash",
    "feature_level",
    "speaks",
    "configuration",
    "joint",
    "disk_full",
    "removed",
    "joining",
    "stopped",
    "withdrawn",
    "/disk/alarms",
    "/http/connections_max",
    "/http/memory_bytes_max",
];
/// And of each member.
const LASTING_OF_MEMBERS: [&str; 6] = ["id", "name", "raft_addr", "http_addr", "store", "standing"];

/// A question, in all the ways in which it may be written.
#[derive(Debug)]
pub(super) struct Question {
    forms: Vec<Request>,
    has_level: bool,
    /// Each node has an answer of its own.
    is_of_node: bool,
    /// Fields that change with time are passed over.
    is_passing: bool,
}

/// What is left of an answer without what is the node's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    code: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// The questions of a run, and what was answered: by the question, and for those of a node by the
/// member.
struct Mirror {
    questions: Vec<Question>,
    said: BTreeMap<(usize, usize), (String, Said)>,
}

impl Run {
    /// Asks all members everything, restarts one of them, and asks that one again.
    pub(super) async fn examine_mirror(&self, members: &[usize]) -> Result<(), String> {
        let seed = self.shared.lock().schedule.seed;
        let mut rng = stream(seed, Stream::Schedule, STREAM);
        self.leave_something(members, &mut rng).await?;
        let slot = members[rng.random_range(0..members.len())];
        self.see_alarms(slot).await?;
        let mut mirror = Mirror { questions: Vec::new(), said: BTreeMap::new() };
        let state = mirror.begin(&self.shared, members, &mut rng).await?;
        self.shared.lock().mark("mirror asked");
        let before = status(&self.shared, slot).await?;
        self.shared.lock().stop_in_peace(slot);
        self.wait("a node that was told to stop ends", || {
            self.shared.lock().machines[slot].stopping.is_none()
        })
        .await?;
        self.wait_until_well().await?;
        let after = status(&self.shared, slot).await?;
        let what = |what| format!("machine {slot} was restarted: {what}");
        lasts(&before, &after).map_err(what)?;
        if self.state() == state {
            mirror.look(&self.shared, &[slot], 1).await.map_err(what)?;
        }
        if self.state() == state {
            self.shared.lock().mark("mirror asked after a restart");
        }
        Ok(())
    }

    /// Keys and a lease that last.
    async fn leave_something(&self, members: &[usize], rng: &mut SmallRng) -> Result<(), String> {
        let slot = members[rng.random_range(0..members.len())];
        let put =
            |target: &str, value: &str| Request { method: "PUT", ..Request::post(target.to_owned(), value) };
        let granted = patiently(&self.shared, slot, &Request::post("/v1/leases", "{\"ttl\":3600}")).await?;
        same("a lease is granted", &granted.code, &200)?;
        let granted: Value = serde_json::from_slice(&granted.body).map_err(|error| error.to_string())?;
        let lease = &granted["id"];
        for request in [
            put(&format!("/v1/kv/mirror/a?lease={lease}"), "one"),
            put(&format!("/v1/kv?key=mirror%2F+%25%3F%2F..%2F%2F&lease={lease}"), ""),
            put("/v1/kv?key64=bWlycm9yL_8A", "of a key that is no text"),
            put("/v1/kv/mirror/a%2Fb", "first"),
            put("/v1/kv/mirror/a%2Fb", "second"),
            put("/v1/kv/mirror/gone", "soon"),
            Request { method: "DELETE", ..Request::get("/v1/kv/mirror/gone") },
        ] {
            let answer = patiently(&self.shared, slot, &request).await?;
            same(&request.target, &answer.code, &200)?;
        }
        self.wait_until_well().await
    }

    /// Says of all alarms of a node that they were seen.
    async fn see_alarms(&self, slot: usize) -> Result<(), String> {
        let told = patiently(&self.shared, slot, &Request::get("/v1/alarms")).await?;
        let told: Value = serde_json::from_slice(&told.body).map_err(|error| error.to_string())?;
        let ids = told["alarms"].as_array().into_iter().flatten().filter_map(|alarm| alarm["id"].as_u64());
        let ids: Vec<u64> = ids.collect();
        for id in &ids {
            let seen = Request { method: "DELETE", ..Request::get(format!("/v1/alarms/{id}")) };
            same("an alarm is seen", &patiently(&self.shared, slot, &seen).await?.code, &200)?;
        }
        if !ids.is_empty() {
            self.shared.lock().mark("alarm seen before a restart");
            sleep_until(now() + NOTED_MICROS).await;
        }
        Ok(())
    }

    fn state(&self) -> u128 {
        self.shared.lock().checks.ledger.model().now().hash
    }
}

impl Mirror {
    /// Makes questions of what there is, and asks all members: the state that they were asked in.
    async fn begin(
        &mut self,
        shared: &Shared,
        members: &[usize],
        rng: &mut SmallRng,
    ) -> Result<u128, String> {
        let state = || shared.lock().checks.ledger.model().now().hash;
        for _ in 0..ROUNDS_MAX {
            let before = state();
            let result = self.ask_all(shared, members, rng).await;
            // A lease may have ended meanwhile.
            if state() == before {
                return result.map(|()| before);
            }
        }
        Ok(0)
    }

    async fn ask_all(
        &mut self,
        shared: &Shared,
        members: &[usize],
        rng: &mut SmallRng,
    ) -> Result<(), String> {
        let first = members[0];
        let told = status(shared, first).await?;
        let number = |field: &str| told[field].as_u64().ok_or_else(|| format!("{field} is no number"));
        let (compacted, revision) = (number("compacted")?, number("revision")?);
        let whole = reflections::scan(shared, members, json!({}), None).await?;
        same("keys of the status and of the range", &(whole.rows.len() as u64), &number("keys")?)?;
        let leases = patiently(shared, first, &Request::get("/v1/leases")).await?;
        let leases: Value = serde_json::from_slice(&leases.body).map_err(|error| error.to_string())?;
        let ids = leases["leases"].as_array().into_iter().flatten().filter_map(|lease| lease["id"].as_u64());
        let mut past = vec![compacted.max(1), u64::midpoint(compacted, revision), revision - 1];
        past.retain(|at| (compacted.max(1)..revision).contains(at));
        past.dedup();
        self.questions = questions(rng, &whole.rows, &past, &ids.take(3).collect::<Vec<_>>());
        self.said.clear();
        self.look(shared, members, 0).await?;
        reflections::pages_agree(shared, members, &whole, rng).await?;
        reflections::changes_lead_here(shared, members, (compacted, revision), &past, &whole).await
    }

    /// Asks these members. Each form of a question is asked at one of the levels.
    async fn look(&mut self, shared: &Shared, slots: &[usize], round: usize) -> Result<(), String> {
        let mut tasks = Vec::new();
        for (position, &slot) in slots.iter().enumerate() {
            let mut requests = Vec::new();
            for (number, question) in self.questions.iter().enumerate() {
                for (form, request) in question.forms.iter().enumerate() {
                    let mut request = request.clone();
                    if question.has_level {
                        set_level(&mut request, number + form + position + round);
                    }
                    let is_headed = form == 0 && request.method == "GET";
                    requests.push((number, request.clone()));
                    if is_headed {
                        requests.push((number, Request { method: "HEAD", ..request }));
                    }
                }
            }
            let (shared, asked) = (shared.clone(), requests.iter().map(|(_, it)| it.clone()).collect());
            let answers = madsim::task::spawn(async move { ask_in_turn(&shared, slot, asked).await });
            tasks.push((slot, requests, answers));
        }
        for (slot, requests, answers) in tasks {
            let answers = answers.await.map_err(|error| error.to_string())??;
            let mut before: Option<&Answer> = None;
            for ((number, request), answer) in requests.iter().zip(&answers) {
                let told = format!("machine {slot}, {} {:.200}", request.method, request.target);
                match (request.method, before) {
                    ("HEAD", Some(get)) => {
                        is_head_of(answer, get).map_err(|what| format!("{told}: {what}"))?
                    }
                    _ => self.compare(*number, slot, told, answer)?,
                }
                before = Some(answer);
            }
        }
        Ok(())
    }

    fn compare(&mut self, number: usize, slot: usize, told: String, answer: &Answer) -> Result<(), String> {
        let question = &self.questions[number];
        let said = Said::of(answer, question.is_passing);
        let whose = if question.is_of_node { slot + 1 } else { 0 };
        let Some((first, right)) = self.said.get(&(number, whose)) else {
            self.said.insert((number, whose), (told, said));
            return Ok(());
        };
        said.is_as(right).map_err(|what| format!("{told}, and {first} before it: {what}"))
    }
}

impl Said {
    pub(super) fn of(answer: &Answer, is_passing: bool) -> Self {
        let is_own = |name: &str| NODE_HEADERS.contains(&name) || name == "date";
        let mut headers: Vec<_> = answer.headers.iter().filter(|(name, _)| !is_own(name)).cloned().collect();
        let mut body = answer.body.to_vec();
        if is_passing && let Ok(mut told) = serde_json::from_slice::<Value>(&body) {
            without(&mut told, &PASSING);
            body = told.to_string().into_bytes();
            headers.retain(|(name, _)| name != "content-length");
        }
        headers.sort();
        Self { code: answer.code, headers, body }
    }

    pub(super) fn is_as(&self, right: &Self) -> Result<(), String> {
        same("the code", &self.code, &right.code)?;
        same("the headers", &self.headers, &right.headers)?;
        if self.body == right.body {
            return Ok(());
        }
        let from = self.body.iter().zip(&right.body).take_while(|(one, other)| one == other).count();
        let part = |body: &[u8]| {
            String::from_utf8_lossy(&body[from.saturating_sub(60)..]).chars().take(160).collect::<String>()
        };
        Err(format!("the body from {from} on: …{:?}, not …{:?}", part(&self.body), part(&right.body)))
    }
}

/// An answer to `HEAD` is that to `GET`, without its body.
pub(super) fn is_head_of(head: &Answer, get: &Answer) -> Result<(), String> {
    let of = |answer: &Answer| {
        let mut headers = answer.headers.clone();
        headers.retain(|(name, _)| name != "infinitystore-age-ms" && name != "date");
        headers.sort();
        headers
    };
    same("the code of HEAD", &head.code, &get.code)?;
    same("the headers of HEAD", &of(head), &of(get))?;
    same("the bytes that follow HEAD", &head.body.len(), &0)
}

/// What a restart leaves as it was.
pub(super) fn lasts(before: &Value, after: &Value) -> Result<(), String> {
    let at = |status: &Value, field: &str| {
        let path = if field.starts_with('/') { field.to_owned() } else { format!("/{field}") };
        status.pointer(&path).cloned()
    };
    for field in LASTING {
        same(field, &at(after, field), &at(before, field))?;
    }
    let members = |status: &Value| -> Vec<Vec<Value>> {
        let all = status["members"].as_array().into_iter().flatten();
        all.map(|member| LASTING_OF_MEMBERS.iter().map(|field| member[*field].clone()).collect()).collect()
    };
    same("the members", &members(after), &members(before))?;
    for path in ["/term", "/commit_index", "/applied_index", "/last_log/index", "/snapshot/index"] {
        let number = |status| at(status, path).and_then(|value| value.as_u64());
        if number(after) < number(before) {
            return Err(format!("{path} was {:?}, and is {:?}", number(before), number(after)));
        }
    }
    Ok(())
}

fn without(value: &mut Value, fields: &[&str]) {
    match value {
        Value::Object(map) => {
            map.retain(|name, _| !fields.contains(&name.as_str()));
            map.values_mut().for_each(|value| without(value, fields));
        }
        Value::Array(all) => all.iter_mut().for_each(|value| without(value, fields)),
        _ => {}
    }
}

/// The questions about these keys, past revisions and leases, and about all the rest.
fn questions(rng: &mut SmallRng, rows: &[Row], past: &[u64], leases: &[u64]) -> Vec<Question> {
    let mut keys: Vec<Vec<u8>> = rows.iter().map(|row| row.key.clone()).collect();
    while keys.len() > KEYS_MAX {
        keys.remove(rng.random_range(0..keys.len()));
    }
    keys.extend([b"mirror/gone".to_vec(), b"nobody's".to_vec()]);
    let question =
        |forms: Vec<Request>| Question { forms, has_level: true, is_of_node: false, is_passing: false };
    let mut all = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let at = past.get(number % (past.len() + 1)).copied();
        all.push(question(forms_of_key(key, None)));
        if at.is_some() {
            all.push(question(forms_of_key(key, at)));
        }
        let accepts = |mut form: Request| {
            form.headers.push(("accept", b"application/json".to_vec()));
            form
        };
        all.push(question(forms_of_key(key, None).into_iter().take(2).map(accepts).collect()));
    }
    let start = keys[rng.random_range(0..keys.len())].clone();
    let short = start[..start.len().min(rng.random_range(1..4))].to_vec();
    for prefix in [Vec::new(), short, b"mirror/".to_vec()] {
        all.extend(
            [&[][..], &[("keys_only", json!(true))], &[("count_only", json!(true))]]
                .map(|wanted| question(forms_of_range(&prefix, wanted))),
        );
        all.push(question(forms_of_range(&prefix, &[("delimiter", json!("/")), ("limit", json!(50))])));
        for at in past {
            all.push(question(forms_of_range(&prefix, &[("at", json!(at))])));
        }
    }
    for target in ["/v1/leases", "/v1/leases?limit=1", "/v1/settings", "/v1/locks/none", "/v1/elections/none"]
    {
        all.push(question(vec![Request::get(target)]));
    }
    for id in leases {
        let forms = vec![Request::get(format!("/v1/leases/{id}"))];
        all.push(Question { has_level: false, is_passing: true, ..question(forms) });
    }
    let members = vec![Request::get("/v1/members")];
    all.push(Question { has_level: false, is_passing: true, ..question(members) });
    for target in ["/v1/auth/status", "/v1/auth/users", "/v1/auth/roles", "/v1/auth/tokens"] {
        all.push(Question { has_level: false, ..question(vec![Request::get(target)]) });
    }
    for target in ["/openapi.json", "/", "/livez", "/readyz", "/readyz?verbose", "/v1/nothing"] {
        all.push(Question { has_level: false, ..question(vec![Request::get(target)]) });
    }
    let alarms = vec![Request::get("/v1/alarms")];
    all.push(Question { has_level: false, is_of_node: true, ..question(alarms) });
    all
}

/// One key, in the path and in the query, and in JSON.
fn forms_of_key(key: &[u8], at: Option<u64>) -> Vec<Request> {
    let mut body = json!({ "key64": to_base64(key) });
    let mut forms = Vec::new();
    if key.len() <= URL_KEY_BYTES_MAX {
        forms.extend([
            Request::get(format!("/v1/kv/{}", percent(key))),
            Request::get(format!("/v1/kv?key={}", percent(key))),
            Request::get(format!("/v1/kv?key64={}", to_base64_url(key))),
        ]);
        if let Some(at) = at {
            forms.iter_mut().for_each(|form| add(form, &format!("at={at}")));
        }
    }
    if let Some(at) = at {
        body["at"] = json!(at);
    }
    forms.push(Request::post("/v1/range", body.to_string()));
    forms
}

/// A range, as a prefix and by its bounds, in the query and in JSON.
fn forms_of_range(prefix: &[u8], wanted: &[(&str, Value)]) -> Vec<Request> {
    let mut end = prefix.to_vec();
    while end.last() == Some(&u8::MAX) {
        end.pop();
    }
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let mut forms = vec![
        Request::get(format!("/v1/kv?prefix={}", percent(prefix))),
        Request::get(format!("/v1/kv?prefix64={}", to_base64_url(prefix))),
    ];
    if !prefix.is_empty() && !end.is_empty() {
        forms.push(Request::get(format!("/v1/kv?start={}&end64={}", percent(prefix), to_base64_url(&end))));
    }
    let mut body = json!({ "prefix64": to_base64(prefix) });
    for (name, value) in wanted {
        let text = value.as_str().map_or_else(|| value.to_string(), |text| percent(text.as_bytes()));
        forms.iter_mut().for_each(|form| add(form, &format!("{name}={text}")));
        body[*name] = value.clone();
    }
    forms.push(Request::post("/v1/range", body.to_string()));
    forms
}

/// Asks at one of the levels: at rest they are one.
fn set_level(request: &mut Request, number: usize) {
    let (name, value) =
        [("level", "local"), ("level", "linearizable"), ("max_staleness", "1h"), ("", "")][number % 4];
    if name.is_empty() {
        return;
    }
    let Some(body) = &request.body else { return add(request, &format!("{name}={value}")) };
    let mut told: Value = serde_json::from_slice(body).expect("it was made here");
    told[name] = json!(value);
    request.body = Some(told.to_string().into_bytes());
}

fn add(request: &mut Request, parameter: &str) {
    let sign = if request.target.contains('?') { '&' } else { '?' };
    request.target = format!("{}{sign}{parameter}", request.target);
}

fn percent(bytes: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let written =
        |byte: &u8| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") };
    bytes.iter().map(written).collect()
}

/// What a member says of itself, once it is ready: until it has applied what it had when it ended,
/// it says no more than that it lives, and until it has heard from a leader, it cannot prove how
/// old its state is.
async fn status(shared: &Shared, slot: usize) -> Result<Value, String> {
    let give_up = now() + READY_MICROS;
    loop {
        let ready = ask(shared, slot, &Request::get("/readyz")).await?;
        let answer = ask(shared, slot, &Request::get("/v1/status")).await?;
        let told: Value = serde_json::from_slice(&answer.body)
            .map_err(|error| format!("/v1/status of machine {slot} is no JSON: {error}"))?;
        let aged = ask(shared, slot, &Request::get("/v1/settings?max_staleness=1h")).await?;
        if ready.code == 200 && told["version"].is_string() && aged.code == 200 {
            return Ok(told);
        }
        if now() >= give_up {
            return Err(format!("machine {slot} says {:?}, and {told}", ready.text()));
        }
        sleep_until(now() + 50 * MILLI).await;
    }
}

/// Asks all of it on one connection.
async fn ask_in_turn(shared: &Shared, slot: usize, requests: Vec<Request>) -> Result<Vec<Answer>, String> {
    let connection = Http::open(shared, slot, now() + PATIENCE_MICROS).await;
    let mut connection = connection.ok_or_else(|| format!("machine {slot} takes no connection"))?;
    let (mut answers, mut sent) = (Vec::new(), 0);
    for request in &requests {
        let why = |why: NoAnswer| {
            format!("machine {slot} does not answer {} {:.200}: {why:?}", request.method, request.target)
        };
        let give_up = now() + PATIENCE_MICROS;
        while sent < requests.len() && sent < answers.len() + WINDOW {
            connection.send(&requests[sent], give_up).await.map_err(why)?;
            sent += 1;
        }
        answers.push(connection.receive(give_up).await.map_err(why)?);
    }
    drop(connection);
    if may_refuse(shared) {
        for (request, answer) in requests.iter().zip(&mut answers) {
            if answer.code == 503 {
                *answer = patiently(shared, slot, request).await?;
            }
        }
    }
    Ok(answers)
}
