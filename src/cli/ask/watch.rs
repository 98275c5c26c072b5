//! `kv watch` and `kv history`: changes.

use crate::cli::ask::input::{checked_key, key, key_bytes, range};
use crate::cli::ask::json;
use crate::cli::ask::print::{Output, lease_of, lines_of, missing, readable, shortened, table};
use crate::cli::client_args::{HistoryArgs, OutputFormat, WatchArgs};
use crate::cli::exit::{ExitStatus, Failure};
use crate::client::{Client, ListQuery, WatchMessage, WatchQuery};
use crate::kv::{Event, KeyRange, KeyValue, Revision};
use std::collections::VecDeque;

/// Versions that `history` holds before it prints them.
const VERSIONS_HELD: usize = 1000;

/// Prints changes as they happen.
pub(super) async fn watch(
    client: &Client,
    args: &WatchArgs,
    format: Option<OutputFormat>,
    out: &mut Output,
) -> Result<ExitStatus, Failure> {
    let range = match &args.key {
        Some(key) => KeyRange::one(checked_key(key_bytes(key, args.range.base64)?)?),
        None => range(&args.range)?,
    };
    let mut watch = client.watch(WatchQuery {
        from: args.from.map(Revision),
        puts: !args.deletes_only,
        deletions: !args.puts_only,
        previous: args.previous,
        ..WatchQuery::of(range)
    });
    let mut left = args.count.unwrap_or(u64::MAX);
    while out.is_read() {
        let changes = match watch.next().await? {
            WatchMessage::Changes(changes) => changes,
            WatchMessage::Progress(_) => continue,
            WatchMessage::Compacted(oldest) => {
                let text = format!(
                    "what comes next is gone from history: the oldest revision that is there is {oldest}; \
                     say --from {oldest} to go on there"
                );
                return Err(Failure::new(ExitStatus::NotFound, text));
            }
        };
        if format == Some(OutputFormat::Json) {
            out.line(json::changes(&changes))?;
        }
        let wanted = usize::try_from(left).unwrap_or(usize::MAX);
        for event in changes.events.iter().take(wanted) {
            match format {
                Some(OutputFormat::Json) => {}
                Some(OutputFormat::Raw) => {
                    if let Some(now) = &event.now {
                        out.bytes_line(&now.value)?;
                    }
                }
                Some(OutputFormat::Table) | None => out.line(line_of(changes.revision, event))?,
            }
        }
        out.flush()?;
        left = left.saturating_sub(changes.events.len() as u64);
        if left == 0 {
            break;
        }
    }
    Ok(ExitStatus::Success)
}

fn line_of(revision: Revision, event: &Event) -> String {
    let (kind, key) = (json::kind_of(event), readable(&event.key));
    match &event.now {
        Some(now) => format!("{revision} {kind} {key} {}", shortened(&now.value)),
        None => format!("{revision} {kind} {key}"),
    }
}

/// Prints the versions that a key had.
pub(super) async fn history(
    client: &mut Client,
    args: &HistoryArgs,
    format: Option<OutputFormat>,
    out: &mut Output,
) -> Result<ExitStatus, Failure> {
    let key = key(&args.key)?;
    let (present, extent) = extent(client, &key).await?;
    let limit = args.limit.and_then(|limit| usize::try_from(limit).ok());
    let mut held = VecDeque::new();
    let mut is_first = true;
    let (oldest, last) = match (extent, present) {
        (Some(extent), _) => extent,
        // It was last set before what the cluster remembers, and is as it was then.
        (None, Some(present)) => {
            let revision = present.mod_revision;
            held.push_back((
                revision,
                Event { key: present.key.clone(), now: Some(present), previous: None },
            ));
            return print(&mut held, format, &mut is_first, out).map(|()| ExitStatus::Success);
        }
        (None, None) => return Err(missing(&key)),
    };
    let query = WatchQuery { from: Some(oldest), ..WatchQuery::of(KeyRange::one(key)) };
    let mut watch = client.watch(query);
    loop {
        match watch.next().await? {
            WatchMessage::Changes(changes) => {
                let revision = changes.revision;
                held.extend(changes.events.into_iter().map(|event| (revision, event)));
                match limit {
                    Some(limit) => drop(held.drain(..held.len().saturating_sub(limit))),
                    None if held.len() >= VERSIONS_HELD => print(&mut held, format, &mut is_first, out)?,
                    None => {}
                }
                if revision >= last || !out.is_read() {
                    break;
                }
            }
            WatchMessage::Progress(revision) if revision >= last => break,
            // What was compacted meanwhile is no history any more.
            WatchMessage::Progress(_) | WatchMessage::Compacted(_) => {}
        }
    }
    print(&mut held, format, &mut is_first, out)?;
    Ok(ExitStatus::Success)
}

/// The oldest revision that is there, and the last one that changed a key. `None`: none did, as far
/// back as the cluster remembers.
type Extent = Option<(Revision, Revision)>;

/// The key as it was before its changes were looked for, and how far they go. What changes later
/// may be left out: a key may change faster than its changes are asked for.
async fn extent(client: &mut Client, key: &[u8]) -> Result<(Option<KeyValue>, Extent), Failure> {
    // Afterwards this node is known to have all that was written before, and it is asked what
    // follows.
    let query = ListQuery { page_keys: Some(1), ..ListQuery::of(KeyRange::one(key.to_vec())) };
    let page = client.list(&query).next().await?.unwrap_or_default();
    let present = page.kvs.into_iter().next();
    let mut oldest = Revision(1);
    let mut last = None;
    let mut after = Revision(0);
    loop {
        match client.last_change(key, after).await {
            Ok(Some(revision)) if revision >= page.revision => {
                return Ok((present, Some((oldest, revision))));
            }
            Ok(Some(revision)) => (last, after) = (Some(revision), revision),
            Ok(None) => return Ok((present, last.map(|last| (oldest, last)))),
            Err(error) if error.code() == Some("compacted") => {
                let there = error.refusal().and_then(|refusal| refusal.revision);
                match there.filter(|there| *there > oldest) {
                    Some(there) => (oldest, after) = (there, Revision(there.0 - 1)),
                    None => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn print(
    held: &mut VecDeque<(Revision, Event)>,
    format: Option<OutputFormat>,
    is_first: &mut bool,
    out: &mut Output,
) -> Result<(), Failure> {
    let header: &[&str] = if *is_first { &["revision", "change", "version", "lease", "value"] } else { &[] };
    let mut table = table(header);
    for (revision, event) in held.drain(..) {
        match format {
            Some(OutputFormat::Json) => {
                let mut object = serde_json::Map::new();
                object.insert("revision".to_owned(), revision.0.into());
                if let serde_json::Value::Object(event) = json::event(&event) {
                    object.extend(event);
                }
                out.line(serde_json::Value::from(object))?;
            }
            Some(OutputFormat::Raw) => out.line(revision)?,
            Some(OutputFormat::Table) | None => {
                let mut row = vec![revision.to_string(), json::kind_of(&event).to_owned()];
                if let Some(now) = &event.now {
                    row.extend([now.version.to_string(), lease_of(now), shortened(&now.value)]);
                }
                table.add_row(row);
            }
        }
    }
    if matches!(format, None | Some(OutputFormat::Table)) && !table.is_empty() {
        out.line(lines_of(table))?;
    }
    *is_first = false;
    Ok(())
}
