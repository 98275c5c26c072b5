//! A planted bug as a file: a head of plain text, then a unified diff of a few lines against the
//! sources.
//!
//! The first line of the head names the bug in one sentence. The rest says where the paper forbids
//! it, why it is wrong, and what one would see. A line `Engine: madsim` says that the bug sits
//! above what the queue engine runs.
//!
//! A crate for patches would read the diff, but none keeps the head, names the line at fault, or
//! finds text that moved (`refresh`).

use std::fmt::Write as _;

/// Lines of context around a change, when a patch is written.
const CONTEXT: usize = 3;

/// One planted bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Patch {
    /// The file's name, without `.patch`.
    pub(super) name: String,
    /// All text before the diff.
    pub(super) head: String,
    /// In the order of the file.
    pub(super) files: Vec<FileDiff>,
}

/// What a patch changes in one source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileDiff {
    /// From the top of the repository, with `/`.
    pub(super) path: String,
    /// At least one, from top to bottom.
    pub(super) hunks: Vec<Hunk>,
}

/// Lines that stand together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hunk {
    /// The line of the patch at which it begins, from 1.
    pub(super) at: usize,
    /// The line of the source at which it was made, from 0.
    pub(super) start: usize,
    /// At least one of them is no context.
    pub(super) lines: Vec<DiffLine>,
}

/// A line of a hunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DiffLine {
    /// Stands before and after.
    Context(String),
    /// Stands before only.
    Removed(String),
    /// Stands after only.
    Added(String),
}

/// Lines of a source that give way to others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edit {
    /// The first of them, from 0.
    pub(super) line: usize,
    /// How many.
    pub(super) removed: usize,
    /// What stands there afterwards.
    pub(super) added: Vec<String>,
}

impl Patch {
    /// Reads a patch.
    ///
    /// # Errors
    /// What is wrong, with the line.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let lines: Vec<&str> = text.lines().collect();
        let begins = |line: &&str| line.starts_with("--- ") || line.starts_with("diff --git ");
        let diff = lines.iter().position(begins).unwrap_or(lines.len());
        let fault = |line: usize, what: &str| format!("sim/mutants/{name}.patch:{}: {what}", line + 1);
        let head = lines[..diff].join("\n").trim_end().to_owned();
        if head.lines().next().is_none_or(|title| title.trim().is_empty()) {
            return Err(fault(0, "the first line has to say what the bug is"));
        }
        if let Some(line) = head
            .lines()
            .position(|line| line.strip_prefix("Engine:").is_some_and(|engine| engine.trim() != "madsim"))
        {
            return Err(fault(line, "`Engine: madsim` is the only engine that can be named"));
        }
        let mut files: Vec<FileDiff> = Vec::new();
        let mut rest = lines.iter().copied().enumerate().skip(diff).peekable();
        while let Some((at, line)) = rest.next() {
            if line.starts_with("--- ") {
                let path = rest.next().and_then(|(_, line)| line.strip_prefix("+++ "));
                let path = path.and_then(|path| path.split('\t').next()).map(str::trim_end);
                let path = path.ok_or_else(|| fault(at, "a line `+++ b/PATH` has to follow"))?;
                let path = path.strip_prefix("b/").unwrap_or(path).to_owned();
                files.push(FileDiff { path, hunks: Vec::new() });
            } else if let Some(ranges) = line.strip_prefix("@@ -") {
                let (start, mut old, mut new) =
                    parse_ranges(ranges).ok_or_else(|| fault(at, "not a line `@@ -L,N +L,N @@`"))?;
                let mut hunk = Hunk { at: at + 1, start, lines: Vec::new() };
                while old > 0 || new > 0 {
                    // Editors strip empty lines at the end of a file.
                    let (at, line) = rest.next().unwrap_or((lines.len(), ""));
                    let (line, before, after) = parse_line(line)
                        .ok_or_else(|| fault(at, "a line of a hunk begins with a space, `-` or `+`"))?;
                    if before > old || after > new {
                        return Err(fault(at, "the hunk has not as many lines as its first line says"));
                    }
                    (old, new) = (old - before, new - after);
                    hunk.lines.push(line);
                }
                if hunk.lines.iter().all(|line| matches!(line, DiffLine::Context(_))) {
                    return Err(fault(at, "the hunk changes nothing"));
                }
                let file = files.last_mut().ok_or_else(|| fault(at, "no file was named before"))?;
                file.hunks.push(hunk);
            } else if !(line.is_empty() || line.starts_with("diff --git ") || line.starts_with("index ")) {
                return Err(fault(at, "neither a file nor a hunk begins here"));
            }
        }
        if files.is_empty() || files.iter().any(|file| file.hunks.is_empty()) {
            return Err(fault(diff, "a diff with at least one hunk has to stand here"));
        }
        Ok(Self { name: name.to_owned(), head, files })
    }

    /// What is wrong, in one sentence.
    pub(super) fn title(&self) -> &str {
        self.head.lines().next().unwrap_or_default().trim_end_matches('.')
    }

    /// Whether the queue engine does not run the code that this changes.
    pub(super) fn only_madsim(&self) -> bool {
        self.head.lines().any(|line| line.starts_with("Engine:"))
    }

    /// The whole file.
    pub(super) fn render(&self) -> String {
        let mut text = format!("{}\n", self.head);
        for file in &self.files {
            let path = &file.path;
            write!(text, "\n--- a/{path}\n+++ b/{path}\n").expect("a string takes everything");
            let mut shift = 0_isize;
            for hunk in &file.hunks {
                let (old, new) = (hunk.before().count(), hunk.after().count());
                // The diff of nothing names the line before it.
                let line = |start: usize, count: usize| start + usize::from(count > 0);
                let after = hunk.start.saturating_add_signed(shift);
                let ranges = format!("@@ -{},{old} +{},{new} @@\n", line(hunk.start, old), line(after, new));
                text.push_str(&ranges);
                for line in &hunk.lines {
                    let (mark, line) = match line {
                        DiffLine::Context(line) => (' ', line),
                        DiffLine::Removed(line) => ('-', line),
                        DiffLine::Added(line) => ('+', line),
                    };
                    // An empty line of context stands without its space: editors strip it.
                    if mark == ' ' && line.is_empty() {
                        text.push('\n');
                    } else {
                        writeln!(text, "{mark}{line}").expect("a string takes everything");
                    }
                }
                shift += new.cast_signed() - old.cast_signed();
            }
        }
        text
    }
}

