//! One outgoing connection: it connects, says hello and writes what waits. When it breaks, it
//! begins again.

use crate::codec::{FeatureLevel, encode_frame};
use crate::peer::address_book::{AddressBook, PeerCalls, Spoken};
use crate::peer::discovery::Discovery;
use crate::peer::greeting::{Greeted, NotGreeted, greet};
use crate::peer::hello::{Hello, HelloAnswer, PING_MICROS, write_heard};
use crate::peer::options::TransportOptions;
use crate::peer::secured::Dialer;
use crate::raft::NodeId;
use crate::replica::PeerMessage;
use crate::runtime::timer::Timer;
use crate::runtime::{Env, Metrics, until};
use crate::tls::Stream;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tracing::{info, warn};

/// A connection that lasted this long and broke is made again soon …
const LASTING_MICROS: u64 = 500_000;
/// … after these pauses. A process that ends may close its port after its connections: a connection
/// that is made in between is let in by nobody, and reset.
const SOON_MICROS: [u64; 3] = [0, 5_000, 20_000];
/// Different reasons not to be connected that are remembered.
const COMPLAINTS_MAX: usize = 8;
/// A write buffer that had to grow beyond this (a snapshot chunk, a large value) is given back
/// afterwards.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// The task behind one peer's queue. Ends when the queue is closed.
#[derive(Debug)]
pub(crate) struct Link<E> {
    /// Sockets and time.
    pub env: E,
    /// The peer's addresses, and this node's identity.
    pub address_book: Arc<AddressBook>,
    /// The peer.
    pub to: NodeId,
    /// What to send it.
    pub queue: mpsc::Receiver<Queued>,
    /// Limits and timings.
    pub options: TransportOptions,
    /// Counters and histograms of this node.
    pub metrics: Metrics,
    /// Takes the news that this node's data directory is an older copy.
    pub discoveries: mpsc::Sender<Discovery>,
}

/// A message that waits for its connection. Its bytes are counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Queued {
    message: PeerMessage,
    bytes: usize,
    waiting: Arc<AtomicUsize>,
}

impl Queued {
    /// A message of `bytes`, which count in `waiting` as long as it exists.
    pub(crate) fn new(message: PeerMessage, bytes: usize, waiting: &Arc<AtomicUsize>) -> Self {
        waiting.fetch_add(bytes, Ordering::Relaxed);
        Self { message, bytes, waiting: waiting.clone() }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why there is no connection.
struct Failed {
    reason: String,
    /// Whether it passes by itself.
    passes: bool,
    /// The peer's machine answered, and nothing listens there.
    is_gone: bool,
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self { reason, passes: false, is_gone: false }
    }
}

/// A connection to the peer, which has let this node in.
struct Connection<S> {
    stream: S,
    /// Where the peer was reached.
    addr: String,
    /// The level at which both speak.
    level: FeatureLevel,
}

/// How a connection ended.
enum End {
    /// The queue was closed.
    Closed,
    /// It broke, and why.
    Broken(String),
    /// The peer was started again at another address.
    Moved,
}

impl End {
    /// An entry is not understood at that level. Those after it are of no use without it.
    fn unsayable(level: FeatureLevel) -> Self {
        Self::Broken(format!("the peer speaks level {level}, and the log goes on at a higher one"))
    }

