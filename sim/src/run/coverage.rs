//! Coverage marks: faults and rare paths that a campaign has to meet, or it has lost its teeth.

#[cfg(test)]
mod tests;

use crate::record::marks::Marks;
use crate::run::engine::Engine;

/// A campaign of at least this many seeds has to meet every mark but the rarest.
pub const SEEDS_ENOUGH: u64 = 300;
/// A campaign of at least this many seeds has to meet the rarest marks as well.
const SEEDS_FOR_RAREST: u64 = 5_000;

/// Marks of both engines.
const BOTH: [&str; 38] = [
    "bit flipped",
    "blackout",
    "clock jump",
    "crash in a write",
    "disk called slow",
    "disk full",
    "disk full noticed",
    "disk wiped",
    "election lost",
    "entries truncated",
    "fsync fails",
    "join",
    "join begun",
    "kill",
    "leader deposed",
    "leader steps down by itself",
    "machine joined",
    "misdirected write",
    "move",
    "partition",
    "pause",
    "power loss",
    "process ended by disk error",
    "removal asked for",
    "remove",
    "rot",
    "slow disk",
    "slow node",
    "stalled disk",
    "snapshot failed",
    "snapshot installed",
    "snapshot taken",
    "start failed by disk",
    "torn tail cut off",
    "transfer",
    "wipe",
    "write fails",
    "write misdirected",
];

/// Paths of the product that few runs take.
const RAREST: [&str; 5] = [
    "creation resumed",
    "lead left to a quicker disk",
    "leader elected in a joint state",
    "membership rolled back",
    "older snapshot used",
];

/// And those that only the queue engine looks for.
const QUEUE_RAREST: [&str; 3] =
    ["all voters exchanged", "newest of two snapshots damaged", "removed and told"];

/// And those that only the madsim engine looks for.
const MADSIM_RAREST: [&str; 5] = [
    "a lost member joined again by hand",
    "a removed member is told when it calls",
    "an election beside an older copy",
    "another cluster's certificate refused",
    "several bits flipped",
];

/// Marks of the queue engine, whose network carries messages and whose clients ask replicas.
const QUEUE: [&str; 71] = [
    "acknowledged write lost",
    "damage reported",
    "applied in slices",
    "bit flipped while running",
    "copy after a restart",
    "directory fails",
    "read fails",
    "rot while running",
    "write fails in part",
    "write landed before its place",
    "write lands before its place",
    "write lost",
    "ambush in a joint state",
    "ambush while a snapshot is installed",
    "crash in a start",
    "learner begun",
    "message corrupted",
    "message duplicated",
    "message lost",
    "old cut from new in a joint state",
    "read answered by a follower",
    "struck in a joint state",
    "struck while a snapshot is installed",
    "voters exchanged",
    "traffic judged",
    "transfer succeeded",
    "write answered by a follower",
    "write refused for want of room",
    "write survived a failover",
    "write unknown",
    "answer given again",
    "command refused before it was logged",
    "idempotency key reused",
    "lease ended by its leader",
    "lease ended with several keys",
    "lease existed",
    "lease renewed",
    "lease unknown",
    "lease's time asked for",
    "next page of a scan",
    "number refused",
    "read refused as compacted",
    "read refused as future",
    "refused as compacted",
    "refused as future",
    "refused for the quota",
    "refused for want of a lease",
    "transaction failed",
    "transaction succeeded",
    "watch told of a compaction",
    "watch told of a revision",
    "watch told of progress",
    "watch told of several revisions",
    "watch woken by an installed snapshot",
    "history cut short",
    "write repeated under its idempotency key",
    "asked to hand over to a node that cannot lead",
    "change of another configuration asked for",
    "leader handed over before it was removed",
    "learner to be promoted",
    "log without room",
    "several chunks in flight",
    "snapshots to several members at once",
    "stopped well",
    "change of rights refused",
    "command denied",
    "lease call denied",
    "read denied",
    "rights changed",
    "watch denied",
    "watch ended with its right",
];

/// Marks of the madsim engine, whose network carries byte streams.
const MADSIM: [&str; 73] = [
    "all at rest read again",
    "backup taken",
    "address moved",
    "bytes corrupted",
    "bytes held back",
    "connection broken",
    "connection half open",
    "connection reset",
    "data directory copied",
    "data directory mended",
    "damaged member joined anew",
    "exam of a crowd",
    "exam of a removed member",
    "exam of memory",
    "exam of the door",
    "holdings judged",
    "idleness judged",
    "inspected",
    "join of a node with data refused",
    "join undone",
    "joined over HTTP",
    "keep-alive found a dead end",
    "leader stopped and handed over",
    "name not resolved",
    "no descriptor for a connection",
    "node with certificates",
    "older copy noticed",
    "older copy put back",
    "packet lost",
    "power lost in a move",
    "service was due",
    "stop judged by its time",
    "stopped when told",
    "write taken in part",
    "PUT /v1/kv/{key}",
    "GET /v1/kv/{key}",
    "HEAD /v1/kv/{key}",
    "DELETE /v1/kv/{key}",
    "PUT /v1/kv",
    "GET /v1/kv",
    "DELETE /v1/kv",
    "POST /v1/incr/{key}",
    "POST /v1/txn",
    "POST /v1/leases",
    "GET /v1/leases",
    "GET /v1/leases/{id}",
    "DELETE /v1/leases/{id}",
    "POST /v1/leases/{id}/keepalive",
    "POST /v1/compact",
    "GET /v1/settings",
    "PUT /v1/settings",
    "lock taken over HTTP",
    "lock held by another, over HTTP",
    "lock given up over HTTP",
    "holder asked for over HTTP",
    "value of a lock over HTTP",
    "long poll with a change",
    "long poll without a change",
    "next page over HTTP",
    "watch over HTTP begun",
    "watch over HTTP told of a revision",
    "watch over HTTP told of a compaction",
    "answer given again over HTTP",
    "command refused before it was logged, over HTTP",
    "lease unknown over HTTP",
    "allowed by a certificate",
    "allowed over HTTP",
    "authentication enabled",
    "caller has to wait over HTTP",
    "caller unknown over HTTP",
    "denied over HTTP",
    "rights changed",
    "watcher told over HTTP",
];

/// The marks that a campaign of `seeds` seeds should have met, and `met` lacks.
#[must_use]
pub fn missing(engine: Engine, seeds: u64, met: &Marks) -> Vec<&'static str> {
    if seeds < SEEDS_ENOUGH {
        return Vec::new();
    }
    let (own, own_rarest): (&[&str], &[&str]) = match engine {
        Engine::Queue => (&QUEUE, &QUEUE_RAREST),
        Engine::Madsim => (&MADSIM, &MADSIM_RAREST),
    };
    let rarest = RAREST.iter().chain(own_rarest).filter(|_| seeds >= SEEDS_FOR_RAREST);
    BOTH.iter().chain(own).chain(rarest).copied().filter(|mark| !met.contains_key(mark)).collect()
}
