//! `kv`: keys.

use crate::cli::ask::input::{bytes, checked_key, client, key, key_bytes, level, range, read, value};
use crate::cli::ask::json;
use crate::cli::ask::print::{
    Output, counted, is_text, lease_of, lines_of, missing, readable, shortened, table,
};
use crate::cli::ask::watch::{history, watch};
use crate::cli::client_args::{
    ConditionArgs, DelArgs, GetArgs, IncrArgs, KvArgs, KvCommand, LsArgs, OutputFormat, PutArgs, TxnArgs,
};
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::signals::runtime;
use crate::client::{Client, Condition, KeyPage, LeaseChoice, ListQuery, ReadOptions, WriteOptions};
use crate::kv::{Detail, KeyRange, LeaseId, Revision};
use bytes::Bytes;
use serde_json::{Map, json};

/// A transaction's JSON is at most this long: what a node takes.
const TXN_BYTES_MAX: usize = 8 << 20;
/// Keys of a page of a list whose end is near.
const PAGE_KEYS_MAX: u64 = 1000;

/// Runs a subcommand of `kv`.
pub(in crate::cli) fn kv(args: &KvArgs) -> Result<ExitStatus, Failure> {
    runtime(1)?.block_on(async {
        let mut client = client(&args.connect)?;
        let mut out = Output::new();
        let format = args.output.output;
        let status = match &args.command {
            KvCommand::Get(args) => get(&mut client, args, format, &mut out).await,
            KvCommand::Put(args) => put(&mut client, args, format, &mut out).await,
            KvCommand::Del(args) => delete(&mut client, args, format, &mut out).await,
            KvCommand::Ls(args) => list(&mut client, args, format, &mut out).await,
            KvCommand::Watch(args) => watch(&client, args, format, &mut out).await,
            KvCommand::History(args) => history(&mut client, args, format, &mut out).await,
            KvCommand::Txn(args) => transact(&mut client, args, &mut out).await,
            KvCommand::Incr(args) => increment(&mut client, args, format, &mut out).await,
            KvCommand::Compact { revision } => {
                compact(&mut client, Revision(*revision), format, &mut out).await
            }
        };
        out.flush()?;
        status
    })
}

async fn get(
    client: &mut Client,
    args: &GetArgs,
    format: Option<OutputFormat>,
    out: &mut Output,
) -> Result<ExitStatus, Failure> {
    let key = key(&args.key)?;
    let options = ReadOptions { level: level(&args.level), at: args.at.map(Revision) };
    let found = client.get_key(&key, options).await?.ok_or_else(|| missing(&key))?;
    match format {
        Some(OutputFormat::Json) => out.line(serde_json::Value::from(json::key_value(&found, true)))?,
        Some(OutputFormat::Table) => {
            let page = KeyPage { kvs: vec![found], ..KeyPage::default() };
            out.line(key_table(&page, true, true))?;
        }
        Some(OutputFormat::Raw) => out.bytes(&found.value)?,
        None if !out.is_terminal => out.bytes(&found.value)?,
        None if is_text(&found.value) => {
            out.bytes(&found.value)?;
            if !found.value.is_empty() && !found.value.ends_with(b"\n") {
                out.bytes(b"\n")?;
            }
        }
        None => {
            let text =
                "the value is no text for a terminal; send it to a file or a pipe, or say -o raw or -o json";
            return Err(Failure::new(ExitStatus::Failure, text));
        }
    }
    Ok(ExitStatus::Success)
}

