//! A client of the keyspace carries its plan out.

use crate::madsim_engine::keyspace::client::HttpClient;
use crate::madsim_engine::keyspace::watch::Watch;
use crate::madsim_engine::time::sleep_until;
use crate::madsim_engine::world::Shared;
use crate::schedule::{SECOND, Stream, stream};
use infinitystore::replica::ClientRequest;

/// Streams of the seed are told apart by this.
const FIRST_STREAM: u64 = 4_000;

/// Carries a client's plan out, until the faults end.
pub(in crate::madsim_engine) async fn run_keyspace_client(shared: Shared, number: usize) {
    let seed = shared.lock().schedule.seed;
    let rng = stream(seed, Stream::Schedule, FIRST_STREAM + number as u64);
    let mut client = HttpClient::new(shared, rng, number);
    let mut watch = Watch::default();
    loop {
        let at = {
            let world = client.shared.lock();
            let Some(at) = world.keyspace.clients.next(number) else { return };
            world.began + at
        };
        sleep_until(at).await;
        if client.shared.lock().calm {
            return;
        }
        let wishes = {
            let mut guard = client.shared.lock();
            let world = &mut *guard;
            world.keyspace.clients.wishes(number, world.checks.ledger.model())
        };
        for wish in wishes {
            match wish.request {
                ClientRequest::Watch(query) => {
                    watch.session(&mut client, wish.slot, query, wish.timeout_micros.unwrap_or(SECOND)).await;
                }
                request => {
                    let asked = client.draw(request);
                    if let Some(asked) = asked {
                        client.chain(wish.slot, asked).await;
                    }
                }
            }
        }
    }
}
