//! Nodes that were told to stop.

use crate::madsim_engine::attendance::Due;
use crate::schedule::SECOND;
use infinitystore::raft::Term;

/// How long a node that stops may let requests go on, as the command line has it.
pub(super) const STOP_MICROS: u64 = 10 * SECOND;

/// A node that was told to stop.
#[derive(Clone, Debug)]
pub(super) struct Stopping {
    /// When it was told.
    pub since: u64,
    /// When it is started again.
    pub back_micros: u64,
    /// It led this term, and all was well.
    pub led: Option<(Term, Option<Due>)>,
}

/// A leader has stopped: others should lead.
#[derive(Clone, Debug)]
pub(super) struct HandedOver {
    pub slot: usize,
    pub term: Term,
    pub by: u64,
    /// If all is well: for as long as it is.
    pub epoch: Option<Due>,
}
