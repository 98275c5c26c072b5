//! A value of a few goes from node to node as its name, in text.

#[cfg(test)]
mod tests;

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};

/// A value that is one of a few, each with a name.
pub(super) trait Named: Copy + 'static {
    /// All there are.
    const ALL: &'static [Self];

    /// Its name; no two have the same.
    fn name(self) -> &'static str;
}

fn named<T: Named>(name: &str) -> Option<T> {
    T::ALL.iter().copied().find(|value| value.name() == name)
}

pub(super) fn serialize<T: Named, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.name())
}

pub(super) fn deserialize<'de, T: Named, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let name = String::deserialize(deserializer)?;
    named(&name).ok_or_else(|| D::Error::custom(format!("nothing has the name {name:?}")))
}

/// The same for a value that may be missing.
pub(super) mod option {
    use crate::peer::by_name::{Named, named};
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(in crate::peer) fn serialize<T: Named, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(T::name).serialize(serializer)
    }

    pub(in crate::peer) fn deserialize<'de, T: Named, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let Some(name) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let value = named(&name).ok_or_else(|| D::Error::custom(format!("nothing has the name {name:?}")))?;
        Ok(Some(value))
    }
}
