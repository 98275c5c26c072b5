//! Transactions.

use crate::client::attempts::Client;
use crate::client::error::CallError;
use crate::client::json::{NoSuchJson, put_bytes, put_range};
use crate::client::keys::WriteOptions;
use crate::client::ranges::{KeyPage, PageBody};
use crate::client::request::Ask;
use crate::kv::{Compare, CompareOrder, Detail, RangeQuery, Revision, Target, Txn, TxnOp};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnDone {
    /// The store's revision afterwards.
    pub revision: Revision,
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// What each step of the branch did.
    pub results: Vec<StepDone>,
}

/// What a step of a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepDone {
    /// A key was put.
    Put {
        /// Its version now.
        version: u64,
    },
    /// Keys were removed.
    Deleted {
        /// How many there were.
        count: u64,
    },
    /// Keys were read.
    Found(KeyPage),
    /// What the inner transaction did.
    Txn {
        /// Whether its comparisons held.
        succeeded: bool,
        /// What each step of its branch did.
        results: Vec<StepDone>,
    },
}

#[derive(Deserialize)]
struct TxnBody {
    #[serde(default)]
    revision: Revision,
    succeeded: bool,
    results: Vec<StepBody>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum StepBody {
    Put { version: u64 },
    Delete { deleted: u64 },
    Get(PageBody),
    Txn(TxnBody),
}

impl Client {
    /// Compares, and does one thing or the other, in one revision. A `get` within it takes neither
    /// [`RangeQuery::resume`] nor a delimiter.
    ///
    /// # Errors
    /// [`CallError`]. Its [`outcome`](CallError::outcome) says whether the write may have happened.
    pub async fn txn(&mut self, txn: &Txn) -> Result<TxnDone, CallError> {
        let body = serde_json::to_vec(&txn_json(txn)).expect("a Value is always JSON");
        let ask = self.txn_ask(body);
        let answer = self.call(ask).await?;
        let body = serde_json::from_slice::<TxnBody>(&answer.body);
        let body = body.map_err(|_| self.nonsense(&answer, true))?;
        let revision = body.revision;
        match steps(body.results) {
            Ok(results) => Ok(TxnDone { revision, succeeded: body.succeeded, results }),
            Err(NoSuchJson) => Err(self.nonsense(&answer, true)),
        }
    }

    /// A transaction as `POST /v1/txn` takes it, and its answer as it is.
    ///
    /// # Errors
    /// As of [`Self::txn`].
    pub async fn txn_json(&mut self, body: impl Into<Bytes>) -> Result<Value, CallError> {
        let ask = self.txn_ask(body.into());
        self.told(ask).await
    }

    fn txn_ask(&self, body: impl Into<Bytes>) -> Result<Ask, crate::client::error::CallFailure> {
        self.write_ask(Ask::post("/v1/txn".to_owned(), body), &WriteOptions::default())
    }
}

fn steps(bodies: Vec<StepBody>) -> Result<Vec<StepDone>, NoSuchJson> {
    let step = |body| {
        Ok(match body {
            StepBody::Put { version } => StepDone::Put { version },
            StepBody::Delete { deleted } => StepDone::Deleted { count: deleted },
            StepBody::Get(page) => StepDone::Found(page.try_into()?),
            StepBody::Txn(TxnBody { succeeded, results, .. }) => {
                StepDone::Txn { succeeded, results: steps(results)? }
            }
        })
    };
    bodies.into_iter().map(step).collect()
}

fn txn_json(txn: &Txn) -> Value {
    let list = |ops: &[TxnOp]| ops.iter().map(step_json).collect::<Vec<_>>();
    json!({
        "if": txn.compare.iter().map(compare_json).collect::<Vec<_>>(),
        "then": list(&txn.success),
        "else": list(&txn.failure),
    })
}

fn compare_json(compare: &Compare) -> Value {
    let mut object = Map::new();
    put_range(&mut object, &compare.range);
    let (target, number) = match &compare.target {
        Target::Value(value) => {
            put_bytes(&mut object, "to", value);
            ("value", None)
        }
        Target::Version(version) => ("version", Some(*version)),
        Target::CreateRevision(revision) => ("create_revision", Some(revision.0)),
        Target::ModRevision(revision) => ("mod_revision", Some(revision.0)),
        Target::Lease(lease) => ("lease", Some(lease.0)),
    };
    let order = match compare.order {
        CompareOrder::Equal => "=",
        CompareOrder::NotEqual => "!=",
        CompareOrder::Less => "<",
        CompareOrder::Greater => ">",
    };
    object.insert("target".to_owned(), target.into());
    object.insert("op".to_owned(), order.into());
    if let Some(number) = number {
        object.insert("to".to_owned(), number.into());
    }
    object.into()
}

fn step_json(step: &TxnOp) -> Value {
    let mut object = Map::new();
    let name = match step {
        TxnOp::Put(put) => {
            put_bytes(&mut object, "key", &put.key);
            put_bytes(&mut object, "value", &put.value);
            if !put.lease.is_none() {
                object.insert("lease".to_owned(), put.lease.0.into());
            }
            "put"
        }
        TxnOp::Delete(range) => {
            put_range(&mut object, range);
            "delete"
        }
        TxnOp::Get(RangeQuery { range, at, limit, detail, .. }) => {
            put_range(&mut object, range);
            object.insert("limit".to_owned(), (*limit).into());
            object.insert("keys_only".to_owned(), (*detail == Detail::Keys).into());
            object.insert("count_only".to_owned(), (*detail == Detail::Count).into());
            if let Some(at) = at {
                object.insert("at".to_owned(), at.0.into());
            }
            "get"
        }
        TxnOp::Txn(txn) => return json!({ "txn": txn_json(txn) }),
    };
    json!({ name: object })
}
