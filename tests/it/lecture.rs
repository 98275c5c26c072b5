//! What the lecture (`src/raft/mod.rs`) and the walk (`docs/learn-raft.md`) name is there.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The names in `text` that are set as code.
fn code_spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The paragraphs of the lecture that name functions ("Done by …") or scripts ("Shown by …").
fn sentences<'a>(lecture: &'a str, beginning: &str) -> Vec<&'a str> {
    lecture
        .match_indices(beginning)
        .map(|(at, _)| {
            let rest = &lecture[at..];
            let end = [". ", ".\n"].into_iter().filter_map(|end| rest.find(end)).min();
            &rest[..end.unwrap_or(rest.len())]
        })
        .collect()
}

/// What is named in `lecture` and cannot be found.
fn missing(lecture: &str, raft: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    for name in sentences(lecture, "Done by ").into_iter().flat_map(code_spans) {
        let file_of = |module: &str| {
            let module = module.replace("::", "/");
            let files = [format!("{module}.rs"), format!("{module}/mod.rs")];
            files.iter().find_map(|file| fs::read_to_string(raft.join(file)).ok())
        };
        // A module, or a function with its module before it.
        let is_there = file_of(name).is_some()
            || name.rsplit_once("::").is_some_and(|(module, function)| {
                file_of(module).is_some_and(|text| text.contains(&format!("fn {function}(")))
            });
        if !is_there {
            missing.push(name.to_owned());
        }
    }
    for script in sentences(lecture, "Shown by ").into_iter().flat_map(code_spans) {
        if !raft.join(format!("tests/scripts/{script}.txt")).exists() {
            missing.push(script.to_owned());
        }
    }
    missing
}

#[test]
fn what_the_lecture_names_is_there() {
    let raft = root().join("src/raft");
    let lecture = fs::read_to_string(raft.join("mod.rs")).unwrap();
    assert!(sentences(&lecture, "Done by ").len() > 8, "the lecture has its sections");
    assert_eq!(missing(&lecture, &raft), Vec::<String>::new());
    let broken = "Done by `election::no_such_function` and `reads`. Shown by `no_such_script`.";
    assert_eq!(missing(broken, &raft), ["election::no_such_function", "no_such_script"]);
}

#[test]
fn what_the_walk_names_is_there() {
    let walk = fs::read_to_string(root().join("docs/learn-raft.md")).unwrap();
    let paths = |text: &str| -> Vec<String> {
        let spans = code_spans(text).into_iter().filter(|span| span.contains('/') && !span.contains(' '));
        spans.filter(|path| !root().join(path).exists()).map(str::to_owned).collect()
    };
    assert_eq!(paths(&walk), Vec::<String>::new());
    assert_eq!(paths("see `src/raft/nowhere.rs`"), ["src/raft/nowhere.rs"]);
}
