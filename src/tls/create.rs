//! Makes an authority, and certificates for the nodes and clients of a whole cluster.

use crate::tls::certificate::Certificate;
use crate::tls::clock::WallClock;
use crate::tls::files::{self, TlsError, read_file};
use crate::tls::port::provider;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use std::fmt::Display;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file of the authority, without its ending.
const AUTHORITY: &str = "ca";
/// A certificate is valid from so long before now on: clocks differ.
const EARLIER_SECONDS: u64 = 3_600;
const DAY_SECONDS: u64 = 86_400;
/// Under these names every node reaches itself, and clients on its machine reach it.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Where the files go; made if it is not there.
    pub dir: PathBuf,
    /// Where the authority is, if not there.
    pub authority_dir: Option<PathBuf>,
    /// The nodes, and the hosts at which they are reached.
    pub nodes: Vec<NamedHosts>,
    /// The clients.
    pub clients: Vec<String>,
    /// For how long the certificates are valid.
    pub lifetime: Lifetime,
}

/// A node, and the hosts at which it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedHosts {
    /// Its `--node-id`.
    pub name: String,
    /// Names and addresses, without ports.
    pub hosts: Vec<String>,
}

/// For how long certificates are valid, days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Those of nodes and clients.
    pub days: u64,
    /// That of a new authority.
    pub authority_days: u64,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Where the authority's certificate is.
    pub authority: PathBuf,
    /// It was made, too.
    pub is_authority_new: bool,
    /// Certificate and key of each node and each client, in their order.
    pub pairs: Vec<(PathBuf, PathBuf)>,
}

/// Makes what is ordered. No file is overwritten: if one is there, nothing is made.
///
/// # Errors
/// [`TlsError`].
pub fn create(order: &Order, clock: &WallClock) -> Result<Created, TlsError> {
    let names: Vec<&str> =
        order.nodes.iter().map(|node| &*node.name).chain(order.clients.iter().map(String::as_str)).collect();
    check_names(&names)?;
    let pairs: Vec<(PathBuf, PathBuf)> = names.iter().map(|name| pair(&order.dir, name)).collect();
    let authority_dir = order.authority_dir.as_deref().unwrap_or(&order.dir);
    let (ca_file, ca_key_file) = pair(authority_dir, AUTHORITY);
    let is_authority_new = !ca_file.exists() && !ca_key_file.exists();
    if is_authority_new && order.authority_dir.is_some() {
        return Err(TlsError(format!("{}: there is no authority", ca_file.display())));
    }
    if let Some(there) = pairs.iter().flat_map(|(one, other)| [one, other]).find(|file| file.exists()) {
        return Err(TlsError(format!(
            "{}: it is there already, and is not overwritten; choose another --dir (with --ca-dir {}, to go on with the \
             same authority), or remove it",
            there.display(),
            authority_dir.display()
        )));
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&order.dir)
        .map_err(|why| failed(&order.dir, why))?;
    let authority = if is_authority_new {
        let made = Authority::new(order.lifetime.authority_days, clock)?;
        write_new(&ca_file, &made.pem)?;
        write_new(&ca_key_file, made.issuer.key().serialize_pem().as_bytes())?;
        made
    } else {
        Authority::read(&ca_file, &ca_key_file)?
    };
    let of_nodes = order.nodes.iter().map(|node| (&*node.name, Some(&*node.hosts)));
    let of_clients = order.clients.iter().map(|name| (&**name, None));
    for ((name, hosts), (certificate, key)) in of_nodes.chain(of_clients).zip(&pairs) {
        let (pem, key_pem) = authority.sign(name, hosts, order.lifetime.days, clock)?;
        authority.check(&pem, clock)?;
        write_new(certificate, &pem)?;
        write_new(key, key_pem.as_bytes())?;
    }
    Ok(Created { authority: ca_file, is_authority_new, pairs })
}

/// What the certificates in a text say.
///
/// # Errors
/// [`TlsError`] if there is none, or if one cannot be read.
pub fn show(pem: &[u8]) -> Result<Vec<Certificate>, TlsError> {
    let (chain, _) = files::chain(pem)?;
    let read = chain.iter().map(Certificate::read);
    read.collect::<Option<Vec<_>>>()
        .ok_or_else(|| TlsError("one of its certificates cannot be read".to_owned()))
}

/// Signs certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(super) pem: Vec<u8>,
}

