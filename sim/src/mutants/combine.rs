//! One source for all planted bugs: each function that some of them change holds every one of its
//! bodies, and asks at run time which one is in force.
//!
//! Each patch is applied alone, to the source as it is. So two patches may change the same lines,
//! and none knows of the others. Between the bodies a source stays as it is, but for whole items
//! that a patch adds.

use super::patch::{Edit, apply};
use proc_macro2::Span;
use std::collections::BTreeMap;
use std::ops::Range;
use syn::{ImplItem, Item, Signature, TraitItem};

/// What one planted bug changes in a source.
pub(super) struct Change<'a> {
    /// The bug's number, from 1: 0 is none.
    pub(super) number: usize,
    /// The bug's name.
    pub(super) name: &'a str,
    /// In order.
    pub(super) edits: Vec<Edit>,
}

/// A function that has a body, and is not part of another.
struct Function {
    name: String,
    /// The bytes of its body, with its braces.
    body: Range<usize>,
    /// The bytes of the word `const` before it.
    constness: Option<Range<usize>>,
    /// Whether its type depends on its body.
    is_opaque: bool,
}

/// The source of a file with all changes in it.
///
/// # Errors
/// Each change that is none of the body of a function, or makes the source one that cannot be
/// parsed.
pub(super) fn combine(path: &str, source: &str, changes: &[Change<'_>]) -> Result<String, Vec<String>> {
    let functions = functions(source).map_err(|why| vec![format!("{path}: {why}")])?;
    let mut bodies: Vec<Vec<(usize, String)>> = functions.iter().map(|_| Vec::new()).collect();
    let mut items: BTreeMap<usize, Vec<Vec<String>>> = BTreeMap::new();
    let mut faults = Vec::new();
    for change in changes {
        let (mut added, mut edits) = (Vec::new(), Vec::new());
        for edit in &change.edits {
            match as_items(source, &functions, edit) {
                Some(items) => added.push(items),
                None => edits.push(edit.clone()),
            }
        }
        match changed_bodies(source, &functions, &edits) {
            Ok(changed) => {
                for (index, body) in changed {
                    bodies[index].push((change.number, body));
                }
            }
            Err((line, why)) => {
                faults.push(format!("sim/mutants/{}.patch: {path}:{line}: {why}", change.name));
            }
        }
        for edit in added {
            let there = items.entry(edit.line).or_default();
            if !there.contains(&edit.added) {
                there.push(edit.added);
            }
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut pieces: Vec<(Range<usize>, String)> = Vec::new();
    for (function, bodies) in functions.iter().zip(&bodies).filter(|(_, bodies)| !bodies.is_empty()) {
        // Which bug is planted is not known before run time.
        pieces.extend(function.constness.clone().map(|word| (word, String::new())));
        pieces.push((function.body.clone(), dispatched(path, &source[function.body.clone()], bodies)));
    }
    for (line, added) in &items {
        let at = line_start(source, *line);
        pieces.push((at..at, added.iter().flatten().map(|it| format!("{it}\n")).collect()));
    }
    pieces.sort_by_key(|(range, _)| (range.start, range.end));
    Ok(replaced(source, &pieces))
}

/// A body that asks which bug is planted.
fn dispatched(path: &str, sound: &str, bodies: &[(usize, String)]) -> String {
    let library = if path.starts_with("sim/") { "infinitystore" } else { "crate" };
    let mut text = format!("{{ match {library}::mutants::planted() {{\n");
    for (number, body) in bodies {
        text.push_str(&format!("{number} => {body}\n"));
    }
    text.push_str(&format!("_ => {sound}\n}} }}"));
    text
}

/// The edit, if it only adds whole items outside of all bodies. A diff may begin and end a line
/// further up or down than the item does: where the line before the added ones is the same as the
/// last of them, and the other way round.
fn as_items(source: &str, functions: &[Function], edit: &Edit) -> Option<Edit> {
    let lines: Vec<&str> = source.lines().collect();
    let is_whole = |edit: &Edit| {
        let at = line_start(source, edit.line);
        functions.iter().all(|function| at <= function.body.start || at >= function.body.end)
            && syn::parse_file(&edit.added.join("\n")).is_ok()
    };
    if edit.removed > 0 || edit.added.is_empty() {
        return None;
    }
    let mut highest = edit.clone();
    while highest.line > 0 && lines.get(highest.line - 1).copied() == highest.added.last().map(String::as_str)
    {
        highest.line -= 1;
        highest.added.rotate_right(1);
    }
    let mut slid = highest;
    loop {
        if is_whole(&slid) {
            return Some(slid);
        }
        if lines.get(slid.line).copied() != slid.added.first().map(String::as_str) {
            return None;
        }
        slid.line += 1;
        slid.added.rotate_left(1);
    }
}

/// The functions whose bodies are different, by index, with these bodies; or the line at fault, and
/// why.
fn changed_bodies(
    source: &str,
    functions: &[Function],
    edits: &[Edit],
) -> Result<Vec<(usize, String)>, (usize, String)> {
    let first_line = edits.first().map_or(0, |edit| edit.line) + 1;
    let changed = apply(source, edits);
    let after =
        self::functions(&changed).map_err(|why| (first_line, format!("with the bug in it, {why}")))?;
    let is_same = |(a, b): (&str, &str)| a == b;
    let count = functions.len();
    if count != after.len() || !between(source, functions).zip(between(&changed, &after)).all(is_same) {
        let outside = edits.iter().find(|edit| {
            let (from, to) = (line_start(source, edit.line), line_start(source, edit.line + edit.removed));
            !functions.iter().any(|function| function.body.start < from && to <= function.body.end)
        });
        let line = outside.map_or(first_line, |edit| edit.line + 1);
        let why =
            "this changes something outside the body of a function: change the function that uses it instead";
        return Err((line, why.to_owned()));
    }
    let mut found = Vec::new();
    for (index, (before, after)) in functions.iter().zip(&after).enumerate() {
        let body = &changed[after.body.clone()];
        if source[before.body.clone()] == *body {
            continue;
        }
        if before.is_opaque {
            let why =
                "returns an `impl Trait`, which can have one body only: change a function that it calls";
            let line = source[..before.body.start].lines().count();
            return Err((line, format!("{} {why}", before.name)));
        }
        found.push((index, body.to_owned()));
    }
    Ok(found)
}

/// What stands before, between and after the bodies.
fn between<'a>(source: &'a str, functions: &'a [Function]) -> impl Iterator<Item = &'a str> {
    let starts = std::iter::once(0).chain(functions.iter().map(|function| function.body.end));
    let ends = functions.iter().map(|function| function.body.start).chain([source.len()]);
    starts.zip(ends).map(|(from, to)| &source[from..to])
}

/// The functions of a source that are not part of another function, in order; or the line at fault,
/// and why.
fn functions(source: &str) -> Result<Vec<Function>, String> {
    let file = syn::parse_file(source)
        .map_err(|error| format!("line {} cannot be parsed: {error}", error.span().start().line))?;
    let mut found = Vec::new();
    add_functions(source, &file.items, &mut found);
    Ok(found)
}

fn add_functions(source: &str, items: &[Item], found: &mut Vec<Function>) {
    let mut add = |signature: &Signature, body: &syn::Block| found.push(function(source, signature, body));
    for item in items {
        match item {
            Item::Fn(item) => add(&item.sig, &item.block),
            Item::Impl(item) => {
                for item in &item.items {
                    if let ImplItem::Fn(item) = item {
                        add(&item.sig, &item.block);
                    }
                }
            }
            Item::Trait(item) => {
                for item in &item.items {
                    if let TraitItem::Fn(item) = item
                        && let Some(body) = &item.default
                    {
                        add(&item.sig, body);
                    }
                }
            }
            _ => {}
        }
    }
    for item in items {
        if let Item::Mod(item) = item
            && let Some((_, items)) = &item.content
        {
            add_functions(source, items, found);
        }
    }
    found.sort_by_key(|function| function.body.start);
}

fn function(source: &str, signature: &Signature, body: &syn::Block) -> Function {
    let bytes = |span: Span| span.byte_range();
    let braces = bytes(body.brace_token.span.open()).start..bytes(body.brace_token.span.close()).end;
    let returned = &source[bytes(signature.paren_token.span.close()).end..braces.start];
    Function {
        name: signature.ident.to_string(),
        is_opaque: returned.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "impl"),
        constness: signature.constness.as_ref().map(|word| bytes(word.span)),
        body: braces,
    }
}

/// The byte at which a line begins, from 0; the end, if there is none.
fn line_start(source: &str, line: usize) -> usize {
    source.split_inclusive('\n').take(line).map(str::len).sum()
}

/// The source with these pieces in place of theirs, in order.
fn replaced(source: &str, pieces: &[(Range<usize>, String)]) -> String {
    let mut text = String::with_capacity(2 * source.len());
    let mut next = 0;
    for (range, piece) in pieces {
        text.push_str(&source[next..range.start]);
        text.push_str(piece);
        next = range.end;
    }
    text.push_str(&source[next..]);
    text
}
