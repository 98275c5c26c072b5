//! Endpoints, time-outs, and which requests are asked again.

use crate::client::connection::{NodeConnection, ReceivedAnswer, Trouble};
use crate::client::credentials::Credentials;
use crate::client::endpoint::Endpoint;
use crate::client::error::{CallError, CallFailure, WriteOutcome, quote};
use crate::client::request::Ask;
use crate::codec::COUNTER_MAX;
use crate::kv::Revision;
use crate::tls::ClientTls;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Time-outs and limits of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// For a connection to be made. Then the next node is tried. For its name to be looked up it
    /// has the time of an answer.
    pub connect_timeout: Duration,
    /// From a request to the end of its answer. A node itself gives a write up after its
    /// `--request-timeout`, 5 seconds, and says what is known of it: this should be longer.
    pub answer_timeout: Duration,
    /// Nodes that one call asks, at most. It asks none of them twice.
    pub attempts_max: usize,
    /// Bytes of an answer's body, at most. A page of keys has at most 2 MiB, and 12 MiB if all of
    /// it is escaped.
    pub answer_bytes_max: usize,
    /// Bytes of one message of a watch, at most: all changes of one revision, which may be a
    /// deletion of many keys.
    pub watch_message_bytes_max: usize,
    /// A watch whose node says nothing for this long asks another one. A node says something at
    /// least every ten seconds.
    pub watch_silence_max: Duration,
    /// Whether each write of `/v1` has a random idempotency key, if the caller gives none. Then a
    /// write of unknown outcome is asked again, of the next node, and is not done twice.
    pub idempotency_keys: bool,
    /// Whom the client trusts, and what it shows, at endpoints of `https://`.
    pub tls: Option<ClientTls>,
    /// What every request shows. Without TLS, anybody on the way can read it.
    pub credentials: Option<Credentials>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(10),
            attempts_max: usize::MAX,
            answer_bytes_max: 16 << 20,
            watch_message_bytes_max: 64 << 20,
            watch_silence_max: Duration::from_secs(30),
            idempotency_keys: true,
            tls: None,
            credentials: None,
        }
    }
}

/// A client of a cluster: one connection, one request at a time.
///
/// A call whose future is dropped may have been sent: of a write nothing is known then. The client
/// can be used again.
///
/// ```no_run
/// use infinitystore::client::{Client, ClientOptions, WriteOutcome};
/// use infinitystore::replica::Level;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let nodes = vec!["localhost:8001".parse()?, "localhost:8011".parse()?];
/// let mut client = Client::new(nodes, ClientOptions::default());
/// match client.set("foo", "bar").await {
///     Ok(()) => assert_eq!(client.get("foo", Level::Linearizable).await?.as_deref(), Some("bar")),
///     Err(error) if error.outcome() == WriteOutcome::NotApplied => println!("no: {error}"),
///     Err(error) => println!("perhaps written: {error}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    /// At least one.
    endpoints: Arc<[Endpoint]>,
    /// The one that is asked next.
    at: usize,
    /// To that one, if there is a connection.
    connection: Option<NodeConnection>,
    options: ClientOptions,
    /// The newest revision of the store that an answer has told.
    seen: Option<Revision>,
}

impl Client {
    /// A client of these nodes. It begins with the first, and connects when it is used.
    ///
    /// # Panics
    /// If there is no node.
    #[must_use]
    pub fn new(endpoints: impl Into<Arc<[Endpoint]>>, options: ClientOptions) -> Self {
        let endpoints = endpoints.into();
        assert!(!endpoints.is_empty(), "a client needs a node");
        Self { endpoints, at: 0, connection: None, options, seen: None }
    }

    /// Knows that the store has had that revision, from a client that was before it, say. A client
    /// that has seen no revision asks for one before a write that it may have to repeat.
    #[must_use]
    pub fn having_seen(mut self, revision: Revision) -> Self {
        self.seen = self.seen.max(Some(revision));
        self
    }

    /// The newest revision of the store that it has seen.
    #[must_use]
    pub const fn seen(&self) -> Option<Revision> {
        self.seen
    }

    /// Begins with the node at that place, counted round and round: to spread many clients.
    #[must_use]
    pub fn beginning_at(mut self, place: usize) -> Self {
        self.at = place % self.endpoints.len();
        self
    }

    /// Asks, and asks the next nodes where that is safe.
    pub(super) async fn call(&mut self, ask: Result<Ask, CallFailure>) -> Result<ReceivedAnswer, CallError> {
        let mut ask = ask.map_err(|failure| self.error(failure))?;
        if ask.lacks_since() {
            if self.seen.is_none() && self.may_repeat() {
                self.look().await;
            }
            ask.first_asked_after(self.seen);
        }
        self.ask_around(&ask).await
    }

    /// Whether there would be somebody to ask again: another node, or the same over a new
    /// connection.
    fn may_repeat(&self) -> bool {
        self.attempts_max() > 1 || self.connection.is_some()
    }

    /// Asks any node for any revision that the store has had. If none tells one, a write is not
    /// repeated where it may have been done.
    async fn look(&mut self) {
        if let Ok(ask) = Ask::get("/v1/settings?level=local".to_owned(), &[200]) {
            let _ = self.ask_around(&ask).await;
        }
    }

