use crate::runtime::work::{WorkQueue, Worker, run_on_thread};
use std::sync::mpsc;

/// Reports each batch, each pause and the end.
struct Reporter(mpsc::Sender<String>);

impl Worker for Reporter {
    type Job = u32;
    fn work(&mut self, jobs: Vec<u32>) -> bool {
        self.0.send(format!("{jobs:?}")).unwrap();
        !jobs.contains(&99)
    }
    fn idle(&mut self) -> Option<u64> {
        self.0.send("idle".to_owned()).unwrap();
        None
    }
    fn close(&mut self) {
        self.0.send("closed".to_owned()).unwrap();
    }
}

#[test]
fn what_was_queued_meanwhile_is_one_batch() {
    let (reports, seen) = mpsc::channel();
    let queue = WorkQueue::new();
    assert_eq!(queue.push_all(&mut vec![1, 2]), 2);
    assert_eq!(queue.push_all(&mut vec![3]), 3);
    queue.close();
    run_on_thread(Reporter(reports), &queue);
    assert_eq!(seen.iter().collect::<Vec<_>>(), ["[1, 2, 3]", "closed"]);
}

#[test]
fn a_sleeping_worker_is_woken_and_idles_once_in_each_pause() {
    let (reports, seen) = mpsc::channel();
    let queue = WorkQueue::new();
    let worker = std::thread::spawn({
        let queue = queue.clone();
        move || run_on_thread(Reporter(reports), &queue)
    });
    for job in [1, 2] {
        queue.push_all(&mut vec![job]);
        assert_eq!(seen.recv().unwrap(), format!("[{job}]"));
        assert_eq!(seen.recv().unwrap(), "idle");
    }
    queue.close();
    worker.join().unwrap();
    assert_eq!(seen.iter().collect::<Vec<_>>(), ["closed"]);
}

#[test]
fn a_worker_that_gives_up_is_not_closed() {
    let (reports, seen) = mpsc::channel();
    let queue = WorkQueue::new();
    queue.push_all(&mut vec![99]);
    run_on_thread(Reporter(reports), &queue);
    assert_eq!(seen.iter().collect::<Vec<_>>(), ["[99]"]);
}
