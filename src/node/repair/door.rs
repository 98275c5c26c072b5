//! The raft port of a node that repairs its data directory: it lets no member in, and answers
//! others that repair theirs.

use crate::codec::FeatureLevels;
use crate::node::beside::beside;
use crate::node::mending::{CHUNK_BYTES, encode_entries};
use crate::peer::greeting::{Greeting, SpokenLevels};
use crate::peer::hello::{Hello, HelloAnswer};
use crate::peer::mending::{MendCall, MendCaller, MendReply, MendWants};
use crate::peer::rpc::{Question, Reply, read_question, write_reply};
use crate::peer::secured::{Dialer, Guard, accept_secured};
use crate::raft::{LogId, LogIndex, NodeId, SnapshotChunk, SnapshotMeta, StoreId, Time};
use crate::runtime::{Env, Listener, until};
use crate::storage::{Disk, LentSnapshots, Sound, Survey};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// Connections at the same time; the others wait.
const CONNECTIONS_MAX: usize = 16;
/// A caller that takes longer is given up.
const TALK_MICROS: u64 = 5_000_000;
/// The pause after the system could not accept a connection.
const ACCEPT_PAUSE_MICROS: u64 = 100_000;
const WHY: &str = "this node is repairing its data directory, and takes no part until that is done";
const UNKNOWN: &str = "this node is repairing its data directory, and knows of no such member";

/// What answers.
#[derive(Clone)]
pub(super) struct Door<E: Env> {
    env: E,
    /// Takes handshakes, where connections between nodes are secured.
    guard: Option<Arc<Guard<E>>>,
    caller: Option<MendCaller>,
    /// The levels that this node speaks.
    speaks: FeatureLevels,
    /// What this node gives.
    lending: Option<Lending<E::Disk>>,
}

impl<E: Env> Door<E> {
    pub(super) fn new(dialer: &Dialer<E>, me: Option<MendCaller>, lending: Option<Lending<E::Disk>>) -> Self {
        let guard = Guard::of(&dialer.env, dialer.tls.as_ref()).map(Arc::new);
        Self { env: dialer.env.clone(), guard, caller: me, speaks: dialer.speaks, lending }
    }

    /// Answers until it is dropped.
    pub(super) async fn run(self, listener: &mut E::Listener) -> Infallible {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let place = places.clone().acquire_owned().await;
            match listener.accept().await {
                Ok((stream, from)) => {
                    let this = self.clone();
                    self.env.spawn(async move {
                        let deadline = this.env.now().plus(TALK_MICROS);
                        let _ = until(&this.env, deadline, this.serve((stream, &from), deadline)).await;
                        drop(place);
                    });
                }
                Err(_) => self.env.sleep_until(self.env.now().plus(ACCEPT_PAUSE_MICROS)).await,
            }
        }
    }

    async fn serve(&self, called: (E::Stream, &str), deadline: Time) -> Option<()> {
        let secured = accept_secured(&self.env, self.guard.as_deref(), called, deadline).await;
        let (mut stream, _) = secured.ok()?;
        let greeting = Greeting::read(&mut stream, self.speaks).await.ok()?;
        let manner = greeting.manner(SpokenLevels::of_any_cluster(self.speaks));
        if let Hello::Peer(_) = greeting.hello {
            return HelloAnswer::NotYet(WHY.to_owned()).write(&mut stream, manner).await.ok();
        }
        HelloAnswer::Accepted.write(&mut stream, manner).await.ok()?;
        let reply = match read_question(&mut stream, manner.agreed).await.ok()? {
            Question::Mend(call) => Reply::Mend(self.answer(call).await),
            _ => Reply::Refused(WHY.to_owned()),
        };
        write_reply(&mut stream, manner.agreed, &reply).await.ok()
    }

    async fn answer(&self, call: MendCall) -> MendReply {
        let refused = || MendReply::Refused(WHY.to_owned());
        let same = call.caller.zip(self.caller).is_some_and(|(caller, me)| caller.cluster == me.cluster);
        let Some(lending) = self.lending.as_ref().filter(|_| same) else { return refused() };
        let is_known = call.caller.is_some_and(|caller| lending.knows(caller));
        match call.wants {
            MendWants::Entries { after, through, anchor } => match lending.entries(after, through, anchor) {
                MendReply::Gone { .. } if !is_known => MendReply::Refused(UNKNOWN.to_owned()),
                reply => reply,
            },
            MendWants::Chunk { .. } if !is_known => MendReply::Refused(UNKNOWN.to_owned()),
            MendWants::Chunk { snapshot, offset } => {
                let base = lending.held().base().cloned();
                let asked = |base: &SnapshotMeta| snapshot.is_none_or(|asked| asked == base.last);
                let Some(base) = base.filter(asked) else {
                    return MendReply::Refused("this node does not have that snapshot".to_owned());
                };
                let snapshots = lending.snapshots.clone();
                let read = move || snapshots.read(&base, offset, CHUNK_BYTES);
                match beside(&self.env, "lending", read).await {
                    Ok(Ok(SnapshotChunk { snapshot, offset, data, done })) => {
                        let snapshot = snapshot.encode();
                        MendReply::Chunk { snapshot, offset, data: data.to_vec(), done }
                    }
                    Ok(Err(error)) => MendReply::Refused(error.to_string()),
                    Err(error) => MendReply::Refused(error.to_string()),
                }
            }
            MendWants::Leader => refused(),
        }
    }
}

