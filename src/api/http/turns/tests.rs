use crate::api::http::account::Account;
use crate::api::http::turns::{FEW, TurnPlace, Turns};
use crate::runtime::TokioEnv;
use crate::storage::MemoryDisk;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

/// As many places as a caller gets at once.
fn take_all(turns: &Arc<Turns>, account: &Arc<Account>) -> Vec<TurnPlace> {
    std::iter::from_fn(|| turns.try_take(account)).take(10_000).collect()
}

#[test]
fn a_caller_alone_gets_all_and_beside_others_its_share() {
    let turns = Turns::new(512);
    let (one, other): (Arc<Account>, Arc<Account>) = Default::default();
    let all = take_all(&turns, &one);
    assert_eq!(all.len(), 512);
    let theirs = take_all(&turns, &other);
    assert_eq!(theirs.len(), 256, "whoever came first");
    // Now there are too many, and each gets what the other does.
    drop(all);
    assert_eq!(take_all(&turns, &one).len(), 256);
    drop(theirs);
    assert_eq!(take_all(&turns, &one).len(), 512);
}

#[test]
fn a_caller_with_few_never_waits() {
    let turns = Turns::new(64);
    let greedy = Arc::default();
    let held = take_all(&turns, &greedy);
    let crowd: Vec<Vec<TurnPlace>> = (0..100).map(|_| take_all(&turns, &Arc::default())).collect();
    assert!(crowd.iter().all(|places| places.len() >= FEW));
    drop((held, crowd));
    assert_eq!(take_all(&turns, &greedy).len(), 64, "all were given back");
}

/// A host with a site has 65,536 networks of its own.
#[test]
fn the_networks_of_a_site_are_one_caller() {
    let turns = Turns::new(64);
    let site: Arc<Account> = Arc::default();
    let networks: Vec<_> = (0..100).map(|_| Arc::new(Account::of_site(site.clone()))).collect();
    let held: Vec<_> = networks.iter().flat_map(|network| take_all(&turns, network)).collect();
    assert_eq!(held.len(), 64);
    assert!(take_all(&turns, &Arc::default()).len() >= FEW);
}

/// Polls a request that waits once.
async fn poll<F: Future>(waiting: &mut Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await
}

#[tokio::test]
async fn the_one_that_waits_longest_is_next_and_newcomers_do_not_pass_it() {
    let env = TokioEnv::new(MemoryDisk::new());
    let turns = Turns::new(16);
    let account: Arc<Account> = Arc::default();
    let mut held = take_all(&turns, &account);
    let (mut first, mut second) = (pin!(turns.wait(&env, &account)), pin!(turns.wait(&env, &account)));
    assert!(poll(&mut first).await.is_pending());
    assert!(poll(&mut second).await.is_pending());
    held.pop();
    assert!(turns.try_take(&account).is_none(), "others wait");
    assert!(poll(&mut second).await.is_pending(), "it is not its turn");
    let Poll::Ready(Some(place)) = poll(&mut first).await else { panic!("it is its turn") };
    // Two leave at once, and one is told: it passes that on.
    held.truncate(held.len() - 2);
    let Poll::Ready(Some(other)) = poll(&mut second).await else { panic!("it is its turn") };
    drop((place, other));
    assert!(turns.try_take(&account).is_some(), "nobody waits");
}

/// A client that goes away while its request waits.
#[tokio::test]
async fn one_that_gives_up_passes_its_turn_on() {
    let env = TokioEnv::new(MemoryDisk::new());
    let turns = Turns::new(16);
    let account: Arc<Account> = Arc::default();
    let mut held = take_all(&turns, &account);
    let mut first = Box::pin(turns.wait(&env, &account));
    let mut second = Box::pin(turns.wait(&env, &account));
    for waiting in [&mut first, &mut second] {
        assert!(poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await.is_pending());
    }
    held.pop();
    drop(first);
    assert!(second.await.is_some());
}
