//! The steps of a start: making a data directory, finding what it holds, tidying it.

use crate::codec::FeatureLevel;
use crate::kv::Store;
use crate::raft::{Entry, HardState, LogId, LogIndex, LogRecords, Restored, SnapshotMeta};
use crate::storage::batch::{BATCH_HEADER_BYTES, BatchHeader, BatchMark};
use crate::storage::damaged::keep_damaged;
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::error::{
    Damage, OpenError, SnapshotError, StorageError, is_full, says_nothing_of_the_disk,
};
use crate::storage::identity::{Bootstrap, Identity, begin_creation, end_creation, make_generation};
use crate::storage::options::StorageOptions;
use crate::storage::record::encode_records;
use crate::storage::recovery::{Recovered, RecoveryNote};
use crate::storage::replay::Replay;
use crate::storage::segment::{SegmentHeader, build_segment, read_whole};
use crate::storage::snapshots::SnapshotFiles;
use crate::storage::spare::{is_spare, remove_if_there};
use crate::storage::wal::life;
use std::io;
use std::path::{Path, PathBuf};

/// Directories above the data directory to sync: this program may have made `data` for
/// `data/<node-id>`, and the directory above holds its name.
const ANCESTORS_SYNCED: usize = 2;

/// Makes the data directory, durably. One that exists already is synced too: it may be in the page
/// cache alone.
pub(crate) fn make_dir<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    disk.create_dir_all(dir).map_err(not_writable(dir))?;
    for ancestor in dir.ancestors().skip(1).take(ANCESTORS_SYNCED) {
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        match disk.sync_dir(ancestor) {
            // A directory that this user may not read was not made by a node of this user.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            result => result.map_err(OpenError::io("syncing the directory", ancestor))?,
        }
    }
    Ok(())
}

pub(crate) fn not_writable(dir: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let dir = dir.to_path_buf();
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory => OpenError::NotWritable { dir, source },
        _ => OpenError::Io { operation: "opening the data directory", file: dir, source },
    }
}

/// Makes a new data directory's content. The identity gets its name last, when everything else is
/// durable.
pub(crate) fn create<D: Disk>(
    disk: &D,
    options: &StorageOptions,
    bootstrap: &Bootstrap,
) -> Result<Identity, OpenError> {
    let Bootstrap { name, cluster, member, store, initial } = bootstrap;
    let identity = Identity {
        cluster: *cluster,
        member: *member,
        store: *store,
        name: name.clone(),
        generation: 1,
        level: level_of_entries(&initial.entries),
    };
    begin_creation(disk, &options.dir, &identity)?;
    make_generation(disk, &options.dir, 2).and_then(|()| make_generation(disk, &options.dir, 1))?;
    make_log(disk, options, &identity, 0, initial)?;
    end_creation(disk, &options.dir)?;
    Ok(identity)
}

/// The highest level to which entries raise a cluster.
pub(crate) fn level_of_entries<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> FeatureLevel {
    entries.into_iter().filter_map(Entry::level).max().unwrap_or_default()
}

