//! Which variables are known.

use crate::cli::args::Cli;
use crate::cli::variables::unknown_variables;
use clap::CommandFactory as _;
use std::ffi::OsString;

#[test]
fn a_mistyped_variable_is_told_from_those_of_the_commands_and_of_kubernetes() {
    let names = [
        "INFINITYSTORE_NODEID",
        "INFINITYSTORE_NODE_ID",
        "INFINITYSTORE_ENDPOINTS",
        "INFINITYSTORE_BENCH_KEYS",
        "INFINITYSTORE_FENCE",
        "INFINITYSTORE_HTTP_ADDRESS",
        "INFINITYSTORE_SERVICE_HOST",
        "INFINITYSTORE_SERVICE_PORT_RAFT",
        "INFINITYSTORE_PEERS_PORT",
        "INFINITYSTORE_PORT_8001_TCP_ADDR",
        "INFINITYSTORE_PORTS",
        "PATH",
    ];
    let unknown = unknown_variables(&Cli::command(), names.iter().map(OsString::from));
    assert_eq!(unknown, ["INFINITYSTORE_HTTP_ADDRESS", "INFINITYSTORE_NODEID", "INFINITYSTORE_PORTS"]);
}
