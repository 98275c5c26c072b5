//! The second part of the exam: what operators do. Nodes are joined over HTTP, also such that may
//! not be; the leader is told to stop, and comes back.

use crate::madsim_engine::http::{Http, Request, ask};
use crate::madsim_engine::laws::{self, Told, exactly, same};
use crate::madsim_engine::probe::Prober;
use crate::madsim_engine::run::{Newcomer, Run};
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::Shared;
use crate::record::violation::Violation;
use crate::schedule::{MILLI, SECOND};
use madsim::task::JoinHandle;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// For what takes a few elections, or a snapshot in tiny chunks.
const PATIENCE_MICROS: u64 = 60 * SECOND;
const JSON: &str = "application/json";
/// So many write to the others while a leader is told to stop.
const WRITERS: usize = 4;
/// How often a node is killed, or loses its power, while it is being joined.
const KILLS: u64 = 3;
/// About how many disk operations a node makes while it moves into another cluster.
const MOVE_OPERATIONS: u64 = 40;

impl Run {
    /// Joins nodes and stops the leader; `members` are the machines that serve.
    pub(super) async fn examine_operations(&self, members: &[usize]) {
        let seed = self.shared.lock().schedule.seed;
        // Each takes a while: in some runs.
        let mut result = Ok(());
        if seed.is_multiple_of(2) {
            result = self.examine_joins(members, seed).await;
        }
        if result.is_ok() && seed % 3 == 1 && members.len() > 2 && self.shared.lock().is_quick() {
            result = self.examine_cut_off(members, seed).await;
        }
        if result.is_ok() && seed.is_multiple_of(3) && members.len() > 1 {
            result = self.examine_stop(members).await;
        }
        if result.is_ok() && seed % 5 == 3 && members.len() > 2 && self.shared.lock().is_quick() {
            result = self.examine_removal(seed).await;
        }
        if let Err(what) = result {
            self.shared.lock().judge(Err(Violation { check: "operations are carried out", what }));
        }
    }

    async fn examine_joins(&self, members: &[usize], seed: u64) -> Result<(), String> {
        let through = members[usize::try_from(seed / 2).unwrap_or(0) % members.len()];
        let join = |name: &str, addr: &str| Request::post(format!("/join?nodeid={name}&nodeaddr={addr}"), "");
        let shared = &self.shared;
        for (target, code) in [
            ("/join".to_owned(), 400),
            ("/join?nodeid=a".to_owned(), 400),
            ("/join?nodeid=&nodeaddr=m0:8000".to_owned(), 400),
            ("/join?nodeid=a&nodeaddr=m0".to_owned(), 400),
            ("/join?nodeid=a&nodeaddr=m0:0".to_owned(), 400),
            ("/join?nodeid=a+b&nodeaddr=m0:8000".to_owned(), 400),
            (format!("/join?nodeid=somebody&nodeaddr=m{through}:9"), 500),
        ] {
            let answer = ask(shared, through, &Request::post(target.clone(), "")).await?;
            same(&target, &answer.code, &code)?;
            if code == 500 {
                exactly(&answer, 500, JSON, "\"Failed to add voter \"\n")?;
                let reason = answer.header("infinitystore-reason");
                same("a reason is given", &reason.is_some_and(|reason| !reason.is_empty()), &true)?;
            }
        }
        let known = members[0];
        let addr = shared.lock().machines[known].raft_addr();
        let answer = ask(shared, through, &join(&format!("node{known}"), &addr)).await?;
        exactly(&answer, 200, JSON, "\"Voter added\"\n")
            .map_err(|what| format!("a member joins again: {what}"))?;
        let answer = ask(shared, through, &join("another", &addr)).await?;
        same("a member joins under another name", &answer.code, &400)?;
        let free = {
            let world = shared.lock();
            let is_free = |slot: &usize| world.machines[*slot].store.is_none() && !world.machines[*slot].on;
            (0..world.machines.len()).find(is_free)
        };
        match free {
            Some(free) => self.examine_newcomer(free, through, &join).await,
            None => Ok(()),
        }
    }

