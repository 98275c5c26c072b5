//! A part of the exam: one member and the others cannot reach each other. The member says that it
//! is not ready. A join at its address is refused in time, and keeps no other join waiting.

use crate::madsim_engine::door::status_of;
use crate::madsim_engine::http::{Request, ask};
use crate::madsim_engine::laws::{self, same};
use crate::madsim_engine::run::Run;
use crate::madsim_engine::time::{now, sleep_until};
use crate::schedule::{Cut, MILLI, SECOND};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// For as long as the exam lasts.
const CUT_MICROS: u64 = 120 * SECOND;
/// `/readyz` waits for a quorum for one second; the rest is for the way.
const READY_MICROS: u64 = 2 * SECOND;
/// A request that needs no answer of the lost member takes at most this, a fraction of the time
/// that waiting for it takes.
const BESIDE_MICROS: u64 = SECOND;

/// Writes that wait at once, and the bytes of each.
const WRITES: usize = 2;
const WRITE_BYTES: usize = 60_000;
/// Within this time their bodies have arrived.
const HELD_MICROS: u64 = 10 * SECOND;

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

    /// Large writes wait at a member that is cut off: what they hold is counted.
    async fn examine_waiting(&self, lost: usize) -> Result<(), String> {
        let settings = self.shared.lock().schedule.settings.clone();
        if settings.uncommitted_bytes_max > 0 || 50 * settings.snapshot_chunk_bytes < 70_000 {
            return Ok(());
        }
        let answered = Arc::new(AtomicUsize::new(0));
        let mut writes = Vec::new();
        for _ in 0..WRITES {
            let (shared, answered) = (self.shared.clone(), answered.clone());
            let value = "w".repeat(WRITE_BYTES);
            let body = format!("{{\"key\":\"waits\",\"value\":\"{value}\",\"action\":\"set\"}}");
            writes.push(madsim::task::spawn(async move {
                let answer = ask(&shared, lost, &Request::post("/set", body)).await;
                answered.fetch_add(1, Ordering::Relaxed);
                answer
            }));
        }
        // On a slow way the bodies take their time.
        let patience = now() + HELD_MICROS;
        loop {
            sleep_until(now() + 300 * MILLI).await;
            let status = ask(&self.shared, lost, &Request::get("/v1/status")).await?;
            let held = (WRITES - answered.load(Ordering::Relaxed)) * WRITE_BYTES;
            let used = status_of(&status, "memory_bytes")?;
            if used >= held {
                break;
            }
            if now() >= patience {
                return Err(format!(
                    "machine {lost} holds {held} bytes of writes that wait, and counts {used}"
                ));
            }
        }
        for write in writes {
            laws::set(&write.await.map_err(|error| error.to_string())??)?;
        }
        Ok(())
    }

    fn cut_off(&self, slot: usize) {
        let mut world = self.shared.lock();
        world.network.cut(Cut::Split(vec![slot]), now() + CUT_MICROS);
        world.attendance.disturb();
    }

    async fn examine_lost(&self, leader: usize, lost: usize, other: usize) -> Result<(), String> {
        self.examine_waiting(lost).await?;
        let began = now();
        let ready = ask(&self.shared, lost, &Request::get("/readyz")).await?;
        same("who has just been cut off is ready", &ready.code, &503)?;
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
            same("a join at an address where nobody answers", &answer.code, &500)?;
        }
        // A join that was passed on may be carried out, even if the member that passed it on is cut
        // off.
        let (shared, request) = (self.shared.clone(), join("somebody", &addr));
        let passed_on = madsim::task::spawn(async move { ask(&shared, other, &request).await });
        sleep_until(now() + 500 * MILLI).await;
        self.cut_off(other);
        let answer = passed_on.await.map_err(|error| error.to_string())??;
        same("a join that was passed on, and then nothing was heard", &answer.code, &500)
    }
}
