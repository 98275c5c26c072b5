//! Reading a backup's file, with progress on standard error.

use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::file_kind::other_kind;
use crate::kv::Store;
use crate::storage::{BackupError, BackupHeader, BackupReader};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// A backup, as far as a command wants it.
pub(super) struct Whole {
    pub(super) header: BackupHeader,
    /// The state.
    pub(super) store: Store,
    /// Bytes of the file.
    pub(super) bytes: u64,
}

/// Reads all of a file, and checks all of it.
pub(super) fn read(path: &Path, what: &'static str) -> Result<Whole, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::new(ExitStatus::Failure, format!("cannot read {}: {error}", path.display()))
    };
    let mut file = File::open(path).map_err(cannot)?;
    if let Some(told) = other_kind(path, "backup verify") {
        return Err(Failure::new(ExitStatus::Data, told));
    }
    let bytes = file.metadata().map_err(cannot)?.len();
    let bar = progress(Some(bytes), what);
    let mut reader = BackupReader::of_state();
    let mut piece = vec![0; PIECE_BYTES];
    let mut read = 0;
    loop {
        let count = file.read(&mut piece).map_err(cannot)?;
        if count == 0 {
            break;
        }
        reader.push(&piece[..count]).map_err(|error| unusable(path, &error))?;
        read += count as u64;
        bar.inc(count as u64);
    }
    let (header, store) = reader.finish().map_err(|error| unusable(path, &error))?;
    bar.finish_and_clear();
    Ok(Whole { header, store: store.expect("the state was wanted"), bytes: read })
}

/// A file that is no sound backup.
pub(super) fn unusable(path: &Path, error: &BackupError) -> Failure {
    Failure::new(ExitStatus::Data, format!("{}: {error}", path.display()))
}

/// How far it is, for a person that waits. Nothing where standard error is no terminal.
pub(super) fn progress(bytes: Option<u64>, what: &'static str) -> ProgressBar {
    let (bar, style) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {bytes}, {bytes_per_sec}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(style).expect("the template is well formed"));
    bar.set_message(what);
    bar
}
