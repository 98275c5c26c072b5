use crate::codec::{FeatureLevel, FeatureLevels};
use crate::peer::block::{Block, BlockError};
use crate::peer::greeting::{Greeted, Greeting, NotGreeted, SpokenLevels, greet};
use crate::peer::hello::{HELLO_BYTES_MAX, Hello, HelloAnswer, Manner};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{DuplexStream, duplex};

fn levels(lowest: u16, highest: u16) -> FeatureLevels {
    FeatureLevels::new(FeatureLevel::new(lowest), FeatureLevel::new(highest)).unwrap()
}

fn spoken(lowest: u16, highest: u16, needs: u16) -> SpokenLevels {
    SpokenLevels { speaks: levels(lowest, highest), needs: FeatureLevel::new(needs) }
}

/// The called end of a connection, as a node has it that can talk at these levels.
async fn answer(mut far: DuplexStream, here: SpokenLevels) {
    match Greeting::read(&mut far, here.speaks).await {
        Ok(greeting) => {
            let manner = greeting.manner(here);
            let answer = match greeting.levels.common(here) {
                Some(_) => HelloAnswer::Accepted,
                None => {
                    let why = "the levels".to_owned();
                    HelloAnswer::OtherLevel { speaks: here.speaks, needs: here.needs, why }
                }
            };
            answer.write(&mut far, manner).await.unwrap();
        }
        Err(error) => {
            let answer = HelloAnswer::Refused(error.to_string());
            let _ = answer.write(&mut far, Manner::for_anybody(here.speaks)).await;
        }
    }
}

/// Calls a node, and counts the calls.
async fn call(
    caller: SpokenLevels,
    called: SpokenLevels,
) -> (usize, Result<Greeted<DuplexStream>, NotGreeted>) {
    let calls = AtomicUsize::new(0);
    let dial = || {
        calls.fetch_add(1, Ordering::Relaxed);
        async {
            let (near, far) = duplex(4096);
            tokio::spawn(answer(far, called));
            io::Result::Ok(near)
        }
    };
    let greeted = greet(caller, &Hello::Rpc, dial).await;
    (calls.load(Ordering::Relaxed), greeted)
}

#[tokio::test]
async fn both_speak_the_highest_level_that_both_know() {
    for (caller, called, level, calls) in [
        (spoken(7, 8, 7), spoken(7, 8, 7), 8, 1),
        (spoken(7, 8, 8), spoken(7, 8, 7), 8, 1),
        // A node of a release to come.
        (spoken(7, 9, 7), spoken(7, 8, 7), 8, 1),
        (spoken(8, 9, 8), spoken(7, 8, 8), 8, 1),
        (spoken(7, 8, 7), spoken(8, 12, 8), 8, 1),
        // A node of level 7 calls.
        (spoken(7, 7, 7), spoken(7, 8, 7), 7, 1),
        // And is called: it does not understand the first hello.
        (spoken(7, 8, 7), spoken(7, 7, 7), 7, 2),
    ] {
        let (made, greeted) = call(caller, called).await;
        let Greeted { answer, level: agreed, theirs, .. } = greeted.unwrap();
        assert_eq!(answer, HelloAnswer::Accepted, "{caller:?} {called:?}");
        assert_eq!((agreed, made), (FeatureLevel::new(level), calls), "{caller:?} {called:?}");
        let told = if calls == 1 && caller.speaks.highest() > FeatureLevel::OLDEST {
            called.speaks
        } else {
            FeatureLevels::only(FeatureLevel::OLDEST)
        };
        assert_eq!(theirs, told, "{caller:?} {called:?}");
    }
}

#[tokio::test]
async fn a_node_that_is_too_old_for_the_cluster_is_not_talked_to() {
    // The caller knows it, and does not call in words that the cluster has left behind.
    let (calls, greeted) = call(spoken(7, 8, 8), spoken(7, 7, 7)).await;
    let Err(NotGreeted::TooOld(why)) = greeted else { panic!("{greeted:?}") };
    assert_eq!(calls, 1);
    for word in ["level 7", "level 8", "upgrade that node"] {
        assert!(why.contains(word), "{why}");
    }
    // The called node knows it.
    let (_, greeted) = call(spoken(7, 8, 7), spoken(8, 9, 9)).await;
    let answer = greeted.unwrap().answer;
    assert!(matches!(&answer, HelloAnswer::OtherLevel { needs, .. } if needs.get() == 9), "{answer:?}");
    // A node of level 7 is told so in its own words.
    let (_, greeted) = call(spoken(7, 7, 7), spoken(7, 8, 8)).await;
    let answer = greeted.unwrap().answer;
    assert!(matches!(&answer, HelloAnswer::Refused(why) if why == "the levels"), "{answer:?}");
}

#[tokio::test]
async fn a_level_that_the_caller_did_not_offer_is_no_answer() {
    let dial = || async {
        let (near, mut far) = duplex(4096);
        tokio::spawn(async move {
            let greeting = Greeting::read(&mut far, levels(7, 8)).await.unwrap();
            let manner = Manner { agreed: FeatureLevel::new(9), ..greeting.manner(spoken(7, 9, 7)) };
            HelloAnswer::Accepted.write(&mut far, manner).await.unwrap();
        });
        io::Result::Ok(near)
    };
    let greeted = greet(spoken(7, 8, 7), &Hello::Rpc, dial).await;
    assert!(matches!(greeted, Err(NotGreeted::NoAnswer(BlockError::Level { .. }))), "{greeted:?}");
}

/// A node of level 7 looks at the level before anything else, and says in its own words that it
/// does not know it.
#[tokio::test]
async fn what_a_node_of_level_7_makes_of_a_hello_of_today() {
    let mut bytes = Vec::new();
    Greeting { levels: spoken(7, 8, 7), hello: Hello::Rpc }.write(&mut bytes).await.unwrap();
    let only = FeatureLevels::only(FeatureLevel::OLDEST);
    let error = Block::read(&mut bytes.as_slice(), only, HELLO_BYTES_MAX).await.unwrap_err();
    assert!(matches!(error, BlockError::Level { found, .. } if found == FeatureLevel::NEGOTIATES), "{error}");
}
