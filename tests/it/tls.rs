//! TLS as an operator meets it: certificates by `tls create`, nodes and commands that use them, and
//! callers that must not get in.

use crate::support::{Node, Ran, Shell, argument, eventually, failed_start, free_port};
use infinitystore::codec::FeatureLevel;
use infinitystore::codec::checksum_parts;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A folder with certificates in `certs`.
pub(crate) struct Folder(TempDir);

impl Folder {
    /// With certificates of these nodes, all on this machine.
    pub(crate) fn with(names: &[&str]) -> Self {
        let folder = Self(TempDir::new().unwrap());
        folder.create("certs", names, &[]).ok();
        folder
    }

    fn create(&self, dir: &str, names: &[&str], more: &[&str]) -> Ran {
        let nodes: Vec<String> = names.iter().map(|name| format!("{name}=localhost")).collect();
        let (dir, nodes) = (self.path(dir), nodes.join(","));
        let args = ["tls", "create", "--dir", argument(&dir), "--nodes", &nodes];
        Shell::at("localhost:1").run(&[&args, more].concat())
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn flag(&self, flag: &str, file: &str) -> String {
        format!("--{flag}={}", argument(&self.path(file)))
    }

    /// The flags of a node that speaks TLS with the others, with that certificate.
    fn peer_flags(&self, certificate: &str) -> Vec<String> {
        vec![
            self.flag("peer-tls-cert", &format!("{certificate}.pem")),
            self.flag("peer-tls-key", &format!("{certificate}.key")),
            self.flag("peer-tls-ca", "certs/ca.pem"),
        ]
    }

    /// A node that speaks TLS with the others alone.
    fn node(&self, name: &str) -> Node {
        let flags = self.peer_flags(&format!("certs/{name}"));
        Node::new(self.0.path(), name, &flags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A node that speaks TLS with everybody.
    pub(crate) fn secured(&self, name: &str, more: &[String]) -> Node {
        let mut flags = self.peer_flags(&format!("certs/{name}"));
        flags.push(self.flag("tls-cert", &format!("certs/{name}.pem")));
        flags.push(self.flag("tls-key", &format!("certs/{name}.key")));
        flags.extend(more.iter().cloned());
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Node::new(self.0.path(), name, &flags).with_cacert(&self.path("certs/ca.pem"))
    }

    /// Copies a certificate and its key into the place of another.
    fn replace(&self, from: &str, to: &str) {
        for ending in ["key", "pem"] {
            fs::copy(self.path(&format!("{from}.{ending}")), self.path(&format!("{to}.{ending}"))).unwrap();
        }
    }
}

/// Commands over TLS.
struct Secured<'f> {
    shell: Shell,
    cacert: String,
    folder: &'f Folder,
}

impl<'f> Secured<'f> {
    fn of(folder: &'f Folder, nodes: &[&Node]) -> Self {
        let ends: Vec<String> =
            nodes.iter().map(|node| format!("https://localhost:{}", node.http_port)).collect();
        let cacert = argument(&folder.path("certs/ca.pem")).to_owned();
        Self { shell: Shell::at(&ends.join(",")), cacert, folder }
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.shell.run(&[args, &["--cacert", &self.cacert]].concat())
    }

    /// With the certificate of a client.
    fn run_as(&self, name: &str, args: &[&str]) -> Ran {
        let file = |ending: &str| argument(&self.folder.path(&format!("{name}.{ending}"))).to_owned();
        self.run(&[args, &["--cert", &file("pem"), "--cert-key", &file("key")]].concat())
    }
}

#[test]
fn three_nodes_with_the_certificates_of_one_line() {
    let folder = Folder::with(&["n1", "n2", "n3"]);
    let nodes = ["n1", "n2", "n3"].map(|name| folder.secured(name, &[]));
    nodes.iter().for_each(Node::start);
    let shell = Secured::of(&folder, &nodes.each_ref());
    for node in &nodes[1..] {
        let place = format!("{}=localhost:{}", node.name, node.raft_port);
        shell.run(&["member", "add", &place]).ok();
    }
    shell.run(&["kv", "put", "greeting", "hello"]).ok();
    let third = Secured::of(&folder, &[&nodes[2]]);
    assert_eq!(third.run(&["kv", "get", "greeting"]).ok(), "hello");
    let bench = ["bench", "--seconds", "1", "--warmup", "0", "--clients", "2", "--endpoints"];
    let end = format!("https://localhost:{}", nodes[0].http_port);
    shell.run(&[&bench[..], &[&*end]].concat()).ok();
    // HTTP/2 is offered in the handshake, and taken.
    let url = format!("https://localhost:{}/v1/kv/greeting", nodes[1].http_port);
    let curl = format!("curl -sS --http2 -w ' %{{http_version}}' --cacert {} {url}", shell.cacert);
    assert_eq!(shell.shell.script(&curl, folder.0.path()).ok(), "hello 2");
    let status = shell.run(&["status", "-o", "json"]);
    for line in status.ok().lines() {
        let status: serde_json::Value = serde_json::from_str(line).unwrap();
        let left = status["tls"]["peer"]["expires_in_seconds"].as_i64().unwrap();
        assert!((300 * 86_400..=365 * 86_400).contains(&left), "{left}");
        assert!(status["tls"]["client"]["handshakes"].as_u64().unwrap() > 0, "{status}");
    }
}

#[test]
fn the_lines_to_paste_name_every_file() {
    let folder = Folder(TempDir::new().unwrap());
    let said = folder.create("certs", &["n1", "n2"], &[]);
    let said = said.ok();
    let dir = folder.path("certs");
    let dir = argument(&dir);
    for words in [
        format!("--tls-cert {dir}/n2.pem --tls-key {dir}/n2.key"),
        format!("--peer-tls-ca {dir}/ca.pem --join localhost:8000"),
        format!("--cert {dir}/client.pem --cert-key {dir}/client.key"),
        "--node-id n1 --raft-addr localhost:8000".to_owned(),
    ] {
        assert!(said.contains(&words), "{words:?} is not in {said}");
    }
    folder.create("certs", &["n1"], &[]).failed(2, "n1.pem: it is there already");
    Shell::at("localhost:1").run(&["tls", "create", "--dir", dir]).failed(2, "nothing to make");
    Shell::at("localhost:1").run(&["tls", "create", "--dir", dir, "--nodes", "n3"]).failed(2, "NAME=HOST");
    let shown = Shell::at("localhost:1").run(&["tls", "show", &format!("{dir}/n1.pem")]);
    assert!(shown.ok().starts_with("n1: valid for another 36"), "{shown:?}");
    assert!(shown.ok().contains(" UTC to 20"), "{shown:?}");
    assert!(shown.ok().contains("localhost, 127.0.0.1, ::1"), "{shown:?}");
    Shell::at("localhost:1").run(&["tls", "show", &format!("{dir}/n1.key")]).failed(1, "no certificate");
}

#[test]
fn clients_need_a_certificate_where_they_are_asked_for_one() {
    let folder = Folder::with(&["n1"]);
    let other = Folder::with(&["n1"]);
    let ask = vec![folder.flag("tls-client-ca", "certs/ca.pem")];
    let probes = vec![ask[0].clone(), "--tls-client-auth=optional".to_owned()];
    let node = folder.secured("n1", &probes);
    node.start();
    let shell = Secured::of(&folder, &[&node]);
    shell.run(&["kv", "put", "k", "v"]).ok();
    assert_eq!(shell.run_as("certs/client", &["kv", "get", "k"]).ok(), "v");
    let stolen = Secured { folder: &other, ..Secured::of(&folder, &[&node]) };
    stolen.run_as("certs/client", &["kv", "get", "k"]).failed(5, "it does not trust");
    node.kill();

    let node = folder.secured("n1", &ask).with_client(&folder.path("certs/client"));
    node.start();
    let shell = Secured::of(&folder, &[&node]);
    assert_eq!(shell.run_as("certs/client", &["kv", "get", "k"]).ok(), "v");
    // It has not happened, and that is known.
    shell.run(&["kv", "put", "k", "w"]).failed(5, "it wants a certificate");
    shell.run(&["status"]).failed(5, "it wants a certificate");
    assert_eq!(shell.run_as("certs/client", &["kv", "get", "k"]).ok(), "v");
    assert!(node.log().contains("the TLS handshake of a client failed"), "{}", node.log());
    let lines = node.log().matches("the TLS handshake of a client failed").count();
    assert_eq!(lines, 2, "one line for many, in each of its two lives");
}

/// Its holder is somebody without credentials, who has made no wrong guess.
#[test]
fn a_certificate_that_names_no_user_is_that_of_a_stranger() {
    let folder = Folder::with(&["n1"]);
    let ask = [folder.flag("tls-client-ca", "certs/ca.pem")];
    let node = folder.secured("n1", &ask).with_client(&folder.path("certs/client"));
    node.start();
    let (shell, dir) = (Shell::at("localhost:1"), folder.path("certs"));
    let curl = |flags: &str, target: &str| {
        let certificate = "--cacert ca.pem --cert client.pem --key client.key";
        let url = format!("https://localhost:{}{target}", node.http_port);
        let line = format!("curl -sS -w '%{{http_code}}' {certificate} {flags} {url}");
        shell.script(&line, &dir).ok().to_owned()
    };
    let root = r#"-d '{"name":"root","roles":["root"],"password":"secret"}'"#;
    assert!(curl(root, "/v1/auth/users").ends_with("200"));
    assert!(curl("-X POST", "/v1/auth/enable").ends_with("200"));
    for _ in 0..12 {
        assert_eq!(curl("", "/v1/status"), "{\"alive\":true,\"ready\":true}\n200");
        let refused = curl("", "/v1/kv/k");
        assert!(refused.contains("and no user is called so") && refused.ends_with("401"), "{refused}");
    }
    let client = r#"-u root:secret -d '{"name":"client","roles":["root"]}'"#;
    assert!(curl(client, "/v1/auth/users").ends_with("200"));
    assert!(curl("", "/v1/kv/k").ends_with("404"));
}

#[test]
fn who_speaks_the_wrong_protocol_is_told() {
    let folder = Folder::with(&["n1"]);
    let node = folder.secured("n1", &[]);
    node.start();
    let plain = format!("localhost:{}", node.http_port);
    let refused = Shell::at(&plain).run(&["kv", "get", "k"]);
    refused.failed(2, "this port speaks TLS");
    let shell = Secured::of(&folder, &[&node]);
    shell.shell.run(&["kv", "get", "k"]).failed(2, "--cacert");
    let one = argument(&folder.path("certs/client.pem")).to_owned();
    shell.run(&["kv", "get", "k", "--cert", &one]).failed(2, "--cert and --cert-key go together");
    // A node whose certificate is of another authority, or whose client port has none.
    let other = Folder::with(&["n1"]);
    let strange = Secured { cacert: argument(&other.path("certs/ca.pem")).to_owned(), ..shell };
    strange.run(&["kv", "get", "k"]).failed(5, "an authority that is not trusted");
    let open = Node::new(folder.0.path(), "open", &[]);
    open.start();
    Secured::of(&folder, &[&open]).run(&["kv", "get", "k"]).failed(5, "it does not speak TLS");
    assert!(open.log().contains("clients are served without TLS"), "{}", open.log());
    open.wait_until_ready();
    assert_eq!(open.status().unwrap()["tls"], serde_json::json!({"client": null, "peer": null}));
}

/// The hello of a question, and the question "who are you?".
fn knock() -> Vec<u8> {
    let block = |kind: u8, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        let bytes =
            [&b"InfStore"[..], &FeatureLevel::OLDEST.get().to_le_bytes(), &[kind], &length, body].concat();
        let sum = checksum_parts(&[&bytes]).to_le_bytes();
        [bytes, sum.to_vec()].concat()
    };
    [block(2, &[]), block(5, &[0; 4])].concat()
}

/// What the raft port answers to a caller in clear text.
fn answer(port: u16) -> String {
    let mut stream = TcpStream::connect(("localhost", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&knock()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    // It may be reset behind the answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn the_raft_port_tells_a_stranger_nothing() {
    let folder = Folder::with(&["the-name", "n2"]);
    let node = folder.node("the-name");
    node.start();
    let open = Node::new(folder.0.path(), "the-name-of-an-open-one", &[]);
    open.start();
    assert!(answer(open.raft_port).contains("the-name"), "the question is a right one");
    let told = answer(node.raft_port);
    assert!(told.contains("this node speaks TLS") && !told.contains("the-name"), "{told}");
    // A node without certificates, and one of another cluster, do not get in.
    for other in [Node::new(folder.0.path(), "n3", &[]), Folder::with(&["n3"]).node_in(folder.0.path(), "n3")]
    {
        let other = other.with_flag(|_| format!("--join=localhost:{}", node.raft_port));
        other.start();
        eventually("it to be told", || {
            let log = other.log();
            let told = log.contains("this node speaks TLS") || log.contains("not trusted here");
            (log.contains("could not join") && told).then_some(())
        });
        other.kill();
        let _ = fs::remove_dir_all(other.data_dir());
    }
    assert_eq!(node.status().unwrap()["members"].as_array().unwrap().len(), 1);
}

impl Folder {
    /// A node whose data is in another folder.
    fn node_in(&self, dir: &Path, name: &str) -> Node {
        let flags = self.peer_flags(&format!("certs/{name}"));
        // Its files have to outlive this.
        let kept = dir.join("other");
        fs::create_dir_all(&kept).unwrap();
        let flags: Vec<String> = flags
            .iter()
            .map(|flag| {
                let (flag, file) = flag.split_once('=').unwrap();
                let to = kept.join(Path::new(file).file_name().unwrap());
                fs::copy(file, &to).unwrap();
                format!("{flag}={}", argument(&to))
            })
            .collect();
        Node::new(dir, name, &flags.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

#[test]
fn a_certificate_is_replaced_while_connections_live() {
    let folder = Folder::with(&["n1", "n2"]);
    let (n1, n2) = (folder.secured("n1", &[]), folder.node("n2"));
    n1.start();
    n2.start();
    let shell = Secured::of(&folder, &[&n1]);
    shell.run(&["member", "add", &format!("n2=localhost:{}", n2.raft_port)]).ok();
    let all = ["kv", "watch", "k", "--from", "1", "--count", "2", "--cacert", &shell.cacert];
    let mut watch = shell.shell.start(&all);
    shell.run(&["kv", "put", "k", "1"]).ok();
    assert!(watch.line().contains('k'));
    let status =
        || -> serde_json::Value { serde_json::from_str(shell.run(&["status", "-o", "json"]).ok()).unwrap() };
    // Of another node: no good.
    folder.replace("certs/n2", "certs/n1");
    eventually("the new certificate to be refused", || {
        let trouble = status()["tls"]["peer"]["trouble"].clone();
        trouble.as_str().is_some_and(|why| why.contains("this node is called \"n1\"")).then_some(())
    });
    assert_eq!(n1.log().matches("the new certificate is no good").count(), 1, "{}", n1.log());
    let metrics = format!("curl -sS --cacert {} https://localhost:{}/metrics", shell.cacert, n1.http_port);
    let metrics = shell.shell.script(&metrics, folder.0.path());
    assert!(metrics.ok().contains("infinitystore_certificate_trouble{port=\"peer\"} 1"), "{}", metrics.ok());
    assert!(
        metrics.ok().contains("infinitystore_certificate_expires_seconds{port=\"client\"} 315"),
        "{}",
        metrics.ok()
    );
    // A good one, that ends soon.
    let old = argument(&folder.path("certs")).to_owned();
    folder.create("new", &["n1"], &["--ca-dir", &old, "--days", "20"]).ok();
    folder.replace("new/n1", "certs/n1");
    eventually("the new certificate to be in use", || {
        let tls = status()["tls"].clone();
        let is_new = |port: &str| tls[port]["reloads"].as_u64() >= Some(1) && tls[port]["trouble"].is_null();
        (is_new("client") && is_new("peer")).then_some(())
    });
    assert!(status()["tls"]["peer"]["expires_in_seconds"].as_i64() < Some(21 * 86_400));
    eventually("a warning", || n1.log().contains("a certificate ends soon").then_some(()));
    // What was open goes on, and so do the two nodes.
    shell.run(&["kv", "put", "k", "2"]).ok();
    watch.end().ok();
    n2.kill();
    n2.start();
    shell.run(&["kv", "put", "k", "3"]).ok();
}

#[test]
fn a_raft_address_that_others_reach_needs_tls() {
    let folder = Folder::with(&["n1", "n2"]);
    let dir = folder.0.path();
    let http = format!("--http-addr=localhost:{}", free_port());
    for flags in [
        &["--raft-addr=10.0.0.1:8000"][..],
        &["--raft-addr=:8000"],
        &["--raft-addr=0.0.0.0:8000"],
        &["--raft-addr=[::]:8000"],
        &["--raft-addr=db.example:8000"],
        &["--raft-addr=localhost.example:8000"],
        &["--raft-addr=localhost:8000", "--advertise-raft-addr=db.example"],
        &["--raft-addr=localhost:8000", "--advertise-raft-addr=10.0.0.1:8000"],
    ] {
        let (code, text) = failed_start(dir, &[flags, &[&*http, "--node-id=n1"]].concat());
        assert_eq!(code, 2, "{text}");
        for words in ["--insecure", "tls create --dir certs --nodes n1=", "--peer-tls-cert certs/n1.pem"] {
            assert!(text.contains(words), "{words:?} is not in {text}");
        }
    }
    assert!(!dir.join("data").exists(), "nothing was made on the disk");
    // Both ways out. No test may listen on other addresses than this machine's.
    for more in [vec!["--insecure".to_owned()], folder.peer_flags("certs/n1")] {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let node = Node::new(dir, "n1", &[&more[..], &["--advertise-raft-addr=db.example"]].concat());
        node.start();
        node.kill();
        let _ = fs::remove_dir_all(node.data_dir());
    }
}

#[test]
fn files_that_do_not_fit_are_told_before_anything_is_made() {
    let folder = Folder::with(&["n1", "n2"]);
    let dir = folder.0.path();
    fs::write(folder.path("certs/broken.pem"), "no certificate").unwrap();
    let http = format!("--http-addr=localhost:{}", free_port());
    let flag = |name: &str, file: &str| folder.flag(name, file);
    let clients = |certificate: &str, key: &str| vec![flag("tls-cert", certificate), flag("tls-key", key)];
    for (flags, code, words) in [
        (folder.peer_flags("certs/n2"), 2, "this node is called \"n1\""),
        (clients("certs/n1.pem", "certs/n2.key"), 2, "--tls-cert"),
        (clients("certs/broken.pem", "certs/n1.key"), 2, "no certificate"),
        (clients("certs/none.pem", "certs/n1.key"), 2, "none.pem"),
        (vec![flag("tls-cert", "certs/n1.pem")], 2, "--tls-key"),
        (vec![flag("peer-tls-cert", "certs/n1.pem")], 2, "--peer-tls-ca"),
        (vec![flag("tls-client-ca", "certs/ca.pem")], 2, "--tls-cert"),
        (folder.peer_flags("certs/client"), 2, "this node is called"),
    ] {
        let mut flags = flags;
        flags.extend([http.clone(), "--node-id=n1".to_owned(), "--raft-addr=localhost:0".to_owned()]);
        let (found, text) = failed_start(dir, &flags.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(found, code, "{flags:?}: {text}");
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    assert!(!dir.join("data").exists(), "nothing was made on the disk");
}