async fn put(
    client: &mut Client,
    args: &PutArgs,
    format: Option<OutputFormat>,
    out: &mut Output,
) -> Result<ExitStatus, Failure> {
    let (key, value) = (key(&args.key)?, value(&args.value)?);
    let lease = match (args.lease, args.ttl) {
        (Some(lease), _) => LeaseChoice::Given(LeaseId(lease)),
        (None, Some(ttl)) => LeaseChoice::New(ttl),
        (None, None) => LeaseChoice::None,
    };
    let options = WriteOptions { condition: condition(&args.condition), lease, ..WriteOptions::default() };
    let done = client.put_key(&key, value, &options).await?;
    match format {
        Some(OutputFormat::Json) => {
            let mut object = Map::new();
            object.insert("revision".to_owned(), done.revision.0.into());
            object.insert("version".to_owned(), done.version.into());
            if let Some((lease, ttl)) = done.granted {
                object.insert("lease".to_owned(), lease.0.into());
                object.insert("ttl".to_owned(), ttl.as_secs().into());
            }
            out.line(serde_json::Value::from(object))?;
        }
        Some(OutputFormat::Raw) => out.line(done.revision)?,
        Some(OutputFormat::Table) | None => {
            let granted = done.granted.map(|(lease, ttl)| format!(", lease {lease} of {}s", ttl.as_secs()));
            let granted = granted.unwrap_or_default();
            out.line(format_args!("revision {}, version {}{granted}", done.revision, done.version))?;
        }
    }
    Ok(ExitStatus::Success)
}

async fn delete(
    client: &mut Client,
    args: &DelArgs,
    format: Option<OutputFormat>,
    out: &mut Output,
) -> Result<ExitStatus, Failure> {
    let deleted = match &args.key {
        Some(key) => {
            let key = checked_key(key_bytes(key, args.range.base64)?)?;
            let condition = args.if_revision.map(|revision| Condition::ModRevision(Revision(revision)));
            let options = WriteOptions { condition, ..WriteOptions::default() };
            let deleted = client.delete_key(&key, &options).await?;
            if deleted.count == 0 {
                return Err(missing(&key));
            }
            deleted
        }
        None => {
            let range = range(&args.range)?;
            // What a script makes of a variable that is not set.
            if range == KeyRange::all() && !args.all {
                let text = "this is every key; if you mean it, say --all";
                return Err(Failure::new(ExitStatus::Usage, text));
            }
            client.delete_range(&range).await?
        }
    };
    match format {
        Some(OutputFormat::Json) => {
            out.line(json!({ "revision": deleted.revision.0, "deleted": deleted.count }))?;
        }
        Some(OutputFormat::Raw) => out.line(deleted.count)?,
        Some(OutputFormat::Table) | None => {
            let keys = counted(deleted.count, "key");
            out.line(format_args!("deleted {keys}, revision {}", deleted.revision))?;
        }
    }
    Ok(ExitStatus::Success)
}

async fn list(
    client: &mut Client,
    args: &LsArgs,
    format: Option<OutputFormat>,
    out: &mut Output,
) -> Result<ExitStatus, Failure> {
    let range = match &args.beginning {
        Some(prefix) => KeyRange::prefix(key_bytes(prefix, args.range.base64)?),
        None => range(&args.range)?,
    };
    let format = format.unwrap_or(OutputFormat::Raw);
    let has_values = format != OutputFormat::Raw && !args.keys_only;
    let query = ListQuery {
        range,
        detail: match (args.count, has_values) {
            (true, _) => Detail::Count,
            (false, true) => Detail::Values,
            (false, false) => Detail::Keys,
        },
        delimiter: args.delimiter.as_deref().map(bytes),
        at: args.at.map(Revision),
        page_keys: args.limit.map(|limit| limit.min(PAGE_KEYS_MAX)),
        level: level(&args.level),
    };
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut is_first = true;
    let mut pages = client.list(&query);
    while left > 0
        && out.is_read()
        && let Some(mut page) = pages.next().await?
    {
        if args.count {
            match format {
                OutputFormat::Json => {
                    out.line(json!({ "revision": page.revision.0, "count": page.count }))?;
                }
                OutputFormat::Table | OutputFormat::Raw => out.line(page.count)?,
            }
            break;
        }
        let listed = merged(&mut page, usize::try_from(left).unwrap_or(usize::MAX));
        left -= listed as u64;
        match format {
            OutputFormat::Raw => {
                for name in names(&page) {
                    if out.is_terminal { out.line(readable(name))? } else { out.bytes_line(name)? }
                }
            }
            OutputFormat::Json => {
                for found in &page.kvs {
                    out.line(serde_json::Value::from(json::key_value(found, has_values)))?;
                }
                for prefix in &page.prefixes {
                    let mut object = Map::new();
                    crate::client::put_bytes(&mut object, "prefix", prefix);
                    out.line(serde_json::Value::from(object))?;
                }
            }
            OutputFormat::Table if listed > 0 => out.line(key_table(&page, has_values, is_first))?,
            OutputFormat::Table => {}
        }
        is_first = false;
    }
    Ok(ExitStatus::Success)
}

