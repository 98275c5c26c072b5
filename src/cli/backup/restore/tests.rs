//! Where a restored node is, and how it is started.

use crate::cli::args::{Cli, Command};
use crate::cli::backup::restore::{address_on_record, start_command};
use crate::cli::client_args::{BackupCommand, RestoreArgs};
use clap::Parser;

fn restore(words: &[&str]) -> RestoreArgs {
    let command = ["infinitystore", "backup", "restore", "monday.backup"];
    let cli = Cli::try_parse_from(command.iter().chain(words)).unwrap();
    match cli.command {
        Some(Command::Backup(backup)) => match backup.command {
            BackupCommand::Restore(args) => args,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_that_starts_the_node_has_the_addresses_that_were_given() {
    let usual = "infinitystore --node-id node1 --data-dir data/node1";
    for (words, more) in [
        (&[][..], ""),
        (&["--http-addr", ":8001"], ""),
        (&["--http-addr", ":39101"], " --http-addr :39101"),
        (
            &["--raft-addr", "localhost:39100", "--http-addr", "localhost:39101"],
            " --raft-addr localhost:39100 --http-addr localhost:39101",
        ),
    ] {
        assert_eq!(start_command(&restore(words)), format!("{usual}{more}"));
    }
}

#[test]
fn an_address_to_listen_on_everywhere_is_one_of_this_machine() {
    for (given, known) in [
        (":39101", Some("localhost:39101")),
        ("0.0.0.0:39101", Some("localhost:39101")),
        ("[::]:39101", Some("localhost:39101")),
        ("host:39101", Some("host:39101")),
        ("host", None),
        (":0", None),
        ("http://host:1", None),
    ] {
        assert_eq!(address_on_record(given).as_deref(), known, "{given}");
    }
}
