//! What a node does about its own membership by itself: it joins the cluster it was started for,
//! and tells its address.

use crate::codec::{HostPort, host_of, is_loopback};
use crate::node::handle::MembershipView;
use crate::node::join::{HOPS_MAX, Joiner};
use crate::node::options::NodeOptions;
use crate::peer::orders::MemberView;
use crate::peer::rpc::{Question, Reply, ask, ask_member};
use crate::raft::{ClusterId, Member, StoreId};
use crate::runtime::Env;
use tracing::{info, warn};

/// The member that takes a join answers within this time.
const JOIN_MICROS: u64 = 45_000_000;
/// How long another node may take to describe itself, or to note an address.
const ASK_MICROS: u64 = 3_000_000;
/// The pause after a first attempt; doubled for each one after it.
const PAUSE_MICROS_MIN: u64 = 200_000;
/// The longest pause.
const PAUSE_MICROS_MAX: u64 = 5_000_000;
/// A node that still finds no leader for its address when the pause is this long says so.
const COMPLAINT_MICROS: u64 = 3_000_000;

/// Where the addresses come from that this node names.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Origin {
    /// A person said what the others are to be told (`--advertise-raft-addr`).
    pub is_chosen: bool,
    /// The node listens on every interface, and asked the system for the machine's name.
    pub is_raft_guessed: bool,
    /// Its HTTP API listens on every interface, at the host so found.
    pub is_http_guessed: bool,
}

impl Origin {
    /// Of the addresses that these options lead to.
    pub(super) fn of(options: &NodeOptions) -> Self {
        let is_every = |addr| HostPort::parse(addr).is_ok_and(|listens| listens.is_every_interface());
        let is_chosen = options.advertise.is_some();
        let is_raft_guessed = !is_chosen && is_every(&options.raft_addr);
        Self { is_chosen, is_raft_guessed, is_http_guessed: is_raft_guessed && is_every(&options.http_addr) }
    }
}

/// Asks `addresses`, one after the other and again and again, to add this node to their cluster.
pub(super) async fn join_until_member<E: Env>(joiner: Joiner<E>, addresses: Vec<String>) {
    let mut pause_micros = PAUSE_MICROS_MIN;
    let mut complaint = None;
    let alone = joiner.address_book.me().cluster;
    loop {
        for addr in &addresses {
            let Err(reason) = join_once(&joiner, addr, alone).await else { return };
            if complaint.as_ref() != Some(&reason) {
                warn!(%reason, "could not join; trying again");
                complaint = Some(reason);
            }
        }
        joiner.env.sleep_until(joiner.env.now().plus(pause_micros)).await;
        pause_micros = (pause_micros * 2).min(PAUSE_MICROS_MAX);
    }
}

/// Asks one address to add this node, which is a cluster of its own yet: `alone`.
///
/// # Errors
/// Text that says why this node has not joined.
pub(super) async fn join_once<E: Env>(
    joiner: &Joiner<E>,
    addr: &str,
    alone: ClusterId,
) -> Result<(), String> {
    let me = joiner.address_book.me();
    let views = joiner.handle.membership.clone();
    let has_moved = async {
        drop(views.wait_for(|_| joiner.address_book.me().cluster != alone).await);
    };
    let (name, raft_addr) = (me.name.clone(), me.raft_addr.clone());
    let question = Question::Join { name, raft_addr, hops: HOPS_MAX };
    let answer = tokio::select! {
        biased;
        answer = ask(&joiner.dialer, addr, &question, JOIN_MICROS) => answer,
        // The answer of another was lost, and this one may never come.
        () = has_moved => {
            info!("joined the cluster");
            return Ok(());
        }
    };
    match answer {
        Ok(Reply::Joined(Ok(id))) if joiner.address_book.me().cluster != alone => {
            info!(id = id.get(), via = %addr, "joined the cluster");
            Ok(())
        }
        // It asked itself, under another name: a node is always a member of its own cluster.
        Ok(Reply::Joined(Ok(_))) => {
            Err(format!("{addr} is this node itself; --join names members of the cluster to join"))
        }
        Ok(Reply::Joined(Err(error))) => Err(format!("{addr}: {error}")),
        Ok(other) => Err(format!("{addr} answered {other:?}")),
        Err(reason) => Err(reason),
    }
}

