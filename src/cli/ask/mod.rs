//! The commands that ask a cluster: thin faces of `client`.

mod alarm;
mod auth;
mod export;
mod hold;
mod import;
mod input;
mod json;
mod keeper;
mod kv;
mod lease;
mod member;
pub(super) mod print;
mod run_command;
mod secrets;
mod settings;
mod status;
mod watch;

pub(super) use alarm::alarm;
pub(super) use auth::{auth, role, token, user};
pub(super) use export::export;
pub(super) use hold::{elect, lock};
pub(super) use import::import;
pub(super) use input::{client, level};
pub(super) use kv::kv;
pub(super) use lease::lease;
pub(super) use member::{leader, member};
pub(super) use settings::settings;
pub(super) use status::status;
