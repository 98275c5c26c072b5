//! The command line: a node, a cluster to try, a load generator, looks into a log, and what asks a
//! cluster (`ask`).
//!
//! Every option of a node has a default and an environment variable. Of the commands that ask a
//! cluster only those have one that say which cluster, and how to print: what a single call does
//! should not depend on what the environment happens to hold. Every failure has an exit code
//! ([`ExitStatus`]) and names its remedy.

mod args;
mod ask;
mod audit_file;
mod auth_args;
mod backup;
mod bench;
mod client_args;
mod data_look;
mod descriptors;
mod dev;
mod exit;
mod file_kind;
mod logging;
mod member_args;
mod node;
mod pages;
mod recover;
mod signals;
mod tls;
mod tls_args;
mod units;
mod variables;
mod wal;

pub use exit::ExitStatus;

use crate::cli::args::{Cli, Command, SnapshotCommand, WalCommand};
use crate::cli::exit::Failure;
use crate::cli::file_kind::other_kind;
use std::io::Write as _;
use std::process::ExitCode;

/// Runs the program: what `main` is.
#[must_use]
pub fn main() -> ExitCode {
    // Wrong usage ends here, with clap's message and exit code 2.
    let cli = Cli::from_arguments(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let done = |()| ExitStatus::Success;
    let result = match &cli.command {
        None => node::run(&cli.node).map(done),
        Some(Command::Dev(options)) => dev::run(options).map(done),
        Some(Command::Bench(options)) => bench::run(options).map(done),
        Some(Command::Wal(WalCommand::Dump { dir, json: false })) => wal::dump(dir).map(done),
        Some(Command::Wal(WalCommand::Dump { dir, json: true })) => data_look::dump(dir).map(done),
        Some(Command::Wal(WalCommand::Verify(args))) => data_look::verify(args).map(done),
        Some(Command::Wal(WalCommand::Stat(args))) => data_look::stat(args).map(done),
        Some(Command::Snapshot(command)) => snapshot(command).map(done),
        Some(Command::Recover(args)) => recover::recover(args).map(done),
        Some(Command::Wal(WalCommand::Repair { dir, accept_loss, yes })) => {
            wal::repair(dir, *accept_loss, *yes).map(done)
        }
        Some(Command::Kv(options)) => ask::kv(options),
        Some(Command::Lease(options)) => ask::lease(options),
        Some(Command::Lock(options)) => ask::lock(options),
        Some(Command::Elect(options)) => ask::elect(options),
        Some(Command::Settings(options)) => ask::settings(options).map(done),
        Some(Command::Auth(options)) => ask::auth(options).map(done),
        Some(Command::User(options)) => ask::user(options).map(done),
        Some(Command::Role(options)) => ask::role(options).map(done),
        Some(Command::Token(options)) => ask::token(options).map(done),
        Some(Command::Member(options)) => ask::member(options),
        Some(Command::Leader(options)) => ask::leader(options),
        Some(Command::Alarm(options)) => ask::alarm(options),
        Some(Command::Status(options)) => ask::status(options).map(done),
        Some(Command::Backup(options)) => backup::run(options).map(done),
        Some(Command::Export(options)) => ask::export(options).map(done),
        Some(Command::Import(options)) => ask::import(options).map(done),
        Some(Command::Tls(command)) => tls::run(command).map(done),
        Some(Command::Completions { shell }) => pages::completions(*shell).map(done),
        Some(Command::Man { dir }) => pages::manual(dir.as_deref()).map(done),
    };
    match result {
        Ok(status) => status.into(),
        Err(failure) => {
            let text = cli.name_variables(&failure.to_string());
            let _ = writeln!(std::io::stderr(), "error: {text}");
            failure.status.into()
        }
    }
}

/// A backup is no snapshot file, and is not damaged for that.
fn snapshot(command: &SnapshotCommand) -> Result<(), Failure> {
    let (SnapshotCommand::Dump { file, .. } | SnapshotCommand::Verify { file, .. }) = command;
    match other_kind(file, "snapshot verify") {
        Some(told) => Err(Failure::new(ExitStatus::Data, told)),
        None => data_look::snapshot(command),
    }
}

#[cfg(test)]
mod tests;
