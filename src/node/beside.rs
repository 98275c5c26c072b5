//! One piece of synchronous work, beside the tasks.

use crate::node::options::StartError;
use crate::runtime::Env;
use crate::runtime::work::{WorkQueue, Worker};
use crate::storage::OpenError;
use tokio::sync::oneshot;

/// Does `work` on a worker of its own, and waits for its result.
///
/// # Errors
/// [`StartError::Thread`] if there is no thread for it.
pub(super) async fn beside<E: Env, T: Send + 'static>(
    env: &E,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    let (reply, answer) = oneshot::channel();
    let queue = WorkQueue::new();
    let once = move || {
        // The task that waits may have been told to stop.
        let _ = reply.send(work());
    };
    queue.push_all(&mut vec![Box::new(once) as Job]);
    queue.close();
    env.start_worker(name, Once, queue).map_err(StartError::Thread)?;
    answer.await.map_err(|_| StartError::Storage(format!("{name} panicked; see the lines before")))
}

/// The same for work on the disk.
///
/// # Errors
/// [`StartError`].
pub(super) async fn in_blocks<E: Env, T: Send + 'static>(
    env: &E,
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, StartError> {
    beside(env, "repairing", work).await?.map_err(|error| StartError::of_storage(&error))
}

type Job = Box<dyn FnOnce() + Send>;

struct Once;

impl Worker for Once {
    type Job = Job;

    fn work(&mut self, jobs: Vec<Job>) -> bool {
        jobs.into_iter().for_each(|job| job());
        false
    }
}
