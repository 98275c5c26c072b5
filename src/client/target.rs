//! Paths and queries of a request.

use crate::client::json::put_bytes;
use crate::codec::to_base64_url;
use crate::kv::KeyRange;
use crate::replica::Level;
use serde_json::{Map, Value};
use std::fmt::{Display, Write};
use std::time::Duration;

/// A longer one is not sent as a URL where there is another way. A node takes 64 KiB; whatever
/// stands between may take less.
const TARGET_BYTES_MAX: usize = 8 << 10;

/// A path, and what follows it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    text: String,
    /// `?` or `&`: what stands before the next parameter.
    separator: char,
}

impl Target {
    /// A path that needs no escapes.
    pub(super) fn new(path: impl Into<String>) -> Self {
        Self { text: path.into(), separator: '?' }
    }

    /// One key of the keyspace.
    pub(super) fn key(key: &[u8]) -> Self {
        Self::below("/v1/kv/", key)
    }

    /// Any bytes below a path, slashes as they are.
    pub(super) fn below(path: &str, bytes: &[u8]) -> Self {
        let mut target = Self::new(path);
        percent_encode(&mut target.text, bytes, b"/");
        target
    }

    /// With a parameter that needs no escapes.
    pub(super) fn with(mut self, name: &str, value: impl Display) -> Self {
        write!(self.text, "{}{name}={value}", self.separator).expect("a String takes everything");
        self.separator = '&';
        self
    }

    /// With a parameter, if there is a value.
    pub(super) fn with_some(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With a flag, if it is set.
    pub(super) fn with_flag(self, name: &str, is_set: bool) -> Self {
        if is_set { self.with(name, true) } else { self }
    }

    /// With any bytes as a parameter: percent-encoded, or in base64 where that is shorter.
    pub(super) fn with_bytes(self, name: &str, bytes: &[u8]) -> Self {
        let mut encoded = String::new();
        percent_encode(&mut encoded, bytes, b"/:");
        let base64 = to_base64_url(bytes);
        if encoded.len() > base64.len() + 2 && std::str::from_utf8(bytes).is_err() {
            self.with(&format!("{name}64"), base64)
        } else {
            self.with(name, encoded)
        }
    }

    /// With a time.
    pub(super) fn with_time(self, name: &str, time: Duration) -> Self {
        self.with(name, format_args!("{}ms", time.as_millis()))
    }

    /// With how fresh a read must be.
    pub(super) fn with_level(self, level: Level) -> Self {
        match level {
            Level::Linearizable => self,
            Level::Local => self.with("level", "local"),
            Level::Fresh { max_staleness_micros } => {
                self.with("level", "local").with("max_staleness", format_args!("{max_staleness_micros}us"))
            }
        }
    }

    /// With the keys of a range.
    pub(super) fn with_range(self, range: &KeyRange) -> Self {
        if KeyRange::prefix(range.start.clone()) == *range && !range.start.is_empty() {
            return self.with_bytes("prefix", &range.start);
        }
        let begun = self.with_bytes("start", &range.start);
        match &range.end {
            Some(end) => begun.with_bytes("end", end),
            None => begun,
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// The parameters as the fields of a JSON object, if the target is too long for a URL.
    pub(super) fn to_long_json(&self) -> Option<String> {
        let (_, query) = self.text.split_once('?').filter(|_| self.text.len() > TARGET_BYTES_MAX)?;
        let mut object = Map::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            put_bytes(&mut object, name, &percent_decode(value));
        }
        Some(Value::from(object).to_string())
    }
}

/// What [`percent_encode`] has encoded.
fn percent_decode(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16)).unwrap_or_default();
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let value = digit(bytes.get(at + 1)) << 4 | digit(bytes.get(at + 2));
            decoded.extend(u8::try_from(value));
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    decoded
}

/// Appends bytes to a path or a query: letters, digits, a few marks and those of `also` as they
/// are.
pub(super) fn percent_encode(out: &mut String, bytes: &[u8], also: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}
