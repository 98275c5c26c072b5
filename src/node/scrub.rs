//! Scrubbing: reads again what is at rest on the disk, at a bounded rate, in a worker of its own.
//! What is damaged is reported to the driver, which has it replaced out of the state in memory.

use crate::node::scrub_queue::ScrubJob;
use crate::node::storage_workers::WorkerNews;
use crate::raft::Time;
use crate::runtime::work::Worker;
use crate::runtime::{Env, Metrics};
use crate::storage::{Scrubbed, Scrubber};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

/// The first pass begins this long after the start, or after [`ScrubOptions::rest_micros`] if that
/// is less: a start has just read most of it.
const FIRST_PASS_MICROS: u64 = 60_000_000;
/// A file that seems to be damaged is read again after this time: it may have been changed while it
/// was read. As long as it is damaged, it is looked at again this often.
const LOOK_AGAIN_MICROS: u64 = 2_000_000;
/// Whether all files are there is looked at this often, or every [`ScrubOptions::rest_micros`] if
/// that is less: it costs two listings.
const ROLL_CALL_MICROS: u64 = 10_000_000;
/// While the disk is slow, or full, nothing is read for this long.
const SLOW_PAUSE_MICROS: u64 = 1_000_000;
/// A worker without anything to do looks again after this time at the latest.
const REST_MICROS_MAX: u64 = 60_000_000;
/// A worker that has something to do comes back after this time at the earliest.
const STEP_MICROS_MIN: u64 = 1_000;
/// The longest sleep before a look at whether to go on.
const SLEEP_MICROS_MAX: u64 = 100_000;

/// How the files of a data directory are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Bytes that are read in a second, at most; 0: nothing is read again.
    pub bytes_per_second: u64,
    /// From the end of a pass over all files to the next.
    pub rest_micros: u64,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { bytes_per_second: 4 << 20, rest_micros: 3_600_000_000 }
    }
}

/// Reads files again.
pub(super) struct ScrubWorker<E: Env> {
    env: E,
    scrubber: Scrubber<E::Disk>,
    options: ScrubOptions,
    metrics: Metrics,
    news: mpsc::UnboundedSender<WorkerNews>,
    /// The node has ended.
    pub(super) ended: Arc<AtomicBool>,
    /// A pass is under way.
    is_in_pass: bool,
    /// When the next pass begins.
    next_pass: Time,
    /// When it is looked at next whether all files are there.
    roll_call: Time,
    /// When the files in [`Self::again`] are looked at.
    look_again: Time,
    /// Files that were damaged when they were read last, or seemed to be.
    again: Vec<PathBuf>,
    /// It was told that files cannot be read, and none has been read since.
    is_unread_told: bool,
}

impl<E: Env> ScrubWorker<E> {
    pub(super) fn new(
        env: &E,
        scrubber: Scrubber<E::Disk>,
        options: ScrubOptions,
        metrics: Metrics,
        news: mpsc::UnboundedSender<WorkerNews>,
    ) -> Self {
        let now = env.now();
        Self {
            env: env.clone(),
            scrubber,
            options,
            metrics,
            news,
            ended: Arc::default(),
            is_in_pass: false,
            next_pass: now.plus(options.rest_micros.min(FIRST_PASS_MICROS)),
            roll_call: now,
            look_again: now,
            again: Vec::new(),
            is_unread_told: false,
        }
    }

    /// Goes one step on: reads a file, or begins or ends a pass. Returns after how many
    /// microseconds the next step is due.
    fn step(&mut self) -> u64 {
        let now = self.env.now();
        if now >= self.roll_call {
            self.call_roll(now);
        }
        if self.metrics.disk_slow.get() != 0 || self.metrics.disk_full.get() != 0 {
            return SLOW_PAUSE_MICROS;
        }
        if !self.again.is_empty() && now >= self.look_again {
            self.look_again = now.plus(LOOK_AGAIN_MICROS);
            let mut read = 0;
            for file in self.again.clone() {
                let (found, bytes) = self.paced(|scrubber, pace| Some(scrubber.check(&file, pace)));
                read += bytes;
                self.take(found);
            }
            return self.wait_for(read);
        }
        if !self.is_in_pass {
            if now < self.next_pass {
                let rest = self.next_pass.since(now).min(self.roll_call.since(now)).min(REST_MICROS_MAX);
                let again = self.look_again.since(now);
                return if self.again.is_empty() { rest } else { rest.min(again) }.max(STEP_MICROS_MIN);
            }
            let bytes = self.scrubber.begin();
            self.metrics.scrub.begin_pass(bytes);
            self.is_in_pass = true;
        }
        let (found, bytes) = self.paced(Scrubber::next);
        if found.is_none() {
            self.is_in_pass = false;
            let now = self.env.now();
            self.next_pass = now.plus(self.options.rest_micros);
            self.metrics.scrub.end_pass(now.get());
            debug!("all that is at rest was read again");
        }
        self.take(found);
        self.wait_for(bytes)
    }

