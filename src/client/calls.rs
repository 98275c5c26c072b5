//! The calls, with types: what each asks, and what an answer of a node to it is.

use crate::client::attempts::Client;
use crate::client::error::CallError;
use crate::client::request::Ask;
use crate::client::target::percent_encode;
use crate::replica::Level;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;

/// Whether a node can serve; from `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// All checks hold.
    pub is_ready: bool,
    /// A line for each check that fails, and a last one.
    pub text: String,
}

/// What a node says of itself and its cluster; from `/v1/status`. Fields that are not here are
/// passed over.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct NodeReport {
    /// The version that it runs.
    pub version: String,
    /// Its cluster, hexadecimal.
    pub cluster: String,
    /// Its `--node-id`.
    pub name: String,
    /// Its number in the cluster.
    pub id: u64,
    /// `follower`, `pre-candidate`, `candidate` or `leader`.
    pub role: String,
    /// Its term.
    pub term: u64,
    /// The leader that it knows, if any.
    pub leader: Option<LeaderReport>,
    /// The last entry in its log.
    pub last_log: LogIdReport,
    /// The last entry that it knows to be committed.
    pub commit_index: u64,
    /// The last entry that it has applied.
    pub applied_index: u64,
    /// Number of the last change of its store.
    pub revision: u64,
    /// Keys in its store.
    pub keys: u64,
    /// Bytes of keys and values in its store.
    pub store_bytes: u64,
    /// The feature level of its cluster, as far as it has applied the log; `None` from an older
    /// release.
    #[serde(default)]
    pub feature_level: Option<u16>,
    /// The feature levels that it speaks; `None` from an older release.
    #[serde(default)]
    pub speaks: Option<LevelsReport>,
    /// A hash of its store: equal on all nodes at equal `applied_index`.
    pub state_hash: String,
    /// Every member, as far as it knows.
    pub members: Vec<MemberReport>,
    /// Whether it knows that it was removed from its cluster.
    #[serde(default)]
    pub removed: bool,
    /// Whether it waits until a cluster takes it in.
    #[serde(default)]
    pub joining: bool,
    /// Why it does not serve any more, if so.
    pub stopped: Option<String>,
    /// Why it takes no part any more, if so: it was removed, or is not to be trusted.
    #[serde(default)]
    pub withdrawn: Option<String>,
}

/// The feature levels that a node speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct LevelsReport {
    /// The lowest.
    pub lowest: u16,
    /// The highest.
    pub highest: u16,
}

/// A leader, as a node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LeaderReport {
    /// Its number in the cluster.
    pub id: u64,
    /// Its `--node-id`, if the node knows it.
    pub name: Option<String>,
    /// Where its HTTP API is, if the node knows it.
    pub http_addr: Option<String>,
}

/// An entry of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct LogIdReport {
    /// The term in which it was made.
    pub term: u64,
    /// Its place in the log.
    pub index: u64,
}

/// A member, as a node knows it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct MemberReport {
    /// Its number in the cluster.
    pub id: u64,
    /// Its `--node-id`.
    pub name: String,
    /// Where the other nodes reach it.
    pub raft_addr: String,
    /// Where its HTTP API is.
    pub http_addr: String,
    /// `voter`, `learner`, `joining` or `leaving`.
    pub standing: String,
    /// Entries that it lacks; known to the leader.
    pub lag: Option<u64>,
    /// Since it was last heard from; known to the leader.
    pub silent_seconds: Option<f64>,
}

#[derive(Serialize)]
struct SetBody<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    action: &'static str,
}

#[derive(Deserialize)]
struct GetBody<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    value: String,
}

impl Client {
    /// Sets a key. `Ok`: the write is applied.
    ///
    /// # Errors
    /// [`CallError`]. Its [`outcome`](CallError::outcome) says whether the write may have happened.
    pub async fn set(&mut self, key: &str, value: &str) -> Result<(), CallError> {
        self.write(&SetBody { key, value: Some(value), action: "set" }).await
    }

