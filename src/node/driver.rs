//! The driver: feeds one replica with what comes in, and carries out what it wants. It has no rule
//! of its own.
//!
//! One task, one loop. The driver takes in everything that waits at once (news of the storage
//! first, then peers, then clients), and settles it once. So one sync, one write to each peer and
//! one look at the clock serve all of it.

use crate::node::clients::{Clients, Waiting};
use crate::node::foreign_call::Called;
use crate::node::handle::{ClientCall, DriverOrder, MembershipView, NodeFacts};
use crate::node::inbox::{Arrivals, Inbox};
use crate::node::options::{NodeExit, PANICKED};
use crate::node::past_reads::PastReads;
use crate::node::scrub_queue::ScrubQueue;
use crate::node::storage_workers::{LogJob, SnapshotJob, SnapshotQueues, WorkerNews};
use crate::peer::address_book::AddressBook;
use crate::peer::discovery::Discovery;
use crate::peer::incoming::PeerBatch;
use crate::peer::links::Links;
use crate::peer::rpc::Adoption;
use crate::raft::{ClusterId, Membership, NodeId, RoleName, StoreId, Time, Withdrawal};
use crate::replica::{
    ClientError, ClientReply, ClientRequest, Event, Notice, Replica, ReplicaConfig, RequestId, StorageRequest,
};
use crate::runtime::timer::Timer;
use crate::runtime::work::WorkQueue;
use crate::runtime::{Env, Metrics, NodeStatus, watch};
use crate::storage::BackupSource;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// A leader looks this often at how long its quorum has been silent.
const SILENCE_MICROS: u64 = 5_000;

/// Different faults of peers that are logged, at most.
const COMPLAINTS_MAX: usize = 64;

/// One node's driver.
pub(super) struct Driver<E: Env> {
    /// Sockets, clock and tasks.
    pub env: E,
    /// What comes in.
    pub inbox: Inbox,
    /// The replica that this driver steps.
    pub replica: Replica,
    /// Its limits, for its next life in another cluster.
    pub config: ReplicaConfig,
    /// This node's identity, and the addresses of the others.
    pub address_book: Arc<AddressBook>,
    /// This node's place. Messages have to be for it.
    pub place: (ClusterId, NodeId),
    /// Messages to peers.
    pub links: Links<E>,
    /// The ordered stream of writes.
    pub log: Arc<WorkQueue<LogJob>>,
    /// Snapshot files.
    pub snapshots: SnapshotQueues<E::Disk>,
    /// Reads of the past.
    pub past_reads: PastReads,
    /// Watches that are far behind, for a worker of their own.
    pub past_changes: PastReads,
    /// Jobs for the worker that scrubs.
    pub scrub: ScrubQueue<E::Disk>,
    /// Peers that the committed membership does not list any more, while the core still tells them
    /// so. Their links stay meanwhile.
    pub leaving_members: BTreeSet<NodeId>,
    /// Clients that wait for an answer.
    pub clients: Clients,
    /// How long they wait at most.
    pub request_timeout_micros: u64,
    /// Counters and histograms of this node.
    pub metrics: Metrics,
    /// The membership, for tasks that wait for it to change.
    pub membership: watch::Sender<MembershipView>,
    /// The status at the end, which stays when the driver has ended.
    pub last: Arc<OnceLock<NodeStatus>>,
    /// What each answer to a client tells of the node.
    pub facts: Arc<NodeFacts>,
    /// When the driver last measured how long its quorum has been silent.
    pub silence_measured_at: Time,
    /// The cluster that this node is reserved for.
    pub reservation: Option<Reservation>,
    /// This node was started to join another cluster: it never serves as a cluster of its own.
    pub awaits_join: bool,
    /// The cluster that this node was in, and joins anew. No other one gets it.
    pub rejoins: Option<ClusterId>,
    /// The cluster that this one was made of, by a recovery or of a backup.
    pub predecessor: Option<ClusterId>,
    /// Another cluster calls this node, which has nothing of its own yet, as its member.
    pub foreign_call: Option<Called>,
    /// Messages that no correct peer sends, as far as they were logged.
    pub complaints: BTreeSet<(NodeId, String)>,
    /// Joins of other nodes under way here.
    pub joins_under_way: usize,
    /// The storage is moving to another cluster: the replica stands still until it has.
    pub adoption: Option<(Adoption, oneshot::Sender<Result<(), String>>)>,
    /// It was asked to stop.
    pub stopping: Option<Stopping>,
    /// The voters that its cluster needs before it serves clients, if it is one of an initial
    /// cluster.
    pub founding: Option<usize>,
    /// It ends when it was removed from its cluster.
    pub exits_when_removed: bool,
    /// Its cluster is at a level that this release does not speak, in words: it ends.
    pub outgrown: Option<String>,
}

