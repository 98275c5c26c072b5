//! The identity of this node, and the addresses of the others. The driver keeps it up to date, and
//! every connection that begins asks it.

use crate::codec::{FeatureLevel, FeatureLevels, host_of, is_loopback};
use crate::peer::greeting::SpokenLevels;
use crate::peer::hello::{PeerHello, Starts};
use crate::peer::orders::MembersView;
use crate::peer::refusal::Refusal;
use crate::peer::vouched::{Vouched, Voucher};
use crate::raft::{ClusterId, Incarnation, MEMBERS_MAX, Membership, NodeId, StoreId, Time};
use crate::runtime::door::Caller;
use crate::tls::PeerCertificate;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Notify;

mod connected;

use connected::ALIVE_MICROS;
pub(crate) use connected::{Closing, Connected};

/// Addresses learned from hellos, at most: of peers that the membership known here does not list
/// yet.
const LEARNED_MAX: usize = 64;

/// Callers whose starts are remembered, at most.
const MET_MAX: usize = 4 * MEMBERS_MAX;
/// Connections of one caller that are remembered, at most.
const CONNECTIONS_EACH_MAX: usize = 8;

/// This node, as it introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Me {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its member id.
    pub id: NodeId,
    /// Its data directory.
    pub store: StoreId,
    /// Which start of that directory this is.
    pub starts: Starts,
    /// Its `--node-id`.
    pub name: String,
    /// Where it is reached by peers.
    pub raft_addr: String,
    /// Where its HTTP API is.
    pub http_addr: String,
    /// The levels that it speaks.
    pub speaks: FeatureLevels,
}

/// What is spoken with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The levels that the peer speaks, as it said last.
    pub speaks: FeatureLevels,
    /// The level of the connection that was made last, by either.
    pub level: FeatureLevel,
}

/// The identity of this node, and the addresses of the others. Shared; asked a few times for each
/// connection, never for a message.
#[derive(Debug)]
pub(crate) struct AddressBook {
    state: Mutex<State>,
    /// The level of the cluster, as far as this node has applied its log. Beside the state: every
    /// write of a link looks at it.
    level: AtomicU16,
}

#[derive(Debug)]
struct State {
    me: Me,
    /// The membership in force, committed or not: for addresses and stores.
    in_force: Membership,
    /// The last one known to be committed: only it proves that an id was removed.
    committed_membership: Option<Membership>,
    hello_addresses: BTreeMap<NodeId, Learned>,
    /// Addresses of members that have left the membership in force. The leader has to reach them to
    /// tell them so. The driver says when they are not needed any more.
    former_addresses: BTreeMap<NodeId, Vec<String>>,
    /// The newest start of each caller's data directory that was let in since this process began.
    /// An earlier start, or another one of the same number, runs on a copy.
    newest_start: BTreeMap<NodeId, (StoreId, Incarnation)>,
    /// Members whose data directories are older copies, and why they are not let in. Until another
    /// start of theirs is let in.
    older_copies: BTreeMap<NodeId, String>,
    /// The connections of each caller's newest start, oldest first. At most
    /// [`CONNECTIONS_EACH_MAX`]. A caller speaks over one connection at a time. One that it gave up
    /// may be let in later, if it waited while this node loaded its data.
    connections: BTreeMap<NodeId, Vec<Arc<Connected>>>,
    /// Links that want to know when their peer calls.
    waiting_links: BTreeMap<NodeId, Weak<PeerCalls>>,
    /// The cluster that this node is about to move into; `None` if it is not reserved.
    promised_to: Option<(ClusterId, Time)>,
    /// Addresses that the operator or the node's leader named, before any membership did.
    told_addresses: Vec<String>,
    /// Members that are not known here yet, and that others have named.
    vouched: Vouched,
    /// What is spoken with the peers that were met.
    spoken: BTreeMap<NodeId, Spoken>,
}

/// What a link hears of the calls of its peer.
#[derive(Debug, Default)]
pub(crate) struct PeerCalls {
    /// The peer was let in: it is there.
    pub called: Notify,
    /// Another start of the peer was let in than before: what this node is connected to is gone.
    pub restarted: Notify,
}

