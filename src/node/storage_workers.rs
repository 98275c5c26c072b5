//! The storage, off the driver's task: one worker for the log, one that saves snapshots, one that
//! reads chunks of them. So neither a snapshot nor a chunk of one ever delays an acknowledgement.

use crate::kv::Store;
use crate::node::scrub_queue::ScrubJob;
use crate::peer::mending::MendReply;
use crate::raft::{
    ClusterId, LogId, NodeId, SnapshotChunk, SnapshotRead, SnapshotRefusal, StoreId, Withdrawal,
};
use crate::replica::{SnapshotSave, StorageEvent, StorageRequest};
use crate::runtime::Metrics;
use crate::runtime::work::{WorkQueue, Worker};
use crate::storage::{Disk, OpenError, Opened, ScrubDamage, SnapshotFiles, Storage};
use infinitystore_trim::give_back_free_pages;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

/// How often an idle storage looks whether the disk has room.
const LOOK_AFTER_MICROS: u64 = 1_000_000;

/// Once the log was idle this many times, what a start has read is applied, and its memory is given
/// back. If the log is never idle, the first snapshot does that.
const IDLES_OF_A_START: u32 = 5;

/// A member whose state differs sets its data aside this many times, at most.
pub(super) const REBUILDS_MAX: usize = 3;

/// The worker logs a note that it cannot write once in this many tries.
const MARKS_TOLD_EVERY: u32 = 60;

/// A snapshot of which no chunk was asked for this time is not being sent.
const READERS_KEPT_MICROS: u64 = 10_000_000;

/// What the workers report to the driver.
#[derive(Debug)]
pub(super) enum WorkerNews {
    /// An answer for the replica.
    StorageEvent(StorageEvent),
    /// The data directory belongs to another member now.
    Adopted(Box<Opened>),
    /// Nothing can be made durable any more, and why.
    Failed(String),
    /// The same, and the disk is to blame.
    DiskFailed(String),
    /// The log is complete and closed.
    Closed,
    /// It is noted that the directory is not to be used as it is, and why.
    Condemned(String),
    /// A file is damaged, or gone.
    Scrubbed(ScrubDamage),
    /// A file that was damaged is not any more.
    Mended(PathBuf),
    /// It was not noted that the directory is not to be used, since that was done too often, and
    /// what a person is told.
    StaysWithdrawn(String),
}

/// Jobs of the log's worker.
#[derive(Debug)]
pub(super) enum LogJob {
    /// To write.
    StorageRequest(StorageRequest),
    /// To do without a segment that is damaged, or gone, or to write the identity anew.
    Condemn(PathBuf),
    /// To note that the directory is not to be used as it is, and why.
    Rebuild(Withdrawal),
    /// To note that this member takes no part any more, and why.
    NoteWithdrawn(Withdrawal),
    /// To note that another cluster calls this node as its member.
    NoteCalled(ClusterId, NodeId),
    /// To write down the alarms that stand.
    NoteAlarms,
    /// To note where the other members are.
    NotePeers(Vec<String>),
    /// To become another cluster's member, with an empty log.
    Adopt {
        /// The cluster.
        cluster: ClusterId,
        /// The id in it.
        member: NodeId,
        /// The data directory's new identity.
        store: StoreId,
    },
}

/// Jobs of the two snapshot workers.
#[derive(Debug)]
pub(super) enum SnapshotJob<D: Disk> {
    /// To write a snapshot file.
    Save(Box<SnapshotSave>),
    /// To read a chunk of one.
    Read(SnapshotRead),
    /// To read a chunk of one, for a node that repairs its data directory.
    Mend {
        /// The snapshot.
        snapshot: LogId,
        /// Where the chunk starts.
        offset: u64,
        /// Bytes of it, at most.
        bytes_max: u64,
        /// Where the answer goes.
        reply: oneshot::Sender<MendReply>,
    },
    /// To give the log's worker this job, once all saves that came before are done.
    PassOn(LogJob, Arc<WorkQueue<LogJob>>),
    /// To let go of a state that another one has replaced, which takes a second if it is large.
    LetGo(Box<Store>),
    /// To go on in another cluster's directory.
    Use(SnapshotFiles<D>),
}

