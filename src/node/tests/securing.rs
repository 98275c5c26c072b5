//! Nodes that speak TLS with each other, and callers that must not get in.

use crate::codec::FeatureLevels;
use crate::kv::{Op, Outcome, ROOT_ROLE, SecurityChange, TokenOwner};
use crate::node::NodeOptions;
use crate::node::handle::DriverOrder;
use crate::node::tests::cluster::{TestNode, is_set};
use crate::peer::address_book::{AddressBook, Me};
use crate::peer::hello::{Hello, HelloAnswer, PeerHello, Starts};
use crate::peer::mending::{MendCall, MendCaller, MendReply, MendWants};
use crate::peer::orders::{MemberOrder, NewNode, OrderConditions};
use crate::peer::rpc::{Adoption, Question, Reply, ask};
use crate::peer::secured::Dialer;
use crate::peer::vouching::Rounds;
use crate::raft::{ClusterId, LogIndex, Member, Membership, NodeId, StoreId};
use crate::replica::{ClientError, ClientReply, ClientRequest};
use crate::runtime::TokioEnv;
use crate::storage::MemoryDisk;
use crate::tls::{
    Audience, Certificate, CertificateFiles, Lifetime, NamedHosts, Order, PeerCertificate, PortTls, Stream,
    WallClock, create,
};
use std::path::Path;
use std::sync::Arc;
use tempfile::{TempDir, tempdir};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// As long as any test needs.
const MICROS: u64 = 60_000_000;

type Env = TokioEnv<MemoryDisk>;

/// Certificates of one authority.
pub(in crate::node) struct Certificates(TempDir);

impl Certificates {
    pub(in crate::node) fn of(nodes: &[&str]) -> Self {
        let dir = tempdir().unwrap();
        let node = |name: &&str| NamedHosts { name: (*name).to_owned(), hosts: vec!["127.0.0.1".to_owned()] };
        let order = Order {
            dir: dir.path().to_owned(),
            authority_dir: None,
            nodes: nodes.iter().map(node).collect(),
            clients: Vec::new(),
            lifetime: Lifetime { days: 10, authority_days: 100 },
        };
        create(&order, &WallClock::of_the_system()).unwrap();
        Self(dir)
    }

    /// The certificate of a node, which trusts the authority in that folder.
    pub(in crate::node) fn trusting(&self, name: &str, trusted: &Path) -> Arc<PortTls> {
        let file = |ending: &str| self.0.path().join(format!("{name}.{ending}"));
        let files = CertificateFiles {
            certificate: file("pem"),
            key: file("key"),
            authorities: Some(trusted.join("ca.pem")),
        };
        let audience = Audience::Members { name: name.to_owned() };
        PortTls::load(audience, Arc::new(files), WallClock::of_the_system()).unwrap()
    }

    pub(in crate::node) fn tls(&self, name: &str) -> Arc<PortTls> {
        self.trusting(name, self.0.path())
    }

    /// A node's certificate, as it shows it.
    fn shown(name: &str) -> PeerCertificate {
        let certificate = Certificate {
            common_name: Some(name.to_owned()),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            other_names: Vec::new(),
            not_before: 0,
            not_after: u64::MAX,
        };
        PeerCertificate { name: name.to_owned(), certificate }
    }

    async fn start(&self, name: &str) -> TestNode {
        let tls = self.tls(name);
        TestNode::start_with(name, MemoryDisk::new(), |options| options.transport.tls = Some(tls)).await
    }
}

pub(in crate::node) fn dialer(tls: Option<Arc<PortTls>>) -> Dialer<Env> {
    Dialer { env: TokioEnv::new(MemoryDisk::new()), tls, names: None, speaks: FeatureLevels::OF_THIS_RELEASE }
}

