//! Small sources, small patches: what applies, what is refused, what is found again.

use super::copy::{Repository, combined};
use super::patch::{FileDiff, Patch, apply};
use super::refresh::refresh;
use super::sources::Sources;

const PATH: &str = "src/vote.rs";

const SOURCE: &str = "\
//! Votes.

use crate::Term;

/// How many are enough.
const LEAST: usize = 1;

/// A voter.
pub struct Voter {
    term: Term,
}

impl Voter {
    /// Takes a term.
    pub fn take(&mut self, term: Term) -> bool {
        if term < self.term {
            return false;
        }
        self.term = term;
        true
    }

    pub const fn enough(&self, votes: usize) -> bool {
        votes > LEAST
    }

    pub fn terms(&self) -> impl Iterator<Item = Term> {
        core::iter::once(self.term)
    }
}
";

fn sources(text: &str) -> Sources {
    Sources::from([(PATH.to_owned(), text.to_owned())])
}

/// A patch that puts `new` in the place of `old`, which stands in the source once.
fn patch(name: &str, old: &str, new: &str) -> Patch {
    assert_eq!(SOURCE.matches(old).count(), 1, "{old:?} has to be unique");
    let start = SOURCE[..SOURCE.find(old).expect("it is there")].lines().count();
    let edit = super::patch::Edit {
        line: start,
        removed: old.lines().count(),
        added: new.lines().map(str::to_owned).collect(),
    };
    let files = vec![FileDiff::from_edits(PATH, SOURCE, &[edit])];
    Patch { name: name.to_owned(), head: format!("{name} is wrong"), files }
}

fn older_terms() -> Patch {
    patch("older-terms", "        if term < self.term {\n", "        if term < self.term && false {\n")
}

fn always() -> Patch {
    patch("always", "            return false;\n", "            return true;\n")
}

fn joined(faults: Result<Sources, Vec<String>>) -> String {
    faults.expect_err("it is refused").join("\n")
}

#[test]
fn every_bug_can_be_planted() {
    let repository = Repository::open().unwrap();
    assert!(repository.count() > 100, "the patches were not found");
    let faults = repository.combined().err().unwrap_or_default();
    assert!(faults.is_empty(), "`sim mutants --refresh` may help:\n{}", faults.join("\n"));
}

#[test]
fn what_is_written_reads_the_same() {
    let patch = older_terms();
    let text = patch.render();
    let read = Patch::parse("older-terms", &text).unwrap();
    assert_eq!(read.render(), text);
    assert_eq!(read.title(), "older-terms is wrong");
    let edits = read.files[0].place(SOURCE).unwrap();
    assert_eq!(apply(SOURCE, &edits), SOURCE.replace("term < self.term", "term < self.term && false"));
}

