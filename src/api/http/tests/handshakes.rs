//! TLS handshakes of many clients at once.

use crate::api::HttpOptions;
use crate::api::http::tests::fixture::Fixture;
use crate::runtime::Pace;
use crate::tls::{
    Audience, CertificateFiles, ClientCertificates, ClientTls, Lifetime, NamedHosts, Order, PemSet, PortTls,
    WallClock, create, read_file,
};
use std::sync::Arc;
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

/// The certificate of a server, and a client that trusts it.
fn certificates() -> (Arc<PortTls>, ClientTls) {
    let dir = tempdir().expect("a directory");
    let order = Order {
        dir: dir.path().to_owned(),
        authority_dir: None,
        nodes: vec![NamedHosts { name: "n1".to_owned(), hosts: Vec::new() }],
        clients: Vec::new(),
        lifetime: Lifetime { days: 10, authority_days: 100 },
    };
    let clock = WallClock::of_the_system();
    create(&order, &clock).expect("files");
    let file = |name: &str| dir.path().join(name);
    let files = CertificateFiles { certificate: file("n1.pem"), key: file("n1.key"), authorities: None };
    let audience = Audience::Clients { certificates: ClientCertificates::NotAsked };
    let server = PortTls::load(audience, Arc::new(files), clock.clone()).expect("a certificate");
    let authorities = read_file(&file("ca.pem")).expect("an authority");
    let client = ClientTls::new(&PemSet { authorities, ..PemSet::default() }, clock).expect("an authority");
    (server, client)
}

/// What a client says first.
async fn hello(client: &ClientTls) -> Vec<u8> {
    let (near, mut far) = duplex(64 << 10);
    let reading = async move {
        let mut hello = vec![0; 5];
        far.read_exact(&mut hello).await.expect("a record");
        let length = usize::from(hello[3]) << 8 | usize::from(hello[4]);
        hello.resize(5 + length, 0);
        far.read_exact(&mut hello[5..]).await.expect("the rest of it");
        hello
    };
    let (_, hello) = tokio::join!(client.connect("localhost:1", near), reading);
    hello
}

/// Each takes longer than a request, and nothing else goes on meanwhile.
#[tokio::test]
async fn few_handshakes_go_on_between_two_pauses() {
    let (tls, client) = certificates();
    let options = HttpOptions {
        tls: Some(tls),
        handshakes: Pace { steps: 1, pause_micros: 3_600_000_000 },
        header_timeout_seconds: 0,
        ..HttpOptions::default()
    };
    let fixture = Fixture::start(options).await;
    let hello = hello(&client).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        let mut stream = fixture.connect().await;
        stream.write_all(&hello).await.expect("sent");
        let mut answer = Vec::new();
        // Reset, perhaps.
        let _ = stream.read_to_end(&mut answer).await;
        answers.push(!answer.is_empty());
    }
    assert_eq!(answers, [true, false, false], "who was answered before it was given up");
}

#[tokio::test]
async fn handshakes_end_well() {
    let (tls, client) = certificates();
    let options = HttpOptions { tls: Some(tls), ..HttpOptions::default() };
    let fixture = Fixture::start(options).await;
    for _ in 0..20 {
        let stream = client.connect("localhost:1", fixture.connect().await).await;
        let mut stream = stream.expect("a handshake");
        let request = b"GET /livez HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.expect("sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
}
