//! Prose wraps at 100 columns: the pages, and the comments of all sources.
//!
//! Left out is what cannot be wrapped: tables, code blocks, and the target of a link.

use std::fs;
use std::path::{Path, PathBuf};

/// A line of prose has at most this many characters.
const COLUMNS_MAX: usize = 100;

/// Where sources and pages are. The build's and git's own folders are not among them.
const FOLDERS: [&str; 8] = ["src", "sim", "tests", "benches", "examples", "fuzz", "trim", "docs"];

/// The prose of a line of Rust: what follows the marks of a comment that fills the line.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.strip_prefix(['/', '!']).unwrap_or(text))
}

/// Lines of a page are prose, unless they are a code block by their indent.
fn page(line: &str) -> Option<&str> {
    let is_list = line.trim_start().starts_with(['-', '*']);
    (is_list || !line.starts_with("    ")).then_some(line)
}

/// The line without the targets of its links: `[text](target)`, `[text]: target`, `scheme://…`.
fn without_targets(line: &str) -> String {
    let mut text = line.to_owned();
    while let Some(at) = text.find("](") {
        let end = text[at..].find(')').map_or(text.len(), |length| at + length + 1);
        text.replace_range(at..end, "]");
    }
    let is_target = |word: &str| word.contains("://") || word.ends_with("]:");
    if text.split_whitespace().any(is_target) {
        text.clear();
    }
    text
}

/// The numbers of the lines that are too long, from 1.
fn too_long(text: &str, prose: impl Fn(&str) -> Option<&str>) -> Vec<usize> {
    let mut is_code = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some(body) = prose(line).map(str::trim_start) else { continue };
        if body.starts_with("```") {
            is_code = !is_code;
        } else if !is_code
            && !body.starts_with('|')
            && line.chars().count() > COLUMNS_MAX
            && without_targets(line).chars().count() > COLUMNS_MAX
        {
            found.push(number + 1);
        }
    }
    found
}

fn too_long_in(path: &Path) -> Vec<usize> {
    let text = fs::read_to_string(path).unwrap();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("rs") => too_long(&text, comment),
        Some("md") => too_long(&text, page),
        _ => Vec::new(),
    }
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_built = path.file_name().is_some_and(|name| name == "target");
        if path.is_dir() && !is_built {
            files_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "md") {
            found.push(path);
        }
    }
}

#[test]
fn prose_wraps_at_100_columns() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name)).into();
    FOLDERS.iter().for_each(|folder| files_below(&root.join(folder), &mut files));
    files.sort();
    assert!(files.len() > 300, "the sources are found: {}", files.len());
    let lines: Vec<String> = files
        .iter()
        .flat_map(|path| {
            let name = path.strip_prefix(&root).unwrap_or(path).display();
            too_long_in(path).into_iter().map(move |line| format!("{name}:{line}"))
        })
        .collect();
    assert!(lines.is_empty(), "{} lines are longer than {COLUMNS_MAX}: {lines:#?}", lines.len());
}

#[test]
fn a_long_line_is_found_unless_it_cannot_be_wrapped() {
    let long = "word ".repeat(20) + "w";
    let fits = "word ".repeat(18);
    let code = format!("/// ```\n/// {long}\n/// ```\n/// {long}\n    //! {long}\n// {long}");
    assert_eq!(too_long(&code, comment), [4, 5, 6]);
    assert_eq!(too_long(&format!("let text = \"{long}\"; // {long}"), comment), [0; 0]);
    assert_eq!(too_long(&format!("/// | {long} |\n/// {fits}"), comment), [0; 0]);
    let linked = format!("{fits} [page](docs/simulation/README.md)");
    assert_eq!(too_long(&linked, page), [0; 0], "the target is not prose");
    assert_eq!(too_long(&format!("{linked} and {fits}"), page), [1]);
    assert_eq!(too_long(&format!("    {long}\n| {long} |\n{long}\n    - {long}"), page), [3, 4]);
    assert_eq!(too_long(&format!("[name]: https://host/{long}"), page), [0; 0]);
}
