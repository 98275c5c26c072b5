//! Log lines, to standard error.

use crate::cli::args::{LogArgs, LogFormat};
use crate::cli::exit::{ExitStatus, Failure};
use std::io::{IsTerminal, stderr};
use tracing_subscriber::EnvFilter;

/// Sets logging up, once for the process.
pub(in crate::cli) fn start(options: &LogArgs) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&options.log_level).map_err(|error| {
        let text = format!(
            "--log-level {}: {error}; try info, or info,infinitystore::server=debug",
            options.log_level
        );
        Failure::new(ExitStatus::Usage, text)
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log that cannot be written (a closed pipe, a full disk) is no reason to stop: and it is where errors go.
        .log_internal_errors(false)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal());
    match options.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|error| Failure::new(ExitStatus::Failure, format!("cannot set logging up: {error}")))
}
