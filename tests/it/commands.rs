//! The commands that ask a cluster, on a real one: what they print, and how they end.

use crate::support::{Cluster, Shell, argument, free_port};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::thread;
use tempfile::TempDir;

/// Every byte there is, and no text.
fn all_bytes() -> Vec<u8> {
    (0..=u8::MAX).cycle().take(5000).collect()
}

fn one_node() -> (Cluster, Shell) {
    let cluster = Cluster::start(1, &[]);
    let shell = Shell::of(&cluster.nodes);
    (cluster, shell)
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(json_of).collect()
}

#[test]
fn values_go_in_and_come_out_to_the_byte() {
    let (_cluster, shell) = one_node();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("value");
    fs::write(&file, all_bytes()).unwrap();
    shell.run(&["kv", "put", "file", &format!("@{}", argument(&file))]).ok();
    shell.run_with(&["kv", "put", "input", "-"], &all_bytes()).ok();
    for key in ["file", "input"] {
        let got = shell.run(&["kv", "get", key]);
        assert_eq!((got.code, &got.out), (0, &all_bytes()), "{key}");
    }
    assert_eq!(shell.run(&["kv", "put", "text", "hello, world"]).ok(), "revision 3, version 1\n");
    assert_eq!(shell.run(&["kv", "put", "text", "--rest", "-o", "raw"]).ok(), "4\n");
    assert_eq!(shell.run(&["kv", "get", "text"]).ok(), "--rest", "to a pipe, nothing is added");
    assert_eq!(shell.run(&["kv", "get", "text", "--at", "3", "--level", "local"]).ok(), "hello, world");
    shell.run(&["kv", "put", "empty", ""]).ok();
    assert_eq!(shell.run(&["kv", "get", "empty", "-o", "raw"]).ok(), "");
    let expected = json!({"key": "text", "value": "--rest", "create_revision": 3, "mod_revision": 4, "version": 2, "lease": 0});
    assert_eq!(json_of(shell.run(&["kv", "get", "text", "-o", "json"]).ok()), expected);
    let table = shell.run(&["kv", "get", "file", "-o", "table"]);
    assert!(table.ok().contains("\\x00\\x01"), "a table is text: {table:?}");
    // A key of bytes that cannot be typed.
    shell.run(&["kv", "put", "--base64", "AP8=", "v"]).ok();
    assert_eq!(shell.run(&["kv", "get", "--base64", "AP8="]).ok(), "v");
    assert_eq!(json_of(shell.run(&["kv", "get", "--base64", "AP8=", "-o", "json"]).ok())["key64"], "AP8=");
}

