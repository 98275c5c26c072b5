//! A client of the HTTP API: what the command line uses, tests too, and programs that embed it.
//!
//! [`Client`] has one connection and one request under way. It knows several nodes, and asks the
//! next one when one is down. A program that wants more at the same time has several clients.
//!
//! | for | calls |
//! |---|---|
//! | one key | [`Client::put_key`], [`Client::get_key`], [`Client::delete_key`], [`Client::increment`] |
//! | a range | [`Client::list`] (page by page, one state), [`Client::count`], [`Client::delete_range`] |
//! | several keys at once | [`Client::txn`] |
//! | time | [`Client::grant_lease`], [`Client::keep_lease_alive`], [`Client::revoke_lease`], [`Client::lease`], [`Client::leases`] |
//! | changes | [`Client::watch`]: a [`Watch`] has a connection of its own |
//! | locks and elections | [`Client::campaign`], [`Client::campaign_and_stay`], [`Client::holder`], [`Client::proclaim`], [`Client::resign`] |
//! | the cluster | [`Client::status`], [`Client::settings`], [`Client::configure`], [`Client::compact`], [`Client::backup`] |
//! | members | [`Client::members`], [`Client::add_members`], [`Client::promote_member`], [`Client::remove_member`], [`Client::transfer_leadership`] |
//! | who may do what | [`Client::auth_status`], [`Client::enable_auth`], [`Client::add_user`], [`Client::add_role`], [`Client::add_token`] … |
//! | the original's API | [`Client::set`], [`Client::get`], [`Client::delete`], [`Client::join`] |
//!
//! # What happens to a write
//!
//! A write returns `Ok`: it is applied, on the disks of a majority. It returns an error:
//! [`CallError::outcome`] says whether the write has not happened and will not
//! ([`WriteOutcome::NotApplied`]), or whether nobody knows ([`WriteOutcome::Unknown`]).
//!
//! A write of `/v1` has an idempotency key: a random one of 128 bits, or the caller's. The cluster
//! gives the same answer to each repetition under one key, for as long as it remembers that answer:
//! minutes or hours, but only seconds under tens of thousands of writes a second. A repetition
//! says, too, which revision of the store this client had seen before the first attempt. With that
//! the cluster knows whether the answer to the first attempt may be forgotten, and does nothing
//! then. So such a write is asked again, of the next node, although its outcome is unknown, and is
//! not done twice. The writes of the original's API have no key.
//!
//! A client knows the newest revision that an answer has told ([`Client::seen`]). One that has seen
//! none asks a node for it before the first write that it may have to repeat. If no node tells one,
//! a write of unknown outcome is not repeated.
//!
//! | what the client saw | outcome | asks the next node |
//! |---|---|---|
//! | no connection, or one that had ended before the request was sent | not applied | yes |
//! | any other 4xx | not applied: the request itself is wrong, or a condition does not hold | no |
//! | 5xx that says that it is not applied | not applied | yes |
//! | 4xx that says that it is unknown (`answer-forgotten`) | unknown | no |
//! | any other 5xx | unknown | with an idempotency key |
//! | no answer in time, or a connection that broke | unknown | with an idempotency key |
//! | an answer that no node gives | unknown | with an idempotency key |
//!
//! Once an attempt has ended unknown, the outcome stays unknown unless the repetition succeeds.
//! That another node did not take the repetition says nothing of what became of the first attempt.
//! Nor is a refusal by the cluster taken for more than it says: the first attempt may still be
//! under way.
//!
//! So a write is repeated only if that cannot do it twice. A read changes nothing, and is repeated
//! after every failure that is not its own. [`CallError::kind`] sorts errors for programs.
//!
//! # A watch
//!
//! A [`Watch`] that loses its node asks the next one for what follows the last revision that it was
//! told of. So no change is missed or told twice, whichever nodes come and go. It ends neither with
//! its node nor with what is compacted: it says [`WatchMessage::Compacted`], since then something
//! was missed.
//!
//! # What is not trusted
//!
//! Whatever listens at an address may answer anything. An answer's head has at most 64 KiB, its
//! body at most [`ClientOptions::answer_bytes_max`], a message of a watch at most
//! [`ClientOptions::watch_message_bytes_max`], and all have to come in time. An answer says how
//! long it is, or comes in chunks: one that ends with its connection is refused, since a cut one
//! looks the same. 200 alone is no success: the body has to be a node's.
//!
//! Not here: pauses between attempts, and attempts without end. Callers know how long they want to
//! wait.

mod alarms;
mod attempts;
mod auth;
mod backup;
mod calls;
mod connection;
mod contests;
mod credentials;
mod endpoint;
mod error;
mod events;
mod json;
mod keys;
mod leases;
mod members;
mod ranges;
mod request;
mod target;
mod txns;
mod watch;

pub use alarms::{AlarmReport, AlarmsReport};
pub use attempts::{Client, ClientOptions};
pub use auth::{GrantSpec, TokenGrant, TokenOwner};
pub use backup::BackupDownload;
pub use calls::{LeaderReport, LevelsReport, LogIdReport, MemberReport, NodeReport, Readiness};
pub(crate) use contests::is_candidate;
pub use contests::{ContestKind, Holder, Won};
pub use credentials::Credentials;
pub use endpoint::Endpoint;
pub use error::{CallError, CallFailure, ErrorKind, RefusedCall, WriteOutcome};
pub use json::{put_bytes, read_bytes};
pub use keys::{Condition, Deleted, Incremented, LeaseChoice, PutDone, ReadOptions, WriteOptions};
pub use leases::{Granted, LeaseInfo, LeaseTime, ListedLease};
pub use members::{MemberHealth, MemberStanding, MembersReport, NodeToAdd, OrderOptions, OrderReport};
pub use ranges::{KeyPage, ListQuery, Pages};
pub use txns::{StepDone, TxnDone};
pub use watch::{Watch, WatchMessage, WatchQuery};

#[cfg(test)]
mod tests;
