//! The safety properties that are checked at every step, over all machines at once.

use crate::durable::DurableModel;
use infinitystore::raft::{Body, Entry, LogIndex, Message, NodeId, RoleName, Term};
use infinitystore::replica::{Notice, Replica};
use std::any::Any;
use std::collections::BTreeMap;

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which property.
    pub check: &'static str,
    /// What was seen.
    pub what: String,
}

impl Violation {
    /// An assertion of the product that failed.
    #[must_use]
    pub fn of_panic(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self { check: "an assertion of the product", what: text.unwrap_or("a panic").to_owned() }
    }
}

/// `Err` with a [`Violation`] unless `condition` holds.
macro_rules! check {
    ($name:literal, $condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err($crate::checks::Violation { check: $name, what: format!($($what)+) });
        }
    };
}

/// What is known of an entry that some machine has applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Committed {
    term: Term,
    hash: u64,
}

/// What has been seen of the cluster so far.
#[derive(Debug, Default)]
pub struct Checks {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// By index, from 1.
    committed: Vec<Committed>,
    /// The highest term in which any of them was applied: no leader of that term or an earlier one need have them.
    committed_in: Term,
    /// State hash after each applied index.
    states: BTreeMap<LogIndex, u128>,
    /// The committed entries themselves, for the end of the run.
    entries: Vec<Entry>,
}

impl Checks {
    /// The committed entries, in order, as far as any machine has applied them one by one.
    #[must_use]
    pub fn committed_entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The last index that is known to be committed.
    #[must_use]
    pub fn committed_through(&self) -> LogIndex {
        LogIndex::new(self.committed.len() as u64)
    }

    /// A machine sends a message: what it says must be durable (Raft figure 2: "updated on stable storage before responding").
    ///
    /// # Errors
    /// [`Violation`].
    pub fn sent(&mut self, message: &Message, durable: &DurableModel) -> Result<(), Violation> {
        let (from, to, term) = (message.from, message.to, message.term);
        match &message.body {
            Body::RequestVote { .. } => {
                check!(
                    "persist before send",
                    durable.hard_state.term == term && durable.hard_state.voted_for == Some(from),
                    "{from} asks for votes in term {term}; durable is {:?}",
                    durable.hard_state
                );
            }
            Body::VoteGranted => {
                check!(
                    "persist before send",
                    durable.hard_state.term == term && durable.hard_state.voted_for == Some(to),
                    "{from} grants {to} its vote in term {term}; durable is {:?}",
                    durable.hard_state
                );
                let earlier = *self.votes.entry((from, term)).or_insert(to);
                check!(
                    "one vote a term",
                    earlier == to,
                    "{from} voted for {earlier} and for {to} in term {term}"
                );
            }
            Body::AppendAccepted { match_index, .. } | Body::SnapshotInstalled { match_index, .. } => {
                check!(
                    "persist before send",
                    durable.last().index >= *match_index && durable.hard_state.term >= term,
                    "{from} acknowledges {match_index} to {to} in term {term}; durable is the log to {} in {:?}",
                    durable.last(),
                    durable.hard_state
                );
            }
            _ => {}
        }
        Ok(())
    }

    /// A machine was stepped: what it tells, and what it has applied since `applied`.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn stepped(
        &mut self,
        slot: usize,
        replica: &Replica,
        notices: &[Notice],
        applied: &mut LogIndex,
        marks: &mut BTreeMap<&'static str, u64>,
    ) -> Result<(), Violation> {
        for notice in notices {
            match notice {
                Notice::RoleChanged { role, term, .. } => self.role_changed(replica, *role, *term)?,
                Notice::SnapshotTaken(_) => *marks.entry("snapshot taken").or_default() += 1,
                Notice::SnapshotInstalled(_) => *marks.entry("snapshot installed").or_default() += 1,
                Notice::BadMessage { from, reason } => {
                    let what = format!("machine {slot} about member {from}: {reason}");
                    return Err(Violation { check: "no correct peer says that", what });
                }
                Notice::MembershipChanged { .. } | Notice::SnapshotFailed(_) => {}
            }
        }
        let before = std::mem::replace(applied, replica.last_applied().index);
        check!(
            "applied never goes back",
            before <= *applied,
            "machine {slot} had applied {before}, now {applied}"
        );
        if before < *applied {
            let mut entries = replica.raft().log_after(before);
            entries.retain(|entry| entry.index() <= *applied);
            let last = entries.first().map(|entry| entry.index().get() + entries.len() as u64 - 1);
            if last == Some(applied.get()) {
                self.applied(replica, &entries)?;
            } else {
                self.same_state(replica)?;
            }
        }
        Ok(())
    }

    /// A machine became something.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn role_changed(&mut self, replica: &Replica, role: RoleName, term: Term) -> Result<(), Violation> {
        if role != RoleName::Leader {
            return Ok(());
        }
        let id = replica.raft().id();
        let leader = *self.leaders.entry(term).or_insert(id);
        check!("election safety", leader == id, "{leader} and {id} both lead term {term}");
        // Leader completeness (Raft §5.4) speaks of leaders of higher terms than the one in which an entry was committed: a late
        // vote may still make a leader of a term that has passed. With log matching, its copy of the last committed entry vouches for the others.
        let through = self.committed_through();
        if let Some(last) = self.committed.last()
            && replica.raft().term() == term
            && term > self.committed_in
        {
            let raft = replica.raft();
            let has = raft.term_at(through).map_or(raft.last_log().index > through, |term| term == last.term);
            check!(
                "leader completeness",
                has,
                "{id} leads term {term} with a log to {} and lacks committed entry {through} of term {}",
                raft.last_log(),
                last.term
            );
        }
        Ok(())
    }

    /// A machine applied entries.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn applied(&mut self, replica: &Replica, entries: &[Entry]) -> Result<(), Violation> {
        let id = replica.raft().id();
        for entry in entries {
            let (index, found) = (entry.index(), committed(entry));
            let position = usize::try_from(index.get() - 1).unwrap_or(usize::MAX);
            match self.committed.get(position) {
                Some(&known) => check!(
                    "committed never changes",
                    known == found,
                    "{id} applied {} at {index}; somebody applied another entry of term {}",
                    entry.id(),
                    known.term
                ),
                None => {
                    check!(
                        "no gap",
                        position == self.committed.len(),
                        "{id} applied {index} first, beyond everybody"
                    );
                    let term = self.committed.last().map_or(Term::ZERO, |last| last.term);
                    check!(
                        "terms grow along the log",
                        found.term >= term,
                        "{index} is of term {}",
                        found.term
                    );
                    self.committed.push(found);
                    self.committed_in = self.committed_in.max(replica.raft().term());
                    self.entries.push(entry.clone());
                }
            }
        }
        self.same_state(replica)
    }

    /// The state at an applied index is the same everywhere.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn same_state(&mut self, replica: &Replica) -> Result<(), Violation> {
        let (index, hash) = (replica.last_applied().index, replica.store().state_hash());
        let known = *self.states.entry(index).or_insert(hash);
        check!(
            "same state at the same index",
            known == hash,
            "{} has state {hash:032x} at {index}, another machine had {known:032x}",
            replica.raft().id()
        );
        Ok(())
    }
}

fn committed(entry: &Entry) -> Committed {
    Committed { term: entry.term(), hash: xxhash_rust::xxh3::xxh3_64(entry.encoded()) }
}
