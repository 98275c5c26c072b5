//! A member that has moved, and what the membership says of it meanwhile.

use crate::codec::FeatureLevels;
use crate::node::announce::{Origin, announce_address, may_lead_others};
use crate::node::handle::{ClientCall, MembershipView, NodeHandle};
use crate::node::join::Joiner;
use crate::peer::address_book::{AddressBook, Me};
use crate::peer::hello::Starts;
use crate::peer::secured::Dialer;
use crate::raft::{Change, ClusterId, Member, Membership, NodeId, StoreId};
use crate::replica::{ClientReply, ClientRequest};
use crate::runtime::{TokioEnv, watch};
use crate::storage::MemoryDisk;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// The member that has moved.
const ME: NodeId = NodeId::new(1);
const STORE: StoreId = StoreId(100);

/// What surrounds the task: the membership that it is shown, and the replica that it asks.
struct Around {
    views: watch::Sender<MembershipView>,
    replica: mpsc::Receiver<ClientCall>,
}

fn at(http_addr: &str) -> Member {
    let (name, raft_addr) = ("a".to_owned(), "a:1".to_owned());
    Member { name, raft_addr, http_addr: http_addr.to_owned(), store_id: STORE }
}

fn view(http_addr: &str, committed: bool) -> MembershipView {
    MembershipView { membership: Membership::bootstrap([at(http_addr)]).unwrap(), committed }
}

/// Starts the task of a member that is found at `a:3` now.
fn begin(on_record: MembershipView) -> Around {
    begin_at(on_record, ("a:1", "a:3"), Origin::default())
}

/// Starts the task of a member that names these addresses.
fn begin_at(on_record: MembershipView, (raft_addr, http_addr): (&str, &str), origin: Origin) -> Around {
    let me = Me {
        cluster: ClusterId(1),
        id: ME,
        store: STORE,
        starts: Starts { number: 2, nonces: vec![2, 1] },
        name: "a".to_owned(),
        raft_addr: raft_addr.to_owned(),
        http_addr: http_addr.to_owned(),
        speaks: FeatureLevels::OF_THIS_RELEASE,
    };
    let address_book = Arc::new(AddressBook::new(me, on_record.membership.clone()));
    let (views, membership) = watch::channel(on_record);
    let (clients, replica) = mpsc::channel(1);
    let (orders, joins) = (mpsc::channel(1).0, mpsc::channel(1).0);
    let handle =
        NodeHandle { clients, orders, joins, membership, last: Arc::default(), facts: Arc::default() };
    let (env, turns, timings) = (TokioEnv::new(MemoryDisk::new()), Default::default(), Default::default());
    let joiner = Joiner {
        dialer: Dialer::plain(&env),
        env,
        handle,
        address_book,
        timings,
        turns,
        places: Arc::new(Semaphore::new(1)),
        initial_cluster: None,
        predecessor: None,
    };
    tokio::spawn(announce_address(joiner, origin));
    Around { views, replica }
}

impl Around {
    /// Waits until the member asks for its new address, and answers that.
    async fn is_asked(&mut self, answer: ClientReply) {
        // `None` if the task has ended.
        let call = self.replica.recv().await.expect("it goes on");
        let change = Change::Update { id: ME, member: at("a:3") };
        assert_eq!(call.request, ClientRequest::ChangeMembership(change.into()));
        let _ = call.reply.send(answer);
    }
}

#[tokio::test]
async fn a_new_address_that_got_lost_again_is_announced_again() {
    // In the log here only, and another leader's log takes its place; or an older note arrives
    // late.
    for committed in [false, true] {
        let mut around = begin(view("a:3", committed));
        tokio::task::yield_now().await;
        around.views.send_replace(view("a:2", committed));
        around.is_asked(ClientReply::MembershipChanged(vec![])).await;
    }
}

/// A name service that is late must not cost a good address. A person who has a node listen on its
/// own machine alone means it.
#[tokio::test]
async fn only_a_guessed_loopback_takes_no_other_addresss_place() {
    let guessed = Origin { is_raft_guessed: true, is_http_guessed: true, ..Origin::default() };
    for (addresses, origin, is_told) in [
        (("127.0.0.1:1", "127.0.0.1:3"), guessed, false),
        (("a:1", "127.0.0.1:3"), guessed, false),
        (("a:1", "127.0.0.1:3"), Origin::default(), true),
    ] {
        let mut around = begin_at(view("a:3", true), addresses, origin);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(around.replica.try_recv().is_ok(), is_told, "{addresses:?}, {origin:?}");
    }
}

#[tokio::test]
async fn an_answer_that_all_is_done_is_not_believed_before_it_is_seen() {
    let mut around = begin(view("a:2", true));
    around.is_asked(ClientReply::MembershipChanged(vec![])).await;
    around.is_asked(ClientReply::MembershipChanged(vec![])).await;
}

#[test]
fn an_address_of_the_own_machine_alone_is_no_address_for_others() {
    for (on_record, own, may) in [
        ("localhost:8000", "10.0.0.1:8000", false),
        ("127.0.0.1:8000", "node-1:8000", false),
        ("[::1]:8000", "10.0.0.1:8000", false),
        ("localhost:8000", "127.0.0.1:8000", true),
        ("10.0.0.2:8000", "localhost:8000", true),
        ("proxy:8000", "10.0.0.1:8000", true),
    ] {
        assert_eq!(may_lead_others(on_record, own), may, "{on_record} for {own}");
    }
}
