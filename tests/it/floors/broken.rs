//! Each rule on a small tree that breaks it.

use super::rules::problems;
use super::source::{Declared, declared_modules, paths_from, words};
use super::{LINES_MAX, PRODUCT, SIMULATOR, Tree};

/// A tree that keeps the rules, with some files added or replaced.
fn tree(files: &[(&str, &str)]) -> Tree {
    let good = [
        ("lib.rs", "pub mod codec; pub mod raft; pub mod kv; #[cfg(feature = \"server\")] pub mod node;"),
        ("codec/mod.rs", "mod wire; pub use wire::Reader;"),
        ("codec/wire.rs", "pub struct Reader;"),
        ("raft/mod.rs", "mod core; mod log; #[cfg(test)] mod tests; pub use core::Raft;"),
        (
            "raft/core.rs",
            "use crate::codec::Reader; use crate::raft::log::Log; pub(in crate::raft) fn f() {}",
        ),
        ("raft/log.rs", "use crate::codec::Reader; // crate::node::Node\nconst S: &str = \"std::fs\";"),
        ("raft/tests.rs", "use crate::raft::{Raft, core}; use super::log; use std::collections::HashMap;"),
        ("kv/mod.rs", "use crate::raft::Raft;"),
        ("node/mod.rs", "use std::collections::HashMap; use crate::{kv, raft::Raft};"),
    ];
    good.iter().chain(files).map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

#[track_caller]
fn assert_problem(files: &[(&str, &str)], expected: &str) {
    assert_eq!(problems(&PRODUCT, &tree(files)), [expected]);
}

#[test]
fn a_good_tree_has_no_problems() {
    assert_eq!(problems(&PRODUCT, &tree(&[])), Vec::<String>::new());
}

#[test]
fn an_upward_import_is_found() {
    assert_problem(
        &[("raft/log.rs", "use crate::kv::Store;")],
        "src/raft/log.rs: imports crate::kv::Store, but `raft` does not stand on `kv`: imports only go down",
    );
    assert_problem(
        &[("codec/wire.rs", "fn f() { assert!(crate::raft::Raft::new()); }")],
        "src/codec/wire.rs: imports crate::raft::Raft::new, but `codec` does not stand on `raft`: imports only go down",
    );
    assert_problem(
        &[("raft/log.rs", "use super::super::{kv::Store as S, codec::{Reader}};")],
        "src/raft/log.rs: imports crate::kv::Store, but `raft` does not stand on `kv`: imports only go down",
    );
    assert_problem(
        &[("raft/tests.rs", "use crate::node::Node;")],
        "src/raft/tests.rs: imports crate::node::Node, but `raft` does not stand on `node`: imports only go down",
    );
}

#[test]
fn the_simulator_has_floors_of_its_own() {
    let files = [
        ("lib.rs", "pub mod checks; pub mod queue;"),
        ("checks/mod.rs", "pub mod service;"),
        ("checks/service.rs", "use crate::queue::Engine;"),
        ("queue/mod.rs", "use crate::checks::service::Service; pub struct Engine;"),
    ];
    let tree = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    assert_eq!(
        problems(&SIMULATOR, &tree),
        ["sim/src/checks/service.rs: imports crate::queue::Engine, but `checks` does not stand on `queue`: \
          imports only go down"]
    );
}

#[test]
fn a_circle_of_files_is_found() {
    assert_problem(
        &[("raft/log.rs", "use crate::raft::core::Raft;")],
        "files import each other: src/raft/core.rs -> src/raft/log.rs -> src/raft/core.rs",
    );
    assert_problem(
        &[("raft/log.rs", "use super::core::Raft;")],
        "files import each other: src/raft/core.rs -> src/raft/log.rs -> src/raft/core.rs",
    );
    assert_problem(
        &[("raft/log.rs", "use crate::raft::Raft;")],
        "src/raft/log.rs: imports crate::raft::Raft from src/raft/mod.rs, which stands above it: name the file that \
         defines it, or move it down",
    );
}

#[test]
fn an_unlisted_folder_or_file_is_found() {
    let remedy = "on no floor; add its folder to PRODUCT in tests/it/floors";
    assert_problem(&[("attic/mod.rs", "")], &format!("src/attic/mod.rs: {remedy}"));
    assert_problem(&[("helpers.rs", "")], &format!("src/helpers.rs: {remedy}"));
}

#[test]
fn what_a_pure_floor_may_not_name_is_found() {
    assert_problem(
        &[("raft/log.rs", "use hashbrown::HashMap;")],
        "src/raft/log.rs: HashMap has no order; on a pure floor use BTreeMap",
    );
    assert_problem(
        &[("raft/log.rs", "fn f() { std::thread::yield_now() }")],
        "src/raft/log.rs: names std on a pure floor; use core or alloc",
    );
}

#[test]
fn tests_inside_a_file_are_found() {
    assert_problem(
        &[("raft/log.rs", "#[cfg(test)] mod tests { }")],
        "src/raft/log.rs: has its tests inside; give them a file of their own",
    );
}

#[test]
fn a_long_file_is_found_unless_it_is_a_test() {
    let long = "\n".repeat(LINES_MAX + 1);
    assert_problem(&[("raft/log.rs", &long)], "src/raft/log.rs: 601 lines; the limit is 600: divide it");
    assert_eq!(problems(&PRODUCT, &tree(&[("raft/tests.rs", &long)])), Vec::<String>::new());
}

#[test]
fn words_leave_out_what_is_no_code() {
    let text = r##"a /* b /* c */ d */ "e \" f" 'g' '\'' '\u{41}' 'h r#"i " j"# br"k" l::m // n"##;
    assert_eq!(words(text), ["a", "h", "l", "::", "m"]);
}

#[test]
fn paths_are_spelled_out() {
    let paths =
        |text: &str| paths_from(&words(text), "crate").iter().map(|path| path.join("::")).collect::<Vec<_>>();
    assert_eq!(
        paths("use crate::a::{self, b as c, d::{e, f}}; use crate::g;"),
        ["a::self", "a::b", "a::d::e", "a::d::f", "g"]
    );
    assert_eq!(paths("crate::a::f::<u8>(1) + $crate::b!()"), ["a::f", "b"]);
    assert_eq!(paths("pub(in crate::a) struct S; pub(crate) struct T;"), Vec::<String>::new());
}

#[test]
fn test_modules_are_known() {
    let declared =
        declared_modules(&words("mod a; pub mod b; #[cfg(test)] mod c; pub(crate) mod d; mod e {}"));
    let expected = [("a", false), ("b", false), ("c", true), ("d", false)];
    assert_eq!(declared, expected.map(|(name, test)| Declared { name: name.to_owned(), test }));
}
