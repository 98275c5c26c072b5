//! The clients: each asks, waits for the answer, notes how long it took, and asks again.

use crate::cli::args::{BenchArgs, ReadLevel};
use crate::client::{CallFailure, Client, ClientOptions, Credentials, Endpoint};
use crate::replica::Level;
use crate::tls::ClientTls;
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Times from 1 µs to 10 minutes, to 3 digits.
const MICROS_MAX: u64 = 600_000_000;
/// The pause of a client after a failure.
const ERROR_PAUSE: Duration = Duration::from_millis(5);
/// Different values that all clients write.
const VALUES: usize = 8;

/// What all clients share: the results too, so that a client costs a connection and two small
/// buffers, not two histograms of a hundred KiB each.
pub(super) struct LoadRun {
    args: BenchArgs,
    endpoints: Arc<[Endpoint]>,
    tls: Option<ClientTls>,
    values: Vec<String>,
    results: Mutex<Results>,
    measure_from: Instant,
    end: Instant,
    answers: AtomicU64,
    stopped: AtomicBool,
}

impl LoadRun {
    pub(super) fn new(args: BenchArgs, tls: Option<ClientTls>, measure_from: Instant, end: Instant) -> Self {
        let mut rng = SmallRng::seed_from_u64(0);
        Self {
            values: (0..VALUES).map(|_| value(args.value_size, &mut rng)).collect(),
            endpoints: args.endpoints.clone().into(),
            tls,
            args,
            results: Mutex::new(Results::default()),
            measure_from,
            end,
            answers: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// What has been measured so far.
    pub(super) fn results(&self) -> MutexGuard<'_, Results> {
        // Counters only: consistent wherever a panic could have struck.
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests answered so far, warm-up included.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Ends the load early.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// For how long has been measured.
    pub(super) fn measured(&self) -> Duration {
        Instant::now().min(self.end).saturating_duration_since(self.measure_from)
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Results {
    pub seconds: f64,
    pub writes: Histogram<u64>,
    pub reads: Histogram<u64>,
    /// Failures by kind.
    pub errors: BTreeMap<String, u64>,
    /// Whether a node has answered, if only to refuse.
    pub is_answered: bool,
}

impl Default for Results {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are valid");
        Self {
            seconds: 0.0,
            writes: histogram(),
            reads: histogram(),
            errors: BTreeMap::new(),
            is_answered: false,
        }
    }
}

impl Results {
    pub(super) fn succeeded(&self) -> u64 {
        self.writes.len() + self.reads.len()
    }
}

/// Runs one client to the end.
pub(in crate::cli) async fn client(id: u32, shared: Arc<LoadRun>) {
    let args = &shared.args;
    let mut rng = SmallRng::seed_from_u64(u64::from(id));
    let limit = Duration::from_micros(args.timeout);
    let options = ClientOptions {
        connect_timeout: limit,
        answer_timeout: limit,
        // A failure counts as one. Another node is asked with the next request.
        attempts_max: 1,
        tls: shared.tls.clone(),
        credentials: args.token.as_deref().and_then(Credentials::token),
        ..ClientOptions::default()
    };
    let mut client = Client::new(shared.endpoints.clone(), options).beginning_at(id as usize);
    let level = match args.read_level {
        ReadLevel::Linearizable => Level::Linearizable,
        ReadLevel::Local => Level::Local,
    };
    let mut key = String::new();
    loop {
        let begun = Instant::now();
        if begun >= shared.end || shared.stopped.load(Ordering::Relaxed) {
            return;
        }
        key.clear();
        write!(key, "k{:015}", rng.random_range(0..args.keys)).expect("a String takes everything");
        let is_read = rng.random_range(0..100) < args.read_share;
        let outcome = if is_read {
            // A key that nobody has written yet is an answer too.
            client.get(&key, level).await.map(|_| ())
        } else {
            let value = &shared.values[rng.random_range(0..shared.values.len())];
            client.set(&key, value).await
        };
        shared.answers.fetch_add(1, Ordering::Relaxed);
        let counts = begun >= shared.measure_from && Instant::now() <= shared.end;
        match outcome {
            Ok(()) if counts => {
                let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(MICROS_MAX);
                let mut results = shared.results();
                let histogram = if is_read { &mut results.reads } else { &mut results.writes };
                histogram.saturating_record(micros);
            }
            Ok(()) => {}
            Err(error) => {
                if counts {
                    let mut results = shared.results();
                    results.is_answered |= matches!(error.failure, CallFailure::Refused(_));
                    *results.errors.entry(error.failure.to_string()).or_default() += 1;
                }
                sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Letters and digits: random, so that nothing compresses them away.
fn value(bytes: u64, rng: &mut SmallRng) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    (0..bytes).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}
