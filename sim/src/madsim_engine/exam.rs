//! The exam at the end. The cluster has recovered, and nothing is lost on the way any more. Every
//! member has to do everything that it is documented to do, at the first time of asking.

use crate::madsim_engine::door::examine_door;
use crate::madsim_engine::http::{Answer, Http, PATIENCE_MICROS, Request, ask};
use crate::madsim_engine::laws::{self, Told, exactly, same};
use crate::madsim_engine::probe::Prober;
use crate::madsim_engine::rest::examine_rest;
use crate::madsim_engine::run::Run;
use crate::madsim_engine::time::now;
use crate::madsim_engine::world::Shared;
use crate::record::violation::Violation;
use infinitystore::kv::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use serde_json::Value;

/// Connections that one client opens and leaves open.
const CONNECTIONS: usize = 6;

/// Bytes of a URL, at most.
const URL_BYTES_MAX: usize = 65_534;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const PROBLEM: &str = "application/problem+json";

impl Run {
    /// Examines every member.
    pub(super) async fn examine(&self) {
        let members = self.members();
        let mut prober = Prober::new(self.shared.clone(), 100);
        for (position, &slot) in members.iter().enumerate() {
            let other = members[(position + 1) % members.len()];
            let result = match prober.examine(slot, other).await {
                Ok(()) => self.examine_one(slot, position).await,
                Err(what) => Err(what),
            };
            if let Err(what) = result {
                self.shared.lock().judge(Err(Violation { check: "a sound node serves", what }));
            }
            if self.shared.lock().violation.is_some() {
                return;
            }
        }
        if let Err(what) = examine_rest(&self.shared, &members).await {
            return self.shared.lock().judge(Err(Violation { check: "a cluster at rest agrees", what }));
        }
        self.examine_operations(&members).await;
        if self.shared.lock().violation.is_some() {
            return;
        }
        // What has come and gone meanwhile has left nothing behind.
        let members = self.members();
        if let Err(what) = examine_rest(&self.shared, &members).await {
            return self.shared.lock().judge(Err(Violation { check: "a cluster at rest agrees", what }));
        }
        if let Err(what) = self.examine_mirror(&members).await {
            self.shared.lock().judge(Err(Violation { check: "one question has one answer", what }));
        }
    }

    async fn examine_one(&self, slot: usize, position: usize) -> Result<(), String> {
        examine_manners(&self.shared, slot).await?;
        let (seed, settings) = {
            let world = self.shared.lock();
            (world.schedule.seed, world.schedule.settings.clone())
        };
        // In some runs, and not where one such write is more than what may wait, or takes long to
        // be sent.
        let is_apt = settings.uncommitted_bytes_max == 0 && 50 * settings.snapshot_chunk_bytes > 70_000;
        let impatient = self.shared.lock().limits.impatient;
        // Its clients do not speak TLS.
        let impatient = impatient && !self.shared.lock().has_secured_clients();
        if impatient && position == 0 && self.shared.lock().is_quick() {
            examine_door(&self.shared, slot).await?;
        }
        if seed % 4 == 1 && position == 0 && is_apt && self.shared.lock().is_quick() {
            return examine_limits(&self.shared, slot).await;
        }
        Ok(())
    }

    /// The machines of the members.
    pub(super) fn members(&self) -> Vec<usize> {
        let world = self.shared.lock();
        let Some(committed) = &world.attendance.membership else { return Vec::new() };
        let is_member =
            |slot: &usize| world.machines[*slot].member.is_some_and(|id| committed.members.contains_key(&id));
        (0..world.machines.len()).filter(is_member).collect()
    }
}