/// Snapshot jobs on their way: one worker saves, another reads, so that a member that is being sent
/// one does not wait until the next is written.
#[derive(Debug)]
pub(super) struct SnapshotQueues<D: Disk> {
    /// To the one that saves.
    pub saves: Arc<WorkQueue<SnapshotJob<D>>>,
    /// To the one that reads.
    pub reads: Arc<WorkQueue<SnapshotJob<D>>>,
}

impl<D: Disk> Clone for SnapshotQueues<D> {
    fn clone(&self) -> Self {
        Self { saves: self.saves.clone(), reads: self.reads.clone() }
    }
}

impl<D: Disk> SnapshotQueues<D> {
    /// Empty queues.
    pub(super) fn new() -> Self {
        Self { saves: WorkQueue::new(), reads: WorkQueue::new() }
    }

    /// No more jobs come.
    pub(super) fn close(&self) {
        self.saves.close();
        self.reads.close();
    }

    fn use_files(&self, files: &SnapshotFiles<D>) {
        for queue in [&self.saves, &self.reads] {
            queue.push_all(&mut vec![SnapshotJob::Use(files.clone())]);
        }
    }
}

/// Writes the log: all that waits is handed to the storage at once.
#[derive(Debug)]
pub(super) struct LogWorker<D: Disk> {
    storage: Option<Storage<D>>,
    snapshots: SnapshotQueues<D>,
    scrub: Arc<WorkQueue<ScrubJob<D>>>,
    news: mpsc::UnboundedSender<WorkerNews>,
    metrics: Metrics,
    requests: Vec<StorageRequest>,
    events: Vec<StorageEvent>,
    sync_micros: Vec<u64>,
    /// How often it has been idle since the start.
    idles: u32,
    /// The alarms could not be written down, and that was told.
    is_unwritten_told: bool,
    /// The identity could not be written anew, and that was told.
    is_unmended_told: bool,
    /// What could not be noted of this directory, and has to be. It is tried again and again.
    unnoted: Vec<Mark>,
}

/// What a start has to know of a directory.
#[derive(Debug)]
enum Mark {
    /// It is not to be used as it is, and why.
    Rebuild(Withdrawal),
    /// The member takes no part any more, and why.
    Withdrawn(Withdrawal),
}

impl<D: Disk> LogWorker<D> {
    /// A worker on an open data directory.
    pub(super) fn new(
        storage: Storage<D>,
        snapshots: SnapshotQueues<D>,
        scrub: Arc<WorkQueue<ScrubJob<D>>>,
        news: mpsc::UnboundedSender<WorkerNews>,
        metrics: Metrics,
    ) -> Self {
        let (requests, events, sync_micros) = (Vec::new(), Vec::new(), Vec::new());
        let storage = Some(storage);
        Self {
            storage,
            snapshots,
            scrub,
            news,
            metrics,
            requests,
            events,
            sync_micros,
            idles: 0,
            is_unwritten_told: false,
            is_unmended_told: false,
            unnoted: Vec::new(),
        }
    }

    fn flush(&mut self) -> bool {
        if self.requests.is_empty() {
            return true;
        }
        let Some(storage) = &mut self.storage else { return false };
        let writes = self.requests.iter().filter(|request| matches!(request, StorageRequest::Write(_)));
        self.metrics.fsync_records.inc_by(writes.count() as u64);
        let handled = storage.handle(&mut self.requests, &mut self.events);
        storage.take_sync_micros(&mut self.sync_micros);
        self.sync_micros.drain(..).for_each(|micros| self.metrics.fsync.observe(micros));
        self.report(handled.map_err(|error| error.to_string()))
    }

    fn adopt(&mut self, cluster: ClusterId, member: NodeId, store: StoreId) -> bool {
        let Some(storage) = self.storage.take() else { return false };
        match storage.adopt(cluster, member, store) {
            Ok((storage, opened)) => {
                self.snapshots.use_files(&storage.snapshot_files());
                self.scrub.push_all(&mut vec![ScrubJob::Use(Box::new(storage.scrubber()))]);
                // The new log says so again if there is no room for it either.
                self.metrics.disk_full.set(0);
                self.storage = Some(storage);
                self.tell(WorkerNews::Adopted(Box::new(opened)));
                true
            }
            Err(error) => self.report(Err(error.to_string())),
        }
    }

