//! Incoming connections on the raft port: hellos are judged, peers' messages handed to the driver, questions answered.

use crate::codec::decode_frame;
use crate::raft::{ClusterId, ENTRY_DATA_BYTES_MAX, NodeId, Time};
use crate::replica::PeerMessage;
use crate::server::block::BlockError;
use crate::server::directory::{Directory, Refusal};
use crate::server::env::{Env, Listener, until};
use crate::server::hello::{Answer, Hello, PeerHello};
use crate::server::inbox::PeerBatch;
use crate::server::metrics::Metrics;
use crate::server::options::TransportOptions;
use crate::server::service::RpcService;
use crate::server::watch;
use bytes::BytesMut;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, mpsc};
use tracing::{error, info, warn};

/// One message is at most so long: an entry of the greatest length, alone, and room for what is around it.
const MESSAGE_BYTES_MAX: usize = ENTRY_DATA_BYTES_MAX + (1 << 20);
/// A receive buffer is made so large, …
const BUFFER_BYTES: usize = 64 << 10;
/// … and left when it has room for fewer bytes than that.
const ROOM_BYTES_MIN: usize = 8 << 10;
/// Callers whose last refusal is remembered, at most, so that each is one log line.
const COMPLAINTS_MAX: usize = 256;
/// The pause after the system could not accept a connection (no file descriptors left, say).
const ACCEPT_PAUSE_MICROS: u64 = 100_000;

/// What every incoming connection needs.
#[derive(Debug)]
pub(super) struct Incoming<E> {
    /// Sockets and time.
    pub env: E,
    /// Whom to let in.
    pub directory: Arc<Directory>,
    /// Where messages go.
    pub messages: mpsc::Sender<PeerBatch>,
    /// Who answers questions.
    pub service: RpcService<E>,
    /// Limits and timings.
    pub options: TransportOptions,
    /// What is counted.
    pub metrics: Metrics,
    /// Becomes `true` when the node ends.
    pub ended: watch::Receiver<bool>,
    /// The last reason logged for each calling host.
    pub complaints: Mutex<BTreeMap<String, String>>,
}