/// The address at which a peer said that it is reached.
#[derive(Clone, Debug)]
struct Learned {
    addr: String,
    /// Whether the membership has named another address since. That is mostly newer, but not when
    /// old entries of the log arrive.
    is_contested: bool,
}

impl Learned {
    const fn new(addr: String) -> Self {
        Self { addr, is_contested: false }
    }
}

impl State {
    fn addresses(&self, id: NodeId) -> Vec<String> {
        let member = self.in_force.members.get(&id).map(|member| &member.raft_addr);
        let learned = self.hello_addresses.get(&id);
        let mut found: Vec<String> =
            learned.map(|learned| &learned.addr).into_iter().chain(member).cloned().collect();
        found.dedup();
        // Others do not reach a member at a loopback address that it guessed, and one that they
        // share a machine with is reached at its other address, too.
        let is_of_its_machine = |addr: &String| is_loopback(host_of(addr));
        let guesses = learned.is_some_and(|learned| is_of_its_machine(&learned.addr))
            && member.is_some_and(|addr| !is_of_its_machine(addr));
        if guesses || learned.is_some_and(|learned| learned.is_contested) {
            found.reverse();
        }
        if found.is_empty() {
            found.extend(self.former_addresses.get(&id).into_iter().flatten().cloned());
        }
        found
    }

    /// Whether there is room for the address of a caller. Members always have room.
    fn may_learn(&self, id: NodeId) -> bool {
        let is_member = |id: &NodeId| self.in_force.members.contains_key(id);
        let others = || self.hello_addresses.keys().filter(|id| !is_member(id)).count();
        is_member(&id) || self.hello_addresses.contains_key(&id) || others() < LEARNED_MAX
    }

    /// Whether a committed membership proves that this member was removed.
    fn is_removed(&self, id: NodeId) -> bool {
        let proves = self.committed_membership.as_ref().is_some_and(|committed| committed.proves_removed(id));
        proves && !self.in_force.members.contains_key(&id)
    }

    fn new(me: Me, in_force: Membership, learned: BTreeMap<NodeId, Learned>) -> Self {
        Self {
            me,
            in_force,
            committed_membership: None,
            hello_addresses: learned,
            former_addresses: BTreeMap::new(),
            newest_start: BTreeMap::new(),
            older_copies: BTreeMap::new(),
            connections: BTreeMap::new(),
            waiting_links: BTreeMap::new(),
            promised_to: None,
            told_addresses: Vec::new(),
            vouched: Vouched::default(),
            spoken: BTreeMap::new(),
        }
    }

    /// Whether the caller is the process that it was before, or a later start of the same data
    /// directory, alone.
    fn recognise(&self, hello: &PeerHello, now: Time) -> Result<(), Refusal> {
        let (id, found) = (hello.from, hello.starts.incarnation());
        let mut connected = self.connections.get(&id).into_iter().flatten();
        if let Some(twin) = connected.find(|connected| connected.is_twin_of(hello, now)) {
            return Err(Refusal::Twin { id, known: twin.incarnation, found });
        }
        match self.newest_start.get(&id) {
            Some(&(store, known)) if store == hello.store && !hello.starts.come_after(known) => {
                Err(Refusal::OlderCopy { id, known, found })
            }
            _ => Ok(()),
        }
    }

    /// Whether the holder of a certificate may speak for a member. If this node does not know the
    /// member yet, the answer is yes, and is looked at again when it does.
    fn may_speak_for(&self, id: NodeId, shown: &PeerCertificate) -> bool {
        self.name(id).is_none_or(|name| shown.is_of_member(name))
    }

    /// Whether nobody who is known here says that the holder of a certificate is that member. The
    /// holder of a known member's certificate may have joined again, under another id. And a node
    /// that knows no member yet has nothing that it could lose.
    fn is_stranger(&self, id: NodeId, shown: &PeerCertificate) -> bool {
        self.name(id).is_none()
            && !self.in_force.members.is_empty()
            && !self.is_removed(id)
            && !self.in_force.members.values().any(|member| shown.is_of_member(&member.name))
            && !self.vouched.names(id).any(|name| shown.is_of_member(name))
    }

