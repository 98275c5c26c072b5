//! Commands where something else than a node answers, where somebody stops them, and where nobody
//! reads what they print.

use crate::holding_troubles::fake;
use crate::support::{Cluster, Shell, argument, call, eventually, free_base_port, free_port};
use rustix::process::Signal;
use std::fs;
use tempfile::TempDir;

/// A page of a proxy.
fn page(status: &str) -> String {
    let body = "<html>nothing here</html>";
    format!("HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn told(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// Events as a watch sends them. It goes on.
fn events(messages: &[&str]) -> String {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = |message: &&str| format!("{:x}\r\ndata: {message}\n\n\r\n", message.len() + 8);
    head.to_owned() + &messages.iter().map(chunk).collect::<String>()
}

#[test]
fn a_page_of_a_proxy_says_nothing_of_a_key_or_a_lease() {
    let (addr, _heard) = fake(|_| Some(page("404 Not Found")));
    let shell = Shell::at(&addr.to_string());
    for args in [&["kv", "get", "k"][..], &["lease", "info", "7"], &["lease", "keepalive", "7"]] {
        shell.run(args).failed(1, "no answer of an InfinityStore node: 404 <html>");
    }
    for args in [&["kv", "put", "k", "v"][..], &["lease", "revoke", "7"]] {
        shell.run(args).failed(6, "no answer of an InfinityStore node: 404 <html>");
    }
    let (gone, _heard) = fake(|_| Some(page("410 Gone")));
    Shell::at(&gone.to_string()).run(&["kv", "get", "k", "--at", "3"]).failed(1, "410 <html>");
    let (failed, _heard) = fake(|_| Some(page("412 Precondition Failed")));
    let shell = Shell::at(&failed.to_string());
    shell.run(&["kv", "put", "k", "v", "--if-missing"]).failed(6, "412 <html>");
    // Behind another address there may be a node.
    let cluster = Cluster::start(1, &[]);
    let shell = Shell::at(&format!("{addr},localhost:{}", cluster.nodes[0].http_port));
    shell.run(&["kv", "put", "k", "v"]).ok();
    assert_eq!(shell.run(&["kv", "get", "k"]).ok(), "v");
}

#[test]
fn no_secret_goes_in_clear_text_where_tls_is_meant() {
    // Nobody is there (RFC 5737).
    let away = "192.0.2.1:8001";
    let run = |endpoints: &str, more: &[&str]| {
        let args = ["kv", "get", "k", "--timeout", "100ms"];
        Shell::at(endpoints).run(&[&args[..], more].concat())
    };
    let here = format!("localhost:{}", free_port());
    for (endpoints, more) in [
        (away.to_owned(), &["--token", "t", "--cacert", "ca.pem"][..]),
        (format!("{here},{away}"), &["--token", "t", "--cert", "me.pem", "--cert-key", "me.key"]),
        (format!("https://{here},{away}"), &["--user", "ann", "--password-file", "no-file"]),
    ] {
        let ran = run(&endpoints, more);
        ran.failed(2, &format!("in clear text; write https://{away}"));
        assert!(ran.err.contains("--endpoints is from the environment variable"), "{ran:?}");
    }
    // Nothing secret, nothing meant, or nobody on the way.
    run(away, &["--cacert", "ca.pem"]).failed(5, away);
    run(away, &["--token", "t"]).failed(5, away);
    run(&here, &["--token", "t", "--cacert", "ca.pem"]).failed(5, &here);
}

#[test]
fn the_history_of_a_key_that_changes_all_the_time_ends() {
    let put = |revision: u64| {
        format!(
            "{{\"revision\":{revision},\"events\":[{{\"type\":\"put\",\"key\":\"k\",\"value\":\"v\",\
             \"create_revision\":1,\"mod_revision\":{revision},\"version\":{revision}}}]}}"
        )
    };
    let (addr, heard) = fake(move |request| {
        let target = request.split(' ').nth(1).unwrap();
        Some(if let Some((_, after)) = target.split_once("after=") {
            // There is always a change more.
            let revision = after.parse::<u64>().unwrap() + 1;
            told(&format!("infinitystore-revision: {revision}\r\n"), "v")
        } else if target.starts_with("/v1/watch") {
            events(&[&put(1), &put(2), &put(3)])
        } else if target.starts_with("/v1/kv?") {
            let kv = "{\"key\":\"k\",\"value\":\"v\",\"create_revision\":1,\"mod_revision\":2,\"version\":2}";
            told("", &format!("{{\"revision\":2,\"kvs\":[{kv}],\"count\":1}}"))
        } else {
            let headers = "etag: \"2\"\r\ninfinitystore-create-revision: 1\r\ninfinitystore-version: 2\r\n";
            told(headers, "v")
        })
    });
    let history = Shell::at(&addr.to_string()).start(&["kv", "history", "k", "-o", "raw"]);
    let mut looks = 0;
    // It has asked for the changes, and asks for what they are.
    while let Some(request) = heard.iter().find(|request| request.starts_with("GET ")) {
        if request.starts_with("GET /v1/watch") {
            break;
        }
        looks += u32::from(request.contains("after="));
        assert!(looks < 10, "it goes on and on");
    }
    assert_eq!(history.end().ok(), "1\n2\n");
}

#[test]
fn a_watch_prints_no_more_changes_than_it_was_told() {
    let cluster = Cluster::start(1, &[]);
    let shell = Shell::of(&cluster.nodes);
    let put = |key: &str| format!("{{\"put\":{{\"key\":\"{key}\",\"value\":\"v\"}}}}");
    let txn = format!("{{\"then\":[{},{},{}]}}", put("a"), put("b"), put("c"));
    shell.run(&["kv", "txn", &txn]).ok();
    assert_eq!(shell.run(&["kv", "watch", "--from", "1", "--count", "2"]).ok(), "1 put a v\n1 put b v\n");
    // What one revision changed is one object.
    let whole = shell.run(&["kv", "watch", "--from", "1", "--count", "2", "-o", "json"]);
    assert_eq!(whole.ok().matches("\"type\":\"put\"").count(), 3);
}

#[test]
fn a_flag_that_says_who_to_be_overrules_what_the_environment_says() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("pw"), "secret\n").unwrap();
    let (addr, heard) = fake(|_| Some(told("", "{\"revision\":1,\"kvs\":[],\"count\":0}")));
    let shell = Shell::at(&addr.to_string());
    for (script, shown) in [
        ("INFINITYSTORE_TOKEN=t infinitystore kv ls --user ann --password-file pw", "Basic YW5uOnNlY3JldA=="),
        ("INFINITYSTORE_USER=ann INFINITYSTORE_PASSWORD_FILE=pw infinitystore kv ls --token=t", "Bearer t"),
    ] {
        let ran = shell.script(script, dir.path());
        assert_eq!((ran.code, ran.text()), (0, ""), "{script}");
        let request = heard.try_recv().unwrap();
        assert!(request.contains(&format!("authorization: {shown}")), "{request}");
    }
    // Neither says more than the other.
    let both = "INFINITYSTORE_TOKEN=t INFINITYSTORE_USER=ann infinitystore kv ls";
    assert_eq!(shell.script(both, dir.path()).code, 2);
    assert_eq!(shell.script("infinitystore kv ls --token=t --user=ann", dir.path()).code, 2);
}

