//! Memberships: one of them, the step to the next, and why a member withdraws.

pub(super) mod change;
pub(super) mod members;
pub(super) mod withdrawal;
