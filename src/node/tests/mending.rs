//! What a node answers to one that repairs its data directory.

use crate::node::tests::cluster::{TestNode, is_set};
use crate::peer::mending::{MendCall, MendReply, MendWants};
use crate::peer::rpc::{Question, Reply, ask};
use crate::peer::secured::Dialer;
use crate::runtime::TokioEnv;

const PATIENCE_MICROS: u64 = 30_000_000;

async fn ask_for_the_end(node: &TestNode) -> MendReply {
    let question = Question::Mend(MendCall { caller: None, wants: MendWants::Leader });
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
