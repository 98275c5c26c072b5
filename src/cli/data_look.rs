//! `wal verify|stat`, `wal dump --json` and `snapshot dump|verify`: looks at a data directory. They
//! change nothing, keep no lock, and may run beside a node: what the node is writing meanwhile is
//! seen in part, and may look torn.

use crate::cli::args::{LookArgs, SnapshotCommand};
use crate::cli::exit::{ExitStatus, Failure};
use crate::storage::{
    Disk, DumpItem, OpenError, RealDisk, SnapshotLook, dump as read, judge as judge_directory,
    look_at_snapshot,
};
use serde_json::{Value, json};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// What a log is, in numbers.
#[derive(Debug, Default)]
struct Stat {
    segments: u64,
    segment_bytes: u64,
    batches: u64,
    record_bytes: u64,
    records: u64,
    first_sequence: Option<u64>,
    last_sequence: u64,
    torn: u64,
    snapshots: u64,
    snapshot_bytes: u64,
    unreadable: u64,
}

impl Stat {
    fn count(&mut self, item: &DumpItem) {
        match item {
            DumpItem::Segment { bytes, .. } => {
                self.segments += 1;
                self.segment_bytes += bytes;
            }
            DumpItem::Batch { sequence, bytes, .. } => {
                self.batches += 1;
                self.record_bytes += u64::from(*bytes);
                self.first_sequence.get_or_insert(*sequence);
                self.last_sequence = self.last_sequence.max(*sequence);
            }
            DumpItem::Record(_) => self.records += 1,
            DumpItem::Torn { .. } => self.torn += 1,
            DumpItem::Snapshot { meta, .. } => {
                self.snapshots += 1;
                self.snapshot_bytes += meta.bytes;
            }
            DumpItem::Damage(_) | DumpItem::Unreadable(_) => self.unreadable += 1,
            _ => {}
        }
    }

    fn fields(&self) -> [(&'static str, u64); 11] {
        [
            ("segments", self.segments),
            ("segment_bytes", self.segment_bytes),
            ("batches", self.batches),
            ("first_batch", self.first_sequence.unwrap_or_default()),
            ("last_batch", self.last_sequence),
            ("records", self.records),
            ("record_bytes", self.record_bytes),
            ("torn", self.torn),
            ("snapshots", self.snapshots),
            ("snapshot_bytes", self.snapshot_bytes),
            ("unreadable", self.unreadable),
        ]
    }
}

/// Standard output, until nobody reads it any more.
struct Out(BufWriter<io::StdoutLock<'static>>);

impl Out {
    fn new() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }

    /// Whether somebody still reads it.
    fn line(&mut self, line: impl std::fmt::Display) -> Result<bool, Failure> {
        Self::judge(writeln!(self.0, "{line}"))
    }

    fn end(mut self) -> Result<(), Failure> {
        Self::judge(self.0.flush()).map(|_| ())
    }

    fn judge(result: io::Result<()>) -> Result<bool, Failure> {
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::new(ExitStatus::Failure, format!("cannot print: {error}"))),
        }
    }
}

/// Prints the log in a data directory, as a JSON object a line. What cannot be read is printed as
/// such, and makes the dump fail at its end.
pub(super) fn dump(dir: &Path) -> Result<(), Failure> {
    let (mut out, mut stat) = (Out::new(), Stat::default());
    for item in items(dir)? {
        stat.count(&item);
        if !out.line(to_json(&item))? {
            return Ok(());
        }
    }
    out.end()?;
    judge(dir, &stat, "see above")
}

/// Reads all of a log, and all of the snapshots, and says whether they are sound.
pub(super) fn verify(args: &LookArgs) -> Result<(), Failure> {
    let (mut out, mut stat) = (Out::new(), Stat::default());
    let mut faults = Vec::new();
    for item in items(&args.dir)? {
        stat.count(&item);
        let fault = match &item {
            DumpItem::Damage(_) | DumpItem::Unreadable(_) => Some(item.to_string()),
            DumpItem::Snapshot { file, .. } => match look_at_snapshot(&RealDisk, file) {
                Ok(_) => None,
                Err(error) => {
                    stat.unreadable += 1;
                    Some(error.to_string())
                }
            },
            _ => None,
        };
        faults.extend(fault);
    }
    let mut judged = false;
    if faults.is_empty() {
        let verdict = verdict(&RealDisk, &args.dir, || judge_directory(&RealDisk, &args.dir));
        judged = !matches!(verdict, Verdict::Unjudged);
        if let Verdict::Damaged(error) = verdict {
            stat.unreadable += 1;
            faults.push(error.to_string());
        }
    }
    if args.json {
        out.line(json!({ "batches": stat.batches, "records": stat.records, "snapshots": stat.snapshots, "faults": faults, "judged": judged }))?;
    } else {
        for fault in &faults {
            out.line(fault)?;
        }
        if faults.is_empty() {
            let Stat { segments, batches, records, snapshots, .. } = stat;
            out.line(format_args!(
                "{} is sound: {segments} segments, {batches} batches, {records} records, {snapshots} snapshots",
                args.dir.display()
            ))?;
            if !judged {
                out.line("another process uses it: whether a node would start on it was not judged")?;
            }
        }
    }
    out.end()?;
    judge(&args.dir, &stat, "see above")
}

/// What a start would say of a directory whose files are all sound. Files may be missing, or older
/// than others. While a node runs, they change.
fn verdict<D: Disk>(disk: &D, dir: &Path, judge: impl FnOnce() -> Result<(), OpenError>) -> Verdict {
    if is_in_use(disk, dir) {
        return Verdict::Unjudged;
    }
    match judge() {
        Ok(()) => Verdict::Startable,
        Err(_) if is_in_use(disk, dir) => Verdict::Unjudged,
        Err(error) => Verdict::Damaged(error),
    }
}

