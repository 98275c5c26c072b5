//! Handshakes over a pipe, with certificates of several authorities.

use crate::tls::certificate::PeerCertificate;
use crate::tls::client::ClientTls;
use crate::tls::clock::WallClock;
use crate::tls::create::Authority;
use crate::tls::files::{CertificateSource, PemSet, TlsError};
use crate::tls::port::{Audience, Callee, ClientCertificates, NotAccepted, PortTls, Reloaded};
use crate::tls::stream::Stream;
use rcgen::ExtendedKeyUsagePurpose;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const NOW: u64 = 1_900_000_000;
const DAY: u64 = 86_400;

/// Authorities, and a clock that all use.
struct Kit {
    now: Arc<AtomicU64>,
    ours: Authority,
    theirs: Authority,
}

/// Files that change.
#[derive(Debug)]
struct Changing(Mutex<PemSet>);

impl CertificateSource for Changing {
    fn read(&self) -> Result<PemSet, TlsError> {
        Ok(self.0.lock().unwrap().clone())
    }
    fn name(&self) -> String {
        "changing".to_owned()
    }
}

impl Kit {
    fn new() -> Self {
        let now = Arc::new(AtomicU64::new(NOW));
        let clock = clock(&now);
        let authority = || Authority::new(1_000, &clock).unwrap();
        Self { ours: authority(), theirs: authority(), now }
    }

    /// A certificate by our authority, or by theirs: of a node if there is a host.
    fn pem(&self, is_ours: bool, name: &str, host: Option<&str>, days: u64) -> PemSet {
        let authority = if is_ours { &self.ours } else { &self.theirs };
        let hosts = host.map(|host| vec![host.to_owned()]);
        let (certificate, key) = authority.sign(name, hosts.as_deref(), days, &clock(&self.now)).unwrap();
        PemSet { certificate, key: key.into_bytes(), authorities: authority.pem.clone() }
    }

    fn load(&self, audience: Audience, pem: PemSet) -> Result<(Arc<PortTls>, Arc<Changing>), TlsError> {
        let source = Arc::new(Changing(Mutex::new(pem)));
        Ok((PortTls::load(audience, source.clone(), clock(&self.now))?, source))
    }

    fn member(&self, name: &str) -> Arc<PortTls> {
        let pem = self.pem(true, name, Some("10.0.0.1"), 10);
        self.load(Audience::Members { name: name.to_owned() }, pem).unwrap().0
    }

    fn serving(&self, certificates: ClientCertificates) -> Arc<PortTls> {
        let pem = self.pem(true, "n1", Some("10.0.0.1"), 10);
        self.load(Audience::Clients { certificates }, pem).unwrap().0
    }

    fn client(&self, certificate: Option<PemSet>) -> ClientTls {
        let pem = certificate.unwrap_or_default();
        ClientTls::new(&PemSet { authorities: self.ours.pem.clone(), ..pem }, clock(&self.now)).unwrap()
    }
}

fn clock(now: &Arc<AtomicU64>) -> WallClock {
    let now = now.clone();
    WallClock::new(move || now.load(Ordering::Relaxed))
}

/// What the one that is called makes of the caller, and whether a byte then gets through.
struct Met {
    /// The name in the caller's certificate.
    caller: Result<Option<String>, String>,
    /// What the caller makes of it.
    callee: Result<(), String>,
}

type Accepted<S> = Result<(Stream<S>, Option<PeerCertificate>), NotAccepted<S>>;

async fn accept(port: &PortTls, stream: DuplexStream) -> Accepted<DuplexStream> {
    port.accept(port.begin(stream).await?).await
}

fn name_of(shown: Option<PeerCertificate>) -> Option<String> {
    shown.map(|certificate| certificate.name)
}

async fn meet(
    accepting: &PortTls,
    connecting: impl AsyncFnOnce(DuplexStream) -> Result<Stream<DuplexStream>, String>,
) -> Met {
    let (near, far) = duplex(4096);
    let calling = async {
        let mut stream = connecting(near).await?;
        stream.write_all(b"hi").await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).await.map_err(|error| error.to_string())?;
        Ok(())
    };
    let answering = async {
        match accept(accepting, far).await {
            Ok((mut stream, shown)) => {
                let mut said = [0; 2];
                // The caller may have hung up: it may not have found whom it wanted.
                if stream.read_exact(&mut said).await.is_ok() {
                    stream.write_all(&said).await.unwrap();
                    stream.flush().await.unwrap();
                }
                Ok(name_of(shown))
            }
            Err(NotAccepted::Failed(why)) => Err(why),
            Err(NotAccepted::Silent) => Err("silent".to_owned()),
            Err(NotAccepted::NoTls(_)) => Err("no TLS".to_owned()),
        }
    };
    let (callee, caller) = tokio::join!(calling, answering);
    Met { caller, callee }
}