/// A reservation: this node is to become a member of another cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reservation {
    /// The cluster.
    pub cluster: ClusterId,
    /// The store id that it will have there.
    pub store: StoreId,
    /// When the reservation ends.
    pub until: Time,
}

/// On the way to a graceful end.
#[derive(Debug)]
pub(super) struct Stopping {
    /// At this time it ends without handing over, and without the answers that are due.
    pub give_up: Time,
    /// Its replica was asked to hand over. That waits while another transfer is under way.
    pub has_asked: bool,
}

impl<E: Env> Driver<E> {
    /// Runs until the node has ended.
    pub(super) async fn run(mut self) -> NodeExit {
        let mut arrivals = Arrivals::default();
        let mut timer = Timer::new(self.env.clone());
        self.publish_membership();
        self.introduce();
        self.note_alarms();
        let started = self.env.now();
        self.replica.step(started, Event::Wake);
        let exit = loop {
            self.maybe_hand_over();
            let wake_at = self.carry_out();
            if self.has_stopped() {
                break self.close().await;
            }
            if let Some(why) = self.outgrown.take() {
                break NodeExit::Outgrown(why);
            }
            // A node that is moving into another cluster stops when it has moved.
            let stopping = self.stopping.as_ref().filter(|_| self.adoption.is_none());
            let give_up = stopping.map(|stopping| stopping.give_up);
            timer.set(wake_at.into_iter().chain(give_up).min());
            if timer.is_due(self.env.now()) {
                // More is to be done at once; but the node's other tasks, and what has come
                // meanwhile, have their turn.
                tokio::task::yield_now().await;
                self.inbox.take_what_is_there(&mut arrivals).await;
            } else {
                self.inbox.take(&mut arrivals, &mut timer).await;
            }
            let now = self.env.now();
            if let Err(exit) = self.take_in(now, &mut arrivals) {
                self.hand_over_at_once().await;
                break exit;
            }
            if timer.is_due(now) {
                self.replica.step(now, Event::Wake);
            }
        };
        self.leave(&exit);
        exit
    }

    /// Steps the replica with everything that came.
    fn take_in(&mut self, now: Time, arrivals: &mut Arrivals) -> Result<(), NodeExit> {
        for news in arrivals.storage.drain(..) {
            match news {
                WorkerNews::StorageEvent(event) if self.adoption.is_none() => {
                    self.env.watch_stored(&event);
                    self.replica.step(now, Event::Storage(event));
                }
                WorkerNews::StorageEvent(_) | WorkerNews::Closed => {}
                WorkerNews::Condemned(why) => return Err(NodeExit::Rebuild(why)),
                WorkerNews::Scrubbed(damage) => self.handle_scrub_damage(now, damage),
                WorkerNews::Mended(file) => self.handle_mended(&file),
                WorkerNews::StaysWithdrawn(why) => self.stay_withdrawn(&why),
                WorkerNews::Failed(reason) => return Err(NodeExit::Failed(reason)),
                WorkerNews::DiskFailed(reason) => return Err(NodeExit::DiskFailed(reason)),
                WorkerNews::Adopted(recovered) => {
                    self.become_member(now, *recovered).map_err(NodeExit::Failed)?;
                }
            }
        }
        for peers in arrivals.peers.drain(..) {
            self.handle_peers(now, peers);
        }
        for found in arrivals.discoveries.drain(..) {
            self.handle_discovery(now, found);
        }
        for order in arrivals.orders.drain(..) {
            self.handle_order(now, order);
        }
        for call in arrivals.clients.drain(..) {
            self.handle_client(now, call);
        }
        Ok(())
    }

    fn handle_peers(&mut self, now: Time, peers: PeerBatch) {
        // A connection that was let in before this node moved to another cluster speaks to a member
        // that is gone.
        if self.adoption.is_some() || (peers.cluster, peers.to) != self.place {
            return;
        }
        for message in peers.messages {
            self.replica.step(now, Event::Peer(message));
        }
    }