/// A key and a value of exactly the documented length, and of one more.
async fn examine_limits(shared: &Shared, slot: usize) -> Result<(), String> {
    shared.lock().mark("keys and values at their limits");
    let asks = ["/get?key=", "/get?level=local&key="];
    // A longer key can be set, and not be asked for: the URL has a limit of its own.
    let urls = asks.iter().flat_map(|ask| [URL_BYTES_MAX - ask.len(), URL_BYTES_MAX - ask.len() + 1]);
    for bytes in urls.chain([KEY_BYTES_MAX, KEY_BYTES_MAX + 1]) {
        let (key, fits) = ("k".repeat(bytes), bytes <= KEY_BYTES_MAX);
        let set = Request::post("/set", format!("{{\"key\":\"{key}\",\"value\":\"v\",\"action\":\"set\"}}"));
        let delete = Request::post("/set", format!("{{\"key\":\"{key}\",\"action\":\"delete\"}}"));
        let code = if fits { 200 } else { 413 };
        same("a key of about the limit is set", &ask(shared, slot, &set).await?.code, &code)?;
        for start in asks {
            let target = format!("{start}{key}");
            let told = format!("a key of {bytes} bytes is asked for by {start}");
            let short = target.len() <= URL_BYTES_MAX;
            let answer = ask(shared, slot, &Request::get(target)).await?;
            if short {
                let value = laws::get(&key, &answer).map_err(|what| format!("{told}: {what:.200}"))?;
                same(&told, &value, &Told::Value(Some("v".to_owned())))?;
            } else {
                same(&told, &answer.code, &414)?;
            }
        }
        same("it is deleted", &ask(shared, slot, &delete).await?.code, &code)?;
    }
    let value = "v".repeat(VALUE_BYTES_MAX + 1);
    let set = Request::post("/set", format!("{{\"key\":\"a\",\"value\":\"{value}\",\"action\":\"set\"}}"));
    same("a value that is too long", &ask(shared, slot, &set).await?.code, &413)
}

/// Requests that make no sense, and those that ask for nothing: each has its answer.
async fn examine_manners(shared: &Shared, slot: usize) -> Result<(), String> {
    let give_up = now() + PATIENCE_MICROS;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let connection = Http::open(shared, slot, give_up).await;
        connections.push(connection.ok_or_else(|| format!("machine {slot} takes no connection"))?);
    }
    for (position, (request, code, content, body)) in manners().into_iter().enumerate() {
        let connection = &mut connections[position % CONNECTIONS];
        let told = format!("machine {slot}, {} {:.60}", request.method, request.target);
        let answer = connection.ask(&request, give_up).await;
        let answer = answer.map_err(|why| format!("{told}: no answer: {why:?}"))?;
        let result = match content {
            PROBLEM => is_problem(&answer, code, body),
            _ => exactly(&answer, code, content, if request.method == "HEAD" { "" } else { body }),
        };
        result.map_err(|what| format!("{told}: {what}"))?;
        let allowed = match (code, request.route()) {
            (405, "/set" | "/join") => Some("POST"),
            (405, _) => Some("GET, HEAD"),
            _ => None,
        };
        same("allow", &answer.header("allow"), &allowed).map_err(|what| format!("{told}: {what}"))?;
        let has_reason = answer.header("infinitystore-reason").is_some_and(|reason| !reason.is_empty());
        let needs_reason = code == 400 && body == "\"Invalid Body\"\n";
        same("a reason", &has_reason, &needs_reason).map_err(|what| format!("{told}: {what}"))?;
        if answer.header("connection") == Some("close") {
            return Err(format!("{told}: the connection is closed"));
        }
    }
    Ok(())
}

/// An answer says what went wrong in the manner of the routes under `/v1`, with this code for
/// programs.
fn is_problem(answer: &Answer, status: u16, code: &str) -> Result<(), String> {
    same("the code", &answer.code, &status)?;
    same("the content type", &answer.header("content-type"), &Some(PROBLEM))?;
    let told: Value =
        serde_json::from_slice(&answer.body).map_err(|error| format!("a problem is no JSON: {error}"))?;
    same("its status", &told["status"].as_u64(), &Some(u64::from(status)))?;
    same("its code", &told["code"].as_str(), &Some(code))?;
    same("a detail", &told["detail"].as_str().is_some_and(|detail| !detail.is_empty()), &true)
}

