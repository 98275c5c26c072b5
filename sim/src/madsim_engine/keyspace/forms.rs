//! How bytes, keys and ranges are written in a request: each in one of the ways that docs/api has.

use infinitystore::codec::{to_base64, to_base64_url};
use infinitystore::kv::{CompareOrder, KeyRange};
use infinitystore::replica::Level;
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::{Map, Value};

/// Path and query of a request.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub text: String,
    has_query: bool,
}

impl Target {
    pub(super) fn new(path: &str) -> Self {
        Self { text: path.to_owned(), has_query: false }
    }

    /// Adds a parameter whose value needs no encoding.
    pub(super) fn add(&mut self, name: &str, value: String) {
        self.flag(name);
        self.text.push('=');
        self.text.push_str(&value);
    }

    /// Adds a parameter without a value.
    pub(super) fn flag(&mut self, name: &str) {
        self.text.push(if std::mem::replace(&mut self.has_query, true) { '&' } else { '?' });
        self.text.push_str(name);
    }

    /// Adds bytes: percent-encoded, or in base64.
    pub(super) fn bytes(&mut self, rng: &mut SmallRng, name: &str, bytes: &[u8]) {
        match rng.random_range(0..4) {
            0 => self.add(&format!("{name}64"), encoded(rng, to_base64(bytes).as_bytes(), false)),
            1 => self.add(&format!("{name}64"), to_base64_url(bytes)),
            _ => {
                let value = encoded(rng, bytes, false);
                self.add(name, value);
            }
        }
    }

    /// Adds a range.
    pub(super) fn range(&mut self, rng: &mut SmallRng, range: &KeyRange) {
        if KeyRange::prefix(range.start.clone()) == *range && rng.random_bool(0.7) {
            return self.bytes(rng, "prefix", &range.start);
        }
        if !range.start.is_empty() || range.end.is_none() {
            self.bytes(rng, "start", &range.start);
        }
        if let Some(end) = &range.end {
            self.bytes(rng, "end", end);
        }
    }

    /// Adds how fresh the answer has to be.
    pub(super) fn level(&mut self, rng: &mut SmallRng, level: Level) {
        match level {
            Level::Linearizable if rng.random_bool(0.7) => {}
            Level::Linearizable => self.add("level", "linearizable".to_owned()),
            Level::Local => self.add("level", "local".to_owned()),
            Level::Fresh { max_staleness_micros } => {
                self.add("max_staleness", format!("{}ms", max_staleness_micros / 1_000));
            }
        }
    }
}

/// Where a key is found: in the path, or in the query.
pub(super) fn key_target(rng: &mut SmallRng, route: &str, key: &[u8]) -> Target {
    if rng.random_bool(0.6) {
        return Target::new(&format!("{route}/{}", in_path(rng, key)));
    }
    let mut target = Target::new(route);
    target.bytes(rng, "key", key);
    target
}

/// Bytes as a part of a path.
pub(super) fn in_path(rng: &mut SmallRng, bytes: &[u8]) -> String {
    encoded(rng, bytes, true)
}

fn encoded(rng: &mut SmallRng, bytes: &[u8], is_path: bool) -> String {
    let all = bytes.len() < 100 && rng.random_bool(0.1);
    let mut text = String::new();
    for byte in bytes {
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        match byte {
            b' ' if !is_path && rng.random() => text.push('+'),
            b'/' if rng.random_bool(0.7) => text.push('/'),
            // A plus stands for itself in a path.
            b'+' if is_path => text.push('+'),
            _ if is_plain && !all => text.push(char::from(*byte)),
            _ if rng.random() => text.push_str(&format!("%{byte:02X}")),
            _ => text.push_str(&format!("%{byte:02x}")),
        }
    }
    text
}

/// Bytes as a field of JSON: as text if they are text, or in base64.
pub(super) fn bytes_field(rng: &mut SmallRng, body: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) if rng.random_bool(0.7) => body.insert(name.to_owned(), text.into()),
        _ => {
            let text = if rng.random() { to_base64(bytes) } else { to_base64_url(bytes) };
            body.insert(format!("{name}64"), text.into())
        }
    };
}

/// A range as fields of JSON.
pub(super) fn range_fields(rng: &mut SmallRng, body: &mut Map<String, Value>, range: &KeyRange) {
    if let Some(key) = range.one_key() {
        return bytes_field(rng, body, "key", key);
    }
    if KeyRange::prefix(range.start.clone()) == *range && rng.random_bool(0.7) {
        return bytes_field(rng, body, "prefix", &range.start);
    }
    if !range.start.is_empty() || range.end.is_none() {
        bytes_field(rng, body, "start", &range.start);
    }
    if let Some(end) = &range.end {
        bytes_field(rng, body, "end", end);
    }
}

pub(super) const fn order_name(order: CompareOrder) -> &'static str {
    match order {
        CompareOrder::Equal => "=",
        CompareOrder::NotEqual => "!=",
        CompareOrder::Less => "<",
        CompareOrder::Greater => ">",
    }
}
