//! Who may do what: users, roles and tokens, and what they say of a request.
//!
//! All of it is a part of the store: commands change it, snapshots have it, and the state hash
//! covers it. So a right is judged against the very state that a request reads or changes: a
//! command when it is applied (`kv/judge.rs`), a read when it is served. No request outruns a
//! change of rights.
//!
//! Who a client is, the nodes find out, before anything is proposed: passwords are hashed and
//! compared there, and a token's end is judged by the clock of the node that was asked. What they
//! found is a [`Principal`]. It names the revision of the rules that it was found by, so that
//! credentials that were changed since count no more.

mod change;
mod ranges;
mod rules;
mod wire;

pub(super) use change::BadChange;
pub(super) use change::SECURITY_BYTES_MAX;
pub use change::{SecurityChange, SecurityRefusal, TokenOwner};
pub(super) use rules::Rights;
pub use rules::{
    Access, AdminRight, AdminRights, Denial, Grant, Principal, ROOT_ROLE, Role, Security, Subject,
    TOKEN_HASH_BYTES, Token, TokenRights, User,
};