/// Everything that is asked before a hello, or without one.
fn questions(cluster: ClusterId, member: NodeId, store: StoreId) -> Vec<Question> {
    let text = || "127.0.0.1:1".to_owned();
    let caller = Some(MendCaller { cluster, member, store });
    let adoption = Adoption { cluster, id: member, store, raft_addr: text(), addresses: Vec::new() };
    vec![
        Question::Describe,
        Question::Join { name: "evil".to_owned(), raft_addr: text(), hops: 1 },
        Question::Announce { id: member, store, raft_addr: text(), http_addr: text() },
        Question::Reserve { cluster: ClusterId(9), micros: MICROS },
        Question::Release(cluster),
        Question::Adopt(adoption),
        Question::Manage {
            order: MemberOrder::Remove(vec!["b".to_owned()]),
            conditions: OrderConditions::default(),
            hops: 1,
        },
        Question::Members,
        Question::Mend(MendCall { caller, cluster: Some(cluster), wants: MendWants::Leader }),
    ]
}

/// A folder with both authorities: a caller that trusts them believes the nodes of one cluster, and
/// its own certificate of the other.
pub(in crate::node) fn authorities_of(ours: &Certificates, theirs: &Certificates) -> TempDir {
    let both = tempdir().unwrap();
    let ca = |certificates: &Certificates| std::fs::read(certificates.0.path().join("ca.pem")).unwrap();
    std::fs::write(both.path().join("ca.pem"), [ca(ours), ca(theirs)].concat()).unwrap();
    both
}

/// What a node's members are, and what it has written.
async fn state_of(node: &TestNode) -> (String, u64) {
    let replica = node.handle().status().await.replica;
    let members: Vec<_> = replica.members.iter().map(|member| (member.id, &member.member)).collect();
    (format!("{members:?}"), replica.last_log.index.get())
}

#[tokio::test]
async fn nodes_with_certificates_make_a_cluster() {
    let certificates = Certificates::of(&["a", "b", "c"]);
    let (a, b, c) =
        (certificates.start("a").await, certificates.start("b").await, certificates.start("c").await);
    a.join(&b).await;
    b.join(&c).await;
    assert!(is_set(&c.set("k", "v").await));
    assert_eq!(a.get("k").await.as_deref(), Some("v"));
}

/// Each question, by callers of each kind: nothing is learnt, and nothing is done.
#[tokio::test]
async fn a_stranger_learns_nothing_and_does_nothing() {
    let (ours, theirs) = (Certificates::of(&["a", "b"]), Certificates::of(&["a", "b"]));
    let (a, b) = (ours.start("a").await, ours.start("b").await);
    a.join(&b).await;
    let status = a.handle().status().await;
    let before = state_of(&a).await;
    // It believes the node that it calls: what stops it has to be the node.
    let both = authorities_of(&ours, &theirs);
    let other = theirs.trusting("b", both.path());
    for (who, tls) in [("no certificate", None), ("another cluster's", Some(other))] {
        let dialer = dialer(tls);
        for question in questions(status.cluster, status.replica.id, status.store) {
            let answer = ask(&dialer, &a.addr(), &question, MICROS).await;
            let reason = answer.expect_err(who);
            let cluster = status.cluster.to_string();
            assert!(!reason.contains(&cluster) && !reason.contains(&status.store.to_string()), "{reason}");
        }
    }
    assert_eq!(state_of(&a).await, before);
}

/// A caller that trusts this cluster's authority, and shows a certificate of its own.
#[tokio::test]
async fn another_clusters_certificate_opens_no_door() {
    let (ours, theirs) = (Certificates::of(&["a"]), Certificates::of(&["b"]));
    let a = ours.start("a").await;
    let both = authorities_of(&ours, &theirs);
    let dialer = dialer(Some(theirs.trusting("b", both.path())));
    let mut stream = dialer.call_member(Some("a"), &a.addr()).await.expect("it believes the node");
    let _ = Hello::Rpc.write(&mut stream).await;
    assert!(HelloAnswer::heard(&mut stream).await.is_err(), "the node does not believe it");
    let refused = ask(&dialer, &a.addr(), &Question::Describe, MICROS).await.unwrap_err();
    assert!(refused.contains("does not trust the authority"), "{refused}");
}

