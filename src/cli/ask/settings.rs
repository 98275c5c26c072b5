//! `settings`: the limits that the cluster shares.

use crate::cli::ask::input::client;
use crate::cli::ask::print::{Output, lines_of, note, table};
use crate::cli::client_args::{OutputFormat, SettingsArgs, SettingsCommand};
use crate::cli::exit::Failure;
use crate::cli::signals::runtime;
use crate::kv::Settings;
use serde_json::json;

/// Runs a subcommand of `settings`.
pub(in crate::cli) fn settings(args: &SettingsArgs) -> Result<(), Failure> {
    runtime(1)?.block_on(async {
        let mut client = client(&args.connect)?;
        let present = client.settings().await?;
        let settings = match &args.command {
            SettingsCommand::Get => present,
            SettingsCommand::Set(wanted) => {
                let settings = Settings {
                    history_bytes: wanted.history_bytes.unwrap_or(present.history_bytes),
                    quota_bytes: wanted.quota_bytes.unwrap_or(present.quota_bytes),
                    answers_bytes: wanted.answers_bytes.unwrap_or(present.answers_bytes),
                };
                let settings = client.configure(settings).await?;
                if wanted.quota_bytes.is_some() {
                    let stored = client.status().await.map(|status| status.store_bytes);
                    if let Some(warning) = stored.ok().and_then(|stored| tightness(&settings, stored)) {
                        note(warning);
                    }
                }
                settings
            }
        };
        let mut out = Output::new();
        print(&settings, args.output.output, &mut out)?;
        out.flush()
    })
}

/// Below this hardly anything can be put, whatever is stored: most likely a unit is missing.
const QUOTA_BYTES_LOW: u64 = 4 << 10;

/// What a quota that stops all puts does, as a person should know who sets it.
fn tightness(settings: &Settings, stored: u64) -> Option<String> {
    let quota = settings.quota_bytes;
    (quota < stored.max(QUOTA_BYTES_LOW)).then(|| {
        format!(
            "warning: the quota is {quota} bytes, and keys and values take {stored}: puts are refused until it \
             is raised or keys are deleted"
        )
    })
}

fn print(settings: &Settings, format: Option<OutputFormat>, out: &mut Output) -> Result<(), Failure> {
    let Settings { history_bytes, quota_bytes, answers_bytes } = *settings;
    if format == Some(OutputFormat::Json) {
        return out.line(json!({
            "history_bytes": history_bytes,
            "quota_bytes": quota_bytes,
            "answers_bytes": answers_bytes,
        }));
    }
    let mut rows = table(&[]);
    for (name, bytes) in
        [("history_bytes", history_bytes), ("quota_bytes", quota_bytes), ("answers_bytes", answers_bytes)]
    {
        rows.add_row([name.to_owned(), bytes.to_string()]);
    }
    out.line(lines_of(rows))
}

#[cfg(test)]
mod tests;
