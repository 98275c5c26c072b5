//! `backup verify` and `backup inspect`.

use crate::cli::backup::file::{Whole, read};
use crate::cli::client_args::{OutputArgs, OutputFormat};
use crate::cli::exit::{ExitStatus, Failure};
use serde_json::{Value, json};
use std::io::{self, Write as _};
use std::path::Path;

/// Reads all of a backup, builds its state, and compares that with what the backup says of itself.
pub(super) fn verify(path: &Path, output: &OutputArgs) -> Result<(), Failure> {
    let whole = read(path, "verifying")?;
    if output.output == Some(OutputFormat::Json) {
        return print(&described(&whole).to_string());
    }
    let header = &whole.header;
    print(&format!("{} is whole: revision {}, {} keys", path.display(), header.revision, header.keys))
}

/// Says what is in a backup.
pub(super) fn inspect(path: &Path, output: &OutputArgs) -> Result<(), Failure> {
    let described = described(&read(path, "reading")?);
    if output.output == Some(OutputFormat::Json) {
        return print(&described.to_string());
    }
    let Value::Object(fields) = described else { return Ok(()) };
    let width = fields.keys().map(String::len).max().unwrap_or_default();
    let line = |(name, value): (&String, &Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name:width$}  {value}")
    };
    print(&fields.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn described(whole: &Whole) -> Value {
    let Whole { header, store, bytes } = whole;
    let settings = store.settings();
    json!({
        "cluster": header.cluster.to_string(),
        "store": header.store.to_string(),
        "last_term": header.last.term.get(),
        "last_index": header.last.index.get(),
        "revision": header.revision.0,
        "compacted": store.compacted().0,
        "keys": header.keys,
        "store_bytes": header.store_bytes,
        "history_bytes": store.history_bytes(),
        "answers_bytes": store.answers_bytes(),
        "leases": store.lease_count(),
        "quota_bytes": settings.quota_bytes,
        "state_hash": format!("{:032x}", header.state_hash),
        "file_bytes": bytes,
    })
}

fn print(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(ExitStatus::Failure, format!("cannot print: {error}")))
        }
        _ => Ok(()),
    }
}