/// What a node that repairs its directory gives to others that repair theirs.
pub(super) struct Lending<D: Disk> {
    /// What it has of its log.
    held: Arc<Mutex<Sound>>,
    /// Reads the snapshot that this log rests on.
    snapshots: Arc<LentSnapshots<D>>,
    /// The members, by the newest membership that was found. A snapshot is the whole state: no
    /// other caller gets it.
    members: Arc<BTreeMap<NodeId, StoreId>>,
}

impl<D: Disk> Lending<D> {
    /// `None` if nothing of the directory may be lent.
    pub(super) fn of(survey: &Survey<D>) -> Option<Self> {
        let held = Arc::new(Mutex::new(survey.lendable()?));
        let members = survey.membership().into_iter().flat_map(|membership| &membership.members);
        let members = Arc::new(members.map(|(id, member)| (*id, member.store_id)).collect());
        Some(Self { held, snapshots: Arc::new(survey.lent_snapshots()?), members })
    }

    fn knows(&self, caller: MendCaller) -> bool {
        self.members.get(&caller.member) == Some(&caller.store)
    }

    /// It has more by now.
    pub(super) fn note(&self, sound: &Sound) {
        *self.held() = sound.clone();
    }

    fn held(&self) -> MutexGuard<'_, Sound> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries, or the snapshot that takes their place. It never says that the log here lacks the
    /// anchor: what is lost here is not lacking, since it may have been there.
    fn entries(&self, after: LogIndex, through: LogIndex, anchor: LogId) -> MendReply {
        let held = self.held();
        let base = held.base().map(|base| base.last);
        let has_anchor = held.has(anchor);
        // A snapshot is committed state. It is of use whatever the caller's log has up to there.
        let is_covered = base.is_some_and(|base| anchor.index <= base.index);
        if after >= anchor.index || !(has_anchor || is_covered) {
            return MendReply::Refused(WHY.to_owned());
        }
        if has_anchor {
            let mut next = after;
            let entries = std::iter::from_fn(|| {
                next = next.next();
                held.entry(next).filter(|_| next <= through.min(anchor.index))
            });
            let bytes = encode_entries(entries);
            if !bytes.is_empty() {
                return MendReply::Entries(bytes);
            }
        }
        match base.filter(|base| base.index >= after) {
            Some(base) => MendReply::Gone { snapshot: Some(base), has_anchor },
            None => MendReply::Refused(format!("entry {} is lost here, too", after.next())),
        }
    }
}

impl<D: Disk> Clone for Lending<D> {
    fn clone(&self) -> Self {
        Self { held: self.held.clone(), snapshots: self.snapshots.clone(), members: self.members.clone() }
    }
}

#[cfg(test)]
mod tests;
