use crate::codec::{FeatureLevel, FeatureLevels, from_bytes, to_bytes};
use crate::peer::block::Block;
use crate::peer::greeting::{Greeting, NotGreeted, SpokenLevels, greet};
use crate::peer::hello::{Hello, HelloAnswer};
use crate::peer::mending::{MendCall, MendCaller, MendReply, MendWants};
use crate::peer::orders::{OrderCode, OrderError};
use crate::peer::rpc::{
    Adoption, Description, JoinError, Question, Reply, converse, read_question, write_reply,
};
use crate::raft::{ClusterId, LogId, LogIndex, NodeId, StoreId, Term};
use proptest::prelude::*;
use std::future::ready;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

/// Asks over a pipe whose other end answers so.
async fn ask(
    question: &Question,
    answer: HelloAnswer,
    reply: Reply,
) -> (Option<Question>, Result<Reply, String>) {
    let (near, mut far) = duplex(64);
    let answering = async {
        let here = SpokenLevels::of_any_cluster(FeatureLevels::OF_THIS_RELEASE);
        let greeting = Greeting::read(&mut far, here.speaks).await.unwrap();
        assert_eq!(greeting.hello, Hello::Rpc);
        let manner = greeting.manner(here);
        answer.write(&mut far, manner).await.unwrap();
        let asked = read_question(&mut far, manner.agreed).await.ok()?;
        write_reply(&mut far, manner.agreed, &reply).await.unwrap();
        Some(asked)
    };
    let (replied, asked) = tokio::join!(put(near, question), answering);
    (asked, replied)
}

/// Asks over one connection.
async fn put(near: DuplexStream, question: &Question) -> Result<Reply, String> {
    let levels = SpokenLevels::of_any_cluster(FeatureLevels::OF_THIS_RELEASE);
    let near = Mutex::new(Some(near));
    let dial = || ready(near.lock().unwrap().take().ok_or_else(|| io::Error::other("it calls twice")));
    match greet(levels, &Hello::Rpc, dial).await {
        Ok(greeted) => converse(greeted, question, &AtomicBool::new(false)).await,
        Err(NotGreeted::NoAnswer(error)) => Err(error.to_string()),
        Err(other) => Err(format!("{other:?}")),
    }
}

#[tokio::test]
async fn questions_and_replies_arrive_as_they_were_sent() {
    let (cluster, store, id) = (ClusterId(1), StoreId(2), NodeId::new(3));
    let text = || "host:1".to_owned();
    let adoption = Adoption { cluster, id, store, raft_addr: text(), addresses: vec![(id, text())] };
    let entry = LogId::new(Term::new(3), LogIndex::new(8));
    let caller = Some(MendCaller { cluster, member: id, store });
    let mend = |wants| Question::Mend(MendCall { caller, cluster: Some(cluster), wants });
    let questions = [
        Question::Describe,
        Question::Join { name: text(), raft_addr: text(), hops: 1 },
        Question::Announce { id, store, raft_addr: text(), http_addr: text() },
        Question::Reserve { cluster, micros: 5 },
        Question::Release(cluster),
        Question::Adopt(adoption),
        mend(MendWants::Entries { after: LogIndex::ZERO, through: LogIndex::new(7), anchor: entry }),
        mend(MendWants::Chunk { snapshot: Some(entry), offset: 5 }),
        mend(MendWants::Leader),
        Question::Describe,
        Question::Describe,
    ];
    let description = || Description {
        name: text(),
        cluster,
        id,
        store,
        http_addr: text(),
        members: 1,
        leader_addr: Some(text()),
        has_data: true,
        initial_cluster: Some(text()),
        predecessor: Some(ClusterId(8)),
        speaks: FeatureLevels::OF_THIS_RELEASE,
    };
    let replies = [
        Reply::Described(description()),
        Reply::Joined(Ok(id)),
        Reply::Joined(Err(JoinError::Conflict(text()))),
        Reply::Reserved(store),
        Reply::Done,
        Reply::Refused(text()),
        // Longer than any other reply.
        Reply::Mend(MendReply::Entries(vec![7; 1 << 20])),
        Reply::Mend(MendReply::Chunk { snapshot: vec![1], offset: 5, data: vec![2], done: true }),
        Reply::Mend(MendReply::Leads { end: entry }),
        Reply::Described(description()),
        Reply::Done,
    ];
    for (question, reply) in questions.iter().zip(replies) {
        let (asked, replied) = ask(question, HelloAnswer::Accepted, reply.clone()).await;
        assert_eq!((asked.as_ref(), replied), (Some(question), Ok(reply)));
    }
}

#[tokio::test]
async fn a_refused_caller_is_told_why() {
    let (_, replied) = ask(&Question::Describe, HelloAnswer::Refused("no".to_owned()), Reply::Done).await;
    assert_eq!(replied, Err("no".to_owned()));
}

#[tokio::test]
async fn a_stranger_instead_of_a_node_is_named_as_one() {
    let (near, mut far) = duplex(64);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.unwrap();
    let error = put(near, &Question::Describe).await.unwrap_err();
    assert!(error.contains("does not speak InfinityStore's protocol"), "{error}");
}

#[tokio::test]
async fn a_node_of_level_7_hears_of_an_order_in_words_that_it_knows() {
    for (code, known) in [
        (OrderCode::Overloaded, OrderCode::Unavailable),
        (OrderCode::DiskFull, OrderCode::Unavailable),
        (OrderCode::ChangePending, OrderCode::ChangePending),
    ] {
        let failed = |code| Reply::Managed(Err(OrderError::new(code, "why")));
        for (level, heard) in [(FeatureLevel::OLDEST, known), (FeatureLevel::NEGOTIATES, code)] {
            let (mut near, mut far) = duplex(1 << 10);
            write_reply(&mut far, level, &failed(code)).await.unwrap();
            let block = Block::read(&mut near, FeatureLevels::only(level), 1 << 10).await.unwrap();
            assert_eq!(from_bytes::<Reply>("rpc reply", &block.body), Ok(failed(heard)));
        }
    }
}

proptest! {
    #[test]
    fn bytes_of_a_stranger_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), tag in 0..12_u32) {
        let tagged = [&tag.to_le_bytes()[..], &bytes].concat();
        for bytes in [&bytes, &tagged] {
            let _ = from_bytes::<Question>("rpc question", bytes);
            let _ = from_bytes::<Reply>("rpc reply", bytes);
        }
    }

    #[test]
    fn a_reply_that_is_cut_or_changed_is_refused_or_another(
        data in proptest::collection::vec(any::<u8>(), 0..100),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let reply = Reply::Mend(MendReply::Chunk { snapshot: data.clone(), offset: 9, data, done: false });
        let mut bytes = to_bytes(&reply);
        let at = at.index(bytes.len());
        prop_assert!(from_bytes::<Reply>("rpc reply", &bytes[..at]).is_err());
        bytes[at] ^= 1 << bit;
        prop_assert!(from_bytes::<Reply>("rpc reply", &bytes).ok() != Some(reply));
    }
}
