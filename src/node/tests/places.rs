//! Places of members: those that were given and not taken up, and those of learners that stay ones.

use crate::node::tests::cluster::{TestNode, is_set};
use crate::peer::orders::{MemberOrder, NewNode, OrderCode, OrderConditions};
use crate::peer::rpc::{Adoption, Question, Reply, ask};
use crate::peer::secured::Dialer;
use crate::raft::{Change, Member, NodeId, StoreId};
use crate::replica::{ClientError, ClientReply, ClientRequest, Level, Standing};
use crate::runtime::TokioEnv;
use crate::storage::MemoryDisk;

const MICROS: u64 = 60_000_000;

async fn asked(node: &TestNode, question: Question) -> Reply {
    ask(&Dialer::plain(&TokioEnv::new(MemoryDisk::new())), &node.addr(), &question, MICROS).await.unwrap()
}

fn order(nodes: &[&TestNode], replaces: &[&str], learners: bool) -> MemberOrder {
    let new = |node: &&TestNode| NewNode { name: node.name.clone(), raft_addr: node.addr() };
    MemberOrder::Add {
        nodes: nodes.iter().map(new).collect(),
        replaces: replaces.iter().map(|name| (*name).to_owned()).collect(),
        learners,
    }
}

async fn add(to: &TestNode, nodes: &[&TestNode], replaces: &[&str], learners: bool) -> Vec<NodeId> {
    let done =
        to.handle().manage(order(nodes, replaces, learners), OrderConditions::default()).await.unwrap();
    done.members.into_iter().map(|member| member.id).collect()
}

/// Name and standing of the members.
async fn members(node: &TestNode) -> Vec<(String, Standing)> {
    let members = node.handle().status().await.replica.members;
    members.into_iter().map(|member| (member.member.name, member.standing)).collect()
}

fn listed(members: &[(&str, Standing)]) -> Vec<(String, Standing)> {
    members.iter().map(|(name, standing)| ((*name).to_owned(), *standing)).collect()
}

