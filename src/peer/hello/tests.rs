use crate::codec::{FeatureLevel, FeatureLevels, Reader};
use crate::peer::block::{Block, BlockError};
use crate::peer::hello::{Hello, HelloAnswer, Manner, PeerHello, Starts};
use crate::raft::{ClusterId, Incarnation, NodeId, StoreId};
use bytes::Bytes;

fn peer_hello(raft_addr: &str) -> Hello {
    Hello::Peer(PeerHello {
        cluster: ClusterId(1 << 100),
        from: NodeId::new(2),
        store: StoreId(3),
        raft_addr: raft_addr.to_owned(),
        to: NodeId::new(4),
        starts: Starts { number: 3, nonces: vec![7, 8, 9] },
    })
}

const SPEAKS: FeatureLevels = FeatureLevels::OF_THIS_RELEASE;

fn manner(words: FeatureLevel) -> Manner {
    Manner { words, agreed: words, speaks: SPEAKS }
}

async fn said(answer: &HelloAnswer, words: FeatureLevel) -> Vec<u8> {
    let mut bytes = Vec::new();
    answer.write(&mut bytes, manner(words)).await.unwrap();
    bytes
}

#[tokio::test]
async fn hellos_are_read_as_they_were_said() {
    for hello in [Hello::Rpc, peer_hello("host:1"), peer_hello("")] {
        let (kind, words) = hello.to_words();
        assert_eq!(Hello::from_words(kind, Reader::new(Bytes::from(words))).unwrap(), hello);
    }
}

#[tokio::test]
async fn answers_are_read_as_they_were_given() {
    let other = HelloAnswer::OtherLevel {
        speaks: SPEAKS,
        needs: FeatureLevel::NEWEST,
        why: "of the level".to_owned(),
    };
    for words in [FeatureLevel::OLDEST, FeatureLevel::NEWEST] {
        for answer in [
            HelloAnswer::Accepted,
            HelloAnswer::Refused("because".to_owned()),
            HelloAnswer::NotYet("wait".to_owned()),
            HelloAnswer::OlderCopy("of it".to_owned()),
            HelloAnswer::Removed("gone".to_owned()),
            other.clone(),
        ] {
            let heard = HelloAnswer::read(&mut said(&answer, words).await.as_slice(), SPEAKS).await.unwrap();
            // A node of level 7 has no word for this reason, and is told it in words.
            let right = if answer == other && words < FeatureLevel::NEGOTIATES {
                HelloAnswer::Refused("of the level".to_owned())
            } else {
                answer.clone()
            };
            assert_eq!((heard.answer, heard.words), (right, words));
            assert_eq!(heard.agreed.0, words, "{answer:?}");
        }
    }
}

/// The bytes that a node of level 7 says and understands.
#[tokio::test]
async fn the_words_of_the_oldest_level_are_what_they_were() {
    let (kind, body) = peer_hello("h:1").to_words();
    let hello = Block { level: FeatureLevel::OLDEST, kind, body }.encode();
    assert_eq!(hello[..8], *b"InfStore");
    assert_eq!(hello[8..15], [7, 0, 1, 88, 0, 0, 0], "level, kind, length");
    assert_eq!(hello.len(), 15 + 88 + 4);
    let accepted = said(&HelloAnswer::Accepted, FeatureLevel::OLDEST).await;
    assert_eq!(accepted[8..15], [7, 0, 3, 0, 0, 0, 0]);
    assert_eq!(accepted.len(), 19);
}

#[tokio::test]
async fn a_reason_is_cut_between_characters_and_cannot_forge_log_lines() {
    let answer = HelloAnswer::Refused(format!("a\nb{}", "ü".repeat(1000)));
    let bytes = said(&answer, FeatureLevel::NEWEST).await;
    let answer = HelloAnswer::heard(&mut bytes.as_slice()).await.unwrap();
    assert_eq!(answer, HelloAnswer::Refused(format!("ab{}", "ü".repeat(510))));
}

#[tokio::test]
async fn a_hello_is_no_answer_and_a_longer_hello_is_none() {
    let mut bytes = Vec::new();
    Hello::Rpc.write(&mut bytes).await.unwrap();
    assert!(matches!(HelloAnswer::heard(&mut bytes.as_slice()).await, Err(BlockError::Kind(2))));
    let longer = Hello::from_words(2, Reader::new(Bytes::from_static(&[0])));
    assert!(matches!(longer, Err(BlockError::Body(_))));
}

#[test]
fn a_later_start_is_told_from_one_of_an_older_copy() {
    let starts = |number, nonces: &[u64]| Starts { number, nonces: nonces.to_vec() };
    let met = Incarnation::drawn(5, 50);
    for (what, starts, comes_after) in [
        ("the same", starts(5, &[50, 40, 30, 20, 10]), true),
        ("the next", starts(6, &[60, 50, 40, 30, 20, 10]), true),
        ("one much later", starts(40, &(25..=40).rev().map(|start| start * 10).collect::<Vec<_>>()), true),
        ("an earlier one", starts(4, &[40, 30, 20, 10]), false),
        ("another of the same number", starts(5, &[51, 40, 30, 20, 10]), false),
        ("a later one of an older copy", starts(7, &[71, 61, 51, 40, 30, 20, 10]), false),
        ("one that remembers less than it must", starts(9, &[90, 80]), false),
    ] {
        assert_eq!(starts.come_after(met), comes_after, "{what}");
    }
}
