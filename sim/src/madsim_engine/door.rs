//! A part of the exam: clients without manners. They say nothing, or half of what they began, or
//! too much; they come from a page of another origin; they announce more than there is memory for;
//! they are too many, and hang up before they are told so. Each is dealt with as it is documented,
//! in its time, and nothing of it is left behind.

use crate::madsim_engine::certificates::of_stranger;
use crate::madsim_engine::http::{Answer, Http, NoAnswer, Request, ask, within};
use crate::madsim_engine::laws::{self, Told, exactly, same};
use crate::madsim_engine::listening::connect;
use crate::madsim_engine::pipes::WINDOW_BYTES;
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::Shared;
use crate::schedule::{MILLI, SECOND};
use infinitystore::api::HttpOptions;
use infinitystore::peer::TransportOptions;
use infinitystore::tls::Callee;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What takes longer never happens.
const PATIENCE_MICROS: u64 = 60 * SECOND;
/// The server counts in seconds, and looks once a second: a time-out is over after two more.
const TICKS: u64 = 2;
/// What is answered at once takes no longer.
const AT_ONCE_MICROS: u64 = SECOND;
/// So many hang up before they are told that they are too many.
const HANG_UPS: usize = 6;
/// So often a crowd is tried.
const CROWDS: usize = 5;
/// What a request costs of the memory beside twice its length.
const OVERHEAD_BYTES: usize = 4 << 10;
/// Heads of requests, this one included.
const HEADS_BYTES: usize = 128 << 10;
/// What a connection holds at most that it has read and nobody has taken.
const READ_BYTES: usize = 64 << 10;

/// More bytes than a connection holds while its far end does not read.
const SLOW_BYTES: usize = 600_000;

/// What a node has handed to a connection beside what that holds, at most.
const SENT_BYTES: usize = 128 << 10;

const JSON: &str = "application/json";

/// Looks at one machine's doors.
pub(super) async fn examine_door(shared: &Shared, slot: usize) -> Result<(), String> {
    let (options, few) = {
        let world = shared.lock();
        (world.limits.http(), world.limits.connections.is_some())
    };
    shared.lock().mark("exam of the door");
    examine_silence(shared, slot, &options).await?;
    examine_excess(shared, slot, &options).await?;
    examine_origins(shared, slot).await?;
    if few {
        examine_crowd(shared, slot, &options).await?;
    } else {
        // Twice: what was given back can be taken again.
        examine_memory(shared, slot, &options).await?;
        examine_memory(shared, slot, &options).await?;
    }
    let settings = shared.lock().schedule.settings.clone();
    // Where a large value is neither more than may wait nor long on its way into a snapshot.
    if settings.uncommitted_bytes_max == 0 && 50 * settings.snapshot_chunk_bytes > SLOW_BYTES as u64 {
        examine_slow_reader(shared, slot, &options).await?;
    }
    examine_strangers(shared, slot).await
}

