//! One key: put, get, delete, add.

use crate::client::attempts::Client;
use crate::client::connection::ReceivedAnswer;
use crate::client::error::{CallError, CallFailure};
use crate::client::json::lease_time;
use crate::client::request::Ask;
use crate::client::target::Target;
use crate::kv::{KeyRange, KeyValue, LeaseId, Revision};
use crate::replica::Level;
use bytes::Bytes;
use hyper::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How a key is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// How fresh the answer must be.
    pub level: Level,
    /// As of which revision; `None`: now.
    pub at: Option<Revision>,
}

/// How a key is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// What must hold of the key as it is.
    pub condition: Option<Condition>,
    /// The lease that a key which is put ends with.
    pub lease: LeaseChoice,
    /// The name under which it is done at most once: visible ASCII, at most 240 bytes. `None`: a
    /// random one, if the client's options say so.
    pub idempotency_key: Option<String>,
    /// With a name of the caller's: the write may have been asked for under it before this call,
    /// and this revision of the store had been seen before that ([`Client::seen`]). It is then not
    /// done twice, however long ago that was. An error tells of this call alone.
    pub since: Option<Revision>,
}

/// What must hold of a key before it is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It exists.
    Exists,
    /// It does not exist.
    IsMissing,
    /// It was last set by this revision.
    ModRevision(Revision),
}

/// The lease that a key ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaseChoice {
    /// The key stays.
    #[default]
    None,
    /// One that is there.
    Given(LeaseId),
    /// A new one, with this time. The node counts in whole seconds.
    New(Duration),
}

/// A key that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutDone {
    /// Revision of this change: now the key's `mod_revision`.
    pub revision: Revision,
    /// The key's version: 1 when it was created.
    pub version: u64,
    /// The lease that was made for it, and its time.
    pub granted: Option<(LeaseId, Duration)>,
}

/// Keys that were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Deleted {
    /// The store's revision afterwards.
    pub revision: Revision,
    /// How many there were.
    #[serde(rename = "deleted")]
    pub count: u64,
}

/// A number that was added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Incremented {
    /// Revision of this change.
    pub revision: Revision,
    /// The key's version.
    pub version: u64,
    /// The number now.
    pub value: i64,
}

#[derive(Deserialize)]
struct PutBody {
    revision: Revision,
    version: u64,
    lease: Option<LeaseId>,
    ttl: Option<u64>,
}

impl Client {
    /// Reads a key. `None`: it does not exist.
    ///
    /// # Errors
    /// [`CallError`]. If the revision was compacted, it says which one is the oldest
    /// ([`RefusedCall::revision`](crate::client::RefusedCall::revision)).
    pub async fn get_key(&mut self, key: &[u8], options: ReadOptions) -> Result<Option<KeyValue>, CallError> {
        let ReadOptions { level, at } = options;
        let ask = ask_of_key(key, &[200], |target| target.with_level(level).with_some("at", at));
        let answer = match self.call(ask).await {
            Err(error) if error.code() == Some("key-not-found") => return Ok(None),
            answer => answer?,
        };
        let found = read_value(key, &answer).ok_or_else(|| self.nonsense(&answer, false))?;
        Ok(Some(found))
    }

    /// The last of the next changes of a key after a revision; `None`: there is none yet. A node
    /// tells of so much of its history at once, so that the key may have changed again later: ask
    /// again, with what this returns.
    ///
    /// # Errors
    /// As of [`Self::get_key`].
    pub async fn last_change(&mut self, key: &[u8], after: Revision) -> Result<Option<Revision>, CallError> {
        let with = |target: Target| target.with("wait", "0s").with("after", after);
        let answer = self.call(ask_of_key(key, &[200, 304, 404], with)).await?;
        if answer.status() == 304 {
            return Ok(None);
        }
        // The key as it was then, or that it did not exist.
        let revision = answer.number("infinitystore-revision").map(Revision);
        revision.map(Some).ok_or_else(|| self.nonsense(&answer, false))
    }

    /// Sets a key to a value, if the condition holds.
    ///
    /// # Errors
    /// [`CallError`]. Its [`outcome`](CallError::outcome) says whether the write may have happened.
    pub async fn put_key(
        &mut self,
        key: &[u8],
        value: impl Into<Bytes>,
        options: &WriteOptions,
    ) -> Result<PutDone, CallError> {
        let target = match options.lease {
            LeaseChoice::None => Target::key(key),
            LeaseChoice::Given(lease) => Target::key(key).with("lease", lease),
            LeaseChoice::New(ttl) => Target::key(key).with_time("ttl", ttl),
        };
        let ask = self.write_ask(Ask::put(target.into_text(), value), options);
        let done: PutBody = self.told(ask).await?;
        let ttl = lease_time(done.ttl.unwrap_or_default());
        let granted = done.lease.map(|lease| (lease, ttl));
        Ok(PutDone { revision: done.revision, version: done.version, granted })
    }

