//! Notes in a data directory that name other members: for the day when nothing else does.

use crate::codec::checksum;
use crate::raft::{ClusterId, NodeId, Withdrawal};
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::error::OpenError;
use crate::storage::names::STARTED;
use crate::storage::segment::read_whole;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// Where the other members are, as of the newest committed membership.
const PEERS: &str = "peers";
/// Says that this directory is to be a member's again, and whom to ask. Without it, a start that
/// finds an empty directory makes a cluster of its own.
const REJOIN: &str = "rejoin";
/// The alarms that nobody has acknowledged.
const ALARMS: &str = "alarms";
/// Says that this directory is not to be used as it is, and why.
const REBUILD: &str = "rebuild";
/// The cluster that this one was made of, by a recovery or of a backup.
pub(crate) const PREDECESSOR: &str = "predecessor";
/// Says that what is left of a member is being set aside.
const ASIDE: &str = "setting-aside";
/// Says that the member takes no part any more, and why, until its directory is wiped.
const WITHDRAWN: &str = "withdrawn";
/// Says that another cluster calls this node, which has nothing of its own, as its member.
const CALLED: &str = "called";
/// Bytes of a note, at most.
const NOTE_BYTES_MAX: usize = 64 << 10;

/// A note that the node has to join its cluster anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejoin {
    /// The cluster to join; `None` if nothing said which it was.
    pub cluster: Option<ClusterId>,
    /// Raft addresses of members to ask.
    pub peers: Vec<String>,
}

/// The note that a directory was set aside and has to join anew. A note that is damaged names
/// nobody, and says the same.
///
/// # Errors
/// [`OpenError`] if it cannot be read.
pub fn read_rejoin<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Rejoin>, OpenError> {
    let found = read_lines(disk, dir, REJOIN)?;
    Ok(found.map(|lines| Rejoin { cluster: cluster_in(&lines), peers: said(&lines, "peer") }))
}

/// Writes that note, durably.
pub(super) fn write_rejoin<D: Disk>(disk: &D, dir: &Path, rejoin: &Rejoin) -> Result<(), OpenError> {
    write(disk, dir, REJOIN, &with_cluster(rejoin.cluster, &rejoin.peers))
}

/// Removes the note: the node is a member again.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn remove_rejoin<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    remove(disk, dir, REJOIN)
}

pub(in crate::storage) fn remove<D: Disk>(disk: &D, dir: &Path, name: &str) -> Result<(), OpenError> {
    let path = dir.join(name);
    if disk.exists(&path).map_err(OpenError::io("looking for", &path))? {
        disk.remove(&path).map_err(OpenError::io("removing", &path))?;
        disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
    }
    Ok(())
}

/// The raft addresses of the other members that were noted last; none if the note is damaged.
pub(crate) fn read_peers<D: Disk>(disk: &D, dir: &Path) -> Vec<String> {
    let lines = read_lines(disk, dir, PEERS).ok().flatten().unwrap_or_default();
    said(&lines, "peer")
}

/// The cluster of those members.
pub(super) fn read_peers_cluster<D: Disk>(disk: &D, dir: &Path) -> Option<ClusterId> {
    cluster_in(&read_lines(disk, dir, PEERS).ok()??)
}

/// Notes the raft addresses of the other members of `cluster`, unless they are noted already.
///
/// # Errors
/// [`OpenError`]. Nothing else is affected: the note is only of use when the rest is damaged.
pub(crate) fn note_peers<D: Disk>(
    disk: &D,
    dir: &Path,
    cluster: ClusterId,
    peers: &[String],
) -> Result<(), OpenError> {
    let lines = with_cluster(Some(cluster), peers);
    if matches!(read_lines(disk, dir, PEERS), Ok(Some(noted)) if noted == lines) {
        return Ok(());
    }
    write(disk, dir, PEERS, &lines)
}

