//! The mirror's questions of several parts: pages that make a whole, and changes that lead from a
//! past state to the present one.

use crate::madsim_engine::http::{Answer, Http, PATIENCE_MICROS, Request, ask};
use crate::madsim_engine::laws::same;
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::Shared;
use crate::schedule::MILLI;
use infinitystore::codec::from_base64;
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How often a member that has too much to do is asked again.
const TRIES_MAX: usize = 40;

/// Pages of a scan, about.
const PAGES: u64 = 6;

/// A key, and all that is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub key: Vec<u8>,
    pub told: Value,
}

/// A range, from its first page to its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    pub rows: Vec<Row>,
    pub prefixes: Vec<Value>,
    pub count: u64,
}

/// Reads a range to its end, each page at another member, and each cursor in another way.
pub(super) async fn scan(
    shared: &Shared,
    members: &[usize],
    wanted: Value,
    limit: Option<u64>,
) -> Result<Scan, String> {
    let mut whole = Scan { rows: Vec::new(), prefixes: Vec::new(), count: 0 };
    let mut body = wanted.clone();
    if let Some(limit) = limit {
        body["limit"] = json!(limit);
    }
    let mut request = Request::post("/v1/range", body.to_string());
    for page in 0.. {
        let slot = members[page % members.len()];
        let told = |what: String| format!("machine {slot}, page {page} of {wanted} by {limit:?}: {what}");
        let answer = patiently(shared, slot, &request).await?;
        same("the code", &answer.code, &200)
            .map_err(|what| told(format!("{what}: {:.300}", answer.text())))?;
        let found: Value = serde_json::from_slice(&answer.body).map_err(|error| told(error.to_string()))?;
        let count = found["count"].as_u64().ok_or_else(|| told("it has no count".to_owned()))?;
        if page > 0 {
            same("the count", &count, &whole.count).map_err(told)?;
        }
        whole.count = count;
        for row in found["kvs"].as_array().into_iter().flatten() {
            whole.rows.push(Row { key: key_of(row).map_err(told)?, told: row.clone() });
        }
        whole.prefixes.extend(found["prefixes"].as_array().into_iter().flatten().cloned());
        let cursor = found["cursor"].as_str();
        same("whether there is more", &found["more"].as_bool(), &Some(cursor.is_some())).map_err(told)?;
        let Some(cursor) = cursor else { break };
        if whole.rows.len() as u64 > count || page as u64 > 2 * count + 2 {
            return Err(told(format!("there is no end of it; {count} are counted")));
        }
        request = match page % 2 {
            0 if cursor.len() < 10_000 => Request::get(format!("/v1/kv?cursor={cursor}")),
            _ => Request::post("/v1/range", json!({ "cursor": cursor }).to_string()),
        };
    }
    Ok(whole)
}

/// Pages of any size make the whole. What is told of keys without values is that with values, and
/// as many are counted as are listed.
pub(super) async fn pages_agree(
    shared: &Shared,
    members: &[usize],
    whole: &Scan,
    rng: &mut SmallRng,
) -> Result<(), String> {
    same("keys that are listed and counted", &(whole.rows.len() as u64), &whole.count)?;
    let counted = scan(shared, members, json!({ "count_only": true }), None).await?;
    same("keys that are counted alone", &counted.count, &whole.count)?;
    let keys = scan(shared, members, json!({ "keys_only": true }), None).await?;
    same("keys without values", &keys, &without_values(whole))?;
    let gathered = scan(shared, members, json!({ "delimiter": "/" }), None).await?;
    for (wanted, right) in
        [(json!({}), whole), (json!({ "keys_only": true }), &keys), (json!({ "delimiter": "/" }), &gathered)]
    {
        let parts = (right.rows.len() + right.prefixes.len()) as u64;
        let limit = rng.random_range(1..=2).max(parts / PAGES);
        let paged = scan(shared, members, wanted.clone(), Some(limit)).await?;
        is_as(&paged, right).map_err(|what| format!("{wanted} in pages of {limit}: {what}"))?;
    }
    Ok(())
}

/// What a watch tells from the first revision on that it can tell of is the same everywhere, and
/// makes each later state of the earliest one.
pub(super) async fn changes_lead_here(
    shared: &Shared,
    members: &[usize],
    (compacted, revision): (u64, u64),
    past: &[u64],
    whole: &Scan,
) -> Result<(), String> {
    if compacted >= revision {
        return Ok(());
    }
    let mut told: Option<Vec<(u64, Value)>> = None;
    for &slot in members {
        let changes = changes(shared, slot, compacted + 1, revision).await?;
        let Some(first) = &told else {
            told = Some(changes);
            continue;
        };
        let at = first.iter().zip(&changes).position(|(one, other)| one != other);
        if let Some(at) = at {
            return Err(format!("machine {slot} tells of {:?}, and another of {:?}", changes[at], first[at]));
        }
        same(&format!("changes that machine {slot} tells of"), &changes.len(), &first.len())?;
    }
    let base = match compacted {
        0 => Vec::new(),
        at => scan(shared, members, json!({ "at": at }), None).await?.rows,
    };
    let mut state: BTreeMap<Vec<u8>, Value> = base.into_iter().map(|row| (row.key, row.told)).collect();
    for (at, told) in told.into_iter().flatten() {
        replay(&mut state, &told)?;
        let later = match at {
            _ if at == revision => whole.rows.clone(),
            _ if past.contains(&at) => scan(shared, members, json!({ "at": at }), None).await?.rows,
            _ => continue,
        };
        let later: BTreeMap<Vec<u8>, Value> = later.into_iter().map(|row| (row.key, row.told)).collect();
        if let Some((key, _)) = state.iter().find(|(key, told)| later.get(*key) != Some(*told)) {
            let (one, other) = (&state[key], later.get(key));
            return Err(format!("by the changes there is {one} at {at}, by the range {other:?}"));
        }
        same(&format!("keys at {at} by the changes, and by the range"), &state.len(), &later.len())?;
    }
    shared.lock().mark("changes replayed");
    Ok(())
}

