//! What `dev` says when the cluster is up.

use crate::cli::dev::layout::Layout;
use comfy_table::{Table, presets};
use std::fmt::Write;

/// The nodes, and commands to paste.
pub(super) fn welcome(layout: &Layout) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(["node", "clients", "peers", "data"]);
    for place in &layout.places {
        let data = place.data.display().to_string();
        table.add_row([place.name.clone(), format!("http://{}", place.http_addr()), place.raft_addr(), data]);
    }
    let first = layout.places.first().map(|place| place.http_addr()).unwrap_or_default();
    let last = layout.places.last().map(|place| place.http_addr()).unwrap_or_default();
    let mut text = format!("\nThe cluster is ready.\n{table}\n\n");
    // With -i, curl shows the headers too, which say why a write was refused and whether it may
    // still happen.
    for line in [
        format!(
            "curl -i -X POST http://{first}/set -d '{{\"key\":\"foo\", \"value\":\"bar\",\"action\":\"set\"}}'"
        ),
        format!("curl -X GET \"http://{last}/get?key=foo\""),
        format!("curl -i -X POST http://{last}/set -d '{{\"key\":\"foo\",\"action\":\"delete\"}}'"),
        format!("curl http://{first}/v1/status"),
    ] {
        writeln!(text, "  {line}").expect("a String takes everything");
    }
    // The commands of this program read this variable.
    let addresses: Vec<String> = layout.places.iter().map(|place| place.http_addr()).collect();
    let addresses = addresses.join(",");
    writeln!(text, "\nOr, with this program:\n\n  export INFINITYSTORE_ENDPOINTS={addresses}")
        .expect("a String takes everything");
    for line in [
        "infinitystore kv put greeting 'hello, world' --ttl 60s",
        "infinitystore kv watch greeting --from 1",
        "infinitystore lock nightly -- sh -c 'echo my fence is $INFINITYSTORE_FENCE'",
        "infinitystore status",
    ] {
        writeln!(text, "  {line}").expect("a String takes everything");
    }
    writeln!(
        text,
        "\nType `kill 2` and Enter to kill a node, `start 2` to start it again. Ctrl-C stops the nodes.\n\
         Logs and data are in {}.",
        layout.dir.display()
    )
    .expect("a String takes everything");
    text
}
