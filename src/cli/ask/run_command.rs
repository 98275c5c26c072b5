//! The command that runs while something is held.

use crate::cli::exit::{ExitStatus, Failure};
use rustix::process::{Pid, Signal, getpgrp, kill_process, kill_process_group};
use rustix::termios::tcgetpgrp;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus as ProcessStatus;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout_at};

/// A command that runs.
pub(super) struct RunningCommand {
    child: Child,
    /// Its process, and its group if it has one of its own.
    pid: Option<Pid>,
    /// The terminal that it shares with this process. Without one it has a group of its own.
    terminal: Option<File>,
}

impl RunningCommand {
    /// Starts it, with these variables more.
    pub(super) fn start(words: &[OsString], variables: &[(&str, String)]) -> Result<Self, Failure> {
        let (program, arguments) = words.split_first().expect("clap lets no empty command through");
        let mut command = Command::new(program);
        command.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
        // With a terminal it stays in our group, wherever its standard input comes from: it may
        // read from the terminal, and gets Ctrl-C and Ctrl-Z itself. In a group of its own it would
        // be in the background, where a read stops it, and Ctrl-Z would stop us alone: the lease
        // would end while it goes on. Without a terminal it has a group of its own, so that all
        // that it has started can be stopped.
        let terminal = File::open("/dev/tty").ok();
        if terminal.is_none() {
            command.process_group(0);
        }
        let child = command.spawn().map_err(|error| {
            let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
            let text = format!("cannot run {}: {error}", program.display());
            Failure::new(ExitStatus::Command(code), text)
        })?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self { child, pid, terminal })
    }

    /// Waits until it has ended. Nothing is lost if the caller does not wait for it to the end.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus, Failure> {
        let ended = self.child.wait().await;
        let status = ended.map_err(|error| {
            Failure::new(ExitStatus::Failure, format!("cannot wait for COMMAND: {error}"))
        })?;
        Ok(status_of(status))
    }

    /// Passes a signal on that we got.
    pub(super) fn pass_on(&self, signal: &str) {
        match signal {
            // Ctrl-C or Ctrl-\, which has reached it already. It would count a second one.
            "SIGINT" | "SIGQUIT" if self.is_in_foreground() => {}
            "SIGINT" => self.signal(Signal::INT),
            "SIGQUIT" => self.signal(Signal::QUIT),
            "SIGHUP" => self.signal(Signal::HUP),
            _ => self.signal(Signal::TERM),
        }
    }

    /// Whether what is typed at the terminal reaches it, and us.
    fn is_in_foreground(&self) -> bool {
        let group = self.terminal.as_ref().and_then(|terminal| tcgetpgrp(terminal).ok());
        group.is_some_and(|group| group == getpgrp())
    }

    fn has_group(&self) -> bool {
        self.terminal.is_none()
    }

    /// Ends it: asks it to stop, and kills it at that instant if it still runs.
    pub(super) async fn stop(&mut self, kill_at: Instant) {
        self.signal(Signal::TERM);
        if timeout_at(kill_at, self.child.wait()).await.is_err() {
            self.signal(Signal::KILL);
            let _ = self.child.wait().await;
        } else if self.has_group() {
            // What it started may have outlived it.
            self.signal(Signal::KILL);
        }
    }

    fn signal(&self, signal: Signal) {
        let Some(pid) = self.pid else { return };
        // It may be gone already: then there is nobody to tell.
        let _ = if self.has_group() { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
    }
}

/// The code as shells have it: 128 and its number if a signal ended it.
fn status_of(status: ProcessStatus) -> ExitStatus {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitStatus::Command(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
