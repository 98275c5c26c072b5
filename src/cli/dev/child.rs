//! One node's process.

use crate::cli::dev::layout::NodePlace;
use crate::cli::exit::{ExitStatus, Failure};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitStatus as ProcessStatus, Stdio};
use std::task::Poll;
use tokio::process::{ChildStdin, Command};
use tokio::time::{Instant, timeout_at};

/// Lines of its log that are shown of a node that died.
const TAIL_LINES: usize = 20;
/// No more of its log is read for them, bytes.
const TAIL_BYTES_MAX: u64 = 64 << 10;

/// A running node. Dropping it kills it.
pub(super) struct Child {
    name: String,
    log: PathBuf,
    /// Where this life's part of the log begins, bytes: earlier lives have theirs before it.
    log_from: u64,
    process: tokio::process::Child,
    /// When this pipe ends, the node stops. Held here, because waiting for a process closes the
    /// pipe that it still has.
    _stdin: Option<ChildStdin>,
    /// Its end has been seen.
    ended: bool,
}

impl Child {
    /// Starts a node; its log is appended to.
    pub(super) fn spawn(place: &NodePlace, log_level: &str) -> Result<Self, Failure> {
        let cannot = |error: io::Error| {
            Failure::new(ExitStatus::Failure, format!("cannot start {}: {error}", place.name))
        };
        let log = File::options().create(true).append(true).open(&place.log).map_err(cannot)?;
        let log_from = log.metadata().map_err(cannot)?.len();
        let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
        // The node gets what is said here, and no options that the environment has for others.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("INFINITYSTORE_")) {
                command.env_remove(name);
            }
        }
        command
            .args([
                "--node-id",
                &place.name,
                "--raft-addr",
                &place.raft_addr(),
                "--http-addr",
                &place.http_addr(),
            ])
            .arg("--data-dir")
            .arg(&place.data)
            .args(["--log-level", log_level, "--stop-with-stdin"])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(cannot)?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        let mut process = command.spawn().map_err(cannot)?;
        let stdin = process.stdin.take();
        Ok(Self {
            name: place.name.clone(),
            log: place.log.clone(),
            log_from,
            process,
            _stdin: stdin,
            ended: false,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it runs, as far as is known.
    pub(super) fn runs(&self) -> bool {
        !self.ended
    }

    /// Kills it, as `kill -9` does. Returns at once.
    pub(super) fn kill(&mut self) {
        // Fails only if it has just ended by itself, which is as good.
        let _ = self.process.start_kill();
    }

    /// Asks it to stop.
    pub(super) fn terminate(&self) {
        let pid = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // It may have ended by itself just now, which is as good.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits for its end, and kills it at the deadline; `false` if that was needed.
    pub(super) async fn wait_until(&mut self, deadline: Instant) -> bool {
        if timeout_at(deadline, self.process.wait()).await.is_ok() {
            return true;
        }
        // Fails only if it has ended meanwhile.
        let _ = self.process.kill().await;
        false
    }

    fn report(&self, status: &ProcessStatus) -> String {
        let end =
            format!("{} has ended ({status}); type `start {}` to start it again.", self.name, self.name);
        if status.success() || status.signal() == Some(Signal::KILL.as_raw()) {
            return end;
        }
        format!("{end} The end of {}:\n{}", self.log.display(), tail(&self.log_of_this_life()))
    }

    /// The end of what it has logged since it was started.
    fn log_of_this_life(&self) -> String {
        let read = || {
            let mut file = File::open(&self.log)?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.log_from.max(end.saturating_sub(TAIL_BYTES_MAX)).min(end)))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
            io::Result::Ok(bytes)
        };
        match read() {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(it cannot be read: {error})"),
        }
    }
}

/// Waits for the next node to end, and says so with the end of its log. `None` if none runs any
/// more.
pub(super) async fn first_exit(children: &mut [Child]) -> Option<String> {
    if children.iter().all(|child| child.ended) {
        return None;
    }
    poll_fn(|cx| {
        for child in children.iter_mut().filter(|child| !child.ended) {
            let polled = pin!(child.process.wait()).poll(cx);
            if let Poll::Ready(status) = polled {
                child.ended = true;
                return Poll::Ready(Some(match status {
                    Ok(status) => child.report(&status),
                    Err(error) => format!("{} cannot be watched: {error}", child.name),
                }));
            }
        }
        Poll::Pending
    })
    .await
}

/// The last lines, indented.
pub(super) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| format!("    {line}\n")).collect()
}