    fn condemn(&mut self, file: &Path) -> bool {
        let Some(storage) = &mut self.storage else { return false };
        if let Some(mended) = storage.mend_note(file) {
            // It is asked for again as long as it is damaged.
            match mended {
                Ok(()) => self.is_unmended_told = false,
                Err(error) if !std::mem::replace(&mut self.is_unmended_told, true) => {
                    warn!(%error, "a file that says whose directory this is could not be written anew; it is tried again");
                }
                Err(_) => {}
            }
            return true;
        }
        let condemned = storage.condemn(file, &mut self.events);
        self.report(condemned.map_err(|error| error.to_string()))
    }

    /// Writes down the alarms that stand, if they have changed. What could not be written is tried
    /// again whenever the log is idle.
    fn note_alarms(&mut self) {
        let Some(storage) = &self.storage else { return };
        let Some(lines) = self.metrics.alarm_board.take_news() else { return };
        match storage.note_alarms(&lines) {
            Ok(()) => self.is_unwritten_told = false,
            Err(error) => {
                self.metrics.alarm_board.not_written();
                if !std::mem::replace(&mut self.is_unwritten_told, true) {
                    warn!(%error, "the alarms could not be written down; it is tried again, and an end before that forgets them");
                }
            }
        }
    }

    /// Notes that the directory is not to be used as it is. `false`: it is noted, and nothing more
    /// is written.
    ///
    /// A machine that makes the state differ again each time must not fill the disk with what was
    /// set aside, and load the others with one join after another. After a few times the member
    /// stays as it is: withdrawn. So are its later starts, until a person removes what was set
    /// aside.
    fn rebuild(&mut self, why: Withdrawal) -> bool {
        let Some(storage) = &self.storage else { return true };
        let rebuilt = storage.times_rebuilt();
        if rebuilt >= REBUILDS_MAX {
            let text = format!(
                "{why}. It has set its data aside {rebuilt} times for this, and takes no part any more: suspect its machine. To have it join once more, remove the directories damaged-N, and start it again"
            );
            self.note_withdrawn(why);
            self.tell(WorkerNews::StaysWithdrawn(text));
            return true;
        }
        match storage.note_rebuild(&why.to_string()) {
            Ok(()) => {
                error!("this member sets its data aside, and joins its cluster anew");
                // The directory is free before anybody may start on it again.
                self.storage = None;
                self.tell(WorkerNews::Condemned(why.to_string()));
                false
            }
            Err(error) => {
                self.try_again(Mark::Rebuild(why), &error);
                true
            }
        }
    }

    /// Notes, as far as the disk lets it, that the member takes no part any more.
    fn note_withdrawn(&mut self, why: Withdrawal) {
        let noted = self.storage.as_ref().map_or(Ok(()), |storage| storage.note_withdrawn(&why));
        if let Err(error) = noted {
            self.try_again(Mark::Withdrawn(why), &error);
        }
    }

    /// It takes no part as it is. The next start has to know that, too.
    fn try_again(&mut self, mark: Mark, error: &OpenError) {
        if self.idles.is_multiple_of(MARKS_TOLD_EVERY) {
            error!(%error, "that this directory is not to be used could not be noted; it is tried again");
        }
        self.unnoted.push(mark);
    }

    /// Notes what could not be noted before. `false` when the directory is closed, since it is not
    /// to be used any more.
    fn note_marks(&mut self) -> bool {
        std::mem::take(&mut self.unnoted).into_iter().all(|mark| match mark {
            Mark::Rebuild(why) => self.rebuild(why),
            Mark::Withdrawn(why) => {
                self.note_withdrawn(why);
                true
            }
        })
    }

