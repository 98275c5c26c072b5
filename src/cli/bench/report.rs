//! What a measurement came to, as a table or as JSON.

use crate::cli::args::{BenchArgs, ReadLevel, ReportFormat};
use crate::cli::bench::load::Results;
use crate::client::Endpoint;
use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write;

/// The report, with its newline.
pub(super) fn render(args: &BenchArgs, results: &Results) -> String {
    match args.format {
        ReportFormat::Text => text(args, results),
        ReportFormat::Json => format!("{}\n", json_report(args, results)),
    }
}

/// Failures by kind, in one line.
pub(super) fn errors_in_words(results: &Results) -> String {
    let mut kinds: Vec<_> = results.errors.iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let words: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
    if words.is_empty() { "none was answered in time".to_owned() } else { words.join(", ") }
}

/// The nodes, as they were given.
pub(super) fn endpoints(args: &BenchArgs) -> String {
    args.endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(",")
}

fn text(args: &BenchArgs, results: &Results) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(["", "requests", "per second", "p50 ms", "p99 ms", "p99.9 ms", "max ms"]);
    for (name, histogram) in [("writes", &results.writes), ("reads", &results.reads)] {
        if !histogram.is_empty() {
            let millis = |micros: u64| format!("{:.3}", micros as f64 / 1e3);
            table.add_row([
                name.to_owned(),
                histogram.len().to_string(),
                format!("{:.0}", rate(histogram, results.seconds)),
                millis(histogram.value_at_quantile(0.5)),
                millis(histogram.value_at_quantile(0.99)),
                millis(histogram.value_at_quantile(0.999)),
                millis(histogram.max()),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("a String takes everything");
    line(format!(
        "{} clients on {}, {:.1} s, values of {} bytes, {} keys",
        args.clients,
        endpoints(args),
        results.seconds,
        args.value_size,
        args.keys
    ));
    line(table.to_string());
    if !results.errors.is_empty() {
        line(format!("failed: {}", errors_in_words(results)));
    }
    text
}

fn json_report(args: &BenchArgs, results: &Results) -> Value {
    let part = |histogram: &Histogram<u64>| {
        json!({
            "requests": histogram.len(),
            "per_second": rate(histogram, results.seconds),
            "mean_micros": if histogram.is_empty() { 0.0 } else { histogram.mean() },
            "p50_micros": histogram.value_at_quantile(0.5),
            "p99_micros": histogram.value_at_quantile(0.99),
            "p99_9_micros": histogram.value_at_quantile(0.999),
            "max_micros": histogram.max(),
        })
    };
    json!({
        "endpoints": args.endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>(),
        "clients": args.clients,
        "value_bytes": args.value_size,
        "keys": args.keys,
        "read_share_percent": args.read_share,
        "read_level": if args.read_level == ReadLevel::Local { "local" } else { "linearizable" },
        "seconds": results.seconds,
        "writes": part(&results.writes),
        "reads": part(&results.reads),
        "errors": results.errors,
    })
}

fn rate(histogram: &Histogram<u64>, seconds: f64) -> f64 {
    if seconds > 0.0 { histogram.len() as f64 / seconds } else { 0.0 }
}
