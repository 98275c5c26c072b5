//! Gets from other members what a damaged log lacks.

use crate::codec::Reader;
use crate::node::beside::in_blocks;
use crate::node::options::StartError;
use crate::node::repair::door::Lending;
use crate::peer::mending::{MendCall, MendCaller, MendReply, MendWants};
use crate::peer::rpc::{Question, Reply, ask};
use crate::peer::secured::Dialer;
use crate::raft::{ClusterId, Entry, LogId, NodeId, SnapshotChunk, SnapshotMeta};
use crate::runtime::{Env, RepairProgress};
use crate::storage::{Missing, RepairSnapshot, Sound, Survey};
use bytes::Bytes;
use tracing::{info, warn};

/// How long a peer may take to answer.
const ANSWER_MICROS: u64 = 8_000_000;
/// The pause when no peer could help; doubled each time …
const PAUSE_MICROS_MIN: u64 = 200_000;
/// … up to this.
const PAUSE_MICROS_MAX: u64 = 5_000_000;
/// A node that waits for others this long looks at its disk again: what could not be read may be
/// readable by then, as behind a network that was interrupted, or may have been put back.
const LOOK_AGAIN_MICROS: u64 = 60_000_000;
/// Members that are asked, at most.
const PEERS_MAX: usize = 64;

/// Asks for what is missing.
pub(super) struct Fetch<'r, E: Env> {
    pub(super) env: &'r E,
    pub(super) dialer: Dialer<E>,
    pub(super) me: Me,
    pub(super) peers: Vec<String>,
    pub(super) progress: &'r RepairProgress,
    pub(super) survey: Survey<E::Disk>,
    /// What others may have of this log.
    pub(super) lending: Option<Lending<E::Disk>>,
}

/// As whom a node asks that repairs its directory, as far as the directory tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Me {
    pub(super) caller: Option<MendCaller>,
    /// The cluster. Another one that has taken over an address does not help.
    pub(super) cluster: Option<ClusterId>,
}

impl Me {
    const fn call(self, wants: MendWants) -> MendCall {
        MendCall { caller: self.caller, cluster: self.cluster, wants }
    }
}

/// What a peer made of a question.
enum Got {
    /// It helped.
    Something,
    /// It did not, and why.
    Nothing(String),
    /// Its log does not have the anchor of these, which this one has.
    Lacks(Missing),
}

