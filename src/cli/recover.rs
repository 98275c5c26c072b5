//! `recover`: a cluster that has lost its majority for good goes on as a cluster of one.

use crate::cli::args::RecoverArgs;
use crate::cli::exit::{ExitStatus, Failure};
use crate::raft::{ClusterId, StoreId};
use crate::runtime::{Env as _, TokioEnv};
use crate::storage::{OpenError, RealDisk, Remains, StorageOptions};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use std::fs::File;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a person types to go on.
const CONSENT: &str = "recover";
/// Says what was done, in the data directory.
const TRACE: &str = "recovered.txt";

/// Says what a member has and what may be lost; makes a cluster of it if that is asked for.
pub(super) fn recover(args: &RecoverArgs) -> Result<(), Failure> {
    let unusable = |error: OpenError| Failure::new(ExitStatus::Data, error.to_string());
    let options =
        StorageOptions { seed: TokioEnv::new(RealDisk).seed(), ..StorageOptions::new(args.dir.clone()) };
    let remains = Remains::of(RealDisk, options).map_err(unusable)?;
    let told = describe(&remains);
    say(&told);
    let is_member = remains.member_names().contains(&remains.identity().name.as_str());
    if !is_member && remains.member_names().len() < 2 {
        return Err(Failure::new(ExitStatus::Usage, removed_from(&remains.member_names())));
    }
    // A cluster of one is allowed if it cannot start, or if a recovery of it did not end.
    if remains.member_names().len() < 2 && remains.warnings().is_empty() {
        let text = "this is a cluster of one: it has all that it ever had, and nothing is to be recovered";
        return Err(Failure::new(ExitStatus::Usage, text));
    }
    if !args.accept_loss {
        say("nothing was changed; to go on, say --accept-loss");
        return Ok(());
    }
    if !args.yes && !consents()? {
        return Err(Failure::new(ExitStatus::Failure, "nothing was changed"));
    }
    let cluster = ClusterId(random());
    trace(&args.dir, &format!("{told}it goes on as cluster {cluster}, of this member alone\n"))?;
    let identity = remains.recover(cluster, StoreId(random())).map_err(unusable)?;
    say(&format!(
        "recovered: a new cluster, {}, of one node, {}. Start it as before, and join others to it with \
         empty data directories; the old members must never run again",
        identity.cluster, identity.name
    ));
    Ok(())
}

fn describe(remains: &Remains<RealDisk>) -> String {
    let (last, commit) = (remains.last(), remains.commit());
    let mut text = format!(
        "node {}, of cluster {} with {}\n\
         its log ends at entry {last}; entries up to {commit} are known to be committed\n\
         MAY BE LOST: every acknowledged write that did not reach this member. The member whose log \
         ends last lacks the least: compare it on all that are left, the term first\n",
        remains.identity().name,
        remains.identity().cluster,
        remains.member_names().join(", "),
    );
    if !remains.member_names().contains(&remains.identity().name.as_str()) {
        text.push_str("THIS NODE WAS REMOVED from that cluster: it lacks all that was written since\n");
    }
    for warning in remains.warnings() {
        text.push_str(&format!("NO NODE USES IT AS IT IS: {warning}\n"));
    }
    if last.index > commit {
        text.push_str(&format!(
            "KEPT, although nobody knows whether they were committed: entries {} to {}\n",
            commit.next(),
            last.index
        ));
    }
    text
}

/// Of a node that is not among the members of its cluster.
fn removed_from(members: &[&str]) -> String {
    let members = members.join(", ");
    format!(
        "this node was removed from its cluster, which goes on with {members}: nothing is to be recovered \
         here. If {members} is lost as well, restore a backup; otherwise wipe this data directory before \
         the node joins again"
    )
}

fn consents() -> Result<bool, Failure> {
    say(&format!("type \"{CONSENT}\" to go on:"));
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(ExitStatus::Failure, format!("cannot read the answer: {error}")))?;
    Ok(answer.trim() == CONSENT)
}

/// Before anything is done.
fn trace(dir: &Path, text: &str) -> Result<(), Failure> {
    let path = dir.join(TRACE);
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let written = File::options().create(true).append(true).open(&path).and_then(|mut file| {
        write!(file, "{seconds} seconds after 1970: a majority was given up\n{text}")?;
        file.sync_all()
    });
    written.map_err(|error| {
        Failure::new(
            ExitStatus::Failure,
            format!("cannot write {}: {error}; nothing was changed", path.display()),
        )
    })
}

/// To its user. It is no failure if nobody listens.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{}", text.trim_end());
}

fn random() -> u128 {
    let mut bits = [0; 16];
    OsRng.try_fill_bytes(&mut bits).expect("the operating system's random generator always answers");
    u128::from_be_bytes(bits)
}
