//! Enough of Rust's grammar to see what a file imports: its words without comments and strings, and
//! the paths they form.

/// A word of the source: an identifier, `::`, or a single other character.
pub(super) type Word = String;

/// The words of a source text; comments, strings, character literals and lifetimes are left out.
pub(super) fn words(text: &str) -> Vec<Word> {
    let chars: Vec<char> = text.chars().collect();
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied().unwrap_or(' ');
        match c {
            '/' if next == '/' => at += chars[at..].iter().take_while(|c| **c != '\n').count(),
            '/' if next == '*' => at = after_block_comment(&chars, at),
            '"' => at = after_string(&chars, at),
            '\'' => at = after_quote(&chars, at),
            ':' if next == ':' => {
                words.push("::".to_owned());
                at += 2;
            }
            _ if c.is_alphabetic() || c == '_' => {
                let word: String =
                    chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
                at += word.chars().count();
                let raw = matches!(&*word, "r" | "br" | "cr");
                if raw && let Some(after) = after_raw_string(&chars, at) {
                    at = after;
                } else {
                    words.push(word);
                }
            }
            _ if c.is_whitespace() => at += 1,
            _ => {
                words.push(c.to_string());
                at += 1;
            }
        }
    }
    words
}

fn after_block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) if depth == 1 => return at + 2,
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

fn after_string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// After the `r` of a raw string.
fn after_raw_string(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start..].iter().take_while(|c| **c == '#').count();
    if chars.get(start + hashes) != Some(&'"') {
        return None;
    }
    let mut at = start + hashes + 1;
    while at < chars.len() {
        let closes = chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
        if closes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(at)
}

/// After a character literal; of a lifetime, only the quote is skipped.
fn after_quote(chars: &[char], start: usize) -> usize {
    match (chars.get(start + 1), chars.get(start + 2)) {
        (Some('\\'), _) => {
            let rest = &chars[(start + 3).min(chars.len())..];
            start + 4 + rest.iter().take_while(|c| **c != '\'').count()
        }
        (Some(_), Some('\'')) => start + 3,
        _ => start + 1,
    }
}

/// Every path that begins with `root` (`crate`, `super`), with groups spelled out:
/// `crate::a::{b, c::d}` is `[a, b]` and `[a, c, d]`. Visibilities (`pub(super)`,
/// `pub(in crate::a)`) are no imports.
pub(super) fn paths_from(words: &[Word], root: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for at in 0..words.len() {
        let before = |back: usize| at.checked_sub(back).map(|at| &*words[at]);
        let in_path = before(1) == Some("in") && before(2) == Some("(") && before(3) == Some("pub");
        let visibility = in_path || before(1) == Some("(") && before(2) == Some("pub");
        if words[at] == root && before(1) != Some("::") && !visibility {
            follow(words, at + 1, &mut Vec::new(), &mut paths);
        }
    }
    paths
}

/// Reads `::word…` or `::{…}` from `at` on; returns where it ends.
fn follow(words: &[Word], at: usize, path: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    let word = |at: usize| words.get(at).map(|word| &**word).unwrap_or_default();
    if word(at) != "::" {
        paths.push(path.clone());
        return at;
    }
    if word(at + 1) == "{" {
        let mut at = at + 2;
        while at < words.len() && word(at) != "}" {
            if word(at) == "," {
                at += 1;
                continue;
            }
            let length = path.len();
            path.push(word(at).to_owned());
            at = follow(words, at + 1, path, paths);
            path.truncate(length);
            if word(at) == "as" {
                at += 2;
            }
        }
        return at + 1;
    }
    if !word(at + 1).starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '*') {
        // `crate::path::<Generic>`.
        paths.push(path.clone());
        return at + 1;
    }
    path.push(word(at + 1).to_owned());
    let end = follow(words, at + 2, path, paths);
    path.pop();
    end
}

/// A module that a file declares.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) name: String,
    /// Behind `#[cfg(test)]`.
    pub(super) test: bool,
}

/// The modules with files of their own (`mod name;`).
pub(super) fn declared_modules(words: &[Word]) -> Vec<Declared> {
    const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut declared = Vec::new();
    for at in 0..words.len().saturating_sub(2) {
        if words[at] != "mod" || words[at + 2] != ";" {
            continue;
        }
        let mut start = at;
        if start > 0 && words[start - 1] == ")" {
            start = words[..start].iter().rposition(|word| word == "pub").unwrap_or(start);
        } else if start > 0 && words[start - 1] == "pub" {
            start -= 1;
        }
        let test = start >= CFG_TEST.len() && words[start - CFG_TEST.len()..start] == CFG_TEST;
        declared.push(Declared { name: words[at + 1].clone(), test });
    }
    declared
}
