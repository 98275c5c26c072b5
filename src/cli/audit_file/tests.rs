use crate::api::AuditSink;
use crate::cli::audit_file::AuditFile;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use tempfile::tempdir;

/// A line of ten bytes.
fn line(number: usize) -> String {
    format!("line {number:04}\n")
}

/// All that is in the files, the oldest first.
fn lines_in(path: &Path, beyond: usize) -> String {
    let older = (0..=beyond).rev().map(|number| format!("{}.{number}", path.display()));
    older.chain([path.display().to_string()]).filter_map(|name| fs::read_to_string(name).ok()).collect()
}

fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(line).collect()
}

#[test]
fn eight_older_files_are_kept() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("audit");
    let mut file = AuditFile::open(path.clone(), 20).unwrap();
    (0..40).for_each(|number| file.write(line(number).as_bytes()).unwrap());
    assert_eq!(lines_in(&path, 9), lines(22..40));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 9);
}

#[test]
fn a_file_that_was_moved_takes_no_older_one_with_it() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("audit");
    let mut file = AuditFile::open(path.clone(), 20).unwrap();
    (0..4).for_each(|number| file.write(line(number).as_bytes()).unwrap());
    let moved = dir.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    (4..8).for_each(|number| file.write(line(number).as_bytes()).unwrap());
    assert_eq!(fs::read_to_string(moved).unwrap(), lines(2..4));
    assert_eq!(lines_in(&path, 9), lines(0..2) + &lines(4..8));
}

#[test]
fn where_nothing_can_be_set_aside_nothing_is_lost() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("audit");
    let mut file = AuditFile::open(path.clone(), 20).unwrap();
    (0..16).for_each(|number| file.write(line(number).as_bytes()).unwrap());
    // No file takes its place.
    let last = dir.path().join("audit.8");
    fs::create_dir(&last).unwrap();
    (16..40).for_each(|number| file.write(line(number).as_bytes()).unwrap());
    assert_eq!(lines_in(&path, 7), lines(0..40));
    fs::remove_dir(last).unwrap();
    (40..44).for_each(|number| file.write(line(number).as_bytes()).unwrap());
    assert!(lines_in(&path, 8).ends_with(&lines(16..44)), "it is set aside again");
}

#[test]
fn a_line_that_was_cut_off_takes_no_other_one_with_it() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("audit");
    fs::write(&path, line(0) + "line 00").unwrap();
    // The node's process ended in the middle of a line.
    let mut file = AuditFile::open(path.clone(), 1000).unwrap();
    file.write(line(1).as_bytes()).unwrap();
    file.write(line(2).as_bytes()).unwrap();
    // The disk was full: a part was written, and what follows is not.
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"line").unwrap();
    for _ in 0..2 {
        file.file = Some(File::open(&path).unwrap());
        file.write(line(3).as_bytes()).unwrap_err();
    }
    file.write(line(4).as_bytes()).unwrap();
    drop(file);
    // Nothing is added where nothing is missing.
    AuditFile::open(path.clone(), 1000).unwrap().write(line(5).as_bytes()).unwrap();
    let there = fs::read_to_string(path).unwrap();
    assert_eq!(there, line(0) + "line 00\n" + &lines(1..3) + "line\n" + &lines(4..6));
}
