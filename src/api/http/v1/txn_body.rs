//! The body of `POST /v1/txn`: JSON to a transaction.

use crate::api::http::v1::object::parse_json;
use crate::api::http::v1::parameters::refuse_empty_end;
use crate::api::http::v1::problem::Problem;
use crate::codec::from_base64;
use crate::kv::{
    Compare, CompareOrder, Detail, KeyRange, LeaseId, Put, RangeQuery, Revision, TXN_STEPS_MAX, Target, Txn,
    TxnOp,
};
use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;

/// Objects and arrays in a body, at most: a step has no more than three. What is parsed takes
/// memory for each of them, however short they are.
const NODES_MAX: usize = 4 * TXN_STEPS_MAX + 16;
/// Commas in a body, at most: fields and elements.
const COMMAS_MAX: usize = 16 * TXN_STEPS_MAX;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct TxnBody {
    #[serde(default, rename = "if")]
    compare: Vec<CompareBody>,
    #[serde(default)]
    then: Vec<StepBody>,
    #[serde(default, rename = "else")]
    otherwise: Vec<StepBody>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum StepBody {
    Put(PutBody),
    Get(GetBody),
    Delete(DeleteBody),
    Txn(TxnBody),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutBody {
    key: Option<String>,
    key64: Option<String>,
    value: Option<String>,
    value64: Option<String>,
    #[serde(default)]
    lease: u64,
}

/// What names keys. Serde flattens no struct that refuses unknown fields, so each body that has
/// these lists them.
macro_rules! body_with_range {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            key: Option<String>,
            key64: Option<String>,
            prefix: Option<String>,
            prefix64: Option<String>,
            start: Option<String>,
            start64: Option<String>,
            end: Option<String>,
            end64: Option<String>,
            $($(#[$field_meta])* $field: $type,)*
        }

        impl $name {
            fn range(&mut self) -> Result<KeyRange, Problem> {
                range_of(
                    bytes_of("key", self.key.take(), self.key64.take())?,
                    bytes_of("prefix", self.prefix.take(), self.prefix64.take())?,
                    bytes_of("start", self.start.take(), self.start64.take())?,
                    bytes_of("end", self.end.take(), self.end64.take())?,
                )
            }
        }
    };
}

body_with_range!(DeleteBody {});

body_with_range!(GetBody {
    #[serde(default)]
    limit: usize,
    #[serde(default)]
    keys_only: bool,
    #[serde(default)]
    count_only: bool,
    at: Option<u64>,
});

body_with_range!(CompareBody {
    value: Option<String>,
    value64: Option<String>,
    version: Option<u64>,
    create_revision: Option<u64>,
    mod_revision: Option<u64>,
    lease: Option<u64>,
    target: Option<TargetName>,
    op: Option<OrderName>,
    to: Option<Operand>,
    to64: Option<String>,
});

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TargetName {
    Value,
    Version,
    CreateRevision,
    ModRevision,
    Lease,
}

#[derive(Clone, Copy, Deserialize)]
enum OrderName {
    #[serde(rename = "=", alias = "==")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = "<")]
    Less,
    #[serde(rename = ">")]
    Greater,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Operand {
    Number(u64),
    Text(String),
}

/// The transaction that a body asks for.
pub(in crate::api::http) fn parse(body: &[u8]) -> Result<Txn, Problem> {
    bound(body)?;
    txn(parse_json(body)?)
}

/// Refuses a body that would take far more memory than its own bytes.
fn bound(body: &[u8]) -> Result<(), Problem> {
    let (mut nodes, mut commas, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => nodes += 1,
            b',' if !in_string => commas += 1,
            _ => {}
        }
    }
    if nodes > NODES_MAX || commas > COMMAS_MAX {
        let detail = format!(
            "the transaction has too many parts; {TXN_STEPS_MAX} comparisons and steps are the limit"
        );
        return Err(Problem::new(StatusCode::BAD_REQUEST, "too-many-steps", detail));
    }
    Ok(())
}

fn txn(body: TxnBody) -> Result<Txn, Problem> {
    let mut compare = Vec::with_capacity(body.compare.len());
    for one in body.compare {
        comparisons(one, &mut compare)?;
    }
    let steps = |steps: Vec<StepBody>| steps.into_iter().map(step).collect::<Result<Vec<_>, _>>();
    Ok(Txn { compare, success: steps(body.then)?, failure: steps(body.otherwise)? })
}

fn step(step: StepBody) -> Result<TxnOp, Problem> {
    Ok(match step {
        StepBody::Put(put) => {
            let key = bytes_of("key", put.key, put.key64)?.ok_or_else(|| missing("put", "key"))?;
            let value = bytes_of("value", put.value, put.value64)?.ok_or_else(|| missing("put", "value"))?;
            TxnOp::Put(Put { key, value, lease: LeaseId(put.lease) })
        }
        StepBody::Delete(mut delete) => {
            let is_prefix = delete.prefix.is_some() || delete.prefix64.is_some();
            let range = delete.range()?;
            // What a script makes of a variable that is not set.
            if is_prefix && range == KeyRange::all() {
                let detail = "a delete's prefix is empty; to delete every key, say \"start\": \"\"";
                return Err(Problem::bad("empty-range", detail));
            }
            TxnOp::Delete(range)
        }
        StepBody::Get(mut get) => {
            let detail = match (get.keys_only, get.count_only) {
                (true, true) => {
                    return Err(Problem::bad("bad-field", "keys_only and count_only do not go together"));
                }
                (true, false) => Detail::Keys,
                (false, true) => Detail::Count,
                (false, false) => Detail::Values,
            };
            let (at, limit) = (get.at.map(Revision), get.limit);
            TxnOp::Get(RangeQuery { at, limit, detail, count: true, ..RangeQuery::of(get.range()?) })
        }
        StepBody::Txn(inner) => TxnOp::Txn(Box::new(txn(inner)?)),
    })
}

/// One comparison for each field; all have to hold.
fn comparisons(mut body: CompareBody, out: &mut Vec<Compare>) -> Result<(), Problem> {
    let range = body.range()?;
    let before = out.len();
    let mut push = |target, order| out.push(Compare { range: range.clone(), target, order });
    if let Some(value) = bytes_of("value", body.value.take(), body.value64.take())? {
        push(Target::Value(value), CompareOrder::Equal);
    }
    if let Some(version) = body.version {
        push(Target::Version(version), CompareOrder::Equal);
    }
    if let Some(revision) = body.create_revision {
        push(Target::CreateRevision(Revision(revision)), CompareOrder::Equal);
    }
    if let Some(revision) = body.mod_revision {
        push(Target::ModRevision(Revision(revision)), CompareOrder::Equal);
    }
    if let Some(lease) = body.lease {
        push(Target::Lease(LeaseId(lease)), CompareOrder::Equal);
    }
    match (body.target, body.op, body.to, body.to64) {
        (None, None, None, None) => {}
        (Some(target), op, to, to64) if to.is_some() || to64.is_some() => {
            let order = match op.unwrap_or(OrderName::Equal) {
                OrderName::Equal => CompareOrder::Equal,
                OrderName::NotEqual => CompareOrder::NotEqual,
                OrderName::Less => CompareOrder::Less,
                OrderName::Greater => CompareOrder::Greater,
            };
            push(operand(target, to, to64)?, order);
        }
        _ => return Err(Problem::bad("bad-field", "target, op and to go together in a comparison")),
    }
    if out.len() == before {
        let detail = "a comparison compares nothing; add value, version, create_revision, mod_revision or lease, or target, op and to";
        return Err(Problem::bad("bad-field", detail));
    }
    Ok(())
}

fn operand(target: TargetName, to: Option<Operand>, to64: Option<String>) -> Result<Target, Problem> {
    let (text, number) = match to {
        Some(Operand::Number(number)) => (None, Some(number)),
        Some(Operand::Text(text)) => (Some(text), None),
        None => (None, None),
    };
    let bad = |what| Problem::bad("bad-field", format!("to is not {what}"));
    Ok(match (target, number) {
        (TargetName::Value, _) => Target::Value(bytes_of("to", text, to64)?.ok_or_else(|| bad("text"))?),
        _ if to64.is_some() => return Err(bad("a number: to64 is for values")),
        (_, None) => return Err(bad("a number")),
        (TargetName::Version, Some(number)) => Target::Version(number),
        (TargetName::CreateRevision, Some(number)) => Target::CreateRevision(Revision(number)),
        (TargetName::ModRevision, Some(number)) => Target::ModRevision(Revision(number)),
        (TargetName::Lease, Some(number)) => Target::Lease(LeaseId(number)),
    })
}

fn range_of(
    key: Option<Bytes>,
    prefix: Option<Bytes>,
    start: Option<Bytes>,
    end: Option<Bytes>,
) -> Result<KeyRange, Problem> {
    match (key, prefix, start, end) {
        (Some(key), None, None, None) if key.is_empty() => Err(Problem::bad("empty-key", "a key is empty")),
        (Some(key), None, None, None) => Ok(KeyRange::one(key)),
        (None, Some(prefix), None, None) => Ok(KeyRange::prefix(prefix)),
        (None, None, start, end) if start.is_some() || end.is_some() => {
            refuse_empty_end(end.as_ref())?;
            Ok(KeyRange { start: start.unwrap_or_default(), end })
        }
        (None, None, _, _) => {
            Err(Problem::bad("bad-field", "a step names no key: add key, prefix, or start and end"))
        }
        _ => Err(Problem::bad("bad-field", "key, prefix, and start and end do not go together")),
    }
}

fn bytes_of(name: &str, text: Option<String>, base64: Option<String>) -> Result<Option<Bytes>, Problem> {
    match (text, base64) {
        (Some(_), Some(_)) => {
            Err(Problem::bad("bad-field", format!("{name} and {name}64 do not go together; leave one out")))
        }
        (Some(text), None) => Ok(Some(Bytes::from(text))),
        (None, Some(text)) => match from_base64(text.as_bytes()) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) => Err(Problem::bad("bad-base64", format!("{name}64 {error}"))),
        },
        (None, None) => Ok(None),
    }
}

fn missing(step: &str, field: &str) -> Problem {
    Problem::bad("bad-field", format!("a {step} has no {field}: add {field} or {field}64"))
}
