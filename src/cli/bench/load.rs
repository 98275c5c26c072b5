//! The clients: each asks, waits for the answer, notes how long it took, and asks again.

use crate::cli::args::{BenchArgs, ReadLevel};
use crate::cli::client::Client;
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Times from 1 µs to 10 minutes, to 3 digits.
const MICROS_MAX: u64 = 600_000_000;
/// The pause of a client after a failure.
const ERROR_PAUSE: Duration = Duration::from_millis(5);
/// Different values that all clients write.
const VALUES: usize = 8;

/// What all clients share: the results too, so that a client costs a connection and two small
/// buffers, not two histograms of a hundred KiB each.
pub(in crate::cli) struct LoadRun {
    args: BenchArgs,
    values: Vec<String>,
    results: Mutex<Results>,
    measure_from: Instant,
    end: Instant,
    answered: AtomicU64,
    stopped: AtomicBool,
}

impl LoadRun {
    pub(in crate::cli) fn new(args: BenchArgs, measure_from: Instant, end: Instant) -> Self {
        let mut rng = SmallRng::seed_from_u64(0);
        Self {
            values: (0..VALUES).map(|_| value(args.value_size, &mut rng)).collect(),
            args,
            results: Mutex::new(Results::default()),
            measure_from,
            end,
            answered: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// What has been measured so far.
    pub(in crate::cli) fn results(&self) -> MutexGuard<'_, Results> {
        // Counters only: consistent wherever a panic could have struck.
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests answered so far, warm-up included.
    pub(in crate::cli) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends the load early.
    pub(in crate::cli) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// For how long has been measured.
    pub(in crate::cli) fn measured(&self) -> Duration {
        Instant::now().min(self.end).saturating_duration_since(self.measure_from)
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Results {
    pub seconds: f64,
    pub writes: Histogram<u64>,
    pub reads: Histogram<u64>,
    /// Failures by kind.
    pub errors: BTreeMap<String, u64>,
}

impl Default for Results {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are valid");
        Self { seconds: 0.0, writes: histogram(), reads: histogram(), errors: BTreeMap::new() }
    }
}

impl Results {
    pub(in crate::cli) fn succeeded(&self) -> u64 {
        self.writes.len() + self.reads.len()
    }
}

/// One request, and what was decided about it.
struct Request {
    read: bool,
    target: String,
    body: Vec<u8>,
}

/// Runs one client to the end.
pub(in crate::cli) async fn client(id: u32, shared: Arc<LoadRun>) {
    let args = &shared.args;
    let mut rng = SmallRng::seed_from_u64(u64::from(id));
    let limit = Duration::from_micros(args.timeout);
    let mut endpoint = id as usize % args.endpoints.len();
    let mut connection = None;
    let mut request = Request { read: false, target: String::new(), body: Vec::new() };
    loop {
        let begun = Instant::now();
        if begun >= shared.end || shared.stopped.load(Ordering::Relaxed) {
            return;
        }
        next_request(&mut request, args, &shared.values, &mut rng);
        let asked = ask(&mut connection, &args.endpoints[endpoint], &request);
        let outcome = timeout(limit, asked).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        shared.answered.fetch_add(1, Ordering::Relaxed);
        let counts = begun >= shared.measure_from && Instant::now() <= shared.end;
        match outcome {
            Ok(()) if counts => {
                let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(MICROS_MAX);
                let mut results = shared.results();
                let histogram = if request.read { &mut results.reads } else { &mut results.writes };
                histogram.saturating_record(micros);
            }
            Ok(()) => {}
            Err(kind) => {
                if counts {
                    *shared.results().errors.entry(kind).or_default() += 1;
                }
                connection = None;
                endpoint = (endpoint + 1) % args.endpoints.len();
                sleep(ERROR_PAUSE).await;
            }
        }
    }
}

fn next_request(request: &mut Request, args: &BenchArgs, values: &[String], rng: &mut SmallRng) {
    use std::fmt::Write;
    let key = rng.random_range(0..args.keys);
    request.read = rng.random_range(0..100) < args.read_share;
    request.target.clear();
    request.body.clear();
    if request.read {
        let level = match args.read_level {
            ReadLevel::Linearizable => "",
            ReadLevel::Local => "&level=local",
        };
        write!(request.target, "/get?key=k{key:015}{level}").expect("a String takes everything");
    } else {
        request.target.push_str("/set");
        let value = &values[rng.random_range(0..values.len())];
        write_set(&mut request.body, key, value);
    }
}

fn write_set(body: &mut Vec<u8>, key: u64, value: &str) {
    write!(body, "{{\"key\":\"k{key:015}\",\"value\":\"{value}\",\"action\":\"set\"}}")
        .expect("a Vec takes everything");
}

/// Asks once, over a new connection if there is none. A failure is the kind it is counted under.
async fn ask(connection: &mut Option<Client>, endpoint: &str, request: &Request) -> Result<(), String> {
    let kind = |error: std::io::Error| error.to_string();
    let mut client = match connection.take() {
        Some(client) => client,
        None => Client::connect(endpoint).await.map_err(kind)?,
    };
    let method = if request.read { "GET" } else { "POST" };
    let code = client.send(method, &request.target, &request.body).await.map_err(kind)?;
    let result = match code {
        200 => Ok(()),
        // Nobody has written that key yet.
        404 if request.read => Ok(()),
        _ => Err(format!("{code} {}", String::from_utf8_lossy(client.body()).trim_end())),
    };
    if client.reusable() {
        *connection = Some(client);
    }
    result
}

/// Letters and digits: random, so that nothing compresses them away.
fn value(bytes: u64, rng: &mut SmallRng) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    (0..bytes).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}