async fn call(accepting: &PortTls, connecting: &PortTls, callee: Callee<'_>) -> Met {
    meet(accepting, async |stream| connecting.connect(stream, callee).await).await
}

async fn visit(accepting: &PortTls, client: &ClientTls, addr: &str) -> Met {
    meet(accepting, async |stream| client.connect(addr, stream).await.map_err(|error| error.to_string()))
        .await
}

#[tokio::test]
async fn members_know_each_other_by_name() {
    let kit = Kit::new();
    let (n1, n2) = (kit.member("n1"), kit.member("n2"));
    let met = call(&n1, &n2, Callee::Member("n1")).await;
    assert_eq!((met.caller, met.callee), (Ok(Some("n2".to_owned())), Ok(())));
    assert_eq!((n1.status().handshakes, n1.status().handshakes_failed), (1, 0));
    let other = call(&n1, &n2, Callee::Member("n3")).await.callee.unwrap_err();
    assert!(other.contains("\"n3\" was called"), "{other}");
    assert_eq!(n2.status().handshakes_failed, 1);
}

#[tokio::test]
async fn a_node_whose_name_is_not_known_is_known_by_its_address() {
    let kit = Kit::new();
    let (n1, n2) = (kit.member("n1"), kit.member("n2"));
    for (callee, is_right) in [
        (Callee::Address("10.0.0.1:8000"), true),
        (Callee::Address("localhost:8000"), true),
        (Callee::Address("[::1]:8000"), true),
        (Callee::Address("10.0.0.2:8000"), false),
        (Callee::Address("elsewhere:8000"), false),
        (Callee::Address("a b:8000"), false),
        (Callee::Either("n1", "10.0.0.2:8000"), true),
        (Callee::Either("n3", "10.0.0.1:8000"), true),
        (Callee::Either("n3", "10.0.0.2:8000"), false),
    ] {
        let found = call(&n1, &n2, callee).await.callee;
        assert_eq!(found.is_ok(), is_right, "{callee:?}: {found:?}");
    }
}

#[tokio::test]
async fn strangers_do_not_get_into_the_raft_port() {
    let kit = Kit::new();
    let n1 = kit.member("n1");
    // Another cluster's node, which trusts our authority too.
    let pem = PemSet { authorities: kit.theirs.pem.clone(), ..kit.pem(false, "n2", Some("10.0.0.1"), 10) };
    let (other, _) = kit.load(Audience::Members { name: "n2".to_owned() }, pem).unwrap();
    let met = call(&n1, &other, Callee::Member("n1")).await;
    assert!(met.callee.is_err());
    assert!(met.caller.unwrap_err().contains("does not trust"));
    let met = call(&other, &n1, Callee::Member("n2")).await;
    assert!(met.callee.unwrap_err().contains("an authority that is not trusted here"));
    // One that asks no questions, and shows their certificate, or none.
    let theirs = kit.pem(false, "n2", Some("10.0.0.1"), 10);
    for (shown, why) in [(None, "no certificate"), (Some(theirs), "not trusted here")] {
        let met = visit(&n1, &kit.client(shown), "10.0.0.1:1").await;
        let refused = met.caller.unwrap_err();
        assert!(refused.contains(why), "{refused}");
        assert!(met.callee.is_err());
    }
}

/// The authority signs certificates of clients, too. They are for the other port.
#[tokio::test]
async fn a_client_of_the_store_is_no_member() {
    let kit = Kit::new();
    let client = kit.client(Some(kit.pem(true, "n2", None, 10)));
    let met = visit(&kit.member("n1"), &client, "10.0.0.1:1").await;
    assert!(met.caller.unwrap_err().contains("not for this purpose"));
    assert!(met.callee.is_err());
    let met = visit(&kit.serving(ClientCertificates::Required), &client, "10.0.0.1:1").await;
    assert_eq!((met.caller, met.callee), (Ok(Some("n2".to_owned())), Ok(())));
}