    /// The name of a member. A membership that is not committed may be void, and gives no other
    /// name to a member of a committed one.
    fn name(&self, id: NodeId) -> Option<&str> {
        let committed = self.committed_membership.as_ref();
        let known = committed.and_then(|committed| committed.members.get(&id));
        known.or_else(|| self.in_force.members.get(&id)).map(|member| member.name.as_str())
    }

    /// Looks again at the certificates of callers that were let in.
    fn look_at_names(&self) {
        for (id, connections) in &self.connections {
            for connected in connections {
                let shown = connected.shown.as_ref();
                let is_misnamed = shown.is_some_and(|shown| !self.may_speak_for(*id, shown));
                connected.is_misnamed.store(is_misnamed, Ordering::Relaxed);
                let is_unconfirmed = shown.is_some_and(|shown| self.is_stranger(*id, shown));
                connected.is_unconfirmed.store(is_unconfirmed, Ordering::Relaxed);
            }
        }
    }

    /// Remembers the caller. An earlier connection of the same member is superseded.
    fn connect(
        &mut self,
        hello: &PeerHello,
        shown: Option<PeerCertificate>,
        (now, spoken): (Time, Spoken),
    ) -> Arc<Connected> {
        let (id, store, incarnation) = (hello.from, hello.store, hello.starts.incarnation());
        let connected = Arc::new(Connected::new((store, incarnation), shown, spoken.level, now));
        self.note_spoken(id, spoken);
        if self.makes_room_for(id) {
            let before = self.newest_start.insert(id, (store, incarnation));
            if before.is_some_and(|(_, before)| before != incarnation)
                && let Some(link) = self.waiting_links.get(&id).and_then(Weak::upgrade)
            {
                link.restarted.notify_one();
            }
            let all = self.connections.entry(id).or_default();
            for before in all.iter().filter(|before| before.incarnation != incarnation) {
                before.superseded.store(true, Ordering::Relaxed);
            }
            all.retain(|before| before.incarnation == incarnation && !before.ended.load(Ordering::Relaxed));
            if all.len() >= CONNECTIONS_EACH_MAX {
                // What is not remembered is not closed when its time comes.
                all.remove(0).superseded.store(true, Ordering::Relaxed);
            }
            all.push(connected.clone());
        } else {
            // What is not remembered could not be closed when its time comes.
            connected.superseded.store(true, Ordering::Relaxed);
        }
        connected
    }

    /// Whether a caller can be remembered. There is always room for members. Others make room when
    /// their connections have ended.
    fn makes_room_for(&mut self, id: NodeId) -> bool {
        let Self { connections, newest_start, in_force, .. } = self;
        let is_member = |id: &NodeId| in_force.members.contains_key(id);
        if is_member(&id) || newest_start.contains_key(&id) || newest_start.len() < MET_MAX {
            return true;
        }
        for all in connections.values_mut() {
            all.retain(|connected| !connected.ended.load(Ordering::Relaxed));
        }
        connections.retain(|id, all| is_member(id) || !all.is_empty());
        newest_start.retain(|id, _| is_member(id) || connections.contains_key(id));
        newest_start.keys().filter(|id| !is_member(id)).count() < MET_MAX
    }

    /// Remembers what is spoken with a peer. There is always room for members.
    fn note_spoken(&mut self, id: NodeId, spoken: Spoken) {
        let is_known = self.spoken.contains_key(&id) || self.in_force.members.contains_key(&id);
        if is_known || self.spoken.len() < MET_MAX {
            self.spoken.insert(id, spoken);
        }
    }
}

impl AddressBook {
    /// An address book of this node, and the membership that its log ends with.
    #[must_use]
    pub(crate) fn new(me: Me, in_force: Membership) -> Self {
        let level = AtomicU16::new(FeatureLevel::UNTOLD.get());
        Self { state: Mutex::new(State::new(me, in_force, BTreeMap::new())), level }
    }

