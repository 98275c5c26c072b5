//! `lease`: leases.

use crate::cli::ask::input::client;
use crate::cli::ask::print::{Output, counted, lines_of, readable, table};
use crate::cli::client_args::{LeaseArgs, LeaseCommand, OutputFormat};
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::signals::runtime;
use crate::client::{Client, ErrorKind, LeaseTime, put_bytes};
use crate::kv::LeaseId;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Between two attempts to renew a lease that no node took.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// A renewal is due when this part of the lease's time has passed since the last one, and a node
/// that has not answered it within as much is given up.
const RENEW_AFTER: u32 = 4;

/// Runs a subcommand of `lease`.
pub(in crate::cli) fn lease(args: &LeaseArgs) -> Result<ExitStatus, Failure> {
    runtime(1)?.block_on(async {
        let mut client = client(&args.connect)?;
        let mut out = Output::new();
        let format = args.output.output;
        let done = match args.command {
            LeaseCommand::Grant { ttl, id } => grant(&mut client, (ttl, id), format, &mut out).await,
            LeaseCommand::Keepalive { id, once } => {
                let timeout = args.connect.timeout;
                keep_alive(&mut client, (LeaseId(id), once), timeout, format, &mut out).await
            }
            LeaseCommand::Revoke { id } => revoke(&mut client, LeaseId(id), format, &mut out).await,
            LeaseCommand::Ls => list(&mut client, format, &mut out).await,
            LeaseCommand::Info { id } => info(&mut client, LeaseId(id), format, &mut out).await,
        };
        out.flush()?;
        done.map(|()| ExitStatus::Success)
    })
}

async fn grant(
    client: &mut Client,
    (ttl, id): (Duration, Option<u64>),
    format: Option<OutputFormat>,
    out: &mut Output,
) -> Result<(), Failure> {
    let granted = client.grant_lease(ttl, LeaseId(id.unwrap_or_default())).await?;
    match format {
        Some(OutputFormat::Json) => out.line(json!({ "id": granted.id.0, "ttl": granted.ttl.as_secs() })),
        Some(OutputFormat::Raw) => out.line(granted.id),
        Some(OutputFormat::Table) | None => {
            out.line(format_args!("lease {}, {}s", granted.id, granted.ttl.as_secs()))
        }
    }
}

async fn keep_alive(
    client: &mut Client,
    (id, once): (LeaseId, bool),
    timeout: Duration,
    format: Option<OutputFormat>,
    out: &mut Output,
) -> Result<(), Failure> {
    // Until the lease may have ended, another attempt may succeed.
    let mut confirmed = None;
    loop {
        let asked = Instant::now();
        let time = match client.keep_lease_alive(id).await {
            Ok(time) => time,
            Err(error)
                if error.kind() != ErrorKind::NotFound
                    && confirmed.is_some_and(|(at, ttl)| Instant::now() < at + ttl) =>
            {
                sleep(RETRY_PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        confirmed = Some((asked, time.ttl));
        // One node that does not answer must not cost all of the lease's time.
        client.set_answer_timeout(timeout.min(time.ttl / RENEW_AFTER));
        match format {
            Some(OutputFormat::Json) => out.line(Value::from(time_json(&time)))?,
            Some(OutputFormat::Raw) => out.line(time.left.as_secs_f64())?,
            Some(OutputFormat::Table) | None => {
                out.line(format_args!("lease {id}, {}s", about(time.left)))?;
            }
        }
        out.flush()?;
        if once || !out.is_read() {
            return Ok(());
        }
        sleep_until(asked + time.ttl / RENEW_AFTER).await;
    }
}

async fn revoke(
    client: &mut Client,
    id: LeaseId,
    format: Option<OutputFormat>,
    out: &mut Output,
) -> Result<(), Failure> {
    let deleted = client.revoke_lease(id).await?;
    match format {
        Some(OutputFormat::Json) => {
            out.line(json!({ "revision": deleted.revision.0, "deleted": deleted.count }))
        }
        Some(OutputFormat::Raw) => out.line(deleted.count),
        Some(OutputFormat::Table) | None => {
            let keys = counted(deleted.count, "key");
            out.line(format_args!("lease {id} has ended, and {keys} with it"))
        }
    }
}

async fn list(client: &mut Client, format: Option<OutputFormat>, out: &mut Output) -> Result<(), Failure> {
    let mut from = Some(LeaseId::NONE);
    let mut header: &[&str] = &["lease", "ttl", "keys"];
    while let Some(begin) = from
        && out.is_read()
    {
        let (leases, next) = client.leases(begin).await?;
        let mut page = table(header);
        for lease in &leases {
            match format {
                Some(OutputFormat::Json) => {
                    out.line(json!({ "id": lease.id.0, "ttl": lease.ttl_seconds, "keys": lease.keys }))?;
                }
                Some(OutputFormat::Table) => {
                    let (id, ttl) = (lease.id.to_string(), format!("{}s", lease.ttl_seconds));
                    page.add_row([id, ttl, lease.keys.to_string()]);
                }
                Some(OutputFormat::Raw) | None => out.line(lease.id)?,
            }
        }
        if !page.is_empty() {
            out.line(lines_of(page))?;
        }
        header = &[];
        from = next;
    }
    Ok(())
}

async fn info(
    client: &mut Client,
    id: LeaseId,
    format: Option<OutputFormat>,
    out: &mut Output,
) -> Result<(), Failure> {
    let info = client.lease(id).await?;
    match format {
        Some(OutputFormat::Json) => {
            let mut object = time_json(&info.time);
            let keys = info.keys.iter().map(|key| {
                let mut object = Map::new();
                put_bytes(&mut object, "key", key);
                Value::from(object)
            });
            object.insert("count".to_owned(), info.count.into());
            object.insert("keys".to_owned(), keys.collect());
            out.line(Value::from(object))
        }
        Some(OutputFormat::Raw) => out.line(info.time.left.as_secs_f64()),
        Some(OutputFormat::Table) | None => {
            let (ttl, left) = (info.time.ttl.as_secs(), about(info.time.left));
            let keys = counted(info.count, "key");
            out.line(format_args!("lease {id}, {left}s left of {ttl}s, {keys}"))?;
            for key in &info.keys {
                out.line(format_args!("  {}", readable(key)))?;
            }
            if (info.keys.len() as u64) < info.count {
                out.line("  …")?;
            }
            Ok(())
        }
    }
}

fn time_json(time: &LeaseTime) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("id".to_owned(), time.id.0.into());
    object.insert("ttl".to_owned(), time.ttl.as_secs().into());
    object.insert("left".to_owned(), time.left.as_secs_f64().into());
    object
}

/// Seconds for people: whole ones, and tenths of the last ten.
fn about(left: Duration) -> f64 {
    let seconds = left.as_secs_f64();
    if seconds >= 10.0 { seconds.round() } else { (seconds * 10.0).round() / 10.0 }
}
