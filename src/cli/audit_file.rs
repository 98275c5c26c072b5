//! The audit log as files: one that grows, and older ones beside it.

use crate::api::AuditSink;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Older files that are kept: FILE.1 is the newest of them.
const KEPT: u32 = 8;

/// A file that is set aside when it has grown.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    bytes_max: u64,
    file: Option<File>,
    bytes: u64,
}

impl AuditFile {
    /// Opens it, and goes on behind what is there.
    pub(super) fn open(path: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let mut file = Self { path, bytes_max, file: None, bytes: 0 };
        file.reopen()?;
        Ok(file)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        self.bytes = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// The file as it is becomes FILE.1, and so on; the oldest one goes.
    fn rotate(&mut self) -> io::Result<()> {
        let older = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..KEPT).rev() {
            match fs::rename(older(number), older(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, older(1))?;
        self.file = None;
        self.reopen()
    }
}

impl AuditSink for AuditFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        if self.bytes > 0 && self.bytes + lines.len() as u64 > self.bytes_max {
            self.rotate()?;
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let written = file.write_all(lines);
        if written.is_err() {
            // A line may be there in part: the next ones begin a line of their own.
            let _ = file.write_all(b"\n");
            self.file = None;
        }
        self.bytes += lines.len() as u64;
        written
    }
}
