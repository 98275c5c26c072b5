//! What a member says, forged by somebody else.

use crate::codec::encode_frame;
use crate::node::tests::cluster::TestNode;
use crate::node::tests::securing::{Certificates, authorities_of, dialer};
use crate::peer::hello::{Hello, HelloAnswer, PeerHello, Starts};
use crate::peer::secured::Dialer;
use crate::raft::{AppendClock, Body, Entry, EntryKind, LogId, LogIndex, Message, ReadRound, Session, Term};
use crate::replica::{PeerMessage, Status};
use crate::runtime::TokioEnv;
use crate::storage::MemoryDisk;
use crate::tls::PortTls;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Nobody gets there by elections: members pass it over, whoever says it.
const FAR_TERM: Term = Term::new(1 << 62);
/// As far as a message may take a member.
const NEXT_TERM: Term = Term::new(1 << 20);

type Env = TokioEnv<MemoryDisk>;

/// What a leader of a later term sends, with an entry that nobody proposed.
fn forged_append(hello: &PeerHello, after: LogId, term: Term) -> Vec<u8> {
    let (from, to, session) = (hello.from, hello.to, Session::new(1));
    let id = LogId::new(term, LogIndex::new(after.index.get() + 1));
    let body = Body::AppendEntries {
        session,
        prev: after,
        acknowledged: LogId::ZERO,
        entries: vec![Entry::new(id, EntryKind::Command, b"forged")],
        commit: after.index,
        round: ReadRound::ZERO,
        clock: AppendClock::default(),
    };
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, |out| PeerMessage::Raft(Message { from, to, term, body }).encode(out));
    bytes
}

/// Two members, of which one is down, and its names, which a caller may have stolen.
async fn one_of_two(tls: impl Fn(&str) -> Option<Arc<PortTls>>) -> (TestNode, PeerHello) {
    let start = |name: &'static str| {
        let tls = tls(name);
        TestNode::start_with(name, MemoryDisk::new(), |options| options.transport.tls = tls)
    };
    let (a, b) = (start("a").await, start("b").await);
    a.join(&b).await;
    let of_b = b.handle().status().await;
    let hello = PeerHello {
        cluster: of_b.cluster,
        from: of_b.replica.id,
        store: of_b.store,
        raft_addr: "127.0.0.1:1".to_owned(),
        to: a.handle().status().await.replica.id,
        starts: Starts { number: 1_000, nonces: vec![7; 16] },
    };
    b.stop().await;
    (a, hello)
}

/// Says that hello, and what a leader would say, and waits until that was heard or the connection
/// is closed. Whether the hello was accepted.
async fn forge(a: &TestNode, dialer: &Dialer<Env>, hello: &PeerHello, last: LogId) -> bool {
    let Ok(mut stream) = dialer.call_member(Some("a"), &a.addr()).await else { return false };
    let forged = [FAR_TERM, NEXT_TERM].map(|term| forged_append(hello, last, term)).concat();
    // Both at once, and whatever is said to the first.
    let _ = Hello::Peer(hello.clone()).write(&mut stream).await;
    let _ = stream.write_all(&forged).await;
    let _ = stream.flush().await;
    if matches!(HelloAnswer::heard(&mut stream).await, Ok(HelloAnswer::Accepted)) {
        return true;
    }
    let _ = stream.read_to_end(&mut Vec::new()).await;
    false
}

#[tokio::test]
async fn a_term_and_entries_are_forged_where_nobody_asks_for_certificates() {
    let (a, hello) = one_of_two(|_| None).await;
    let last = a.handle().status().await.replica.last_log;
    assert!(forge(&a, &dialer(None), &hello, last).await);
    loop {
        let replica = a.handle().status().await.replica;
        assert!(replica.term <= NEXT_TERM, "{:?}", replica.term);
        if replica.last_log.term == NEXT_TERM {
            break;
        }
    }
}

#[tokio::test]
async fn stolen_names_forge_neither_terms_nor_entries_without_the_certificate() {
    let (ours, theirs) = (Certificates::of(&["a", "b", "c"]), Certificates::of(&["b"]));
    let (a, hello) = one_of_two(|name| Some(ours.tls(name))).await;
    let before = a.handle().status().await.replica;
    let both = authorities_of(&ours, &theirs);
    let callers = [
        ("no certificate", None),
        ("one of another cluster's authority", Some(theirs.trusting("b", both.path()))),
        ("one of another node", Some(ours.tls("c"))),
    ];
    for (who, tls) in callers {
        assert!(!forge(&a, &dialer(tls), &hello, before.last_log).await, "{who}");
    }
    let after = a.handle().status().await.replica;
    assert_eq!((after.term, after.last_log), (before.term, before.last_log));
    let addresses = |replica: &Status| {
        replica.members.iter().map(|member| member.member.raft_addr.clone()).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&after), addresses(&before));
    // With it, the caller is that member.
    assert!(forge(&a, &dialer(Some(ours.tls("b"))), &hello, before.last_log).await);
}
