//! The small files that say whose directory this is, and which start is its newest, as the open
//! storage knows them. A start without them is none of that member.

use crate::storage::disk::{Disk, DiskFile};
use crate::storage::error::OpenError;
use crate::storage::identity::{FILE, Identity, switch};
use crate::storage::names::STARTED;
use crate::storage::repair::notes::{note_started, read_started};
use crate::storage::segment::read_whole;
use std::io;
use std::path::{Path, PathBuf};

/// What is wrong with an identity that somebody has put there.
const ANOTHER: &str = "it is the identity of another data directory";

/// What the two files have to say.
#[derive(Clone, Debug)]
pub(crate) struct OwnNotes {
    dir: PathBuf,
    /// What the identity may be: while it changes, what it was and what it becomes.
    identities: Vec<Identity>,
    /// The newest start, as far as it is noted; 0 if it is not.
    started: u64,
}

impl OwnNotes {
    /// The notes of a directory that has just been opened.
    pub(crate) fn new(dir: &Path, identity: &Identity, started: u64) -> Self {
        Self { dir: dir.to_path_buf(), identities: vec![identity.clone()], started }
    }

    /// The identity may be any of these.
    pub(crate) fn expect(&mut self, identities: &[&Identity]) {
        self.identities = identities.iter().copied().cloned().collect();
    }

    /// The files that have to be there.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        let started = (self.started > 0).then_some(STARTED);
        [FILE].into_iter().chain(started).map(|name| self.dir.join(name))
    }

    /// Whether this is one of them.
    pub(crate) fn has(&self, file: &Path) -> bool {
        self.files().any(|own| own == file)
    }

    /// What is wrong with one of them, in words; `None` if nothing is.
    ///
    /// # Errors
    /// Why it cannot be read; [`io::ErrorKind::NotFound`] if it is gone.
    pub(crate) fn fault<D: Disk>(&self, disk: &D, file: &Path) -> io::Result<Option<String>> {
        disk.open(file)?.forget_cached();
        let content = read_whole(disk, file)?;
        if !file.ends_with(FILE) {
            let start = read_started(disk, &self.dir);
            let why = || format!("it says start {start}, and this is start {}", self.started);
            return Ok((start < self.started).then(why));
        }
        if self.identities.iter().any(|identity| identity.to_text().as_bytes() == content) {
            return Ok(None);
        }
        Ok(Some(match Identity::parse(&content, file) {
            Err(OpenError::IdentityDamaged { why, .. }) => why,
            Err(error) => error.to_string(),
            Ok(other) if self.is_another(&other) => ANOTHER.to_owned(),
            Ok(_) => "it is an older copy".to_owned(),
        }))
    }

    /// Writes one of them anew, if that is needed.
    ///
    /// # Errors
    /// [`OpenError`] if that failed, or the identity is that of another directory, which somebody
    /// has put there: it is not overwritten.
    pub(crate) fn mend<D: Disk>(&self, disk: &D, file: &Path, promised_micros: u64) -> Result<(), OpenError> {
        if matches!(self.fault(disk, file), Ok(None)) {
            return Ok(());
        }
        if !file.ends_with(FILE) {
            return note_started(disk, &self.dir, self.started, promised_micros);
        }
        let there = read_whole(disk, file).ok().and_then(|content| Identity::parse(&content, file).ok());
        if there.is_some_and(|there| self.is_another(&there)) {
            return Err(OpenError::io("writing", file)(io::Error::other(ANOTHER)));
        }
        let Some(own) = self.identities.last() else { return Ok(()) };
        switch(disk, &self.dir, own)
    }

    fn is_another(&self, identity: &Identity) -> bool {
        self.identities.iter().all(|own| (own.cluster, own.store) != (identity.cluster, identity.store))
    }
}
