//! The rules of the source tree that the compiler does not know, run as tests.
//!
//! A table of floors says which folder stands on which: [`PRODUCT`] for `src`, [`SIMULATOR`] for
//! `sim/src`. [`problems`] reads a tree (path to text) and says what breaks a rule; it is run on
//! the repository, and on small broken trees, so that each rule is seen to fail.

mod broken;
mod rules;
mod source;

use rules::problems;
use std::collections::BTreeMap;
use std::path::Path;

/// A source tree whose folders stand on each other.
struct House {
    /// Its path in the repository.
    root: &'static str,
    /// What this table is called.
    table: &'static str,
    /// Every folder, lowest first.
    floors: &'static [Floor],
}

/// A folder of a source tree.
struct Floor {
    name: &'static str,
    /// Built without std: `no_std` + `alloc`, deterministic.
    pure: bool,
    /// The other folders it may import.
    below: &'static [&'static str],
}

/// The product.
const PRODUCT: House = House {
    root: "src",
    table: "PRODUCT",
    floors: &[
        Floor { name: "codec", pure: true, below: &[] },
        Floor { name: "history", pure: true, below: &["codec"] },
        Floor { name: "raft", pure: true, below: &["codec"] },
        Floor { name: "kv", pure: true, below: &["codec", "raft"] },
        Floor { name: "replica", pure: true, below: &["codec", "raft", "kv"] },
        Floor { name: "storage", pure: false, below: &["codec", "raft", "kv", "replica"] },
        Floor { name: "tls", pure: false, below: &["codec"] },
        Floor { name: "runtime", pure: false, below: &["codec", "raft", "kv", "replica", "storage", "tls"] },
        Floor {
            name: "peer",
            pure: false,
            below: &["codec", "raft", "kv", "replica", "storage", "tls", "runtime"],
        },
        Floor {
            name: "node",
            pure: false,
            below: &["codec", "raft", "kv", "replica", "storage", "tls", "runtime", "peer"],
        },
        Floor {
            name: "api",
            pure: false,
            below: &["codec", "raft", "kv", "replica", "storage", "tls", "runtime", "peer", "node"],
        },
        Floor { name: "client", pure: false, below: &["codec", "raft", "kv", "replica", "tls"] },
        Floor {
            name: "cli",
            pure: false,
            below: &[
                "codec", "history", "raft", "kv", "replica", "storage", "tls", "runtime", "peer", "node",
                "api", "client",
            ],
        },
    ],
};

/// The simulator.
const SIMULATOR: House = House {
    root: "sim/src",
    table: "SIMULATOR",
    floors: &[
        Floor { name: "schedule", pure: false, below: &[] },
        Floor { name: "record", pure: false, below: &["schedule"] },
        Floor { name: "hardware", pure: false, below: &["schedule"] },
        Floor { name: "checks", pure: false, below: &["schedule", "record", "hardware"] },
        Floor { name: "machines", pure: false, below: &["schedule", "record", "hardware", "checks"] },
        Floor {
            name: "queue",
            pure: false,
            below: &["schedule", "record", "hardware", "checks", "machines"],
        },
        Floor {
            name: "madsim_engine",
            pure: false,
            below: &["schedule", "record", "hardware", "checks", "machines"],
        },
        Floor { name: "run", pure: false, below: &["schedule", "record", "queue", "madsim_engine"] },
        Floor { name: "report", pure: false, below: &["schedule", "record", "run"] },
        Floor { name: "mutants", pure: false, below: &["schedule", "record", "run"] },
    ],
};

/// The files at the top of a source tree; they may import everything.
const ROOTS: [&str; 2] = ["lib.rs", "main.rs"];

/// A file has at most this many lines, unless it is a test. (About 500 is the aim; this is the
/// end.)
const LINES_MAX: usize = 600;

/// What may lie at the top of the repository, beside what is ignored by git and begins with a dot.
const TOP_LEVEL: [&str; 17] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "clippy.toml",
    "deny.toml",
    "docs",
    "examples",
    "fuzz",
    "rustfmt.toml",
    "sim",
    "src",
    "tests",
    "trim",
];

/// Path below the root, with `/`, to text.
type Tree = BTreeMap<String, String>;

#[test]
fn the_source_tree_keeps_its_rules() {
    assert_rules(&PRODUCT);
}

#[test]
fn the_simulator_keeps_its_rules() {
    assert_rules(&SIMULATOR);
}

fn assert_rules(house: &House) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(house.root);
    let mut tree = Tree::new();
    read_folder(&root, &root, &mut tree);
    assert!(tree.len() > 20, "the source tree was not found in {}", root.display());
    let problems = problems(house, &tree);
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn the_top_level_is_fixed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // What the README's own commands leave behind is ignored by git, by its name at the top.
    let ignored = std::fs::read_to_string(root.join(".gitignore")).unwrap();
    let ignored: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('/')).collect();
    assert!(ignored.contains(&"infinitystore"), "the README has the binary copied to the top");
    let mut unlisted = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let may_be = name.starts_with('.') || ignored.contains(&&*name);
        if !may_be && !TOP_LEVEL.contains(&&*name) {
            unlisted.push(name);
        }
    }
    assert!(unlisted.is_empty(), "not part of the top level (TOP_LEVEL in tests/it/floors): {unlisted:?}");
}

fn read_folder(root: &Path, folder: &Path, tree: &mut Tree) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_folder(root, &path, tree);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            tree.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
}
