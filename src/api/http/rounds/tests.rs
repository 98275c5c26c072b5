use crate::api::http::rounds::{Line, POLLS_MAX, Rounds, go_behind_all_others};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

/// Names of callers, in the order in which their tasks were polled.
type Polls = Arc<Mutex<Vec<&'static str>>>;

/// Starts `count` tasks of a caller. Each does something `turns` times, and could go on at once.
fn start(
    rounds: &Arc<Rounds>,
    line: &Arc<Line>,
    count: usize,
    name: &'static str,
    turns: usize,
    polls: &Polls,
) {
    for _ in 0..count {
        let polls = polls.clone();
        let task = async move {
            for _ in 0..turns {
                polls.lock().unwrap().push(name);
                go_behind_all_others().await;
            }
        };
        tokio::spawn(rounds.take_part(line.clone(), || false, task));
    }
}

fn count(polls: &Polls, name: &str) -> usize {
    polls.lock().unwrap().iter().filter(|one| **one == name).count()
}

async fn until_polled(polls: &Polls, name: &str, times: usize) {
    while count(polls, name) < times {
        go_behind_all_others().await;
    }
}

#[tokio::test]
async fn a_caller_with_a_thousand_tasks_is_polled_a_few_times_between_two_polls_of_another() {
    let (rounds, polls): (Arc<Rounds>, Polls) = Default::default();
    tokio::spawn(rounds.clone().run());
    start(&rounds, &Arc::default(), 1_000, "many", 10, &polls);
    start(&rounds, &Arc::default(), 1, "one", 50, &polls);
    until_polled(&polls, "many", 10_000).await;
    until_polled(&polls, "one", 50).await;
    let polls = polls.lock().unwrap();
    let places: Vec<_> = (0..polls.len()).filter(|place| polls[*place] == "one").collect();
    assert!(places[0] <= 1_000, "those that were polled before it came");
    // It may be polled in the round in which it is woken, or in the next one.
    assert!(places.windows(2).skip(1).all(|two| two[1] - two[0] <= 2 * POLLS_MAX + 1), "{places:?}");
}

#[tokio::test]
async fn a_caller_alone_does_not_wait_and_an_idle_one_beside_it_does_not_count() {
    let (rounds, polls): (Arc<Rounds>, Polls) = Default::default();
    start(&rounds, &Arc::default(), 1, "idle", 1, &polls);
    until_polled(&polls, "idle", 1).await;
    rounds.tick();
    rounds.tick();
    // Nobody would call those that wait.
    start(&rounds, &Arc::default(), 1_000, "alone", 3, &polls);
    until_polled(&polls, "alone", 3_000).await;
}

#[tokio::test]
async fn all_go_on_at_once_when_nobody_else_is_busy_any_more() {
    let (rounds, polls): (Arc<Rounds>, Polls) = Default::default();
    let (line, other) = (Arc::default(), Arc::default());
    start(&rounds, &other, 1, "other", 1, &polls);
    start(&rounds, &line, 1_000, "many", 1, &polls);
    until_polled(&polls, "many", POLLS_MAX).await;
    rounds.tick();
    rounds.tick();
    assert_eq!(count(&polls, "many"), POLLS_MAX, "nobody calls yet");
    tokio::spawn(rounds.clone().run());
    until_polled(&polls, "many", 1_000).await;
    let rounds = rounds.round.load(Ordering::SeqCst);
    assert!(rounds < 10, "{rounds} rounds, and not sixty");
}

#[tokio::test]
async fn the_tasks_of_a_caller_are_polled_in_the_order_in_which_they_came() {
    let rounds: Arc<Rounds> = Arc::default();
    let order: Arc<Mutex<Vec<usize>>> = Arc::default();
    let (line, other) = (Arc::default(), Arc::default());
    let polls: Polls = Arc::default();
    start(&rounds, &other, 1, "other", 1_000, &polls);
    for task in 0..100 {
        let order = order.clone();
        let task = async move { order.lock().unwrap().push(task) };
        tokio::spawn(rounds.take_part(Arc::clone(&line), || false, task));
    }
    tokio::spawn(rounds.clone().run());
    until_polled(&polls, "other", 1_000).await;
    assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
}

/// A server that stops lets all go on, so that they can end; those, too, that nobody has called
/// before.
#[tokio::test]
async fn nobody_waits_after_the_end() {
    let (rounds, polls): (Arc<Rounds>, Polls) = Default::default();
    let (line, other) = (Arc::default(), Arc::default());
    start(&rounds, &other, 1, "other", 1, &polls);
    start(&rounds, &line, 1_000, "many", 2, &polls);
    until_polled(&polls, "many", POLLS_MAX).await;
    go_behind_all_others().await;
    assert_eq!(count(&polls, "many"), POLLS_MAX, "nobody calls yet");
    rounds.end();
    rounds.clone().run().await;
    until_polled(&polls, "many", 2_000).await;
}

/// A caller that tells a task to end also wakes it.
#[tokio::test]
async fn a_task_that_was_told_to_end_does_not_wait() {
    let (rounds, polls): (Arc<Rounds>, Polls) = Default::default();
    let (line, other) = (Arc::default(), Arc::default());
    let is_told = Arc::new(AtomicBool::new(false));
    let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
    let (told, seen, given) = (is_told.clone(), polls.clone(), waker.clone());
    let task = poll_fn(move |cx| {
        seen.lock().unwrap().push("told");
        *given.lock().unwrap() = Some(cx.waker().clone());
        if told.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    });
    let told = is_told.clone();
    let task = tokio::spawn(rounds.take_part(Arc::clone(&line), move || told.load(Ordering::SeqCst), task));
    until_polled(&polls, "told", 1).await;
    start(&rounds, &other, 1, "other", 1, &polls);
    start(&rounds, &line, 100, "many", 1, &polls);
    until_polled(&polls, "many", POLLS_MAX - 1).await;
    let waker = waker.lock().unwrap().clone().unwrap();
    waker.wake_by_ref();
    for _ in 0..10 {
        go_behind_all_others().await;
    }
    assert_eq!(count(&polls, "told"), 1, "it stands in the line");
    is_told.store(true, Ordering::SeqCst);
    waker.wake();
    task.await.unwrap();
}

/// Tasks that are dropped while they wait, as at the end of a runtime, take nobody's turn for good.
#[tokio::test]
async fn a_task_that_is_dropped_while_it_waits_leaves_the_line() {
    let (rounds, polls): (Arc<Rounds>, Polls) = Default::default();
    let (line, other) = (Arc::default(), Arc::default());
    start(&rounds, &other, 1, "other", 1, &polls);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        tasks.spawn(rounds.take_part(Arc::clone(&line), || false, std::future::pending::<()>()));
    }
    go_behind_all_others().await;
    drop(tasks);
    start(&rounds, &line, 100, "many", 1, &polls);
    tokio::spawn(rounds.clone().run());
    until_polled(&polls, "many", 100).await;
}
