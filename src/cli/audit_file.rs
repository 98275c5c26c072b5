//! The audit log as files: one that grows, and older ones beside it.

use crate::api::AuditSink;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Older files that are kept: FILE.1 is the newest of them.
const KEPT: u32 = 8;

/// A file that is set aside when it has grown.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    bytes_max: u64,
    file: Option<File>,
    bytes: u64,
    /// It cannot be set aside, which was logged.
    is_stuck: bool,
    /// It ends within a line: the disk was full, or the node's process ended. The next lines begin
    /// a line of their own.
    is_cut: bool,
}

impl AuditFile {
    /// Opens it, and goes on behind what is there.
    pub(super) fn open(path: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let mut file = Self { path, bytes_max, file: None, bytes: 0, is_stuck: false, is_cut: false };
        file.reopen()?;
        Ok(file)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        let ours = file.metadata()?;
        self.bytes = ours.len();
        if ours.is_file() {
            self.is_cut = ours.len() > 0 && ends_within_a_line(&self.path, &ours).unwrap_or(self.is_cut);
        }
        self.file = Some(file);
        Ok(())
    }

    fn older(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    /// Whether FILE is another file by now, or none: somebody else has set this one aside.
    fn was_moved(&self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let ours = file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) != (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The file as it is becomes FILE.1, and so on; the oldest one goes. First it becomes FILE.0:
    /// where it cannot be renamed, no older one is moved, and none goes.
    fn rotate(&mut self) -> io::Result<()> {
        // One that is there was left by a rotation that could not be finished.
        if !self.older(0).try_exists()? {
            fs::rename(&self.path, self.older(0))?;
            self.file = None;
        }
        for number in (0..KEPT).rev() {
            match fs::rename(self.older(number), self.older(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Sets it aside, if that can be done. If not, it grows on: no line is lost for that.
    fn try_rotate(&mut self) {
        let rotated = self.rotate();
        if let Err(error) = &rotated
            && !self.is_stuck
        {
            let path = self.path.display();
            tracing::error!(%path, %error, "the audit log cannot be set aside: it grows until it can");
        }
        self.is_stuck = rotated.is_err();
    }
}

impl AuditSink for AuditFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.file.is_none() || self.was_moved()? {
            self.reopen()?;
        }
        if self.bytes > 0 && self.bytes + lines.len() as u64 > self.bytes_max {
            self.try_rotate();
            if self.file.is_none() {
                self.reopen()?;
            }
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let end: &[u8] = if self.is_cut { b"\n" } else { b"" };
        let written = file.write_all(end).and_then(|()| file.write_all(lines));
        if written.is_ok() {
            if self.is_cut {
                let path = self.path.display();
                tracing::warn!(%path, "the audit log ended within a line: the rest of that line is lost");
            }
            self.bytes += (end.len() + lines.len()) as u64;
        } else {
            self.file = None;
        }
        // Lines that failed may be there in part.
        self.is_cut = written.is_err();
        written
    }
}

/// Whether the file there, which is ours, has a last line without an end.
fn ends_within_a_line(path: &Path, ours: &Metadata) -> io::Result<bool> {
    let file = File::open(path)?;
    let there = file.metadata()?;
    if (there.dev(), there.ino()) != (ours.dev(), ours.ino()) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut last = [0];
    file.read_exact_at(&mut last, ours.len() - 1)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests;