/// Why the member takes no part any more; `None`: it does.
///
/// # Errors
/// [`OpenError`] if nobody may read the note; [`OpenError::Condemned`] if it is damaged, or the
/// disk does not give it back.
pub(crate) fn read_withdrawn<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Withdrawal>, OpenError> {
    let lines = match read_lines(disk, dir, WITHDRAWN) {
        Err(error) if error.is_damage() => {
            let why =
                format!("its own note says that it takes no part any more, and cannot be read: {error}");
            return Err(OpenError::Condemned { dir: dir.to_path_buf(), why });
        }
        lines => lines?,
    };
    let Some(lines) = lines else { return Ok(None) };
    let number = said(&lines, "withdrawal").first().and_then(|text| from_hexadecimal(text));
    match number.and_then(|bytes| Withdrawal::decode(bytes).ok()) {
        Some(why) => Ok(Some(why)),
        None => {
            let why = "its own note says that it takes no part any more, and is damaged".to_owned();
            Err(OpenError::Condemned { dir: dir.to_path_buf(), why })
        }
    }
}

/// Notes, durably, that the member takes no part any more. The first reason stays.
///
/// # Errors
/// [`OpenError`]; then it is not noted.
pub(crate) fn note_withdrawn<D: Disk>(disk: &D, dir: &Path, why: &Withdrawal) -> Result<(), OpenError> {
    if read_withdrawn(disk, dir).is_ok_and(|noted| noted.is_some()) {
        return Ok(());
    }
    let code = why.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    write(disk, dir, WITHDRAWN, &[("withdrawal", code), ("why", why.to_string().replace('\n', " "))])
}

/// The cluster that calls this node as its member, and as which; none if the note is damaged.
pub(crate) fn read_called<D: Disk>(disk: &D, dir: &Path) -> Option<(ClusterId, NodeId)> {
    let lines = read_lines(disk, dir, CALLED).ok()??;
    let member = said(&lines, "member").first()?.parse().ok()?;
    Some((cluster_in(&lines)?, NodeId::new(member)))
}

/// Notes that `cluster` calls this node as its `member`, unless that is noted already.
///
/// # Errors
/// [`OpenError`]; then it is not noted.
pub(crate) fn note_called<D: Disk>(
    disk: &D,
    dir: &Path,
    (cluster, member): (ClusterId, NodeId),
) -> Result<(), OpenError> {
    if read_called(disk, dir) == Some((cluster, member)) {
        return Ok(());
    }
    let lines = [("cluster", cluster.to_string()), ("member", member.to_string())];
    write(disk, dir, CALLED, &lines)
}

/// The cluster that this one was made of, by a recovery or of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// That cluster.
    pub cluster: ClusterId,
    /// The raft addresses of its other members, if they are known: nothing of it is to run any
    /// more.
    pub peers: Vec<String>,
}

/// The cluster that this one was made of; none if the note is damaged.
pub(crate) fn read_predecessor<D: Disk>(disk: &D, dir: &Path) -> Option<Predecessor> {
    let lines = read_lines(disk, dir, PREDECESSOR).ok()??;
    Some(Predecessor { cluster: cluster_in(&lines)?, peers: said(&lines, "peer") })
}

/// Notes that cluster.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn note_predecessor<D: Disk>(
    disk: &D,
    dir: &Path,
    predecessor: &Predecessor,
) -> Result<(), OpenError> {
    write(disk, dir, PREDECESSOR, &with_cluster(Some(predecessor.cluster), &predecessor.peers))
}

/// Removes all that was noted of a member that a person has given up, and of its cluster.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn forget_marks<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    [PEERS, REJOIN, CALLED, WITHDRAWN, ASIDE, REBUILD].iter().try_for_each(|name| remove(disk, dir, name))
}

/// Removes what was noted of the member that this directory was: it is another one's now.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn forget_member<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    [CALLED, WITHDRAWN].iter().try_for_each(|name| remove(disk, dir, name))
}

