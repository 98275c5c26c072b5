//! Repair of a damaged data directory: what is sound in it, what is missing, and a new log made of
//! the one and the other.
//!
//! Nothing here asks a peer: the floors above fetch what is missing. Nothing here changes the
//! damaged files either. What is mended is built in the other generation of directories, and takes
//! their place by one rename of the identity. So a crash leaves either the damaged directory or the
//! mended one.
//!
//! # Code map
//! - `walk` reads a damaged log, which falls into runs of batches; `run`: what one of them says,
//!   and what of that is not certain.
//! - `blocks` reads a file as far as it can be read.
//! - `sound`: what a node knows of its log, and what it lacks.
//! - `survey`: all of a directory, locked.
//! - `mend` writes a mended generation; `aside` sets a directory aside that cannot be mended.
//! - `notes`: where the other members are.

mod aside;
mod blocks;
mod mend;
pub(in crate::storage) mod notes;
pub(in crate::storage) mod run;
mod sound;
mod survey;
mod walk;

pub(crate) use aside::{all_aside, free_aside, settle_withdrawal, times_rebuilt};
pub(crate) use mend::settle_identity;
pub use mend::{LentSnapshots, RepairSnapshot};
pub(crate) use notes::{
    PREDECESSOR, check_started, forget_marks, forget_member, is_note, note_alarms, note_called, note_peers,
    note_predecessor, note_rebuild, note_started, note_withdrawn, read_alarms, read_called, read_peers,
    read_predecessor, read_promised, read_rebuild, read_started, read_withdrawn, remove_rejoin,
};
pub use notes::{Predecessor, Rejoin, read_rejoin};
pub use sound::{Missing, Sound, SupplyError};
pub(crate) use survey::look;
pub use survey::{Prognosis, Survey, judge};