/// Leaves the first `limit` keys and prefixes of a page, in their common order. How many those are.
fn merged(page: &mut KeyPage, limit: usize) -> usize {
    let all = page.kvs.len() + page.prefixes.len();
    if all <= limit {
        return all;
    }
    let last = names(page).into_iter().nth(limit).map(Bytes::copy_from_slice).unwrap_or_default();
    page.kvs.retain(|found| found.key < last);
    page.prefixes.retain(|prefix| *prefix < last);
    limit
}

/// Keys and prefixes, in their common order.
fn names(page: &KeyPage) -> Vec<&[u8]> {
    let keys = page.kvs.iter().map(|found| &found.key[..]);
    let mut names: Vec<&[u8]> = keys.chain(page.prefixes.iter().map(|prefix| &prefix[..])).collect();
    names.sort_unstable();
    names
}

fn key_table(page: &KeyPage, has_values: bool, has_header: bool) -> String {
    let header: &[&str] = match (has_header, has_values) {
        (false, _) => &[],
        (true, true) => &["key", "revision", "version", "lease", "value"],
        (true, false) => &["key", "revision", "version", "lease"],
    };
    let mut table = table(header);
    for found in &page.kvs {
        let mut row = vec![
            readable(&found.key),
            found.mod_revision.to_string(),
            found.version.to_string(),
            lease_of(found),
        ];
        if has_values {
            row.push(shortened(&found.value));
        }
        table.add_row(row);
    }
    for prefix in &page.prefixes {
        table.add_row([readable(prefix)]);
    }
    lines_of(table)
}

fn condition(args: &ConditionArgs) -> Option<Condition> {
    match (args.if_revision, args.if_exists, args.if_missing) {
        (Some(revision), _, _) => Some(Condition::ModRevision(Revision(revision))),
        (None, true, _) => Some(Condition::Exists),
        (None, false, true) => Some(Condition::IsMissing),
        (None, false, false) => None,
    }
}

async fn transact(client: &mut Client, args: &TxnArgs, out: &mut Output) -> Result<ExitStatus, Failure> {
    let body = read(&args.transaction, TXN_BYTES_MAX, "a transaction")?;
    let done = client.txn_json(body).await?;
    out.line(&done)?;
    let succeeded = done.get("succeeded").and_then(serde_json::Value::as_bool) == Some(true);
    Ok(if succeeded { ExitStatus::Success } else { ExitStatus::ConditionFailed })
}

async fn increment(
    client: &mut Client,
    args: &IncrArgs,
    format: Option<OutputFormat>,
    out: &mut Output,
) -> Result<ExitStatus, Failure> {
    let done = client.increment(&key(&args.key)?, args.by).await?;
    match format {
        Some(OutputFormat::Json) => {
            out.line(json!({ "revision": done.revision.0, "version": done.version, "value": done.value }))?;
        }
        _ => out.line(done.value)?,
    }
    Ok(ExitStatus::Success)
}

async fn compact(
    client: &mut Client,
    revision: Revision,
    format: Option<OutputFormat>,
    out: &mut Output,
) -> Result<ExitStatus, Failure> {
    client.compact(revision).await?;
    match format {
        Some(OutputFormat::Json) => out.line(json!({ "compacted": revision.0 }))?,
        Some(OutputFormat::Raw) => out.line(revision)?,
        Some(OutputFormat::Table) | None => {
            out.line(format_args!("what was before revision {revision} is forgotten"))?;
        }
    }
    Ok(ExitStatus::Success)
}