impl Hunk {
    /// The lines that stand there before.
    pub(super) fn before(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| match line {
            DiffLine::Context(line) | DiffLine::Removed(line) => Some(line.as_str()),
            DiffLine::Added(_) => None,
        })
    }

    /// The lines that stand there afterwards.
    fn after(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| match line {
            DiffLine::Context(line) | DiffLine::Added(line) => Some(line.as_str()),
            DiffLine::Removed(_) => None,
        })
    }

    /// What it changes, if its first line is line `start` of the source.
    pub(super) fn edits(&self, start: usize) -> Vec<Edit> {
        let mut edits: Vec<Edit> = Vec::new();
        let mut at = start;
        let mut open = false;
        for line in &self.lines {
            if matches!(line, DiffLine::Context(_)) {
                (at, open) = (at + 1, false);
                continue;
            }
            if !open {
                edits.push(Edit { line: at, removed: 0, added: Vec::new() });
                open = true;
            }
            let edit = edits.last_mut().expect("one is open");
            match line {
                DiffLine::Added(line) => edit.added.push(line.clone()),
                _ => (edit.removed, at) = (edit.removed + 1, at + 1),
            }
        }
        edits
    }
}

impl FileDiff {
    /// Finds the places of all hunks in a source: where each was made, or where its lines stand
    /// now, if that is only one place.
    ///
    /// # Errors
    /// Each hunk that has no place, or several.
    pub(super) fn place(&self, source: &str) -> Result<Vec<Edit>, Vec<String>> {
        let lines: Vec<&str> = source.lines().collect();
        let (mut edits, mut faults) = (Vec::new(), Vec::new());
        let mut shift = 0_isize;
        let mut free_from = 0;
        for hunk in &self.hunks {
            let wanted = hunk.start.saturating_add_signed(shift);
            let start = find(hunk, &lines, wanted).and_then(|start| {
                if start >= free_from { Ok(start) } else { Err("overlaps the hunk before it".to_owned()) }
            });
            match start {
                Ok(start) => {
                    shift = start.cast_signed() - hunk.start.cast_signed();
                    free_from = start + hunk.before().count();
                    edits.extend(hunk.edits(start));
                }
                Err(why) => faults.push(format!(
                    "{}:{}: the hunk at line {} of the patch {why}",
                    self.path,
                    wanted + 1,
                    hunk.at
                )),
            }
        }
        if faults.is_empty() { Ok(edits) } else { Err(faults) }
    }

