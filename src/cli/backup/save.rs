//! `backup save`: a backup of a running cluster, in a file.

use crate::cli::ask::{client, level};
use crate::cli::backup::file::progress;
use crate::cli::client_args::SaveArgs;
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::signals::{StopSignals, runtime};
use crate::client::BackupDownload;
use crate::storage::{BackupHeader, BackupReader};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process;

/// What the name of a file ends with until it is whole, beside the number of its process.
const PARTIAL: &str = ".partial-";
/// Names that are tried, at most.
const NAMES_MAX: usize = 16;
/// Mode of a backup: it holds all that the cluster does.
const MODE: u32 = 0o600;

/// Saves a backup. A file of that name is a whole one: it is written beside, synced, and renamed.
pub(super) fn save(args: &SaveArgs) -> Result<(), Failure> {
    let path = &args.file;
    refuse_existing(path)?;
    let saved = async {
        let download = client(&args.connect)?.backup(level(&args.level)).await?;
        write(download, Partial::of(path)?).await
    };
    let (header, bytes) = runtime(1)?.block_on(async {
        let mut signals = StopSignals::new()?;
        tokio::select! {
            // What is there of the file goes with it.
            signal = signals.next() => {
                Err(Failure::new(ExitStatus::Interrupted, format!("stopped on {signal}; nothing was saved")))
            }
            saved = saved => saved,
        }
    })?;
    let text = format!(
        "saved {} as of revision {}: {} keys, {bytes} bytes",
        path.display(),
        header.revision,
        header.keys
    );
    writeln!(io::stdout(), "{text}")
        .map_err(|error| Failure::new(ExitStatus::Failure, format!("cannot print: {error}")))
}

async fn write(mut download: BackupDownload, mut partial: Partial) -> Result<(BackupHeader, u64), Failure> {
    let bar = progress(None, "saving");
    let mut reader = BackupReader::of_bytes();
    let mut bytes = 0;
    while let Some(piece) = download.piece().await? {
        reader.push(&piece).map_err(|error| broken(&download, &error.to_string()))?;
        partial.write(&piece)?;
        bytes += piece.len() as u64;
        bar.inc(piece.len() as u64);
    }
    let (header, _) = reader.finish().map_err(|error| broken(&download, &error.to_string()))?;
    partial.put_in_place()?;
    bar.finish_and_clear();
    Ok((header, bytes))
}

/// Nothing is overwritten: what is there may be the only sound backup.
fn refuse_existing(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(exists(path))
}

fn exists(path: &Path) -> Failure {
    let text = format!("{} exists, and is not overwritten; choose another name", path.display());
    Failure::new(ExitStatus::Usage, text)
}

/// A backup that is being written. Each has a file of its own, also if several are saved to one
/// name. The file goes if it does not become whole.
struct Partial {
    file: File,
    path: PathBuf,
    /// The name that it gets.
    whole: PathBuf,
    is_in_place: bool,
}

impl Partial {
    fn of(whole: &Path) -> Result<Self, Failure> {
        let mut tried = 0;
        loop {
            let mut name = OsString::from(whole);
            name.push(format!("{PARTIAL}{}-{tried}", process::id()));
            let path = PathBuf::from(name);
            let made = File::options().write(true).create_new(true).mode(MODE).open(&path);
            tried += 1;
            match made {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tried < NAMES_MAX => {}
                made => {
                    let file = made.map_err(cannot_write(&path))?;
                    return Ok(Self { file, path, whole: whole.to_path_buf(), is_in_place: false });
                }
            }
        }
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.file.write_all(piece).map_err(cannot_write(&self.path))
    }

    /// Gives it its name, durably, unless a file has that meanwhile.
    fn put_in_place(mut self) -> Result<(), Failure> {
        self.file.sync_all().map_err(cannot_write(&self.path))?;
        refuse_existing(&self.whole)?;
        match rename_to_new(&self.path, &self.whole) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(&self.whole)),
            renamed => renamed.map_err(cannot_write(&self.whole))?,
        }
        self.is_in_place = true;
        let dir = self.whole.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(cannot_write(dir))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_in_place {
            // What is there of it is of no use; the error says what happened.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Renames, and replaces nothing.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system can.
            Err(Errno::INVAL | Errno::NOSYS) => {}
            renamed => return renamed.map_err(io::Error::from),
        }
    }
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Nor that: it was looked for a moment ago.
        Err(_) => fs::rename(from, to),
    }
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

#[cfg(test)]
mod tests;