/// A leader gives nodes places, and is gone before it hands them over. The reservations may lapse.
async fn give_places(to: &TestNode, nodes: &[&TestNode], replaces: &[NodeId], promote: bool) -> Vec<NodeId> {
    let mut given = Vec::new();
    let cluster = to.handle().status().await.cluster;
    for node in nodes {
        let Reply::Reserved(store) = asked(node, Question::Reserve { cluster, micros: 1 }).await else {
            panic!("it is not reserved");
        };
        let (name, raft_addr) = (node.name.clone(), node.addr());
        given.push(Member { name, http_addr: raft_addr.clone(), raft_addr, store_id: store });
    }
    let change = Change::AddMembers { members: given, replaces: replaces.iter().copied().collect(), promote };
    loop {
        match to.handle().request(ClientRequest::ChangeMembership(change.clone().into())).await {
            ClientReply::MembershipChanged(ids) => return ids,
            // Another change has not ended, or a member is slow to answer.
            ClientReply::Failed(ClientError::ChangePending | ClientError::QuorumAtRisk(_)) => {}
            // It was not heard for a while, and another one leads.
            ClientReply::Failed(ClientError::NotLeader(_)) => {
                let id = to.handle().status().await.replica.id;
                for node in nodes {
                    let _ = node.handle().request(ClientRequest::TransferLeadership(Some(id))).await;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_learner_that_comes_back_empty_stays_a_learner() {
    let (a, l) = (TestNode::start("a").await, TestNode::start("l").await);
    add(&a, &[&l], &[], true).await;
    let addr = l.addr();
    l.stop().await;
    let wiped = TestNode::start_with("l", MemoryDisk::new(), |options| {
        options.raft_addr = addr.clone();
        options.join = vec![a.addr()];
    })
    .await;
    while !is_set(&wiped.set("k", "v").await) {
        tokio::task::yield_now().await;
    }
    let as_ordered = listed(&[("a", Standing::Voter), ("l", Standing::Learner)]);
    assert_eq!(members(&a).await, as_ordered, "nobody asked for another voter");
    // Asked for once more, it is what it is to be.
    a.join(&wiped).await;
    wiped.stop().await;
    // By an order of the same words.
    let again = TestNode::start_with("l", MemoryDisk::new(), |options| options.raft_addr = addr).await;
    add(&a, &[&again], &[], true).await;
    assert_eq!(members(&a).await, as_ordered);
    assert_eq!(again.get("k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_place_that_was_not_handed_over_is_when_the_order_is_repeated() {
    for learners in [false, true] {
        let (a, b) = (TestNode::start("a").await, TestNode::start("b").await);
        let given = give_places(&a, &[&b], &[], !learners).await;
        assert_eq!(add(&a, &[&b], &[], learners).await, given);
        assert_eq!(b.handle().status().await.replica.id, given[0]);
        assert!(is_set(&b.set("k", "v").await));
        // As a join, too.
        let c = TestNode::start("c").await;
        let given = give_places(&a, &[&c], &[], !learners).await;
        a.join(&c).await;
        assert_eq!(c.handle().status().await.replica.id, given[0]);
        assert_eq!(c.get("k").await.as_deref(), Some("v"));
    }
}

#[tokio::test]
async fn a_node_beside_its_place_takes_no_writes_of_its_own() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("b").await);
    give_places(&a, &[&b], &[], false).await;
    // What it took would be a second cluster at the member's address, and keep it from joining.
    let read = || ClientRequest::read("k", Level::Linearizable);
    let why = loop {
        if let ClientReply::Failed(ClientError::Refused(why)) = b.handle().request(read()).await {
            break why;
        }
    };
    assert!(why.contains("as its member"), "{why}");
    assert!(!is_set(&b.set("k", "v").await));
    assert_eq!(add(&a, &[&b], &[], true).await.len(), 1);
}

#[tokio::test]
async fn a_learner_takes_the_place_of_one_that_nobody_can_take_up() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("b").await);
    let nowhere = "127.0.0.1:1".to_owned();
    let lost =
        Member { name: "b".into(), raft_addr: nowhere.clone(), http_addr: nowhere, store_id: StoreId(77) };
    let change = Change::AddMembers { members: vec![lost], replaces: [].into(), promote: false };
    let given = a.handle().request(ClientRequest::ChangeMembership(change.into())).await;
    assert!(matches!(given, ClientReply::MembershipChanged(_)), "{given:?}");
    add(&a, &[&b], &[], true).await;
    assert_eq!(members(&a).await, listed(&[("a", Standing::Voter), ("b", Standing::Learner)]));
    assert!(is_set(&b.set("k", "v").await));
}

#[tokio::test]
async fn an_order_of_two_nodes_that_was_half_done_is_gone_on_with() {
    let (a, r) = (TestNode::start("a").await, TestNode::start("r").await);
    let (x, y) = (TestNode::start("x").await, TestNode::start("y").await);
    a.join(&r).await;
    let replaced = r.handle().status().await.replica.id;
    let given = give_places(&a, &[&x, &y], &[replaced], true).await;
    let status = a.handle().status().await;
    let described = |id: NodeId| status.replica.members.iter().find(move |member| member.id == id);
    let status_x = a.handle().status().await;
    let member = status_x.replica.members.iter().find(|member| member.id == given[0]).unwrap();
    // It takes up its place, and the leader is gone before the next one does.
    let reserve = Question::Reserve { cluster: status.cluster, micros: MICROS };
    assert!(matches!(asked(&x, reserve).await, Reply::Reserved(_)));
    let adoption = Adoption {
        cluster: status.cluster,
        id: given[0],
        store: member.member.store_id,
        raft_addr: x.addr(),
        addresses: vec![(status.replica.id, a.addr())],
    };
    assert_eq!(asked(&x, Question::Adopt(adoption)).await, Reply::Done);
    assert!(described(given[1]).is_some());
    // Another order does not go on with it.
    let z = TestNode::start("z").await;
    let other = a.handle().manage(order(&[&x, &z], &["r"], false), OrderConditions::default()).await;
    assert!(matches!(&other, Err(error) if error.code == OrderCode::NodeHasData), "{other:?}");
    assert_eq!(add(&a, &[&x, &y], &["r"], false).await, given);
    let voters = ["a", "x", "y"].map(|name| (name, Standing::Voter));
    while members(&a).await.len() > voters.len() {
        tokio::task::yield_now().await;
    }
    assert_eq!(members(&a).await, listed(&voters));
    assert!(is_set(&y.set("k", "v").await));
}
