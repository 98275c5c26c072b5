//! What a replica says of itself (`Replica::status`), figure by figure against its parts.

use crate::checks::answer_times::age_is_right;
use crate::checks::observed::Observed;
use crate::record::violation::{Violation, check};
use infinitystore::codec::FeatureLevels;
use infinitystore::raft::{NodeId, PeerProgress, RoleName, Time};
use infinitystore::replica::{MemberStatus, Replica, Standing, Status};

/// What the run knows of a process beside its replica.
#[derive(Clone, Copy, Debug)]
pub struct Known<'o> {
    /// What was seen of it so far.
    pub shown: &'o Observed,
    /// Whether all that it did was seen; otherwise it may have found its disk slow, or quick again.
    pub is_settled: bool,
    /// The feature levels that its release speaks.
    pub speaks: FeatureLevels,
    /// Its clock.
    pub now: Time,
    /// Requests of clients that it has not answered.
    pub asked: usize,
    /// How long it may go on without an answer of a peer, microseconds.
    pub election_timeout_micros: u64,
}

/// The figures of a status, each against what it is said to be.
///
/// # Errors
/// [`Violation`].
pub fn figures_are_right(replica: &Replica, status: &Status, known: Known<'_>) -> Result<(), Violation> {
    let (raft, store) = (replica.raft(), replica.store());
    let id = raft.id();
    let told = (
        (status.leader, status.starting, status.configuration, status.configuration_committed),
        (status.snapshot, status.disk_slow, status.withdrawn.is_some()),
        (status.compacted, status.history_bytes, status.answers_bytes, status.leases),
        (status.level, status.speaks),
    );
    let (configuration, is_committed) = raft.membership_id();
    let is_slow = if known.is_settled { known.shown.is_slow } else { status.disk_slow };
    let is = (
        (raft.leader_hint().leader, replica.is_starting(), configuration.index, is_committed),
        (replica.snapshot(), is_slow, raft.withdrawn().is_some()),
        (store.compacted().0, store.history_bytes(), store.answers_bytes(), store.lease_count()),
        (store.level(), known.speaks),
    );
    check!("the status says what is", told == is, "{id} shows {told:?} of {is:?}");
    // An answer that has not been given is still held, but not the other way round.
    let waits = |name: &str| {
        let held = replica.held();
        held.iter().find(|(known, _)| *known == name).map(|(_, count)| usize::try_from(*count).unwrap_or(0))
    };
    for (told, name) in [
        (status.pending_proposals, "writes that are counted"),
        (status.pending_reads, "reads that are counted"),
        (status.pending_watches, "clients that wait for a change"),
    ] {
        check!(
            "the status says what is",
            Some(told) == waits(name),
            "{id} shows {told} {name}, and holds {:?}",
            waits(name)
        );
    }
    check!(
        "the status says what is",
        status.pending_watches <= known.asked,
        "{id} shows {} clients that wait for a change, and {} wait at all",
        status.pending_watches,
        known.asked
    );
    if let Err(what) =
        age_is_right(known.shown.answers.oldest(), status.oldest_answer_micros, (known.now, known.now))
    {
        check!("the status says what is", false, "{id}: {what}");
    }
    for member in &status.members {
        let progress = raft.progress().find(|peer| peer.id == member.id);
        check!(
            "the status says what is",
            progress.is_some() == (raft.role() == RoleName::Leader && member.id != id),
            "{id} is a {:?}, and knows of member {} {progress:?}",
            raft.role(),
            member.id
        );
        check!(
            "the status says what is",
            member_is_right(replica, member, progress.as_ref(), known),
            "{id} shows {member:?} of {progress:?} in {:?}",
            raft.membership()
        );
    }
    Ok(())
}

fn member_is_right(
    replica: &Replica,
    member: &MemberStatus,
    progress: Option<&PeerProgress>,
    known: Known<'_>,
) -> bool {
    let raft = replica.raft();
    let own = member.id == raft.id();
    let silent = progress.and_then(|peer| peer.last_heard).map(|heard| known.now.since(heard));
    let withdrawn = (own && raft.withdrawn().is_some()) || progress.is_some_and(|it| it.withdrawn.is_some());
    member.standing == standing(replica, member.id)
        && member.match_index == progress.map(|peer| peer.match_index)
        && member.lag.zip(member.match_index).map(|(lag, matched)| matched.get() + lag)
            == progress.map(|_| raft.last_log().index.get())
        && member.replication == progress.map(|peer| peer.state)
        && member.silent_micros == silent
        && member.answers
            == progress.map(|_| silent.is_some_and(|silent| silent <= known.election_timeout_micros))
        && member.snapshot_refused == progress.and_then(|peer| peer.snapshot_refused)
        && member.withdrawn.is_some() == withdrawn
        && member.speaks == own.then_some(known.speaks)
        && member.spoken_level.is_none()
}

/// A voter of one configuration alone is on its way in, or out.
fn standing(replica: &Replica, id: NodeId) -> Standing {
    let membership = replica.membership();
    let was = membership.outgoing.as_ref().is_none_or(|outgoing| outgoing.contains(&id));
    match (membership.learners.contains_key(&id), membership.voters.contains(&id), was) {
        (true, ..) => Standing::Learner,
        (false, true, false) => Standing::Joining,
        (false, false, true) => Standing::Leaving,
        (false, ..) => Standing::Voter,
    }
}