/// A node that has been taken over is itself, and nobody else.
#[tokio::test]
async fn a_node_does_not_speak_for_another() {
    let certificates = Certificates::of(&["a", "b", "c"]);
    let (a, b) = (certificates.start("a").await, certificates.start("b").await);
    a.join(&b).await;
    let of_b = b.handle().status().await;
    let (cluster, to) = (of_b.cluster, a.handle().status().await.replica.id);
    let evil = dialer(Some(certificates.tls("c")));
    let hello = |from: NodeId| {
        Hello::Peer(PeerHello {
            cluster,
            from,
            store: of_b.store,
            raft_addr: "127.0.0.1:1".to_owned(),
            to,
            starts: Starts { number: 1_000, nonces: vec![7; 16] },
        })
    };
    let mut stream = evil.call_member(Some("a"), &a.addr()).await.unwrap();
    hello(of_b.replica.id).write(&mut stream).await.unwrap();
    let answer = HelloAnswer::heard(&mut stream).await.unwrap();
    assert!(
        matches!(&answer, HelloAnswer::Refused(why) if why.contains("its certificate is of \"c\"")),
        "{answer:?}"
    );
    let (raft_addr, http_addr) = ("127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned());
    let moved = Question::Announce { id: of_b.replica.id, store: of_b.store, raft_addr, http_addr };
    let caller = Some(MendCaller { cluster, member: of_b.replica.id, store: of_b.store });
    for question in
        [moved, Question::Mend(MendCall { caller, cluster: Some(cluster), wants: MendWants::Leader })]
    {
        let answer = ask(&evil, &a.addr(), &question, MICROS).await.unwrap();
        assert!(
            matches!(&answer, Reply::Refused(why) if why.contains("certificate is of \"c\"")),
            "{answer:?}"
        );
    }
    // Nor for a member that nobody knows.
    let caller = Some(MendCaller { cluster, member: NodeId::new(99), store: of_b.store });
    let last = a.handle().status().await.replica.last_log;
    let entries = MendWants::Entries { after: LogIndex::ZERO, through: last.index, anchor: last };
    for wants in [entries, MendWants::Chunk { snapshot: None, offset: 0 }] {
        let answer =
            ask(&evil, &a.addr(), &Question::Mend(MendCall { caller, cluster: None, wants }), MICROS)
                .await
                .unwrap();
        assert!(
            matches!(&answer, Reply::Mend(MendReply::Refused(why)) if why.contains("knows of no member 99")),
            "{answer:?}"
        );
    }
    // The authority has signed it, but it is no member, and gives members no orders.
    let order = MemberOrder::Remove(vec!["b".to_owned()]);
    let question = Question::Manage { order, conditions: OrderConditions::default(), hops: 1 };
    let answer = ask(&evil, &a.addr(), &question, MICROS).await.unwrap();
    assert!(matches!(&answer, Reply::Refused(why) if why.contains("which is no member")), "{answer:?}");
    // A node that is called by a name has to have it.
    let wrong = evil.call_member(Some("b"), &a.addr()).await.map(drop).unwrap_err();
    assert!(wrong.to_string().contains("\"b\" was called"), "{wrong}");
}

/// A certificate of the authority, but of no member: that of a node that was removed, or is not
/// added yet. As a member that nobody knows it could lead the cluster.
#[tokio::test]
async fn nobody_is_a_member_that_no_member_knows() {
    let certificates = Certificates::of(&["a", "b", "c"]);
    let (a, b) = (certificates.start("a").await, certificates.start("b").await);
    a.join(&b).await;
    let of_a = a.handle().status().await;
    let evil = dialer(Some(certificates.tls("c")));
    for _ in 0..2 {
        let mut stream = evil.call_member(Some("a"), &a.addr()).await.unwrap();
        let hello = Hello::Peer(PeerHello {
            cluster: of_a.cluster,
            from: NodeId::new(99),
            store: StoreId(7),
            raft_addr: "127.0.0.1:1".to_owned(),
            to: of_a.replica.id,
            starts: Starts { number: 1, nonces: vec![7] },
        });
        hello.write(&mut stream).await.unwrap();
        let answer = HelloAnswer::heard(&mut stream).await.unwrap();
        assert!(
            matches!(&answer, HelloAnswer::NotYet(why) if why.contains("a does not know member 99 yet")),
            "{answer:?}"
        );
    }
}

/// A node that was away asks those whom it knows.
#[tokio::test]
async fn a_member_that_a_known_one_knows_is_let_in() {
    let certificates = Certificates::of(&["a", "b", "c", "d"]);
    let (a, b) = (certificates.start("a").await, certificates.start("b").await);
    a.join(&b).await;
    let (of_a, of_b) = (a.handle().status().await, b.handle().status().await);
    let me = |name: &str| Me {
        cluster: of_a.cluster,
        id: NodeId::new(7),
        store: StoreId(7),
        starts: Starts { number: 1, nonces: vec![7] },
        name: name.to_owned(),
        raft_addr: "127.0.0.1:1".to_owned(),
        http_addr: "127.0.0.1:2".to_owned(),
        speaks: FeatureLevels::OF_THIS_RELEASE,
    };
    let known = |name: &str| Member {
        name: name.to_owned(),
        raft_addr: a.addr(),
        http_addr: "127.0.0.1:2".to_owned(),
        store_id: of_a.store,
    };
    let dialer = dialer(Some(certificates.tls("d")));
    // A node that answers in the place of a member does not count.
    for (answers_there, is_confirmed) in [("a", true), ("c", false)] {
        let address_book = AddressBook::new(me("d"), Membership::bootstrap([known(answers_there)]).unwrap());
        for (id, name, confirmed) in [(of_b.replica.id, "b", is_confirmed), (of_b.replica.id, "d", false)] {
            let shown = Certificates::shown(name);
            let found = Rounds::default().confirm(&dialer, &address_book, (id, &shown)).await;
            assert_eq!(found, confirmed, "{name}, as {answers_there} says");
        }
    }
    // Nobody makes it ask all the time.
    let (rounds, book) =
        (Rounds::default(), AddressBook::new(me("d"), Membership::bootstrap([known("a")]).unwrap()));
    let (unknown, of_c) = (NodeId::new(99), Certificates::shown("c"));
    assert!(!rounds.confirm(&dialer, &book, (unknown, &of_c)).await);
    assert!(a.stop().await == crate::node::NodeExit::Stopped);
    assert!(
        rounds.confirm(&dialer, &book, (of_b.replica.id, &Certificates::shown("b"))).await,
        "it was told"
    );
}

/// A node that was removed, or is not added yet, has a certificate, and no right to add itself.
#[tokio::test]
async fn who_is_no_member_joins_by_the_word_of_somebody_who_may_add_it() {
    let certificates = Certificates::of(&["a", "b", "c"]);
    let (a, b) = (certificates.start("a").await, certificates.start("b").await);
    a.join(&b).await;
    let owner = TokenOwner::Roles(vec![ROOT_ROLE.to_owned()]);
    let token = SecurityChange::AddToken { name: "t".to_owned(), hash: [7; 32], owner, ends_at: None };
    for change in [token, SecurityChange::Enable] {
        let done = a.handle().request(ClientRequest::write(Op::Secure(Box::new(change)))).await;
        assert!(matches!(done, ClientReply::Written(Outcome::Secured(_))), "{done:?}");
    }
    let c = certificates.start("c").await;
    let question = Question::Join { name: "c".to_owned(), raft_addr: c.addr(), hops: 1 };
    let of_c = dialer(Some(certificates.tls("c")));
    for node in [&a, &b] {
        let answer = ask(&of_c, &node.addr(), &question, MICROS).await.unwrap();
        assert!(
            matches!(&answer, Reply::Joined(Err(why)) if why.to_string().contains("the right `members`")),
            "{answer:?}"
        );
    }
    // Members pass joins on.
    b.join(&c).await;
    let answer = ask(&of_c, &a.addr(), &question, MICROS).await.unwrap();
    assert!(matches!(answer, Reply::Joined(Ok(_))), "a member may ask again: {answer:?}");
}

/// What it calls itself is not what its certificate says.
#[tokio::test]
async fn a_node_joins_under_the_name_in_its_certificate_alone() {
    let certificates = Certificates::of(&["a", "c"]);
    let a = certificates.start("a").await;
    let tls = certificates.tls("c");
    let fake = |options: &mut NodeOptions| {
        options.transport.tls = Some(tls.clone());
    };
    let b = TestNode::start_with("b", MemoryDisk::new(), fake).await;
    // Once it leads, its log grows no more by itself.
    assert!(is_set(&a.set("k", "v").await));
    let before = state_of(&a).await;
    let refused = a.handle().join("b".to_owned(), b.addr()).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("\"b\" was called"), "{refused}");
    let nodes = vec![NewNode { name: "b".to_owned(), raft_addr: b.addr() }];
    let order = MemberOrder::Add { nodes, replaces: Vec::new(), learners: false };
    let refused = a.handle().manage(order, OrderConditions::default()).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("\"b\" was called"), "{refused}");
    assert_eq!(state_of(&a).await, before);
}