#[test]
fn every_failure_has_its_exit_code() {
    let (cluster, shell) = one_node();
    shell.run(&["kv", "put", "a", "1"]).ok();
    shell.run(&["kv", "put", "b", "1"]).ok();
    for (args, code, part) in [
        (&["kv", "get", "none"][..], 3, "none does not exist"),
        (&["kv", "del", "none"], 3, "none does not exist"),
        (&["kv", "history", "none"], 3, "none does not exist"),
        (&["kv", "get", "a", "--at", "99"], 1, "future-revision"),
        (&["kv", "put", "a", "2", "--if-revision", "2"], 4, "the key's revision is 1"),
        (&["kv", "put", "a", "2", "--if-missing"], 4, "condition-failed"),
        (&["kv", "put", "none", "2", "--if-exists"], 4, "does not exist"),
        (&["kv", "del", "a", "--if-revision", "2"], 4, "condition-failed"),
        (&["kv", "put", "a", "2", "--lease", "77"], 3, "no lease 77"),
        (&["kv", "incr", "a", "--by", "9223372036854775807"], 1, "overflow"),
        (&["kv", "put", "", "2"], 2, "the key is empty"),
        (&["kv", "put", "--base64", "%", "2"], 2, "is not base64"),
        (&["kv", "put", "a"], 2, "<VALUE>"),
        (&["kv", "put", "a", "@/no/such/file"], 1, "/no/such/file"),
        (&["kv", "del"], 2, "<KEY>"),
        (&["kv", "del", "--prefix", ""], 2, "--all"),
        (&["kv", "ls", "--start", "b", "--end", "a"], 2, "--end"),
        (&["kv", "ls", "--limit", "0"], 2, "--limit"),
        (&["kv", "txn", "nonsense"], 2, "bad-json"),
        (&["kv", "get", "a", "--endpoints", "nowhere"], 2, "HOST:PORT"),
        (&["kv", "get", "a", "--timeout", "5"], 2, "--timeout"),
        (&["lease", "info", "77"], 3, "no lease 77"),
        (&["lease", "revoke", "77"], 3, "no lease 77"),
        (&["lease", "keepalive", "77"], 3, "no lease 77"),
        (&["lock", "name"], 2, "COMMAND"),
        (&["import", "/no/such/file"], 1, "/no/such/file"),
    ] {
        let ran = shell.run(args);
        ran.failed(code, part);
        assert!(ran.out.is_empty(), "{args:?}: {ran:?}");
    }
    // What did not hold is told by the answer of a transaction too, and by the exit code.
    let txn = r#"{"if":[{"key":"a","value":"2"}],"then":[],"else":[{"get":{"key":"a"}}]}"#;
    let ran = shell.run(&["kv", "txn", txn]);
    assert_eq!(
        (ran.code, json_of(ran.text())["results"][0]["get"]["kvs"][0]["value"].as_str()),
        (4, Some("1"))
    );
    assert_eq!(cluster.nodes[0].status().unwrap()["revision"], 2, "nothing of this was written");
}

#[test]
fn without_a_node_nothing_is_done_and_nothing_is_claimed() {
    let nobody = format!("localhost:{}", free_port());
    let shell = Shell::at(&nobody);
    for args in [
        &["kv", "put", "a", "1"][..],
        &["kv", "get", "a"],
        &["kv", "watch"],
        &["lease", "grant", "5s"],
        &["lock", "name", "--", "echo", "run"],
        &["elect", "name", "value"],
        &["status"],
        &["export"],
    ] {
        let ran = shell.run(args);
        ran.failed(5, &nobody);
        assert!(ran.err.contains("--endpoints"), "the remedy: {ran:?}");
        assert!(!ran.text().contains("run"), "{ran:?}");
    }
    // Another node is asked instead.
    let cluster = Cluster::start(1, &[]);
    let shell = Shell::at(&format!("{nobody},localhost:{}", cluster.nodes[0].http_port));
    shell.run(&["kv", "put", "a", "1"]).ok();
    assert_eq!(shell.run(&["kv", "get", "a"]).ok(), "1");
}

#[test]
fn a_write_that_is_lost_on_its_way_is_of_unknown_outcome() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // It takes requests and hangs up.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().read(&mut [0; 4096]);
        }
    });
    let shell = Shell::at(&format!("127.0.0.1:{port}"));
    for args in [
        &["kv", "put", "a", "1"][..],
        &["kv", "del", "a"],
        &["kv", "incr", "a"],
        &["kv", "txn", "{}"],
        &["lease", "revoke", "7"],
    ] {
        shell.run(args).failed(6, "it may have been done");
    }
    shell.run(&["kv", "get", "a"]).failed(5, "connection");
}

