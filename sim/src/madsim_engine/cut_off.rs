//! A part of the exam: one member and the others cannot reach each other. The member says that it
//! is not ready. A join at its address is refused in time, and keeps no other join waiting.

use crate::madsim_engine::door::status_of;
use crate::madsim_engine::http::{Request, ask};
use crate::madsim_engine::laws::{self, same};
use crate::madsim_engine::run::Run;
use crate::madsim_engine::time::{now, sleep_until};
use crate::schedule::{Cut, MILLI, SECOND};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// For as long as the exam lasts.
const CUT_MICROS: u64 = 120 * SECOND;
/// `/readyz` waits for a quorum for one second; the rest is for the way.
const READY_MICROS: u64 = 2 * SECOND;
/// A node asks a quorum for `/readyz` so often at most, by a clock that may be slow.
const READY_KEPT_MICROS: u64 = 150 * MILLI;
/// A request that needs no answer of the lost member takes at most this, a fraction of the time
/// that waiting for it takes.
const BESIDE_MICROS: u64 = SECOND;

/// Bytes of the value of a write that waits.
const WRITE_BYTES: usize = 60_000;
/// How often the node is asked what it holds meanwhile, and for how long at most.
const LOOK_MICROS: u64 = 100 * MILLI;
const LOOKS_MICROS: u64 = 20 * SECOND;

impl Run {
    /// Cuts a follower off; later another one, while the leader is at work for it.
    pub(super) async fn examine_cut_off(&self, members: &[usize], seed: u64) -> Result<(), String> {
        let leader = self.shared.lock().leader(now()).map(|machine| machine.slot);
        let Some(leader) = leader.filter(|leader| members.contains(leader)) else { return Ok(()) };
        let mut followers: Vec<usize> = members.iter().copied().filter(|slot| *slot != leader).collect();
        let first = usize::try_from(seed / 3).unwrap_or(0) % followers.len();
        followers.rotate_left(first);
        let (lost, other) = (followers[0], followers[1]);
        self.shared.lock().mark("exam of a member that is cut off");
        self.cut_off(lost);
        let result = self.examine_lost(leader, lost, other).await;
        {
            let mut world = self.shared.lock();
            world.network.calm();
            world.attendance.disturb();
        }
        result?;
        self.wait_until_well().await
    }

    /// A large write waits at a member that is cut off: what it holds is counted. On a slow way its
    /// body arrives late, so the most that was counted before the answer is judged.
    async fn examine_waiting(&self, lost: usize) -> Result<(), String> {
        let settings = self.shared.lock().schedule.settings.clone();
        if settings.uncommitted_bytes_max > 0 || 50 * settings.snapshot_chunk_bytes < 70_000 {
            return Ok(());
        }
        let answered = Arc::new(AtomicBool::new(false));
        let (shared, done) = (self.shared.clone(), answered.clone());
        let body =
            format!("{{\"key\":\"waits\",\"value\":\"{}\",\"action\":\"set\"}}", "w".repeat(WRITE_BYTES));
        let write = madsim::task::spawn(async move {
            let answer = ask(&shared, lost, &Request::post("/set", body)).await;
            done.store(true, Ordering::Relaxed);
            answer
        });
        let (begun, mut most) = (now(), 0);
        while !answered.load(Ordering::Relaxed) && now() < begun + LOOKS_MICROS {
            sleep_until(now() + LOOK_MICROS).await;
            let status = ask(&self.shared, lost, &Request::get("/v1/status")).await?;
            most = most.max(status_of(&status, "memory_bytes")?);
        }
        // It waited for as long as clients have, which is long enough for a look.
        let waits = settings.client_timeout_micros;
        if waits >= SECOND && now() >= begun + waits && most < WRITE_BYTES {
            return Err(format!("machine {lost} held a write of {WRITE_BYTES} bytes, and counted {most}"));
        }
        laws::set(&write.await.map_err(|error| error.to_string())??)?;
        Ok(())
    }

    fn cut_off(&self, slot: usize) {
        let mut world = self.shared.lock();
        world.network.cut(Cut::Split(vec![slot]), now() + CUT_MICROS);
        world.attendance.disturb();
    }

    async fn examine_lost(&self, leader: usize, lost: usize, other: usize) -> Result<(), String> {
        self.examine_waiting(lost).await?;
        // What a quorum said last may be told again, and a lease may last as long as its promises.
        let settings = self.shared.lock().schedule.settings.clone();
        let lease = if settings.lease_reads { 2 * settings.election_timeout_micros } else { 0 };
        sleep_until(now() + READY_KEPT_MICROS + lease).await;
        let began = now();
        let ready = ask(&self.shared, lost, &Request::get("/readyz")).await?;
        same("the readiness of a member that has just been cut off", &ready.code, &503)?;
        if now() > began + READY_MICROS {
            return Err(format!("/readyz takes {} ms", (now() - began) / MILLI));
        }
        let addr = self.shared.lock().machines[lost].raft_addr();
        let join = |name: &str, addr: &str| Request::post(format!("/join?nodeid={name}&nodeaddr={addr}"), "");
        // Two at once under one name, at an address where no node answers.
        let mut joins = Vec::new();
        for _ in 0..2 {
            let (shared, request) = (self.shared.clone(), join("somebody", &addr));
            joins.push(madsim::task::spawn(async move { ask(&shared, leader, &request).await }));
        }
        sleep_until(now() + 200 * MILLI).await;
        let (began, own) = (now(), self.shared.lock().machines[leader].raft_addr());
        let answer = ask(&self.shared, leader, &join(&format!("node{leader}"), &own)).await?;
        same("a member joins again meanwhile", &answer.code, &200)?;
        if now() > began + BESIDE_MICROS {
            return Err(format!("another join waits for {} ms", (now() - began) / MILLI));
        }
        for joined in joins {
            let answer = joined.await.map_err(|error| error.to_string())??;
            // It asks a quorum first, which is a read: there may be no place for one more.
            let is_crowded = answer.code == 503
                && answer.text().contains("too much is waiting")
                && self.shared.lock().limits.are_few();
            if answer.code != 500 && !is_crowded {
                let (code, text) = (answer.code, answer.text());
                return Err(format!("a join at an address where nobody answers is told {code} {text}"));
            }
        }
        // A join that was passed on may be carried out, even if the member that passed it on is cut
        // off.
        let (shared, request) = (self.shared.clone(), join("somebody", &addr));
        let passed_on = madsim::task::spawn(async move { ask(&shared, other, &request).await });
        // The request has to arrive, and a connection and a greeting come before the join.
        let hop = settings.delay_max_micros * u64::from(settings.link_spread.max(1));
        sleep_until(now() + 500 * MILLI + 6 * hop).await;
        self.cut_off(other);
        let answer = passed_on.await.map_err(|error| error.to_string())??;
        let told = format!("a join that was passed on, and then nothing was heard: {}", answer.text());
        same(&told, &answer.code, &500)
    }
}
