//! Incoming connections on the raft port: hellos are judged, peers' messages handed to the driver,
//! questions answered.

use crate::codec::{FeatureLevel, decode_frame};
use crate::peer::address_book::{AddressBook, Closing, Connected};
use crate::peer::block::BlockError;
use crate::peer::discovery::Discovery;
use crate::peer::greeting::{Greeting, SpokenLevels};
use crate::peer::hello::{Hello, HelloAnswer, Manner, PeerHello, read_heard};
use crate::peer::options::{MESSAGE_BYTES_MAX, TransportOptions};
use crate::peer::refusal::Refusal;
use crate::peer::secured::{Dialer, Guard, TurnedAway, accept_secured};
use crate::peer::vouching::Rounds;
use crate::raft::{ClusterId, NodeId, Time};
use crate::replica::PeerMessage;
use crate::runtime::door::{Caller, Episode, Places};
use crate::runtime::refusals::RefusalLog;
use crate::runtime::{Env, Listener, Metrics, until, watch};
use crate::tls::{PeerCertificate, Stream};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::{error, info, warn};

/// Bytes of a new receive buffer. The buffer is …
const BUFFER_BYTES: usize = 64 << 10;
/// … given back when it had to grow beyond this for a long message, …
const BUFFER_BYTES_KEPT: usize = 2 << 20;
/// … and made anew when it has room for fewer bytes than that.
const ROOM_BYTES_MIN: usize = 8 << 10;
/// The bytes that may wait are counted in units of this.
pub(crate) const ROOM_UNIT_BYTES: usize = 1 << 10;
/// Characters of a reason in a log line, at most.
const REASON_CHARS_MAX: usize = 400;
/// Callers that are remembered as members', at most.
const KNOWN_MAX: usize = 64;
/// An answer that is due when the node ends leaves within this time.
const LAST_WORDS_MICROS: u64 = 500_000;
/// The pause after the system could not accept a connection (no file descriptors left, say).
const ACCEPT_PAUSE_MICROS: u64 = 100_000;

/// Messages that one read of a socket brought.
#[derive(Debug)]
pub(crate) struct PeerBatch {
    /// The cluster for which the connection was let in.
    pub cluster: ClusterId,
    /// The member for which it was let in.
    pub to: NodeId,
    /// The messages.
    pub messages: Vec<PeerMessage>,
    /// Their part of the bytes that may wait, given back when they have been taken.
    pub _room: OwnedSemaphorePermit,
}

/// Answers the questions that come in. The floor above knows the answers.
pub(crate) trait Answers<E: Env>: Send + Sync + 'static {
    /// Reads one question and answers it, at that level. `shown` is the caller's certificate, where
    /// connections are secured.
    fn serve(
        &self,
        stream: (Stream<E::Stream>, FeatureLevel),
        shown: Option<PeerCertificate>,
    ) -> impl Future<Output = ()> + Send;
}

/// What every incoming connection needs.
#[derive(Debug)]
pub(crate) struct Incoming<E, S> {
    /// Sockets and time.
    pub env: E,
    /// Says which callers to let in.
    pub address_book: Arc<AddressBook>,
    /// Where messages go.
    pub messages: mpsc::Sender<PeerBatch>,
    /// Answers questions.
    pub service: S,
    /// Takes what a caller says of this node.
    pub discoveries: mpsc::Sender<Discovery>,
    /// Limits and timings.
    pub options: TransportOptions,
    /// Counters and histograms of this node.
    pub metrics: Metrics,
    /// Becomes `true` when the node ends.
    pub ended: watch::Receiver<bool>,
    /// Bytes of received messages that may wait, in units of [`ROOM_UNIT_BYTES`].
    pub room: Arc<Semaphore>,
    /// Bytes of messages of which only a part has come, in the same units.
    pub parts: Arc<Semaphore>,
    /// Takes handshakes, where connections between nodes are secured.
    pub guard: Option<Guard<E>>,
    /// What was logged of callers that were turned away.
    pub refusals: Mutex<RefusalLog>,
    /// Finds out who callers are that are not known yet, where connections are secured.
    pub rounds: Rounds,
}