/// The authority may have signed a certificate for a web server, on a node's machine even.
#[tokio::test]
async fn a_server_of_something_else_is_no_member() {
    let kit = Kit::new();
    let purposes = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let hosts = ["10.0.0.1".to_owned()];
    let signed = kit.ours.sign_for(purposes, "n1", &hosts, (10, &clock(&kit.now))).unwrap();
    let (certificate, key) = (signed.0, signed.1.into_bytes());
    let web = PemSet { certificate, key, authorities: kit.ours.pem.clone() };
    let certificates = ClientCertificates::NotAsked;
    let (serving, _) = kit.load(Audience::Clients { certificates }, web.clone()).unwrap();
    for callee in [Callee::Member("n1"), Callee::Address("10.0.0.1:8000")] {
        let met = call(&serving, &kit.member("n2"), callee).await;
        assert!(met.callee.unwrap_err().contains("not for this purpose"));
    }
    // And a node does not start with one: the others would refuse it.
    let refused = kit.load(Audience::Members { name: "n1".to_owned() }, web).map(drop).unwrap_err();
    assert!(refused.to_string().contains("not for this purpose"), "{refused}");
}

/// What a caller shows is looked at before it proves anything, and many certificates take long.
#[tokio::test]
async fn a_caller_with_a_long_chain_is_refused_before_it_is_looked_at() {
    let kit = Kit::new();
    let own = kit.pem(true, "n2", Some("10.0.0.1"), 10);
    let hosts: Vec<String> = (0..400).map(|number| format!("{number}.example.com")).collect();
    let servers = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (fat, _) = kit.ours.sign_for(servers, "n2", &hosts, (10, &clock(&kit.now))).unwrap();
    let with =
        |more: &[&[u8]]| PemSet { certificate: [&own.certificate, &*more.concat()].concat(), ..own.clone() };
    let made_up: Vec<u8> = kit.theirs.pem.clone();
    for (more, is_short) in
        [(&[&*made_up; 3][..], true), (&[&*made_up; 4], false), (&[&*fat], true), (&[&*fat; 3], false)]
    {
        let client = kit.client(Some(with(more)));
        for port in [kit.member("n1"), kit.serving(ClientCertificates::Required)] {
            let met = visit(&port, &client, "10.0.0.1:1").await;
            match met.caller {
                Ok(name) => assert!(is_short, "{name:?} got in with {} certificates", more.len()),
                Err(why) => assert!(!is_short && why.contains("chain of certificates is too long"), "{why}"),
            }
        }
        // A node that the others would refuse does not start.
        let loaded = kit.load(Audience::Members { name: "n2".to_owned() }, with(more)).map(drop);
        assert_eq!(loaded.is_ok(), is_short, "{loaded:?}");
    }
}

#[tokio::test]
async fn clients_show_what_they_are_asked_for() {
    let kit = Kit::new();
    let (ours, theirs) = (kit.pem(true, "app", None, 10), kit.pem(false, "app", None, 10));
    let (named, nobody, other) = (kit.client(Some(ours)), kit.client(None), kit.client(Some(theirs)));
    let app = || Ok(Some("app".to_owned()));
    for (certificates, client, expected) in [
        (ClientCertificates::NotAsked, &nobody, Ok(None)),
        (ClientCertificates::NotAsked, &named, Ok(None)),
        (ClientCertificates::Optional, &nobody, Ok(None)),
        (ClientCertificates::Optional, &named, app()),
        (ClientCertificates::Optional, &other, Err(())),
        (ClientCertificates::Required, &nobody, Err(())),
        (ClientCertificates::Required, &named, app()),
        (ClientCertificates::Required, &other, Err(())),
    ] {
        let met = visit(&kit.serving(certificates), client, "10.0.0.1:1").await;
        assert_eq!(met.callee.is_ok(), expected.is_ok(), "{certificates:?} {:?}", client.name());
        assert_eq!(met.caller.map_err(|_| ()), expected, "{certificates:?} {:?}", client.name());
    }
    let elsewhere = visit(&kit.serving(ClientCertificates::NotAsked), &nobody, "10.0.0.2:1").await;
    assert!(elsewhere.callee.unwrap_err().contains("not for that name"));
}

#[tokio::test]
async fn a_caller_that_speaks_something_else_is_told_apart() {
    let n1 = Kit::new().member("n1");
    let (mut near, far) = duplex(64);
    near.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let Err(NotAccepted::NoTls(mut stream)) = accept(&n1, far).await else { panic!("it is no TLS") };
    let mut rest = [0; 15];
    stream.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"ET / HTTP/1.1\r\n");
    let (near, far) = duplex(64);
    drop(near);
    assert!(matches!(accept(&n1, far).await, Err(NotAccepted::Silent)));
    let (mut near, far) = duplex(64);
    near.write_all(&[0x16, 3, 1, 0, 5, 0, 0, 0, 0, 0]).await.unwrap();
    assert!(matches!(accept(&n1, far).await, Err(NotAccepted::Failed(_))));
}

