//! Which seed finds which bug: a file with a line `name engine seed` for each, so that CI need not
//! hunt for all of them anew. A line `name engine figures` names a bug that no run shows, and that
//! shifts the figures of many. A line `name missed` names a bug that a hunt did not find. It is not
//! hunted for again, and counts as missed.

use crate::run::engine::Engine;
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What shows a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// This seed.
    Seed(u64),
    /// The figures of the runs that are compared.
    Figures,
}

/// Engine and what shows it by the bug's name; `None` for a bug that a hunt did not find.
pub(super) type KnownSeeds = BTreeMap<String, Option<(Engine, By)>>;

/// Reads the file. A line that begins with `#` is a comment.
///
/// # Errors
/// The file cannot be read, or a line is not `name engine seed`.
pub(super) fn read(path: &Path) -> Result<KnownSeeds, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let (name, engine, seed) = (words.next(), words.next(), words.next());
            if let (Some(name), Some("missed"), None) = (name, engine, seed) {
                return Ok((name.to_owned(), None));
            }
            let engine = engine.and_then(|engine| Engine::from_str(engine, false).ok());
            let by = seed.and_then(|word| match word {
                "figures" => Some(By::Figures),
                seed => seed.parse().ok().map(By::Seed),
            });
            match (name, engine, by, words.next()) {
                (Some(name), Some(engine), Some(by), None) => Ok((name.to_owned(), Some((engine, by)))),
                _ => Err(format!(
                    "{}: {line:?} is not a name, an engine, and a seed or \"figures\"",
                    path.display()
                )),
            }
        })
        .collect()
}

/// Writes the file.
///
/// # Errors
/// It cannot be written.
pub(super) fn write(path: &Path, known: &KnownSeeds) -> Result<(), String> {
    let mut text =
        "# Bug, engine and seed that finds it. Made by: sim mutants --known FILE --update-known\n".to_owned();
    for (name, found_by) in known {
        match found_by {
            Some((engine, By::Seed(seed))) => text.push_str(&format!("{name} {engine} {seed}\n")),
            Some((engine, By::Figures)) => text.push_str(&format!("{name} {engine} figures\n")),
            None => text.push_str(&format!("{name} missed\n")),
        }
    }
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
