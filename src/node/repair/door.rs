//! The raft port of a node that repairs its data directory: it lets no member in, and answers
//! others that repair theirs.

use crate::codec::FeatureLevels;
use crate::node::mending::encode_entries;
use crate::peer::greeting::{Greeting, Terms};
use crate::peer::hello::{Hello, HelloAnswer};
use crate::peer::mending::{MendCall, MendCaller, MendReply, MendWants};
use crate::peer::rpc::{Question, Reply, read_question, write_reply};
use crate::peer::secured::{Dialer, Guard, accept_secured};
use crate::raft::{LogIndex, Time};
use crate::runtime::{Env, Listener, until};
use crate::storage::Sound;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Connections at the same time; the others wait.
const CONNECTIONS_MAX: usize = 16;
/// A caller that takes longer is given up.
const TALK_MICROS: u64 = 5_000_000;
/// The pause after the system could not accept a connection.
const ACCEPT_PAUSE_MICROS: u64 = 100_000;
const WHY: &str = "this node is repairing its data directory, and takes no part until that is done";

/// What answers.
#[derive(Clone)]
pub(super) struct Door<E> {
    env: E,
    /// Takes handshakes, where connections between nodes are secured.
    guard: Option<Arc<Guard<E>>>,
    caller: Option<MendCaller>,
    /// The levels that this node speaks.
    speaks: FeatureLevels,
    /// What this node has of its log.
    held: Option<Arc<Mutex<Sound>>>,
}

impl<E: Env> Door<E> {
    pub(super) fn new(dialer: &Dialer<E>, me: Option<MendCaller>, held: Option<Arc<Mutex<Sound>>>) -> Self {
        let guard = Guard::of(&dialer.env, dialer.tls.as_ref()).map(Arc::new);
        Self { env: dialer.env.clone(), guard, caller: me, speaks: dialer.speaks, held }
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
        let manner = greeting.manner(Terms::of_any_cluster(self.speaks));
        if let Hello::Peer(_) = greeting.hello {
            return HelloAnswer::NotYet(WHY.to_owned()).write(&mut stream, manner).await.ok();
        }
        HelloAnswer::Accepted.write(&mut stream, manner).await.ok()?;
        let reply = match read_question(&mut stream, manner.agreed).await.ok()? {
            Question::Mend(call) => Reply::Mend(self.answer(call)),
            _ => Reply::Refused(WHY.to_owned()),
        };
        write_reply(&mut stream, manner.agreed, &reply).await.ok()
    }

    fn answer(&self, call: MendCall) -> MendReply {
        let MendWants::Entries { after, through, anchor } = call.wants else {
            return MendReply::Refused(WHY.to_owned());
        };
        let same = call.caller.zip(self.caller).is_some_and(|(caller, me)| caller.cluster == me.cluster);
        let Some(held) = self.held.as_ref().filter(|_| same) else {
            return MendReply::Refused(WHY.to_owned());
        };
        let held = held.lock().unwrap_or_else(PoisonError::into_inner);
        // What is lost here is not lacking: it may have been there.
        if !held.has(anchor) {
            return MendReply::Refused(WHY.to_owned());
        }
        let mut next = after;
        let entries = std::iter::from_fn(|| {
            next = next.next();
            held.entry(next).filter(|_| next <= through.min(anchor.index))
        });
        let bytes = encode_entries(entries);
        if bytes.is_empty() {
            return MendReply::Refused(format!("entry {} is lost here, too", LogIndex::next(after)));
        }
        MendReply::Entries(bytes)
    }
}

#[cfg(test)]
mod tests;