/// A node gives up a client that does not take its answer, but not before the client had the time
/// that the answer's length takes.
async fn examine_slow_reader(shared: &Shared, slot: usize, options: &HttpOptions) -> Result<(), String> {
    let give_up = now() + 2 * PATIENCE_MICROS;
    let value = "v".repeat(SLOW_BYTES);
    let set = Request::post("/set", format!("{{\"key\":\"slow\",\"value\":\"{value}\",\"action\":\"set\"}}"));
    let delete = Request::post("/set", "{\"key\":\"slow\",\"action\":\"delete\"}");
    let told = laws::set(&ask(shared, slot, &set).await?)?;
    same("a large value is set", &told, &Told::Done)?;
    let (mut quick, mut slow) = (open(shared, slot).await?, open(shared, slot).await?);
    let get = Request::get("/get?key=slow");
    let wrong = |why: NoAnswer| format!("machine {slot}, a large answer: {why:?}");
    // One after the other: where little may wait, the node tells one of two that ask at once to try
    // again later, and has no large answer for it.
    quick.begin(&get, give_up).await.map_err(wrong)?;
    let began = now();
    slow.begin(&get, give_up).await.map_err(wrong)?;
    let seconds = options.write_timeout_seconds + (SLOW_BYTES / options.write_bytes_per_second_min) as u64;
    // Just in time, and far too late.
    sleep_until(now() + SECOND).await;
    let status = ask(shared, slot, &Request::get("/v1/status")).await?;
    let (used, held) = (status_of(&status, "memory_bytes")?, 2 * (SLOW_BYTES - WINDOW_BYTES - SENT_BYTES));
    if used < held {
        return Err(format!("machine {slot} holds {held} bytes of answers that wait, and counts {used}"));
    }
    sleep_until(began + seconds * SECOND * 9 / 10 - SECOND).await;
    let answer = quick.receive(give_up).await.map_err(wrong)?;
    same("a large answer", &laws::get("slow", &answer)?, &Told::Value(Some(value)))?;
    sleep_until(now() + (seconds / 5 + TICKS + 3) * SECOND).await;
    if let Ok(Answer { code, body, .. }) = slow.receive(give_up).await {
        let came = format!("{code} and {} bytes came", body.len());
        return Err(format!("machine {slot} waits for a client that does not take its answer: {came}"));
    }
    same("it is deleted", &laws::set(&ask(shared, slot, &delete).await?)?, &Told::Done)
}

async fn open(shared: &Shared, slot: usize) -> Result<Http, String> {
    let connection = Http::open(shared, slot, now() + PATIENCE_MICROS).await;
    connection.ok_or_else(|| format!("machine {slot} takes no connection"))
}

/// Checks that it took about `seconds`, at most `TICKS` more: neither less nor longer. The clock
/// that timed it may run up to a sixteenth faster or slower.
fn in_time(what: &str, began: u64, seconds: u64) -> Result<(), String> {
    let (took, least, most) = (now() - began, seconds * SECOND, (seconds + TICKS) * SECOND);
    if took >= least - least / 16 && took <= most + most / 16 + AT_ONCE_MICROS {
        Ok(())
    } else {
        Err(format!("{what} is given {seconds} s, and it took {} ms", took / MILLI))
    }
}

/// Connections on which nothing comes, or only the beginning.
async fn examine_silence(shared: &Shared, slot: usize, options: &HttpOptions) -> Result<(), String> {
    let give_up = now() + PATIENCE_MICROS;
    let mut silent = open(shared, slot).await?;
    let mut used = open(shared, slot).await?;
    used.ask(&Request::get("/livez"), give_up).await.map_err(|why| format!("/livez: {why:?}"))?;
    let mut half = open(shared, slot).await?;
    let mut body = open(shared, slot).await?;
    let began = now();
    let wrong = |why: NoAnswer| format!("machine {slot}: {why:?}");
    half.send_bytes("GET", "/livez", b"GET /livez HTTP/1.1\r\nHost: m0", give_up).await.map_err(wrong)?;
    let start = b"POST /set HTTP/1.1\r\nHost: m0\r\ncontent-length: 100\r\n\r\n{\"key\"";
    body.send_bytes("POST", "/set", start, give_up).await.map_err(wrong)?;
    half.closed(give_up).await.map_err(|why| format!("half a head: {why:?}"))?;
    in_time("half a head", began, options.header_timeout_seconds)?;
    let late = body.receive(give_up).await.map_err(|why| format!("half a body: {why:?}"))?;
    exactly(&late, 408, JSON, "\"the body did not arrive in time\"\n")?;
    in_time("half a body", began, options.body_timeout_seconds)?;
    body.closed(give_up).await.map_err(|why| format!("after half a body: {why:?}"))?;
    used.closed(give_up).await.map_err(|why| format!("idle after a request: {why:?}"))?;
    in_time("a connection without another request", began, options.idle_timeout_seconds)?;
    silent.closed(give_up).await.map_err(|why| format!("never used: {why:?}"))?;
    in_time("a connection without a request", began, options.idle_timeout_seconds)
}

