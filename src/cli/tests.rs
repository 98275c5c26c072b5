//! The command line: what it takes, and how it puts things.

use crate::cli::args::{Cli, Command, LogFormat, WalCommand, with_double_dashes};
use crate::cli::descriptors::share;
use crate::cli::dev::commands::{NodeCommand, parse as parse_dev_command};
use crate::cli::exit::ExitStatus;
use crate::cli::logging::filter;
use crate::cli::node::{node_options, reachable};
use crate::cli::units::{bytes, micros};
use clap::{CommandFactory, Parser};
use std::ffi::OsString;
use std::path::Path;

fn parse(args: &[&str]) -> Cli {
    let args = std::iter::once("infinitystore").chain(args.iter().copied()).map(OsString::from);
    Cli::try_parse_from(with_double_dashes(args)).expect("good arguments")
}

#[test]
fn the_arguments_are_declared_consistently() {
    Cli::command().debug_assert();
}

#[test]
fn every_option_has_help_a_default_and_an_environment_variable() {
    let mut commands = vec![Cli::command()];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().filter(|command| command.get_name() != "help").cloned());
        for option in command.get_arguments() {
            let name = option.get_id().as_str();
            if ["help", "version"].contains(&name) {
                continue;
            }
            let help = option.get_help().unwrap_or_else(|| panic!("{name} has no help")).to_string();
            let flag = !option.get_action().takes_values();
            assert!(
                flag || !option.get_default_values().is_empty() || help.contains("[default"),
                "{name} has no default"
            );
            let env = option.get_env().unwrap_or_else(|| panic!("{name} has no environment variable"));
            assert!(env.to_string_lossy().starts_with("INFINITYSTORE_"), "{name}");
        }
    }
}

#[test]
fn the_bare_flags_of_the_original_run_a_node() {
    for args in [
        ["--node-id=n2", "--raft-addr=localhost:8010", "--http-addr=:8011"].as_slice(),
        &["--node-id", "n2", "--raft-addr", "localhost:8010", "--http-addr", ":8011"],
        &["-node-id=n2", "-raft-addr=localhost:8010", "-http-addr=:8011"],
        &["-node-id", "n2", "-raft-addr", "localhost:8010", "-http-addr", ":8011"],
    ] {
        let cli = parse(args);
        assert!(cli.command.is_none());
        let options = node_options(&cli.node).expect("good options");
        assert_eq!(options.name, "n2");
        assert_eq!(options.raft_addr, "localhost:8010");
        assert_eq!(options.http_addr, ":8011");
        assert_eq!(options.data_dir, Path::new("data/n2"));
    }
}

#[test]
fn without_flags_the_defaults_are_the_original_s() {
    let options = node_options(&parse(&[]).node).expect("good options");
    assert_eq!((options.name.as_str(), options.raft_addr.as_str()), ("node1", "localhost:8000"));
    assert_eq!((options.http_addr.as_str(), options.data_dir.as_path()), (":8001", Path::new("data/node1")));
}

#[test]
fn subcommands_are_told_from_a_node() {
    assert!(matches!(parse(&["dev", "--nodes", "5"]).command, Some(Command::Dev(dev)) if dev.nodes == 5));
    assert!(
        matches!(parse(&["bench", "--read-share=90"]).command, Some(Command::Bench(b)) if b.read_share == 90)
    );
    let dump = parse(&["wal", "dump", "data/n2"]).command;
    assert!(matches!(dump, Some(Command::Wal(WalCommand::Dump { dir })) if dir == Path::new("data/n2")));
    assert_eq!(parse(&["--log-format", "json"]).node.log.log_format, LogFormat::Json);
}

#[test]
fn values_that_make_no_sense_are_wrong_usage() {
    for args in [
        ["--node-id", ""],
        ["--node-id", "a/b"],
        ["--node-id", "a b"],
        ["--node-id", ".."],
        ["--raft-addr", "localhost"],
        ["--http-addr", "localhost:70000"],
        ["--election-timeout", "200ms"],
        ["--heartbeat-interval", "0ms"],
        ["--heartbeat-interval", "1us"],
    ] {
        let failure = node_options(&parse(&args).node).expect_err("bad options");
        assert_eq!(failure.status, ExitStatus::Usage, "{args:?}");
        assert!(failure.to_string().contains("--"), "{failure} names the flag");
    }
    for flag in ["--segment-bytes=x", "--request-timeout=5", "--nonsense=1", "--join=", "--join=a:1,,b:1"] {
        refused(&[flag]);
    }
}

/// What clap says of arguments that it must refuse.
fn refused(args: &[&str]) -> String {
    let args = std::iter::once("infinitystore").chain(args.iter().copied());
    let error = Cli::try_parse_from(args.clone()).expect_err("bad arguments");
    assert_eq!(error.exit_code(), i32::from(ExitStatus::Usage as u8), "{args:?}");
    error.to_string()
}

