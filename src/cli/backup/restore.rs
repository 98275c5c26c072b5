//! `backup restore`: a data directory, made of a backup.

use crate::cli::backup::file::{progress, read};
use crate::cli::client_args::RestoreArgs;
use crate::cli::exit::{ExitStatus, Failure};
use crate::codec::{HostPort, check_name};
use crate::raft::{ClusterId, Member, StoreId};
use crate::runtime::{Env as _, TokioEnv};
use crate::storage::{RealDisk, RestoredState, StorageOptions, restore as make};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use std::io::{self, Write as _};

/// Where a node is that is started without a word about it.
const USUAL_RAFT_ADDRS: &[&str] = &["localhost:8000"];
const USUAL_HTTP_ADDRS: &[&str] = &["localhost:8001", ":8001"];

/// Makes a data directory of a backup: a new cluster of one node, which others may join.
pub(super) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let usage = |text: String| Failure::new(ExitStatus::Usage, text);
    check_name(&args.node_id).map_err(|rule| usage(format!("--node-id {:?}: {rule}", args.node_id)))?;
    let known = |flag: &str, addr: &str| {
        let wrong = || usage(format!("{flag} {addr}: expected HOST:PORT, or :PORT for every interface"));
        address_on_record(addr).ok_or_else(wrong)
    };
    let (raft_addr, http_addr) =
        (known("--raft-addr", &args.raft_addr)?, known("--http-addr", &args.http_addr)?);
    let whole = read(&args.file, "reading")?;
    let bar = progress(None, "writing");
    let member = Member { name: args.node_id.clone(), raft_addr, http_addr, store_id: StoreId(random()) };
    let cluster = ClusterId(random());
    let state = RestoredState {
        cluster,
        predecessor: Some(whole.header.cluster),
        member,
        last: whole.header.last,
        store: whole.store,
    };
    let options =
        StorageOptions { seed: TokioEnv::new(RealDisk).seed(), ..StorageOptions::new(args.data_dir.clone()) };
    let identity = make(&RealDisk, &options, state)
        .map_err(|error| Failure::new(ExitStatus::Data, error.to_string()))?;
    bar.finish_and_clear();
    let (header, dir) = (&whole.header, args.data_dir.display());
    let text = format!(
        "restored {} keys as of revision {} into {dir}: a new cluster, {}, of one node, {}\n\
         start it with: {}",
        header.keys,
        header.revision,
        identity.cluster,
        identity.name,
        start_command(args)
    );
    writeln!(io::stdout(), "{text}")
        .map_err(|error| Failure::new(ExitStatus::Failure, format!("cannot print: {error}")))
}

/// Where others find the node until it starts, and says itself where it is: on this machine, if it
/// is to listen on every interface. `None`: it is no address.
fn address_on_record(addr: &str) -> Option<String> {
    let parsed = HostPort::parse(addr).ok()?;
    let known =
        if parsed.is_every_interface() { format!("localhost:{}", parsed.port) } else { addr.to_owned() };
    HostPort::parse_remote(&known).is_ok().then_some(known)
}

/// What starts the node where it was said to be.
fn start_command(args: &RestoreArgs) -> String {
    let RestoreArgs { node_id, raft_addr, http_addr, data_dir, .. } = args;
    let mut command = format!("infinitystore --node-id {node_id} --data-dir {}", data_dir.display());
    for (flag, addr, usual) in
        [("--raft-addr", raft_addr, USUAL_RAFT_ADDRS), ("--http-addr", http_addr, USUAL_HTTP_ADDRS)]
    {
        if !usual.contains(&addr.as_str()) {
            command.push_str(&format!(" {flag} {addr}"));
        }
    }
    command
}

fn random() -> u128 {
    let mut bits = [0; 16];
    OsRng.try_fill_bytes(&mut bits).expect("the operating system's random generator always answers");
    u128::from_be_bytes(bits)
}

#[cfg(test)]
mod tests;