impl<E: Env> Fetch<'_, E> {
    /// Gets everything that is missing, however long it takes. `None`: nobody gave anything for so
    /// long that the disk is to be looked at again. What somebody gave is not thrown away for that.
    pub(super) async fn all(&mut self, mut sound: Sound) -> Result<Option<Sound>, StartError> {
        let mut pause_micros = PAUSE_MICROS_MIN;
        let mut look_again = Some(self.env.now().plus(LOOK_AGAIN_MICROS));
        while let Some(missing) = sound.missing() {
            let mut helped = false;
            let mut reasons = Vec::new();
            let mut lacking = Vec::new();
            for addr in self.peers.clone() {
                match self.ask_for_entries(&addr, &mut sound, &missing).await? {
                    Got::Something => {
                        // It is asked first for the next ones, so that one that is silent costs its
                        // time once.
                        self.peers.retain(|known| *known != addr);
                        self.peers.insert(0, addr);
                        helped = true;
                        break;
                    }
                    Got::Nothing(why) => reasons.push(format!("{addr}: {why}")),
                    Got::Lacks(asked) if lacking.contains(&asked) => {}
                    Got::Lacks(asked) => lacking.push(asked),
                }
            }
            for asked in lacking {
                if helped {
                    break;
                }
                match self.follow_leader(&mut sound, &asked).await {
                    Ok(()) => helped = true,
                    Err(why) => reasons.push(why),
                }
            }
            if helped {
                (pause_micros, look_again) = (PAUSE_MICROS_MIN, None);
                let text = format!("entries from {} on come from other members", missing.after.next());
                self.progress.note(&text, sound.missing_count());
                if let Some(lending) = &self.lending {
                    lending.note(&sound);
                }
                continue;
            }
            let text = format!(
                "entries {} to {} are needed, and no member could give them yet ({})",
                missing.after.next(),
                missing.through,
                reasons.join("; ")
            );
            if self.progress.note(&text, sound.missing_count()) {
                warn!(waiting = %text, "the repair waits for other members");
            }
            if look_again.is_some_and(|at| self.env.now() >= at) {
                return Ok(None);
            }
            self.env.sleep_until(self.env.now().plus(pause_micros)).await;
            pause_micros = (pause_micros * 2).min(PAUSE_MICROS_MAX);
        }
        Ok(Some(sound))
    }

    async fn ask(&self, addr: &str, wants: MendWants) -> Result<MendReply, String> {
        ask_mending(&self.dialer, addr, self.me.call(wants)).await
    }

    async fn ask_for_entries(
        &mut self,
        addr: &str,
        sound: &mut Sound,
        missing: &Missing,
    ) -> Result<Got, StartError> {
        let Missing { after, through, anchor } = *missing;
        let reply = match self.ask(addr, MendWants::Entries { after, through, anchor }).await {
            Ok(reply) => reply,
            Err(why) => return Ok(Got::Nothing(why)),
        };
        Ok(match reply {
            MendReply::Entries(bytes) => {
                let length = bytes.len() as u64;
                let highest = self.dialer.speaks.highest();
                let supplied = decode_entries(bytes).and_then(|entries| {
                    let count = entries.len() as u64;
                    if let Some(level) =
                        entries.iter().filter_map(Entry::level).find(|level| *level > highest)
                    {
                        return Err(format!(
                            "they are of feature level {level}, and this node speaks {highest}"
                        ));
                    }
                    sound.supply(missing, entries).map(|()| count).map_err(|error| error.to_string())
                });
                match supplied {
                    Ok(0) => Got::Nothing("it has none of them".to_owned()),
                    Ok(count) => {
                        self.progress.fetched(count, length);
                        Got::Something
                    }
                    Err(why) => Got::Nothing(why),
                }
            }
            MendReply::Lacks { .. } => Got::Lacks(*missing),
            MendReply::Gone { snapshot: Some(snapshot), .. } if snapshot.index <= after => {
                Got::Nothing(format!("they are gone there, and its snapshot ends at entry {snapshot}"))
            }
            MendReply::Gone { snapshot: Some(snapshot), has_anchor } => {
                let verified = has_anchor.then_some(anchor);
                self.snapshot(addr, sound, snapshot, verified).await?
            }
            MendReply::Gone { snapshot: None, .. } => {
                Got::Nothing("they are gone there, and it takes a snapshot".to_owned())
            }
            MendReply::Removed { told_by } => return Err(StartError::Removed { told_by }),
            MendReply::Refused(why) => Got::Nothing(why),
            other => Got::Nothing(format!("it answered {}", name_of(&other))),
        })
    }

    /// Takes a peer's snapshot, if that can take the place of what is missing.
    async fn snapshot(
        &mut self,
        addr: &str,
        sound: &mut Sound,
        snapshot: LogId,
        mut verified: Option<LogId>,
    ) -> Result<Got, StartError> {
        if sound.check_base(snapshot, verified).is_err() {
            // It ends within what is missing further on: does its log have what comes after that?
            let anchor = sound.anchor_behind(snapshot.index);
            let after = snapshot.index;
            let behind = Missing { after, through: anchor.index, anchor };
            match self.ask(addr, MendWants::Entries { after, through: anchor.index, anchor }).await {
                Ok(MendReply::Entries(_) | MendReply::Gone { has_anchor: true, .. }) => {
                    verified = Some(anchor);
                }
                // What this log has last may count nowhere. Nothing else would say so: what is
                // missing first is there, or gone.
                Ok(MendReply::Lacks { .. }) => return Ok(Got::Lacks(behind)),
                _ => {}
            }
        }
        if let Err(error) = sound.check_base(snapshot, verified) {
            return Ok(Got::Nothing(error.to_string()));
        }
        info!(from = %addr, index = snapshot.index.get(), "fetching a snapshot");
        let mut incoming = Some(self.survey.incoming_snapshot());
        let mut offset = 0;
        loop {
            let taking: RepairSnapshot<E::Disk> = incoming.take().expect("it is put back each time");
            let chunk = match self.chunk(addr, snapshot, offset).await {
                Ok(chunk) => chunk,
                Err(why) => {
                    // Each peer has another snapshot: what came of several would fill the disk.
                    self.abandon(taking).await?;
                    return Ok(Got::Nothing(why));
                }
            };
            let length = chunk.data.len() as u64;
            offset += length;
            let taken = in_blocks(self.env, move || Ok(take(taking, chunk))).await?;
            self.progress.fetched(0, length);
            match taken {
                Ok((_, Some(meta))) => {
                    let supplied = sound.supply_base(meta, verified);
                    return Ok(supplied.map_or_else(|why| Got::Nothing(why.to_string()), |()| Got::Something));
                }
                Ok((going_on, None)) if length > 0 => incoming = Some(going_on),
                Ok((ended, None)) => {
                    self.abandon(ended).await?;
                    return Ok(Got::Nothing("its snapshot ends before its end".to_owned()));
                }
                Err(why) => return Ok(Got::Nothing(why)),
            }
        }
    }

    /// Removes what has come of a snapshot.
    async fn abandon(&self, incoming: RepairSnapshot<E::Disk>) -> Result<(), StartError> {
        let abandon = move || {
            incoming.abandon();
            Ok(())
        };
        in_blocks(self.env, abandon).await
    }

    /// The next chunk. A connection that breaks costs the chunk, and not the snapshot.
    async fn chunk(&self, addr: &str, snapshot: LogId, offset: u64) -> Result<SnapshotChunk, String> {
        let mut attempts = 0;
        loop {
            let reply = self.ask(addr, MendWants::Chunk { snapshot: Some(snapshot), offset }).await;
            match reply {
                Ok(MendReply::Chunk { snapshot: described, offset: at, data, done }) => {
                    let chunk = decode_chunk(&described, at, data, done)?;
                    if chunk.snapshot.last != snapshot || at != offset {
                        return Err("it sent another chunk than was asked for".to_owned());
                    }
                    return Ok(chunk);
                }
                Ok(MendReply::Refused(why)) => return Err(why),
                Ok(other) => return Err(format!("it answered {}", name_of(&other))),
                Err(why) if attempts >= 3 => return Err(why),
                Err(_) => attempts += 1,
            }
            self.env.sleep_until(self.env.now().plus(PAUSE_MICROS_MIN << attempts)).await;
        }
    }

    /// No member has what this log has last. If a leader that a quorum confirms does not have it
    /// either, it counts nowhere: this log ends as the leader's does.
    async fn follow_leader(&self, sound: &mut Sound, missing: &Missing) -> Result<(), String> {
        let (leader, end) = ask_leader(&self.dialer, &self.peers, self.me).await?;
        let Missing { after, through, anchor } = *missing;
        match self.ask(&leader, MendWants::Entries { after, through, anchor }).await? {
            MendReply::Lacks { .. } => {
                info!(%leader, lost = %anchor, %end, "the end of this log was never committed; it ends as the leader's does");
                sound.follow(end).map_err(|error| format!("{leader}: {error}"))
            }
            _ => Err(format!("{leader} has what was asked for, after all")),
        }
    }
}

