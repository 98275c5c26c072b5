//! The rules themselves.

use super::source::{declared_modules, paths_from, words};
use super::{Floor, House, LINES_MAX, ROOTS, Tree};
use std::collections::{BTreeMap, BTreeSet};

/// What breaks a rule, one sentence each.
pub(super) fn problems(house: &House, tree: &Tree) -> Vec<String> {
    let House { root, table, floors } = house;
    let mut problems = Vec::new();
    let files: BTreeMap<&str, File> =
        tree.iter().map(|(path, text)| (&**path, File::read(floors, path, text))).collect();
    let tests = test_files(&files);
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (path, file) in &files {
        let Some(floor) = file.floor else {
            if !ROOTS.contains(path) {
                problems.push(format!(
                    "{root}/{path}: on no floor; add its folder to {table} in tests/it/floors"
                ));
            }
            continue;
        };
        let is_test = tests.contains(path);
        for import in &file.imports {
            let other = &import[0];
            if other != floor.name && floors.iter().any(|floor| floor.name == other) {
                if !floor.below.contains(&&**other) {
                    problems.push(format!(
                        "{root}/{path}: imports crate::{}, but `{}` does not stand on `{other}`: imports only go down",
                        import.join("::"),
                        floor.name,
                    ));
                }
            } else if other == floor.name && !is_test {
                let target = resolve(&files, import);
                let above = file.module.len() > files[target].module.len()
                    && file.module.starts_with(&files[target].module);
                if above {
                    problems.push(format!(
                        "{root}/{path}: imports crate::{} from {root}/{target}, which stands above it: name the file that \
                         defines it, or move it down",
                        import.join("::"),
                    ));
                } else if target != *path {
                    edges.entry(path).or_default().insert(target);
                }
            }
        }
        if is_test {
            continue;
        }
        edges.entry(path).or_default().extend(file.children(&files).filter(|child| !tests.contains(child)));
        problems.extend(file.problems(&format!("{root}/{path}"), floor));
    }
    problems.extend(circles(root, &edges));
    problems
}

struct File {
    floor: Option<&'static Floor>,
    /// Without `crate`; not empty.
    imports: Vec<Vec<String>>,
    /// Module path of this file.
    module: Vec<String>,
    declared: Vec<super::source::Declared>,
    words: Vec<String>,
    lines: usize,
}

impl File {
    fn read(floors: &'static [Floor], path: &str, text: &str) -> Self {
        let words = words(text);
        let folder = path.split_once('/').map(|(folder, _)| folder);
        let floor = floors.iter().find(|floor| Some(floor.name) == folder);
        let module = module_of(path);
        let mut imports = paths_from(&words, "crate");
        for relative in paths_from(&words, "super") {
            let ups = 1 + relative.iter().take_while(|word| *word == "super").count();
            let base = module[..module.len().saturating_sub(ups)].iter();
            imports.push(base.chain(&relative[ups - 1..]).cloned().collect());
        }
        imports.retain(|import| !import.is_empty());
        let (declared, lines) = (declared_modules(&words), text.lines().count());
        Self { floor, imports, module, declared, words, lines }
    }

    /// The files of the modules that it declares.
    fn children<'a>(&'a self, files: &'a BTreeMap<&str, Self>) -> impl Iterator<Item = &'a str> {
        self.declared.iter().filter_map(|declared| {
            let mut module = self.module.clone();
            module.push(declared.name.clone());
            files.iter().find(|(_, file)| file.module == module).map(|(path, _)| *path)
        })
    }

    fn problems(&self, path: &str, floor: &Floor) -> Vec<String> {
        let mut problems = Vec::new();
        if self.lines > LINES_MAX {
            problems.push(format!("{path}: {} lines; the limit is {LINES_MAX}: divide it", self.lines));
        }
        if self.words.windows(3).any(|words| words == ["mod", "tests", "{"]) {
            problems.push(format!("{path}: has its tests inside; give them a file of their own"));
        }
        if floor.pure {
            for (name, instead) in [("HashMap", "BTreeMap"), ("HashSet", "BTreeSet")] {
                if self.words.iter().any(|word| word == name) {
                    problems.push(format!("{path}: {name} has no order; on a pure floor use {instead}"));
                }
            }
            if self.words.windows(2).any(|pair| pair[0] == "std" && pair[1] == "::") {
                problems.push(format!("{path}: names std on a pure floor; use core or alloc"));
            }
        }
        problems
    }
}

/// `raft/role/mod.rs` and `raft/role.rs` are `[raft, role]`.
fn module_of(path: &str) -> Vec<String> {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// The file with the longest module path that the import begins with.
fn resolve<'a>(files: &'a BTreeMap<&str, File>, import: &[String]) -> &'a str {
    let matching = files.iter().filter(|(_, file)| import.starts_with(&file.module));
    matching.max_by_key(|(_, file)| file.module.len()).map(|(path, _)| *path).unwrap_or_default()
}

/// Modules behind `#[cfg(test)]`, and all below them.
fn test_files<'a>(files: &'a BTreeMap<&'a str, File>) -> BTreeSet<&'a str> {
    let mut roots: Vec<Vec<String>> = Vec::new();
    for file in files.values() {
        for declared in file.declared.iter().filter(|declared| declared.test) {
            let mut module = file.module.clone();
            module.push(declared.name.clone());
            roots.push(module);
        }
    }
    let is_test = |file: &File| roots.iter().any(|root| file.module.starts_with(root));
    files.iter().filter(|(_, file)| is_test(file)).map(|(path, _)| *path).collect()
}

/// Files that import each other, directly or not: of each knot, one of its shortest circles.
fn circles(root: &str, edges: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut knotted: BTreeSet<&str> = BTreeSet::new();
    for start in edges.keys() {
        let Some(circle) = shortest_circle(edges, start) else { continue };
        if !circle.iter().any(|file| knotted.contains(file)) {
            let names: Vec<String> =
                circle.iter().chain([start]).map(|file| format!("{root}/{file}")).collect();
            problems.push(format!("files import each other: {}", names.join(" -> ")));
        }
        knotted.extend(circle);
    }
    problems
}

/// From `start`, breadth first, until a file that imports `start`.
fn shortest_circle<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>, start: &'a str) -> Option<Vec<&'a str>> {
    let mut paths = vec![vec![start]];
    let mut seen = BTreeSet::from([start]);
    let mut at = 0;
    while at < paths.len() {
        for to in edges.get(paths[at][paths[at].len() - 1]).into_iter().flatten() {
            if *to == start {
                return Some(paths.swap_remove(at));
            }
            if seen.insert(to) {
                paths.push(paths[at].iter().chain([to]).copied().collect());
            }
        }
        at += 1;
    }
    None
}