/// Carries out what one message of a watch tells.
pub(super) fn replay(state: &mut BTreeMap<Vec<u8>, Value>, told: &Value) -> Result<(), String> {
    for event in told["events"].as_array().into_iter().flatten() {
        let key = key_of(event)?;
        match event["type"].as_str() {
            Some("delete") => {
                state.remove(&key);
            }
            Some("put") => {
                let mut row = event.clone();
                row.as_object_mut().and_then(|row| row.remove("type"));
                state.insert(key, row);
            }
            other => return Err(format!("a change is a {other:?}")),
        }
    }
    Ok(())
}

/// The messages of a watch from one revision to another.
async fn changes(shared: &Shared, slot: usize, from: u64, to: u64) -> Result<Vec<(u64, Value)>, String> {
    let give_up = now() + PATIENCE_MICROS;
    let why = |why| format!("machine {slot} does not tell changes from {from} to {to}: {why:?}");
    let connection = Http::open(shared, slot, give_up).await;
    let mut connection = connection.ok_or_else(|| format!("machine {slot} takes no connection"))?;
    let request = Request::get(format!("/v1/watch?from={from}"));
    connection.send(&request, give_up).await.map_err(why)?;
    let answer = connection.receive_stream(give_up).await.map_err(why)?;
    same("the code of a watch", &answer.code, &200)?;
    let (mut read, mut found) = (Vec::new(), Vec::new());
    while found.last().is_none_or(|(last, _)| *last < to) {
        let piece = connection.next_piece(give_up).await.map_err(why)?;
        let piece = piece.ok_or_else(|| format!("machine {slot} ends a watch from {from} to {to}"))?;
        read.extend_from_slice(&piece);
        while let Some(end) = read.windows(2).position(|bytes| bytes == b"\n\n") {
            let message: Vec<u8> = read.drain(..end + 2).collect();
            let message = String::from_utf8(message).map_err(|error| error.to_string())?;
            let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name));
            match (field("event: "), field("id: "), field("data: ")) {
                (None, Some(id), Some(data)) => {
                    let id = id.parse().map_err(|_| format!("an id is {id:?}"))?;
                    found.push((id, serde_json::from_str(data).map_err(|error| error.to_string())?));
                }
                (Some("progress"), ..) | (None, None, None) => {}
                _ => return Err(format!("machine {slot}, a watch from {from}: {message}")),
            }
        }
    }
    shared.lock().keyspace.watcher_left((slot, connection.life));
    Ok(found)
}

/// A scan as another.
pub(super) fn is_as(found: &Scan, right: &Scan) -> Result<(), String> {
    same("the count", &found.count, &right.count)?;
    if let Some(at) = found.rows.iter().zip(&right.rows).position(|(one, other)| one != other) {
        return Err(format!("row {at} is {:?}, and in one piece {:?}", found.rows[at], right.rows[at]));
    }
    same("rows", &found.rows.len(), &right.rows.len())?;
    same("prefixes", &found.prefixes, &right.prefixes)
}

fn without_values(whole: &Scan) -> Scan {
    let mut keys = whole.clone();
    for row in keys.rows.iter_mut().filter_map(|row| row.told.as_object_mut()) {
        row.retain(|name, _| name != "value" && name != "value64");
    }
    keys
}

fn key_of(row: &Value) -> Result<Vec<u8>, String> {
    match (row["key"].as_str(), row["key64"].as_str()) {
        (Some(text), None) => Ok(text.as_bytes().to_vec()),
        (None, Some(text)) => from_base64(text.as_bytes()).map_err(|error| error.to_string()),
        _ => Err(format!("it has no key, or two: {row}")),
    }
}

/// Asks, and again where few may wait.
pub(super) async fn patiently(shared: &Shared, slot: usize, request: &Request) -> Result<Answer, String> {
    for _ in 0..TRIES_MAX {
        let answer = ask(shared, slot, request).await?;
        if answer.code != 503 || !may_refuse(shared) {
            return Ok(answer);
        }
        sleep_until(now() + 50 * MILLI).await;
    }
    Err(format!("machine {slot} has no time for {} {:.200}", request.method, request.target))
}

/// Whether a member at rest may have no time for a question.
pub(super) fn may_refuse(shared: &Shared) -> bool {
    let world = shared.lock();
    world.limits.are_few() || !world.is_quick()
}
