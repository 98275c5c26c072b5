//! Leases, and the cluster's limits.

use crate::client::attempts::Client;
use crate::client::error::CallError;
use crate::client::json::{NoSuchJson, bytes_of, lease_time};
use crate::client::keys::{Deleted, WriteOptions};
use crate::client::request::Ask;
use crate::client::target::Target;
use crate::kv::{LeaseId, Revision, Settings};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// A lease that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Its id.
    pub id: LeaseId,
    /// How long it lives without a renewal: what was asked for, or the least that there is.
    pub ttl: Duration,
}

/// How much time a lease has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeaseTime {
    /// Its id.
    pub id: LeaseId,
    /// How long it lives without a renewal.
    pub ttl: Duration,
    /// How long it lived without a renewal when the leader was asked.
    pub left: Duration,
}

/// A lease with its keys.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseInfo {
    /// Its time.
    pub time: LeaseTime,
    /// The keys that end with it, ascending; of very many, the first.
    pub keys: Vec<Bytes>,
    /// How many keys end with it.
    pub count: u64,
}

/// A lease in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ListedLease {
    /// Its id.
    pub id: LeaseId,
    /// How long it lives without a renewal, seconds.
    #[serde(rename = "ttl")]
    pub ttl_seconds: u64,
    /// How many keys end with it.
    pub keys: u64,
}

#[derive(Deserialize)]
struct TimeBody {
    id: LeaseId,
    ttl: u64,
    left: f64,
}

#[derive(Deserialize)]
struct InfoBody {
    #[serde(flatten)]
    time: TimeBody,
    count: u64,
    keys: Vec<LeaseKeyBody>,
}

#[derive(Deserialize)]
struct LeaseKeyBody {
    key: Option<String>,
    key64: Option<String>,
}

#[derive(Deserialize)]
struct GrantBody {
    id: LeaseId,
    ttl: u64,
}

#[derive(Deserialize)]
struct ListBody {
    leases: Vec<ListedLease>,
    next: Option<LeaseId>,
}

impl TryFrom<TimeBody> for LeaseTime {
    type Error = NoSuchJson;

    fn try_from(body: TimeBody) -> Result<Self, NoSuchJson> {
        let left = Duration::try_from_secs_f64(body.left).map_err(|_| NoSuchJson)?;
        Ok(Self { id: body.id, ttl: lease_time(body.ttl), left })
    }
}

impl Client {
    /// Makes a lease. [`LeaseId::NONE`]: the store chooses its id. The time is counted in whole
    /// seconds, rounded up.
    ///
    /// # Errors
    /// [`CallError`]. If nobody knows whether it was granted, it ends by itself.
    pub async fn grant_lease(&mut self, ttl: Duration, id: LeaseId) -> Result<Granted, CallError> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let body = json!({ "ttl": seconds, "id": id.0 }).to_string();
        let ask = self.write_ask(Ask::post("/v1/leases".to_owned(), body), &WriteOptions::default());
        let GrantBody { id, ttl } = self.told(ask).await?;
        Ok(Granted { id, ttl: lease_time(ttl) })
    }

    /// The lease's time begins anew. The lease then lives at least for its time from when this was
    /// asked.
    ///
    /// # Errors
    /// [`CallError`]; of the kind [`NotFound`](crate::client::ErrorKind::NotFound): there is no
    /// such lease, or it has ended.
    pub async fn keep_lease_alive(&mut self, id: LeaseId) -> Result<LeaseTime, CallError> {
        let ask = Ask::post(format!("/v1/leases/{id}/keepalive"), "").map(Ask::harmless);
        let answer = self.call(ask).await?;
        let body = serde_json::from_slice::<TimeBody>(&answer.body).ok();
        let time = body.and_then(|body| body.try_into().ok());
        time.ok_or_else(|| self.nonsense(&answer, false))
    }

    /// Ends a lease, and removes its keys.
    ///
    /// # Errors
    /// [`CallError`]; of the kind [`NotFound`](crate::client::ErrorKind::NotFound): there is no
    /// such lease, or it has ended.
    pub async fn revoke_lease(&mut self, id: LeaseId) -> Result<Deleted, CallError> {
        let ask = self.write_ask(Ask::delete(format!("/v1/leases/{id}")), &WriteOptions::default());
        self.told(ask).await
    }

    /// How much time a lease has, and its keys.
    ///
    /// # Errors
    /// As of [`Self::keep_lease_alive`].
    pub async fn lease(&mut self, id: LeaseId) -> Result<LeaseInfo, CallError> {
        let answer = self.call(Ask::get(format!("/v1/leases/{id}"), &[200])).await?;
        let info = serde_json::from_slice::<InfoBody>(&answer.body).ok().and_then(|body| {
            let keys = body.keys.into_iter().map(|key| bytes_of(key.key, key.key64).ok()?);
            Some(LeaseInfo {
                time: body.time.try_into().ok()?,
                keys: keys.collect::<Option<_>>()?,
                count: body.count,
            })
        });
        info.ok_or_else(|| self.nonsense(&answer, false))
    }

    /// The leases from an id on, ascending, and where the list goes on, if it does.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn leases(&mut self, from: LeaseId) -> Result<(Vec<ListedLease>, Option<LeaseId>), CallError> {
        let target = Target::new("/v1/leases").with("from", from);
        let ListBody { leases, next } = self.told(Ask::get(target.into_text(), &[200])).await?;
        Ok((leases, next))
    }

    /// The limits that the cluster shares.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn settings(&mut self) -> Result<Settings, CallError> {
        self.told(Ask::get("/v1/settings".to_owned(), &[200])).await
    }

    /// Changes the limits that the cluster shares, all at once.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn configure(&mut self, settings: Settings) -> Result<Settings, CallError> {
        let body = serde_json::to_vec(&settings).expect("numbers are always JSON");
        let ask = self.write_ask(Ask::put("/v1/settings".to_owned(), body), &WriteOptions::default());
        self.told(ask).await
    }

    /// Forgets what was before a revision. A read at that revision still succeeds.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn compact(&mut self, revision: Revision) -> Result<(), CallError> {
        let body = json!({ "revision": revision.0 }).to_string();
        let ask = self.write_ask(Ask::post("/v1/compact".to_owned(), body), &WriteOptions::default());
        self.call(ask).await.map(|_| ())
    }
}