type Manners = (Request, u16, &'static str, &'static str);

/// Requests, and what docs/http-api.md has for them.
fn manners() -> Vec<Manners> {
    let with = |method: &'static str, target: &str| Request { method, ..Request::get(target) };
    let set = |body: &str| Request::post("/set", body);
    let mut all = vec![
        (Request::get("/livez"), 200, TEXT, "ok\n"),
        (with("HEAD", "/livez"), 200, TEXT, "ok\n"),
        (Request::get("/get"), 400, JSON, "\"Missing Key\"\n"),
        (Request::get("/get?key="), 400, JSON, "\"Missing Key\"\n"),
        (Request::get("/get?Key=a"), 400, JSON, "\"Missing Key\"\n"),
        (Request::get("/get?key=%ff"), 400, JSON, "\"key is not UTF-8\"\n"),
        (Request::get("/get?key=%4"), 400, JSON, "\"key is not percent-encoded correctly\"\n"),
        (Request::get("/get?key=a&level=strong"), 400, JSON, "\"level is neither linearizable nor local\"\n"),
        (Request::get("/get?key=nobody+ever+set+this"), 404, JSON, "\"Key does not exist\"\n"),
        (with("HEAD", "/get?key=nobody+ever+set+this"), 404, JSON, "\"Key does not exist\"\n"),
        (Request::get("/get?key=nor+this&level=local"), 404, JSON, "\"Key does not exist\"\n"),
        (set("{\"key\":\"nobody ever set this\",\"action\":\"delete\"}"), 200, JSON, "\"Set Successfull\"\n"),
    ];
    for body in [
        "",
        "null",
        "[\"a\",\"b\",\"set\"]",
        "{\"key\":\"a\",\"value\":\"b\"}",
        "{\"key\":\"a\",\"value\":\"b\",\"action\":\"add\"}",
        "{\"key\":\"\",\"value\":\"b\",\"action\":\"set\"}",
        "{\"key\":\"a\",\"action\":\"set\"}",
        "{\"value\":\"a\",\"action\":\"set\"}",
        "{\"key\":1,\"value\":\"b\",\"action\":\"set\"}",
        "{\"key\":\"a\",\"value\":2,\"action\":\"set\"}",
        "{\"key\":\"a\",\"key\":\"b\",\"value\":\"b\",\"action\":\"set\"}",
        "{\"key\":\"a\",\"value\":\"b\",\"action\":\"set\"",
        "{\"key\":\"a\",\"value\":\"b\",\"action\":\"set\"}}",
    ] {
        all.push((set(body), 400, JSON, "\"Invalid Body\"\n"));
    }
    let large = format!("{{\"key\":\"{}\",\"value\":\"b\",\"action\":\"set\"}}", "k".repeat(65_537));
    all.push((set(&large), 413, JSON, "\"the key is larger than 65536 bytes\"\n"));
    for target in ["/nowhere", "/set/", "//", "/get/key", "/SET"] {
        all.push((Request::get(target), 404, JSON, "\"Not Found\"\n"));
    }
    all.push((Request::get("/v1/"), 404, PROBLEM, "no-such-route"));
    for (method, target) in [
        ("GET", "/set"),
        ("PUT", "/set"),
        ("DELETE", "/get?key=a"),
        ("POST", "/get?key=a"),
        ("GET", "/join?nodeid=a&nodeaddr=b:1"),
        ("PUT", "/metrics"),
        ("OPTIONS", "/readyz"),
        ("POST", "/livez"),
        ("POST", "/"),
    ] {
        all.push((with(method, target), 405, JSON, "\"Method Not Allowed\"\n"));
    }
    all.push((with("POST", "/v1/status"), 405, PROBLEM, "method-not-allowed"));
    all
}
