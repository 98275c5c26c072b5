//! The command line: a node, a cluster to try, a load generator, and looks into a log.
//!
//! Every option has a default and an environment variable; every failure has an exit code
//! ([`ExitStatus`]) and names its remedy.

mod args;
mod bench;
mod descriptors;
mod dev;
mod exit;
mod logging;
mod node;
mod signals;
mod units;
mod wal;

pub use exit::ExitStatus;

use crate::cli::args::{Cli, Command, WalCommand};
use std::io::Write as _;
use std::process::ExitCode;

/// Runs the program: what `main` is.
#[must_use]
pub fn main() -> ExitCode {
    // Wrong usage ends here, with clap's message and exit code 2.
    let cli = Cli::from_arguments(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let result = match &cli.command {
        None => node::run(&cli.node),
        Some(Command::Dev(options)) => dev::run(options),
        Some(Command::Bench(options)) => bench::run(options),
        Some(Command::Wal(WalCommand::Dump { dir })) => wal::dump(dir),
    };
    match result {
        Ok(()) => ExitStatus::Success.into(),
        Err(failure) => {
            let text = cli.name_variables(&failure.to_string());
            let _ = writeln!(std::io::stderr(), "error: {text}");
            failure.status.into()
        }
    }
}

#[cfg(test)]
mod tests;
