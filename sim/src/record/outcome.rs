//! What came of a run, whichever engine made it.

use crate::record::figures::Figures;
use crate::record::trace::Trace;
use crate::record::violation::Violation;
use std::collections::BTreeMap;

/// What came of a run.
pub struct Outcome {
    /// The first property that did not hold.
    pub violation: Option<Violation>,
    /// When, in microseconds of the simulation.
    pub at: u64,
    /// Hash of everything that happened.
    pub trace_hash: u64,
    /// The lines of the trace, if they were asked for.
    pub trace: Trace,
    /// Client operations that were answered, and that were not.
    pub operations: (u64, u64),
    /// How often each fault and rare path was met.
    pub marks: BTreeMap<&'static str, u64>,
    /// How often the product did each thing.
    pub figures: Figures,
}