impl<E: Env, S: Answers<E>> Incoming<E, S> {
    /// Accepts connections until the node ends.
    pub(crate) async fn run(self: Arc<Self>, mut listener: E::Listener) {
        let (max, per_address_max) = (self.options.connections_max, self.options.connections_per_address_max);
        let places = Arc::new(Mutex::new(PortPlaces::new(max, per_address_max)));
        let mut trouble = Episode::default();
        let ended = self.ended.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => {
                    if let Some(failures) = trouble.ended(self.env.now()) {
                        info!(failures, "connections on the raft port are accepted again");
                    }
                    let caller = Caller::of(&from);
                    let is_of_member = self.address_book.is_of_member(&caller);
                    let Some(mut place) = PortPlace::take(&places, caller, is_of_member) else {
                        self.log_refusal_once(&from, "full", "too many connections on the raft port");
                        continue;
                    };
                    let this = self.clone();
                    self.env.spawn(async move {
                        this.serve_until_the_end(stream, &from, &mut place).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    if trouble.failed(self.env.now()) {
                        error!(%error, "cannot accept connections on the raft port");
                    }
                    self.env.sleep_until(self.env.now().plus(ACCEPT_PAUSE_MICROS)).await;
                }
            }
        }
    }

    /// When the node ends, what it has to say still leaves; nothing else keeps the task.
    async fn serve_until_the_end(&self, stream: E::Stream, from: &str, place: &mut PortPlace) {
        let serving = self.serve(stream, from, place);
        tokio::pin!(serving);
        tokio::select! {
            biased;
            () = &mut serving => return,
            _ = self.ended.wait_for(|ended| *ended) => {}
        }
        until(&self.env, self.env.now().plus(LAST_WORDS_MICROS), serving).await;
    }

    async fn serve(&self, stream: E::Stream, from: &str, place: &mut PortPlace) {
        let deadline = self.env.now().plus(self.options.connect_timeout_micros);
        let secured = accept_secured(&self.env, self.guard.as_ref(), (stream, from), deadline).await;
        let (mut stream, shown) = match secured {
            Ok(secured) => secured,
            Err(TurnedAway { reason, .. }) if reason.is_empty() => return,
            Err(TurnedAway { kind, reason }) => return self.log_refusal_once(from, kind, &reason),
        };
        let speaks = self.options.speaks;
        match until(&self.env, deadline, Greeting::read(&mut stream, speaks)).await {
            None => self.log_refusal_once(from, "silent", "it said no hello"),
            Some(Err(BlockError::Io(_))) => {}
            Some(Err(error)) => {
                let reason = error.to_string();
                self.log_refusal_once(from, error.kind(), &reason);
                // A node of another release reads this and logs it. For other callers it does no
                // harm.
                let answer = HelloAnswer::Refused(format!("the caller cannot be understood: {reason}"));
                let manner = Manner::for_anybody(speaks);
                let _ = until(&self.env, deadline, answer.write(&mut stream, manner)).await;
            }
            Some(Ok(greeting)) => {
                let here = SpokenLevels::of_any_cluster(speaks);
                let manner = greeting.manner(here);
                match greeting.hello {
                    Hello::Rpc if greeting.levels.common(here).is_none() => {
                        let reason = format!("it speaks level {} only", greeting.levels.speaks);
                        self.log_refusal_once(from, "level", &reason);
                        let why = format!("this node speaks level {speaks} of the protocol");
                        let answer = HelloAnswer::OtherLevel { speaks, needs: speaks.lowest(), why };
                        answered(&self.env, deadline, &mut stream, (answer, manner)).await;
                    }
                    Hello::Rpc => {
                        let accepted = (HelloAnswer::Accepted, manner);
                        if answered(&self.env, deadline, &mut stream, accepted).await {
                            self.service.serve((stream, manner.agreed), shown).await;
                        }
                    }
                    Hello::Peer(hello) => {
                        let hello = (hello, greeting.levels, manner);
                        self.serve_peer((stream, shown), (from, place), hello, deadline).await;
                    }
                }
            }
        }
    }

