//! A worker as a task: for a simulation, where nothing really blocks.

use crate::raft::Time;
use crate::runtime::env::Env;
use crate::runtime::work::{IDLE_MICROS, Taken, WorkQueue, Worker};
use std::sync::Arc;

/// Runs `worker` as a task until its queue is closed. A batch is worked on when `micros()` have
/// passed since it was taken: jobs that come meanwhile wait for the next one, as they do while a
/// thread is busy.
pub async fn run_as_task<E: Env, W: Worker>(
    env: E,
    mut worker: W,
    queue: Arc<WorkQueue<W::Job>>,
    mut micros: impl FnMut() -> u64,
) {
    let mut idle_at: Option<Time> = None;
    loop {
        match queue.look() {
            Taken::Jobs(jobs) => {
                env.sleep_until(env.now().plus(micros())).await;
                if !worker.work(jobs) {
                    return;
                }
                idle_at = Some(env.now().plus(IDLE_MICROS));
            }
            Taken::Closed => return worker.close(),
            Taken::Nothing => match idle_at {
                None => queue.task.notified().await,
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = queue.task.notified() => {}
                        () = env.sleep_until(at) => {
                            idle_at = worker.idle().map(|micros| env.now().plus(micros));
                        }
                    }
                }
            },
        }
    }
}
