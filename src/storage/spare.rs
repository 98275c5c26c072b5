//! Segments prepared ahead: filled with zeros and synced before they are needed, or left over from
//! before a snapshot.

use crate::storage::disk::Disk;
use crate::storage::error::is_full;
use crate::storage::options::SpareMode;
use crate::storage::segment::{fill, reserve};
use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Spare segments that are kept, at most.
pub(crate) const SPARES_MAX: usize = 2;
/// A file is recycled at most this many times: its header lists its former lives.
const LIVES_MAX: usize = 16;
/// The background thread tries again this long after it found no room.
const RETRY: Duration = Duration::from_secs(1);
/// Its longest rest between two pieces.
const REST_MAX: Duration = Duration::from_millis(50);

/// A file that is ready to become a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) capacity: u64,
    pub(crate) former_lives: Vec<u64>,
    pub(crate) room: Room,
}

/// How the room of a spare or a segment was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Zeros are written: small batches are synced much faster over them.
    Filled,
    /// Nothing is written. If batches are large, zeros would double what is written, and the log
    /// would wait for them.
    Reserved,
}

impl Room {
    /// Whether room of this kind serves where `wanted` is asked for.
    fn serves(self, wanted: Self) -> bool {
        self == Self::Filled || wanted == Self::Reserved
    }
}

/// What is new about the spares.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SpareNews {
    /// Whether the disk has no room for the next segment.
    Full(bool),
    /// The next segment could not be prepared for another reason, which is given. It is tried
    /// again.
    Failed(String),
}

/// Keeps the next segment ready.
pub(crate) struct Spares<D: Disk> {
    disk: D,
    wal_dir: PathBuf,
    ready: VecDeque<Spare>,
    /// Number in the next spare's name.
    next_name: u64,
    /// Bytes of the next segment; 0 until the log has asked for one.
    wanted_bytes: u64,
    /// How its room is to be taken.
    room: Room,
    /// The last attempt found no room, and nothing is ready.
    full: bool,
    /// Why the last attempt failed, if not for want of room. Reported once for each reason.
    failure: Option<String>,
    /// The failure has not been reported yet.
    failure_is_news: bool,
    worker: Option<Worker>,
}

impl<D: Disk> Spares<D> {
    /// Keeps spares in `wal_dir`, which holds none yet.
    pub(crate) fn new(disk: D, wal_dir: PathBuf, mode: SpareMode) -> io::Result<Self> {
        let worker = match mode {
            SpareMode::Inline => None,
            SpareMode::Thread => Some(Worker::start(disk.clone())?),
        };
        let (ready, room) = (VecDeque::new(), Room::Filled);
        Ok(Self {
            disk,
            wal_dir,
            ready,
            next_name: 0,
            wanted_bytes: 0,
            room,
            full: false,
            failure: None,
            failure_is_news: false,
            worker,
        })
    }

    /// Asks for the next segment: at least `bytes`, with this kind of room. Starts preparing it, if
    /// there is a thread for that.
    pub(crate) fn want(&mut self, bytes: u64, room: Room) {
        (self.wanted_bytes, self.room) = (bytes, room);
        self.order();
    }

    /// Whether a spare of at least `bytes` is ready whose room is filled.
    pub(crate) fn has_filled(&self, bytes: u64) -> bool {
        self.ready.iter().any(|spare| spare.room == Room::Filled && spare.capacity >= bytes)
    }

    /// Whether the last attempt found no room, and nothing is ready.
    pub(crate) const fn is_full(&self) -> bool {
        self.full
    }

    /// Whether no spare of the wanted kind is ready. A reserved one stays meanwhile: it is better
    /// than none.
    fn lacks_some(&self) -> bool {
        !self.ready.iter().any(|spare| spare.room.serves(self.room))
    }

    /// Looks at what the thread has done, or (without one) does it. `Some` when the disk has become
    /// full or has room again, and when an attempt failed for another reason.
    pub(crate) fn poll(&mut self) -> Option<SpareNews> {
        let was_full = self.full;
        if let Some(worker) = &mut self.worker {
            match worker.results.try_recv() {
                Ok(result) => self.take_result(result),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
            }
        } else if self.lacks_some() && self.wanted_bytes > 0 {
            let path = self.new_path();
            let result = prepare(&self.disk, &path, self.wanted_bytes, self.room, &|| false);
            self.take_result(result);
        }
        // The thread may have been busy with another kind when this one was wanted.
        if self.wanted_bytes > 0 {
            self.order();
        }
        if !self.ready.is_empty() {
            self.full = false;
        }
        if self.full != was_full {
            return Some(SpareNews::Full(self.full));
        }
        std::mem::take(&mut self.failure_is_news)
            .then(|| self.failure.clone())
            .flatten()
            .map(SpareNews::Failed)
    }

    /// A spare of at least `bytes`: one that is ready, or a new one with reserved room. The log
    /// waits for this, so it writes no zeros: they may take a second, and the thread may still be
    /// writing those of the segment after this one.
    pub(crate) fn take(&mut self, bytes: u64) -> io::Result<Spare> {
        if self.ready.is_empty()
            && let Some(worker) = self.worker.as_ref().filter(|worker| worker.busy)
            && let Ok(result) = worker.results.try_recv()
        {
            self.take_result(result);
        }
        let long = |spare: &Spare| spare.capacity >= bytes;
        let apt = self.ready.iter().position(|spare| long(spare) && spare.room.serves(self.room));
        if let Some(position) = apt.or_else(|| self.ready.iter().position(long)) {
            return Ok(self.ready.remove(position).expect("the position was just found"));
        }
        let path = self.new_path();
        prepare(&self.disk, &path, bytes.max(self.wanted_bytes), Room::Reserved, &|| false)
    }

