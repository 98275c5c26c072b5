//! The sources that are copied.

/// Path from the top of the repository, with `/`, to text.
pub(super) type Sources = std::collections::BTreeMap<String, String>;