fn take<D: crate::storage::Disk>(
    mut incoming: RepairSnapshot<D>,
    chunk: SnapshotChunk,
) -> Result<(RepairSnapshot<D>, Option<SnapshotMeta>), String> {
    let taken = incoming.take(&chunk).map_err(|error| error.to_string())?;
    Ok((incoming, taken))
}

/// A chunk as it travels. Bytes of a peer: no chunk goes beyond what its snapshot says to have.
fn decode_chunk(described: &[u8], offset: u64, data: Vec<u8>, done: bool) -> Result<SnapshotChunk, String> {
    let meta = SnapshotMeta::decode(described).map_err(|error| error.to_string())?;
    let end = offset.checked_add(data.len() as u64).filter(|end| *end <= meta.bytes);
    if end.is_none() || done != (end == Some(meta.bytes)) {
        return Err("it sent a chunk that does not fit into its snapshot".to_owned());
    }
    Ok(SnapshotChunk { snapshot: Box::new(meta), offset, data: Bytes::from(data), done })
}

/// Entries as they travel. Bytes of a peer: each entry carries a checksum.
fn decode_entries(bytes: Vec<u8>) -> Result<Vec<Entry>, String> {
    let mut reader = Reader::new(Bytes::from(bytes));
    let mut entries = Vec::new();
    while !reader.is_empty() {
        entries.push(Entry::decode(&mut reader).map_err(|error| error.to_string())?);
    }
    Ok(entries)
}

