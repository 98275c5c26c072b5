//! What the lecture (`src/raft/mod.rs`) names is there, and the files that pages name.

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

/// Where the paths of pages begin: they leave out the folder that is plain from the page.
const BASES: [&str; 3] = ["", "src", "sim/src"];

/// Whether `span` is meant as a file or folder of the sources: its first part is one of theirs.
fn is_path(span: &str) -> bool {
    let is_pattern = span.contains([' ', '<', '*', '{', ':']) || span.contains("NAME");
    let is_source = |first: &str| {
        let is_folder = |base: &&str| root().join(base).join(first).is_dir();
        !matches!(first, "" | "." | ".." | "target" | "data") && BASES.iter().any(is_folder)
    };
    !is_pattern && span.split_once('/').is_some_and(|(first, _)| is_source(first))
}

/// The paths of sources that `text` names and that are not there. `.rs` may be left out.
fn missing_paths(text: &str) -> Vec<String> {
    let is_there = |path: &str| {
        BASES.iter().any(|base| {
            let folder = root().join(base);
            folder.join(path).exists() || folder.join(format!("{path}.rs")).exists()
        })
    };
    let spans = code_spans(text).into_iter().filter(|span| is_path(span) && !is_there(span));
    spans.map(str::to_owned).collect()
}

/// The pages below `folder`.
fn pages_below(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
    let pages = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.chain(folders.iter().flat_map(|folder| pages_below(folder))).collect()
}

#[test]
fn the_files_that_pages_name_are_there() {
    let mut pages = pages_below(&root().join("docs"));
    pages.extend(["README.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    assert!(pages.len() > 30, "the pages are found: {}", pages.len());
    let missing: Vec<String> = pages
        .iter()
        .flat_map(|page| {
            let name = page.strip_prefix(root()).unwrap().display().to_string();
            let paths = missing_paths(&fs::read_to_string(page).unwrap());
            paths.into_iter().map(move |path| format!("{name}: {path}"))
        })
        .collect();
    assert_eq!(missing, Vec::<String>::new());
    let broken =
        "`src/raft/nowhere.rs`, `checks/nowhere.rs`, `peer/nowhere`, `peer/links`, `/v1/kv`, `data/dev`";
    assert_eq!(missing_paths(broken), ["src/raft/nowhere.rs", "checks/nowhere.rs", "peer/nowhere"]);
}