/// Whether another process has locked a directory. The lock is not kept: a node may start
/// meanwhile.
fn is_in_use<D: Disk>(disk: &D, dir: &Path) -> bool {
    let lock = dir.join("lock");
    let locked = disk.exists(&lock).unwrap_or(false).then(|| disk.lock(&lock));
    matches!(locked, Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock)
}

/// What a start would say of a directory.
#[derive(Debug)]
enum Verdict {
    /// It would go on with it.
    Startable,
    /// It would not, and why.
    Damaged(OpenError),
    /// That is not known: another process uses the directory.
    Unjudged,
}

/// Says how much a log holds.
pub(super) fn stat(args: &LookArgs) -> Result<(), Failure> {
    let (mut out, mut stat) = (Out::new(), Stat::default());
    items(&args.dir)?.for_each(|item| stat.count(&item));
    if args.json {
        out.line(Value::from_iter(stat.fields()))?;
    } else {
        for (name, number) in stat.fields() {
            out.line(format_args!("{name:15} {number}"))?;
        }
    }
    out.end()?;
    judge(&args.dir, &stat, "`wal verify` says which")
}

/// Runs a subcommand of `snapshot`.
pub(super) fn snapshot(command: &SnapshotCommand) -> Result<(), Failure> {
    let (file, as_json, prints_keys) = match command {
        SnapshotCommand::Dump { file, json } => (file, *json, true),
        SnapshotCommand::Verify { file, json } => (file, *json, false),
    };
    let look = look_at_snapshot(&RealDisk, file)
        .map_err(|error| Failure::new(ExitStatus::Data, error.to_string()))?;
    let SnapshotLook { cluster, store_id, meta, store } = look;
    let mut out = Out::new();
    let described = json!({
        "cluster": cluster.to_string(),
        "store": store_id.to_string(),
        "last_term": meta.last.term.get(),
        "last_index": meta.last.index.get(),
        "bytes": meta.bytes,
        "revision": store.revision().0,
        "compacted": store.compacted().0,
        "keys": store.len(),
        "leases": store.lease_count(),
        "state_hash": format!("{:032x}", store.state_hash()),
    });
    if as_json {
        out.line(&described)?;
    } else {
        out.line(format_args!(
            "{} is whole: {}, revision {}, {} keys, state {:032x}",
            file.display(),
            meta.last,
            store.revision(),
            store.len(),
            store.state_hash()
        ))?;
    }
    if prints_keys {
        for found in store.iter() {
            let is_read = if as_json {
                let mut object = serde_json::Map::new();
                crate::client::put_bytes(&mut object, "key", &found.key);
                object.insert("value_bytes".to_owned(), found.value.len().into());
                object.insert("mod_revision".to_owned(), found.mod_revision.0.into());
                object.insert("version".to_owned(), found.version.into());
                object.insert("lease".to_owned(), found.lease.0.into());
                out.line(Value::from(object))?
            } else {
                out.line(format_args!(
                    "  \"{}\" revision {}, version {}, {} bytes",
                    found.key.escape_ascii(),
                    found.mod_revision,
                    found.version,
                    found.value.len()
                ))?
            };
            if !is_read {
                return Ok(());
            }
        }
    }
    out.end()
}

/// What is in a data directory.
fn items(dir: &Path) -> Result<impl Iterator<Item = DumpItem>, Failure> {
    let data = |text: String| Failure::new(ExitStatus::Data, text);
    if !dir.is_dir() {
        let what = if dir.exists() { "is no directory" } else { "does not exist" };
        return Err(data(format!(
            "{} {what}; name a node's data directory, as in data/node1",
            dir.display()
        )));
    }
    let mut items = read(&RealDisk, dir).peekable();
    if let Some(DumpItem::Nothing(dir)) = items.peek() {
        return Err(data(format!(
            "{} holds no node's data; name the directory that has `identity` in it, as in data/node1",
            dir.display()
        )));
    }
    Ok(items)
}

fn judge(dir: &Path, stat: &Stat, hint: &str) -> Result<(), Failure> {
    match stat.unreadable {
        0 => Ok(()),
        count => {
            let places = if count == 1 { "one place".to_owned() } else { format!("{count} places") };
            let text = format!("{}: {places} could not be read; {hint}", dir.display());
            Err(Failure::new(ExitStatus::Data, text))
        }
    }
}

fn to_json(item: &DumpItem) -> Value {
    match item {
        DumpItem::Identity(identity) => json!({ "identity": {
            "name": identity.name, "cluster": identity.cluster.to_string(), "member": identity.member.get(),
            "store": identity.store.to_string(), "generation": identity.generation,
        } }),
        DumpItem::Segment { file, bytes, first_sequence, incarnation, last_index } => json!({ "segment": {
            "file": file.display().to_string(), "bytes": bytes, "first_batch": first_sequence,
            "start": incarnation, "last_index": last_index,
        } }),
        DumpItem::Batch { offset, sequence, bytes, behind_damage } => json!({ "batch": {
            "offset": offset, "sequence": sequence, "bytes": bytes, "behind_damage": behind_damage,
        } }),
        DumpItem::Record(record) => json!({ "record": record }),
        DumpItem::Torn { offset, to } => json!({ "torn": { "offset": offset, "to": to } }),
        DumpItem::Snapshot { file, meta } => json!({ "snapshot": {
            "file": file.display().to_string(), "last_term": meta.last.term.get(),
            "last_index": meta.last.index.get(), "bytes": meta.bytes,
        } }),
        DumpItem::Unreadable(why) => json!({ "unreadable": why }),
        other => json!({ "damage": other.to_string() }),
    }
}

#[cfg(test)]
mod tests;