    /// Why it ended, and whether the peer is somewhere else now.
    fn reason(self) -> (String, bool) {
        match self {
            Self::Closed => ("the link was closed".to_owned(), false),
            Self::Broken(reason) => (reason, false),
            Self::Moved => ("the peer was started again at another address".to_owned(), true),
        }
    }
}

/// How a pause between two attempts ended.
enum Pause {
    /// Its time has passed.
    Over,
    /// The peer has connected to this node: it is there again.
    Called,
    /// The queue was closed.
    Closed,
}

impl<E: Env> Link<E> {
    /// Runs until the queue is closed.
    pub(crate) async fn run(mut self) {
        let mut backoff_micros = self.options.backoff_min_micros;
        // Tries the peer's addresses by turns, and first the one where it was last.
        let mut turn = 0;
        // Reasons that were logged since: a peer that stays away is a line for each address, not
        // one for each attempt.
        let mut complaints = BTreeSet::new();
        // Calls the peer even if there is nothing to send. The peer has to know which start of this
        // node lives before another process claims to be it.
        let calls = self.address_book.calls_of(self.to);
        let mut was_connected = false;
        let mut soon = [].iter();
        loop {
            let addrs = self.address_book.addresses(self.to);
            let (reason, passes) = match self.connect(&addrs, turn).await {
                Ok(connection) => {
                    info!(peer = self.to.get(), level = connection.level.get(), "connected to peer");
                    let since = self.env.now();
                    match self.write_until_broken(connection, &calls).await {
                        End::Closed => return,
                        end => {
                            let (reason, has_moved) = end.reason();
                            // It is called at its new address first.
                            turn = if has_moved { 0 } else { turn };
                            // The peer let this node in. If nothing listens there at the next
                            // attempt, its process has ended, however young the connection was.
                            was_connected = true;
                            let lasted = self.env.now().since(since) >= LASTING_MICROS;
                            // A peer that lets this node in and hangs up at once is called less and
                            // less often, like one that refuses.
                            if lasted {
                                complaints.clear();
                                backoff_micros = self.options.backoff_min_micros;
                            }
                            soon = if lasted { SOON_MICROS.iter() } else { [].iter() };
                            (reason, false)
                        }
                    }
                }
                Err(Failed { reason, passes, is_gone }) => {
                    turn = turn.wrapping_add(1);
                    if is_gone && std::mem::take(&mut was_connected) {
                        soon = [].iter();
                        // Lost if too much waits: the election timeout does the same, later.
                        let _ = self.discoveries.try_send(Discovery::PeerGone { peer: self.to });
                    }
                    (reason, passes)
                }
            };
            if !complaints.contains(&reason) {
                if passes {
                    info!(peer = self.to.get(), %reason, "no connection to peer yet");
                } else {
                    warn!(peer = self.to.get(), %reason, "no connection to peer; trying again");
                }
                if complaints.len() >= COMPLAINTS_MAX {
                    complaints.clear();
                }
                complaints.insert(reason);
            }
            let pause_micros = soon.next().copied();
            match self.drop_for(pause_micros.unwrap_or(backoff_micros), &calls).await {
                Pause::Over if pause_micros.is_some() => {}
                Pause::Over => {
                    backoff_micros = backoff_micros.saturating_mul(2).min(self.options.backoff_max_micros);
                }
                // It has said where it is.
                Pause::Called => (backoff_micros, turn) = (self.options.backoff_min_micros, 0),
                Pause::Closed => return,
            }
        }
    }

    async fn connect(&self, addrs: &[String], turn: usize) -> Result<Connection<Stream<E::Stream>>, Failed> {
        let addr = addrs
            .iter()
            .cycle()
            .nth(turn % addrs.len().max(1))
            .ok_or_else(|| "its address is not known".to_owned())?;
        let deadline = self.env.now().plus(self.options.connect_timeout_micros);
        let connected = until(&self.env, deadline, self.call(addr)).await;
        connected.unwrap_or_else(|| Err(format!("{addr} does not answer").into()))
    }

    /// Calls the peer at an address, and hears whether it lets this node in.
    async fn call(&self, addr: &str) -> Result<Connection<Stream<E::Stream>>, Failed> {
        let name = self.address_book.name(self.to);
        let (tls, speaks) = (self.options.tls.clone(), self.options.speaks);
        let dialer = Dialer { env: self.env.clone(), tls, names: None, speaks };
        let me = self.address_book.hello(self.to);
        let me_there = (me.cluster, me.from);
        let dial = || dialer.call_member(name.as_deref(), addr);
        let greeted = greet(self.address_book.spoken_levels(), &Hello::Peer(me), dial).await;
        let Greeted { mut stream, answer, level, theirs } = greeted.map_err(|error| match error {
            NotGreeted::NoConnection(error) => Failed {
                is_gone: error.kind() == io::ErrorKind::ConnectionRefused,
                ..Failed::from(format!("cannot connect to {addr}: {error}"))
            },
            NotGreeted::HungUp(error) => format!("{addr} hung up: {error}").into(),
            NotGreeted::NoAnswer(error) => format!("{addr} gave no answer: {error}").into(),
            NotGreeted::TooOld(why) => format!("{addr} cannot be talked to: {why}").into(),
        })?;
        let found = match &answer {
            HelloAnswer::Accepted => {
                self.address_book.note_spoken(self.to, Spoken { speaks: theirs, level });
                if theirs.highest() < speaks.highest() {
                    let found = Discovery::Speaks { peer: self.to, speaks: theirs };
                    let _ = self.discoveries.send(found).await;
                }
                return Ok(Connection { stream, addr: addr.to_owned(), level });
            }
            // This happens in every join that goes well, so there is nothing to warn of.
            HelloAnswer::NotYet(reason) => {
                return Err(Failed { passes: true, ..Failed::from(reason.clone()) });
            }
            HelloAnswer::OlderCopy(_) => {
                let _ = write_heard(&mut stream, level).await;
                Some(Discovery::OlderCopy { met_by: self.to })
            }
            HelloAnswer::Removed(_) => Some(Discovery::Removed { me: me_there, told_by: self.to }),
            HelloAnswer::OtherLevel { needs, .. } => (*needs > self.options.speaks.highest())
                .then_some(Discovery::Outgrown { me: me_there, level: *needs, told_by: self.to }),
            HelloAnswer::Refused(_) => None,
        };
        if let Some(found) = found {
            let _ = self.discoveries.send(found).await;
        }
        Err(format!("{addr} refuses this node: {}", answer.why()).into())
    }

