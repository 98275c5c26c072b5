//! Leases, looked at as leaders propose their ends and as these are committed.

use crate::madsim_engine::time::now;
use crate::madsim_engine::world::World;
use crate::record::violation::Violation;
use infinitystore::kv::{LeaseId, Op};
use infinitystore::raft::{RoleName, Time};
use infinitystore::replica::{Replica, decode_proposal};

/// A lease whose time is longer is not waited for at the end.
const SHORT_SECONDS: u64 = 10;

impl World {
    /// What every machine's clock shows.
    pub(super) fn clocks(&self) -> Vec<Time> {
        self.machines.iter().map(|machine| machine.clock.read(now())).collect()
    }

    /// A machine was stepped: a leader proposes the ends of leases, and entries were committed.
    pub(super) fn look_at_leases(&mut self, slot: usize, replica: &Replica) -> Result<(), Violation> {
        if self.keyspace.len() == 0 {
            return Ok(());
        }
        self.note_ends(slot, replica);
        let (from, to) = (self.keyspace.commits_seen + 1, self.checks.ledger.model().applied());
        if from > to {
            return Ok(());
        }
        self.keyspace.commits_seen = to;
        let clocks = self.clocks();
        for index in from..=to {
            let term = self.checks.committed_entries()[index - 1].term().get();
            let (ledger, leases) = (&self.checks.ledger, &mut self.checks.leases);
            let Some(done) = ledger.command(index) else { continue };
            if leases.committed(ledger.model(), (index, term), done, &clocks)? {
                self.mark("lease ended by its leader");
            }
        }
        Ok(())
    }

    fn note_ends(&mut self, slot: usize, replica: &Replica) {
        let raft = replica.raft();
        if raft.role() != RoleName::Leader {
            return;
        }
        let machine = &mut self.machines[slot];
        let time = machine.clock.read(now());
        let (term, last) = (raft.term(), raft.last_log().index);
        self.checks.leases.elected(term.get(), slot, time);
        let from = machine.proposed.filter(|(of, _)| *of == term).map_or(raft.log_base(), |(_, last)| last);
        machine.proposed = Some((term, last));
        for entry in raft.log_range(from.max(raft.log_base()), last) {
            if let Ok((_, command)) = decode_proposal(entry.data())
                && let Op::Expire { term, leases } = &command.op
                && *term == entry.term().get()
            {
                self.checks.leases.proposed(*term, slot, time, leases);
            }
        }
    }

    /// A lease that should have ended, when nobody renews any.
    pub(super) fn lease_left(&self) -> Option<LeaseId> {
        let model = self.checks.ledger.model();
        let mut leases = model.leases_at(model.applied());
        leases.find(|lease| lease.ttl_seconds <= SHORT_SECONDS).map(|lease| lease.id)
    }
}
