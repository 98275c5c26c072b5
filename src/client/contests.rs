//! Locks and elections.

use crate::client::attempts::Client;
use crate::client::error::CallError;
use crate::client::json::{bytes_of, lease_time};
use crate::client::keys::{LeaseChoice, WriteOptions};
use crate::client::request::Ask;
use crate::client::target::{Target, percent_encode};
use crate::kv::{LeaseId, Revision};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::time::Duration;

/// A name is at most this long.
const NAME_BYTES_MAX: usize = 256;

/// What is contested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContestKind {
    /// A lock: one holds it, the others wait.
    Lock,
    /// An election: one leads, and its value says who that is.
    Election,
}

/// A lock that is held, or an election that is won.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Won {
    /// The lease that it ends with.
    pub lease: LeaseId,
    /// The time of the lease, where it was made for this.
    pub ttl: Option<Duration>,
    /// The fencing number: each holder's is higher than that of the one before.
    pub fence: Revision,
    /// The key that stands for it: deleting that key takes it away.
    pub key: Bytes,
}

/// The holder of a lock, or the leader of an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The lease that it ends with.
    pub lease: LeaseId,
    /// The fencing number.
    pub fence: Revision,
    /// What the holder says of itself.
    pub value: Bytes,
    /// How many others wait.
    pub waiting: u64,
}

#[derive(Deserialize)]
struct WonBody {
    lease: LeaseId,
    ttl: Option<u64>,
    fence: Revision,
    key: Option<String>,
    key64: Option<String>,
}

#[derive(Deserialize)]
struct HolderBody {
    lease: LeaseId,
    fence: Revision,
    value: Option<String>,
    value64: Option<String>,
    #[serde(default)]
    waiting: u64,
}

impl Client {
    /// Takes the lock, or wins the election. Waits for its turn for at most `wait`; a node lets
    /// nobody wait for more than ten minutes. A lease that is given has to be kept alive meanwhile;
    /// a new one is, by the node, until this is answered.
    ///
    /// # Errors
    /// [`CallError`]; of the kind [`ConditionFailed`](crate::client::ErrorKind::ConditionFailed):
    /// another one holds it, and the place among those that wait is given up.
    pub async fn campaign(
        &mut self,
        kind: ContestKind,
        name: &[u8],
        value: impl Into<Bytes>,
        (lease, wait): (LeaseChoice, Duration),
    ) -> Result<Won, CallError> {
        let target = match lease {
            LeaseChoice::None => contest(kind, name),
            LeaseChoice::Given(lease) => contest(kind, name).with("lease", lease),
            LeaseChoice::New(ttl) => contest(kind, name).with_time("ttl", ttl),
        };
        self.stand(target, value, wait).await
    }