    /// Deletes a key. `Ok`: the write is applied, and the key does not exist.
    ///
    /// # Errors
    /// As of [`Self::set`].
    pub async fn delete(&mut self, key: &str) -> Result<(), CallError> {
        self.write(&SetBody { key, value: None, action: "delete" }).await
    }

    /// Reads a key. `None`: it does not exist.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn get(&mut self, key: &str, level: Level) -> Result<Option<String>, CallError> {
        let mut target = String::with_capacity(key.len() + 32);
        target.push_str("/get?key=");
        percent_encode(&mut target, key.as_bytes(), b"");
        if level == Level::Local {
            target.push_str("&level=local");
        }
        let answer = self.call(Ask::get(target, &[200, 404])).await?;
        let value = match serde_json::from_slice::<GetBody<'_>>(&answer.body) {
            Ok(found) if answer.status() == 200 && found.key == key => Some(found.value),
            _ if answer.status() == 404 && is_message(&answer.body, "Key does not exist") => None,
            _ => return Err(self.nonsense(&answer, false)),
        };
        Ok(value)
    }

    /// Has the node at `raft_addr`, whose `--node-id` is `name`, made a member. Takes until it has
    /// caught up. A join that is repeated does no harm, but it is the caller that repeats it.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn join(&mut self, name: &str, raft_addr: &str) -> Result<(), CallError> {
        let mut target = String::from("/join?nodeid=");
        percent_encode(&mut target, name.as_bytes(), b"");
        target.push_str("&nodeaddr=");
        percent_encode(&mut target, raft_addr.as_bytes(), b"");
        let answer = self.call(Ask::post(target, "")).await?;
        if is_message(&answer.body, "Voter added") { Ok(()) } else { Err(self.nonsense(&answer, true)) }
    }

    /// What a node says of itself and its cluster.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn status(&mut self) -> Result<NodeReport, CallError> {
        let answer = self.call(Ask::get("/v1/status".to_owned(), &[200])).await?;
        serde_json::from_slice(&answer.body).map_err(|_| self.nonsense(&answer, false))
    }

    /// The same as the node writes it, with fields that this client does not know.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn status_json(&mut self) -> Result<Value, CallError> {
        self.told(Ask::get("/v1/status".to_owned(), &[200])).await
    }

    /// Whether a node's process answers.
    ///
    /// # Errors
    /// [`CallError`]: it does not.
    pub async fn livez(&mut self) -> Result<(), CallError> {
        self.call(Ask::get("/livez".to_owned(), &[200])).await.map(|_| ())
    }

    /// Whether a node can serve. One that cannot is no error.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn readyz(&mut self) -> Result<Readiness, CallError> {
        let answer = self.call(Ask::get("/readyz".to_owned(), &[200, 503])).await?;
        let text = String::from_utf8_lossy(&answer.body).trim_end().to_owned();
        Ok(Readiness { is_ready: answer.status() == 200, text })
    }

    /// A node's metrics, as OpenMetrics text.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn metrics(&mut self) -> Result<String, CallError> {
        let answer = self.call(Ask::get("/metrics".to_owned(), &[200])).await?;
        match std::str::from_utf8(&answer.body) {
            Ok(text) if text.ends_with("# EOF\n") => Ok(text.to_owned()),
            _ => Err(self.nonsense(&answer, false)),
        }
    }

    async fn write(&mut self, body: &SetBody<'_>) -> Result<(), CallError> {
        let body = serde_json::to_vec(body).expect("strings are always JSON");
        let answer = self.call(Ask::post("/set".to_owned(), body)).await?;
        if is_message(&answer.body, "Set Successfull") { Ok(()) } else { Err(self.nonsense(&answer, true)) }
    }
}

/// Whether a body is `text` as one JSON string. `text` needs no escapes.
fn is_message(body: &[u8], text: &str) -> bool {
    let inner = body.trim_ascii_end().strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    inner == Some(text.as_bytes())
}
