//! Directories and ports of the nodes, kept in a file so that the cluster comes back as it was.

use crate::cli::args::DevArgs;
use crate::cli::ask::print::{note, tell};
use crate::cli::exit::{ExitStatus, Failure};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Between the ports of one node and the next, as in the original's example.
const PORT_STEP: u16 = 10;
/// The file that keeps the ports.
const FILE: &str = "cluster.json";

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodePlace {
    pub name: String,
    pub ports: Ports,
    pub data: PathBuf,
    pub log: PathBuf,
    /// This run made it.
    created: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ports {
    pub http: u16,
    pub raft: u16,
}

/// The whole cluster.
#[derive(Debug)]
pub(super) struct Layout {
    pub dir: PathBuf,
    pub places: Vec<NodePlace>,
    /// What the user should know: ports that were taken, nodes that were there.
    pub notes: Vec<String>,
}

impl NodePlace {
    pub(super) fn http_addr(&self) -> String {
        format!("localhost:{}", self.ports.http)
    }

    pub(super) fn raft_addr(&self) -> String {
        format!("localhost:{}", self.ports.raft)
    }
}

impl Layout {
    /// Decides on names, directories and free ports, and notes them in the directory.
    pub(super) fn prepare(args: &DevArgs) -> Result<Self, Failure> {
        let dir = args.dir.clone();
        let unusable = |error: io::Error| {
            let text = format!("{}: {error}; choose another --dir, or make it writable", dir.display());
            Failure::new(ExitStatus::Data, text)
        };
        fs::create_dir_all(&dir).map_err(unusable)?;
        let known = known_ports(&dir.join(FILE));
        let mut notes = Vec::new();
        let mut ports = Ports { http: args.base_port, raft: args.base_port - 1 };
        let mut places: Vec<NodePlace> = Vec::new();
        let count = usize::from(args.nodes).max(known.len());
        if count > usize::from(args.nodes) {
            notes.push(format!("{} has a cluster of {count} nodes: all of them are started", dir.display()));
        }
        for i in 0..count {
            let taken = |ports: Ports| places.iter().any(|place| place.ports.http == ports.http);
            let name = format!("node-{}", i + 1);
            let wanted = match known.get(i) {
                // The others know this node by its address: it keeps it.
                Some(known) => known_free(*known, &name, &dir)?,
                None => ports,
            };
            let chosen = free_from(wanted, taken).ok_or_else(|| {
                let text = format!("no free ports from {} on; choose another --base-port", wanted.http);
                Failure::new(ExitStatus::Address, text)
            })?;
            if chosen != wanted {
                let (taken, instead) = (wanted.http, chosen.http);
                notes.push(format!(
                    "port {taken} (or {}) is in use: {name} takes {instead} instead",
                    wanted.raft
                ));
            }
            let data = dir.join(&name);
            let log = dir.join(format!("{name}.log"));
            let created = !data.exists();
            ports = next(chosen).unwrap_or(chosen);
            places.push(NodePlace { name, ports: chosen, data, log, created });
        }
        let chosen: Vec<Ports> = places.iter().map(|place| place.ports).collect();
        let text = serde_json::to_vec_pretty(&chosen).expect("ports are plain numbers");
        fs::write(dir.join(FILE), text).map_err(unusable)?;
        Ok(Self { dir: fs::canonicalize(&dir).unwrap_or(dir), places, notes })
    }

    /// Removes what this run created.
    pub(super) fn remove_created(&self) {
        for place in self.places.iter().filter(|place| place.created) {
            report_failed_removal(&place.data, fs::remove_dir_all(&place.data));
            report_failed_removal(&place.log, fs::remove_file(&place.log));
        }
        if self.places.iter().any(|place| !place.created) {
            tell(format_args!("the data of earlier runs stays in {}", self.dir.display()));
            return;
        }
        report_failed_removal(&self.dir, fs::remove_file(self.dir.join(FILE)));
        // Only if nothing else is in it.
        let _ = fs::remove_dir(&self.dir);
        tell(format_args!("removed the data in {}", self.dir.display()));
    }
}

fn report_failed_removal(path: &Path, result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != io::ErrorKind::NotFound
    {
        note(format_args!("cannot remove {}: {error}", path.display()));
    }
}

/// The ports of a cluster that was here before; a file that cannot be read is as good as none.
fn known_ports(file: &Path) -> Vec<Ports> {
    fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// The ports of a node that was here before, if they are free.
fn known_free(ports: Ports, name: &str, dir: &Path) -> Result<Ports, Failure> {
    let Some(taken) = [ports.http, ports.raft].into_iter().find(|port| !free(*port)) else {
        return Ok(ports);
    };
    let text = format!(
        "port {taken} of {name} in {} is in use: that cluster runs already, or something else has its port; \
         stop it, or choose another --dir for another cluster",
        dir.display()
    );
    Err(Failure::new(ExitStatus::Address, text))
}

/// The first free pair at `wanted` or above it.
fn free_from(wanted: Ports, taken: impl Fn(Ports) -> bool) -> Option<Ports> {
    let mut ports = wanted;
    while taken(ports) || !free(ports.http) || !free(ports.raft) {
        ports = next(ports)?;
    }
    Some(ports)
}

pub(super) fn next(ports: Ports) -> Option<Ports> {
    Some(Ports { http: ports.http.checked_add(PORT_STEP)?, raft: ports.raft.checked_add(PORT_STEP)? })
}

fn free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
