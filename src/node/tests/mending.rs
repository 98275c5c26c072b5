//! What a node answers to one that repairs its data directory.

use crate::node::StartError;
use crate::node::tests::cluster::{TestNode, is_set};
use crate::peer::mending::{MendCall, MendReply, MendWants};
use crate::peer::rpc::{Question, Reply, ask};
use crate::peer::secured::Dialer;
use crate::raft::Change;
use crate::replica::{ClientReply, ClientRequest};
use crate::runtime::TokioEnv;

const PATIENCE_MICROS: u64 = 30_000_000;

async fn ask_for_the_end(node: &TestNode) -> MendReply {
    let question = Question::Mend(MendCall { caller: None, cluster: None, wants: MendWants::Leader });
    let env = TokioEnv::new(node.disk.clone());
    match ask(&Dialer::plain(&env), &node.addr(), &question, PATIENCE_MICROS).await {
        Ok(Reply::Mend(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_leader_says_where_its_log_ends_only_with_a_quorum() {
    let (first, second) = (TestNode::start("a").await, TestNode::start("b").await);
    first.join(&second).await;
    assert!(is_set(&first.set("k", "v").await));
    let last = first.handle().status().await.replica.last_log;
    assert_eq!(ask_for_the_end(&first).await, MendReply::Leads { end: last });
    let elsewhere = MendReply::Elsewhere { leader: Some(first.addr()) };
    assert_eq!(ask_for_the_end(&second).await, elsewhere);
    // It still takes itself for the leader, and another one may lead already.
    second.stop().await;
    let answer = ask_for_the_end(&first).await;
    assert!(!matches!(answer, MendReply::Leads { .. }), "{answer:?}");
}

#[tokio::test]
async fn a_removed_member_does_not_come_back_by_a_damaged_directory() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    let id = c.handle().status().await.replica.id;
    let (disk, addr) = (c.disk.clone(), c.addr());
    c.stop().await;
    let change = ClientRequest::ChangeMembership(Change::Remove { members: [id].into() }.into());
    assert!(matches!(a.handle().request(change).await, ClientReply::MembershipChanged(_)));
    // The header of its newest segment, which says what it had voted.
    let segments = disk.files().into_iter().filter(|path| path.extension().is_some_and(|end| end == "seg"));
    assert!(disk.flip_bit(&segments.max().unwrap(), 100, 1));
    let started = TestNode::try_start_with("c", disk, |options| {
        options.raft_addr = addr;
        options.join = vec![a.addr(), b.addr()];
    });
    let told = started.await.map(|node| node.name).unwrap_err();
    assert!(matches!(told, StartError::Removed { .. }), "{told}");
    assert_eq!(a.handle().status().await.replica.members.len(), 2);
}
