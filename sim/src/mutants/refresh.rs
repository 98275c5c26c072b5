//! Finds where the lines of a patch stand after the source around them changed, and writes the
//! patch anew.

use super::patch::{DiffLine, Edit, FileDiff, Hunk, Patch};
use super::sources::Sources;
use std::collections::BTreeMap;

/// Lines on either side of a change that are searched for its context.
const WINDOW: usize = 9;

/// How much it counts that a line is found again: one of brackets alone is found everywhere.
const fn weight(is_telling: bool) -> usize {
    if is_telling { 8 } else { 1 }
}

/// The patch against the sources as they are now.
///
/// # Errors
/// Each hunk whose lines are not found, or at several places equally well.
pub(super) fn refresh(patch: &Patch, sources: &Sources) -> Result<Patch, Vec<String>> {
    let mut edits: BTreeMap<&str, Vec<Edit>> = BTreeMap::new();
    let mut faults = Vec::new();
    for file in &patch.files {
        let own = sources.get_key_value(&file.path);
        if let Some((path, source)) = own
            && let Ok(placed) = file.place(source)
        {
            edits.entry(path).or_default().extend(placed);
            continue;
        }
        for hunk in &file.hunks {
            // In its own file first, then in all: code moves.
            let found = search(hunk, own).or_else(|| search(hunk, sources));
            match found {
                Some((path, found)) => edits.entry(path).or_default().extend(found),
                None => faults.push(format!(
                    "sim/mutants/{}.patch:{}: {}: the lines of this hunk are not found, or not at one place only",
                    patch.name, hunk.at, file.path
                )),
            }
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let files = edits.into_iter().map(|(path, mut edits)| {
        edits.sort();
        FileDiff::from_edits(path, &sources[path], &edits)
    });
    Ok(Patch { files: files.collect(), ..patch.clone() })
}

/// The one place that fits a hunk best.
fn search<'a>(
    hunk: &Hunk,
    sources: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Option<(&'a str, Vec<Edit>)> {
    let core = Core::of(hunk);
    let mut best: Option<(usize, &str, Vec<Edit>)> = None;
    let mut is_only = true;
    for (path, source) in sources {
        let lines: Vec<&str> = source.lines().collect();
        for start in 0..=lines.len() {
            let Some((score, edits)) = core.fit(&lines, start) else { continue };
            let ahead = best.as_ref().map(|best| score.cmp(&best.0));
            match ahead {
                Some(std::cmp::Ordering::Less) => {}
                Some(std::cmp::Ordering::Equal) => is_only = false,
                Some(std::cmp::Ordering::Greater) | None => {
                    (best, is_only) = (Some((score, path.as_str(), edits)), true);
                }
            }
        }
    }
    best.filter(|_| is_only).map(|(_, path, edits)| (path, edits))
}

/// A hunk without the context around it.
struct Core<'a> {
    before: Vec<&'a str>,
    lines: &'a [DiffLine],
    after: Vec<&'a str>,
}

impl<'a> Core<'a> {
    fn of(hunk: &'a Hunk) -> Self {
        let is_context = |line: &DiffLine| matches!(line, DiffLine::Context(_));
        let first = hunk.lines.iter().position(|line| !is_context(line)).unwrap_or(0);
        let end = hunk.lines.iter().rposition(|line| !is_context(line)).map_or(first, |last| last + 1);
        let context = |lines: &'a [DiffLine]| lines.iter().filter_map(old).collect();
        Self {
            before: context(&hunk.lines[..first]),
            lines: &hunk.lines[first..end],
            after: context(&hunk.lines[end..]),
        }
    }

    /// How well it fits if its first line is line `start`, and what it changes there. The lines
    /// that it removes have to be there, however far they are indented. Where it removes none, one
    /// of the lines beside it has to be there.
    fn fit(&self, lines: &[&str], start: usize) -> Option<(usize, Vec<Edit>)> {
        let mut at = start;
        let mut shift = None;
        for old in self.lines.iter().filter_map(old) {
            let line = lines.get(at)?;
            if line.trim() != old.trim() {
                return None;
            }
            if !line.is_empty() {
                shift = shift.or(Some((indent(old), indent(line))));
            }
            at += 1;
        }
        let before = &lines[start.saturating_sub(WINDOW)..start];
        let after = &lines[at..lines.len().min(at + WINDOW)];
        if at == start {
            let pair = |old: Option<&&str>, line: Option<&&str>| {
                let (old, line) = (*old?, *line?);
                (old.trim() == line.trim() && is_telling(old)).then(|| (indent(old), indent(line)))
            };
            let beside = pair(self.before.last(), before.last());
            shift = Some(beside.or_else(|| pair(self.after.first(), after.first()))?);
        }
        let score = common(&self.before, before) + common(&self.after, after);
        let (was, is) = shift.unwrap_or((0, 0));
        let hunk =
            Hunk { at: 0, start, lines: self.lines.iter().map(|line| indented(line, was, is)).collect() };
        Some((score, hunk.edits(start)))
    }
}

fn old(line: &DiffLine) -> Option<&str> {
    match line {
        DiffLine::Context(line) | DiffLine::Removed(line) => Some(line),
        DiffLine::Added(_) => None,
    }
}

fn indented(line: &DiffLine, was: usize, is: usize) -> DiffLine {
    match line {
        DiffLine::Added(line) if !line.is_empty() => {
            let depth = (indent(line) + is).saturating_sub(was);
            DiffLine::Added(format!("{:depth$}{}", "", line.trim_start()))
        }
        line => line.clone(),
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn is_telling(line: &str) -> bool {
    line.contains(char::is_alphanumeric)
}

/// The weight of the lines that both have, in the same order.
fn common(old: &[&str], lines: &[&str]) -> usize {
    let mut row = vec![0; lines.len() + 1];
    for old in old {
        let mut diagonal = 0;
        for (column, line) in lines.iter().enumerate() {
            let above = row[column + 1];
            let is_same = old.trim() == line.trim();
            let taken = if is_same { diagonal + weight(is_telling(old)) } else { 0 };
            row[column + 1] = above.max(row[column]).max(taken);
            diagonal = above;
        }
    }
    row[lines.len()]
}