async fn ask_mending<E: Env>(dialer: &Dialer<E>, addr: &str, call: MendCall) -> Result<MendReply, String> {
    match ask(dialer, addr, &Question::Mend(call), ANSWER_MICROS).await? {
        Reply::Mend(reply) => Ok(reply),
        Reply::Refused(why) => Err(why),
        _ => Err("it answered something else".to_owned()),
    }
}

/// Why there is no leader that can help.
enum NoLeader {
    /// None is confirmed yet.
    Yet(String),
    /// This node is no member any more.
    Removed(NodeId),
}

impl From<NoLeader> for String {
    fn from(why: NoLeader) -> Self {
        match why {
            NoLeader::Yet(why) => why,
            NoLeader::Removed(by) => format!("member {by} says that this node was removed"),
        }
    }
}

/// A leader that a quorum confirms without this node, and the end of its log.
async fn ask_leader<E: Env>(
    dialer: &Dialer<E>,
    peers: &[String],
    me: Me,
) -> Result<(String, LogId), NoLeader> {
    let mut reasons = Vec::new();
    let mut addrs = peers.to_vec();
    let mut next = 0;
    while let Some(addr) = addrs.get(next).cloned() {
        next += 1;
        match ask_mending(dialer, &addr, me.call(MendWants::Leader)).await {
            Ok(MendReply::Leads { end }) => return Ok((addr, end)),
            Ok(MendReply::Elsewhere { leader: Some(leader) }) => {
                if !addrs.contains(&leader) && addrs.len() < PEERS_MAX {
                    addrs.push(leader);
                }
            }
            Ok(MendReply::Elsewhere { leader: None }) => reasons.push(format!("{addr} knows no leader")),
            Ok(MendReply::Removed { told_by }) => return Err(NoLeader::Removed(told_by)),
            Ok(MendReply::Refused(why)) | Err(why) => reasons.push(format!("{addr}: {why}")),
            Ok(other) => reasons.push(format!("{addr} answered {}", name_of(&other))),
        }
    }
    Err(NoLeader::Yet(format!("no leader is confirmed ({})", reasons.join("; "))))
}

/// Waits for a leader that a quorum confirms without this node; returns its address. `None`: there
/// was none for so long that the disk is to be looked at again. Without that, nodes whose disks all
/// failed for a moment would wait for each other for ever.
///
/// # Errors
/// [`StartError::Removed`] if the node knows which member it was, and is none any more: a damaged
/// directory is no way back into a cluster.
pub(super) async fn find_leader<E: Env>(
    dialer: &Dialer<E>,
    (peers, me): (&[String], Me),
    progress: &RepairProgress,
    doing: &str,
) -> Result<Option<String>, StartError> {
    let mut pause_micros = PAUSE_MICROS_MIN;
    let look_again = dialer.env.now().plus(LOOK_AGAIN_MICROS);
    loop {
        match ask_leader(dialer, peers, me).await {
            Ok((leader, _)) => return Ok(Some(leader)),
            Err(NoLeader::Removed(told_by)) => return Err(StartError::Removed { told_by }),
            Err(NoLeader::Yet(why)) => {
                let text = format!("{doing}; it waits for a leader that can replace it ({why})");
                if progress.note(&text, 0) {
                    warn!(waiting = %text, "the repair waits for other members");
                }
            }
        }
        if dialer.env.now() >= look_again {
            return Ok(None);
        }
        dialer.env.sleep_until(dialer.env.now().plus(pause_micros)).await;
        pause_micros = (pause_micros * 2).min(PAUSE_MICROS_MAX);
    }
}

const fn name_of(reply: &MendReply) -> &'static str {
    match reply {
        MendReply::Entries(_) => "with entries",
        MendReply::Gone { .. } => "that they are gone",
        MendReply::Lacks { .. } => "that it lacks them",
        MendReply::Chunk { .. } => "with a chunk",
        MendReply::Leads { .. } | MendReply::Elsewhere { .. } => "who leads",
        MendReply::Removed { .. } => "that this node was removed",
        MendReply::Refused(_) => "no",
    }
}

#[cfg(test)]
mod tests;
