//! Takes backups over HTTP while everything goes on: each is whole, is the committed state at its
//! entry, and is as new as what it was asked for.

use crate::madsim_engine::http::{Http, Request};
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::Shared;
use crate::record::violation::{Violation, check};
use crate::schedule::{SECOND, Stream, stream};
use infinitystore::storage::BackupReader;
use rand::Rng;

/// Between two backups, at most.
const PAUSE_MICROS: u64 = 6 * SECOND;
/// One takes no longer.
const PATIENCE_MICROS: u64 = 20 * SECOND;
/// Its stream of the seed.
const STREAM: u64 = 3_000;

/// Asks one node after the other until the faults end.
pub(super) async fn keep_backups(shared: Shared) {
    let mut rng = stream(shared.lock().schedule.seed, Stream::Schedule, STREAM);
    let slots = shared.lock().machines.len();
    while !shared.lock().calm {
        sleep_until(now() + rng.random_range(0..PAUSE_MICROS)).await;
        let slot = rng.random_range(0..slots);
        let is_local = rng.random_bool(0.3);
        if shared.lock().calm || !shared.lock().machines[slot].on {
            continue;
        }
        let result = take(&shared, slot, is_local).await;
        shared.lock().judge(result);
    }
}

/// Takes one. No answer is none to judge: other checks ask for service.
async fn take(shared: &Shared, slot: usize, is_local: bool) -> Result<(), Violation> {
    let give_up = now() + PATIENCE_MICROS;
    let Some(mut connection) = Http::open(shared, slot, give_up).await else { return Ok(()) };
    let Some(member) = shared.lock().machines[slot].member else { return Ok(()) };
    // What any member has applied is committed, and a linearizable read sees it.
    let seen = shared.lock().stores.last_key_value().map_or(0, |(_, store)| store.revision);
    let target = if is_local { "/v1/snapshot?level=local" } else { "/v1/snapshot" };
    if connection.send(&Request::get(target), give_up).await.is_err() {
        return Ok(());
    }
    let Ok(answer) = connection.receive_stream(give_up).await else { return Ok(()) };
    if answer.code != 200 {
        return Ok(());
    }
    let mut reader = BackupReader::of_state();
    let mut read = Ok(());
    loop {
        match connection.next_piece(give_up).await {
            // One that is cut off breaks.
            Err(_) => return Ok(()),
            Ok(None) => break,
            Ok(Some(piece)) => read = read.and_then(|()| reader.push(&piece)),
        }
    }
    let read = read.and_then(|()| reader.finish());
    let (header, store) = match read {
        Ok((header, Some(store))) => (header, store),
        Ok((_, None)) => return Ok(()),
        Err(error) => {
            let what = format!("machine {slot} sent a backup that is none: {error}");
            return Err(Violation { check: "a backup is whole", what });
        }
    };
    let told = answer.header("infinitystore-revision").and_then(|revision| revision.parse().ok());
    check!(
        "a backup is of the revision that its answer tells",
        told == Some(header.revision.0),
        "machine {slot} told of {told:?}, and sent {}",
        header.revision.0
    );
    check!(
        "a backup is as new as it was asked for",
        is_local || header.revision.0 >= seen,
        "machine {slot} sent one of revision {}, and revision {seen} was seen before it was asked",
        header.revision.0
    );
    let mut world = shared.lock();
    // A node that has not joined has a state of its own.
    if world.cluster != Some(header.cluster) {
        return Ok(());
    }
    world.mark("backup taken");
    world.checks.ledger.check_snapshot(member, header.last.index, &store)
}
