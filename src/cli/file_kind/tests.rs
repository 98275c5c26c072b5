//! Which files are told from which.

use crate::cli::file_kind::other_kind;
use crate::kv::Store;
use crate::raft::{ClusterId, LogId, LogIndex, Member, StoreId, Term};
use crate::storage::{BackupSource, BackupWriter, RealDisk, RestoredState, StorageOptions, restore};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::tempdir;

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    below.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn a_file_of_another_kind_is_told_by_its_beginning() {
    let dir = tempdir().unwrap();
    let (cluster, store_id) = (ClusterId(1), StoreId(2));
    let last = LogId::new(Term::new(1), LogIndex::new(1));
    let backup = dir.path().join("a.backup");
    let source = BackupSource { cluster, store_id, last, store: Store::new() };
    fs::write(&backup, BackupWriter::new(source).flatten().collect::<Vec<u8>>()).unwrap();
    let data = dir.path().join("data");
    let addr = || "localhost:1".to_owned();
    let member = Member { name: "n".to_owned(), raft_addr: addr(), http_addr: addr(), store_id };
    let state = RestoredState { cluster, predecessor: None, member, last, store: Store::new() };
    restore(&RealDisk, &StorageOptions::new(data.clone()), state).unwrap();
    let files = files_below(&data);
    let ending = |end: &str| {
        let found = files.iter().find(|path| path.to_string_lossy().ends_with(end));
        found.unwrap_or_else(|| panic!("none of {files:?} ends with {end}"))
    };
    let snapshot = ending(".snap");
    for (path, wanted, told) in [
        (&backup, "backup verify", None),
        (&backup, "snapshot verify", Some("this is a backup; use `backup verify`")),
        (snapshot, "snapshot verify", None),
        (
            snapshot,
            "backup verify",
            Some("this is a snapshot file of a data directory; use `snapshot verify`"),
        ),
    ] {
        let found = other_kind(path, wanted);
        assert_eq!(found, told.map(|told| format!("{}: {told}", path.display())), "{wanted}");
    }
    let other = dir.path().join("other");
    for text in ["", "ISback", "nothing that is known here"] {
        fs::write(&other, text).unwrap();
        assert_eq!(other_kind(&other, "backup verify"), None, "{text:?}");
    }
    assert_eq!(other_kind(&dir.path().join("none"), "backup verify"), None);
}
