//! A person who reads the alarms of nodes, and says of some that they were seen. Those do not come
//! back.

use crate::madsim_engine::http::{Http, Request};
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::Shared;
use crate::record::violation::{Violation, check};
use crate::schedule::{MILLI, SECOND, Stream, stream};
use infinitystore::raft::StoreId;
use rand::Rng;
use std::collections::BTreeMap;

/// Between two looks, at most.
const PAUSE_MICROS: u64 = 3 * SECOND;
/// An answer takes no longer.
const PATIENCE_MICROS: u64 = 5 * SECOND;
/// What was said is on the disk after this time, if the disk takes it.
const NOTED_MICROS: u64 = 3 * SECOND;
/// Its stream of the seed.
const STREAM: u64 = 3_001;

/// A data directory, and what an alarm of it says.
type Named = (StoreId, u64, String);

/// An alarm that was seen.
#[derive(Debug)]
struct Seen {
    /// The process that was told.
    life: u32,
    at: u64,
    /// That process ran on for long enough to write it down.
    is_noted: bool,
}

/// Reads the alarms of one node after the other until the faults end.
pub(super) async fn read_alarms(shared: Shared) {
    let mut rng = stream(shared.lock().schedule.seed, Stream::Schedule, STREAM);
    let slots = shared.lock().machines.len();
    let mut seen: BTreeMap<Named, Seen> = BTreeMap::new();
    while !shared.lock().calm {
        sleep_until(now() + rng.random_range(0..PAUSE_MICROS)).await;
        let (slot, says_so) = (rng.random_range(0..slots), rng.random_bool(0.7));
        if shared.lock().calm || !shared.lock().machines[slot].on {
            continue;
        }
        let result = look(&shared, slot, says_so, &mut seen).await.unwrap_or(Ok(()));
        shared.lock().judge(result);
    }
}

/// Looks at the alarms of one node, and says of the first that it was seen. `None`: no answer.
async fn look(
    shared: &Shared,
    slot: usize,
    says_so: bool,
    seen: &mut BTreeMap<Named, Seen>,
) -> Option<Result<(), Violation>> {
    let give_up = now() + PATIENCE_MICROS;
    let store = shared.lock().machines[slot].store?;
    let mut connection = Http::open(shared, slot, give_up).await?;
    let life = connection.life;
    let answer = connection.ask(&Request::get("/v1/alarms"), give_up).await.ok()?;
    if answer.code != 200 || shared.lock().has_reverted() || shared.lock().full_at.is_some() {
        return None;
    }
    let listed: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    let mut alarms = Vec::new();
    for alarm in listed["alarms"].as_array()? {
        alarms.push((store, alarm["id"].as_u64()?, alarm["text"].as_str()?.to_owned()));
    }
    for (named, seen) in seen.iter_mut().filter(|((of, ..), _)| *of == store) {
        let result = seen.judge(slot, named, life, alarms.contains(named));
        if result.is_err() {
            return Some(result);
        }
    }
    let first = alarms.into_iter().next().filter(|_| says_so)?;
    let request = Request { method: "DELETE", ..Request::get(format!("/v1/alarms/{}", first.1)) };
    let answer = connection.ask(&request, now() + 500 * MILLI).await.ok()?;
    if answer.code == 200 {
        shared.lock().mark("alarm seen");
        seen.insert(first, Seen { life, at: now(), is_noted: false });
    }
    Some(Ok(()))
}

impl Seen {
    fn judge(&mut self, slot: usize, named: &Named, life: u32, is_listed: bool) -> Result<(), Violation> {
        let must_be_gone = self.is_noted || life == self.life;
        check!(
            "an alarm that was seen does not come back",
            !(must_be_gone && is_listed),
            "machine {slot} lists alarm {} again, which was seen at {} µs: {}",
            named.1,
            self.at,
            named.2
        );
        self.is_noted |= life == self.life && now() >= self.at + NOTED_MICROS;
        Ok(())
    }
}
