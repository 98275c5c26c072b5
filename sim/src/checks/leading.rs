//! Whether leadership changes only for a cause, and a majority that hears itself has a leader.

use crate::checks::service::{Handing, Reign, Service};
use crate::record::violation::Violation;
use crate::schedule::SECOND;
use infinitystore::raft::{RoleName, Term};

/// A leader judges its disk by all writes of this time, with a clock of its own.
const DISK_WINDOW_MICROS: u64 = SECOND + SECOND / 8;

impl Service {
    /// A replica was stepped.
    ///
    /// # Errors
    /// [`Violation`]: leadership changed without a cause.
    pub fn stepped(&mut self, now: u64, slot: usize, role: RoleName, term: Term) -> Result<(), Violation> {
        let stands = role == RoleName::Candidate && self.stood[slot] != term;
        if stands {
            self.stood[slot] = term;
        }
        if let Some(reign) = self.reign {
            let votes = self.at.voters & (1 << slot) != 0;
            let deposes = votes && stands && term == reign.term.next();
            // Whether the order had a cause was judged when it was given. A copy may come late.
            // Both ends may wait for a batch.
            let obeys = self.ordered[slot].is_some_and(|(term, at)| {
                term == reign.term && now.saturating_sub(at) <= 2 * self.bounds.hop
            });
            if deposes && !obeys && !self.bounds.may_be_silent(2, false) {
                self.undoubted(now, reign, slot, "an election has a cause", || {
                    format!("machine {slot} stands for election in term {term}")
                })?;
            }
            if reign.slot == slot && role != RoleName::Leader {
                let others = (self.at.voters.count_ones() as usize).saturating_sub(self.majority()) + 1;
                if term == reign.term && !self.bounds.may_be_silent(others, true) {
                    self.undoubted(now, reign, slot, "a leader that is heard leads on", || {
                        format!("machine {slot} steps down in term {term}")
                    })?;
                }
                self.reign = None;
            }
        }
        if role == RoleName::Leader && self.reign.is_none_or(|reign| term > reign.term) {
            self.reign = Some(Reign { slot, term, since: now });
            self.past.clear();
            self.committed.at = now;
            self.flowing_since = now;
        }
        Ok(())
    }

    /// A machine tells another to take over.
    ///
    /// # Errors
    /// [`Violation`]: it leads, and has no cause to give that up.
    pub fn orders(&self, now: u64, from: usize, to: usize, term: Term) -> Result<(), Violation> {
        let Some(reign) = self.reign.filter(|reign| (reign.slot, reign.term) == (from, term)) else {
            return Ok(());
        };
        let slow = self.disk_slow_at[from].map_or(0, |at| at + DISK_WINDOW_MICROS + self.bounds.doubt);
        let full = self.leader_full_at.map_or(0, |at| at + self.bounds.transfer);
        if now <= slow.max(full) {
            return Ok(());
        }
        self.undoubted(now, reign, from, "an order to take over has a cause", || {
            format!("machine {from} tells machine {to} to take over")
        })
    }

    /// `Err`: no member had a reason to doubt the leader when the machine `by` stood or stepped
    /// down.
    fn undoubted(
        &self,
        now: u64,
        reign: Reign,
        by: usize,
        check: &'static str,
        what: impl Fn() -> String,
    ) -> Result<(), Violation> {
        let Some(since) = self.supported_since(reign.slot) else { return Ok(()) };
        let handed = self.handing.map_or(0, |handing| handing.at.max(self.woke_at[by]));
        let quiet = now.saturating_sub(since.max(handed).max(reign.since));
        if quiet > self.bounds.doubt {
            let Reign { slot, term, .. } = reign;
            let what = what();
            let what = format!(
                "{what}; machine {slot} leads term {term}, in touch with a majority for {quiet} µs, and nothing has struck"
            );
            return Err(Violation { check, what });
        }
        Ok(())
    }

    /// No leader is heard by a majority: for how long may that last?
    pub(super) fn leaderless(&self, now: u64) -> Result<(), Violation> {
        let Some((members, since)) = self.majority_since() else { return Ok(()) };
        if self.reign.is_some_and(|reign| members & (1 << reign.slot) != 0) {
            return Ok(());
        }
        let handed = self.handing.map_or(0, |handing| handing.at);
        let vain = now.saturating_sub(since.max(self.reigned_at).max(handed));
        if vain > self.bounds.elect {
            let what = format!(
                "machines {members:#b} are well and connected for {vain} µs, and none of them leads (last known: {:?})",
                self.reign
            );
            return Err(Violation { check: "a majority elects a leader", what });
        }
        Ok(())
    }

    /// A transfer that nothing hinders has to succeed. Whether it has.
    pub(super) fn handed_over(&mut self, now: u64) -> Result<bool, Violation> {
        let Some(Handing { at, from, owed: Some((slot, due)) }) = self.handing else { return Ok(false) };
        let linked = self.linked_since(from, slot).unwrap_or(u64::MAX);
        let disturbed = self.supported_since(slot).unwrap_or(u64::MAX).max(linked) >= at;
        let leads = self.reign.is_some_and(|reign| reign.slot == slot && reign.since >= at);
        if !leads && !disturbed && now <= due {
            return Ok(false);
        }
        self.handing = Some(Handing { at, from, owed: None });
        if !leads && !disturbed {
            let what = format!("machine {slot} was to lead from {at} on, and does not at {now}");
            return Err(Violation { check: "a transfer succeeds", what });
        }
        Ok(leads)
    }
}