/// An answer to exactly these bytes.
async fn answer_to(
    shared: &Shared,
    slot: usize,
    method: &'static str,
    route: &'static str,
    bytes: &[u8],
) -> Result<(Answer, Http), String> {
    let give_up = now() + PATIENCE_MICROS;
    let mut connection = open(shared, slot).await?;
    let wrong = |why: NoAnswer| format!("machine {slot}, {method} {route}: {why:?}");
    connection.send_bytes(method, route, bytes, give_up).await.map_err(wrong)?;
    let answer = connection.receive(give_up).await.map_err(wrong)?;
    Ok((answer, connection))
}

/// Requests that are too long: each is refused before it has been read, and the connection ends.
async fn examine_excess(shared: &Shared, slot: usize, options: &HttpOptions) -> Result<(), String> {
    let most = options.body_bytes_max;
    let announced = format!("POST /set HTTP/1.1\r\nHost: m0\r\ncontent-length: {}\r\n\r\n", most + 1);
    let began = now();
    let (answer, mut connection) = answer_to(shared, slot, "POST", "/set", announced.as_bytes()).await?;
    exactly(&answer, 413, JSON, &format!("\"the body is larger than {most} bytes\"\n"))?;
    same("the connection", &answer.header("connection"), &Some("close"))?;
    if now() - began > AT_ONCE_MICROS {
        return Err("a body that is too long is refused late".to_owned());
    }
    connection.closed(now() + PATIENCE_MICROS).await.map_err(|why| format!("after 413: {why:?}"))?;
    let long = "a".repeat(options.header_bytes_max + 1_000);
    let head = format!("GET /livez HTTP/1.1\r\nHost: m0\r\nx: {long}\r\n\r\n");
    let give_up = now() + PATIENCE_MICROS;
    let mut connection = open(shared, slot).await?;
    let sent = connection.send_bytes("GET", "/livez", head.as_bytes(), give_up).await;
    if sent.is_ok() {
        let answer = connection.receive(give_up).await.map_err(|why| format!("a long head: {why:?}"))?;
        same("the answer to a long head", &answer.code, &431)?;
    }
    Ok(())
}

