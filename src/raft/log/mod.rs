//! The log: its entries, the memberships among them, snapshots of what came before, and what
//! storage keeps of it.

pub(super) mod entry;
#[expect(clippy::module_inception, reason = "the folder is named after the one thing it is about")]
pub(super) mod log;
pub(super) mod memberships;
pub(super) mod records;
pub(super) mod restore;
pub(super) mod snapshot;
