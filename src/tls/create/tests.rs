use crate::tls::certificate::Certificate;
use crate::tls::clock::WallClock;
use crate::tls::create::{Created, Lifetime, NamedHosts, Order, create, show};
use crate::tls::files::TlsError;
use rcgen::{CertificateParams, KeyPair};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::{TempDir, tempdir};

fn order(dir: &Path, nodes: &[&str], clients: &[&str]) -> Order {
    let node = |name: &&str| NamedHosts { name: (*name).to_owned(), hosts: vec!["10.0.0.1".to_owned()] };
    Order {
        dir: dir.to_owned(),
        authority_dir: None,
        nodes: nodes.iter().map(node).collect(),
        clients: clients.iter().map(ToString::to_string).collect(),
        lifetime: Lifetime { days: 10, authority_days: 100 },
    }
}

fn make(order: &Order) -> Result<Created, TlsError> {
    create(order, &WallClock::of_the_system())
}

fn files(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn nobody_else_may_read_what_is_made() {
    let dir = tempdir().unwrap();
    let created = make(&order(dir.path(), &["n1", "n2"], &["app"])).unwrap();
    assert!(created.is_authority_new);
    assert_eq!(
        files(&dir),
        ["app.key", "app.pem", "ca.key", "ca.pem", "n1.key", "n1.pem", "n2.key", "n2.pem"]
    );
    for name in files(&dir) {
        let mode = fs::metadata(dir.path().join(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let shown = show(&fs::read(dir.path().join("n2.pem")).unwrap()).unwrap();
    assert_eq!(shown.iter().map(Certificate::name).collect::<Vec<_>>(), ["n2"]);
}

#[test]
fn nothing_is_overwritten_and_nothing_made_beside_it() {
    let dir = tempdir().unwrap();
    make(&order(dir.path(), &["n1"], &[])).unwrap();
    let before: Vec<Vec<u8>> =
        files(&dir).iter().map(|name| fs::read(dir.path().join(name)).unwrap()).collect();
    let error = make(&order(dir.path(), &["n2", "n1"], &[])).unwrap_err();
    assert!(error.to_string().contains("n1.pem: it is there already"), "{error}");
    assert_eq!(files(&dir), ["ca.key", "ca.pem", "n1.key", "n1.pem"]);
    let after: Vec<Vec<u8>> =
        files(&dir).iter().map(|name| fs::read(dir.path().join(name)).unwrap()).collect();
    assert!(before == after);
}

#[test]
fn an_authority_signs_later_and_into_another_folder() {
    let (dir, other) = (tempdir().unwrap(), tempdir().unwrap());
    make(&order(dir.path(), &["n1"], &[])).unwrap();
    assert!(!make(&order(dir.path(), &["n2"], &[])).unwrap().is_authority_new);
    let elsewhere =
        Order { authority_dir: Some(dir.path().to_owned()), ..order(other.path(), &["n1"], &["app"]) };
    let created = make(&elsewhere).unwrap();
    assert_eq!((created.is_authority_new, created.authority), (false, dir.path().join("ca.pem")));
    assert_eq!(files(&other), ["app.key", "app.pem", "n1.key", "n1.pem"]);
    let nowhere = Order { authority_dir: Some(other.path().to_owned()), ..order(dir.path(), &["n3"], &[]) };
    assert!(make(&nowhere).unwrap_err().to_string().contains("there is no authority"));
}

/// What it signs would be believed by nobody.
#[test]
fn a_foreign_authority_is_refused() {
    let dir = tempdir().unwrap();
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
    fs::write(dir.path().join("ca.key"), other.serialize_pem()).unwrap();
    let error = make(&order(dir.path(), &["n1"], &[])).unwrap_err();
    assert!(error.to_string().contains("the authority cannot sign"), "{error}");
    assert_eq!(files(&dir), ["ca.key", "ca.pem"]);
}

#[test]
fn names_that_are_no_files_are_refused() {
    let dir = tempdir().unwrap();
    for names in [&["../n1"][..], &["a/b"], &[""], &[".n1"], &["ca"], &["n1", "n1"], &["a b"]] {
        assert!(make(&order(dir.path(), names, &[])).is_err(), "{names:?}");
    }
    assert!(make(&order(dir.path(), &["n1"], &["n1"])).is_err(), "a client called like a node");
    assert!(files(&dir).is_empty());
}