    async fn serve_peer(
        &self,
        (mut stream, shown): (Stream<E::Stream>, Option<PeerCertificate>),
        (from, place): (&str, &mut PortPlace),
        (hello, levels, manner): (PeerHello, SpokenLevels, Manner),
        deadline: Time,
    ) {
        let admit = || self.address_book.admit((&hello, levels), shown.as_ref(), self.env.now());
        let mut admitted = admit();
        if matches!(admitted, Err(Refusal::Unconfirmed { .. }))
            && until(&self.env, deadline, self.confirm(hello.from, shown.as_ref())).await == Some(true)
        {
            admitted = admit();
        }
        let connected = match admitted {
            Ok(connected) => connected,
            Err(refusal @ Refusal::OlderCopy { .. }) => {
                // These may be the last words of a process that has ended, which arrive after those
                // of the next start. Nothing is wrong then, and nobody answers.
                let answer = (HelloAnswer::OlderCopy(refusal.to_string()), manner);
                let heard = answered(&self.env, deadline, &mut stream, answer).await
                    && matches!(
                        until(&self.env, deadline, read_heard(&mut stream, self.options.speaks)).await,
                        Some(Ok(()))
                    );
                if heard {
                    self.log_impostor(from, &hello, &refusal);
                    self.address_book.note_older_copy(hello.from, refusal.to_string());
                }
                return;
            }
            Err(refusal) => {
                let answer = self.refuse(from, &hello, &refusal);
                answered(&self.env, deadline, &mut stream, (answer, manner)).await;
                return;
            }
        };
        self.clear_refusals(from);
        place.become_members();
        if levels.speaks.highest() < self.options.speaks.highest() {
            // The node has to know before it hears the member.
            let found = Discovery::Speaks { peer: hello.from, speaks: levels.speaks };
            let _ = self.discoveries.send(found).await;
        }
        let level = connected.level();
        let manner = Manner { agreed: level, ..manner };
        if !answered(&self.env, deadline, &mut stream, (HelloAnswer::Accepted, manner)).await {
            return connected.end();
        }
        info!(peer = hello.from.get(), addr = %hello.raft_addr, level = level.get(), "peer connected");
        self.address_book.note_call(hello.from);
        let receiver = Receiver { cluster: hello.cluster, from: hello.from, to: hello.to, level };
        let ended = self.ended.clone();
        let reason = tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => return,
            reason = self.receive(stream, &receiver, (&connected, shown.as_ref())) => reason,
        };
        connected.end();
        if let Some(reason) = reason {
            self.metrics.messages_refused.inc();
            warn!(peer = hello.from.get(), %reason, "closing the connection of a peer");
        } else {
            info!(peer = hello.from.get(), "peer disconnected");
        }
    }

    /// Whether somebody who is known here says that the holder of the certificate is that member.
    async fn confirm(&self, id: NodeId, shown: Option<&PeerCertificate>) -> bool {
        let Some(shown) = shown else { return true };
        let (tls, speaks) = (self.options.tls.clone(), self.options.speaks);
        let dialer = Dialer { env: self.env.clone(), tls, names: None, speaks };
        self.rounds.confirm(&dialer, &self.address_book, (id, shown)).await
    }

    /// Says why a caller is not let in, here and to it.
    fn refuse(&self, from: &str, hello: &PeerHello, refusal: &Refusal) -> HelloAnswer {
        let reason = refusal.to_string();
        match refusal {
            Refusal::NotYet { .. } => {}
            Refusal::Twin { .. } => self.log_impostor(from, hello, refusal),
            Refusal::OtherCluster { .. } => {
                self.log_refusal_once(from, refusal.kind(), &reason);
                let found = Discovery::Called { cluster: hello.cluster, member: hello.to };
                // Lost if too much waits: the caller calls again.
                let _ = self.discoveries.try_send(found);
            }
            Refusal::OtherLevel { ours, needs, .. } if *needs > ours.highest() => {
                self.log_refusal_once(from, refusal.kind(), &reason);
                let (me, told_by) = ((hello.cluster, hello.to), hello.from);
                let _ = self.discoveries.try_send(Discovery::Outgrown { me, level: *needs, told_by });
            }
            _ => self.log_refusal_once(from, refusal.kind(), &reason),
        }
        match refusal {
            Refusal::NotYet { .. } | Refusal::Unconfirmed { .. } => HelloAnswer::NotYet(reason),
            Refusal::Removed { .. } => HelloAnswer::Removed(reason),
            Refusal::OtherLevel { ours, needs, .. } => {
                HelloAnswer::OtherLevel { speaks: *ours, needs: *needs, why: reason }
            }
            _ => HelloAnswer::Refused(reason),
        }
    }

    /// A member's directory is a copy of another: that is said loudly.
    fn log_impostor(&self, from: &str, hello: &PeerHello, refusal: &Refusal) {
        let now = self.env.now();
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left_out) = refusals.is_due(now, Caller::of(from), refusal.kind()) {
            error!(%from, peer = hello.from.get(), reason = %refusal, left_out, "A MEMBER IS NOT LET IN");
        }
    }

    /// Hands messages on, all that one read brought as one batch. Returns why the connection has to
    /// be closed, or `None` when the peer did.
    async fn receive(
        &self,
        mut stream: Stream<E::Stream>,
        receiver: &Receiver,
        (connected, shown): (&Connected, Option<&PeerCertificate>),
    ) -> Option<String> {
        let mut received = BytesMut::new();
        let mut part = None;
        loop {
            make_room(&mut received);
            let reads = stream.read_buf(&mut received);
            // Whoever holds room with a part of a message sends the rest of it.
            let read = match part {
                Some(_) => {
                    let deadline = self.env.now().plus(self.options.write_timeout_micros);
                    until(&self.env, deadline, reads).await
                }
                None => Some(reads.await),
            };
            match read {
                None => return Some("a part of a message came, and nothing after it".to_owned()),
                Some(Ok(0) | Err(_)) => return None,
                Some(Ok(bytes)) => self.metrics.received_bytes.inc_by(bytes as u64),
            };
            match connected.heard(self.env.now()) {
                Ok(()) => {}
                Err(Closing::Superseded) => {
                    return Some("later connections have taken its place".to_owned());
                }
                // Nothing is wrong with it; it calls again, and is told.
                Err(Closing::Removed) => return None,
                Err(Closing::Outgrown) => {
                    return Some("the level of the cluster was raised above this connection's".to_owned());
                }
                Err(Closing::Misnamed) => {
                    return Some("its certificate is not that of the member for which it speaks".to_owned());
                }
                Err(Closing::Unconfirmed) => {
                    if !self.confirm(receiver.from, shown).await {
                        return Some("no member that is known says that it is one".to_owned());
                    }
                }
            }
            let before = received.len();
            let messages = match receiver.decode(&mut received) {
                Ok(messages) => messages,
                Err(reason) => return Some(reason),
            };
            if !messages.is_empty() {
                // A full queue holds this socket up, and with it the peer: nothing is lost.
                let room = self.make_room_for(before - received.len()).await?;
                let batch = PeerBatch { cluster: receiver.cluster, to: receiver.to, messages, _room: room };
                if self.messages.send(batch).await.is_err() {
                    return None;
                }
            }
            if !self.hold_part(&mut part, received.len()).await {
                return Some("parts of other messages leave no room for what it sends".to_owned());
            }
        }
    }

    /// Counts the `bytes` of a message of which only a part has come; what fits into any buffer is
    /// not counted. `false`: others take all the room, and keep it.
    async fn hold_part(&self, part: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> bool {
        if bytes <= BUFFER_BYTES {
            *part = None;
            return true;
        }
        let held = part.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(ROOM_UNIT_BYTES).saturating_sub(held);
        if more == 0 {
            return true;
        }
        let deadline = self.env.now().plus(self.options.write_timeout_micros);
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let acquired = until(&self.env, deadline, self.parts.clone().acquire_many_owned(more)).await;
        let Some(Ok(permit)) = acquired else { return false };
        match part {
            Some(part) => part.merge(permit),
            None => *part = Some(permit),
        }
        true
    }

    /// Waits until `bytes` more may wait; `None` when the node ends.
    async fn make_room_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.min(self.options.receive_bytes_max).div_ceil(ROOM_UNIT_BYTES);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.room.clone().acquire_many_owned(units).await.ok()
    }

    /// Logs why a caller was turned away, once in a while for each caller and kind of reason.
    fn log_refusal_once(&self, from: &str, kind: &'static str, reason: &str) {
        let now = self.env.now();
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left_out) = refusals.is_due(now, Caller::of(from), kind) else { return };
        drop(refusals);
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
        warn!(%from, %reason, left_out, "turned away a connection to the raft port");
    }

    fn clear_refusals(&self, from: &str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.clear(&Caller::of(from));
    }
}

