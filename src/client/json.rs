//! JSON of a node, read; and JSON for a node, written. Bytes that are UTF-8 stand under their name,
//! others in base64 under `name64`.

use crate::codec::{from_base64, to_base64};
use crate::kv::{KeyRange, KeyValue, LEASE_TTL_SECONDS_MAX, LeaseId, Revision};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::time::Duration;

/// JSON that says something else than a node would.
#[derive(Debug)]
pub(super) struct NoSuchJson;

/// What went wrong (RFC 9457). Other fields are passed over, as everywhere here.
#[derive(Deserialize)]
pub(super) struct ProblemBody {
    pub(super) code: String,
    pub(super) detail: String,
    pub(super) outcome: Option<String>,
    pub(super) revision: Option<u64>,
    pub(super) present: Option<KeyValueBody>,
}

/// A key with whatever is told of it.
#[derive(Deserialize)]
pub(super) struct KeyValueBody {
    key: Option<String>,
    key64: Option<String>,
    value: Option<String>,
    value64: Option<String>,
    #[serde(default)]
    create_revision: u64,
    #[serde(default)]
    mod_revision: u64,
    #[serde(default)]
    version: u64,
    #[serde(default)]
    lease: u64,
}

/// A beginning of keys: text, or an object.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum PrefixBody {
    Text(String),
    Bytes { prefix64: String },
}

impl TryFrom<KeyValueBody> for KeyValue {
    type Error = NoSuchJson;

    fn try_from(body: KeyValueBody) -> Result<Self, NoSuchJson> {
        let key = bytes_of(body.key, body.key64)?.filter(|key| !key.is_empty()).ok_or(NoSuchJson)?;
        Ok(Self {
            key,
            value: bytes_of(body.value, body.value64)?.unwrap_or_default(),
            create_revision: Revision(body.create_revision),
            mod_revision: Revision(body.mod_revision),
            version: body.version,
            lease: LeaseId(body.lease),
        })
    }
}

impl TryFrom<PrefixBody> for Bytes {
    type Error = NoSuchJson;

    fn try_from(body: PrefixBody) -> Result<Self, NoSuchJson> {
        let (text, base64) = match body {
            PrefixBody::Text(text) => (Some(text), None),
            PrefixBody::Bytes { prefix64 } => (None, Some(prefix64)),
        };
        bytes_of(text, base64)?.ok_or(NoSuchJson)
    }
}

/// The time of a lease, in seconds. No store gives more, so that an instant can always be added to
/// it, whatever an endpoint says.
pub(super) fn lease_time(seconds: u64) -> Duration {
    Duration::from_secs(seconds.min(LEASE_TTL_SECONDS_MAX))
}

/// Bytes that stand under `name` or `name64`.
pub(super) fn bytes_of(text: Option<String>, base64: Option<String>) -> Result<Option<Bytes>, NoSuchJson> {
    match (text, base64) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(text)) => {
            from_base64(text.as_bytes()).map(|bytes| Some(bytes.into())).map_err(|_| NoSuchJson)
        }
        (Some(_), Some(_)) => Err(NoSuchJson),
    }
}

/// Bytes that stand under `name` or `name64`; `None`: under neither, or they make no sense.
#[must_use]
pub fn read_bytes(text: Option<String>, base64: Option<String>) -> Option<Bytes> {
    bytes_of(text, base64).ok().flatten()
}

/// Puts bytes into an object, under `name` or `name64`.
pub fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}64"), to_base64(bytes).into()),
    };
}

/// Puts the keys of a range into an object.
pub(super) fn put_range(object: &mut Map<String, Value>, range: &KeyRange) {
    if let Some(key) = range.one_key() {
        return put_bytes(object, "key", key);
    }
    put_bytes(object, "start", &range.start);
    if let Some(end) = &range.end {
        put_bytes(object, "end", end);
    }
}
