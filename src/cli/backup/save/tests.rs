use crate::cli::backup::save::Partial;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::tempdir;

#[test]
fn of_two_that_save_to_one_name_the_first_to_end_has_it_whole() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("backup");
    let (mut slow, mut quick) = (Partial::of(&path).unwrap(), Partial::of(&path).unwrap());
    slow.write(b"slow").unwrap();
    quick.write(b"quick").unwrap();
    quick.put_in_place().unwrap();
    slow.write(b" indeed").unwrap();
    let refused = slow.put_in_place().unwrap_err();
    assert!(format!("{refused:?}").contains("not overwritten"), "{refused:?}");
    assert_eq!(fs::read(&path).unwrap(), b"quick");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
}