    /// Removes a key, if the condition holds. It is no error if the key does not exist.
    ///
    /// # Errors
    /// As of [`Self::put_key`].
    pub async fn delete_key(&mut self, key: &[u8], options: &WriteOptions) -> Result<Deleted, CallError> {
        let ask = self.write_ask(Ask::delete(Target::key(key).into_text()), options);
        self.told(ask).await
    }

    /// Removes all keys of a range, in one revision.
    ///
    /// # Errors
    /// As of [`Self::put_key`].
    pub async fn delete_range(&mut self, range: &KeyRange) -> Result<Deleted, CallError> {
        let target = if *range == KeyRange::all() {
            Target::new("/v1/kv").with("all", true)
        } else {
            Target::new("/v1/kv").with_range(range)
        };
        let ask = self.write_ask(Ask::delete(target.into_text()), &WriteOptions::default());
        self.told(ask).await
    }

    /// Adds to a key whose value is a decimal number. A key that does not exist counts as 0.
    ///
    /// # Errors
    /// As of [`Self::put_key`].
    pub async fn increment(&mut self, key: &[u8], by: i64) -> Result<Incremented, CallError> {
        let target = Target::below("/v1/incr/", key).with("by", by);
        let ask = self.write_ask(Ask::post(target.into_text(), ""), &WriteOptions::default());
        self.told(ask).await
    }

    /// A write, with its conditions and its idempotency key.
    pub(super) fn write_ask(
        &self,
        ask: Result<Ask, CallFailure>,
        options: &WriteOptions,
    ) -> Result<Ask, CallFailure> {
        let ask = match options.condition {
            None => ask?,
            Some(Condition::Exists) => ask?.with_header(IF_MATCH, "*")?,
            Some(Condition::IsMissing) => ask?.with_header(IF_NONE_MATCH, "*")?,
            Some(Condition::ModRevision(revision)) => {
                ask?.with_header(IF_MATCH, &format!("\"{revision}\""))?
            }
        };
        if let Some(name) = &options.idempotency_key {
            return Ok(ask.once_as(Some(name))?.repeated_since(options.since));
        }
        ask.once_as(self.options().idempotency_keys.then(random_key).as_deref())
    }

    /// Asks, and reads the answer as JSON.
    pub(super) async fn told<T: DeserializeOwned>(
        &mut self,
        ask: Result<Ask, CallFailure>,
    ) -> Result<T, CallError> {
        let is_write = ask.as_ref().is_ok_and(Ask::is_write);
        let answer = self.call(ask).await?;
        serde_json::from_slice(&answer.body).map_err(|_| self.nonsense(&answer, is_write))
    }
}

/// A question about one key, which may be too long for a URL.
fn ask_of_key(
    key: &[u8],
    accepted: &'static [u16],
    with: impl Fn(Target) -> Target,
) -> Result<Ask, CallFailure> {
    match with(Target::new("/v1/kv").with_bytes("key", key)).to_long_json() {
        Some(body) => Ask::post("/v1/range".to_owned(), body).map(|ask| ask.harmless().accepting(accepted)),
        None => Ask::get(with(Target::key(key)).into_text(), accepted),
    }
}

/// A name that nobody else has chosen: 128 random bits.
fn random_key() -> String {
    let mut bits = [0; 16];
    OsRng.try_fill_bytes(&mut bits).expect("the operating system's random generator always answers");
    format!("{:032x}", u128::from_be_bytes(bits))
}

/// A value as it is, with its versions in the headers.
fn read_value(key: &[u8], answer: &ReceivedAnswer) -> Option<KeyValue> {
    let tag = answer.header(ETAG)?.to_str().ok()?;
    Some(KeyValue {
        key: Bytes::copy_from_slice(key),
        value: answer.body.clone(),
        create_revision: Revision(answer.number("infinitystore-create-revision")?),
        mod_revision: Revision(tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?),
        version: answer.number("infinitystore-version")?,
        lease: LeaseId(answer.number("infinitystore-lease").unwrap_or_default()),
    })
}