    /// A node that serves clients of its own is left alone; one without data becomes a voter.
    async fn examine_newcomer(
        &self,
        free: usize,
        through: usize,
        join: &impl Fn(&str, &str) -> Request,
    ) -> Result<(), String> {
        let (name, addr) = (format!("node{free}"), self.shared.lock().machines[free].raft_addr());
        self.shared.lock().machines[free].joins = false;
        // Under the name of a member that lives it would take that one's place.
        self.shared.lock().machines[free].namesake = Some(through);
        self.start(free);
        self.wait("a namesake serves", || self.shared.lock().machines[free].handle.is_some()).await?;
        let answer = ask(&self.shared, through, &join(&format!("node{through}"), &addr)).await?;
        same("a node joins under the name of a member that lives", &answer.code, &409)?;
        self.shared.lock().machines[free].namesake = None;
        self.wipe(free);
        self.start(free);
        self.wait("a cluster of one serves", || self.shared.lock().machines[free].handle.is_some()).await?;
        let give_up = now() + PATIENCE_MICROS;
        let own = Request::post("/set", "{\"key\":\"its own\",\"value\":\"kept\",\"action\":\"set\"}");
        while laws::set(&ask(&self.shared, free, &own).await?)? != Told::Done {
            if now() >= give_up {
                return Err("a cluster of one takes no write".to_owned());
            }
            sleep_until(now() + 100 * MILLI).await;
        }
        let answer = ask(&self.shared, through, &join(&name, &addr)).await?;
        same("a node with data is to join", &answer.code, &409)?;
        let told = laws::get("its own", &ask(&self.shared, free, &Request::get("/get?key=its+own")).await?)?;
        same("its data", &told, &Told::Value(Some("kept".to_owned())))?;
        self.shared.lock().mark("join of a node with data refused");
        // Wiped, as it was told, and joined by hand.
        self.begin_anew(free).await?;
        let quick = self.shared.lock().is_quick();
        if quick {
            self.examine_promises(free).await?;
        }
        let seed = self.shared.lock().schedule.seed;
        if seed.is_multiple_of(4) {
            self.join_in_use(free, through, seed, &join(&name, &addr)).await?;
        }
        for number in 0..KILLS {
            self.kill_while_joining(free, through, seed / 2 + number, &join(&name, &addr)).await?;
        }
        let give_up = now() + PATIENCE_MICROS;
        loop {
            let answer = ask(&self.shared, through, &join(&name, &addr)).await?;
            if answer.code == 200 {
                exactly(&answer, 200, JSON, "\"Voter added\"\n")?;
                break;
            }
            // It may still be the leader of nobody else, or take long to catch up.
            let may_wait = matches!(answer.code, 400 | 409 | 500 | 503);
            if !may_wait || now() >= give_up {
                return Err(format!("{name} is to join: {} {}", answer.code, answer.text()));
            }
            sleep_until(now() + 100 * MILLI).await;
        }
        let is_voter = {
            let world = self.shared.lock();
            let id = world.machines[free].member;
            let leader = world.machines.iter().filter(|it| it.view.leads).max_by_key(|it| it.view.term);
            let membership = leader.and_then(|leader| leader.view.membership.clone());
            membership.is_some_and(|it| id.is_some_and(|id| it.voters.contains(&id)))
        };
        same("a node that was told that it was added is a voter", &is_voter, &true)?;
        self.shared.lock().mark("joined over HTTP");
        self.wait_until_well().await?;
        Prober::new(self.shared.clone(), 101).examine(free, through).await?;
        let voters = self.shared.lock().committed_membership(now()).map_or(0, |it| it.voters.len());
        if quick && voters > 2 && seed % 8 < 4 {
            self.examine_replacement(free, through, &join(&name, &addr)).await?;
        }
        Ok(())
    }

    /// A node is killed while it is being joined, and started again. Where it says that it has not
    /// taken its place, none is left.
    async fn kill_while_joining(
        &self,
        free: usize,
        through: usize,
        number: u64,
        join: &Request,
    ) -> Result<(), String> {
        if self.shared.lock().machines[free].member.is_some() {
            return Ok(());
        }
        let (shared, request) = (self.shared.clone(), join.clone());
        let joining = madsim::task::spawn(async move { ask(&shared, through, &request).await });
        let settings = self.shared.lock().schedule.settings.clone();
        // A few messages and writes: between two steps of the join.
        let whole = 10 * settings.delay_max_micros + 4 * settings.sync_max_micros;
        let loses_power = number.is_multiple_of(2);
        if loses_power {
            self.wait_for_power_loss(free, number * 7919 % MOVE_OPERATIONS, &joining).await;
        } else {
            sleep_until(now() + number * 7919 % 32 * whole / 32).await;
        }
        self.switch_off(free, loses_power);
        self.start(free);
        self.wait("a node starts again", || self.shared.lock().machines[free].handle.is_some()).await?;
        let answer = joining.await.map_err(|error| error.to_string())??;
        let reason = answer.header("infinitystore-reason").unwrap_or("").to_owned();
        if answer.code == 500 && reason.contains("did not take up its place") {
            let world = self.shared.lock();
            let left = world.leader(now()).and_then(|leader| leader.view.membership.clone());
            let left = left.filter(|it| !it.learners.is_empty());
            if let Some(left) = left.filter(|_| world.machines[free].member.is_none()) {
                return Err(format!("a join is refused ({reason}), and a learner is left: {left:?}"));
            }
            drop(world);
            self.shared.lock().mark("join undone");
        }
        Ok(())
    }