    /// The level of the cluster, as far as this node has applied its log.
    pub(crate) fn level(&self) -> FeatureLevel {
        FeatureLevel::new(self.level.load(Ordering::Relaxed))
    }

    /// At which levels this node can talk to others of its cluster.
    pub(crate) fn spoken_levels(&self) -> SpokenLevels {
        SpokenLevels { speaks: self.lock().me.speaks, needs: self.level() }
    }

    /// The cluster is at that level. Connections below it are closed when something comes over
    /// them.
    pub(crate) fn set_level(&self, level: FeatureLevel) {
        if level == self.level() {
            return;
        }
        let state = self.lock();
        self.level.store(level.get(), Ordering::Relaxed);
        for connected in state.connections.values().flatten() {
            connected.is_outgrown.store(connected.level < level, Ordering::Relaxed);
        }
    }

    /// A peer let this node in.
    pub(crate) fn note_spoken(&self, id: NodeId, spoken: Spoken) {
        self.lock().note_spoken(id, spoken);
    }

    /// What is spoken with a peer, if it was met.
    #[must_use]
    pub(crate) fn spoken(&self, id: NodeId) -> Option<Spoken> {
        self.lock().spoken.get(&id).copied()
    }

    /// This node.
    #[must_use]
    pub(crate) fn me(&self) -> Me {
        self.lock().me.clone()
    }

    /// Whether a hello is let in; its sender's address and start are kept if so. `shown` is the
    /// caller's certificate, where connections are secured.
    ///
    /// # Errors
    /// [`Refusal`], for no other reason than its variants: an unknown member may be one whose entry
    /// has not arrived here yet. Where connections are secured, somebody who is known has to say
    /// so: [`Refusal::Unconfirmed`].
    pub(crate) fn admit(
        &self,
        (hello, levels): (&PeerHello, SpokenLevels),
        shown: Option<&PeerCertificate>,
        now: Time,
    ) -> Result<Arc<Connected>, Refusal> {
        let mut state = self.lock();
        let needs = self.level();
        let me = &state.me;
        if hello.cluster != me.cluster {
            let (called, ours, theirs) = (me.name.clone(), me.cluster, hello.cluster);
            if state.promised_to.is_some_and(|(cluster, until)| cluster == theirs && now < until) {
                return Err(Refusal::NotYet { called, theirs });
            }
            return Err(Refusal::OtherCluster { called, ours, theirs });
        }
        if hello.to != me.id {
            return Err(Refusal::NotMe { called: me.name.clone(), me: me.id, wanted: hello.to });
        }
        let (id, found) = (hello.from, hello.store);
        if let Some(shown) = shown
            && !state.may_speak_for(id, shown)
        {
            return Err(Refusal::OtherName { id, found: shown.name.clone() });
        }
        if state.is_removed(id) {
            return Err(Refusal::Removed { id });
        }
        if let Some(shown) = shown
            && state.is_stranger(id, shown)
        {
            let (called, found) = (me.name.clone(), shown.name.clone());
            return Err(Refusal::Unconfirmed { called, id, found });
        }
        let committed = state.committed_membership.as_ref();
        // A membership that is not committed may be void. It must not keep out the leader that
        // would say so.
        let known = committed.unwrap_or(&state.in_force).members.get(&id);
        if let Some(known) = known.map(|member| member.store_id)
            && known != found
        {
            return Err(Refusal::WrongStore { id, known, found });
        }
        let ours = SpokenLevels { speaks: state.me.speaks, needs };
        let Some(level) = levels.common(ours) else {
            let (called, needs) = (state.me.name.clone(), needs.max(levels.needs));
            let (ours, theirs) = (ours.speaks, levels.speaks);
            return Err(Refusal::OtherLevel { called, id, ours, theirs, needs });
        };
        state.recognise(hello, now)?;
        state.older_copies.remove(&id);
        if state.may_learn(id) {
            state.hello_addresses.insert(id, Learned::new(hello.raft_addr.clone()));
        }
        let spoken = Spoken { speaks: levels.speaks, level };
        Ok(state.connect(hello, shown.cloned(), (now, spoken)))
    }