/// Makes a log with nothing but `initial` in it. A snapshot that is in there is in place.
pub(crate) fn make_log<D: Disk>(
    disk: &D,
    options: &StorageOptions,
    identity: &Identity,
    incarnation: u64,
    initial: &Restored,
) -> Result<(), OpenError> {
    let wal_dir = identity.wal_dir(&options.dir);
    let hard_state = Some(initial.hard_state).filter(|state| *state != HardState::default());
    let snapshot = initial.snapshot.clone().map(Box::new);
    let records =
        LogRecords { hard_state, snapshot, entries: initial.entries.clone(), ..LogRecords::default() };
    let mut payload = Vec::new();
    encode_records(&mut payload, &records);
    let index = |entry: Option<&Entry>| entry.map_or(0, |entry| entry.index().get());
    let indices = (index(initial.entries.first()), index(initial.entries.last()));
    let mut batches = Vec::new();
    if !payload.is_empty() {
        let behind = initial.snapshot.as_ref().map_or(LogId::ZERO, |snapshot| snapshot.last);
        let end = initial.entries.last().map_or(behind, Entry::id);
        let mark = BatchMark { hard_state: initial.hard_state, end };
        let mut batch = BatchHeader::new(1, 0, indices, 0, mark, &payload).encode();
        assert_eq!(batch.len(), BATCH_HEADER_BYTES, "the header has a fixed width");
        batch.append(&mut payload);
        batches.push(batch);
    }
    let mut header = SegmentHeader {
        life: life(options.seed, incarnation, 0),
        cluster: identity.cluster,
        store: identity.store,
        incarnation,
        nonces: Vec::new(),
        capacity: 0,
        first_sequence: 1,
        previous: 0,
        copied_through: batches.len() as u64,
        former_lives: Vec::new(),
        hard_state: HardState::default(),
        last: LogId::ZERO,
        markers: Vec::new(),
    };
    build_segment(disk, &wal_dir, options.segment_bytes, &mut header, &batches)?;
    Ok(())
}

/// The newest snapshot that is whole and to which the log reaches back; the state before any, if
/// the log reaches back that far.
pub(crate) fn choose_snapshot<D: Disk>(
    files: &SnapshotFiles<D>,
    replay: &Replay,
    recovered: &Recovered,
    notes: &mut Vec<RecoveryNote>,
) -> Result<(Option<SnapshotMeta>, Store), OpenError> {
    let mut failed: Option<(PathBuf, String)> = None;
    for marker in replay.markers.iter().rev().filter(|marker| marker.last.index >= replay.start) {
        match files.load(marker) {
            Ok(store) => {
                if let Some((damaged, why)) = failed {
                    notes.push(RecoveryNote::OlderSnapshot { damaged, why, used: files.path(marker.last) });
                }
                return Ok((Some(marker.clone()), store));
            }
            Err(SnapshotError::Io { operation, file, source }) if says_nothing_of_the_disk(&source) => {
                return Err(OpenError::Io { operation, file, source });
            }
            Err(error) => failed = failed.or_else(|| Some((files.path(marker.last), error.to_string()))),
        }
    }
    let damage = match (failed, &recovered.gap) {
        (failed, _) if replay.start == LogIndex::ZERO => {
            if let Some((damaged, why)) = failed {
                notes.push(RecoveryNote::OlderSnapshot { damaged, why, used: recovered.tail.path.clone() });
            }
            return Ok((None, Store::new()));
        }
        (None, Some(gap)) => gap.clone(),
        (None, None) => Damage {
            file: recovered.tail.path.clone(),
            offset: 0,
            first_index: Some(1),
            last_index: Some(replay.start.get()),
            why: "segments before the first one are missing, and no snapshot covers them".into(),
        },
        (Some((file, why)), _) => {
            Damage { file, offset: 0, first_index: Some(1), last_index: Some(replay.start.get()), why }
        }
    };
    Err(OpenError::Damaged(Box::new(damage)))
}

/// Removes from a log directory what a crash left behind: spares, temporary files, and segments
/// that a snapshot has made unnecessary. Those that are of no use because others are lost are kept
/// with what was damaged.
pub(crate) fn tidy<D: Disk>(
    disk: &D,
    (dir, wal_dir): (&Path, &Path),
    replay: &Replay,
    recovered: &Recovered,
) -> Result<Option<RecoveryNote>, OpenError> {
    let mut note = None;
    let mut orphans = &recovered.orphans[..];
    if let Some(gap) = recovered.loss(replay) {
        let kept = keep_damaged(disk, dir, orphans)?;
        note = Some(RecoveryNote::Gap { gap: gap.clone(), before: orphans.len(), kept });
        disk.sync_dir(wal_dir).map_err(OpenError::io("syncing the directory", wal_dir))?;
        orphans = &[];
    }
    let listed = disk.list(wal_dir).map_err(OpenError::io("listing", wal_dir))?;
    let left =
        listed.iter().filter(|name| is_spare(name) || name.extension().is_some_and(|end| end == "tmp"));
    let paths: Vec<PathBuf> = left.map(|name| wal_dir.join(name)).chain(orphans.iter().cloned()).collect();
    for path in &paths {
        disk.remove(path).map_err(OpenError::io("removing", path))?;
    }
    if !paths.is_empty() {
        disk.sync_dir(wal_dir).map_err(OpenError::io("syncing the directory", wal_dir))?;
    }
    Ok(note)
}

