//! Compares the connections, tasks and tables of a node with the membership. Members that can be
//! connected are, within a bound. At rest a node has one connection to each other member, a task
//! for each, and nothing else. No request waits, and nothing is left behind.

use crate::madsim_engine::book::ProcessId;
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::{Shared, World};
use crate::record::violation::Violation;
use crate::schedule::{MILLI, SECOND};
use infinitystore::peer::TransportOptions;

/// Tasks of a process beside those of connections: driver, listeners, workers, and the tasks for
/// joins and for the end.
const TASKS: usize = 15;
/// Runs in which a message takes longer than this are not judged by how soon nodes connect.
const HOP_MICROS: u64 = 100 * MILLI;
/// If there is more than this between two looks, they say nothing of the time between.
const LOOK_MICROS_MAX: u64 = 200 * MILLI;
/// A connection has stood if it is as old as this, beside the time that an attempt may take: the
/// other end has let the caller in.
const STOOD_MICROS: u64 = SECOND;
/// One that has stood and breaks is made anew within this, with a message that is lost on the way:
/// the first pause is the shortest one. Less than the longest pause.
const RECONNECT_MICROS: u64 = 800 * MILLI;
/// Runs in which a message takes longer than this are not judged by that.
const QUICK_HOP_MICROS: u64 = 40 * MILLI;
/// A clock may be slower than ours, and what the network does in between takes a while.
const SLACK_MICROS: u64 = SECOND;

impl World {
    /// How long two members that reach each other may be without a connection: an attempt that
    /// fails, a pause, and the same once more, since the address that a peer has left is tried by
    /// turns.
    fn connect_micros() -> u64 {
        let options = TransportOptions::default();
        2 * (options.connect_timeout_micros + options.backoff_max_micros) + SLACK_MICROS
    }

    /// Whether every member calls every other one that it can call. Looked at now and then.
    pub(super) fn look_who_is_connected(&mut self) {
        let settings = &self.schedule.settings;
        let Some(membership) = self.attendance.membership.clone() else { return };
        let hop = settings.delay_max_micros * u64::from(settings.link_spread.max(1));
        if hop > HOP_MICROS {
            return;
        }
        let quick = hop <= QUICK_HOP_MICROS && (self.calm || settings.straggler_ppm == 0);
        // The last look was long ago: what was so meanwhile is not known.
        let looked_at = std::mem::replace(&mut self.looked_at, now());
        if now() > looked_at + LOOK_MICROS_MAX {
            self.apart.clear();
            self.joined.clear();
            self.broke.clear();
        }
        let slots = self.machines.len();
        let called = self.connections.calls();
        for from in 0..slots {
            for to in (0..slots).filter(|to| *to != from) {
                let lives = (self.machines[from].life, self.machines[to].life);
                let is_due = self.may_call(from, to, &membership);
                let has = called.contains(&((from, lives.0), to));
                let since = match self.apart.get(&(from, to)) {
                    Some((then, since)) if *then == lives && is_due && !has => *since,
                    _ => now(),
                };
                let same = self.apart.get(&(from, to)).is_some_and(|(then, _)| *then == lives);
                if !same {
                    self.joined.remove(&(from, to));
                }
                self.apart.insert((from, to), (lives, since));
                if quick {
                    self.look_how_soon(from, to, is_due && same, has);
                }
                if now() > since + Self::connect_micros() {
                    let what = format!("machine {from} has had no connection to machine {to} since {since}");
                    self.judge(Err(Violation { check: "members that can be connected are", what }));
                }
            }
        }
    }

    /// A connection that has stood and breaks is made anew at once. An outage of earlier does not
    /// count any more.
    fn look_how_soon(&mut self, from: usize, to: usize, is_due: bool, has: bool) {
        if has || !is_due {
            self.broke.remove(&(from, to));
        }
        if has {
            self.joined.entry((from, to)).or_insert_with(now);
            return;
        }
        let old = STOOD_MICROS + TransportOptions::default().connect_timeout_micros;
        let stood = self.joined.remove(&(from, to)).is_some_and(|since| now() >= since + old);
        if stood && is_due {
            *self.marks.entry("connection broke between members that are well").or_default() += 1;
            self.broke.insert((from, to), now());
        }
        if self.broke.get(&(from, to)).is_some_and(|at| now() > at + RECONNECT_MICROS) {
            let what =
                format!("the connection of machine {from} to machine {to} broke, and is not made anew");
            self.judge(Err(Violation { check: "a connection that breaks is made anew at once", what }));
        }
    }