    /// Whether the holder of a certificate may speak for a member: it is the member's, as far as
    /// this node knows the member's name.
    pub(crate) fn may_speak_for(&self, id: NodeId, shown: &PeerCertificate) -> bool {
        self.lock().may_speak_for(id, shown)
    }

    /// Whether nobody who is known here has said that the holder of a certificate is that member.
    pub(crate) fn is_stranger(&self, id: NodeId, shown: &PeerCertificate) -> bool {
        self.lock().is_stranger(id, shown)
    }

    /// Whom this node believes what the others are called, and where they are reached.
    pub(crate) fn vouchers(&self) -> Vec<Voucher> {
        let state = self.lock();
        let others = state.in_force.members.keys().filter(|id| **id != state.me.id);
        let members = others.flat_map(|id| {
            let name = state.name(*id).map(str::to_owned);
            let at = move |addr| Voucher { id: Some(*id), name: name.clone(), addr };
            state.addresses(*id).into_iter().map(at)
        });
        let told = state.told_addresses.iter();
        let told = told.map(|addr| Voucher { id: None, name: None, addr: addr.clone() });
        members.chain(state.vouched.vouchers()).chain(told).collect()
    }

    /// A voucher has told which members there are.
    pub(crate) fn take_view(&self, by: &Voucher, view: &MembersView) {
        let mut state = self.lock();
        state.vouched.take(by, view);
        state.look_at_names();
    }

    /// Nodes at these addresses are members: the operator says so.
    pub(crate) fn tell_addresses(&self, addresses: impl IntoIterator<Item = String>) {
        self.lock().told_addresses.extend(addresses.into_iter().take(MEMBERS_MAX));
    }

    /// Whether a certificate is a member's.
    pub(crate) fn is_a_members(&self, shown: &PeerCertificate) -> bool {
        self.lock().in_force.members.values().any(|member| shown.is_of_member(&member.name))
    }

    /// The name of a member.
    pub(crate) fn name(&self, id: NodeId) -> Option<String> {
        self.lock().name(id).map(str::to_owned)
    }

    /// The name of the member that is reached at that address.
    pub(crate) fn name_at(&self, addr: &str) -> Option<String> {
        let state = self.lock();
        let mut members = state.in_force.members.iter();
        let is_there = |id: &NodeId| state.addresses(*id).iter().any(|one| one == addr);
        let (id, _) = members.find(|(id, _)| is_there(id))?;
        state.name(*id).map(str::to_owned)
    }

    /// What is notified when this peer calls. At most one link for each peer keeps it.
    pub(crate) fn calls_of(&self, peer: NodeId) -> Arc<PeerCalls> {
        let calls = Arc::new(PeerCalls::default());
        let mut state = self.lock();
        state.waiting_links.retain(|_, link| link.strong_count() > 0);
        state.waiting_links.insert(peer, Arc::downgrade(&calls));
        calls
    }

    /// A peer's connection was let in: it is there, so that a link to it need not pause any longer.
    pub(crate) fn note_call(&self, from: NodeId) {
        if let Some(link) = self.lock().waiting_links.get(&from).and_then(Weak::upgrade) {
            link.called.notify_one();
        }
    }

    /// A caller that was refused, since its data directory is an older copy, lives: it has heard
    /// so.
    pub(crate) fn note_older_copy(&self, id: NodeId, why: String) {
        let mut state = self.lock();
        if state.in_force.members.contains_key(&id) {
            state.older_copies.insert(id, why);
        }
    }

    /// Why a member is not let in, if its data directory is an older copy.
    #[must_use]
    pub(crate) fn older_copy(&self, id: NodeId) -> Option<String> {
        self.lock().older_copies.get(&id).cloned()
    }

    /// The address at which `id` is most likely reached.
    #[must_use]
    pub(crate) fn address(&self, id: NodeId) -> Option<String> {
        self.addresses(id).into_iter().next()
    }

