//! Marks: how often a run met each fault, and each rare path of the product.

use std::collections::BTreeMap;

/// How often each fault and rare path was met.
pub type Marks = BTreeMap<&'static str, u64>;