    /// Whether nothing keeps a member from calling another that it knows.
    fn may_call(&mut self, from: usize, to: usize, committed: &infinitystore::raft::Membership) -> bool {
        let at = now();
        let (Some(caller), Some(callee)) = (self.machines[from].member, self.machines[to].member) else {
            return false;
        };
        let knows = |slot: usize| {
            let view = self.machines[slot].view.membership.as_ref();
            view.is_some_and(|it| it.members.contains_key(&caller) && it.members.contains_key(&callee))
        };
        let known = [caller, callee].iter().all(|id| committed.members.contains_key(id));
        let level = self.machines[from].view.level.max(self.machines[to].view.level);
        let spoken = self.machines[from].speaks.common(self.machines[to].speaks, level);
        known
            && spoken.is_some()
            && knows(from)
            && knows(to)
            && self.is_well(from)
            && self.is_well(to)
            && self.network.reaches(at, from, to)
            && self.network.reaches(at, to, from)
    }
}

/// How long a cluster at rest is watched.
const IDLE_MICROS: u64 = 2 * SECOND;
/// Looks in which it may still be found busy.
const IDLE_LOOKS: usize = 4;
/// Within this everything that was under way is through, but for what watchers have left.
const HOLDINGS_MICROS: u64 = 10 * SECOND;
/// Steps of a node at rest beside those that heartbeats bring about.
const IDLE_STEPS: u64 = 60;

/// What a machine has done: process, writes, syncs, elections, and the steps that it has taken.
type Deeds = ((u32, u64, u64, u64), u64);

/// An idle cluster does nothing but send heartbeats. Soon it writes nothing any more, no node
/// stands for election, and each node takes a few steps for each heartbeat.
pub(super) async fn examine_idle(shared: &Shared, members: &[usize]) -> Result<(), String> {
    let look = || -> Vec<Deeds> {
        let world = shared.lock();
        let of = |slot: &usize| {
            let machine = &world.machines[*slot];
            let done = machine.done;
            ((machine.life, done.writes, machine.disk.syncs(), done.elections), machine.steps_taken)
        };
        members.iter().map(of).collect()
    };
    let beat = shared.lock().schedule.settings.heartbeat_interval_micros;
    let most = IDLE_STEPS + 4 * members.len() as u64 * (IDLE_MICROS / beat);
    let mut busy = String::new();
    // What was last written may be witnessed a while later.
    for _ in 0..IDLE_LOOKS {
        let before = look();
        sleep_until(now() + IDLE_MICROS).await;
        let both = before.into_iter().zip(look());
        let is_busy = |(then, later): &(Deeds, Deeds)| then.0 != later.0 || later.1 - then.1 > most;
        let Some((slot, (then, later))) = members.iter().zip(both).find(|(_, both)| is_busy(both)) else {
            shared.lock().mark("idleness judged");
            return Ok(());
        };
        busy = format!("machine {slot} was {then:?} and is {later:?}; {most} steps are enough");
    }
    Err(format!("nobody asks anything, and {busy}"))
}

/// Members at rest: connections and tasks as the membership has them, and empty tables.
pub(super) async fn examine_holdings(shared: &Shared, members: &[ProcessId]) -> Result<(), String> {
    let give_up = now() + HOLDINGS_MICROS;
    let linger = || members.iter().any(|member| shared.lock().keyspace.questions_linger(*member));
    loop {
        match look_at_holdings(shared, members).await {
            Err(_) if now() < give_up || linger() => sleep_until(now() + 100 * MILLI).await,
            result => return result,
        }
    }
}

async fn look_at_holdings(shared: &Shared, members: &[ProcessId]) -> Result<(), String> {
    for &(slot, life) in members {
        let handle = shared.lock().machines[slot].handle.clone();
        let handle = handle.ok_or_else(|| format!("machine {slot} does not run"))?;
        let status = handle.status().await;
        if let Some((what, count)) = status.held.iter().find(|(_, count)| *count > 0) {
            return Err(format!("machine {slot} at rest: {what}: {count}"));
        }
        let mut world = shared.lock();
        let calls = world.connections.calls_of((slot, life));
        let right: Vec<ProcessId> = members.iter().copied().filter(|other| *other != (slot, life)).collect();
        if calls != right {
            return Err(format!("machine {slot} at rest has called {calls:?}, and the others are {right:?}"));
        }
        let clients = world.connections.to_http((slot, life));
        let called_by = world.connections.callers_of((slot, life));
        let (counted, tasks) = world.machines[slot].tasks;
        if let Some(stranger) = called_by.iter().find(|caller| !members.contains(caller)) {
            return Err(format!("machine {slot} at rest is called by {stranger:?}, which is no member"));
        }
        let called_by = called_by.len();
        // One task looks after certificates.
        // And one compares passwords, once there were any.
        let users = usize::from(world.schedule.users);
        let secured = usize::from(world.limits.secured || world.has_secured_clients());
        let most = TASKS + secured + users + right.len() + called_by + clients;
        if counted == life && tasks > most {
            let what =
                format!("{tasks} tasks, with {} peers, {called_by} callers, {clients} clients", right.len());
            return Err(format!("machine {slot} at rest has {what}"));
        }
        world.mark("holdings judged");
    }
    Ok(())
}
