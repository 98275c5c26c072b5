//! Log lines, to standard error.

use crate::cli::args::{LogArgs, LogFormat};
use crate::cli::exit::{ExitStatus, Failure};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, stderr};
use std::panic::PanicHookInfo;
use tracing_subscriber::EnvFilter;

/// What `--log-level` takes as a level.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Sets logging up, once for the process.
pub(super) fn start(options: &LogArgs) -> Result<(), Failure> {
    let filter = filter(&options.log_level).map_err(|error| {
        let text = format!(
            "--log-level {}: {error}; try info, or info,infinitystore::node=debug",
            options.log_level
        );
        Failure::new(ExitStatus::Usage, text)
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log that cannot be written (a closed pipe, a full disk) is no reason to stop: and it is
        // where errors go.
        .log_internal_errors(false)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal());
    match options.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|error| Failure::new(ExitStatus::Failure, format!("cannot set logging up: {error}")))?;
    std::panic::set_hook(Box::new(tell));
    Ok(())
}

/// A panic is a bug of this program: the log says what, and where, in the form of all other lines.
fn tell(panic: &PanicHookInfo<'_>) {
    let text = panic.payload().downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.payload().downcast_ref::<String>().map(String::as_str));
    let place = panic.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace = matches!(backtrace.status(), BacktraceStatus::Captured).then_some(backtrace);
    tracing::error!(
        what = text.unwrap_or("a panic"),
        place,
        thread = std::thread::current().name(),
        backtrace = backtrace.map(tracing::field::display),
        "A BUG OF THIS PROGRAM: please report this line"
    );
}

/// Reads a filter: levels, alone or for a module. A filter without a level of its own has `info`
/// for the other modules.
///
/// The library takes a word that is no level for the name of a module, and then logs nothing else
/// at all: a mistyped level would silence everything.
///
/// # Errors
/// What is wrong with it.
pub(super) fn filter(text: &str) -> Result<EnvFilter, String> {
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    let mut has_own_level = false;
    for directive in text.split(',').map(str::trim) {
        match directive.rsplit_once('=') {
            None if is_level(directive) => has_own_level = true,
            None => return Err(format!("{directive:?} is no level, which are {}", LEVELS.join(", "))),
            Some((_, level)) if is_level(level) => {}
            Some((_, level)) => {
                return Err(format!("{level:?} is no level, which are {}", LEVELS.join(", ")));
            }
        }
    }
    let whole = if has_own_level { text.to_owned() } else { format!("info,{text}") };
    EnvFilter::try_new(whole).map_err(|error| error.to_string())
}
