//! Clients that speak HTTP.

use crate::checks::clients::Seen;
use crate::madsim_engine::http::{Http, Request};
use crate::madsim_engine::laws::{self, Told, quoted};
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::Shared;
use crate::record::violation::Violation;
use bytes::Bytes;
use infinitystore::kv::{Command, Op, Query};
use infinitystore::replica::ClientRequest;

/// Carries a client's plan out.
pub(super) async fn run_client(shared: Shared, number: usize) {
    let mut connection: Option<Http> = None;
    loop {
        let (at, slot, timeout) = {
            let world = shared.lock();
            let Some((at, slot)) = world.clients.next(number) else { return };
            (world.began + at, slot, world.schedule.settings.client_timeout_micros * 5 / 4)
        };
        sleep_until(at).await;
        if shared.lock().calm {
            return;
        }
        let give_up = now() + timeout;
        let due = shared.lock().due(slot);
        if !connection.as_ref().is_some_and(|it| it.is_usable(slot)) {
            connection = Http::open(&shared, slot, give_up).await;
        }
        let Some(there) = &mut connection else {
            let mut world = shared.lock();
            world.served(due, Some("no connection could be made"));
            world.clients.skip(number);
            continue;
        };
        let due = due.filter(|_| there.is_to_present_process());
        let (request, body) = {
            let mut world = shared.lock();
            let world = &mut *world;
            world.clients.send(number, now(), world.trace.timeline())
        };
        let asked = now();
        // Half of the clients name what is the default.
        let level = if number.is_multiple_of(2) { "" } else { "&level=linearizable" };
        let (life, answer) = (there.life, there.ask(&http_request(&body, level), give_up).await);
        let mut guard = shared.lock();
        let world = &mut *guard;
        let (answered, mut broken) = (now(), false);
        match answer {
            Ok(answer) => {
                let (seen, why) = match understand(&body, &answer) {
                    Ok(told) => told,
                    Err(what) => {
                        let what = format!("machine {slot} to client {number}: {what}");
                        world.judge(Err(Violation { check: "answers are as documented", what }));
                        (Seen::Unknown, None)
                    }
                };
                if let Some(what) = why.as_ref().and_then(|why| world.unjustified(slot, why)) {
                    let what = format!("machine {slot} to client {number}: {what}");
                    world.judge(Err(Violation { check: "a refusal has its reason", what }));
                }
                world.served(due, why.as_deref());
                world.trace.line(answered, Some(slot), "answer", format_args!("client {number}: {seen:?}"));
                world.clients.answer(number, request, &seen, answered, world.trace.timeline());
            }
            Err(why) => {
                if why == crate::madsim_engine::http::NoAnswer::Late {
                    world.judge_lateness((slot, life), asked, &format!("client {number}"));
                }
                world.served(due, Some(&format!("no answer: {why:?}")));
                world.trace.line(answered, Some(slot), "answer", format_args!("client {number}: nothing"));
                world.clients.give_up(number, request);
                broken = true;
            }
        }
        world.trace.step([answered, number as u64, world.clients.counts().0, world.clients.counts().1]);
        drop(guard);
        // A stream that is dropped looks at the world.
        if broken {
            connection = None;
        }
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn http_request(request: &ClientRequest, level: &str) -> Request {
    match request {
        ClientRequest::Write(Command { op: Op::Put(put), .. }) => {
            let (key, value) = (quoted(&text(&put.key)), quoted(&text(&put.value)));
            Request::post("/set", format!("{{\"key\":{key},\"value\":{value},\"action\":\"set\"}}"))
        }
        ClientRequest::Write(Command { op: Op::Delete(range), .. }) => {
            let key = range.one_key().expect("clients delete one key at a time");
            Request::post("/set", format!("{{\"key\":{},\"action\":\"delete\"}}", quoted(&text(key))))
        }
        ClientRequest::Read { query: Query::Key(key), .. } => {
            Request::get(format!("/get?key={}{level}", text(key)))
        }
        other => unreachable!("clients read and write, they do not ask {other:?}"),
    }
}

/// What the client has seen, and why it was refused, if it was.
fn understand(
    request: &ClientRequest,
    answer: &crate::madsim_engine::http::Answer,
) -> Result<(Seen, Option<String>), String> {
    let told = match request {
        ClientRequest::Read { query: Query::Key(key), .. } => laws::get(&text(key), answer)?,
        _ => laws::set(answer)?,
    };
    Ok(match told {
        Told::Done if matches!(request, ClientRequest::Write(Command { op: Op::Delete(_), .. })) => {
            (Seen::Deleted, None)
        }
        Told::Done => (Seen::Set { revision: None }, None),
        Told::Value(value) => (Seen::Value(value.map(|value| (Bytes::from(value), None))), None),
        Told::Unknown(why) => (Seen::Unknown, Some(why)),
        Told::NotAppended(why) | Told::Unavailable(why) => (Seen::Failed, Some(why)),
    })
}