    fn handle_client(&mut self, now: Time, call: ClientCall) {
        if self.adoption.is_some() {
            let _ = call.reply.send(ClientReply::Failed(ClientError::Reserved));
            return;
        }
        if self.stopping.is_some() {
            // Clients that were here before are still answered. This one may ask another node.
            let _ = call.reply.send(ClientReply::Failed(ClientError::Stopping));
            return;
        }
        if let Some(called) = self.foreign_call.filter(|called| now < called.until) {
            let _ = call.reply.send(ClientReply::Failed(ClientError::Refused(called.reason())));
            return;
        }
        let write = matches!(call.request, ClientRequest::Write(_));
        let id = self.clients.insert(Waiting { since: now, write, reply: call.reply });
        let deadline = now.plus(call.patience_micros.unwrap_or(self.request_timeout_micros));
        self.replica.step(now, Event::Client { id, deadline, by: call.by, request: call.request });
    }

    fn handle_order(&mut self, now: Time, order: DriverOrder) {
        match order {
            DriverOrder::Status(reply) => {
                let _ = reply.send(self.status(now, None));
            }
            DriverOrder::Capture(reply) => {
                let _ = reply.send(self.capture());
            }
            DriverOrder::Reserve { cluster, micros, reply } => {
                let _ = reply.send(self.reserve(now, cluster, micros));
            }
            DriverOrder::Found => self.found(now),
            DriverOrder::Release(cluster) => self.release(now, cluster),
            DriverOrder::Adopt(adoption, reply) => self.adopt(now, adoption, reply),
            DriverOrder::Joining(true) => self.joins_under_way += 1,
            DriverOrder::Joining(false) => self.joins_under_way = self.joins_under_way.saturating_sub(1),
            DriverOrder::Mend(call, reply) => self.mend(call, reply),
            DriverOrder::Leads(term, reply) => {
                let _ = reply.send(self.leads(Some(term)));
            }
            DriverOrder::NoteAlarms => self.note_alarms(),
            #[cfg(test)]
            DriverOrder::Withdraw(why) => self.replica.step(now, Event::Withdraw(why)),
            DriverOrder::Stop => self.begin_stop(now),
        }
    }

    /// The state as it is.
    fn capture(&self) -> Option<BackupSource> {
        let is_there = self.adoption.is_none() && !self.replica.is_starting();
        is_there.then(|| BackupSource {
            cluster: self.place.0,
            store_id: self.address_book.me().store,
            last: self.replica.last_applied(),
            store: self.replica.store().clone(),
        })
    }

    fn handle_discovery(&mut self, now: Time, found: Discovery) {
        match found {
            Discovery::OlderCopy { met_by } => {
                self.replica.step(now, Event::Withdraw(Withdrawal::OlderCopy { met_by }));
            }
            Discovery::Removed { me, told_by } if me == self.place && !self.replica.is_removed() => {
                self.replica.step(now, Event::Withdraw(Withdrawal::Removed { told_by }));
                self.note_removal();
            }
            Discovery::Removed { .. } => {}
            Discovery::Outgrown { me, level, told_by } if me == self.place => {
                self.note_outgrown(level, told_by)
            }
            Discovery::Outgrown { .. } => {}
            Discovery::PeerGone { peer } => self.replica.step(now, Event::PeerGone(peer)),
            Discovery::Speaks { peer, speaks } => self.replica.step(now, Event::PeerSpeaks(peer, speaks)),
            Discovery::Called { cluster, member } => self.note_call(now, cluster, member),
        }
    }

    /// Settles the replica and carries out what it wants; returns when it wants to be woken.
    fn carry_out(&mut self) -> Option<Time> {
        if self.adoption.is_some() {
            return None;
        }
        let applied = self.replica.last_applied();
        let before = self.env.now();
        let mut actions = self.replica.take_actions();
        self.env.watch_stepped(&self.replica, &actions);
        let now = self.env.now();
        if self.replica.last_applied() != applied {
            self.metrics.apply.observe(now.since(before));
        }
        // Notices first: they bring the addresses that messages may need.
        for notice in actions.notices.drain(..) {
            self.handle_notice(notice);
        }
        self.links.send_all(actions.messages);
        self.maybe_close_links();
        self.request_storage(actions.storage);
        if let Some(replaced) = actions.replaced {
            self.snapshots.saves.push_all(&mut vec![SnapshotJob::LetGo(Box::new(replaced))]);
        }
        self.note_facts(now);
        for (id, reply) in actions.replies {
            self.answer(now, id, reply);
        }
        actions.wake_at
    }

