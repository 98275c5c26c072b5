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

/// Makes a data directory of a backup: a new cluster of one node, which others may join.
pub(super) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let usage = |text: String| Failure::new(ExitStatus::Usage, text);
    check_name(&args.node_id).map_err(|rule| usage(format!("--node-id {:?}: {rule}", args.node_id)))?;
    for (flag, addr) in [("--raft-addr", &args.raft_addr), ("--http-addr", &args.http_addr)] {
        if HostPort::parse_remote(addr).is_err() {
            return Err(usage(format!("{flag} {addr}: expected HOST:PORT")));
        }
    }
    let whole = read(&args.file, "reading")?;
    let bar = progress(None, "writing");
    let member = Member {
        name: args.node_id.clone(),
        raft_addr: args.raft_addr.clone(),
        http_addr: args.http_addr.clone(),
        store_id: StoreId(random()),
    };
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
         start it with: infinitystore --node-id {} --data-dir {dir}",
        header.keys, header.revision, identity.cluster, identity.name, identity.name
    );
    writeln!(io::stdout(), "{text}")
        .map_err(|error| Failure::new(ExitStatus::Failure, format!("cannot print: {error}")))
}

fn random() -> u128 {
    let mut bits = [0; 16];
    OsRng.try_fill_bytes(&mut bits).expect("the operating system's random generator always answers");
    u128::from_be_bytes(bits)
}
