//! `backup save`: a backup of a running cluster, in a file.

use crate::cli::ask::{client, level};
use crate::cli::backup::file::progress;
use crate::cli::client_args::SaveArgs;
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::signals::runtime;
use crate::client::BackupDownload;
use crate::storage::{BackupHeader, BackupReader};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// What a file is called until it is whole.
const PARTIAL: &str = ".partial";

/// Saves a backup. A file of that name is a whole one: it is written beside, synced, and renamed.
pub(super) fn save(args: &SaveArgs) -> Result<(), Failure> {
    let path = &args.file;
    refuse_existing(path)?;
    let partial = partial(path);
    let saved = runtime(1)?.block_on(async {
        let download = client(&args.connect)?.backup(level(&args.level)).await?;
        write(download, &partial, path).await
    });
    let (header, bytes) = match saved {
        Ok(saved) => saved,
        Err(failure) => {
            // What is there of it is of no use; the error says what happened.
            let _ = fs::remove_file(&partial);
            return Err(failure);
        }
    };
    let text = format!(
        "saved {} as of revision {}: {} keys, {bytes} bytes",
        path.display(),
        header.revision,
        header.keys
    );
    writeln!(io::stdout(), "{text}")
        .map_err(|error| Failure::new(ExitStatus::Failure, format!("cannot print: {error}")))
}

async fn write(
    mut download: BackupDownload,
    partial: &Path,
    path: &Path,
) -> Result<(BackupHeader, u64), Failure> {
    let mut file = File::create(partial).map_err(cannot_write(partial))?;
    let bar = progress(None, "saving");
    let mut reader = BackupReader::of_bytes();
    let mut bytes = 0;
    while let Some(piece) = download.piece().await? {
        reader.push(&piece).map_err(|error| broken(&download, &error.to_string()))?;
        file.write_all(&piece).map_err(cannot_write(partial))?;
        bytes += piece.len() as u64;
        bar.inc(piece.len() as u64);
    }
    let (header, _) = reader.finish().map_err(|error| broken(&download, &error.to_string()))?;
    file.sync_all().map_err(cannot_write(partial))?;
    refuse_existing(path)?;
    fs::rename(partial, path).map_err(cannot_write(path))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(cannot_write(dir))?;
    bar.finish_and_clear();
    Ok((header, bytes))
}

/// Nothing is overwritten: what is there may be the only sound backup.
fn refuse_existing(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let text = format!("{} exists, and is not overwritten; choose another name", path.display());
    Err(Failure::new(ExitStatus::Usage, text))
}

fn partial(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(PARTIAL);
    name.into()
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.to_path_buf();
    move |error| Failure::new(ExitStatus::Failure, format!("cannot write {}: {error}", path.display()))
}

/// What the node sent is no whole backup.
fn broken(download: &BackupDownload, why: &str) -> Failure {
    let text = format!(
        "{}: what the node sent is no whole backup ({why}); nothing was saved, try again",
        download.endpoint()
    );
    Failure::new(ExitStatus::Unavailable, text)
}
