//! Results as JSON: the shapes of the HTTP API.

use crate::client::put_bytes;
use crate::kv::{Event, KeyValue, RevisionChanges};
use serde_json::{Map, Value, json};

/// A key with its versions, and with its value if that is wanted.
pub(super) fn key_value(found: &KeyValue, has_value: bool) -> Map<String, Value> {
    let mut object = Map::new();
    put_bytes(&mut object, "key", &found.key);
    if has_value {
        put_bytes(&mut object, "value", &found.value);
    }
    put_numbers(&mut object, found);
    object
}

/// All that one revision changed.
pub(super) fn changes(changes: &RevisionChanges) -> Value {
    json!({ "revision": changes.revision.0, "events": changes.events.iter().map(event).collect::<Vec<_>>() })
}

/// One change.
pub(super) fn event(event: &Event) -> Value {
    let mut object = Map::new();
    object.insert("type".to_owned(), kind_of(event).into());
    put_bytes(&mut object, "key", &event.key);
    if let Some(now) = &event.now {
        put_bytes(&mut object, "value", &now.value);
        put_numbers(&mut object, now);
    }
    if let Some(previous) = &event.previous {
        let mut before = Map::new();
        put_bytes(&mut before, "value", &previous.value);
        put_numbers(&mut before, previous);
        object.insert("previous".to_owned(), before.into());
    }
    object.into()
}

/// `put` or `delete`.
pub(super) fn kind_of(event: &Event) -> &'static str {
    if event.now.is_some() { "put" } else { "delete" }
}

fn put_numbers(object: &mut Map<String, Value>, found: &KeyValue) {
    for (name, number) in [
        ("create_revision", found.create_revision.0),
        ("mod_revision", found.mod_revision.0),
        ("version", found.version),
        ("lease", found.lease.0),
    ] {
        object.insert(name.to_owned(), number.into());
    }
}