#[test]
fn keys_are_listed_in_order() {
    let (_cluster, shell) = one_node();
    for key in ["users/ann", "users/bob", "users/bob/x", "zoo", "admins"] {
        shell.run(&["kv", "put", key, &format!("of {key}")]).ok();
    }
    assert_eq!(shell.run(&["kv", "ls"]).ok(), "admins\nusers/ann\nusers/bob\nusers/bob/x\nzoo\n");
    assert_eq!(shell.run(&["kv", "ls", "users/", "--limit", "2"]).ok(), "users/ann\nusers/bob\n");
    assert_eq!(
        shell.run(&["kv", "ls", "users/", "--delimiter", "/"]).ok(),
        "users/ann\nusers/bob\nusers/bob/\n"
    );
    assert_eq!(shell.run(&["kv", "ls", "--delimiter", "/", "--limit", "2"]).ok(), "admins\nusers/\n");
    assert_eq!(shell.run(&["kv", "ls", "--count"]).ok(), "5\n");
    assert_eq!(shell.run(&["kv", "ls", "--start", "b", "--end", "users/bob0"]).ok().lines().count(), 3);
    assert_eq!(shell.run(&["kv", "ls", "--at", "2"]).ok(), "users/ann\nusers/bob\n");
    assert_eq!(shell.run(&["kv", "ls", "none/"]).ok(), "");
    let lines = json_lines(shell.run(&["kv", "ls", "users/", "-o", "json"]).ok());
    assert_eq!((lines.len(), &lines[2]["value"]), (3, &json!("of users/bob/x")));
    let lines = json_lines(shell.run(&["kv", "ls", "users/", "-o", "json", "--keys-only"]).ok());
    assert_eq!((lines.len(), lines[0].get("value")), (3, None));
    let table = shell.run(&["kv", "ls", "users/", "-o", "table"]);
    let first: Vec<&str> = table.ok().lines().take(2).collect();
    assert!(first[0].starts_with("key ") && first[1].ends_with("of users/ann"), "{first:?}");

    assert_eq!(shell.run(&["kv", "del", "--prefix", "users/"]).ok(), "deleted 3 keys, revision 6\n");
    assert_eq!(shell.run(&["kv", "del", "--prefix", "users/", "-o", "raw"]).ok(), "0\n", "no error");
    assert_eq!(shell.run(&["kv", "del", "zoo"]).ok(), "deleted 1 key, revision 7\n");
    assert_eq!(
        json_of(shell.run(&["kv", "del", "--all", "-o", "json"]).ok()),
        json!({"revision": 8, "deleted": 1})
    );
}

#[test]
fn many_keys_are_listed_page_by_page() {
    let (_cluster, shell) = one_node();
    let value = "x".repeat(3000);
    let lines: String =
        (0..1500).map(|n| format!("{}\n", json!({"key": format!("k{n:04}"), "value": value}))).collect();
    shell.run_with(&["import"], lines.as_bytes()).ok();
    assert_eq!(shell.run(&["kv", "ls", "--count"]).ok(), "1500\n");
    let listed = shell.run(&["kv", "ls", "-o", "json"]);
    let keys: Vec<String> =
        json_lines(listed.ok()).iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(keys, (0..1500).map(|n| format!("k{n:04}")).collect::<Vec<_>>());
    assert_eq!(shell.run(&["kv", "ls", "--limit", "1200"]).ok().lines().count(), 1200);
}