    /// A diff that makes these edits, which are in order.
    pub(super) fn from_edits(path: &str, source: &str, edits: &[Edit]) -> Self {
        let lines: Vec<&str> = source.lines().collect();
        let context = |from: usize, to: usize| {
            lines[from..to].iter().map(|line| DiffLine::Context((*line).to_owned())).collect::<Vec<_>>()
        };
        let mut hunks: Vec<Hunk> = Vec::new();
        let mut end = 0;
        for edit in edits {
            let start = edit.line.saturating_sub(CONTEXT).max(end);
            match hunks.last_mut() {
                Some(hunk) if end > 0 && edit.line <= end + 2 * CONTEXT => {
                    hunk.lines.extend(context(end, edit.line));
                }
                last => {
                    if let Some(hunk) = last {
                        hunk.lines.extend(context(end, lines.len().min(end + CONTEXT)));
                    }
                    hunks.push(Hunk { at: 0, start, lines: context(start, edit.line) });
                }
            }
            let hunk = hunks.last_mut().expect("one was pushed");
            end = edit.line + edit.removed;
            hunk.lines.extend(lines[edit.line..end].iter().map(|line| DiffLine::Removed((*line).to_owned())));
            hunk.lines.extend(edit.added.iter().cloned().map(DiffLine::Added));
        }
        if let Some(hunk) = hunks.last_mut() {
            hunk.lines.extend(context(end, lines.len().min(end + CONTEXT)));
        }
        Self { path: path.to_owned(), hunks }
    }
}

/// The source with its edits, which are in order and do not overlap.
pub(super) fn apply(source: &str, edits: &[Edit]) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let mut text = String::with_capacity(source.len());
    let mut next = 0;
    let push = |text: &mut String, line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    for edit in edits {
        lines[next..edit.line].iter().for_each(|line| push(&mut text, line));
        edit.added.iter().for_each(|line| push(&mut text, line));
        next = edit.line + edit.removed;
    }
    lines[next..].iter().for_each(|line| push(&mut text, line));
    text
}

/// Where the lines of a hunk stand.
fn find(hunk: &Hunk, lines: &[&str], wanted: usize) -> Result<usize, String> {
    let before: Vec<&str> = hunk.before().collect();
    let fits = |start: usize| lines.get(start..start + before.len()) == Some(before.as_slice());
    if fits(wanted) {
        return Ok(wanted);
    }
    let mut starts = (0..lines.len()).filter(|start| fits(*start));
    match (starts.next(), starts.next()) {
        (Some(start), None) => Ok(start),
        (Some(first), Some(second)) => Err(format!("fits at lines {} and {}", first + 1, second + 1)),
        (None, _) => {
            let missing = before.iter().find(|line| !lines.contains(line));
            Err(missing.map_or_else(
                || "does not fit any more: its lines do not stand together".to_owned(),
                |line| format!("does not fit any more: there is no line {:?}", line.trim()),
            ))
        }
    }
}

/// `L,N +L,N @@…`: the first line from 0, and the lines before and after.
fn parse_ranges(text: &str) -> Option<(usize, usize, usize)> {
    let (ranges, _) = text.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let range = |text: &str| -> Option<(usize, usize)> {
        let (line, count) = text.split_once(',').unwrap_or((text, "1"));
        Some((line.parse().ok()?, count.parse().ok()?))
    };
    let ((line, old), (_, new)) = (range(old)?, range(new)?);
    let start = if old == 0 { line } else { line.checked_sub(1)? };
    Some((start, old, new))
}

/// A line, and whether it counts before and after.
fn parse_line(text: &str) -> Option<(DiffLine, usize, usize)> {
    match text.split_at_checked(1) {
        None => Some((DiffLine::Context(String::new()), 1, 1)),
        Some((" ", line)) => Some((DiffLine::Context(line.to_owned()), 1, 1)),
        Some(("-", line)) => Some((DiffLine::Removed(line.to_owned()), 1, 0)),
        Some(("+", line)) => Some((DiffLine::Added(line.to_owned()), 0, 1)),
        Some(_) => None,
    }
}