    fn attempts_max(&self) -> usize {
        self.options.attempts_max.clamp(1, self.endpoints.len())
    }

    async fn ask_around(&mut self, ask: &Ask) -> Result<ReceivedAnswer, CallError> {
        let mut attempts_left = self.attempts_max();
        // Whether an attempt that failed may have been carried out.
        let mut maybe_done = false;
        // The last error of a node that is there.
        let mut telling = None;
        loop {
            attempts_left -= 1;
            let failure = match self.attempt(ask, &mut maybe_done).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let may_follow = ask.may_follow(&failure);
            let is_unknown = failure.outcome() == WriteOutcome::Unknown;
            let error = CallError { is_write: ask.is_write(), maybe_done, ..self.error(failure) };
            if attempts_left == 0 || !may_follow {
                // That nobody listens at the last address says less than what was said before.
                let told = telling.filter(|_| error.failure.is_nobody());
                return Err(told.map_or(error, |told| CallError { maybe_done, ..told }));
            }
            maybe_done |= is_unknown && ask.is_write();
            if !error.failure.is_nobody() {
                telling = Some(error);
            }
        }
    }

    /// An error of the node that was asked last. If the fault was the node's, the next call begins
    /// with the next one.
    pub(super) fn error(&mut self, failure: CallFailure) -> CallError {
        let endpoint = self.endpoints[self.at].clone();
        if failure.is_of_the_node() {
            self.connection = None;
            self.at = (self.at + 1) % self.endpoints.len();
        }
        CallError { endpoint, failure, is_write: false, maybe_done: false }
    }

    /// An answer with status 200 that no node gives.
    pub(super) fn nonsense(&mut self, answer: &ReceivedAnswer, is_write: bool) -> CallError {
        let text = format!("{} {}", answer.status(), quote(&answer.body));
        CallError { is_write, ..self.error(CallFailure::Nonsense(text)) }
    }

    /// The nodes.
    pub(super) fn endpoints(&self) -> &Arc<[Endpoint]> {
        &self.endpoints
    }

    /// Time-outs and limits.
    pub(super) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Waits for an answer for so long from now on, and for a connection no longer.
    pub fn set_answer_timeout(&mut self, time: Duration) {
        self.options.connect_timeout = self.options.connect_timeout.min(time);
        self.options.answer_timeout = time;
    }

    /// The place of the node that is asked next, for [`Self::beginning_at`].
    #[must_use]
    pub fn place(&self) -> usize {
        self.at
    }

    /// Asks one node: over the connection that there is, or over a new one. `maybe_done` is set if
    /// a connection broke while a write was on it.
    async fn attempt(&mut self, ask: &Ask, maybe_done: &mut bool) -> Result<ReceivedAnswer, CallFailure> {
        if let Some(kept) = self.connection.take() {
            match self.exchange(kept, ask, *maybe_done).await {
                Ok(answer) => return Ok(answer),
                // It had ended while it was idle.
                Err(Trouble::Unsent) => {}
                Err(Trouble::Failed(CallFailure::Lost(_))) if ask.is_repeatable() => {
                    *maybe_done |= ask.is_write();
                }
                Err(Trouble::Failed(failure)) => return Err(failure),
            }
        }
        let new = connect(&self.endpoints[self.at], &self.options).await?;
        self.exchange(new, ask, *maybe_done).await.map_err(|trouble| match trouble {
            Trouble::Unsent => CallFailure::Unreachable(io::ErrorKind::ConnectionReset.into()),
            Trouble::Failed(failure) => failure,
        })
    }

    /// Asks over a connection, and keeps it if it can be used again. `maybe_done`: what is asked
    /// for may have been carried out before.
    async fn exchange(
        &mut self,
        mut connection: NodeConnection,
        ask: &Ask,
        maybe_done: bool,
    ) -> Result<ReceivedAnswer, Trouble> {
        let request = ask.to_http(&self.endpoints[self.at], self.options.credentials.as_ref(), maybe_done);
        let body_bytes_max = self.options.answer_bytes_max;
        let exchange = async {
            if !connection.is_ready().await.map_err(Trouble::Failed)? {
                return Err(Trouble::Unsent);
            }
            connection.exchange(request, body_bytes_max).await
        };
        match timeout(self.options.answer_timeout.saturating_add(ask.wait()), exchange).await {
            Ok(answer) => {
                let answer = answer?;
                let told = answer.number("infinitystore-revision").filter(|told| *told <= COUNTER_MAX);
                self.seen = self.seen.max(told.map(Revision));
                self.connection = Some(connection);
                ask.judge(answer).map_err(Trouble::Failed)
            }
            Err(_) => Err(Trouble::Failed(CallFailure::Late)),
        }
    }
}

/// A new connection to a node.
pub(super) async fn connect(
    endpoint: &Endpoint,
    options: &ClientOptions,
) -> Result<NodeConnection, CallFailure> {
    let tls = match &options.tls {
        _ if !endpoint.is_tls() => None,
        Some(tls) => Some(tls),
        None => {
            let text = "this endpoint is https: say with --cacert which authority has signed its certificate";
            return Err(CallFailure::Unaskable(text.to_owned()));
        }
    };
    let timeouts = (options.answer_timeout, options.connect_timeout);
    NodeConnection::open(endpoint.address(), tls, timeouts).await.map_err(CallFailure::Unreachable)
}
