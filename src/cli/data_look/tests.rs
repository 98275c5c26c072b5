//! A look at a data directory keeps no node from it, and says what it did not judge.

use crate::cli::data_look::{Verdict, verdict};
use crate::storage::{Disk, MemoryDisk, OpenError};
use std::path::Path;

const DIR: &str = "/data";

fn disk() -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.create_dir_all(Path::new(DIR)).unwrap();
    drop(lock(&disk));
    disk
}

fn lock(disk: &MemoryDisk) -> impl Send + Sync + use<> {
    disk.lock(&Path::new(DIR).join("lock")).expect("nobody has it")
}

fn damage() -> OpenError {
    let (dir, found) = (DIR.into(), Path::new(DIR).join("wal-1"));
    OpenError::IdentityMissing { dir, found }
}

#[test]
fn a_node_may_start_while_its_directory_is_judged() {
    let disk = disk();
    // It comes and goes, or stays: what was read meanwhile says nothing then.
    let judged = verdict(&disk, Path::new(DIR), || {
        drop(lock(&disk));
        Ok(())
    });
    assert!(matches!(judged, Verdict::Startable), "{judged:?}");
    let mut node = None;
    let judged = verdict(&disk, Path::new(DIR), || {
        node = Some(lock(&disk));
        Err(damage())
    });
    assert!(matches!(judged, Verdict::Unjudged), "{judged:?}");
    drop(node);
    let judged = verdict(&disk, Path::new(DIR), || Err(damage()));
    assert!(matches!(judged, Verdict::Damaged(_)), "{judged:?}");
    drop(lock(&disk));
}

#[test]
fn a_directory_in_use_is_not_judged() {
    let disk = disk();
    let _node = lock(&disk);
    let judged = verdict(&disk, Path::new(DIR), || panic!("it changes meanwhile"));
    assert!(matches!(judged, Verdict::Unjudged), "{judged:?}");
}