    /// The addresses at which `id` may be reached, the likelier one first: the one that it named
    /// when it was let in, and the one in the membership, if they differ. A node that came back at
    /// another address has to be answered there before a leader can record that. And a membership
    /// that is new here may be an old one, while this node catches up.
    #[must_use]
    pub(crate) fn addresses(&self, id: NodeId) -> Vec<String> {
        self.lock().addresses(id)
    }

    /// Whether a member is reached at that caller's address. Of a member that is reached by a name
    /// it is not known.
    pub(crate) fn is_of_member(&self, caller: &Caller) -> bool {
        let state = self.lock();
        let mut members = state.in_force.members.keys();
        members.any(|id| state.addresses(*id).iter().any(|addr| Caller::of(addr) == *caller))
    }

    /// Forgets the addresses of nodes that have left the membership, except those in `needed`. A
    /// node that was let in before this one knew of its removal may speak for a moment more: what
    /// it sent as a member may still be on its way.
    pub(crate) fn retain_left(&self, needed: &BTreeSet<NodeId>, now: Time) {
        let mut state = self.lock();
        state.former_addresses.retain(|id, _| needed.contains(id));
        let known = state.hello_addresses.keys().chain(state.connections.keys()).copied();
        let gone: Vec<_> = known.filter(|id| state.is_removed(*id) && !needed.contains(id)).collect();
        for id in gone {
            state.hello_addresses.remove(&id);
            state.spoken.remove(&id);
            for connected in state.connections.get(&id).into_iter().flatten() {
                let until = now.plus(ALIVE_MICROS).get();
                connected.removed_until_micros.fetch_min(until, Ordering::Relaxed);
            }
        }
    }

    /// What to say when calling `to`.
    #[must_use]
    pub(crate) fn hello(&self, to: NodeId) -> PeerHello {
        let state = self.lock();
        let me = &state.me;
        let (cluster, from, store, raft_addr) = (me.cluster, me.id, me.store, me.raft_addr.clone());
        PeerHello { cluster, from, store, raft_addr, to, starts: me.starts.clone() }
    }

    /// Another membership is in force.
    pub(crate) fn set_membership(&self, membership: Membership, committed: bool) {
        let mut state = self.lock();
        if committed {
            state.vouched.settle(&membership);
            state.committed_membership = Some(membership.clone());
        }
        let gone = state.in_force.members.keys().filter(|id| !membership.members.contains_key(id));
        let gone: Vec<_> = gone.map(|id| (*id, state.addresses(*id))).collect();
        state.former_addresses.extend(gone);
        let State { hello_addresses, in_force, .. } = &mut *state;
        hello_addresses.retain(|id, learned| {
            let address = |membership: &Membership| membership.members.get(id).map(|m| m.raft_addr.clone());
            let (before, after) = (address(in_force), address(&membership));
            learned.is_contested |= before != after;
            before.is_none() || after.is_some()
        });
        state.in_force = membership;
        state.look_at_names();
    }

    /// A membership that is known to be committed, though another one may be in force already.
    pub(crate) fn set_committed(&self, membership: Membership) {
        let mut state = self.lock();
        state.vouched.settle(&membership);
        state.committed_membership = Some(membership);
        state.look_at_names();
    }

    /// This node is about to move into that cluster, until that time; or not any more.
    pub(crate) fn set_promised(&self, promised: Option<(ClusterId, Time)>) {
        self.lock().promised_to = promised;
    }

    /// This node has moved into another cluster: the membership that its log there ends with, and
    /// the addresses that it was told.
    pub(crate) fn set_me(&self, me: Me, in_force: Membership, addresses: Vec<(NodeId, String)>) {
        let addresses = addresses.into_iter().take(MEMBERS_MAX);
        let learned: BTreeMap<_, _> = addresses.map(|(id, addr)| (id, Learned::new(addr))).collect();
        let mut state = self.lock();
        let mut told_addresses = std::mem::take(&mut state.told_addresses);
        told_addresses.extend(learned.values().map(|learned| learned.addr.clone()));
        self.level.store(FeatureLevel::UNTOLD.get(), Ordering::Relaxed);
        *state = State { told_addresses, ..State::new(me, in_force, learned) };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change replaces whole fields: consistent wherever a panic could have struck.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