    /// Tells the code that answers clients where this node stands.
    fn note_facts(&mut self, now: Time) {
        let raft = self.replica.raft();
        self.facts.note(raft.term(), self.replica.store().revision());
        self.address_book.set_level(self.replica.store().level());
        self.facts.note_security(self.replica.store().security(), self.replica.knows_its_rules());
        // A leader looks at all its members for it, and so not with every batch. What is told is
        // older meanwhile, and never newer, than what is true.
        if raft.role() != RoleName::Leader || now.since(self.silence_measured_at) >= SILENCE_MICROS {
            self.silence_measured_at = now;
            if let Some(silent) = self.replica.silent_micros(now) {
                self.facts.note_fresh(Time::new(now.get().saturating_sub(silent)));
            }
        }
    }

    fn request_storage(&self, requests: Vec<StorageRequest>) {
        if requests.is_empty() {
            return;
        }
        let (mut log, mut saves, mut reads) = (Vec::with_capacity(2), Vec::new(), Vec::new());
        for request in requests {
            match request {
                StorageRequest::Committed(_) if log.is_empty() => {
                    self.log.push_unhurried(LogJob::StorageRequest(request));
                }
                StorageRequest::Write(_) | StorageRequest::Committed(_) => {
                    log.push(LogJob::StorageRequest(request));
                }
                StorageRequest::SaveSnapshot(save) => saves.push(SnapshotJob::Save(save)),
                StorageRequest::ReadChunk(read) => reads.push(SnapshotJob::Read(read)),
            }
        }
        if !log.is_empty() {
            self.log.push_all(&mut log);
        }
        for (queue, mut jobs) in [(&self.snapshots.saves, saves), (&self.snapshots.reads, reads)] {
            if !jobs.is_empty() {
                queue.push_all(&mut jobs);
            }
        }
    }

    pub(super) fn answer(&mut self, now: Time, id: RequestId, reply: ClientReply) {
        let Some(waiting) = self.clients.remove(id) else { return };
        if waiting.write {
            self.metrics.proposal.observe(now.since(waiting.since));
        }
        match reply {
            ClientReply::Past(_) => return self.past_reads.answer(reply, waiting.reply),
            ClientReply::PastChanges(_) => return self.past_changes.answer(reply, waiting.reply),
            _ => {}
        }
        // The client may have gone; then no one takes the answer.
        let _ = waiting.reply.send(reply);
    }

    fn handle_notice(&mut self, notice: Notice) {
        match notice {
            Notice::RoleChanged { role, term, leader } => {
                if role == RoleName::Candidate {
                    self.metrics.elections.inc();
                }
                let leader = leader.map(NodeId::get);
                info!(?role, term = term.get(), leader, "role or leader changed");
            }
            Notice::MembershipChanged { membership, committed } => {
                self.handle_membership(membership, committed);
            }
            Notice::MembershipCommitted(membership) => self.address_book.set_committed(membership),
            Notice::SnapshotTaken(last) => {
                self.metrics.snapshots_taken.inc();
                info!(index = last.index.get(), term = last.term.get(), "snapshot taken");
            }
            Notice::SnapshotInstalled(last) => {
                self.metrics.snapshots_installed.inc();
                info!(index = last.index.get(), term = last.term.get(), "snapshot installed");
            }
            Notice::SnapshotFailed(reason) => {
                self.metrics.snapshots_failed.inc();
                warn!(%reason, "a snapshot failed; another try follows");
            }
            Notice::SnapshotNotTaken { peer, why, times } => {
                self.metrics.snapshots_failed.inc();
                warn!(peer = peer.get(), reason = %why, times, "a member did not take the snapshot that it needs; it is sent again later");
            }
            Notice::SnapshotRepeated { peer, times } => {
                self.metrics.snapshots_repeated.inc();
                if times == 2 {
                    warn!(
                        peer = peer.get(),
                        "a member needs one snapshot after the other: it is slower than what is written. Told once"
                    );
                }
            }
            Notice::Withdrawn(why) => {
                error!(%why, "THIS MEMBER TAKES NO PART ANY MORE");
                self.note_withdrawal(&why);
            }
            Notice::PeerWithdrew { peer, why } => {
                error!(peer = peer.get(), %why, "A MEMBER TAKES NO PART ANY MORE");
            }
            Notice::StatesDiffer(index) => self.tell_states_differ(index),
            Notice::DiskSlow { is_slow, write_micros } => {
                self.metrics.disk_slow.set(i64::from(is_slow));
                let millis = write_micros / 1_000;
                if is_slow {
                    warn!(
                        millis,
                        "THE DISK IS SLOW: a write to the log takes so many milliseconds in the mean"
                    );
                } else {
                    info!(millis, "the disk is quick enough again");
                }
            }
            Notice::LeftLeadToQuicker { successor, write_micros } => {
                let (successor, millis) = (successor.get(), write_micros / 1_000);
                warn!(
                    successor,
                    millis, "this leader's disk is far slower than those of the others; it hands over"
                );
            }
            Notice::LevelRaised(level) => {
                info!(level = level.get(), "the cluster has reached a new feature level");
            }
            Notice::LevelAbove { level, told_by } => self.note_outgrown(level, told_by),
            Notice::LeaseCallsRefused { count, .. } => {
                self.metrics.lease_calls_refused.inc_by(count);
            }
            Notice::BadMessage { from, reason } => {
                self.metrics.messages_refused.inc();
                // A peer that sends this once may go on sending it.
                if self.complaints.len() < COMPLAINTS_MAX && self.complaints.insert((from, reason.clone())) {
                    warn!(peer = from.get(), %reason, "a peer sent what no correct peer sends; told once");
                }
            }
        }
    }

