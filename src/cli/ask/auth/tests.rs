//! What a right is called on the command line, and how it is shown.

use crate::cli::args::{Cli, Command};
use crate::cli::ask::auth::{right, rights};
use crate::cli::auth_args::{RightArgs, RoleCommand};
use crate::kv::KeyRange;
use clap::Parser;
use serde_json::json;

fn granted(words: &[&str]) -> Result<RightArgs, String> {
    let grant = ["infinitystore", "role", "grant", "app"];
    match Cli::try_parse_from(grant.iter().chain(words)).map_err(|error| error.to_string())?.command {
        Some(Command::Role(role)) => match role.command {
            RoleCommand::Grant(wanted) => Ok(wanted),
            other => Err(format!("{other:?}")),
        },
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn a_right_to_a_lock_or_an_election_is_one_to_its_keys() {
    for (words, beginning) in [
        (["read-write", "--lock", "nightly"], &b"\0lock/nightly\0"[..]),
        (["write", "--election", "a/b"], b"\0election/a/b\0"),
    ] {
        let (grants, admin) = right(&granted(&words).unwrap()).unwrap();
        assert_eq!((grants.len(), admin.len()), (1, 0), "{words:?}");
        assert_eq!(grants[0].access, words[0]);
        assert_eq!(grants[0].range, KeyRange::prefix(beginning.to_vec()), "{words:?}");
    }
    for words in [["read", "--lock", ""], ["members", "--lock", "n"]] {
        assert!(right(&granted(&words).unwrap()).is_err(), "{words:?}");
    }
    granted(&["read", "--lock", "n", "--election", "n"]).expect_err("one at a time");
    granted(&["read", "--lock", "n", "--prefix", "n"]).expect_err("one at a time");
}

#[test]
fn rights_are_shown_readably() {
    let shown = |grant| rights(&json!({ "grants": [grant], "admin": [] })).join("");
    for (grant, text) in [
        (json!({ "access": "read", "prefix": "app/" }), "read app/*"),
        (json!({ "access": "read", "prefix": "" }), "read *"),
        (json!({ "access": "read-write", "prefix": "\0lock/nightly\0" }), "read-write lock nightly"),
        (json!({ "access": "write", "prefix": "\0election/a\nb\0" }), "write election a\\nb"),
        (json!({ "access": "write", "prefix": "\0lock/" }), "write \\x00lock/*"),
        (json!({ "access": "write", "prefix": "\0lock/\0" }), "write \\x00lock/\\x00*"),
        (json!({ "access": "read", "prefix64": "AP8=" }), "read \\x00\\xff*"),
        (json!({ "access": "read", "key": "a\0" }), "read a\\x00"),
        (json!({ "access": "read", "start": "\0", "end64": "/w==" }), "read \\x00..\\xff"),
    ] {
        assert_eq!(shown(grant), text);
    }
}
