//! Keys and values that a careless server stumbles over, and the many ways in which a client may
//! write the same request.

use crate::madsim_engine::http::Request;
use crate::madsim_engine::laws::quoted;
use rand::Rng;
use rand::rngs::SmallRng;

/// Pieces of text.
const PIECES: [&str; 20] = [
    "a",
    "plain text",
    "\"quoted\"",
    "back\\slash\\",
    "tab\tand\r\nnew lines\n",
    "\u{0}",
    "\u{1}\u{8}\u{b}\u{c}\u{1f}\u{7f}",
    "%41%zz%",
    "a+b c",
    "a&key=b&level=local",
    "=;#?/../",
    "é",
    "ß日本語",
    "😀",
    "\u{2028}\u{feff}",
    "</script>'",
    "{\"key\":\"x\"}",
    "null",
    "\u{fffd}\u{10ffff}",
    " ",
];

/// Some text, not empty.
pub(super) fn awkward(rng: &mut SmallRng) -> String {
    (0..rng.random_range(1..=3)).map(|_| PIECES[rng.random_range(0..PIECES.len())]).collect()
}

/// A value: mostly some text, now and then nothing at all.
pub(super) fn value(rng: &mut SmallRng, number: u64) -> String {
    match rng.random_range(0..6) {
        0 => String::new(),
        1 => awkward(rng).repeat(40),
        _ => format!("{number} {}", awkward(rng)),
    }
}

/// Asks for a key.
pub(super) fn get(rng: &mut SmallRng, key: &str, level: &str) -> Request {
    let key = encoded(rng, key);
    let level = match level {
        "" if rng.random() => String::new(),
        "" => "level=linearizable".to_owned(),
        level => format!("level={level}"),
    };
    let target = match rng.random_range(0..4) {
        _ if level.is_empty() => format!("/get?key={key}"),
        0 => format!("/get?{level}&key={key}"),
        1 => format!("/get?x=%20&key={key}&{level}&key=second"),
        _ => format!("/get?key={key}&{level}"),
    };
    Request::get(target)
}

/// Sets a key.
pub(super) fn set(rng: &mut SmallRng, key: &str, value: &str) -> Request {
    let (key, value) = (json(rng, key), json(rng, value));
    let body = match rng.random_range(0..4) {
        0 => format!("{{\"action\":\"set\",\"value\":{value},\"key\":{key}}}"),
        1 => format!(" {{ \"x\" : [1,{{}}] , \"key\":{key} ,\n\"value\":{value},\"action\":\"set\" }} "),
        _ => format!("{{\"key\":{key},\"value\":{value},\"action\":\"set\"}}"),
    };
    Request { chunked: rng.random_bool(0.2), ..Request::post("/set", body) }
}

/// Deletes a key.
pub(super) fn delete(rng: &mut SmallRng, key: &str) -> Request {
    let key = json(rng, key);
    let value = if rng.random() { ",\"value\":\"\"" } else { "" };
    Request::post("/set", format!("{{\"key\":{key}{value},\"action\":\"delete\"}}"))
}

/// As a JSON string: plainly, or with all of it escaped.
fn json(rng: &mut SmallRng, text: &str) -> String {
    if text.len() > 1_000 || rng.random_bool(0.7) {
        return quoted(text);
    }
    let mut escaped = "\"".to_owned();
    for unit in text.encode_utf16() {
        escaped.push_str("\\u");
        unit.to_be_bytes().into_iter().for_each(|byte| push_hex(&mut escaped, byte, UPPER));
    }
    escaped.push('"');
    escaped
}

/// As a parameter of a query: only what has to be escaped is, or all of it.
fn encoded(rng: &mut SmallRng, text: &str) -> String {
    let all = text.len() < 1_000 && rng.random_bool(0.2);
    let mut encoded = String::new();
    for byte in text.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        match byte {
            b' ' if !all && rng.random() => encoded.push('+'),
            _ if is_plain && !all => encoded.push(char::from(byte)),
            _ => {
                let digits = if rng.random() { UPPER } else { LOWER };
                encoded.push('%');
                push_hex(&mut encoded, byte, digits);
            }
        }
    }
    encoded
}

const UPPER: &[u8; 16] = b"0123456789ABCDEF";
const LOWER: &[u8; 16] = b"0123456789abcdef";

fn push_hex(text: &mut String, byte: u8, digits: &[u8; 16]) {
    for digit in [byte >> 4, byte & 15] {
        text.push(char::from(digits[usize::from(digit)]));
    }
}