/// What browsers may be tricked into.
async fn examine_origins(shared: &Shared, slot: usize) -> Result<(), String> {
    let body = "{\"key\":\"nobody ever set this\",\"action\":\"delete\"}";
    let set = |headers: &str| {
        let length = body.len();
        format!("POST /set HTTP/1.1\r\n{headers}\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let get = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\n{headers}\r\n\r\n");
    let key = "/get?key=nobody+ever+set+this";
    let of = |told: &str| format!("machine {slot}, {told}");
    for (method, route, request, code) in [
        ("POST", "/set", set("Host: m0\r\norigin: http://evil.example"), 403),
        ("POST", "/set", set("Host: m0:80\r\norigin: http://m0"), 403),
        ("POST", "/set", set("Host: m0\r\nsec-fetch-site: cross-site"), 403),
        ("POST", "/set", set("Host: m0\r\nsec-fetch-site: same-site"), 403),
        ("POST", "/set", set("Host: evil.example"), 421),
        ("POST", "/set", set("Host: m0.internal\r\norigin: https://M0.internal"), 200),
        ("POST", "/set", set("Host: m0\r\nsec-fetch-site: same-origin"), 200),
        ("POST", "/set", set("Host: m0\r\nsec-fetch-site: none"), 200),
        ("GET", "/get", get(key, "Host: evil.example:80"), 421),
        ("GET", "/get", get(key, "Host: 10.1.2.3:8001\r\norigin: http://evil.example"), 404),
        ("GET", "/get", get(key, "Host: [::1]:8001"), 404),
        ("GET", "/get", get(key, "Host: db.LOCALHOST"), 404),
        ("GET", "/v1/status", get("/v1/status", "Host: evil.example"), 421),
        ("GET", "/metrics", get("/metrics", "Host: evil.example"), 421),
        ("GET", "/livez", get("/livez", "Host: evil.example"), 200),
        ("GET", "/readyz", get("/readyz", "Host: evil.example"), 200),
    ] {
        let (answer, mut connection) = answer_to(shared, slot, method, route, request.as_bytes()).await?;
        let told = request.split("\r\n").take(3).collect::<Vec<_>>().join(" | ");
        same(&of(&told), &answer.code, &code)?;
        if matches!(code, 403 | 421) {
            same(&of(&told), &answer.header("connection"), &Some("close"))?;
            let closed = connection.closed(now() + PATIENCE_MICROS).await;
            closed.map_err(|why| of(&format!("{told}: {why:?}")))?;
        }
    }
    Ok(())
}

/// More connections come than there may be. The last one is told so, also after many that did not
/// wait to be told. In a crowd idle connections are ended every second, which may make room in
/// between: then it is tried again.
async fn examine_crowd(shared: &Shared, slot: usize, options: &HttpOptions) -> Result<(), String> {
    for _ in 0..CROWDS {
        let is_told = examine_one_crowd(shared, slot, options).await?;
        wait_for_calm(shared, slot).await?;
        if is_told {
            shared.lock().mark("exam of a crowd");
            return Ok(());
        }
    }
    Ok(())
}

/// Whether the last one was told that there are too many.
async fn examine_one_crowd(shared: &Shared, slot: usize, options: &HttpOptions) -> Result<bool, String> {
    let give_up = now() + PATIENCE_MICROS;
    let mut crowd = Vec::new();
    loop {
        let mut connection = open(shared, slot).await?;
        let answer = connection.ask(&Request::get("/livez"), give_up).await;
        match answer.map_err(|why| format!("machine {slot}, /livez: {why:?}"))?.code {
            200 => crowd.push(connection),
            503 => break,
            code => return Err(format!("machine {slot}, /livez: {code}")),
        }
        if crowd.len() > 64 {
            return Err(format!("machine {slot} takes {} connections", crowd.len()));
        }
    }
    for _ in 0..HANG_UPS {
        let addr = shared.lock().machines[slot].http_addr();
        let stream = connect(shared, None, &addr).await.map_err(|error| error.to_string())?;
        let life = stream.far_life().unwrap_or(0);
        shared.lock().book.connected((slot, life));
        stream.reset();
    }
    let mut last = open(shared, slot).await?;
    let answer = last.ask(&Request::get("/livez"), give_up).await;
    let answer = answer.map_err(|why| format!("machine {slot}, one too many: {why:?}"))?;
    if answer.code == 200 {
        return Ok(false);
    }
    exactly(&answer, 503, JSON, "\"too many connections\"\n")?;
    same("to be tried again", &answer.header("retry-after"), &Some("1"))?;
    // Nobody keeps a place for long on which nothing is asked.
    sleep_until(now() + (options.idle_timeout_seconds.div_ceil(10) + TICKS + 1) * SECOND).await;
    let mut next = open(shared, slot).await?;
    let answer = next.ask(&Request::get("/livez"), give_up).await;
    let code = answer.map_err(|why| format!("machine {slot}, after a crowd: {why:?}"))?.code;
    same("a place is free again", &code, &200)?;
    Ok(true)
}

/// Connections that were given up are gone, and what they held is free.
async fn wait_for_calm(shared: &Shared, slot: usize) -> Result<(), String> {
    let give_up = now() + PATIENCE_MICROS;
    loop {
        if let Ok(answer) = ask(shared, slot, &Request::get("/v1/status")).await
            && answer.code == 200
            && status_of(&answer, "memory_bytes")? < HEADS_BYTES
            && status_of(&answer, "connections")? < 3
        {
            return Ok(());
        }
        if now() >= give_up {
            return Err(format!("machine {slot} keeps what those held who are gone"));
        }
        sleep_until(now() + 100 * MILLI).await;
    }
}

pub(super) fn status_of(answer: &Answer, field: &str) -> Result<usize, String> {
    let status: serde_json::Value =
        serde_json::from_slice(&answer.body).map_err(|error| format!("/v1/status: {error}"))?;
    let found = status["http"][field].as_u64().and_then(|found| usize::try_from(found).ok());
    found.ok_or_else(|| format!("/v1/status has no http.{field}"))
}

/// Bodies come, but for their last byte, until there is no memory for another: that one is refused,
/// small ones are not, and it is all given back. Nothing is held for what is only announced.
async fn examine_memory(shared: &Shared, slot: usize, options: &HttpOptions) -> Result<(), String> {
    let length = options.body_bytes_max;
    let cost = 2 * length + OVERHEAD_BYTES;
    // All of it comes from one address.
    let fit = options.memory_bytes_max / 16 * 11 / cost;
    let head = format!("POST /set HTTP/1.1\r\nHost: m0\r\ncontent-length: {length}\r\n\r\n{{");
    let start = format!("{head}{}", " ".repeat(length - 2));
    let give_up = now() + PATIENCE_MICROS;
    let mut held = Vec::new();
    for _ in 0..fit {
        let mut connection = open(shared, slot).await?;
        let sent = connection.send_bytes("POST", "/set", start.as_bytes(), give_up).await;
        sent.map_err(|why| format!("machine {slot}: {why:?}"))?;
        held.push(connection);
    }
    sleep_until(now() + 100 * MILLI).await;
    let (answer, _) = answer_to(shared, slot, "POST", "/set", head.as_bytes()).await?;
    let text = "\"too many bytes of requests and answers are held now; try again\"\n";
    exactly(&answer, 503, JSON, text)?;
    same("to be tried again", &answer.header("retry-after"), &Some("1"))?;
    same("its outcome", &answer.header("infinitystore-outcome"), &Some("not-appended"))?;
    let status = ask(shared, slot, &Request::get("/v1/status")).await?;
    let used = status_of(&status, "memory_bytes")?;
    // Each connection may have read ahead of its body.
    if used < fit * cost || used > fit * (cost + READ_BYTES) + HEADS_BYTES {
        return Err(format!("{fit} bodies of {length} bytes hold {used} bytes"));
    }
    let small = Request::post("/set", "{\"key\":\"small\",\"value\":\"v\",\"action\":\"set\"}");
    same("a small write beside them", &laws::set(&ask(shared, slot, &small).await?)?, &Told::Done)?;
    drop(held);
    shared.lock().mark("exam of memory");
    wait_for_calm(shared, slot).await
}

/// Strangers call the port of the nodes. The node gives up a caller that says nothing, and sends
/// away at once a caller that makes no sense.
async fn examine_strangers(shared: &Shared, slot: usize) -> Result<(), String> {
    let addr = shared.lock().machines[slot].raft_addr();
    let give_up = now() + PATIENCE_MICROS;
    let patience = TransportOptions::default().connect_timeout_micros / SECOND;
    let is_secured = shared.lock().limits.secured;
    // A caller without TLS is given the time to read that it needs it.
    let at_once = if is_secured { patience } else { 0 };
    for (said, seconds) in
        [(&b""[..], patience), (&b"Inf"[..], patience), (&b"GET / HTTP/1.1\r\n\r\n"[..], at_once)]
    {
        let mut stream = connect(shared, None, &addr).await.map_err(|error| error.to_string())?;
        let began = now();
        stream.write_all(said).await.map_err(|error| format!("machine {slot}: {error}"))?;
        let mut answer = Vec::new();
        let end = within(give_up, stream.read_to_end(&mut answer)).await;
        end.ok_or_else(|| format!("machine {slot} keeps a stranger who said {said:?}"))?.ok();
        in_time("a stranger", began, seconds)?;
    }
    if is_secured { examine_other_cluster(shared, slot, &addr).await } else { Ok(()) }
}

/// A node of another cluster, that trusts this one, is told nothing.
async fn examine_other_cluster(shared: &Shared, slot: usize, addr: &str) -> Result<(), String> {
    let stream = connect(shared, None, addr).await.map_err(|error| error.to_string())?;
    let connecting = async {
        // Its end of the handshake may be over before it is refused.
        let mut stream = of_stranger().connect(stream, Callee::Address(addr)).await.ok()?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        Some(answer)
    };
    let told = within(now() + PATIENCE_MICROS, connecting).await;
    let told = told.ok_or_else(|| format!("machine {slot} keeps a node of another cluster"))?;
    if told.is_some_and(|told| !told.is_empty()) {
        return Err(format!("machine {slot} says something to a node of another cluster"));
    }
    shared.lock().mark("another cluster's certificate refused");
    Ok(())
}