impl Authority {
    /// A new one.
    pub(super) fn new(days: u64, clock: &WallClock) -> Result<Self, TlsError> {
        let key = KeyPair::generate().map_err(not_made)?;
        let mut params = CertificateParams::default();
        // Authorities of several clusters are told apart by their names.
        let number: String =
            key.public_key_raw().iter().rev().take(4).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name = called(&format!("InfinityStore authority {number}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        limit(&mut params, days, clock);
        let pem = params.self_signed(&key).map_err(not_made)?.pem().into_bytes();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// One that was made here before.
    fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let pem = read_file(certificate)?;
        let (_, found) = files::chain(&pem).map_err(|TlsError(why)| failed(certificate, why))?;
        let name =
            found.common_name.ok_or_else(|| failed(certificate, "the authority has no common name"))?;
        let text = String::from_utf8(read_file(key)?).map_err(|_| failed(key, "it is no key"))?;
        // Its words may have parts of the key.
        let key =
            KeyPair::from_pem(&text).map_err(|_| failed(key, "it is no key of an authority made here"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = called(&name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// A certificate and its key: of a node if there are hosts, otherwise of a client.
    pub(super) fn sign(
        &self,
        name: &str,
        hosts: Option<&[String]>,
        days: u64,
        clock: &WallClock,
    ) -> Result<(Vec<u8>, String), TlsError> {
        let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
        let purposes = if hosts.is_some() { vec![client, server] } else { vec![client] };
        self.sign_for(purposes, name, hosts.unwrap_or_default(), (days, clock))
    }

    /// The same for these purposes, with these hosts if it is for servers.
    pub(super) fn sign_for(
        &self,
        purposes: Vec<ExtendedKeyUsagePurpose>,
        name: &str,
        hosts: &[String],
        (days, clock): (u64, &WallClock),
    ) -> Result<(Vec<u8>, String), TlsError> {
        let key = KeyPair::generate().map_err(not_made)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = called(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let serves = purposes.contains(&ExtendedKeyUsagePurpose::ServerAuth);
        params.extended_key_usages = purposes;
        params.use_authority_key_identifier_extension = true;
        limit(&mut params, days, clock);
        if serves {
            for host in hosts.iter().map(String::as_str).chain(LOCAL_HOSTS) {
                let san = alternative_name(host)?;
                if !params.subject_alt_names.contains(&san) {
                    params.subject_alt_names.push(san);
                }
            }
        }
        let certificate = params.signed_by(&key, &self.issuer).map_err(not_made)?;
        Ok((certificate.pem().into_bytes(), key.serialize_pem()))
    }

    /// Makes sure that others will believe it. They do not, if the authority is none of ours.
    fn check(&self, pem: &[u8], clock: &WallClock) -> Result<(), TlsError> {
        let (chain, _) = files::chain(pem)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(files::authorities(&self.pem)?, provider());
        let verifier = verifier.build().map_err(not_made)?;
        let (Some((own, between)), Some(now)) = (chain.split_first(), clock.current_time()) else {
            return Err(TlsError("nothing was made".to_owned()));
        };
        verifier.verify_client_cert(own, between, now).map(drop).map_err(|error| {
            TlsError(format!("the authority cannot sign: {error}; is it one that was made by this command?"))
        })
    }
}

/// The files of a certificate and its key.
fn pair(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")))
}

fn check_names(names: &[&str]) -> Result<(), TlsError> {
    for (place, name) in names.iter().enumerate() {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
            return Err(TlsError(format!(
                "{name:?} becomes the name of a file: it may have letters, digits, dots, dashes and underscores"
            )));
        }
        if *name == AUTHORITY {
            return Err(TlsError(format!("{name:?} is the authority's own name")));
        }
        if names[place + 1..].contains(name) {
            return Err(TlsError(format!("{name:?} is there twice")));
        }
    }
    Ok(())
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

fn limit(params: &mut CertificateParams, days: u64, clock: &WallClock) {
    let epoch = date_time_ymd(1970, 1, 1);
    let now = clock.seconds();
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(EARLIER_SECONDS));
    params.not_after = epoch + Duration::from_secs(now.saturating_add(days.saturating_mul(DAY_SECONDS)));
}

fn alternative_name(host: &str) -> Result<SanType, TlsError> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let is_name = rustls::pki_types::DnsName::try_from(host).is_ok();
    let name = host.try_into().ok().filter(|_| is_name);
    name.map(SanType::DnsName).ok_or_else(|| TlsError(format!("{host:?} is no host")))
}

/// Writes a file that nobody else may read, and that was not there.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), TlsError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(|why| failed(path, why))
}

fn failed(path: &Path, why: impl Display) -> TlsError {
    TlsError(format!("{}: {why}", path.display()))
}

fn not_made(why: impl Display) -> TlsError {
    TlsError(format!("the certificate could not be made: {why}"))
}

#[cfg(test)]
mod tests;