/// The places on the raft port. One in four is for members: strangers, who have not said yet who
/// they are, cannot take those, however many addresses they have.
#[derive(Debug)]
struct PortPlaces {
    /// The places of each [`Pool`].
    pools: [Places; 2],
    /// Callers that were let in as members, the latest last: a member may call from elsewhere than
    /// where it is reached.
    known: VecDeque<Caller>,
}

/// What kind of caller a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    Strangers,
    Members,
}

impl PortPlaces {
    fn new(max: usize, per_address_max: usize) -> Self {
        let of_members = max.div_ceil(4);
        let pools = [max - of_members, of_members].map(|max| Places::new(max, per_address_max));
        Self { pools, known: VecDeque::new() }
    }

    fn take(&mut self, caller: &Caller, is_of_member: bool) -> Option<Pool> {
        let is_known = is_of_member || self.known.contains(caller);
        let pools = if is_known { &[Pool::Members, Pool::Strangers][..] } else { &[Pool::Strangers] };
        pools.iter().copied().find(|pool| self.pools[*pool as usize].take(caller).is_ok())
    }

    fn note_member(&mut self, caller: &Caller) {
        self.known.retain(|known| known != caller);
        if self.known.len() >= KNOWN_MAX {
            self.known.pop_front();
        }
        self.known.push_back(caller.clone());
    }
}