    /// Cuts the power of a node after `operations` operations of its disk. The node writes only
    /// what it is told while it is joined, so it stops anywhere within its move.
    async fn wait_for_power_loss<T>(&self, free: usize, operations: u64, joining: &JoinHandle<T>) {
        let give_up = now() + 10 * SECOND;
        {
            let mut world = self.shared.lock();
            let machine = &mut world.machines[free];
            let left = u32::try_from(operations).unwrap_or(u32::MAX);
            machine.disk.faults(|faults| faults.operations_left = Some(left));
            machine.power_fails_at = Some(give_up + SECOND);
        }
        let is_gone = || self.shared.lock().machines[free].disk.power_gone();
        while !is_gone() && !joining.is_finished() && now() < give_up {
            sleep_until(now() + MILLI / 4).await;
        }
        if is_gone() {
            self.shared.lock().mark("power lost in a move");
        }
    }

    /// A machine is switched off, and its disk emptied.
    fn wipe(&self, free: usize) {
        self.switch_off(free, true);
        let mut world = self.shared.lock();
        let machine = &mut world.machines[free];
        machine.disk.wipe();
        (machine.store, machine.member, machine.durable) = (None, None, Default::default());
        machine.under_way.clear();
    }

    async fn begin_anew(&self, free: usize) -> Result<(), String> {
        self.wipe(free);
        self.operator.borrow_mut().insert(free, Newcomer::fresh());
        self.start(free);
        self.wait("a cluster of one serves", || self.shared.lock().machines[free].handle.is_some()).await
    }

    /// A node is joined while somebody writes to it. What it acknowledges is kept, wherever it is
    /// then.
    async fn join_in_use(
        &self,
        free: usize,
        through: usize,
        seed: u64,
        join: &Request,
    ) -> Result<(), String> {
        let (shared, began) = (self.shared.clone(), now());
        let pause = seed / 4 * 37 % 200 * MILLI;
        let writer = madsim::task::spawn(async move {
            sleep_until(began + pause).await;
            let write =
                Request::post("/set", "{\"key\":\"meanwhile\",\"value\":\"kept\",\"action\":\"set\"}");
            while now() < began + SECOND {
                let answer = ask(&shared, free, &write).await;
                if answer.is_ok_and(|answer| matches!(laws::set(&answer), Ok(Told::Done))) {
                    return true;
                }
                sleep_until(now() + 5 * MILLI).await;
            }
            false
        });
        let answer = ask(&self.shared, through, join).await?;
        let is_acknowledged = writer.await.map_err(|error| error.to_string())?;
        let is_joined = answer.code == 200;
        if is_acknowledged {
            let at = if is_joined { through } else { free };
            let read = ask(&self.shared, at, &Request::get("/get?key=meanwhile")).await?;
            let kept = laws::get("meanwhile", &read)?;
            // Where it was refused and may go on in the background, the node may be on its way
            // still.
            if !matches!(kept, Told::Unavailable(_)) {
                same("what was written meanwhile", &kept, &Told::Value(Some("kept".to_owned())))?;
                self.shared.lock().mark(if is_joined { "joined in use" } else { "not joined: in use" });
            }
        }
        if answer.code == 409 { self.begin_anew(free).await } else { Ok(()) }
    }

