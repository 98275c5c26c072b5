//! `bench`: a closed-loop load generator.

mod load;
mod report;

use crate::cli::args::BenchArgs;
use crate::cli::ask::print::Output;
use crate::cli::bench::load::{LoadRun, Results, client};
use crate::cli::descriptors;
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::signals::{StopSignals, runtime};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often the progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Puts load on a cluster, and prints what came of it.
pub(super) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let value_max = crate::kv::VALUE_BYTES_MAX as u64;
    if args.value_size > value_max {
        let text = format!("--value-size {}: a value has at most {value_max} bytes", args.value_size);
        return Err(Failure::new(ExitStatus::Usage, text));
    }
    descriptors::raise();
    let results = runtime(args.threads)?.block_on(measure(args))?;
    let mut out = Output::new();
    out.bytes(report::render(args, &results).as_bytes())?;
    out.flush()?;
    if results.succeeded() > 0 {
        return Ok(());
    }
    let errors = report::errors_in_words(&results);
    let remedy = if results.is_answered { "" } else { "; is a node running there? See --endpoints" };
    let text = format!("no request succeeded against {}: {errors}{remedy}", report::endpoints(args));
    Err(Failure::new(ExitStatus::Failure, text))
}

async fn measure(args: &BenchArgs) -> Result<Results, Failure> {
    let mut signals = StopSignals::new()?;
    let warmup = Duration::from_secs(u64::from(args.warmup));
    let seconds = Duration::from_secs(u64::from(args.seconds));
    let start = Instant::now();
    let tls = args.tls.load(&args.endpoints)?;
    let shared = Arc::new(LoadRun::new(args.clone(), tls, start + warmup, start + warmup + seconds));
    let tasks: Vec<_> = (0..args.clients).map(|id| tokio::spawn(client(id, shared.clone()))).collect();
    let watch = async {
        tokio::select! {
            biased;
            _ = signals.next() => shared.stop(),
            () = show_progress(&shared, start, warmup + seconds) => {}
        }
    };
    watch.await;
    for task in tasks {
        task.await.map_err(|error| Failure::new(ExitStatus::Failure, format!("a client failed: {error}")))?;
    }
    let mut results = std::mem::take(&mut *shared.results());
    results.seconds = shared.measured().as_secs_f64();
    Ok(results)
}

/// A bar on standard error, if that is a terminal.
async fn show_progress(shared: &LoadRun, start: Instant, total: Duration) {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let bar = ProgressBar::with_draw_target(Some(millis(total)), ProgressDrawTarget::stderr());
    bar.set_style(
        ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}").expect("the template is well-formed"),
    );
    let mut before = (0, start);
    while start.elapsed() < total {
        sleep(PROGRESS_INTERVAL).await;
        let now = (shared.answers(), Instant::now());
        let rate = (now.0 - before.0) as f64 / (now.1 - before.1).as_secs_f64();
        before = now;
        bar.set_position(millis(start.elapsed()));
        bar.set_message(format!("{rate:.0} requests/s"));
    }
    bar.finish_and_clear();
}