/// Rustls keeps a message until it is complete.
#[tokio::test]
async fn a_caller_whose_hello_does_not_end_is_not_listened_to() {
    let n1 = Kit::new().member("n1");
    let (mut near, far) = duplex(4096);
    let sending = async {
        let mut sent = 0;
        // A hello of 65,000 bytes, in records of 1,000.
        for number in 0..65 {
            let mut record = vec![0x16, 3, 1, 3, 232];
            record.extend_from_slice(if number == 0 { &[1, 0, 0xfd, 0xe8] } else { &[0; 4] });
            record.resize(1_005, 0);
            if near.write_all(&record).await.is_err() {
                break;
            }
            sent += record.len();
        }
        sent
    };
    let (sent, accepted) = tokio::join!(sending, async {
        let accepted = accept(&n1, far).await;
        accepted.map(drop).map_err(|why| if let NotAccepted::Failed(why) = why { why } else { String::new() })
    });
    assert_eq!(accepted, Err("it sends more bytes than a TLS handshake takes".to_owned()));
    assert!((16_000..26_000).contains(&sent), "{sent} bytes were read");
}

#[tokio::test]
async fn certificates_end() {
    let kit = Kit::new();
    let (n1, n2) = (kit.member("n1"), kit.member("n2"));
    assert_eq!(n1.status().expires_in_seconds, 864_000);
    kit.now.store(NOW + 11 * DAY, Ordering::Relaxed);
    let met = call(&n1, &n2, Callee::Member("n1")).await;
    assert!(met.callee.unwrap_err().contains("has ended"));
    assert_eq!(n1.status().expires_in_seconds, -86_400);
    // Its operator has to get at it.
    let pem = PemSet { ..kit.pem(true, "n3", Some("10.0.0.1"), 0) };
    kit.now.store(NOW + 12 * DAY, Ordering::Relaxed);
    assert!(kit.load(Audience::Members { name: "n3".to_owned() }, pem).is_ok());
}