/// Its certificate says who it is, and need not say where.
#[tokio::test]
async fn a_member_that_moved_is_known_by_its_name() {
    let certificates = Certificates::of(&["a", "b"]);
    let (a, b) = (certificates.start("a").await, certificates.start("b").await);
    a.join(&b).await;
    let of_b = b.handle().status().await;
    let port = b.addr().rsplit_once(':').unwrap().1.to_owned();
    // No certificate has this address.
    let (raft_addr, http_addr) = (format!("127.0.0.2:{port}"), "b:1".to_owned());
    let through = tokio::net::TcpListener::bind(&raft_addr).await.unwrap();
    let to = b.addr();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = through.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                let mut to = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    let moved = Question::Announce { id: of_b.replica.id, store: of_b.store, raft_addr, http_addr };
    let answer = ask(&dialer(Some(certificates.tls("b"))), &a.addr(), &moved, MICROS).await;
    assert!(matches!(answer, Ok(Reply::Done)), "{answer:?}");
}

#[tokio::test]
async fn joins_are_taken_while_the_cluster_is_being_made() {
    let certificates = Certificates::of(&["a", "b", "c"]);
    let tls = certificates.tls("a");
    let node =
        |name: &str, raft_addr: &str| NewNode { name: name.to_owned(), raft_addr: raft_addr.to_owned() };
    let a = TestNode::start_with("a", MemoryDisk::new(), |options| {
        options.transport.tls = Some(tls);
        // The others are never reached, so that it does not begin by itself.
        options.initial_cluster =
            vec![node("a", "127.0.0.1:1"), node("b", "127.0.0.1:2"), node("c", "127.0.0.1:3")];
    })
    .await;
    a.handle().orders.send(DriverOrder::Found).await.unwrap();
    let reply = a.set("k", "v").await;
    assert_eq!(reply, ClientReply::Failed(ClientError::Founding), "it waits for a majority");
    let b = certificates.start("b").await;
    let question = Question::Join { name: "b".to_owned(), raft_addr: b.addr(), hops: 1 };
    let answer = ask(&dialer(Some(certificates.tls("b"))), &a.addr(), &question, MICROS).await;
    assert!(matches!(answer, Ok(Reply::Joined(Ok(_)))), "{answer:?}");
    assert!(is_set(&a.set("k", "v").await));
}

#[tokio::test]
async fn a_caller_without_tls_is_told_so() {
    let certificates = Certificates::of(&["a"]);
    let a = certificates.start("a").await;
    let plain = dialer(None);
    let told = ask(&plain, &a.addr(), &Question::Describe, MICROS).await.unwrap_err();
    assert!(told.contains("this node speaks TLS") && told.contains("--peer-tls-cert"), "{told}");
    // The other way round.
    let open = TestNode::start("open").await;
    let secured = dialer(Some(certificates.tls("a")));
    let told = ask(&secured, &open.addr(), &Question::Describe, MICROS).await.unwrap_err();
    assert!(told.contains("does not speak TLS"), "{told}");
    // And a caller that speaks something else.
    let mut garbage = TcpStream::connect(a.addr()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut garbage, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let mut garbage = Stream::Plain(garbage);
    garbage.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"InfStore"), "{answer:?}");
}
