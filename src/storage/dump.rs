//! The log in words, for people. It reads what can be read, and says where the damage is. It
//! changes nothing and needs no lock.

use crate::kv::Op;
use crate::raft::{Entry, EntryKind, Membership, SnapshotMeta};
use crate::replica::decode_proposal;
use crate::storage::disk::Disk;
use crate::storage::error::{Damage, OpenError};
use crate::storage::identity::{DirectoryOwner, Identity, find};
use crate::storage::record::Record;
use crate::storage::recovery::{damaged, look_ahead, read_header, segment_names};
use crate::storage::scan::{Later, ScannedBatch, salvage, scan_segment};
use crate::storage::segment::read_whole;
use crate::storage::snapshot_file::SnapshotReader;
use crate::storage::snapshots::snapshot_id;
use std::fmt;
use std::path::{Path, PathBuf};

/// One line of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DumpItem {
    /// Whose directory it is.
    Identity(Identity),
    /// A segment begins.
    Segment {
        /// The file.
        file: PathBuf,
        /// Its length, bytes.
        bytes: u64,
        /// Sequence of its first batch.
        first_sequence: u64,
        /// The start of the node that made it.
        incarnation: u64,
        /// The log's last index before it.
        last_index: u64,
    },
    /// A batch begins: what one sync made durable.
    Batch {
        /// Where it stands in its file.
        offset: u64,
        /// Its sequence.
        sequence: u64,
        /// Bytes of its records.
        bytes: u32,
        /// It stands behind damage, so recovery does not reach it.
        behind_damage: bool,
    },
    /// A record, in words.
    Record(String),
    /// Bytes of a batch that was never acknowledged.
    Torn {
        /// Where they begin.
        offset: u64,
        /// Where they end.
        to: u64,
    },
    /// A snapshot file whose header is whole.
    Snapshot {
        /// The file.
        file: PathBuf,
        /// Its description.
        meta: SnapshotMeta,
    },
    /// The directory holds no node's data.
    Nothing(PathBuf),
    /// Something that cannot be read, and why.
    Unreadable(String),
    /// Damage.
    Damage(Damage),
}

impl fmt::Display for DumpItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(Identity { cluster, member, store, name, generation, level }) => write!(
                f,
                "node {name:?}: member {member} of cluster {cluster}, store {store}, generation {generation}, format {level}"
            ),
            Self::Segment { file, bytes, first_sequence, incarnation, last_index } => write!(
                f,
                "segment {}: {bytes} bytes, from batch {first_sequence}, after index {last_index}, made by start {incarnation}",
                file.display()
            ),
            Self::Batch { offset, sequence, bytes, behind_damage } => {
                write!(f, "  batch {sequence} at byte {offset}: {bytes} bytes of records")?;
                if *behind_damage { f.write_str(" (behind damage)") } else { Ok(()) }
            }
            Self::Record(record) => write!(f, "    {record}"),
            Self::Torn { offset, to } => {
                write!(
                    f,
                    "  torn batch at byte {offset} to {to}: never acknowledged, cut off at the next start"
                )
            }
            Self::Snapshot { file, meta } => {
                write!(f, "snapshot {}: {}, {} bytes of state", file.display(), meta.last, meta.bytes)
            }
            Self::Nothing(dir) => write!(f, "{} holds no node's data", dir.display()),
            Self::Unreadable(why) => write!(f, "unreadable: {why}"),
            Self::Damage(damage) => write!(f, "DAMAGE: {damage}"),
        }
    }
}

/// Describes a data directory: identity, segments, batches, records, snapshots. One segment is in
/// memory at a time.
pub fn dump<D: Disk>(disk: &D, dir: &Path) -> impl Iterator<Item = DumpItem> + use<D> {
    let disk = disk.clone();
    let (identity, first) = match find(&disk, dir) {
        Ok(DirectoryOwner::Identity(identity)) => {
            (Some(identity.clone()), vec![DumpItem::Identity(identity)])
        }
        Ok(DirectoryOwner::Nothing) => (None, vec![DumpItem::Nothing(dir.to_owned())]),
        Ok(DirectoryOwner::Interrupted) => {
            (None, vec![DumpItem::Unreadable("making the data directory was interrupted".into())])
        }
        Err(error) => (None, vec![DumpItem::Unreadable(error.to_string())]),
    };
    let generations = identity.map_or(vec![1, 2], |identity| vec![identity.generation]);
    let wal_dirs = generations.iter().map(|number| dir.join(format!("wal-{number}")));
    let segments: Vec<PathBuf> =
        wal_dirs.flat_map(|wal| segment_names(&disk, &wal).unwrap_or_default()).collect();
    let snapshots: Vec<PathBuf> = generations
        .iter()
        .map(|number| dir.join(format!("snapshots-{number}")))
        .flat_map(|dir| {
            let names = disk.list(&dir).unwrap_or_default();
            names.into_iter().filter(|name| snapshot_id(name).is_some()).map(move |name| dir.join(name))
        })
        .collect();
    let of_log = disk.clone();
    let log = (0..segments.len()).flat_map(move |number| dump_segment(&of_log, &segments[number..]));
    first.into_iter().chain(log).chain(snapshots.into_iter().map(move |path| {
        match SnapshotReader::open(&disk, &path) {
            Ok(reader) => DumpItem::Snapshot { meta: reader.header.meta.clone(), file: path },
            Err(error) => DumpItem::Unreadable(error.to_string()),
        }
    }))
}

