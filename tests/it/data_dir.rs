//! Data directories that cannot be used: each is refused with exit code 3 and a sentence that says
//! what to do.

use crate::support::{Cluster, failed_start, free_port};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Starts a node on other ports over the data directory `dir`, which it must refuse.
fn refused(node_id: &str, dir: &Path) -> String {
    let scratch = TempDir::new().unwrap();
    let flags = [
        format!("--node-id={node_id}"),
        format!("--data-dir={}", dir.display()),
        format!("--raft-addr=localhost:{}", free_port()),
        format!("--http-addr=127.0.0.1:{}", free_port()),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (code, text) = failed_start(scratch.path(), &flags);
    assert_eq!(code, 3, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// A node that has taken some writes and was killed; its data directory.
fn killed_node() -> (Cluster, PathBuf) {
    let cluster = Cluster::start(1, &["--segment-bytes=64KiB"]);
    let node = &cluster.nodes[0];
    for round in 0..200 {
        assert_eq!(node.set(&format!("key-{round}"), &"v".repeat(1_000)).status, 200);
    }
    node.kill();
    let dir = node.data_dir();
    (cluster, dir)
}

/// The segments of the log, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(wal(dir)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    files.sort();
    files
}

/// The directory of the log: of a node that was never absorbed.
fn wal(dir: &Path) -> PathBuf {
    dir.join("wal-1")
}

#[test]
fn one_that_another_process_uses_is_refused() {
    let cluster = Cluster::start(1, &[]);
    let text = refused("node-1", &cluster.nodes[0].data_dir());
    assert!(text.contains("in use by another process") && text.contains("--data-dir"), "{text}");
    assert_eq!(cluster.nodes[0].set("k", "v").status, 200, "the first is not disturbed");
}

#[test]
fn one_of_another_node_is_refused() {
    let cluster = Cluster::start(1, &[]);
    cluster.nodes[0].kill();
    let text = refused("node-7", &cluster.nodes[0].data_dir());
    assert!(text.contains("node-1") && text.contains("node-7") && text.contains("--node-id"), "{text}");
}

#[test]
fn one_that_cannot_be_written_is_refused() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let text = refused("node-1", &file.join("data"));
    assert!(text.contains(&*file.to_string_lossy()), "{text}");
    // On Linux nobody, not even root, makes directories there.
    if Path::new("/proc/self").exists() {
        let text = refused("node-1", Path::new("/proc/infinitystore"));
        assert!(text.contains("/proc/infinitystore"), "{text}");
    }
}

#[test]
fn one_of_another_format_is_refused() {
    let (_cluster, dir) = killed_node();
    let identity = dir.join("identity");
    let good = fs::read_to_string(&identity).unwrap();
    assert!(good.contains("\nformat = 8\n"), "{good}");
    for (format, remedy) in [("format = 9", "or a newer one"), ("format = 6", "the program that wrote it")] {
        let other = good.replace("format = 8", format);
        let body = &other[..other.find("checksum").unwrap()];
        let sum = infinitystore::codec::checksum(body.as_bytes());
        fs::write(&identity, format!("{body}checksum = {sum:08x}\n")).unwrap();
        let text = refused("node-1", &dir);
        assert!(text.contains("version") && text.contains("identity") && text.contains(remedy), "{text}");
    }
    fs::write(&identity, &good).unwrap();

    let segment = segments(&dir).remove(0);
    // Behind the sector's stamp and the magic of the file, 8 bytes each.
    patch(&segment, 16, |byte| byte.wrapping_add(1));
    let text = refused("node-1", &dir);
    assert!(text.contains("version") && text.contains(&*segment.to_string_lossy()), "{text}");
}

#[test]
fn one_without_its_identity_or_its_log_is_refused() {
    let (_cluster, dir) = killed_node();
    let identity = fs::read(dir.join("identity")).unwrap();
    fs::remove_file(dir.join("identity")).unwrap();
    let text = refused("node-1", &dir);
    assert!(text.contains("no identity file"), "{text}");
    fs::write(dir.join("identity"), &identity[..identity.len() / 2]).unwrap();
    let text = refused("node-1", &dir);
    assert!(text.contains("damaged"), "{text}");
    fs::write(dir.join("identity"), &identity).unwrap();
    fs::rename(wal(&dir), dir.join("elsewhere")).unwrap();
    let text = refused("node-1", &dir);
    assert!(text.contains("no log"), "{text}");
}

#[test]
fn a_damaged_log_is_refused_with_its_place_and_never_cut_short() {
    let (cluster, dir) = killed_node();
    let segments = segments(&dir);
    assert!(segments.len() >= 2, "{segments:?}");
    // In a value that the oldest segment holds: acknowledged long ago. A batch begins with each
    // 4 KiB.
    let victim = &segments[0];
    let place = 4 * 4096 + 600;
    patch(victim, place, |byte| byte ^ 0x40);
    let text = refused("node-1", &dir);
    assert!(text.contains(&*victim.to_string_lossy()), "the file: {text}");
    assert!(
        text.contains("at byte 16384") && text.contains("log index"),
        "the place and what it held: {text}"
    );
    patch(victim, place, |byte| byte ^ 0x40);

    // A segment that is gone.
    let hidden = dir.join("hidden");
    fs::rename(victim, &hidden).unwrap();
    let text = refused("node-1", &dir);
    assert!(text.contains("wal"), "{text}");
    fs::rename(&hidden, victim).unwrap();

    // Put right again, everything is there.
    let node = &cluster.nodes[0];
    node.start();
    node.wait_until_ready();
    let body = format!("{{\"key\":\"key-199\",\"value\":\"{}\"}}\n", "v".repeat(1_000));
    assert_eq!(node.get("/get?key=key-199").pair(), (200, &*body));
    assert_eq!(node.status().unwrap()["keys"], 200);
}

/// Changes one byte of a file.
fn patch(file: &Path, offset: u64, change: impl Fn(u8) -> u8) {
    let mut file = File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.write_all_at(&[change(byte[0])], offset).unwrap();
    file.flush().unwrap();
}

/// Runs `wal dump`; its exit code, and what it printed and said.
fn dump(dir: &Path) -> (i32, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_infinitystore")).args(["wal", "dump"]).arg(dir).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_dump_shows_keys_and_members_and_never_values() {
    let cluster = Cluster::start(1, &[]);
    let node = &cluster.nodes[0];
    assert_eq!(node.set("colour \u{e9}", "secret").status, 200);
    let body = serde_json::json!({"key": "shape", "action": "delete"});
    assert_eq!(node.call("POST", "/set", &body.to_string()).status, 200);
    node.kill();
    let (code, printed, said) = dump(&node.data_dir());
    assert_eq!(code, 0, "{said}");
    for part in [r#"set "colour \xc3\xa9", 6 bytes"#, r#"delete "shape""#, "voters [1]", "a leader's first"] {
        assert!(printed.contains(part), "{part}:\n{printed}");
    }
    assert!(!printed.contains("secret"), "{printed}");
}

#[test]
fn a_dump_of_what_is_no_data_directory_says_so() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let missing = dir.path().join("missing");
    for (path, says) in
        [(&*missing, "does not exist"), (&*file, "is no directory"), (dir.path(), "holds no node's data")]
    {
        let (code, printed, said) = dump(path);
        assert_eq!((code, &*printed), (3, ""), "{said}");
        assert!(said.contains(says) && said.contains("data/node1"), "{said}");
    }
}