#[test]
fn the_form_is_the_one_of_diff() {
    let expected = "\
always is wrong

--- a/src/vote.rs
+++ b/src/vote.rs
@@ -14,7 +14,7 @@
     /// Takes a term.
     pub fn take(&mut self, term: Term) -> bool {
         if term < self.term {
-            return false;
+            return true;
         }
         self.term = term;
         true
";
    assert_eq!(always().render(), expected);
}

#[test]
fn two_changes_stand_in_one_diff() {
    let edit = |line: usize, text: &str| super::patch::Edit {
        line,
        removed: 1,
        added: vec![text.to_owned(), text.to_owned()],
    };
    let near = FileDiff::from_edits(PATH, SOURCE, &[edit(2, "near"), edit(5, "by")]);
    assert_eq!(near.hunks.len(), 1);
    let far = FileDiff::from_edits(PATH, SOURCE, &[edit(2, "far"), edit(21, "away")]);
    assert_eq!(far.hunks.len(), 2);
    let patch = Patch { name: "two".to_owned(), head: "two changes".to_owned(), files: vec![far] };
    let read = Patch::parse("two", &patch.render()).unwrap();
    assert_eq!(read.render(), patch.render());
    assert_eq!(read.files[0].place(SOURCE).unwrap(), [edit(2, "far"), edit(21, "away")]);
}

#[test]
fn a_patch_that_is_none_is_refused_with_its_line() {
    let diff = "--- a/src/vote.rs\n+++ b/src/vote.rs\n";
    for (text, fault) in [
        (format!("\n{diff}@@ -1 +1 @@\n-a\n+b\n"), ":1: the first line has to say what the bug is"),
        ("wrong".to_owned(), ":2: a diff with at least one hunk has to stand here"),
        (format!("wrong\n\n{diff}"), ":3: a diff with at least one hunk"),
        ("wrong\n\n--- a/src/vote.rs\n".to_owned(), ":3: a line `+++ b/PATH` has to follow"),
        (format!("wrong\n\n{diff}@@ -1,2 +1 @@\n-a\n+b\n"), ":8: the hunk has not as many lines"),
        (format!("wrong\n\n{diff}@@ -1 +1 @@\n-a\n-b\n"), ":7: the hunk has not as many lines"),
        (format!("wrong\n\n{diff}@@ -1 +1 @@\n a\n"), ":5: the hunk changes nothing"),
        (format!("wrong\n\n{diff}@@ -1 +1 @@\n-a\n+b\nc\n"), ":8: neither a file nor a hunk"),
        (format!("wrong\nEngine: queue\n\n{diff}"), ":2: `Engine: madsim` is the only engine"),
    ] {
        let found = Patch::parse("bad", &text).unwrap_err();
        assert!(found.starts_with("sim/mutants/bad.patch"), "{found}");
        assert!(found.contains(fault), "{found} instead of {fault}");
    }
}

#[test]
fn a_function_holds_every_body() {
    let text = &combined(&[older_terms(), always()], &sources(SOURCE)).unwrap()[PATH];
    let body = |line: &str, answer: &str| {
        format!(
            "{{\n        {line} {{\n            return {answer};\n        }}\n        self.term = term;\n        true\n    }}"
        )
    };
    let (sound, first) =
        (body("if term < self.term", "false"), body("if term < self.term && false", "false"));
    let second = body("if term < self.term", "true");
    let expected =
        format!("{{ match crate::mutants::planted() {{\n1 => {first}\n2 => {second}\n_ => {sound}\n}} }}");
    assert_eq!(*text, SOURCE.replace(&sound, &expected));
}

#[test]
fn a_patch_may_change_several_functions_and_files() {
    let mut both = older_terms();
    both.files.extend(patch("", "        votes > LEAST\n", "        votes >= LEAST\n").files);
    let mut sources = sources(SOURCE);
    sources.insert("src/other.rs".to_owned(), SOURCE.to_owned());
    both.files.push(FileDiff { path: "src/other.rs".to_owned(), ..always().files.remove(0) });
    // The hunks of a file stand in one diff.
    let second = both.files.remove(1);
    both.files[0].hunks.extend(second.hunks);
    let combined = combined(&[both], &sources).unwrap();
    assert_eq!(combined[PATH].matches("planted()").count(), 2);
    assert_eq!(combined["src/other.rs"].matches("planted()").count(), 1);
    assert!(combined[PATH].contains("pub  fn enough"), "which bug is planted is not known to the compiler");
}

#[test]
fn items_may_be_added() {
    let add = |name| patch(name, "/// A voter.\n", "fn helper() {}\n\n/// A voter.\n");
    let mut patches = [add("one"), add("two")];
    for patch in &mut patches {
        // Without the line that stands there before and after.
        let edits = [super::patch::Edit { line: 7, removed: 0, added: vec!["fn helper() {}".to_owned()] }];
        patch.files = vec![FileDiff::from_edits(PATH, SOURCE, &edits)];
    }
    let text = &combined(&patches, &sources(SOURCE)).unwrap()[PATH];
    assert_eq!(*text, SOURCE.replace("/// A voter.", "fn helper() {}\n/// A voter."));
    let method = ["    fn refuses(&self) -> bool {", "        true", "    }"].map(str::to_owned).to_vec();
    let edits = [super::patch::Edit { line: 13, removed: 0, added: method.clone() }];
    let patch = Patch { files: vec![FileDiff::from_edits(PATH, SOURCE, &edits)], ..older_terms() };
    let text = &combined(&[patch], &sources(SOURCE)).unwrap()[PATH];
    let expected = format!("impl Voter {{\n{}\n", method.join("\n"));
    assert_eq!(*text, SOURCE.replace("impl Voter {\n", &expected));
    // As diff has it: it begins with the brace that ends the method before, and ends without its
    // own.
    let slid = ["    }", "", "    fn refuses(&self) -> bool {", "        true"].map(str::to_owned).to_vec();
    let edits = [super::patch::Edit { line: 20, removed: 0, added: slid }];
    let patch = Patch { files: vec![FileDiff::from_edits(PATH, SOURCE, &edits)], ..older_terms() };
    let text = &combined(&[patch], &sources(SOURCE)).unwrap()[PATH];
    assert_eq!(*text, apply(SOURCE, &edits));
    // The other way round: it ends with the comment of the method that follows.
    let slid = ["    fn refuses(&self) -> bool {", "        true", "    }", "", "    /// Takes a term."];
    let edits = [super::patch::Edit { line: 14, removed: 0, added: slid.map(str::to_owned).to_vec() }];
    let patch = Patch { files: vec![FileDiff::from_edits(PATH, SOURCE, &edits)], ..older_terms() };
    let text = &combined(&[patch], &sources(SOURCE)).unwrap()[PATH];
    assert_eq!(*text, apply(SOURCE, &edits));
    // An item within a body is part of that body.
    let inner = vec!["        const WORST: bool = true;".to_owned()];
    let edits = [super::patch::Edit { line: 15, removed: 0, added: inner }];
    let patch = Patch { files: vec![FileDiff::from_edits(PATH, SOURCE, &edits)], ..older_terms() };
    let text = &combined(&[patch], &sources(SOURCE)).unwrap()[PATH];
    assert_eq!(text.matches("planted()").count(), 1);
}

#[test]
fn what_is_no_body_is_refused() {
    let constant = patch("constant", "const LEAST: usize = 1;\n", "const LEAST: usize = 0;\n");
    let field = patch("field", "    term: Term,\n", "    term: u64,\n");
    let signature = patch(
        "signature",
        "    pub fn take(&mut self, term: Term) -> bool {\n",
        "    pub fn take(&mut self, term: u64) -> bool {\n",
    );
    let one_more = super::patch::Edit { line: 9, removed: 0, added: vec!["    vote: u64,".to_owned()] };
    let one_more = Patch {
        name: "one-more".to_owned(),
        files: vec![FileDiff::from_edits(PATH, SOURCE, &[one_more])],
        ..older_terms()
    };
    let faults = joined(combined(&[constant, field, signature, one_more], &sources(SOURCE)));
    for place in ["constant.patch", "field.patch", "signature.patch", "one-more.patch"]
        .into_iter()
        .zip([6, 10, 15, 10])
        .map(|(name, line)| format!("{name}: src/vote.rs:{line}:"))
    {
        assert!(faults.contains(&place), "{place} is missing in {faults}");
    }
    assert_eq!(faults.matches("outside the body of a function").count(), 4);
}

#[test]
fn what_has_one_type_for_each_body_is_refused() {
    let opaque = patch("opaque", "        core::iter::once(self.term)\n", "        core::iter::empty()\n");
    let faults = joined(combined(&[opaque], &sources(SOURCE)));
    assert!(faults.contains("opaque.patch: src/vote.rs:27: terms returns an `impl Trait`"), "{faults}");
}

#[test]
fn what_cannot_be_parsed_is_refused() {
    let open = patch("open", "        votes > LEAST\n", "        votes > LEAST {\n");
    let faults = joined(combined(&[open], &sources(SOURCE)));
    assert!(faults.contains("open.patch: src/vote.rs:24: with the bug in it, line"), "{faults}");
}

#[test]
fn what_does_not_apply_names_patch_and_place() {
    let gone = sources(&SOURCE.replace("return false", "return self.refuse()"));
    let faults = joined(combined(&[always()], &gone));
    assert!(
        faults.contains(
            "sim/mutants/always.patch: src/vote.rs:14: the hunk at line 0 of the patch does not fit"
        ),
        "{faults}"
    );
    assert!(faults.contains("there is no line \"return false;\""), "{faults}");
    let twice = sources(&format!("// moved\n{SOURCE}{SOURCE}"));
    let second = 15 + SOURCE.lines().count();
    assert!(joined(combined(&[always()], &twice)).contains(&format!("fits at lines 15 and {second}")));
    let faults = joined(combined(&[always()], &Sources::new()));
    assert!(
        faults.contains("always.patch: src/vote.rs is no source that a bug can be planted in"),
        "{faults}"
    );
}

#[test]
fn a_patch_applies_where_its_lines_have_moved_to() {
    let moved = sources(&format!("// a new line\n{SOURCE}"));
    let text = &combined(&[always()], &moved).unwrap()[PATH];
    assert!(text.contains("return true;"));
    let fresh = refresh(&always(), &moved).unwrap();
    assert!(fresh.render().contains("@@ -15,7 +15,7 @@"), "{}", fresh.render());
}

#[test]
fn what_moved_one_hunk_moves_the_next() {
    let block = "p\nq\nr\nold\ns\nt\nu\n";
    let source = format!("first\n{block}{block}");
    let edit = |line: usize| super::patch::Edit { line, removed: 1, added: vec!["new".to_owned()] };
    // The second hunk fits at two places; that of the first one tells which is meant.
    let diff = FileDiff::from_edits(PATH, &source, &[edit(0), edit(11)]);
    assert_eq!(diff.hunks.len(), 2);
    let moved = format!("zeroth\n{source}");
    assert_eq!(diff.place(&moved).unwrap(), [edit(1), edit(12)]);
    // Two hunks cannot change the same lines.
    let twice = FileDiff { hunks: vec![diff.hunks[0].clone(), diff.hunks[0].clone()], ..diff };
    assert!(twice.place(&source).unwrap_err()[0].contains("overlaps the hunk before it"));
}

#[test]
fn a_patch_whose_surroundings_changed_is_written_anew() {
    // The line before has changed, the whole stands deeper, and in another file.
    let text = SOURCE.replace("if term < self.term {", "if term < self.term() {");
    let deeper: String = text.lines().map(|line| format!("    {line}\n")).collect();
    let elsewhere = Sources::from([("src/voter.rs".to_owned(), deeper.clone())]);
    for sources in [sources(&text), elsewhere] {
        assert!(combined(&[always()], &sources).is_err(), "it does not apply as it is");
        let fresh = refresh(&always(), &sources).unwrap();
        let (path, source) = sources.first_key_value().unwrap();
        assert_eq!(fresh.files.len(), 1);
        assert_eq!(fresh.files[0].path, *path);
        let edits = fresh.files[0].place(source).unwrap();
        assert_eq!(apply(source, &edits), source.replace("return false", "return true"));
    }
}

#[test]
fn lines_that_are_only_added_are_found_by_what_stands_beside_them() {
    let added = super::patch::Edit {
        line: 18,
        removed: 0,
        added: vec!["        let term = term.next();".to_owned()],
    };
    let patch = Patch { files: vec![FileDiff::from_edits(PATH, SOURCE, &[added])], ..older_terms() };
    let text = SOURCE.replace("return false", "return self.refuse()");
    let fresh = refresh(&patch, &sources(&text)).unwrap();
    let edits = fresh.files[0].place(&text).unwrap();
    let expected = "        let term = term.next();\n        self.term = term;\n";
    assert!(apply(&text, &edits).contains(expected));
    // One of the lines beside them has to be there.
    let text = text.replace("        self.term = term;\n", "");
    assert!(refresh(&patch, &sources(&text)).is_err());
}

#[test]
fn of_two_places_the_one_whose_surroundings_are_more_alike_is_meant() {
    let text = SOURCE.replace("if term < self.term {", "if term < self.term() {");
    let other = "fn other() -> bool {\n    if is_odd() {\n        return false;\n    }\n    even()\n}\n";
    for text in [format!("{other}{text}"), format!("{text}{other}")] {
        let fresh = refresh(&always(), &sources(&text)).unwrap();
        let edits = fresh.files[0].place(&text).unwrap();
        let expected = "            return true;\n        }\n        self.term = term;\n";
        assert!(apply(&text, &edits).contains(expected));
    }
}

#[test]
fn what_could_stand_at_two_places_is_not_written_anew() {
    let text = SOURCE.replace(
        "        true\n",
        "        if self.refuses() {\n            return false;\n        }\n        true\n",
    );
    let text = text.replace("if term < self.term {", "if self.refuses() {");
    let text = text
        .replace("    /// Takes a term.\n", "")
        .replace("    pub fn take(&mut self, term: Term) -> bool {\n", "fn f() {\n");
    let text = text.replace("        self.term = term;\n", "");
    let faults = refresh(&always(), &sources(&text)).unwrap_err();
    assert!(
        faults[0].contains("sim/mutants/always.patch:0: src/vote.rs: the lines of this hunk are not found")
    );
    assert!(refresh(&always(), &Sources::new()).is_err());
}
