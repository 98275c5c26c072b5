//! What a follower does: it appends what its leader sends, installs snapshots, or takes no part any
//! more.

pub(super) mod append;
pub(super) mod snapshots;
pub(super) mod withdraw;
