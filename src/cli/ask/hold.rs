//! `lock` and `elect`: a command runs while something is held.
//!
//! The lease is granted first, and kept alive from then on, while we wait and while we hold. So
//! whatever fails, ours or the cluster's, what we held or waited for ends with it.
//!
//! We stop the command when the lock is lost: its key was deleted, its lease has ended, or nobody
//! has confirmed the lease for three quarters of its time. In the last case the command is gone
//! before the lease can end, as long as the clocks here and there run alike.

use crate::cli::ask::input::{bytes, client_options};
use crate::cli::ask::keeper::{Keeper, Loss, deleted};
use crate::cli::ask::print::{Output, note, readable};
use crate::cli::ask::run_command::RunningCommand;
use crate::cli::client_args::{ConnectArgs, ElectArgs, HoldArgs, LockArgs};
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::signals::{StopSignals, runtime};
use crate::client::{CallError, Client, ClientOptions, ContestKind, ErrorKind, Granted, WatchQuery, Won};
use crate::kv::{KeyRange, LEASE_TTL_SECONDS_MIN, LeaseId};
use bytes::Bytes;
use std::ffi::OsString;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// A node lets nobody wait longer in one call. Shorter, so that a node that is gone is noticed.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Between two attempts when no node could do it.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long giving it back may take, …
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// … and how long one node of those that are asked for it.
const RELEASE_PATIENCE: Duration = Duration::from_millis(1500);

/// What is to be held, and what for.
struct Wish<'a> {
    kind: ContestKind,
    name: Bytes,
    /// What the others see of the holder.
    value: Bytes,
    hold: &'a HoldArgs,
    /// Empty: nothing is run.
    command: &'a [OsString],
}

/// Runs a command while holding a lock.
pub(in crate::cli) fn lock(args: &LockArgs) -> Result<ExitStatus, Failure> {
    let value = Bytes::from(format!("pid {}", std::process::id()));
    let (name, hold) = (bytes(&args.name), &args.hold);
    let wish = Wish { kind: ContestKind::Lock, name, value, hold, command: &args.command };
    runtime(1)?.block_on(run(&args.connect, &wish))
}

/// Runs a command while leading.
pub(in crate::cli) fn elect(args: &ElectArgs) -> Result<ExitStatus, Failure> {
    let (name, value) = (bytes(&args.name), bytes(&args.value));
    let wish = Wish { kind: ContestKind::Election, name, value, hold: &args.hold, command: &args.command };
    runtime(1)?.block_on(run(&args.connect, &wish))
}

async fn run(connect: &ConnectArgs, wish: &Wish<'_>) -> Result<ExitStatus, Failure> {
    let mut signals = StopSignals::for_holder()?;
    // Once for all clients: a password may come from a pipe.
    let options = client_options(connect)?;
    let client_of = |options| Client::new(connect.endpoints.clone(), options);
    let with_patience = |patience: Duration| {
        let mut client = client_of(options.clone());
        client.set_answer_timeout(connect.timeout.min(patience));
        client
    };
    // It has a client of its own: a call that waits must not hold a renewal up. One node that does
    // not answer must not cost all of the lease's time.
    let ttl = wish.hold.ttl.max(Duration::from_secs(LEASE_TTL_SECONDS_MIN));
    let mut keeping = with_patience(ttl / 4);
    let asked = Instant::now();
    let granted = tokio::select! {
        biased;
        signal = signals.next() => return Err(told_to_stop(signal)),
        granted = keeping.grant_lease(wish.hold.ttl, LeaseId::NONE) => granted.map_err(|error| failed(wish, error))?,
    };
    let Granted { id: lease, ttl } = granted;
    // One node a call: how long the next one may wait depends on the time that is left. This one
    // answers.
    let one_node = ClientOptions { attempts_max: 1, ..options.clone() };
    let mut client = client_of(one_node).beginning_at(keeping.place());
    let mut keeper = Keeper::new(keeping, (lease, ttl), asked);
    let ended = hold(&mut client, &mut keeper, &mut signals, wish, (lease, connect.endpoints.len())).await;
    release(&mut with_patience(RELEASE_PATIENCE), wish, lease, ttl).await;
    ended
}

/// Waits for its turn, and runs the command.
async fn hold(
    client: &mut Client,
    keeper: &mut Keeper,
    signals: &mut StopSignals,
    wish: &Wish<'_>,
    (lease, nodes): (LeaseId, usize),
) -> Result<ExitStatus, Failure> {
    let loss = tokio::select! {
        biased;
        signal = signals.next() => return Err(told_to_stop(signal)),
        loss = keeper.begin() => loss,
    };
    if let Some(loss) = loss {
        return Err(lost(wish, &loss, "; nothing was run"));
    }
    let won = tokio::select! {
        biased;
        signal = signals.next() => return Err(told_to_stop(signal)),
        won = wait_for_turn(client, wish, lease, nodes) => won?,
        loss = keeper.keep() => return Err(lost(wish, &loss, "; nothing was run")),
    };
    // This process may have stood still since it won.
    if let Some(loss) = keeper.overdue() {
        return Err(lost(wish, &loss, "; nothing was run"));
    }
    let deletions = WatchQuery {
        from: Some(won.fence.next()),
        puts: false,
        ..WatchQuery::of(KeyRange::one(won.key.clone()))
    };
    let mut watch = client.watch(deletions);
    let mut command = match wish.command {
        [] => {
            let mut out = Output::new();
            out.line(format_args!("leading: fence {}, lease {}", won.fence, won.lease))?;
            out.flush()?;
            None
        }
        words => {
            let variables = [
                ("INFINITYSTORE_FENCE", won.fence.to_string()),
                ("INFINITYSTORE_LEASE", won.lease.to_string()),
            ];
            Some(RunningCommand::start(words, &variables)?)
        }
    };
    let loss = {
        let mut lost = std::pin::pin!(async {
            tokio::select! {
                loss = keeper.keep() => loss,
                loss = deleted(&mut watch, client, (&won.key, won.fence)) => loss,
            }
        });
        loop {
            tokio::select! {
                biased;
                ended = wait(&mut command) => return ended,
                signal = signals.next() => match &command {
                    Some(command) => command.pass_on(signal),
                    None => return Ok(ExitStatus::Success),
                },
                loss = &mut lost => break loss,
            }
        }
    };
    let grace_ends = Instant::now() + wish.hold.grace;
    let kill_at = match &loss {
        Loss::Gone(_) => grace_ends,
        Loss::Unconfirmed(lease_ends, _) => grace_ends.min(*lease_ends),
    };
    let Some(command) = &mut command else { return Err(lost(wish, &loss, "")) };
    command.stop(kill_at).await;
    Err(lost(wish, &loss, "; COMMAND was stopped"))
}