    fn handle_membership(&mut self, membership: Membership, committed: bool) {
        let voters: Vec<u64> = membership.voters.iter().map(|id| id.get()).collect();
        let learners: Vec<u64> = membership.learners.keys().map(|id| id.get()).collect();
        info!(?voters, ?learners, joint = membership.outgoing.is_some(), committed, "membership");
        if committed && membership.proves_removed(self.place.1) {
            warn!(
                id = self.place.1.get(),
                "this node was removed from its cluster and serves nobody any more; stop it, and wipe its data directory \
                 before it joins again"
            );
            self.note_removal();
        }
        self.address_book.set_membership(membership.clone(), committed);
        if committed {
            let me = self.place.1;
            let others = membership.members.iter().filter(|(id, _)| **id != me);
            let addresses = others.map(|(_, member)| member.raft_addr.clone()).collect();
            self.log.push_unhurried(LogJob::NotePeers(addresses));
            let peers = self.replica.raft().progress().map(|peer| peer.id);
            self.leaving_members = peers.filter(|id| !membership.members.contains_key(id)).collect();
            self.close_links(&membership);
        }
        self.introduce();
        self.membership.send_replace(MembershipView { membership, committed });
    }

    /// This node was removed: it ends, if it was started so.
    fn note_removal(&mut self) {
        if self.exits_when_removed {
            self.begin_stop(self.env.now());
        }
    }

    /// Closes the links to members that were removed, once the core has given up telling them so.
    fn maybe_close_links(&mut self) {
        if self.leaving_members.is_empty() {
            return;
        }
        let before = self.leaving_members.len();
        let told = |id: &NodeId| self.replica.raft().progress().any(|peer| peer.id == *id);
        let leaving = self.leaving_members.iter().copied().filter(told).collect();
        self.leaving_members = leaving;
        if self.leaving_members.len() < before {
            let membership = self.replica.membership().clone();
            self.close_links(&membership);
        }
    }

    /// Closes the links to all that are neither members nor still told of their removal. What is
    /// queued for them is sent.
    fn close_links(&mut self, membership: &Membership) {
        // An id that was never given by this membership may belong to a member whose entry has not
        // arrived here.
        let next = membership.next_member_id;
        let Self { links, leaving_members, address_book, env, .. } = self;
        links
            .retain(|id| id >= next || membership.members.contains_key(&id) || leaving_members.contains(&id));
        address_book.retain_left(leaving_members, env.now());
    }

    /// Calls every other member, so that it knows that this start of this node lives.
    fn introduce(&mut self) {
        let me = self.place.1;
        self.links.introduce(self.replica.membership().members.keys().copied().filter(|id| *id != me));
    }

    /// Says which membership the log ends with.
    pub(super) fn publish_membership(&self) {
        let membership = self.replica.membership().clone();
        self.membership.send_replace(MembershipView { membership, committed: false });
    }

    /// Fails all requests that wait.
    pub(super) fn fail_all(&mut self, error: impl Fn(bool) -> ClientError) {
        for waiting in self.clients.drain() {
            let _ = waiting.reply.send(ClientReply::Failed(error(waiting.write)));
        }
    }
}

impl<E: Env> Drop for Driver<E> {
    /// Lets the workers end, even if the driver's task is dropped in the middle.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.last.set(self.status(self.env.now(), Some(PANICKED.to_owned())));
        }
        self.log.close();
        self.snapshots.close();
        self.scrub.close();
        self.past_reads.0.close();
        self.past_changes.0.close();
    }
}