/// Sees to it that the membership says where this node is reached, as long as it is the member that
/// it started as.
///
/// An answer that says so proves little: what was noted may get lost before it is committed, and an
/// older note may still be on its way here. So the membership itself is watched, committed or not:
/// a node that the leader cannot find does not learn what is committed.
///
/// An address on record that still leads here stays, though this node would name another: a person
/// who knows the network chose it. It does not stay if a person chose this node's, or
/// if it leads a node to itself alone: what this node finds there proves nothing then. An address
/// that leads each machine to itself, and that nobody chose, takes the place of no other.
pub(super) async fn announce_address<E: Env>(joiner: Joiner<E>, origin: Origin) {
    let mut pause_micros = PAUSE_MICROS_MIN;
    let views = joiner.handle.membership.clone();
    let me = joiner.address_book.me();
    let is_another = || joiner.address_book.me().store != me.store;
    let on_record = |view: &MembershipView| {
        view.membership.members.get(&me.id).filter(|member| member.store_id == me.store).cloned()
    };
    // Whether it was logged that nobody takes the address.
    let mut is_told = false;
    // What was on record last, and may stay.
    let mut right: Option<Member> = None;
    loop {
        let is_wrong = |member: Member| {
            (&member.raft_addr, &member.http_addr) != (&me.raft_addr, &me.http_addr)
                && right.as_ref() != Some(&member)
        };
        let seen = views.wait_for(|view| is_another() || on_record(view).is_some_and(is_wrong)).await;
        let Ok(Some(member)) = seen.map(|view| on_record(&view)) else { return };
        if is_another() {
            return;
        }
        let known = member.raft_addr == me.raft_addr
            || (origin.is_raft_guessed && !may_lead_others(&me.raft_addr, &member.raft_addr))
            || (!origin.is_chosen
                && may_lead_others(&member.raft_addr, &me.raft_addr)
                && leads_to(&joiner, &member.raft_addr, me.store).await);
        let raft_addr = if known { &member.raft_addr } else { &me.raft_addr }.clone();
        let keeps_http = origin.is_http_guessed && !may_lead_others(&me.http_addr, &member.http_addr);
        let http_addr = if keeps_http { &member.http_addr } else { &me.http_addr }.clone();
        if (&raft_addr, &http_addr) == (&member.raft_addr, &member.http_addr) {
            right = Some(member);
            continue;
        }
        let question = Question::Announce { id: me.id, store: me.store, raft_addr, http_addr };
        if announce(&joiner, question).await {
            info!(addr = %me.raft_addr, "announced this node's address");
            is_told = false;
        } else if pause_micros >= COMPLAINT_MICROS && !std::mem::replace(&mut is_told, true) {
            warn!(addr = %me.raft_addr, "no leader has taken this node's address yet; trying again");
        }
        // Time for the entry to arrive here.
        joiner.env.sleep_until(joiner.env.now().plus(pause_micros)).await;
        pause_micros = (pause_micros * 2).min(PAUSE_MICROS_MAX);
    }
}

/// Tells the leader, which it has to find: other members refuse.
async fn announce<E: Env>(joiner: &Joiner<E>, question: Question) -> bool {
    let members = joiner.handle.membership.borrow().membership.members.clone();
    let me = joiner.address_book.me().id;
    if let Question::Announce { id, store, raft_addr, http_addr } = question.clone()
        && joiner.announce(id, store, raft_addr, http_addr).await.is_ok()
    {
        return true;
    }
    let others: Vec<_> = members.into_iter().filter(|(id, _)| *id != me).collect();
    for (_, member) in &others {
        if let Ok(Reply::Done) = ask(&joiner.dialer, &member.raft_addr, &question, ASK_MICROS).await {
            return true;
        }
    }
    // The leader may have moved too: then the others know where it is.
    for (_, member) in &others {
        let viewed = ask(&joiner.dialer, &member.raft_addr, &Question::Members, ASK_MICROS).await;
        let Ok(Reply::Members(view)) = viewed else { continue };
        let leader = view.members.into_iter().find(|member| Some(member.id) == view.leader);
        if let Some(MemberView { name, raft_addr, .. }) = leader
            && raft_addr != member.raft_addr
            && let called = (Some(name.as_str()), raft_addr.as_str())
            && let Ok(Reply::Done) = ask_member(&joiner.dialer, called, &question, ASK_MICROS).await
        {
            return true;
        }
    }
    false
}

/// Whether an address that leads this node to itself may lead the others here, where it also has
/// `other`. On every machine `localhost` is another one; a cluster on one machine has no address
/// but that.
fn may_lead_others(addr: &str, other: &str) -> bool {
    !is_loopback(host_of(addr)) || is_loopback(host_of(other))
}

async fn leads_to<E: Env>(joiner: &Joiner<E>, addr: &str, store: StoreId) -> bool {
    let described = ask(&joiner.dialer, addr, &Question::Describe, ASK_MICROS).await;
    matches!(described, Ok(Reply::Described(found)) if found.store == store)
}

#[cfg(test)]
mod tests;
