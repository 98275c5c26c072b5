//! SIGINT and SIGTERM: the first asks to stop, the second stops at once. SIGHUP (the terminal is
//! gone) asks `dev` and `bench` to stop; a node goes on. SIGQUIT asks `lock` and `elect` to stop,
//! so that they give back what they hold.

use crate::cli::exit::{ExitStatus, Failure};
use std::future::pending;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask to stop.
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// Where SIGQUIT is one of them.
    quit: Option<Signal>,
    /// Whether SIGHUP is one of them.
    stops_on_hangup: bool,
}

impl StopSignals {
    /// For a program that belongs to its terminal. From now on these signals do not end the process
    /// by themselves. Within a runtime.
    pub(super) fn new() -> Result<Self, Failure> {
        Self::listen(true)
    }

    /// For a program that holds something while a command runs: SIGQUIT, too. Ctrl-\ would end this
    /// process alone where the command handles it.
    pub(super) fn for_holder() -> Result<Self, Failure> {
        let quit = Some(listen(SignalKind::quit())?);
        Ok(Self { quit, ..Self::listen(true)? })
    }

    /// For a node, which outlives its terminal: SIGHUP is logged, and nothing else.
    pub(super) fn for_node() -> Result<Self, Failure> {
        Self::listen(false)
    }

    fn listen(stops_on_hangup: bool) -> Result<Self, Failure> {
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            quit: None,
            stops_on_hangup,
        })
    }

    /// Waits for the next one; its name.
    pub(super) async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                biased;
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => return "SIGTERM",
                () = received(&mut self.quit) => return "SIGQUIT",
                _ = self.hangup.recv() => {
                    if self.stops_on_hangup {
                        return "SIGHUP";
                    }
                    tracing::info!("SIGHUP: there is nothing to reload, and the node goes on");
                }
            }
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(ExitStatus::Failure, format!("cannot handle signals: {error}")))
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
}

/// A runtime for one command.
pub(super) struct CommandRuntime(tokio::runtime::Runtime);

impl CommandRuntime {
    /// Runs the command to its end. What it has begun on other threads is not waited for: the
    /// system may look for a name for a long time after nobody wants it any more.
    pub(super) fn block_on<T>(self, command: impl Future<Output = T>) -> T {
        let done = self.0.block_on(command);
        self.0.shutdown_background();
        done
    }
}

/// A runtime for a command, on this thread alone, or with `threads` threads of its own.
pub(super) fn runtime(threads: u16) -> Result<CommandRuntime, Failure> {
    node_runtime(threads).map(CommandRuntime)
}

/// A runtime on this thread alone, or with `threads` threads of its own.
pub(super) fn node_runtime(threads: u16) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = match threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(usize::from(threads));
    }
    builder
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ExitStatus::Failure, format!("cannot start the runtime: {error}")))
}