    /// Looks whether all files are there. Nothing is read, so this is done on a slow disk too, and
    /// on a full one: that is where people remove files.
    fn call_roll(&mut self, now: Time) {
        self.roll_call = now.plus(self.options.rest_micros.min(ROLL_CALL_MICROS));
        match self.scrubber.missing() {
            Ok(missing) => {
                for file in missing {
                    let found = self.scrubber.check(&file, &mut |_| false);
                    self.take(Some(found));
                }
            }
            Err(error) => self.note_unread(&error.to_string()),
        }
    }

    /// Reads, no faster than it may. Returns how many bytes were read.
    fn paced(
        &mut self,
        read: impl FnOnce(&mut Scrubber<E::Disk>, &mut dyn FnMut(u64) -> bool) -> Option<Scrubbed>,
    ) -> (Option<Scrubbed>, u64) {
        let (mut total, ended, metrics) = (0, self.ended.clone(), self.metrics.clone());
        let rate = self.options.bytes_per_second;
        let found = read(&mut self.scrubber, &mut |bytes| {
            total += bytes;
            metrics.scrub.read(bytes);
            !E::THREADS || rest(micros_for(bytes, rate), &ended, &metrics)
        });
        (found, total)
    }

    /// After so many bytes. On a thread the time has passed already.
    fn wait_for(&self, bytes: u64) -> u64 {
        let micros = if E::THREADS { 0 } else { micros_for(bytes, self.options.bytes_per_second) };
        micros.max(STEP_MICROS_MIN)
    }

    fn take(&mut self, found: Option<Scrubbed>) {
        match found {
            Some(Scrubbed::Sound(file)) => {
                self.is_unread_told = false;
                self.again.retain(|known| *known != file);
                if self.metrics.scrub.sound(&file.display().to_string()) {
                    info!(file = %file.display(), "MENDED: what was damaged is written anew, or not needed any more");
                    let _ = self.news.send(WorkerNews::Mended(file));
                }
            }
            Some(Scrubbed::Damaged(damage)) => {
                self.metrics.scrub.damaged(&damage.file.display().to_string(), &damage.why);
                self.look_at_again(damage.file.clone());
                let _ = self.news.send(WorkerNews::Scrubbed(damage));
            }
            Some(Scrubbed::Unsure(file)) => self.look_at_again(file),
            Some(Scrubbed::Unread(file, why)) => self.note_unread(&format!("{}: {why}", file.display())),
            Some(Scrubbed::Stopped) | None => {}
        }
    }

    fn look_at_again(&mut self, file: PathBuf) {
        if self.again.is_empty() {
            self.look_again = self.env.now().plus(LOOK_AGAIN_MICROS);
        }
        if !self.again.contains(&file) {
            self.again.push(file);
        }
    }

    /// Something could not be read, which says nothing of what is in it. The next pass tries again.
    fn note_unread(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_unread_told, true) {
            warn!(%why, "what is at rest could not be read again; it is tried again with the next pass");
        }
    }
}

/// How long so many bytes take at this rate, microseconds.
fn micros_for(bytes: u64, per_second: u64) -> u64 {
    bytes.saturating_mul(1_000_000) / per_second.max(1)
}

/// Sleeps for that time, and longer while the disk is slow. `false` if the node has ended.
fn rest(micros: u64, ended: &AtomicBool, metrics: &Metrics) -> bool {
    let mut left = micros;
    while !ended.load(Ordering::Relaxed) {
        let is_slow = metrics.disk_slow.get() != 0;
        if left == 0 && !is_slow {
            return true;
        }
        let now = if left == 0 { SLEEP_MICROS_MAX } else { left.min(SLEEP_MICROS_MAX) };
        std::thread::sleep(Duration::from_micros(now));
        left = left.saturating_sub(now);
    }
    false
}

impl<E: Env> Worker for ScrubWorker<E> {
    type Job = ScrubJob<E::Disk>;
    /// Clients go first.
    const IS_PATIENT: bool = true;

    fn work(&mut self, jobs: Vec<ScrubJob<E::Disk>>) -> bool {
        for job in jobs {
            if let ScrubJob::Use(scrubber) = job {
                self.scrubber = *scrubber;
                self.is_in_pass = false;
                self.again.clear();
                self.metrics.scrub.forget();
            }
        }
        true
    }

    fn idle(&mut self) -> Option<u64> {
        (self.options.bytes_per_second > 0).then(|| self.step())
    }
}
