//! `backup`: saving one, looking at one, and making a data directory of one.

mod file;
mod inspect;
mod restore;
mod save;

use crate::cli::client_args::{BackupArgs, BackupCommand};
use crate::cli::exit::Failure;

/// Runs a subcommand of `backup`.
pub(super) fn run(args: &BackupArgs) -> Result<(), Failure> {
    match &args.command {
        BackupCommand::Save(args) => save::save(args),
        BackupCommand::Verify { file, output } => inspect::verify(file, output),
        BackupCommand::Inspect { file, output } => inspect::inspect(file, output),
        BackupCommand::Restore(args) => restore::restore(args),
    }
}
