//! The command line: what it takes, and how it puts things.

use crate::cli::args::{Cli, Command, LogFormat, WalCommand, with_double_dashes};
use crate::cli::ask::print::{readable, shortened};
use crate::cli::client_args::OutputFormat;
use crate::cli::descriptors::share;
use crate::cli::dev::commands::{NodeCommand, parse as parse_dev_command};
use crate::cli::exit::ExitStatus;
use crate::cli::logging::filter;
use crate::cli::node::{node_options, reachable};
use crate::cli::units::{bytes, date, duration, micros};
use clap::{CommandFactory, Parser};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

fn parse(args: &[&str]) -> Cli {
    let args = std::iter::once("infinitystore").chain(args.iter().copied()).map(OsString::from);
    Cli::try_parse_from(with_double_dashes(args)).expect("good arguments")
}

#[test]
fn the_arguments_are_declared_consistently() {
    Cli::command().debug_assert();
}

/// What asks a cluster, and what prints texts.
const CLIENTS: [&str; 18] = [
    "alarm",
    "kv",
    "lease",
    "lock",
    "elect",
    "member",
    "leader",
    "settings",
    "status",
    "backup",
    "export",
    "import",
    "completions",
    "man",
    "auth",
    "user",
    "role",
    "token",
];

/// What the environment may say of those: which cluster, as whom, and how results are printed.
const IN_ENVIRONMENT: [&str; 9] = [
    "endpoints",
    "timeout",
    "output",
    "cacert",
    "client_cert",
    "client_key",
    "token",
    "user",
    "password_file",
];

/// What looks at files that it is given, once.
const ON_FILES: [&str; 3] = ["recover", "snapshot", "tls"];

/// A command and all below it.
fn with_subcommands(command: &clap::Command) -> Vec<clap::Command> {
    let below = command.get_subcommands().filter(|command| command.get_name() != "help");
    std::iter::once(command.clone()).chain(below.flat_map(with_subcommands)).collect()
}

/// The arguments of a command and of all below it, with whether it is one of [`CLIENTS`].
fn all_arguments() -> Vec<(bool, clap::Arg)> {
    let root = Cli::command();
    let of = |command: &clap::Command, is_client| {
        let arguments =
            command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()));
        arguments.map(|arg| (is_client, arg.clone())).collect::<Vec<_>>()
    };
    let below = root.get_subcommands().flat_map(|top| {
        let is_client = CLIENTS.contains(&top.get_name()) || ON_FILES.contains(&top.get_name());
        with_subcommands(top).into_iter().flat_map(move |command| of(&command, is_client))
    });
    of(&root, false).into_iter().chain(below).collect()
}

#[test]
fn every_option_has_help_a_default_and_an_environment_variable() {
    for (is_client, option) in all_arguments() {
        let name = option.get_id().as_str();
        let help = option.get_help().unwrap_or_else(|| panic!("{name} has no help")).to_string();
        let is_flag = !option.get_action().takes_values();
        let is_given = is_client && option.is_positional();
        assert!(
            is_flag || is_given || !option.get_default_values().is_empty() || help.contains("[default"),
            "{name} has no default"
        );
        // What one call does must not depend on what the environment happens to hold.
        let is_consent = ["accept_loss", "yes"].contains(&name);
        let may_have_variable = !is_consent && (!is_client || IN_ENVIRONMENT.contains(&name));
        let variable = option.get_env().map(|variable| variable.to_string_lossy().into_owned());
        assert_eq!(variable.is_some(), may_have_variable, "{name}: {variable:?}");
        assert!(variable.is_none_or(|variable| variable.starts_with("INFINITYSTORE_")), "{name}");
    }
}