    /// Tells the driver what has become of the requests; `false` when nothing can be written any
    /// more.
    fn report(&mut self, result: Result<(), String>) -> bool {
        let lacks_room = |event: &StorageEvent| match event {
            StorageEvent::Durable { refused: Some(refused), .. } => refused.why == SnapshotRefusal::NoRoom,
            _ => false,
        };
        if self.events.iter().any(lacks_room) {
            self.make_room();
        }
        for event in self.events.drain(..) {
            if let StorageEvent::DiskFull(full) = event {
                self.metrics.disk_full.set(i64::from(full));
                if full {
                    error!("the disk has no room for the log: writes are refused until there is some");
                } else {
                    info!("the disk has room again: writes are taken");
                }
            }
            if let StorageEvent::LogFull(full) = event {
                if full {
                    error!(
                        "the log has no room at all: this node stores and acknowledges nothing more until there is some; \
                         it goes on by itself then, and answers reads meanwhile"
                    );
                } else {
                    info!("the log has room again: this node stores what it is sent");
                }
            }
            if let StorageEvent::SegmentNotReady { reason } = &event {
                self.metrics.segments_failed.inc();
                warn!(%reason, "the next log segment cannot be prepared; check the disk. It is tried again");
            }
            // If the driver is gone, the news is not needed.
            let _ = self.news.send(WorkerNews::StorageEvent(event));
        }
        let Err(reason) = result else { return true };
        self.storage = None;
        self.tell(WorkerNews::DiskFailed(reason));
        false
    }

    /// The disk has no room for the leader's snapshot, without which this member is of no use. What
    /// was set aside of members that this node was before goes first. The leader sends the snapshot
    /// again.
    fn make_room(&self) {
        let Some(storage) = &self.storage else { return };
        match storage.free_aside() {
            Ok(freed) if freed.is_empty() => {}
            Ok(freed) => {
                warn!(
                    ?freed,
                    "removed logs and snapshots that had been set aside: there was no room for a snapshot"
                );
            }
            Err(error) => warn!(%error, "what was set aside could not be removed to make room"),
        }
    }

    fn tell(&self, news: WorkerNews) {
        let _ = self.news.send(news);
    }
}

impl<D: Disk> Worker for LogWorker<D> {
    type Job = LogJob;

    fn work(&mut self, jobs: Vec<LogJob>) -> bool {
        for job in jobs {
            match job {
                LogJob::StorageRequest(request) => self.requests.push(request),
                LogJob::NotePeers(peers) => {
                    let noted = self.storage.as_ref().map_or(Ok(()), |storage| storage.note_peers(&peers));
                    if let Err(error) = noted {
                        warn!(%error, "where the other members are could not be noted");
                    }
                }
                LogJob::NoteAlarms => self.note_alarms(),
                LogJob::NoteCalled(cluster, member) => {
                    let noted =
                        self.storage.as_ref().map_or(Ok(()), |storage| storage.note_called(cluster, member));
                    if let Err(error) = noted {
                        warn!(%error, "that another cluster calls this node could not be noted");
                    }
                }
                LogJob::NoteWithdrawn(why) => self.note_withdrawn(why),
                LogJob::Rebuild(why) => {
                    if !self.rebuild(why) {
                        return false;
                    }
                }
                LogJob::Condemn(file) => {
                    if !(self.flush() && self.condemn(&file)) {
                        return false;
                    }
                }
                LogJob::Adopt { cluster, member, store } => {
                    if !(self.flush() && self.adopt(cluster, member, store)) {
                        return false;
                    }
                }
            }
        }
        self.flush()
    }

    fn idle(&mut self) -> Option<u64> {
        self.note_alarms();
        let idled = self.storage.as_mut()?.idle(&mut self.events);
        self.idles = self.idles.saturating_add(1);
        if !self.note_marks() {
            return None;
        }
        if self.idles == IDLES_OF_A_START {
            give_back_free_pages();
        }
        self.report(idled.map_err(|error| error.to_string())).then_some(LOOK_AFTER_MICROS)
    }

    fn close(&mut self) {
        self.note_alarms();
        let Some(storage) = self.storage.take() else { return };
        match storage.close() {
            Ok(()) => self.tell(WorkerNews::Closed),
            Err(error) => self.tell(WorkerNews::DiskFailed(error.to_string())),
        }
    }
}