/// The alarms that were written down last; none without a note.
///
/// # Errors
/// Why the note cannot be read, in words: which alarms stood is not known then.
pub(crate) fn read_alarms<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<String>, String> {
    match read(disk, dir, ALARMS) {
        Ok(None) => Ok(Vec::new()),
        // A note that is sound has a line at least.
        Ok(Some(lines)) if lines.is_empty() => Err(format!("{} is damaged", dir.join(ALARMS).display())),
        Ok(Some(lines)) => Ok(lines),
        Err(error) => Err(error.to_string()),
    }
}

/// Writes down the alarms that stand.
///
/// # Errors
/// [`OpenError`]. Nothing else is affected.
pub(crate) fn note_alarms<D: Disk>(disk: &D, dir: &Path, alarms: &[String]) -> Result<(), OpenError> {
    let lines: Lines = alarms.iter().map(|alarm| ("alarm", alarm.clone())).collect();
    write(disk, dir, ALARMS, &lines)
}

/// The newest start that was noted; 0 without a note, or if it is damaged.
pub(crate) fn read_started<D: Disk>(disk: &D, dir: &Path) -> u64 {
    let lines = read_lines(disk, dir, STARTED).ok().flatten().unwrap_or_default();
    number_in(&lines, "start").unwrap_or_default()
}

/// How long the newest start that was noted may have promised a leader to vote for nobody,
/// microseconds. 0 without a note. If it is damaged, as long as this start may promise: nodes are
/// seldom started with another setting.
pub(crate) fn read_promised<D: Disk>(disk: &D, dir: &Path, own: u64) -> u64 {
    match read_lines(disk, dir, STARTED) {
        Ok(None) => 0,
        Ok(Some(lines)) => number_in(&lines, "promised_micros").unwrap_or(own),
        Err(_) => own,
    }
}

fn number_in(lines: &Lines, wanted: &str) -> Option<u64> {
    said(lines, wanted).first()?.parse().ok()
}

/// Notes that this start is the newest, and for how long it may promise a leader to vote for
/// nobody.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn note_started<D: Disk>(
    disk: &D,
    dir: &Path,
    start: u64,
    promised_micros: u64,
) -> Result<(), OpenError> {
    let lines = [("start", start.to_string()), ("promised_micros", promised_micros.to_string())];
    write(disk, dir, STARTED, &lines)
}

/// Refuses a log of an earlier start than the newest one that was noted: its files, or some of
/// them, are older copies, and what was acknowledged since is lost.
///
/// # Errors
/// [`OpenError::Condemned`].
pub(crate) fn check_started<D: Disk>(disk: &D, dir: &Path, start: u64) -> Result<(), OpenError> {
    let noted = read_started(disk, dir);
    if start >= noted {
        return Ok(());
    }
    let why = format!(
        "its log was written last by start {start} of this node, and start {noted} was the last: files of the log are \
         older copies, and what was acknowledged since is lost"
    );
    Err(OpenError::Condemned { dir: dir.to_path_buf(), why })
}

/// Why this directory is not to be used as it is; `None`: it may be. A note that is damaged, or
/// that the disk does not give back, says so too.
///
/// # Errors
/// [`OpenError`] if nobody may read it.
pub(crate) fn read_rebuild<D: Disk>(disk: &D, dir: &Path) -> Result<Option<String>, OpenError> {
    let unknown = || "its own note says so, which is damaged".to_owned();
    // Of one that the disk does not give back, it is known that it is there.
    let noted = |name| match read(disk, dir, name) {
        Err(error) if error.is_damage() => Ok(Some(vec![format!("its own note says so: {error}")])),
        noted => noted,
    };
    if let Some(why) = noted(REBUILD)? {
        return Ok(Some(why.into_iter().next().unwrap_or_else(unknown)));
    }
    Ok(noted(ASIDE)?.map(|_| "what is left of it was being set aside, and that was interrupted".to_owned()))
}

/// Notes, durably, that what is left of a member is about to be set aside.
pub(super) fn begin_aside<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    write(disk, dir, ASIDE, &[])
}