#[test]
fn every_command_that_asks_a_cluster_tells_its_exit_codes_with_examples() {
    let root = Cli::command();
    let asking = root.get_subcommands().filter(|top| CLIENTS[..9].contains(&top.get_name()));
    let commands: Vec<clap::Command> = asking.flat_map(with_subcommands).collect();
    assert!(commands.len() >= 20, "{}", commands.len());
    for command in commands {
        let name = command.get_name();
        let text =
            |text: Option<&clap::builder::StyledStr>| text.map(ToString::to_string).unwrap_or_default();
        assert!(text(command.get_after_help()).contains("Exit codes"), "{name}");
        if command.get_subcommands().next().is_none() {
            let long = text(command.get_after_long_help());
            assert!(long.contains("Examples:\n  ") && long.contains("Exit codes"), "{name}");
        }
    }
}

/// The examples in the help texts are what they say: command lines that are taken.
#[test]
fn every_example_is_a_good_command_line() {
    let mut seen = 0;
    for command in with_subcommands(&Cli::command()) {
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        let examples = help.split("\n\n").next().unwrap_or_default().lines().skip(1);
        for line in examples.flat_map(|line| line.split("infinitystore ").skip(1)) {
            // What follows is the shell's.
            let ends = [" | ", " > ", "  "];
            let end = ends.iter().filter_map(|end| line.find(end)).min().unwrap_or(line.len());
            let line = &line[..end];
            // A word in quotes is one argument.
            let mut words = Vec::new();
            for (place, part) in line.split('\'').enumerate() {
                if place % 2 == 0 {
                    words.extend(part.split_whitespace());
                } else {
                    words.push(part);
                }
            }
            parse(&words);
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
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
    assert!(matches!(dump, Some(Command::Wal(WalCommand::Dump { dir, .. })) if dir == Path::new("data/n2")));
    let repair = parse(&["wal", "repair", "data/n2", "--accept-loss", "--yes"]).command;
    assert!(matches!(
        repair,
        Some(Command::Wal(WalCommand::Repair { dir, accept_loss: true, yes: true })) if dir == Path::new("data/n2")
    ));
    assert_eq!(parse(&["--log-format", "json"]).node.log.log_format, LogFormat::Json);
}

#[test]
fn what_goes_with_nothing_else_is_refused() {
    for (args, mentions) in [
        (&["kv", "put", "k", "v", "--ttl=5s", "--lease=7"][..], "--lease"),
        (&["kv", "put", "k", "v", "--if-missing", "--if-exists"], "--if-exists"),
        (&["kv", "put", "k", "v", "--ttl=0s"], "--ttl"),
        (&["kv", "del", "k", "--prefix=a"], "--prefix"),
        (&["kv", "del", "--prefix=a", "--if-revision=7"], "--if-revision"),
        (&["kv", "ls", "a", "--start=b"], "--start"),
        (&["kv", "ls", "--prefix=a", "--start=b"], "--start"),
        (&["kv", "watch", "k", "--prefix=a"], "--prefix"),
        (&["kv", "watch", "--puts-only", "--deletes-only"], "--deletes-only"),
        (&["lock", "name", "command"], "command"),
        (&["lease", "grant", "5"], "TTL"),
        (&["kv", "get", "k", "-o", "xml"], "xml"),
    ] {
        let text = refused(args);
        assert!(text.contains(mentions), "{args:?}: {text}");
    }
}

#[test]
fn whom_to_ask_is_said_before_or_behind_the_subcommand() {
    for args in [
        &["kv", "--endpoints=a:1,b:2", "get", "k", "-o", "json"][..],
        &["kv", "get", "k", "--endpoints", "a:1,b:2", "--output=json"],
    ] {
        let Some(Command::Kv(kv)) = parse(args).command else { panic!("{args:?} is kv") };
        assert_eq!(kv.connect.endpoints.len(), 2, "{args:?}");
        assert_eq!(kv.output.output, Some(OutputFormat::Json), "{args:?}");
    }
    let Some(Command::Lock(lock)) = parse(&["lock", "l", "--endpoints=a:1", "--", "--x", "-o"]).command
    else {
        panic!("lock")
    };
    assert_eq!(lock.command, ["--x", "-o"]);
}

#[test]
fn bytes_are_readable_on_a_line() {
    for (bytes, text) in [
        (&b"plain text"[..], "plain text"),
        ("ü€😀".as_bytes(), "ü€😀"),
        (b"a\nb\tc\\d", "a\\nb\\tc\\\\d"),
        (b"\0\x1b[31m\x7f", "\\x00\\x1b[31m\\x7f"),
        (b"\xff\xc3", "\\xff\\xc3"),
        ("\u{85}".as_bytes(), "\\u{85}"),
    ] {
        assert_eq!(readable(bytes), text);
    }
    assert_eq!(shortened(&b"x".repeat(60)), "x".repeat(60));
    assert_eq!(shortened(&b"x".repeat(61)), "x".repeat(59) + "…");
    assert_eq!(shortened("ü".repeat(1000).as_bytes()).chars().count(), 60);
}

#[test]
fn nodes_and_clients_have_their_own_meaning_of_a_number() {
    for (status, code) in [
        (ExitStatus::NotFound, 3),
        (ExitStatus::Data, 3),
        (ExitStatus::ConditionFailed, 4),
        (ExitStatus::Unavailable, 5),
        (ExitStatus::OutcomeUnknown, 6),
        (ExitStatus::Command(77), 77),
    ] {
        assert_eq!(status.code(), code);
    }
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
    let args = ["--heartbeat-interval=1s", "--election-timeout=1s"];
    let failure = node_options(&parse(&args).node).expect_err("bad options");
    let told = "--election-timeout 1s: it must be at least 3 times the --heartbeat-interval, which is 1s";
    assert_eq!(failure.to_string(), told);
    for flag in ["--segment-bytes=x", "--request-timeout=5", "--nonsense=1", "--join=", "--join=a:1,,b:1"] {
        refused(&[flag]);
    }
}

#[test]
fn whose_rights_a_token_has_is_a_user_s_or_roles() {
    let text = refused(&["token", "create", "ci"]);
    assert!(text.contains("--for-user <USER>|--role <ROLE>"), "{text}");
    refused(&["token", "create", "ci", "--for-user", "ann", "--role", "app"]);
    parse(&["token", "create", "ci", "--role", "app", "--role", "other"]);
    parse(&["token", "create", "ci", "--for-user", "ann"]);
}

/// What clap says of arguments that it must refuse.
fn refused(args: &[&str]) -> String {
    let args = std::iter::once("infinitystore").chain(args.iter().copied());
    let error = Cli::try_parse_from(args.clone()).expect_err("bad arguments");
    assert_eq!(error.exit_code(), i32::from(ExitStatus::Usage.code()), "{args:?}");
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
        ("info,infinitystore::node=debug", "infinitystore::node=debug,info"),
        // The other modules keep the default.
        ("infinitystore::raft=trace", "infinitystore::raft=trace,info"),
    ] {
        assert_eq!(filter(text).expect("a good filter").to_string(), means);
    }
    for bad in ["bogus", "", "info,", "infinitystore::node", "infinitystore=loud", "5", "info;debug"] {
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
    for (text, expected_millis) in [
        ("600ms", Some(600)),
        ("5s", Some(5_000)),
        ("2m", Some(120_000)),
        ("1h", Some(3_600_000)),
        ("0s", Some(0)),
        ("5", None),
        ("m", None),
        ("", None),
        ("7d", Some(604_800_000)),
        ("1w", None),
        ("99999999999999999999h", None),
    ] {
        assert_eq!(duration(text).ok(), expected_millis.map(Duration::from_millis), "{text}");
    }
}

#[test]
fn a_point_in_time_is_a_date() {
    for (seconds, shown) in [
        (0, "1970-01-01 00:00 UTC"),
        (1_709_251_199, "2024-02-29 23:59 UTC"),
        (u64::MAX, "18446744073709551615"),
    ] {
        assert_eq!(date(seconds), shown);
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
