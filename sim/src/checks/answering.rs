//! Whether clients are answered in time, and refused only for a reason.

use crate::checks::pace::Kind;
use crate::checks::service::{Asked, Health, Service};
use crate::record::violation::Violation;
use crate::schedule::MILLI;
use infinitystore::replica::{ClientError, ClientReply, RequestId};

impl Service {
    /// A client asks a machine, which may then hold at most `bytes` of writes. So many requests of
    /// the operator wait `besides` those of clients.
    pub fn asked(
        &mut self,
        now: u64,
        request: RequestId,
        slot: usize,
        write: bool,
        bytes: u64,
        besides: usize,
    ) {
        let (reign, others) = (self.reign.map(|reign| reign.term), self.asked.len() + besides);
        let others = others as u64;
        self.asked.insert(request, Asked { slot, at: now, write, reign, others, bytes });
    }

    /// A client is answered, or waits no longer (`None`). Whether a write was answered that began
    /// before another leader did.
    ///
    /// # Errors
    /// [`Violation`]: the refusal has no reason, or it should have been answered.
    pub fn answered(
        &mut self,
        now: u64,
        request: RequestId,
        reply: Option<&ClientReply>,
        within: u64,
    ) -> Result<bool, Violation> {
        let Some(asked) = self.asked.remove(&request) else { return Ok(false) };
        let error = match reply {
            Some(ClientReply::Failed(error)) => Some(error),
            None => None,
            Some(_) => {
                self.prompt(now, asked)?;
                let reigns = self.reign.map(|reign| reign.term);
                return Ok(asked.write && asked.reign.is_some() && reigns > asked.reign);
            }
        };
        self.reasonable(now, asked, error, within)?;
        let since = self.serves_since(asked);
        let due = since.map_or(0, |since| now.saturating_sub(since.max(asked.at)));
        // What was lost in the network after the leader was known is not sent again.
        let reigns = self.reign.map_or(0, |reign| reign.since);
        let lost = asked.write && self.lost_at[asked.slot].is_some_and(|lost| lost >= asked.at.max(reigns));
        let installed = self.installed_at[asked.slot].is_some_and(|at| at >= asked.at);
        if due > self.bounds.answer && !lost && !installed {
            let what = format!(
                "machine {} was asked at {}, could be served for {due} µs, and says {error:?}",
                asked.slot, asked.at
            );
            return Err(Violation { check: "a client that can be served is served", what });
        }
        Ok(false)
    }

    /// A machine answered: in time, if it could serve all the while?
    fn prompt(&mut self, now: u64, asked: Asked) -> Result<(), Violation> {
        let served = self.serves_since(asked).is_some_and(|since| since + self.bounds.answer <= asked.at);
        let lost = self.lost_at[asked.slot].is_some_and(|lost| lost + self.bounds.answer >= asked.at);
        let (Some(reign), true) = (self.reign, served && !lost && !self.bounds.overtakes) else {
            return Ok(());
        };
        let kind = Kind { leader: reign.slot == asked.slot, write: asked.write };
        self.promptness.answered(kind, asked.at, now, asked.others)
    }

    /// Since when a machine could serve: a leader that commits in time is in touch with a majority,
    /// and with it, and it keeps up.
    fn serves_since(&self, asked: Asked) -> Option<u64> {
        let reign = self.reign?;
        let since = self.supported_since(reign.slot)?;
        let linked = self.linked_since(reign.slot, asked.slot)?;
        if self.at.voters & (1 << asked.slot) == 0 {
            return None;
        }
        let handed = self.handing.map_or(0, |handing| handing.at + self.bounds.transfer);
        let times = [
            since,
            linked,
            reign.since,
            self.flowing_since,
            if asked.slot == reign.slot { 0 } else { self.keeping_since[asked.slot] },
            handed,
        ];
        times.into_iter().max()
    }

    /// Every refusal needs a state that justifies it.
    fn reasonable(
        &self,
        now: u64,
        asked: Asked,
        error: Option<&ClientError>,
        within: u64,
    ) -> Result<(), Violation> {
        let early = now - asked.at < within * 9 / 10 && self.health_since[asked.slot] < asked.at;
        let recently = |at: Option<u64>, micros: u64| at.is_some_and(|at| at + micros >= asked.at);
        let reason = match error {
            // Its time was up long ago, and it was not told so.
            None => self.health_since[asked.slot] >= asked.at || self.at.health[asked.slot] == Health::Absent,
            Some(ClientError::NoLeader | ClientError::NoQuorum) => !early,
            Some(ClientError::Unknown) => !early || recently(self.installed_at[asked.slot], 0),
            Some(ClientError::DiskFull) => {
                let is_full = |at: Option<u64>| recently(at, 2_000 * MILLI);
                is_full(self.leader_full_at) || is_full(self.log_full_at[asked.slot])
            }
            Some(ClientError::Overloaded) => {
                let holds = self.held_bytes_max > 0 && asked.write && asked.bytes > self.held_bytes_max;
                holds || asked.write && recently(self.loaded_at, self.bounds.answer)
            }
            Some(ClientError::Removed) => {
                self.at.voters & (1 << asked.slot) == 0 || self.at.surgery || self.voters_since >= asked.at
            }
            Some(_) => false,
        };
        if reason {
            return Ok(());
        }
        let what = format!(
            "machine {}, asked at {}, answers {error:?} after {} µs",
            asked.slot,
            asked.at,
            now - asked.at
        );
        Err(Violation { check: "a refusal has a reason", what })
    }
}
