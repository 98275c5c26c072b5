//! Random damage to the files of stopped nodes. A node alone recovers everything, or refuses to
//! start and says why. A member of a cluster of three comes back by itself, with everything.
//!
//! A few seeds by default. For more, from the shell:
//!
//!     RANDOM_DAMAGES=500 cargo test --test it random_damage -- --nocapture

use crate::support::{Cluster, Node, eventually};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Small files, so that there are several of each kind.
const FLAGS: [&str; 3] = ["--segment-bytes=64KiB", "--snapshot-log-entries=150", "--log-tail-entries=20"];
/// Keys of a node alone.
const KEYS: usize = 400;

fn parameter(default: usize) -> usize {
    std::env::var("RANDOM_DAMAGES").ok().map_or(default, |text| text.parse().unwrap())
}

/// Numbers that depend on a seed alone (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }
}

/// All files of a data directory but the lock and what repairs have set aside.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with("damaged") {
            found.extend(files(&path));
        } else if path.is_file() && name != "lock" {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}

/// Does one random thing to one random file. `older`: the directory as it was at an earlier stop.
fn damage(dir: &Path, older: &Path, random: &mut Random) -> String {
    let all = files(dir);
    let file = all[random.below(all.len())].clone();
    let mut bytes = fs::read(&file).unwrap();
    let name = file.strip_prefix(dir).unwrap().display().to_string();
    let at = random.below(bytes.len());
    let change = |bytes: Vec<u8>| fs::write(&file, bytes).unwrap();
    let what = match random.below(6) {
        0 if !bytes.is_empty() => {
            bytes[at] ^= 1 << random.below(8);
            change(bytes);
            "flip"
        }
        1 => {
            let sector = at / 512 * 512;
            let end = (sector + 512).min(bytes.len());
            bytes[sector..end].fill(0);
            change(bytes);
            "zero sector"
        }
        2 => {
            bytes.truncate(at);
            change(bytes);
            "cut"
        }
        3 => {
            fs::remove_file(&file).unwrap();
            "remove"
        }
        4 => {
            // Of the same folder: another file's content under this name.
            let folder = file.parent();
            let twins: Vec<_> = all.iter().filter(|other| other.parent() == folder).collect();
            let twin = twins[random.below(twins.len())];
            change(fs::read(twin).unwrap());
            "duplicate"
        }
        _ => match fs::read(older.join(&name)) {
            Ok(old) => {
                change(old);
                "old copy"
            }
            Err(_) => {
                fs::remove_file(&file).unwrap();
                "remove"
            }
        },
    };
    format!("{what} of {name} at {at}")
}

fn stop(node: &Node) {
    node.signal(Signal::TERM);
    node.wait_for_end();
}

fn write(node: &Node, name: &str, count: usize) {
    let value = "v".repeat(500);
    for key in 0..count {
        assert_eq!(node.set(&format!("{name}-{key}"), &format!("{name} {key} {value}")).status, 200);
    }
}

/// The first of the keys that is not there, or not as it was written.
fn first_missing(node: &Node, name: &str, count: usize) -> Option<String> {
    (0..count).find_map(|key| {
        let found = node.get(&format!("/get?key={name}-{key}"));
        let is_there = found.status == 200 && found.body.contains(&format!("{name} {key} v"));
        (!is_there).then(|| format!("{name}-{key}: {found:?}"))
    })
}

#[test]
fn a_node_alone_recovers_everything_or_refuses_to_start() {
    let cluster = Cluster::of_one(&FLAGS);
    let node = &cluster.nodes[0];
    let (whole, older) = (cluster.dir.path().join("whole"), cluster.dir.path().join("older"));
    node.wait_until_ready();
    write(node, "key", KEYS / 2 + 10);
    stop(node);
    copy(&node.data_dir(), &older);
    node.start();
    node.wait_until_ready();
    write(node, "key", KEYS);
    stop(node);
    copy(&node.data_dir(), &whole);
    let mut counts: BTreeMap<(String, &str), u64> = BTreeMap::new();
    for seed in 0..parameter(20) as u64 {
        fs::remove_dir_all(node.data_dir()).unwrap();
        copy(&whole, &node.data_dir());
        let what = damage(&node.data_dir(), &older, &mut Random(seed));
        let outcome = match node.try_start() {
            Err(code) => {
                assert_eq!(code, 3, "seed {seed}: {what}: {}", node.log());
                "refused"
            }
            Ok(()) => {
                node.wait_until_ready();
                let missing = first_missing(node, "key", KEYS);
                assert_eq!(missing, None, "SILENT LOSS, seed {seed}: {what}");
                stop(node);
                "recovered"
            }
        };
        println!("seed {seed}: {what}: {outcome}");
        let kind = what.split(" of ").next().unwrap().to_owned();
        *counts.entry((kind, outcome)).or_default() += 1;
    }
    println!("a node alone: {counts:?}");
}

#[test]
fn a_member_of_three_comes_back_by_itself_with_everything() {
    let cluster = Cluster::start(3, &FLAGS);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let older = cluster.dir.path().join("older");
    for seed in 0..parameter(10) as u64 {
        let mut random = Random(1_000_000 + seed);
        let name = format!("round{seed}");
        let slot = random.below(3);
        let damaged = &cluster.nodes[slot];
        write(&cluster.nodes[(slot + 1) % 3], &name, 60);
        stop(damaged);
        let _ = fs::remove_dir_all(&older);
        copy(&damaged.data_dir(), &older);
        damaged.start();
        damaged.wait_until_ready();
        write(damaged, &format!("{name}b"), 60);
        stop(damaged);
        let what = damage(&damaged.data_dir(), &older, &mut random);
        write(&cluster.nodes[(slot + 2) % 3], &format!("{name}c"), 20);
        println!("seed {seed}: {what}");
        damaged.start();
        eventually(&format!("seed {seed}, {what}: it to come back"), || {
            damaged.try_get("/readyz").filter(|answer| answer.status == 200)
        });
        for (name, count) in [(name.clone(), 60), (format!("{name}b"), 60), (format!("{name}c"), 20)] {
            assert_eq!(first_missing(damaged, &name, count), None, "seed {seed}: {what}");
        }
        cluster.assert_same_state();
        *counts.entry(what.split(" of ").next().unwrap().to_owned()).or_default() += 1;
    }
    println!("a member of three: {counts:?}");
}