    /// Keeps a segment that is no longer needed as a spare, or removes it. The caller syncs the
    /// directory before it uses a spare.
    pub(crate) fn recycle(
        &mut self,
        path: &Path,
        capacity: u64,
        lives: Vec<u64>,
        room: Room,
        keep: bool,
    ) -> io::Result<()> {
        if !keep || lives.len() >= LIVES_MAX {
            return remove_if_there(&self.disk, path);
        }
        if self.ready.len() >= SPARES_MAX {
            // It replaces a spare that is of less use.
            let worse = self.ready.iter().position(|spare| room == Room::Filled && spare.room != room);
            let Some(position) = worse else { return remove_if_there(&self.disk, path) };
            let worse = self.ready.remove(position).expect("the position was just found");
            remove_if_there(&self.disk, &worse.path)?;
        }
        let spare = self.new_path();
        match self.disk.rename(path, &spare) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        self.ready.push_back(Spare { path: spare, capacity, former_lives: lives, room });
        Ok(())
    }

    fn take_result(&mut self, result: io::Result<Spare>) {
        match result {
            Ok(spare) => {
                if let Some(worker) = &mut self.worker {
                    worker.busy = false;
                }
                (self.full, self.failure) = (false, None);
                self.ready.push_back(spare);
            }
            // The thread goes on trying.
            Err(error) if is_full(&error) => (self.full, self.failure) = (self.ready.is_empty(), None),
            Err(error) => {
                let reason = Some(error.to_string());
                (self.full, self.failure_is_news) = (false, self.failure_is_news || self.failure != reason);
                self.failure = reason;
            }
        }
    }

    fn order(&mut self) {
        if self.worker.as_ref().is_none_or(|worker| worker.busy) || !self.lacks_some() {
            return;
        }
        let job = (self.new_path(), self.wanted_bytes, self.room);
        if let Some(worker) = &mut self.worker {
            worker.busy = worker.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        }
    }

    fn new_path(&mut self) -> PathBuf {
        self.next_name += 1;
        self.wal_dir.join(format!("spare-{}", self.next_name))
    }
}

impl<D: Disk> fmt::Debug for Spares<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spares").field("ready", &self.ready).field("full", &self.full).finish_non_exhaustive()
    }
}

/// Whether a name in a log directory is a spare's.
pub(crate) fn is_spare(name: &Path) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("spare-"))
}

/// Removes a file of the log that is not needed any more. Somebody else may have done so.
pub(crate) fn remove_if_there<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Makes a spare; leaves nothing behind if there is no room for it.
fn prepare<D: Disk>(
    disk: &D,
    path: &Path,
    bytes: u64,
    room: Room,
    stop: &dyn Fn() -> bool,
) -> io::Result<Spare> {
    let made = disk.create(path).and_then(|file| match room {
        Room::Filled => fill(&file, 0, bytes, stop),
        Room::Reserved => reserve(&file, bytes, stop),
    });
    if let Err(error) = made {
        // Gives the room back, so that the rest of the node can go on. The error says what
        // happened.
        let _ = disk.remove(path);
        return Err(error);
    }
    Ok(Spare { path: path.to_path_buf(), capacity: bytes, former_lives: Vec::new(), room })
}

/// What the thread is told while it works.
#[derive(Debug, Default)]
struct Orders {
    /// The log is closed.
    stop: AtomicBool,
}

impl Orders {
    /// Before each piece: leaves the disk to the log for twice as long as the last piece took.
    fn pace(&self, last: &Cell<Instant>) -> bool {
        let rest = (last.get().elapsed() * 2).min(REST_MAX);
        if !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(rest);
        }
        last.set(Instant::now());
        self.stop.load(Ordering::Relaxed)
    }
}

struct Worker {
    jobs: Option<Sender<(PathBuf, u64, Room)>>,
    results: Receiver<io::Result<Spare>>,
    /// A job was given whose spare has not come back yet.
    busy: bool,
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start<D: Disk>(disk: D) -> io::Result<Self> {
        let (jobs, inbox) = channel::<(PathBuf, u64, Room)>();
        let (outbox, results) = channel();
        let orders = Arc::new(Orders::default());
        let told = Arc::clone(&orders);
        let thread = std::thread::Builder::new().name("wal-spares".into()).spawn(move || {
            while let Ok((path, bytes, room)) = inbox.recv() {
                loop {
                    let last = Cell::new(Instant::now());
                    let result = prepare(&disk, &path, bytes, room, &|| told.pace(&last));
                    let done = result.is_ok();
                    if outbox.send(result).is_err() || told.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if done {
                        break;
                    }
                    // One job is given at a time: only the end of the log can come in here.
                    match inbox.recv_timeout(RETRY) {
                        Err(RecvTimeoutError::Timeout) => {}
                        Ok(_) | Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            }
        })?;
        Ok(Self { jobs: Some(jobs), results, busy: false, orders, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::Relaxed);
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread does not matter any more: the log is closed.
            let _ = thread.join();
        }
    }
}