    /// As [`Self::campaign`], with a lease that the caller keeps alive. When `wait` is over, the
    /// place among those that wait stays, as long as the lease: then the answer is `None`. Ask
    /// again to wait on, or [`resign`](Self::resign). Without either it may still be won.
    ///
    /// # Errors
    /// [`CallError`]. The place may stay then, too.
    pub async fn campaign_and_stay(
        &mut self,
        kind: ContestKind,
        name: &[u8],
        value: impl Into<Bytes>,
        (lease, wait): (LeaseId, Duration),
    ) -> Result<Option<Won>, CallError> {
        let target = contest(kind, name).with("lease", lease).with_flag("stay", true);
        match self.stand(target, value, wait).await {
            Ok(won) => Ok(Some(won)),
            Err(error) if error.code() == Some("held") => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn stand(
        &mut self,
        target: Target,
        value: impl Into<Bytes>,
        wait: Duration,
    ) -> Result<Won, CallError> {
        let ask = Ask::post(target.with_time("wait", wait).into_text(), value);
        let ask = self.write_ask(ask.map(|ask| ask.waiting(wait)), &WriteOptions::default());
        let answer = self.call(ask).await?;
        let body = serde_json::from_slice::<WonBody>(&answer.body).ok();
        let won = body.and_then(|WonBody { lease, ttl, fence, key, key64 }| {
            let key = bytes_of(key, key64).ok()??;
            Some(Won { lease, ttl: ttl.map(lease_time), fence, key })
        });
        won.ok_or_else(|| self.nonsense(&answer, true))
    }

    /// Its holder; `None`: there is none.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn holder(&mut self, kind: ContestKind, name: &[u8]) -> Result<Option<Holder>, CallError> {
        let answer = match self.call(Ask::get(contest(kind, name).into_text(), &[200])).await {
            Err(error) if error.code() == Some("no-holder") => return Ok(None),
            answer => answer?,
        };
        let body = serde_json::from_slice::<HolderBody>(&answer.body).ok();
        let holder = body.and_then(|HolderBody { lease, fence, value, value64, waiting }| {
            let value = bytes_of(value, value64).ok()?.unwrap_or_default();
            Some(Holder { lease, fence, value, waiting })
        });
        holder.map(Some).ok_or_else(|| self.nonsense(&answer, false))
    }

    /// Gives it up, or a place among those that wait. The lease stays.
    ///
    /// # Errors
    /// [`CallError`]; of the kind [`NotFound`](crate::client::ErrorKind::NotFound): the lease does
    /// not hold it.
    pub async fn resign(&mut self, kind: ContestKind, name: &[u8], lease: LeaseId) -> Result<(), CallError> {
        let target = contest(kind, name).with("lease", lease);
        let ask = self.write_ask(Ask::delete(target.into_text()), &WriteOptions::default());
        self.told::<IgnoredAny>(ask).await.map(|_| ())
    }

    /// Gives the one that leads another value.
    ///
    /// # Errors
    /// As of [`Self::resign`].
    pub async fn proclaim(
        &mut self,
        name: &[u8],
        lease: LeaseId,
        value: impl Into<Bytes>,
    ) -> Result<(), CallError> {
        let target = contest(ContestKind::Election, name).with("lease", lease);
        let ask = self.write_ask(Ask::put(target.into_text(), value), &WriteOptions::default());
        self.told::<IgnoredAny>(ask).await.map(|_| ())
    }
}

impl ContestKind {
    /// Both.
    const ALL: [Self; 2] = [Self::Lock, Self::Election];

    /// What the keys of all of them begin with.
    const fn folder(self) -> &'static [u8] {
        match self {
            Self::Lock => b"\0lock/",
            Self::Election => b"\0election/",
        }
    }

    /// What the keys begin with that the one with this name is made of: who takes it has to be able
    /// to read and to write them. `None`: nothing is called so.
    ///
    /// ```
    /// use infinitystore::client::ContestKind;
    ///
    /// assert_eq!(ContestKind::Lock.keys(b"nightly").as_deref(), Some(&b"\0lock/nightly\0"[..]));
    /// ```
    #[must_use]
    pub fn keys(self, name: &[u8]) -> Option<Bytes> {
        let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(&0);
        is_name.then(|| Bytes::from([self.folder(), name, b"\0"].concat()))
    }

    /// Of which lock or election these are the first bytes of all keys.
    pub(crate) fn of_keys(beginning: &[u8]) -> Option<(Self, &[u8])> {
        let name_of = |kind: Self| beginning.strip_prefix(kind.folder())?.strip_suffix(b"\0");
        let named = Self::ALL.into_iter().find_map(|kind| Some((kind, name_of(kind)?)));
        named.filter(|(kind, name)| kind.keys(name).is_some())
    }
}

/// Whether a key is one of those that locks and elections are made of.
pub(crate) fn is_candidate(key: &[u8]) -> bool {
    ContestKind::ALL.iter().any(|kind| key.starts_with(kind.folder()))
}

fn contest(kind: ContestKind, name: &[u8]) -> Target {
    let mut path = match kind {
        ContestKind::Lock => "/v1/locks/",
        ContestKind::Election => "/v1/elections/",
    }
    .to_owned();
    percent_encode(&mut path, name, b"");
    Target::new(path)
}