    /// The leader is told to stop while writes are under way, and started again.
    async fn examine_stop(&self, members: &[usize]) -> Result<(), String> {
        let leader = self.shared.lock().leader(now()).map(|machine| machine.slot);
        let Some(leader) = leader.filter(|leader| members.contains(leader)) else { return Ok(()) };
        let give_up = now() + PATIENCE_MICROS;
        let connection = Http::open(&self.shared, leader, give_up).await;
        let mut connection = connection.ok_or_else(|| format!("machine {leader} takes no connection"))?;
        let write = Request::post("/set", "{\"key\":\"last\",\"value\":\"word\",\"action\":\"set\"}");
        connection.send(&write, give_up).await.map_err(|why| format!("the last write: {why:?}"))?;
        // Until it has arrived.
        let arrives = self.shared.lock().schedule.settings.delay_min_micros;
        sleep_until(now() + 3 * arrives + MILLI).await;
        let idle = self.open_idle(leader).await?;
        let others: Vec<usize> = members.iter().copied().filter(|slot| *slot != leader).collect();
        let ended = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let slot = others[number % others.len()];
                let (shared, ended) = (self.shared.clone(), ended.clone());
                madsim::task::spawn(async move { write_until(&shared, slot, &ended).await })
            })
            .collect();
        sleep_until(now() + 2 * arrives + MILLI).await;
        let told_at = now();
        self.shared.lock().stop_in_peace(leader);
        for mut idle in idle {
            idle.closed(give_up).await.map_err(|why| format!("machine {leader} stops: {why:?}, idle"))?;
        }
        let closed_at = now();
        let answer = connection.receive(give_up).await;
        let answer =
            answer.map_err(|why| format!("machine {leader} stops and leaves a write behind: {why:?}"))?;
        let told = laws::set(&answer)?;
        if self.shared.lock().is_quick() {
            same("a write before the stop", &told, &Told::Done)?;
        }
        self.wait("a node that was told to stop ends", || {
            let world = self.shared.lock();
            world.machines[leader].stopping.is_none()
        })
        .await?;
        let ended_at = now();
        ended.store(true, Ordering::Relaxed);
        // What is lost on the way keeps one waiting, and not all.
        let mut longest = u64::MAX;
        for writer in writers {
            longest = longest.min(writer.await.map_err(|error| error.to_string())??);
        }
        self.shared.lock().judge_stop(leader, [told_at, closed_at, ended_at], longest)?;
        self.wait_until_well().await?;
        Prober::new(self.shared.clone(), 102).examine(leader, members[0]).await
    }

    /// Connections that nothing is asked on: one that never was, and one whose question has been
    /// answered.
    async fn open_idle(&self, slot: usize) -> Result<Vec<Http>, String> {
        let give_up = now() + PATIENCE_MICROS;
        let mut idle = Vec::new();
        for is_used in [false, true] {
            let connection = Http::open(&self.shared, slot, give_up).await;
            let mut connection = connection.ok_or_else(|| format!("machine {slot} takes no connection"))?;
            if is_used {
                let answer = connection.ask(&Request::get("/livez"), give_up).await;
                answer.map_err(|why| format!("machine {slot} does not answer /livez: {why:?}"))?;
            }
            idle.push(connection);
        }
        Ok(idle)
    }

    pub(super) async fn wait_until_well(&self) -> Result<(), String> {
        let all: BTreeSet<usize> = (0..self.nodes.len()).collect();
        self.wait("all are well again", || self.not_recovered(&all).is_none()).await
    }

    /// Waits; machines go on and off meanwhile as they are due.
    pub(super) async fn wait(&self, what: &str, is_so: impl Fn() -> bool) -> Result<(), String> {
        let give_up = now() + PATIENCE_MICROS;
        while !is_so() {
            self.tick();
            self.operate();
            if now() >= give_up || self.shared.lock().violation.is_some() {
                return Err(format!("not so: {what}"));
            }
            sleep_until(now() + 20 * MILLI).await;
        }
        Ok(())
    }
}

/// Writes to a member, one after the other, until the stop is over. The longest time between two
/// that were done.
async fn write_until(shared: &Shared, slot: usize, ended: &AtomicBool) -> Result<u64, String> {
    let write = Request::post("/set", "{\"key\":\"on\",\"value\":\"and on\",\"action\":\"set\"}");
    let (mut done_at, mut longest) = (now(), 0);
    while !ended.load(Ordering::Relaxed) {
        let told = laws::set(&ask(shared, slot, &write).await?)?;
        if told == Told::Done {
            longest = longest.max(now() - done_at);
            done_at = now();
        }
        sleep_until(now() + MILLI).await;
    }
    Ok(longest)
}