/// Waits until the command has ended; for ever, if there is none.
async fn wait(command: &mut Option<RunningCommand>) -> Result<ExitStatus, Failure> {
    match command {
        Some(command) => command.wait().await,
        None => std::future::pending().await,
    }
}

/// Stands in the queue until it is our turn. The client asks one node a call, of so many. When the
/// time is over, those are still asked that have not failed: each of them may know that it is.
async fn wait_for_turn(
    client: &mut Client,
    wish: &Wish<'_>,
    lease: LeaseId,
    nodes: usize,
) -> Result<Won, Failure> {
    let give_up = wish.hold.wait.map(|wait| Instant::now() + wait);
    // Nodes that have failed since one has answered.
    let mut failed_nodes = 0;
    loop {
        let left = give_up.map(|give_up| give_up.saturating_duration_since(Instant::now()));
        // After a failure a node shows first that it answers.
        let longest = if failed_nodes == 0 { WAIT_MAX } else { Duration::ZERO };
        let wait = left.unwrap_or(WAIT_MAX).min(longest);
        // The place in the queue stays from one call to the next, as long as the lease.
        let (name, value) = (&wish.name, wish.value.clone());
        let answer = client.campaign_and_stay(wish.kind, name, value, (lease, wait)).await;
        let is_over = give_up.is_some_and(|give_up| Instant::now() >= give_up);
        let error = match answer {
            Ok(Some(won)) => return Ok(won),
            Ok(None) if is_over => {
                let text = format!("{} is held by another one; nothing was run", wish.told());
                return Err(Failure::new(ExitStatus::ConditionFailed, text));
            }
            Ok(None) => {
                failed_nodes = 0;
                continue;
            }
            Err(error) => error,
        };
        failed_nodes += 1;
        match error.kind() {
            // The lease ends if that goes on for too long, and with it the attempts.
            ErrorKind::Unavailable | ErrorKind::OutcomeUnknown if !is_over || failed_nodes < nodes => {
                if failed_nodes >= nodes {
                    sleep(RETRY_PAUSE).await;
                }
            }
            ErrorKind::NotFound => {
                return Err(lost(wish, &Loss::Gone(error.to_string()), "; nothing was run"));
            }
            _ => return Err(failed(wish, error)),
        }
    }
}

/// A call that failed before anything was run. The codes of COMMAND are its own, so that there are
/// few others: a lease that may have been made ends by itself, and is nothing to look after.
fn failed(wish: &Wish<'_>, error: CallError) -> Failure {
    match error.kind() {
        ErrorKind::OutcomeUnknown => {
            Failure::new(ExitStatus::Unavailable, format!("{error}; nothing was run"))
        }
        ErrorKind::Denied if error.code() == Some("forbidden") => {
            let option = match wish.kind {
                ContestKind::Lock => "--lock",
                ContestKind::Election => "--election",
            };
            let name = readable(&wish.name);
            let text = format!("{error}: infinitystore role grant ROLE read-write {option} {name}");
            Failure::new(ExitStatus::Failure, text)
        }
        _ => error.into(),
    }
}

/// Gives it back: the lease ends, and all that goes with it.
async fn release(client: &mut Client, wish: &Wish<'_>, lease: LeaseId, ttl: Duration) {
    let why = match timeout(RELEASE_TIMEOUT, client.revoke_lease(lease)).await {
        Ok(Ok(_)) => return,
        // It has ended, perhaps since this was asked before.
        Ok(Err(error)) if error.code() == Some("no-lease") => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no node answered in time".to_owned(),
    };
    let name = wish.told();
    note(format_args!("could not give {name} back: {why}; it ends by itself within {}s", ttl.as_secs()));
}

impl Wish<'_> {
    /// What is held, in words.
    fn told(&self) -> String {
        let name = readable(&self.name);
        match self.kind {
            ContestKind::Lock => format!("the lock {name}"),
            ContestKind::Election => format!("the lead of {name}"),
        }
    }
}

fn lost(wish: &Wish<'_>, loss: &Loss, then: &str) -> Failure {
    let (Loss::Gone(why) | Loss::Unconfirmed(_, why)) = loss;
    Failure::new(ExitStatus::ConditionFailed, format!("{} was lost: {why}{then}", wish.told()))
}

fn told_to_stop(signal: &str) -> Failure {
    Failure::new(ExitStatus::Interrupted, format!("stopped waiting on {signal}"))
}