impl<E: Env> Incoming<E> {
    /// Accepts connections until the node ends.
    pub(super) async fn run(self: Arc<Self>, mut listener: E::Listener) {
        let places = Arc::new(Semaphore::new(self.options.connections_max));
        let ended = self.ended.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => match places.clone().try_acquire_owned() {
                    Ok(place) => {
                        let this = self.clone();
                        self.env.spawn(async move {
                            this.serve(stream, &from).await;
                            drop(place);
                        });
                    }
                    Err(_) => self.complain(&from, "too many connections on the raft port"),
                },
                Err(error) => {
                    error!(%error, "cannot accept connections on the raft port");
                    self.env.sleep_until(self.env.now().plus(ACCEPT_PAUSE_MICROS)).await;
                }
            }
        }
    }

    async fn serve(&self, mut stream: E::Stream, from: &str) {
        let deadline = self.env.now().plus(self.options.connect_timeout_micros);
        match until(&self.env, deadline, Hello::read(&mut stream)).await {
            None => self.complain(from, "it said no hello"),
            Some(Err(BlockError::Io(_))) => {}
            Some(Err(error)) => {
                let reason = error.to_string();
                self.complain(from, &reason);
                // A node of another release reads this and logs it; a stranger will not mind.
                let answer = Answer::Refused(format!("the caller cannot be understood: {reason}"));
                let _ = until(&self.env, deadline, answer.write(&mut stream)).await;
            }
            Some(Ok(Hello::Rpc)) => {
                if answered(&self.env, deadline, &mut stream, Answer::Accepted).await {
                    self.service.serve(stream).await;
                }
            }
            Some(Ok(Hello::Peer(hello))) => self.serve_peer(stream, from, hello, deadline).await,
        }
    }

    async fn serve_peer(&self, mut stream: E::Stream, from: &str, hello: PeerHello, deadline: Time) {
        if let Err(refusal) = self.directory.admit(&hello) {
            let reason = refusal.to_string();
            if !matches!(refusal, Refusal::NotYet { .. }) {
                self.complain(from, &reason);
            }
            answered(&self.env, deadline, &mut stream, Answer::Refused(reason)).await;
            return;
        }
        self.forgive(from);
        if !answered(&self.env, deadline, &mut stream, Answer::Accepted).await {
            return;
        }
        info!(peer = hello.from.get(), addr = %hello.raft_addr, "peer connected");
        let receiver = Receiver { cluster: hello.cluster, from: hello.from, to: hello.to };
        let ended = self.ended.clone();
        let reason = tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => return,
            reason = self.receive(stream, &receiver) => reason,
        };
        if let Some(reason) = reason {
            self.metrics.messages_refused.inc();
            warn!(peer = hello.from.get(), %reason, "closing the connection of a peer");
        } else {
            info!(peer = hello.from.get(), "peer disconnected");
        }
    }

    /// Hands messages on, all that one read brought as one batch. Returns why the connection has to be closed, or
    /// `None` when the peer did.
    async fn receive(&self, mut stream: E::Stream, receiver: &Receiver) -> Option<String> {
        let mut received = BytesMut::new();
        loop {
            make_room(&mut received);
            match stream.read_buf(&mut received).await {
                Ok(0) | Err(_) => return None,
                Ok(bytes) => self.metrics.received_bytes.inc_by(bytes as u64),
            };
            let messages = match receiver.decode(&mut received) {
                Ok(messages) => messages,
                Err(reason) => return Some(reason),
            };
            // A full queue holds this socket up, and with it the peer: nothing is lost.
            let batch = PeerBatch { cluster: receiver.cluster, to: receiver.to, messages };
            if !batch.messages.is_empty() && self.messages.send(batch).await.is_err() {
                return None;
            }
        }
    }

    /// Logs why a caller was turned away, once for each host and reason.
    fn complain(&self, from: &str, reason: &str) {
        let host = host_of(from);
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.get(host).is_some_and(|last| last == reason) {
            return;
        }
        if complaints.len() >= COMPLAINTS_MAX {
            complaints.clear();
        }
        complaints.insert(host.to_owned(), reason.to_owned());
        drop(complaints);
        warn!(%from, %reason, "turned away a connection to the raft port");
    }

    fn forgive(&self, from: &str) {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).remove(host_of(from));
    }
}

/// Who may send what on one connection.
struct Receiver {
    cluster: ClusterId,
    from: NodeId,
    to: NodeId,
}

impl Receiver {
    /// Takes all complete messages from the front of `received`.
    fn decode(&self, received: &mut BytesMut) -> Result<Vec<PeerMessage>, String> {
        let mut messages = Vec::new();
        while let Some(frame) =
            decode_frame(received, MESSAGE_BYTES_MAX).map_err(|error| error.to_string())?
        {
            let message = PeerMessage::decode(frame).map_err(|error| error.to_string())?;
            if message.from() != self.from || message.to() != self.to {
                return Err(format!("it sent a message from {} to {}", message.from(), message.to()));
            }
            messages.push(message);
        }
        Ok(messages)
    }
}

/// Messages share the buffer they were received in, and keep all of it alive: so a buffer is filled by many reads before
/// the next one is made, or each small message would hold on to one of its own.
fn make_room(received: &mut BytesMut) {
    if received.capacity() - received.len() < ROOM_BYTES_MIN {
        received.reserve(BUFFER_BYTES);
    }
}

async fn answered<E: Env>(env: &E, deadline: Time, stream: &mut E::Stream, answer: Answer) -> bool {
    matches!(until(env, deadline, answer.write(stream)).await, Some(Ok(())))
}

/// The host of `host:port`.
fn host_of(addr: &str) -> &str {
    addr.rsplit_once(':').map_or(addr, |(host, _)| host)
}

#[cfg(test)]
mod tests;