    /// Everything that waits goes out in one write.
    async fn write_until_broken(
        &mut self,
        connection: Connection<Stream<E::Stream>>,
        calls: &PeerCalls,
    ) -> End {
        let Connection { mut stream, addr, level } = connection;
        let mut next: Option<Queued> = None;
        let mut buffer = Vec::new();
        let mut unexpected = [0];
        let mut ping = Timer::new(self.env.clone());
        let mut ping_at = self.env.now().plus(PING_MICROS);
        loop {
            if self.address_book.level() > level {
                return End::Broken(format!(
                    "the cluster is at level {} now, and this connection at {level}",
                    self.address_book.level()
                ));
            }
            if let Some(message) = next.take()
                && !self.put(&message, level, &mut buffer)
            {
                return End::unsayable(level);
            }
            while buffer.len() < self.options.write_bytes_max
                && let Ok(message) = self.queue.try_recv()
            {
                if !self.put(&message, level, &mut buffer) {
                    return End::unsayable(level);
                }
            }
            if !buffer.is_empty() {
                let written = tokio::select! {
                    biased;
                    written = self.write(&mut stream, &buffer) => written,
                    () = moved_from(&self.address_book, self.to, &addr, calls) => return End::Moved,
                };
                if let Err(error) = written {
                    return End::Broken(format!("the connection broke: {error}"));
                }
                ping_at = self.env.now().plus(PING_MICROS);
            }
            buffer.clear();
            if buffer.capacity() > BUFFER_BYTES_KEPT {
                buffer = Vec::new();
            }
            ping.set(Some(ping_at));
            tokio::select! {
                biased;
                message = self.queue.recv() => match message {
                    Some(message) => next = Some(message),
                    None => return End::Closed,
                },
                () = moved_from(&self.address_book, self.to, &addr, calls) => return End::Moved,
                () = poll_fn(|context| ping.poll(context)) => {
                    if ping.is_due(self.env.now()) {
                        encode_frame(&mut buffer, |_| {});
                    }
                }
                // The peer sends nothing after its answer, so anything that can be read here ends
                // the connection.
                read = stream.read(&mut unexpected) => {
                    return End::Broken(match read {
                        Ok(0) => "the peer closed the connection".to_owned(),
                        Ok(_) => "the peer spoke out of turn".to_owned(),
                        // A process that was killed ends TLS without a word.
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                            "the peer closed the connection".to_owned()
                        }
                        Err(error) => format!("the connection broke: {error}"),
                    });
                }
            }
        }
    }

    /// Appends a message to what is about to be written, in the words of a level. What those have
    /// no words for is left out. `false`: the messages after it are of no use without it.
    fn put(&self, queued: &Queued, level: FeatureLevel, buffer: &mut Vec<u8>) -> bool {
        if queued.message.is_sayable_at(level) {
            encode_frame(buffer, |out| queued.message.encode_at(level, out));
            return true;
        }
        self.metrics.messages_dropped.inc();
        !matches!(queued.message, PeerMessage::Raft(_))
    }

    async fn write(&self, stream: &mut Stream<E::Stream>, bytes: &[u8]) -> io::Result<()> {
        self.metrics.sent_bytes.inc_by(bytes.len() as u64);
        write_while_bytes_flow(&self.env, stream, bytes, self.options.write_timeout_micros).await
    }

    /// Drops what is queued for that long, or until the peer calls: it would be stale.
    async fn drop_for(&mut self, micros: u64, calls: &PeerCalls) -> Pause {
        let deadline = self.env.now().plus(micros);
        let sleep = self.env.sleep_until(deadline);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                biased;
                () = &mut sleep => return Pause::Over,
                () = calls.called.notified() => return Pause::Called,
                message = self.queue.recv() => {
                    if message.is_none() {
                        return Pause::Closed;
                    }
                    self.metrics.messages_dropped.inc();
                }
            }
        }
    }
}

/// Waits until the peer has been started again, and is not at `addr` any more. Nothing need ever
/// come from there, not even that the connection has ended.
async fn moved_from(address_book: &AddressBook, peer: NodeId, addr: &str, calls: &PeerCalls) {
    loop {
        calls.restarted.notified().await;
        if address_book.address(peer).is_none_or(|now| now != addr) {
            return;
        }
    }
}

/// Writes everything, however slow the link is: only one on which nothing moves for `patience`
/// microseconds is given up.
async fn write_while_bytes_flow<E: Env>(
    env: &E,
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    patience: u64,
) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = until(env, env.now().plus(patience), stream.write(rest)).await;
        match written.ok_or(io::ErrorKind::TimedOut)?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => rest = &rest[count..],
        }
    }
    until(env, env.now().plus(patience), stream.flush()).await.ok_or(io::ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests;
