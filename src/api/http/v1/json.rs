//! Writing JSON. Bytes that are UTF-8 stand under their name, others in base64 under `name64`.

use crate::codec::to_base64;
use crate::kv::KeyValue;

/// A key takes at most this, with the names of its fields and its numbers, beside itself and its
/// value.
pub(super) const KEY_VALUE_BYTES: usize = 192;

/// A JSON object on its way: everything is appended to one buffer.
#[derive(Debug)]
pub(super) struct Json {
    out: Vec<u8>,
    /// Whether something stands before the next field or element.
    begun: bool,
}

impl Json {
    pub(super) fn object() -> Self {
        Self::reserving(64)
    }

    /// With room for so many bytes.
    pub(super) fn reserving(bytes: usize) -> Self {
        let mut out = Vec::with_capacity(bytes + 64);
        out.push(b'{');
        Self { out, begun: false }
    }

    /// Begins a field; its value has to follow.
    pub(super) fn field(&mut self, name: &str) -> &mut Self {
        self.separate();
        self.string(name);
        self.out.push(b':');
        self.begun = false;
        self
    }

    pub(super) fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.field(name).string(text);
        self
    }

    pub(super) fn number(&mut self, name: &str, number: u64) -> &mut Self {
        self.field(name).raw(number.to_string().as_bytes())
    }

    pub(super) fn signed(&mut self, name: &str, number: i64) -> &mut Self {
        self.field(name).raw(number.to_string().as_bytes())
    }

    /// Microseconds, as seconds with three digits behind the point.
    pub(super) fn seconds(&mut self, name: &str, micros: u64) -> &mut Self {
        let millis = micros / 1000;
        self.field(name).raw(format!("{}.{:03}", millis / 1000, millis % 1000).as_bytes())
    }

    pub(super) fn flag(&mut self, name: &str, flag: bool) -> &mut Self {
        self.field(name).raw(if flag { b"true" } else { b"false" })
    }

    /// Bytes, under `name` or `name64`.
    pub(super) fn bytes(&mut self, name: &str, name64: &str, bytes: &[u8]) -> &mut Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.text(name, text),
            Err(_) => self.text(name64, &to_base64(bytes)),
        }
    }

    /// What [`Self::bytes`] makes of these bytes, without the name. It costs little beside writing
    /// them, so that memory is set aside before it is taken.
    pub(super) fn bytes_of(bytes: &[u8]) -> usize {
        if std::str::from_utf8(bytes).is_err() {
            return bytes.len().div_ceil(3) * 4 + 2;
        }
        let escaped = |byte: &u8| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 1,
            0..32 => 5,
            _ => 0,
        };
        bytes.len() + 2 + bytes.iter().map(escaped).sum::<usize>()
    }

    /// A string in an array.
    pub(super) fn element(&mut self, text: &str) -> &mut Self {
        self.separate();
        self.string(text);
        self
    }

    /// An object, or an array, of what `write` writes.
    pub(super) fn within(&mut self, [open, close]: [u8; 2], write: impl FnOnce(&mut Self)) -> &mut Self {
        self.separate();
        self.out.push(open);
        self.begun = false;
        write(self);
        self.out.push(close);
        self.begun = true;
        self
    }

    /// An array of what `write` writes of each item.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        self.field(name).within(*b"[]", |json| items.into_iter().for_each(|item| write(json, item)))
    }

    /// A key with its value and its versions.
    pub(super) fn key_value(&mut self, found: &KeyValue) -> &mut Self {
        self.within(*b"{}", |json| {
            json.bytes("key", "key64", &found.key).bytes("value", "value64", &found.value).numbers(found);
        })
    }

    /// A key with its versions alone.
    pub(super) fn versions(&mut self, found: &KeyValue) -> &mut Self {
        self.within(*b"{}", |json| {
            json.bytes("key", "key64", &found.key).numbers(found);
        })
    }

    /// The versions of a key.
    pub(super) fn numbers(&mut self, found: &KeyValue) -> &mut Self {
        self.number("create_revision", found.create_revision.0)
            .number("mod_revision", found.mod_revision.0)
            .number("version", found.version)
            .number("lease", found.lease.0)
    }

    /// A key alone, as an object.
    pub(super) fn key(&mut self, key: &[u8]) -> &mut Self {
        self.within(*b"{}", |json| {
            json.bytes("key", "key64", key);
        })
    }

    /// Ends the object.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.out.push(b'}');
        self.out
    }

    /// Ends the object, and the line.
    pub(super) fn end_line(mut self) -> Vec<u8> {
        self.out.extend_from_slice(b"}\n");
        self.out
    }

    /// JSON that is written already.
    pub(super) fn raw(&mut self, json: &[u8]) -> &mut Self {
        self.separate();
        self.out.extend_from_slice(json);
        self.begun = true;
        self
    }

    fn string(&mut self, text: &str) {
        serde_json::to_writer(&mut self.out, text)
            .expect("a string is always JSON, and a Vec takes all of it");
        self.begun = true;
    }

    fn separate(&mut self) {
        if self.begun {
            self.out.push(b',');
        }
    }
}