/// The first segment of `from`.
fn dump_segment<D: Disk>(disk: &D, from: &[PathBuf]) -> Vec<DumpItem> {
    let Some((path, rest)) = from.split_first() else { return Vec::new() };
    let later = look_ahead(disk, rest).unwrap_or(Later::Written);
    let mut items = Vec::new();
    let file = match read_whole(disk, path) {
        Ok(file) => file,
        Err(error) => return vec![DumpItem::Unreadable(format!("{}: {error}", path.display()))],
    };
    let (header, header_bytes) = match read_header(&file, path) {
        Ok(read) => read,
        Err(OpenError::Damaged(damage)) => return vec![DumpItem::Damage(*damage)],
        Err(error) => return vec![DumpItem::Unreadable(error.to_string())],
    };
    items.push(DumpItem::Segment {
        file: path.to_path_buf(),
        bytes: file.len() as u64,
        first_sequence: header.first_sequence,
        incarnation: header.incarnation,
        last_index: header.last.index.get(),
    });
    let mut last_index = header.last.index.get();
    let mut reached = header_bytes as u64;
    let scanned = scan_segment(&file, &header, header_bytes, later, &mut |batch| {
        last_index = last_index.max(batch.header.last_index);
        reached = batch.offset + batch.header.file_bytes() as u64;
        push_batch(&mut items, batch, false);
        Ok(())
    });
    match scanned {
        Ok(end) => items.extend(end.torn_to.map(|to| DumpItem::Torn { offset: end.offset, to })),
        Err(fault) => {
            if let OpenError::Damaged(damage) = damaged(path, &fault, Some(last_index + 1)) {
                items.push(DumpItem::Damage(*damage));
            }
            for batch in salvage(&file, &header, reached) {
                push_batch(&mut items, batch, true);
            }
        }
    }
    items
}

fn push_batch(items: &mut Vec<DumpItem>, batch: ScannedBatch, behind_damage: bool) {
    let ScannedBatch { offset, header, records } = batch;
    items.push(DumpItem::Batch {
        offset,
        sequence: header.sequence,
        bytes: header.payload_bytes,
        behind_damage,
    });
    items.extend(records.iter().map(|record| DumpItem::Record(in_words(record))));
}

/// A dump shows at most this many bytes of a key.
const KEY_BYTES_SHOWN: usize = 80;

/// A record in words. An entry shows what it does: the key of a command (never its value), or the
/// members.
fn in_words(record: &Record) -> String {
    let Record::Entry(entry) = record else { return record.to_string() };
    format!("{record}: {}", entry_in_words(entry))
}

fn entry_in_words(entry: &Entry) -> String {
    match entry.kind() {
        EntryKind::Empty => "a leader's first".to_owned(),
        EntryKind::Command => match decode_proposal(entry.data()) {
            Ok((_, command)) => command_in_words(&command.op),
            Err(error) => format!("no command: {error}"),
        },
        EntryKind::Level => match entry.level() {
            Some(level) => format!("raises the cluster to feature level {level}"),
            None => "no level".to_owned(),
        },
        EntryKind::Membership => match Membership::decode(&entry.data()) {
            Ok(membership) => {
                let joint = if membership.outgoing.is_some() { ", joint" } else { "" };
                let voters: Vec<u64> = membership.voters.iter().map(|id| id.get()).collect();
                let learners: Vec<u64> = membership.learners.keys().map(|id| id.get()).collect();
                format!("voters {voters:?}, learners {learners:?}{joint}")
            }
            Err(error) => format!("no membership: {error}"),
        },
    }
}

fn command_in_words(op: &Op) -> String {
    match op {
        Op::Put(put) => format!("set {}, {} bytes", shown(&put.key), put.value.len()),
        Op::Delete(range) => match range.one_key() {
            Some(key) => format!("delete {}", shown(key)),
            None => {
                let end = range.end.as_ref().map_or_else(|| "the end".to_owned(), |end| shown(end));
                format!("delete from {} to {end}", shown(&range.start))
            }
        },
        Op::Txn(txn) => {
            let (compares, success, failure) = (txn.compare.len(), txn.success.len(), txn.failure.len());
            format!("transaction of {compares} comparisons, {success} and {failure} steps")
        }
        Op::Increment { key, by } => format!("add {by} to {}", shown(key)),
        Op::Compact(revision) => format!("compact to revision {revision}"),
        Op::Grant { id, ttl_seconds } => format!("grant lease {id}, {ttl_seconds} s"),
        Op::Revoke(id) => format!("revoke lease {id}"),
        Op::Expire { term, leases } => {
            let ids: Vec<u64> = leases.iter().map(|(id, _)| id.0).collect();
            format!("end leases {ids:?}, by the leader of term {term}")
        }
        Op::Configure(settings) => format!("configure {settings:?}"),
        Op::Secure(change) => format!("{change:?}"),
    }
}

/// A key between quotes, with escapes for what is not printable ASCII.
fn shown(key: &[u8]) -> String {
    let start = key.get(..KEY_BYTES_SHOWN).unwrap_or(key);
    let more = if start.len() < key.len() { format!("… ({} bytes)", key.len()) } else { String::new() };
    format!("\"{}\"{more}", start.escape_ascii())
}