/// A place on the raft port, given back when its connection ends, however it ends.
struct PortPlace {
    places: Arc<Mutex<PortPlaces>>,
    caller: Caller,
    pool: Pool,
}

impl PortPlace {
    fn take(places: &Arc<Mutex<PortPlaces>>, caller: Caller, is_of_member: bool) -> Option<Self> {
        let pool = lock(places).take(&caller, is_of_member)?;
        Some(Self { places: places.clone(), caller, pool })
    }

    /// Its caller was let in as a member: strangers get its place.
    fn become_members(&mut self) {
        let mut places = lock(&self.places);
        places.note_member(&self.caller);
        if self.pool == Pool::Strangers && places.pools[Pool::Members as usize].take(&self.caller).is_ok() {
            places.pools[Pool::Strangers as usize].give_back(&self.caller);
            self.pool = Pool::Members;
        }
    }
}

impl Drop for PortPlace {
    fn drop(&mut self) {
        lock(&self.places).pools[self.pool as usize].give_back(&self.caller);
    }
}

fn lock(places: &Mutex<PortPlaces>) -> MutexGuard<'_, PortPlaces> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The member whose messages one connection may carry.
struct Receiver {
    cluster: ClusterId,
    from: NodeId,
    to: NodeId,
    /// The level at which both speak.
    level: FeatureLevel,
}

impl Receiver {
    /// Takes all complete messages from the front of `received`.
    fn decode(&self, received: &mut BytesMut) -> Result<Vec<PeerMessage>, String> {
        let mut messages = Vec::new();
        while let Some(frame) =
            decode_frame(received, MESSAGE_BYTES_MAX).map_err(|error| error.to_string())?
        {
            if frame.is_empty() {
                // An empty frame: the peer says that it lives.
                continue;
            }
            // A decoded message shares the bytes that it is decoded from, and entries live in the
            // log for long. So each message gets one allocation of its own size. A log releases its
            // entries in order, so an entry that stays keeps at most the bytes of one append.
            let message =
                PeerMessage::decode(Bytes::copy_from_slice(&frame)).map_err(|error| error.to_string())?;
            if !message.is_sayable_at(self.level) {
                return Err(format!("it sent what has no words at level {}", self.level));
            }
            if message.from() != self.from || message.to() != self.to {
                return Err(format!("it sent a message from {} to {}", message.from(), message.to()));
            }
            messages.push(message);
        }
        Ok(messages)
    }
}

/// Nothing else keeps a part of the buffer, so it is used again and again. A buffer that had to
/// grow for a long message is given back.
fn make_room(received: &mut BytesMut) {
    if received.is_empty() && received.capacity() > BUFFER_BYTES_KEPT {
        *received = BytesMut::new();
    }
    if received.capacity() - received.len() < ROOM_BYTES_MIN {
        received.reserve(BUFFER_BYTES);
    }
}

async fn answered<E: Env>(
    env: &E,
    deadline: Time,
    stream: &mut Stream<E::Stream>,
    (answer, manner): (HelloAnswer, Manner),
) -> bool {
    matches!(until(env, deadline, answer.write(stream, manner)).await, Some(Ok(())))
}

#[cfg(test)]
mod tests;
