//! A scrape of `/metrics`, read line by line.

use std::collections::BTreeMap;

/// What the names of all metrics begin with.
const PREFIX: &str = "infinitystore_";

/// A distribution of times.
#[derive(Debug, Default)]
pub(super) struct Distribution {
    /// Its name, and its labels but for the bounds.
    pub name: String,
    pub labels: String,
    /// Bounds in seconds, and how many are not above each.
    pub buckets: Vec<(f64, f64)>,
    /// In seconds.
    pub sum: Option<f64>,
    pub count: Option<f64>,
}

/// A scrape.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Without labels.
    pub plain: BTreeMap<String, f64>,
    /// Those of `plain` that are whole numbers.
    pub whole: BTreeMap<String, u64>,
    /// Requests by route and code.
    pub requests: BTreeMap<(String, u16), u64>,
    /// Times counted, by route.
    pub times: BTreeMap<String, u64>,
    /// Distributions.
    pub distributions: Vec<Distribution>,
    /// The families, without what all their names begin with.
    pub families: Vec<String>,
    /// What is told by port: family and port.
    pub ports: BTreeMap<(String, String), f64>,
    /// What waits for each peer.
    pub peer_queues: BTreeMap<String, f64>,
    /// Everything that may only grow, by its whole name, in the order in which it was told.
    pub counters: Vec<(String, f64)>,
}

impl Metrics {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut metrics = Self::default();
        let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
        let endings = ["_total", "_bucket", "_count", "_sum", ""];
        // A family's lines follow what says its type.
        let mut last = ("", "");
        let body = text.strip_suffix("# EOF\n").ok_or("/metrics has no end")?;
        for line in body.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                if let (Some("TYPE"), Some(name), Some(kind)) = (words.next(), words.next(), words.next()) {
                    kinds.insert(name, kind);
                    metrics.families.push(name.strip_prefix(PREFIX).unwrap_or(name).to_owned());
                    last = (name, kind);
                }
                continue;
            }
            let (name, value) = line.rsplit_once(' ').ok_or_else(|| format!("a metric is {line:?}"))?;
            let whole: Option<u64> = value.parse().ok();
            let value: f64 = value.parse().map_err(|_| format!("a metric is {line:?}"))?;
            let (family, labels) = name.split_once('{').unwrap_or((name, ""));
            let kind = if family.strip_prefix(last.0).is_some_and(|end| endings.contains(&end)) {
                last.1
            } else {
                let mut names = endings.iter().filter_map(|end| family.strip_suffix(end));
                let known = names.find_map(|it| kinds.get(it));
                known.ok_or_else(|| format!("{family} has no type"))?
            };
            if kind != "gauge" {
                metrics.counters.push((name.to_owned(), value));
            }
            if kind == "histogram" {
                metrics.note_distribution(family, labels, value)?;
            }
            if let Some(port) = labels.strip_prefix("port=\"").and_then(|it| it.strip_suffix("\"}")) {
                let family = family.strip_prefix(PREFIX).unwrap_or(family);
                let family = family.strip_suffix("_total").unwrap_or(family);
                metrics.ports.insert((family.to_owned(), port.to_owned()), value);
            }
            if family == "infinitystore_peer_queue" {
                metrics.peer_queues.insert(name.to_owned(), value);
            }
            if labels.is_empty() && metrics.plain.insert(family.to_owned(), value).is_some() {
                return Err(format!("{family} is there twice"));
            }
            if let Some(whole) = whole.filter(|_| labels.is_empty()) {
                metrics.whole.insert(family.to_owned(), whole);
            }
            let whole = || whole.ok_or_else(|| format!("a count is {line:?}"));
            let label = |of: &str| {
                let rest = labels.split_once(&format!("{of}=\""))?.1;
                rest.split('"').next().map(str::to_owned)
            };
            if family == "infinitystore_http_requests_total" {
                let route = label("route").ok_or("a request without a route")?;
                let code = label("code").and_then(|code| code.parse().ok()).unwrap_or(0);
                metrics.requests.insert((route, code), whole()?);
            } else if family == "infinitystore_http_request_seconds_count" {
                metrics.times.insert(label("route").ok_or("a time without a route")?, whole()?);
            }
        }
        Ok(metrics)
    }

    /// A line of a distribution.
    fn note_distribution(&mut self, family: &str, labels: &str, value: f64) -> Result<(), String> {
        let mut parts = labels.trim_end_matches('}').split(',').filter(|part| !part.is_empty());
        let bound = parts.clone().find_map(|part| part.strip_prefix("le=\""));
        let others = parts.find(|part| !part.starts_with("le=")).unwrap_or("");
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end));
        let name = name.ok_or_else(|| format!("{family} is no part of a distribution"))?;
        let is_it = |it: &Distribution| it.name == name && it.labels == others;
        if !self.distributions.last().is_some_and(is_it) {
            let (name, labels) = (name.to_owned(), others.to_owned());
            self.distributions.push(Distribution { name, labels, ..Distribution::default() });
        }
        let Some(it) = self.distributions.last_mut() else { return Ok(()) };
        match bound {
            Some(bound) => {
                let bound = bound.trim_end_matches('"');
                let bound = if bound == "+Inf" { Ok(f64::INFINITY) } else { bound.parse() };
                it.buckets.push((bound.map_err(|_| format!("a bound of {family} is {labels:?}"))?, value));
            }
            None if family.ends_with("_sum") => it.sum = Some(value),
            None => it.count = Some(value),
        }
        Ok(())
    }

    /// The value of a family without labels.
    pub(super) fn figure(&self, family: &str) -> Option<u64> {
        let found = |end| self.whole.get(&format!("{PREFIX}{family}{end}"));
        ["", "_total", "_count"].into_iter().find_map(found).copied()
    }

    pub(super) fn get(&self, name: &str) -> Result<u64, String> {
        let found = self.whole.get(&format!("infinitystore_{name}"));
        found.copied().ok_or_else(|| format!("there is no metric {name}"))
    }
}
