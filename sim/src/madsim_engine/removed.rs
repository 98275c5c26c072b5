//! A part of the exam: a member is removed, and goes on. It finds out, says so at once to every
//! caller, and serves no request.

use crate::madsim_engine::book::ProcessId;
use crate::madsim_engine::http::{Request, ask};
use crate::madsim_engine::laws::{self, Told, same};
use crate::madsim_engine::run::Run;
use crate::madsim_engine::standing::examine_holdings;
use crate::madsim_engine::time::{now, sleep_until};
use crate::schedule::{Cut, MILLI, SECOND};
use infinitystore::node::{MemberOrder, OrderCode, OrderConditions};

/// Within this it knows.
const KNOWS_MICROS: u64 = 30 * SECOND;
/// A member lets one go that was removed within this, though it speaks on: four pings, and the
/// time until the removal is committed there.
const LET_GO_MICROS: u64 = 10 * SECOND;
/// A refusal that waits for no other node takes no longer.
const AT_ONCE_MICROS: u64 = 500 * MILLI;
/// What it says.
const WHY: &str = "this node was removed from its cluster";

impl Run {
    /// Removes a member: a follower, or the leader.
    pub(super) async fn examine_removal(&self, seed: u64) -> Result<(), String> {
        // With those that have joined since the exam began.
        self.shared.lock().look_who_stands_now();
        let members = self.members();
        let leader = self.shared.lock().leader(now()).map(|machine| machine.slot);
        let Some(leader) = leader.filter(|leader| members.contains(leader)) else { return Ok(()) };
        let followers: Vec<usize> = members.iter().copied().filter(|slot| *slot != leader).collect();
        // In half of the runs it cannot be told.
        let is_deaf = (seed / 5).is_multiple_of(2);
        let number = usize::try_from(seed).unwrap_or(0);
        let removes_leader = !is_deaf && (seed / 10).is_multiple_of(2);
        let gone = if removes_leader { leader } else { followers[number % followers.len()] };
        // One that stays, or the leader.
        let others: Vec<usize> = members.iter().copied().filter(|slot| *slot != gone).collect();
        let asked =
            if removes_leader && number.is_multiple_of(3) { gone } else { others[number % others.len()] };
        // A member that cannot be reached for a while after it was removed is not told.
        let processes: Vec<ProcessId> = {
            let world = self.shared.lock();
            members.iter().map(|slot| (*slot, world.machines[*slot].life)).collect()
        };
        examine_holdings(&self.shared, &processes).await?;
        let (member, handle) = {
            let mut world = self.shared.lock();
            world.attendance.disturb();
            (world.machines[gone].member, world.machines[asked].handle.clone())
        };
        let (Some(member), Some(handle)) = (member, handle) else { return Ok(()) };
        if is_deaf {
            self.shared.lock().network.cut(Cut::Deaf(gone), u64::MAX);
        }
        // Any member takes the order, and passes it on. A leader hands over first.
        let order = MemberOrder::Remove(vec![format!("id:{member}")]);
        let give_up = now() + KNOWS_MICROS;
        let mut was_unknown = false;
        loop {
            match handle.manage(order.clone(), OrderConditions::default()).await.map_err(|error| error.code) {
                Ok(_) => break,
                Err(OrderCode::NoMember) if was_unknown => break,
                // Those who are left may have been out of touch until now.
                Err(
                    code @ (OrderCode::NoLeader
                    | OrderCode::WouldLoseQuorum
                    | OrderCode::ChangePending
                    | OrderCode::Unknown),
                ) if now() < give_up => {
                    was_unknown |= code == OrderCode::Unknown;
                    self.tick();
                }
                Err(code) => return Err(format!("a member is to be removed: {code:?}")),
            }
            sleep_until(now() + 50 * MILLI).await;
        }
        if gone == leader {
            self.shared.lock().mark("exam of a leader that is removed");
        }
        if is_deaf {
            let left: Vec<ProcessId> = processes.into_iter().filter(|(slot, _)| *slot != gone).collect();
            let result = self.examine_untold(gone, &left).await;
            {
                let mut world = self.shared.lock();
                world.network.calm();
                world.attendance.disturb();
            }
            result?;
            // Those who are left tell it when it calls.
            self.wait_until_told(gone).await?;
            self.shared.lock().mark("a removed member is told when it calls");
            return self.wait_until_well().await;
        }
        self.wait_until_told(gone).await?;
        self.shared.lock().mark("exam of a removed member");
        self.examine_removed(gone).await?;
        self.wait_until_well().await?;
        // The members that are left.
        self.shared.lock().look_who_stands_now();
        Ok(())
    }

    async fn wait_until_told(&self, gone: usize) -> Result<(), String> {
        let give_up = now() + KNOWS_MICROS;
        loop {
            let status = ask(&self.shared, gone, &Request::get("/v1/status")).await?;
            let status: serde_json::Value =
                serde_json::from_slice(&status.body).map_err(|error| format!("/v1/status: {error}"))?;
            if status["removed"] == true {
                return Ok(());
            }
            if now() >= give_up {
                return Err(format!("machine {gone} was removed, and does not know"));
            }
            self.tick();
            sleep_until(now() + 50 * MILLI).await;
        }
    }

    /// A member that was removed and hears nothing of it speaks on. The others let it go.
    async fn examine_untold(&self, gone: usize, left: &[ProcessId]) -> Result<(), String> {
        let give_up = now() + LET_GO_MICROS;
        loop {
            let keeps = {
                let world = self.shared.lock();
                let keeps = |process: &&ProcessId| {
                    world.connections.callers_of(**process).iter().any(|(slot, _)| *slot == gone)
                };
                left.iter().find(keeps).copied()
            };
            let Some((slot, _)) = keeps else { break };
            if now() >= give_up {
                return Err(format!("machine {gone} was removed, and machine {slot} hears it still"));
            }
            self.tick();
            sleep_until(now() + 50 * MILLI).await;
        }
        self.shared.lock().mark("exam of a removed member that is not told");
        Ok(())
    }

    async fn examine_removed(&self, slot: usize) -> Result<(), String> {
        let write = Request::post("/set", "{\"key\":\"gone\",\"value\":\"v\",\"action\":\"set\"}");
        let (read, ready) = (Request::get("/get?key=gone"), Request::get("/readyz"));
        for request in [write, read, ready] {
            let began = now();
            let answer = ask(&self.shared, slot, &request).await?;
            let told = match request.route() {
                "/set" => laws::set(&answer)?,
                "/get" => laws::get("gone", &answer)?,
                _ => Told::Unavailable(answer.text()),
            };
            let says = match &told {
                Told::NotAppended(why) | Told::Unavailable(why) => why.contains(WHY),
                _ => false,
            };
            if !says {
                return Err(format!("machine {slot} was removed, and answers {told:?}"));
            }
            if request.route() == "/readyz" && !answer.text().contains(&format!("[-] member: {WHY}")) {
                return Err(format!("machine {slot} was removed, and calls itself a member: {told:?}"));
            }
            same("not ready", &matches!(answer.code, 500 | 503), &true)?;
            if now() - began > AT_ONCE_MICROS {
                let took = (now() - began) / MILLI;
                return Err(format!("machine {slot} was removed, and says so after {took} ms: {told:?}"));
            }
        }
        Ok(())
    }
}
