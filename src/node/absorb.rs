//! A pristine cluster of one moves into another cluster: it is reserved first, then handed over,
//! within one process. Or it finds that there is none, and makes one.

use crate::node::driver::{Driver, Reservation};
use crate::node::foreign_call::Called;
use crate::node::storage_workers::{LogJob, SnapshotJob};
use crate::peer::address_book::Me;
use crate::peer::hello::Starts;
use crate::peer::rpc::Adoption;
use crate::raft::{ClusterId, NodeId, StoreId, Time};
use crate::replica::{ClientError, Event, Replica, ReplicaStart};
use crate::runtime::Env;
use crate::storage::Opened;
use tokio::sync::oneshot;
use tracing::{error, info};

/// A cluster may reserve a node for at most this time.
const RESERVATION_MICROS_MAX: u64 = 60_000_000;
/// A node that was started to join waits as long as it takes.
const FOR_EVER: Time = Time::new(u64::MAX);

impl<E: Env> Driver<E> {
    /// Reserves this node for `cluster`. Returns the store id that it will have there.
    ///
    /// # Errors
    /// Text that says why it cannot be reserved, and what to do.
    pub(super) fn reserve(&mut self, now: Time, cluster: ClusterId, micros: u64) -> Result<StoreId, String> {
        let me = self.address_book.me();
        if let Some(own) = self.rejoins.filter(|own| *own != cluster) {
            return Err(format!(
                "{} set its data aside and joins its own cluster, {own}, anew; to have it join cluster {cluster}, stop it, \
                 wipe its data directory, and start it",
                me.name
            ));
        }
        let earlier = self.reservation.filter(|earlier| now < earlier.until);
        if self.joins_under_way > 0 {
            return Err(format!("{} is adding another node to its own cluster; try again later", me.name));
        }
        if earlier.is_some_and(|earlier| earlier.cluster != cluster) {
            return Err(format!("{} is about to join another cluster; try again later", me.name));
        }
        if self.adoption.is_some() || self.stopping.is_some() {
            return Err(format!("{} is moving or stopping; try again later", me.name));
        }
        // The reservation itself must not count against the node.
        self.replica.step(now, Event::Release);
        if !self.replica.is_pristine() {
            return Err(format!(
                "{} has data of its own or is a member of a cluster already; to join this cluster, stop it, wipe its data \
                 directory, start it and join it again; or keep it separate",
                me.name
            ));
        }
        let seed = || u128::from(self.env.seed());
        // The same one for that cluster as long as this process has not moved: the cluster may have
        // given it a place, and not have come to hand that over.
        let promised = self.reservation.filter(|promised| promised.cluster == cluster);
        let store = promised.map_or_else(|| StoreId(seed() << 64 | seed()), |promised| promised.store);
        let until = now.plus(micros.min(RESERVATION_MICROS_MAX));
        self.reservation = Some(Reservation { cluster, store, until });
        self.replica.step(now, Event::Reserve { until: if self.awaits_join { FOR_EVER } else { until } });
        self.address_book.set_promised(Some((cluster, until)));
        info!(%cluster, "reserved for another cluster");
        Ok(store)
    }

    /// This node waited to see whether there is a cluster to join. There is none: it makes one.
    pub(super) fn found(&mut self, now: Time) {
        self.awaits_join = false;
        self.replica.step(now, Event::Release);
        if let Some(voters) = self.founding {
            self.replica.step(now, Event::Found { voters });
        }
    }

    /// Another cluster calls this node as its member. A node that has been something else for
    /// longer is called by mistake. A node that has nothing of its own stands in the place of that
    /// member, however often it was started since: what clients write to it would be a second
    /// cluster at the address of the first, and make its join be refused.
    pub(super) fn note_call(&mut self, now: Time, cluster: ClusterId, member: NodeId) {
        if self.predecessor == Some(cluster) && cluster != self.place.0 {
            // Clients that know this address may be of either, and neither knows of the other.
            let text = format!(
                "a node of cluster {cluster}, out of which this cluster, {}, was made, still runs and takes this node for its \
                 member {member}: what clients write there is not here. Stop all that is left of it, wipe those data \
                 directories, and join the nodes here",
                self.place.0
            );
            // The other calls again and again.
            if self.raise_alarm("two-clusters", &text) {
                error!(reason = %text, "TWO CLUSTERS AT ONE ADDRESS");
            }
        }
        if cluster == self.place.0
            || self.replica.has_data()
            || self.awaits_join
            || self.reservation.is_some_and(|reservation| now < reservation.until)
        {
            return;
        }
        let called = Called::at(now, (cluster, member));
        if self.foreign_call.replace(called).is_none_or(|before| before.cluster != cluster) {
            error!(reason = %called.reason(), "THIS NODE WITHDRAWS");
            self.log.push_all(&mut vec![LogJob::NoteCalled(cluster, member)]);
        }
    }