#[test]
fn changes_are_printed_as_they_happen_and_node_after_node() {
    let cluster = Cluster::start(3, &[]);
    let shell = Shell::of(&cluster.nodes);
    let mut watch = shell.start(&["kv", "watch", "--prefix", "a/", "--from", "1"]);
    shell.run(&["kv", "put", "a/1", "x"]).ok();
    shell.run(&["kv", "put", "b", "x"]).ok();
    shell.run(&["kv", "del", "a/1"]).ok();
    assert_eq!(watch.line(), "1 put a/1 x");
    assert_eq!(watch.line(), "3 delete a/1");
    // The node that it asks is gone, and so is the leader perhaps.
    cluster.nodes[0].kill();
    shell.run(&["kv", "put", "a/2", "y"]).ok();
    assert_eq!(watch.line(), "4 put a/2 y");

    let lines = json_lines(
        shell.run(&["kv", "watch", "a/1", "--from", "1", "--count", "2", "--previous", "-o", "json"]).ok(),
    );
    assert_eq!(lines[0]["events"][0]["value"], "x");
    assert_eq!(
        (&lines[1]["revision"], &lines[1]["events"][0]["previous"]["value"]),
        (&json!(3), &json!("x"))
    );
    let deletions = shell.run(&["kv", "watch", "--from", "1", "--deletes-only", "--count", "1"]);
    assert_eq!(deletions.ok(), "3 delete a/1\n");
    assert_eq!(shell.run(&["kv", "watch", "--from", "1", "--count", "2", "-o", "raw"]).ok(), "x\nx\n");

    let node = cluster.nodes.iter().find(|node| node.is_running()).unwrap();
    assert_eq!(node.call("POST", "/v1/compact", r#"{"revision":3}"#).status, 200);
    // A question that no node has been asked before: it may answer others from what it has encoded.
    shell.run(&["kv", "watch", "--prefix", "a", "--from", "1"]).failed(3, "--from 4");
}

#[test]
fn a_key_has_a_history_until_it_is_compacted() {
    let (cluster, shell) = one_node();
    shell.run(&["kv", "put", "k", "one"]).ok();
    shell.run(&["kv", "put", "other", "x"]).ok();
    shell.run(&["kv", "put", "k", "two", "--ttl", "60s"]).ok();
    shell.run(&["kv", "del", "k"]).ok();
    let history = shell.run(&["kv", "history", "k"]);
    let rows: Vec<Vec<&str>> = history.ok().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [
            vec!["revision", "change", "version", "lease", "value"],
            vec!["1", "put", "1", "-", "one"],
            vec!["3", "put", "2", "1", "two"],
            vec!["4", "delete"],
        ]
    );
    assert_eq!(shell.run(&["kv", "history", "k", "-o", "raw", "--limit", "2"]).ok(), "3\n4\n");
    assert_eq!(json_lines(shell.run(&["kv", "history", "k", "-o", "json"]).ok())[1]["value"], "two");
    shell.run(&["kv", "put", "k", "three"]).ok();
    assert_eq!(cluster.nodes[0].call("POST", "/v1/compact", r#"{"revision":4}"#).status, 200);
    assert_eq!(shell.run(&["kv", "history", "k", "-o", "raw"]).ok(), "5\n");
    shell.run(&["kv", "get", "k", "--at", "1"]).failed(3, "compacted");
}

#[test]
fn a_transaction_compares_and_does() {
    let (_cluster, shell) = one_node();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("txn.json");
    let txn = json!({
        "if": [{"key": "a", "version": 0}],
        "then": [{"put": {"key": "a", "value64": "/wA="}}, {"get": {"key": "a"}}],
    });
    fs::write(&file, txn.to_string()).unwrap();
    let done = json_of(shell.run(&["kv", "txn", &format!("@{}", argument(&file))]).ok());
    assert_eq!(
        (&done["succeeded"], &done["results"][1]["get"]["kvs"][0]["value64"]),
        (&json!(true), &json!("/wA="))
    );
    assert_eq!(shell.run_with(&["kv", "txn"], txn.to_string().as_bytes()).code, 4, "a second time");
    assert_eq!(shell.run(&["kv", "incr", "n"]).ok(), "1\n");
    assert_eq!(shell.run(&["kv", "incr", "n", "--by", "-3"]).ok(), "-2\n");
    assert_eq!(json_of(shell.run(&["kv", "incr", "n", "-o", "json"]).ok())["value"], -1);
}

#[test]
fn keys_end_with_their_lease() {
    let (_cluster, shell) = one_node();
    let id = shell.run(&["lease", "grant", "60s", "-o", "raw"]).ok().trim_end().to_owned();
    shell.run(&["kv", "put", "k", "v", "--lease", &id]).ok();
    let info = json_of(shell.run(&["lease", "info", &id, "-o", "json"]).ok());
    assert_eq!(
        (&info["ttl"], &info["count"], &info["keys"]),
        (&json!(60), &json!(1), &json!([{"key": "k"}]))
    );
    assert!(shell.run(&["lease", "info", &id]).ok().contains("left of 60s, 1 key\n  k\n"));
    let chosen = "1000000000000900";
    assert_eq!(shell.run(&["lease", "grant", "2s", "--id", chosen]).ok(), format!("lease {chosen}, 2s\n"));
    shell.run(&["lease", "grant", "2s", "--id", chosen]).failed(4, "lease-exists");
    shell.run(&["lease", "grant", "2s", "--id", "900"]).failed(2, "900");
    assert!(shell.run(&["lease", "ls"]).ok().lines().any(|line| line == id));
    assert!(shell.run(&["lease", "ls", "-o", "table"]).ok().starts_with("lease "));
    assert_eq!(json_of(shell.run(&["lease", "keepalive", &id, "--once", "-o", "json"]).ok())["ttl"], 60);
    assert_eq!(
        shell.run(&["lease", "revoke", &id]).ok(),
        format!("lease {id} has ended, and 1 key with it\n")
    );
    shell.run(&["kv", "get", "k"]).failed(3, "does not exist");
    // It renews, again and again, until the lease has ended behind its back.
    let id = shell.run(&["lease", "grant", "2s", "-o", "raw"]).ok().trim_end().to_owned();
    let mut keeper = shell.start(&["lease", "keepalive", &id, "-o", "raw"]);
    for _ in 0..4 {
        keeper.line();
    }
    shell.run(&["lease", "revoke", &id]).ok();
    keeper.end().failed(3, "no lease");
}

#[test]
fn an_export_is_one_state_and_its_import_is_equal() {
    let (_from, here) = one_node();
    let (_to, there) = one_node();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("all.jsonl");
    let large = "\u{1}".repeat(1 << 20);
    here.run_with(&["kv", "put", "large", "-"], large.as_bytes()).ok();
    here.run_with(&["kv", "put", "--base64", "/wA=", "-"], &all_bytes()).ok();
    for n in 0..300 {
        let value = format!("value {n}");
        if n < 3 {
            here.run(&["kv", "put", &format!("k{n}"), &value]).ok();
        }
    }
    here.run(&["kv", "put", "session", "x", "--ttl", "60s"]).ok();
    let now = here.run(&["kv", "put", "k0", "last", "-o", "raw"]).ok().trim_end().to_owned();
    here.run(&["kv", "put", "k0", "later"]).ok();
    here.run(&["kv", "del", "k1"]).ok();

    let export = here.run(&["export", "--at", &now]);
    fs::write(&file, export.ok()).unwrap();
    let lines = json_lines(export.text());
    assert_eq!(lines[0]["export"]["revision"].to_string(), now);
    assert_eq!(lines.last().unwrap(), &json!({"end": {"keys": 6}}));
    let ran = there.run(&["import", argument(&file)]);
    ran.ok();
    assert!(ran.err.contains("imported 5 keys; left out 1 key that had a lease"), "{ran:?}");

    let content = |export: &str| -> Vec<(Value, Value)> {
        let keys =
            json_lines(export).into_iter().filter(|line| line.get("version").is_some() && line["lease"] == 0);
        keys.map(|line| (json!([line["key"], line["key64"]]), json!([line["value"], line["value64"]])))
            .collect()
    };
    let again = there.run(&["export"]);
    assert_eq!(content(again.ok()), content(export.text()));
    assert_eq!(there.run(&["kv", "get", "--base64", "/wA="]).out, all_bytes());
    assert_eq!(there.run(&["kv", "get", "large"]).ok(), large);
    // Over a pipe, with the leased ones, and twice: the same.
    for _ in 0..2 {
        there.run_with(&["import", "--with-leased"], export.text().as_bytes()).ok();
    }
    assert_eq!(there.run(&["kv", "get", "session"]).ok(), "x");
    assert_eq!(content(there.run(&["export", "k"]).ok()).len(), 3, "of a prefix");

    // Cut short, or not what it seems.
    let lines: Vec<&str> = export.text().lines().collect();
    let cut = lines[..lines.len() - 1].join("\n");
    there.run_with(&["import"], cut.as_bytes()).failed(1, "cut short");
    let holed = [&lines[..2], &lines[3..]].concat().join("\n");
    there.run_with(&["import"], holed.as_bytes()).failed(1, "6 keys should be before it, and 5 are");
    for (bad, part) in [
        ("nonsense\n", "line 1"),
        ("{\"key\":\"a\",\"value\":\"b\"}\n{\"key\":\"a\"}\n", "line 2: it has no key, or no value"),
        ("{\"export\":{\"version\":2,\"revision\":1}}\n", "another version"),
        ("{\"key\":\"\",\"value\":\"b\"}\n", "no key"),
        ("{\"key\":\"a\",\"value64\":\"%\"}\n", "no key, or no value"),
    ] {
        there.run_with(&["import"], bad.as_bytes()).failed(1, part);
    }
    // Of a key that comes again the last value stays.
    let twice =
        "{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"b\",\"value\":\"1\"}\n{\"key\":\"a\",\"value\":\"2\"}\n";
    there.run_with(&["import"], twice.as_bytes()).ok();
    assert_eq!(there.run(&["kv", "get", "a"]).ok(), "2");
    // Without its lease a candidate's key would hold a lock for ever.
    let candidates = "{\"key\":\"\\u0000lock/n\\u00000000000000000001\",\"value\":\"\",\"lease\":1}\n\
         {\"key\":\"\\u0000election/n\\u00000000000000000007\",\"value\":\"\"}\n\
         {\"key\":\"c\",\"value\":\"1\",\"lease\":1}\n";
    let ran = there.run_with(&["import", "--with-leased"], candidates.as_bytes());
    assert_eq!((ran.code, &*ran.err), (0, "imported 1 key; left out 2 keys of locks and elections\n"));
    assert_eq!(there.run(&["lock", "n", "--wait", "0s", "--", "echo", "free"]).ok(), "free\n");
}

#[test]
fn the_status_shows_every_endpoint() {
    let cluster = Cluster::start(3, &[]);
    cluster.nodes[2].kill();
    let shell = Shell::of(&cluster.nodes);
    let status = shell.run(&["status"]);
    let rows: Vec<Vec<&str>> = status.ok().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[1..3].iter().map(|row| row[1]).collect::<Vec<_>>(), ["node-1", "node-2"]);
    assert!(rows[3].contains(&"unavailable"), "{status:?}");
    let lines = json_lines(shell.run(&["status", "-o", "json"]).ok());
    assert_eq!((&lines[0]["name"], lines[2]["error"].is_string()), (&json!("node-1"), true));
    let raw = shell.run(&["status", "-o", "raw"]);
    assert_eq!(raw.ok().lines().filter(|line| line.ends_with(" leader")).count(), 1, "{raw:?}");
}

#[test]
fn the_descriptions_become_completions_and_manual_pages() {
    let shell = Shell::at("localhost:1");
    for name in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = shell.run(&["completions", name]);
        assert!(script.ok().contains("infinitystore") && script.text().contains("keepalive"), "{name}");
    }
    let page = shell.run(&["man"]);
    assert!(page.ok().starts_with(".ie") && page.text().contains("infinitystore"), "{page:?}");
    let dir = TempDir::new().unwrap();
    shell.run(&["man", argument(&dir.path().join("man1"))]).ok();
    for name in ["infinitystore", "infinitystore-kv", "infinitystore-kv-put", "infinitystore-lock"] {
        let page = fs::read_to_string(dir.path().join(format!("man1/{name}.1"))).unwrap();
        assert!(page.contains("INFINITYSTORE") || page.contains("infinitystore"), "{name}");
    }
    shell.run(&["completions", "tcsh"]).failed(2, "tcsh");
    let help = shell.run(&["kv", "put", "--help"]);
    assert!(
        help.ok().contains("6    the outcome is unknown") && help.text().contains("Examples:"),
        "{help:?}"
    );
    let help = shell.run(&["lock", "-h"]);
    assert!(help.ok().contains("Exit codes: those of COMMAND"), "{help:?}");
}
