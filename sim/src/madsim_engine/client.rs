//! Clients that speak HTTP.

use crate::checks::Violation;
use crate::clients::Seen;
use crate::madsim_engine::connections::SimStream;
use crate::madsim_engine::listening::connect;
use crate::madsim_engine::world::{Shared, World};
use crate::madsim_engine::{now, sleep_until};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use infinitystore::kv::Op;
use infinitystore::replica::ClientRequest;

type Sender = SendRequest<Full<Bytes>>;

/// Carries a client's plan out.
pub(in crate::madsim_engine) async fn run_client(shared: Shared, number: usize) {
    let mut connection: Option<(usize, Sender)> = None;
    // The process at the other end.
    let mut life = 0;
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
        if connection.as_ref().is_none_or(|(to, sender)| *to != slot || sender.is_closed()) {
            let fresh = within(give_up, open(&shared, slot)).await.flatten();
            connection = fresh.map(|sender| (slot, sender));
            life = shared.lock().machines[slot].life;
        }
        let Some((_, sender)) = &mut connection else {
            shared.lock().clients.skip(number);
            continue;
        };
        let (request, body) = {
            let mut world = shared.lock();
            let world = &mut *world;
            world.clients.send(number, now(), world.trace.story())
        };
        let asked = now();
        let delete = matches!(body, ClientRequest::Write(Op::Delete { .. }));
        // Half of the clients name what is the default.
        let level = if number.is_multiple_of(2) { "" } else { "&level=linearizable" };
        let answer = within(give_up, ask(sender, &body, level)).await;
        let mut world = shared.lock();
        let world = &mut *world;
        let answered = now();
        match answer {
            Some(Some(seen)) => {
                let seen =
                    if delete && seen == (Seen::Set { revision: None }) { Seen::Deleted } else { seen };
                world.trace.line(answered, Some(slot), "answer", format_args!("client {number}: {seen:?}"));
                world.clients.answer(number, request, &seen, answered, world.trace.story());
            }
            Some(None) | None => {
                if answer.is_none() {
                    let result = answers_in_time(world, number, (slot, life), asked);
                    world.judge(result);
                }
                world.trace.line(answered, Some(slot), "answer", format_args!("client {number}: nothing"));
                world.clients.give_up(number, request);
                connection = None;
            }
        }
        world.trace.step([answered, number as u64, world.clients.counts().0, world.clients.counts().1]);
    }
}

/// A client that asked this life of a machine at `asked` gives up now, without an answer. Nodes answer each question when its time is up, if
/// only with that: it is due a little later, unless the process has ended or stood still since.
fn answers_in_time(
    world: &World,
    client: usize,
    (slot, life): (usize, u32),
    asked: u64,
) -> Result<(), Violation> {
    let (machine, settings) = (&world.machines[slot], &world.schedule.settings);
    let runs = machine.on && machine.life == life && machine.power_fails_at.is_none();
    let due = asked + settings.client_timeout_micros * 11 / 10 + 4 * settings.delay_min_micros;
    if runs && machine.stands_still_until < asked && !world.calm && now() >= due {
        let what = format!("machine {slot} has not answered client {client}, who asked at {asked}");
        return Err(Violation { check: "a node that runs answers in time", what });
    }
    Ok(())
}

async fn within<T>(deadline: u64, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = sleep_until(deadline) => None,
    }
}

async fn open(shared: &Shared, slot: usize) -> Option<Sender> {
    let stream: SimStream = connect(shared, None, &format!("m{slot}:8001")).await.ok()?;
    let (sender, driver) = handshake(TokioIo::new(stream)).await.ok()?;
    madsim::task::spawn(async move {
        // How it ended shows in the requests.
        let _ = driver.await;
    });
    Some(sender)
}

/// Asks, and understands the answer; `None` when the connection broke first.
async fn ask(sender: &mut Sender, request: &ClientRequest, level: &str) -> Option<Seen> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let built = match request {
        ClientRequest::Write(Op::Set { key, value }) => {
            let body = serde_json::json!({"key": text(key), "value": text(value), "action": "set"});
            post(body.to_string())
        }
        ClientRequest::Write(Op::Delete { key }) => {
            post(serde_json::json!({"key": text(key), "action": "delete"}).to_string())
        }
        ClientRequest::Read { key, .. } => Request::builder()
            .uri(format!("/get?key={}{level}", text(key)))
            .header("host", "node")
            .body(Full::default()),
        _ => return None,
    };
    sender.ready().await.ok()?;
    let response = sender.send_request(built.expect("keys need no escape")).await.ok()?;
    understand(response).await
}

fn post(body: String) -> hyper::http::Result<Request<Full<Bytes>>> {
    Request::builder().method(Method::POST).uri("/set").header("host", "node").body(Full::from(body))
}

async fn understand(response: Response<hyper::body::Incoming>) -> Option<Seen> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let read = |body: &Bytes| {
        let found: serde_json::Value = serde_json::from_slice(body).ok()?;
        found.get("value").and_then(|value| value.as_str()).map(|value| Bytes::from(value.to_owned()))
    };
    Some(match head.status {
        StatusCode::OK if body.starts_with(b"\"") => Seen::Set { revision: None },
        StatusCode::OK => Seen::Value(Some((read(&body)?, None))),
        StatusCode::NOT_FOUND => Seen::Value(None),
        StatusCode::INTERNAL_SERVER_ERROR
            if head.headers.get("infinitystore-outcome").is_none_or(|outcome| outcome != "not-appended") =>
        {
            Seen::Unknown
        }
        _ => Seen::Failed,
    })
}
