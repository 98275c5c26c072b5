//! `export`: all keys, as JSON lines.
//!
//! The first line is `{"export":{"version":1,"revision":17}}`. A line follows for each key, as the
//! HTTP API writes it. The last line is `{"end":{"keys":2}}`: without it, the export was cut short.

use crate::cli::ask::input::{bytes, client};
use crate::cli::ask::json;
use crate::cli::ask::print::Output;
use crate::cli::client_args::ExportArgs;
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::signals::runtime;
use crate::client::ListQuery;
use crate::kv::{KeyRange, Revision};
use serde_json::{Value, json};

/// The version of the format.
pub(super) const EXPORT_VERSION: u64 = 1;

/// Prints all keys of one revision.
pub(in crate::cli) fn export(args: &ExportArgs) -> Result<(), Failure> {
    runtime(1)?.block_on(async {
        let mut client = client(&args.connect)?;
        let mut out = Output::new();
        let range =
            args.prefix.as_deref().map_or_else(KeyRange::all, |prefix| KeyRange::prefix(bytes(prefix)));
        let query = ListQuery { at: args.at.map(Revision), ..ListQuery::of(range) };
        let mut pages = client.list(&query);
        let (mut keys, mut expected) = (0, None);
        while out.is_read()
            && let Some(page) = pages.next().await?
        {
            if expected.is_none() {
                expected = Some(page.count);
                out.line(json!({ "export": { "version": EXPORT_VERSION, "revision": page.revision.0 } }))?;
            }
            for found in &page.kvs {
                out.line(Value::from(json::key_value(found, true)))?;
                keys += 1;
            }
        }
        if out.is_read() && expected != Some(keys) {
            let text =
                format!("{keys} keys were listed, and there should be {}", expected.unwrap_or_default());
            return Err(Failure::new(ExitStatus::Failure, text));
        }
        out.line(json!({ "end": { "keys": keys } }))?;
        out.flush()
    })
}