/// Writes snapshot files, or reads chunks of them.
#[derive(Debug)]
pub(super) struct SnapshotWorker<D: Disk> {
    files: SnapshotFiles<D>,
    /// It has read chunks since it last closed the files that they came from. The files are shared
    /// with the worker that saves, which may have nothing to do for long while one of them is being
    /// sent.
    has_read: bool,
    /// It has read chunks, and had nothing to do for a moment.
    rests: bool,
    /// The memory that the start needed has not been given back to the system yet.
    started: bool,
    news: mpsc::UnboundedSender<WorkerNews>,
}

impl<D: Disk> SnapshotWorker<D> {
    /// A worker on the snapshot files of an open data directory.
    pub(super) fn new(files: SnapshotFiles<D>, news: mpsc::UnboundedSender<WorkerNews>) -> Self {
        Self { files, has_read: false, rests: false, started: true, news }
    }

    /// A start reads the whole log back to the older snapshot, most of which goes once it is
    /// applied. The thread that took the memory has ended, and no other would use it again.
    fn give_back_memory(&mut self) {
        if std::mem::take(&mut self.started) {
            give_back_free_pages();
        }
    }
}

impl<D: Disk> Worker for SnapshotWorker<D> {
    type Job = SnapshotJob<D>;
    /// Writing a snapshot takes seconds of processor time. Where that is short, clients go first.
    const IS_PATIENT: bool = true;

    fn work(&mut self, jobs: Vec<SnapshotJob<D>>) -> bool {
        self.rests = false;
        for job in jobs {
            let event = match job {
                SnapshotJob::Save(save) => {
                    let last = save.last;
                    match self.files.save(*save) {
                        Ok(meta) => {
                            self.give_back_memory();
                            StorageEvent::SnapshotSaved(Box::new(meta))
                        }
                        Err(error) => StorageEvent::SnapshotFailed { last, reason: error.to_string() },
                    }
                }
                SnapshotJob::Read(read) => {
                    self.has_read = true;
                    self.files.answer_read(&read)
                }
                SnapshotJob::Mend { snapshot, offset, bytes_max, reply } => {
                    self.has_read = true;
                    // The caller may have gone.
                    let _ = reply.send(mend_chunk(&self.files, snapshot, offset, bytes_max));
                    continue;
                }
                SnapshotJob::PassOn(job, log) => {
                    log.push_all(&mut vec![job]);
                    continue;
                }
                SnapshotJob::LetGo(state) => {
                    drop(state);
                    continue;
                }
                SnapshotJob::Use(files) => {
                    self.files = files;
                    continue;
                }
            };
            let _ = self.news.send(WorkerNews::StorageEvent(event));
        }
        true
    }

    fn idle(&mut self) -> Option<u64> {
        if self.rests {
            self.files.close_readers();
            self.has_read = false;
        }
        self.rests = self.has_read;
        self.rests.then_some(READERS_KEPT_MICROS)
    }
}

/// A chunk of a snapshot, for a node that repairs its data directory.
pub(super) fn mend_chunk<D: Disk>(
    files: &SnapshotFiles<D>,
    snapshot: LogId,
    offset: u64,
    bytes_max: u64,
) -> MendReply {
    match files.read_part(snapshot, offset, bytes_max) {
        Ok(SnapshotChunk { snapshot, offset, data, done }) => {
            MendReply::Chunk { snapshot: snapshot.encode(), offset, data: data.to_vec(), done }
        }
        Err(error) => MendReply::Refused(error.to_string()),
    }
}

/// If the thread of a worker panics, the node must not go on taking writes that it never answers.
impl<D: Disk> Drop for LogWorker<D> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell(WorkerNews::Failed(
                "the thread that writes the log panicked; see the lines before".to_owned(),
            ));
        }
    }
}

impl<D: Disk> Drop for SnapshotWorker<D> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "the thread that writes snapshots panicked; see the lines before".to_owned();
            let _ = self.news.send(WorkerNews::Failed(reason));
        }
    }
}

#[cfg(test)]
mod tests;