    /// Forgets the reservation for `cluster`.
    pub(super) fn release(&mut self, now: Time, cluster: ClusterId) {
        if self.reservation.is_some_and(|reservation| reservation.cluster == cluster) {
            self.reservation = None;
            self.address_book.set_promised(None);
            if !self.awaits_join {
                self.replica.step(now, Event::Release);
            }
            info!(%cluster, "released");
        }
    }

    /// Begins the move. The replica stands still until the storage has moved.
    pub(super) fn adopt(
        &mut self,
        now: Time,
        adoption: Adoption,
        reply: oneshot::Sender<Result<(), String>>,
    ) {
        if self.adoption.as_ref().is_some_and(|(under_way, _)| *under_way == adoption) {
            // Asked again while it moves: no answer yet. A refusal would be final: the leader would
            // remove the learner whose place this node is taking up.
            return;
        }
        if let Err(refusal) = self.may_adopt(now, &adoption) {
            let _ = reply.send(refusal);
            return;
        }
        info!(cluster = %adoption.cluster, id = adoption.id.get(), "moving into another cluster");
        let job = LogJob::Adopt { cluster: adoption.cluster, member: adoption.id, store: adoption.store };
        // After the snapshots that are being saved: they belong to the directory that is left, and
        // to the member that this node is no longer.
        self.snapshots.saves.push_all(&mut vec![SnapshotJob::PassOn(job, self.log.clone())]);
        self.adoption = Some((adoption, reply));
        self.fail_all(|_| ClientError::Reserved);
    }

    /// `Err` with the answer if there is nothing to begin.
    fn may_adopt(&self, now: Time, adoption: &Adoption) -> Result<(), Result<(), String>> {
        let me = self.address_book.me();
        if (me.cluster, me.id, me.store) == (adoption.cluster, adoption.id, adoption.store) {
            return Err(Ok(()));
        }
        if let Some((under_way, _)) = &self.adoption {
            debug_assert!(under_way != adoption, "a repeated order is not answered");
            return Err(Err("it is moving elsewhere".to_owned()));
        }
        let promised = self.reservation.is_some_and(|promise| {
            promise.cluster == adoption.cluster && promise.store == adoption.store && now < promise.until
        });
        if !promised || self.stopping.is_some() {
            return Err(Err(format!("{} is not, or no longer, reserved for that cluster", me.name)));
        }
        // It may have made a cluster of its own since it was reserved.
        if self.replica.has_data() || self.joins_under_way > 0 {
            return Err(Err(format!("{} has data, or is adding other nodes to its own cluster", me.name)));
        }
        Ok(())
    }

    /// The storage has moved: goes on as the new member.
    ///
    /// # Errors
    /// Text, if the node cannot begin as the new member. It must stop then.
    pub(super) fn become_member(&mut self, now: Time, opened: Opened) -> Result<(), String> {
        let Some((adoption, reply)) = self.adoption.take() else {
            return Err("the storage moved to another cluster unasked".to_owned());
        };
        self.env.watch_opened(&opened);
        let starts = Starts::new(opened.incarnation, opened.nonces.clone());
        let start = ReplicaStart {
            id: adoption.id,
            incarnation: opened.incarnation,
            seed: self.env.seed(),
            restored: opened.restored,
            store: opened.store,
        };
        self.replica = Replica::new(self.config.clone(), start, now).map_err(|error| error.to_string())?;
        if let Some(voters) = self.founding {
            self.replica.step(now, Event::Found { voters });
        }
        let (cluster, id, store) = (adoption.cluster, adoption.id, adoption.store);
        let me = Me { cluster, id, store, starts, ..self.address_book.me() };
        self.address_book.set_me(me, self.replica.membership().clone(), adoption.addresses);
        self.place = (cluster, id);
        // What was said of the log that is left, and of its disk, is not true of this one.
        self.metrics.disk_slow.set(0);
        self.facts.forget_fresh();
        self.scrub.told.clear();
        self.links.retain(|_| false);
        self.reservation = None;
        self.awaits_join = false;
        self.rejoins = None;
        self.foreign_call = None;
        self.publish_membership();
        info!(%cluster, id = id.get(), "is a member of another cluster now");
        let _ = reply.send(Ok(()));
        Ok(())
    }
}