#[test]
fn what_cannot_be_zero_is_refused_under_its_name() {
    for args in [
        ["--request-timeout=0s"].as_slice(),
        &["--segment-bytes=0"],
        &["--snapshot-log-bytes=0KiB"],
        &["--snapshot-log-entries=0"],
        &["--http-connections=0"],
        &["--threads=0"],
        &["dev", "--nodes=0"],
        &["dev", "--base-port=0"],
        &["bench", "--clients=0"],
        &["bench", "--keys=0"],
        &["bench", "--seconds=0"],
        &["bench", "--timeout=0ms"],
        &["bench", "--threads=0"],
        &["bench", "--endpoints=localhost:0"],
    ] {
        let text = refused(args);
        let flag = args[args.len() - 1].split_once('=').expect("a flag with its value").0;
        assert!(text.contains(flag), "{text} names {flag}");
    }
    // Shorter than a network's answer, and a unit's mistake more often than not.
    let failure = node_options(&parse(&["--heartbeat-interval=999us"]).node).expect_err("too short");
    assert!(failure.to_string().contains("--heartbeat-interval 999us"), "{failure}");
    assert!(node_options(&parse(&["--heartbeat-interval=1ms"]).node).is_ok());
    for allowed in ["--stop-timeout=0s", "--log-tail-entries=0"] {
        assert!(node_options(&parse(&[allowed]).node).is_ok(), "{allowed}");
    }
}

#[test]
fn a_filter_of_the_log_is_levels_alone_or_for_a_module() {
    for (text, means) in [
        ("info", "info"),
        ("WARN", "warn"),
        ("off", "off"),
        ("info,infinitystore::server=debug", "infinitystore::server=debug,info"),
        // The other modules keep the default.
        ("infinitystore::raft=trace", "infinitystore::raft=trace,info"),
    ] {
        assert_eq!(filter(text).expect("a good filter").to_string(), means);
    }
    for bad in ["bogus", "", "info,", "infinitystore::server", "infinitystore=loud", "5", "info;debug"] {
        assert!(filter(bad).is_err_and(|error| error.contains("no level")), "{bad}");
    }
}

#[test]
fn sizes_and_times_have_units() {
    for (text, expected) in [
        ("0", Some(0)),
        ("123", Some(123)),
        ("64MiB", Some(64 << 20)),
        ("64M", Some(64 << 20)),
        ("1 GiB", Some(1 << 30)),
        ("2K", Some(2048)),
        ("7B", Some(7)),
        ("", None),
        ("MiB", None),
        ("-1", None),
        ("1.5K", None),
        ("1TiB", None),
        ("18446744073709551615K", None),
    ] {
        assert_eq!(bytes(text).ok(), expected, "{text}");
    }
    for (text, expected) in [
        ("600ms", Some(600_000)),
        ("5s", Some(5_000_000)),
        ("10us", Some(10)),
        ("10µs", Some(10)),
        ("5", None),
        ("s", None),
        ("", None),
        ("5m", None),
    ] {
        assert_eq!(micros(text).ok(), expected, "{text}");
    }
}

#[test]
fn an_address_that_means_every_interface_is_printed_as_one_to_paste() {
    for (bound, shown) in [
        ("0.0.0.0:8001", "localhost:8001"),
        ("[::]:8001", "localhost:8001"),
        (":8001", "localhost:8001"),
        ("127.0.0.1:8001", "127.0.0.1:8001"),
    ] {
        assert_eq!(reachable(bound), shown);
    }
}

#[test]
fn what_is_typed_to_a_cluster_names_a_node_by_name_or_number() {
    let names = ["node-1", "node-2"];
    for (line, expected) in [
        ("start 2", NodeCommand::Start(1)),
        ("  kill   node-1 ", NodeCommand::Kill(0)),
        ("stop 1", NodeCommand::Stop(0)),
    ] {
        assert_eq!(parse_dev_command(line, &names), Some(Ok(expected)));
    }
    assert_eq!(parse_dev_command("  ", &names), None);
    for bad in ["help", "kill", "kill 0", "kill 3", "kill node-9", "kill 1 2", "burn 1"] {
        assert!(
            matches!(parse_dev_command(bad, &names), Some(Err(text)) if text.contains("node") || text.contains("kill")),
            "{bad}"
        );
    }
}

#[test]
fn connections_never_take_the_descriptors_that_the_log_needs() {
    for limit in [0, 64, 128, 256, 1024, 4096, 65_536, 1 << 20] {
        let shares = share(Some(limit), 10_000);
        let all = (shares.http + shares.raft + shares.refused) as u64;
        assert!(shares.http >= 1 && shares.raft >= 16);
        assert!(limit < 128 || all + 64 <= limit, "{limit}: {shares:?}");
    }
    assert_eq!(share(Some(1 << 20), 10_000).http, 10_000);
    assert_eq!(share(None, 10_000).http, 10_000);
}