/// It is set aside.
pub(super) fn end_aside<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    remove(disk, dir, ASIDE)
}

/// Notes that this directory is not to be used as it is, durably.
///
/// # Errors
/// [`OpenError`]; then it is not noted.
pub(crate) fn note_rebuild<D: Disk>(disk: &D, dir: &Path, why: &str) -> Result<(), OpenError> {
    write(disk, dir, REBUILD, &[("why", why.replace('\n', " "))])
}

/// Lines of a note: what each is, and what it says.
pub(in crate::storage) type Lines = Vec<(&'static str, String)>;

/// What the lines of a note can be.
const KEYS: [&str; 10] = [
    "alarm",
    "why",
    "start",
    "promised_micros",
    "peer",
    "cluster",
    "member",
    "withdrawal",
    "generation",
    "kept",
];

pub(in crate::storage) fn said(lines: &Lines, wanted: &str) -> Vec<String> {
    lines.iter().filter(|(key, _)| *key == wanted).map(|(_, said)| said.clone()).collect()
}

fn cluster_in(lines: &Lines) -> Option<ClusterId> {
    let cluster = said(lines, "cluster");
    u128::from_str_radix(cluster.first()?, 16).ok().map(ClusterId)
}

fn with_cluster(cluster: Option<ClusterId>, peers: &[String]) -> Lines {
    let cluster = cluster.iter().map(|cluster| ("cluster", cluster.to_string()));
    cluster.chain(peers.iter().map(|peer| ("peer", peer.clone()))).collect()
}

fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}

fn read<D: Disk>(disk: &D, dir: &Path, name: &str) -> Result<Option<Vec<String>>, OpenError> {
    let lines = read_lines(disk, dir, name)?;
    Ok(lines.map(|lines| lines.into_iter().map(|(_, said)| said).collect()))
}

/// The lines of a note; none if it is damaged.
pub(in crate::storage) fn read_lines<D: Disk>(
    disk: &D,
    dir: &Path,
    name: &str,
) -> Result<Option<Lines>, OpenError> {
    let path = dir.join(name);
    let bytes = match read_whole(disk, &path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io("reading", &path)(error)),
    };
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(NOTE_BYTES_MAX)]).into_owned();
    let (body, sum) = text.rsplit_once("checksum = ").unwrap_or((&text, ""));
    let holds = u32::from_str_radix(sum.trim(), 16) == Ok(checksum(body.as_bytes()));
    let lines = body.lines().filter_map(|line| {
        let (key, said) = line.split_once(" = ")?;
        KEYS.iter().find(|known| **known == key).map(|key| (*key, said.to_owned()))
    });
    Ok(Some(if holds { lines.collect() } else { Vec::new() }))
}

/// Whether a file of that name is this note, or what is left of one that was being written.
pub(crate) fn is_note(name: &Path, note: &str) -> bool {
    name == Path::new(note) || name == Path::new(&writing(note))
}

/// The name of a note while it is being written.
fn writing(note: &str) -> String {
    format!("{note}.tmp")
}

pub(in crate::storage) fn write<D: Disk>(
    disk: &D,
    dir: &Path,
    name: &str,
    lines: &[(&'static str, String)],
) -> Result<(), OpenError> {
    let mut text = format!("infinitystore {name}\n");
    for (key, said) in lines {
        writeln!(text, "{key} = {said}").expect("writing to a string does not fail");
    }
    let sum = checksum(text.as_bytes());
    writeln!(text, "checksum = {sum:08x}").expect("writing to a string does not fail");
    let (writing, path) = (dir.join(writing(name)), dir.join(name));
    let file = disk.create(&writing).map_err(OpenError::io("creating", &writing))?;
    file.write_at(text.as_bytes(), 0).map_err(OpenError::io("writing", &writing))?;
    file.sync_data().map_err(OpenError::io("syncing", &writing))?;
    disk.rename(&writing, &path).map_err(OpenError::io("renaming into place", &path))?;
    disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))
}
