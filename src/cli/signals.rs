//! SIGINT and SIGTERM: the first asks to stop, the second stops at once.

use crate::cli::exit::{ExitStatus, Failure};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask to stop.
pub(in crate::cli) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// From now on these signals do not end the process by themselves. Within a runtime.
    pub(in crate::cli) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(ExitStatus::Failure, format!("cannot handle signals: {error}")))
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next one; its name.
    pub(in crate::cli) async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// A runtime: on this thread alone, or with so many of its own.
pub(in crate::cli) fn runtime(threads: u16) -> Result<tokio::runtime::Runtime, Failure> {
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