pub(crate) fn recovered_note(
    replay: &Replay,
    recovered: &Recovered,
    snapshot: Option<&SnapshotMeta>,
) -> RecoveryNote {
    RecoveryNote::Recovered {
        bytes: recovered.bytes,
        segments: recovered.sealed.len() + 1,
        indices: (!replay.entries.is_empty()).then(|| (replay.start.next().get(), replay.last_index().get())),
        snapshot: snapshot.map(|meta| meta.last.index.get()),
    }
}

pub(crate) fn snapshot_failed(error: SnapshotError) -> OpenError {
    match error {
        SnapshotError::Io { operation, file, source } => OpenError::Io { operation, file, source },
        other => OpenError::Io {
            operation: "tidying the snapshots of",
            file: PathBuf::new(),
            source: io::Error::other(other.to_string()),
        },
    }
}

/// Writes a torn tail into a file beside its segment, so that nothing that was read is ever lost,
/// and removes the oldest such files beyond a few. `None` on a disk without room: nothing of the
/// tail was acknowledged, and a start is not to take the room that it waits for.
pub(crate) fn keep_torn<D: Disk>(
    disk: &D,
    wal_dir: &Path,
    segment: &Path,
    bytes: &[u8],
    files_max: usize,
) -> Result<Option<PathBuf>, StorageError> {
    let listed = disk.list(wal_dir).map_err(StorageError::new("listing", wal_dir))?;
    let mut kept: Vec<(u64, PathBuf)> = listed
        .into_iter()
        .filter_map(|name| {
            let number = name.to_str()?.rsplit_once(".torn-")?.1.parse().ok()?;
            Some((number, name))
        })
        .collect();
    kept.sort();
    let newest = kept.last().map(|(_, name)| wal_dir.join(name));
    if newest.as_ref().is_some_and(|newest| read_whole(disk, newest).is_ok_and(|content| content == bytes)) {
        // By a start that came no further; perhaps not even to the removal of older ones.
        kept.pop();
        remove_torn(disk, wal_dir, &kept, files_max)?;
        return Ok(newest);
    }
    let number = kept.last().map_or(1, |(number, _)| number + 1);
    let mut path = segment.as_os_str().to_owned();
    path.push(format!(".torn-{number}"));
    let path = PathBuf::from(path);
    if let Err(error) = write_torn(disk, &path, bytes) {
        // Half of it is of no use.
        let removed = remove_if_there(disk, &path);
        if !is_full(&error.source) {
            return Err(error);
        }
        removed.map_err(StorageError::new("removing", &path))?;
        return Ok(None);
    }
    remove_torn(disk, wal_dir, &kept, files_max)?;
    Ok(Some(path))
}

/// Removes the oldest torn tails, so that `files_max` are left with one that is not among them.
fn remove_torn<D: Disk>(
    disk: &D,
    wal_dir: &Path,
    others: &[(u64, PathBuf)],
    files_max: usize,
) -> Result<(), StorageError> {
    for (_, name) in others.iter().rev().skip(files_max.saturating_sub(1)) {
        let old = wal_dir.join(name);
        disk.remove(&old).map_err(StorageError::new("removing", &old))?;
    }
    Ok(())
}

fn write_torn<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let file = disk.create(path).map_err(StorageError::new("creating", path))?;
    file.write_at(bytes, 0).map_err(StorageError::new("writing", path))?;
    file.sync_data().map_err(StorageError::new("syncing", path))
}