#[test]
fn a_backup_that_is_stopped_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    // The beginning of a backup, perhaps.
    let (addr, _heard) = fake(|_| Some("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n".to_owned()));
    let path = dir.path().join("all.backup");
    let save = Shell::at(&addr.to_string()).start(&["backup", "save", argument(&path)]);
    let files = || fs::read_dir(dir.path()).unwrap().count();
    eventually("the file to be begun", || (files() > 0).then_some(()));
    save.signal(Signal::INT);
    save.end().failed(130, "stopped on SIGINT; nothing was saved");
    assert_eq!(files(), 0);
}

#[test]
fn commands_whose_output_nobody_reads_end_in_order() {
    let cluster = Cluster::start(1, &[]);
    let shell = Shell::of(&cluster.nodes);
    let dir = TempDir::new().unwrap();
    let bench = "{ infinitystore bench --endpoints $INFINITYSTORE_ENDPOINTS --seconds 1 --warmup 0 --clients 1; echo $? > code; } | true";
    shell.script(bench, dir.path()).ok();
    assert_eq!(fs::read_to_string(dir.path().join("code")).unwrap(), "0\n");
    // It stops its nodes in order, and removes their data.
    let port = free_base_port();
    let dev = format!(
        "{{ infinitystore dev --nodes 1 --base-port {port} --dir d --remove-data & echo $! > pid; wait $!; \
         echo $? > ended; }} | true"
    );
    std::thread::scope(|scope| {
        scope.spawn(|| shell.script(&dev, dir.path()));
        let read =
            |name: &str| fs::read_to_string(dir.path().join(name)).ok().filter(|text| text.ends_with('\n'));
        let ended = || read("ended");
        eventually("its node to be ready", || {
            let nodes = fs::read_to_string(dir.path().join("d/cluster.json")).ok()?;
            let nodes: serde_json::Value = serde_json::from_str(&nodes).ok()?;
            let http = find_port(&nodes)?;
            let ready = call(http, "GET", "/readyz", "").is_ok_and(|answer| answer.status == 200);
            (ready || ended().is_some()).then_some(())
        });
        assert_eq!(ended(), None, "it goes on");
        let pid = read("pid").unwrap().trim_end().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        assert_eq!(eventually("its end", ended), "0\n");
    });
    assert!(!dir.path().join("d").exists(), "its data is removed");
}

/// The port of the first node for clients, as `dev` keeps it.
fn find_port(nodes: &serde_json::Value) -> Option<u16> {
    match nodes {
        serde_json::Value::Object(object) => match object.get("http") {
            Some(port) => u16::try_from(port.as_u64()?).ok(),
            None => object.values().find_map(find_port),
        },
        serde_json::Value::Array(list) => list.iter().find_map(find_port),
        _ => None,
    }
}