#[tokio::test]
async fn an_ended_certificate_does_not_come_back_with_an_old_session() {
    let kit = Kit::new();
    for certificates in [ClientCertificates::Optional, ClientCertificates::Required] {
        kit.now.store(NOW, Ordering::Relaxed);
        let serving = kit.serving(certificates);
        let client = kit.client(Some(kit.pem(true, "app", None, 1)));
        // A session may be taken up again for a day.
        for (at, is_good) in [(DAY - 3_600, true), (DAY + 3_600, false)] {
            kit.now.store(NOW + at, Ordering::Relaxed);
            let met = visit(&serving, &client, "10.0.0.1:1").await;
            assert_eq!(met.caller.is_ok(), is_good, "{certificates:?}, {at}: {:?}", met.caller);
        }
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let kit = Kit::new();
    let members = |name: &str| Audience::Members { name: name.to_owned() };
    let good = kit.pem(true, "n1", Some("10.0.0.1"), 10);
    let other = kit.pem(true, "n1", Some("10.0.0.1"), 10);
    let client = kit.pem(true, "n1", None, 10);
    let with = |change: &dyn Fn(&mut PemSet)| {
        let mut pem = good.clone();
        change(&mut pem);
        pem
    };
    for (audience, pem, why) in [
        (members("n2"), good.clone(), "this node is called \"n2\""),
        (members("n1"), with(&|pem| pem.key.clone_from(&other.key)), "cannot be used"),
        (members("n1"), with(&|pem| pem.key.clear()), "no private key"),
        (members("n1"), with(&|pem| pem.certificate.clear()), "no certificate in it"),
        (
            members("n1"),
            with(&|pem| pem.certificate = b"-----BEGIN CERTIFICATE-----\nx".to_vec()),
            "certificate",
        ),
        (members("n1"), with(&|pem| pem.authorities.clear()), "certificate of an authority"),
        (members("n1"), with(&|pem| pem.authorities.clone_from(&kit.theirs.pem)), "do not vouch for it"),
        (members("n1"), client, "do not vouch for it"),
        (
            Audience::Clients { certificates: ClientCertificates::Required },
            with(&|pem| pem.authorities.clear()),
            "certificate of an authority",
        ),
    ] {
        let error = kit.load(audience, pem).map(drop).unwrap_err().to_string();
        assert!(error.contains(why) && error.starts_with("changing: "), "{error}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_taken_into_use_while_connections_live() {
    let kit = Kit::new();
    let members = Audience::Members { name: "n1".to_owned() };
    let (n1, files) = kit.load(members, kit.pem(true, "n1", Some("10.0.0.1"), 10)).unwrap();
    let n2 = kit.member("n2");
    let (near, far) = duplex(4096);
    let (mut old, accepted) = tokio::join!(n2.connect(near, Callee::Member("n1")), accept(&n1, far));
    let (old, (mut accepted, _)) = (old.as_mut().unwrap(), accepted.unwrap());
    assert_eq!(n1.reload(), Reloaded::Same);
    *files.0.lock().unwrap() = kit.pem(true, "n1", Some("10.0.0.9"), 20);
    assert!(matches!(n1.reload(), Reloaded::New(status) if status.expires_in_seconds == 20 * 86_400));
    assert_eq!(n1.reload(), Reloaded::Same);
    // Both directions of new connections: as the one that is called, and as the caller.
    assert!(call(&n1, &n2, Callee::Address("10.0.0.9:1")).await.callee.is_ok());
    assert!(call(&n1, &n2, Callee::Address("10.0.0.1:1")).await.callee.is_err());
    assert!(call(&n2, &n1, Callee::Member("n2")).await.callee.is_ok());
    old.write_all(b"still here").await.unwrap();
    old.flush().await.unwrap();
    let mut said = [0; 10];
    accepted.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"still here");
}

/// Authorities are replaced with it: one that is trusted no more lets nobody in.
#[tokio::test]
async fn new_authorities_are_taken_into_use() {
    let kit = Kit::new();
    let members = Audience::Members { name: "n1".to_owned() };
    let (n1, files) = kit.load(members, kit.pem(true, "n1", Some("10.0.0.1"), 10)).unwrap();
    let n2 = kit.member("n2");
    *files.0.lock().unwrap() = kit.pem(false, "n1", Some("10.0.0.1"), 10);
    assert!(matches!(n1.reload(), Reloaded::New(_)));
    let met = call(&n1, &n2, Callee::Member("n1")).await;
    assert!(met.callee.is_err());
    let n3 =
        kit.load(Audience::Members { name: "n3".to_owned() }, kit.pem(false, "n3", Some("h"), 10)).unwrap().0;
    assert!(call(&n1, &n3, Callee::Member("n1")).await.callee.is_ok());
    assert!(call(&n3, &n1, Callee::Member("n3")).await.callee.is_ok());
}

#[tokio::test]
async fn a_new_certificate_that_is_no_good_is_said_once() {
    let kit = Kit::new();
    let members = Audience::Members { name: "n1".to_owned() };
    let good = kit.pem(true, "n1", Some("10.0.0.1"), 10);
    let (n1, files) = kit.load(members, good.clone()).unwrap();
    let (n2, was) = (kit.member("n2"), kit.pem(true, "n1", Some("h"), 1));
    kit.now.store(NOW + 2 * DAY, Ordering::Relaxed);
    for bad in [PemSet::default(), kit.pem(true, "n3", Some("h"), 10), was] {
        *files.0.lock().unwrap() = bad;
        let Reloaded::Bad(why) = n1.reload() else { panic!("it is no good") };
        assert_eq!(n1.reload(), Reloaded::Same, "it is said once: {why}");
        assert_eq!(n1.status().trouble, Some(why.to_string()));
        assert!(call(&n1, &n2, Callee::Member("n1")).await.callee.is_ok(), "the old one is in use: {why}");
    }
    *files.0.lock().unwrap() = good;
    assert_eq!(n1.reload(), Reloaded::Same);
    assert_eq!(n1.status().trouble, None);
}

#[test]
fn nothing_of_a_key_is_shown() {
    let kit = Kit::new();
    let pem = kit.pem(true, "n1", Some("10.0.0.1"), 10);
    let key = String::from_utf8(pem.key.clone()).unwrap();
    let secret = key.lines().nth(1).unwrap().to_owned();
    let (n1, _) = kit.load(Audience::Members { name: "n1".to_owned() }, pem.clone()).unwrap();
    for shown in [format!("{pem:?}"), format!("{n1:?}"), format!("{:?}", kit.client(Some(pem.clone())))] {
        assert!(!shown.contains(&secret), "{shown}");
    }
}
