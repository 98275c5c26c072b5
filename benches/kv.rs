//! The state machine, and the persistent maps it could stand on.
//!
//! `cargo bench --bench kv` measures times; `cargo bench --bench kv -- --memory NAME` the memory of
//! one of them, and `-- --snapshots` that of a store which is written to while snapshots of it are
//! saved. `KV_KEYS` (100,000) and `KV_VALUE_BYTES` (256) say how large it is. The figures are in
//! docs/results/memory.md, and what was decided on them in docs/performance.md.

use bytes::Bytes;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, BenchmarkGroup, Criterion};
use infinitystore::kv::{Op, Store, StoreReader};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn keys() -> usize {
    static KEYS: OnceLock<usize> = OnceLock::new();
    *KEYS.get_or_init(|| setting("KV_KEYS", 100_000))
}

fn value_bytes() -> usize {
    static VALUE_BYTES: OnceLock<usize> = OnceLock::new();
    *VALUE_BYTES.get_or_init(|| setting("KV_VALUE_BYTES", 256))
}

fn key(number: usize) -> Vec<u8> {
    format!("user/{number:08}").into_bytes()
}

/// What the maps of others keep for each key. They keep no history.
#[derive(Clone)]
struct Versioned {
    value: Bytes,
    version: u64,
    #[expect(dead_code, reason = "it takes the room that the store's own numbers take")]
    rest: [u64; 3],
}

fn versioned(fill: u8) -> Versioned {
    let value = Bytes::from(vec![fill; value_bytes()]);
    Versioned { value, version: 3, rest: [1, 2, 0] }
}

/// Keys in an order that no cache foresees; each once a round.
fn shuffled() -> impl Iterator<Item = usize> {
    // An odd factor visits each residue of a power of two once; those past the end are skipped.
    let size = keys().next_power_of_two();
    (0..).map(move |step: usize| step.wrapping_mul(0x9E37_79B1) % size).filter(|number| *number < keys())
}

/// Time that this thread ran: what else the machine does disturbs it less than time that passed.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(now).unwrap_or_default()
    }
    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }
    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }
    fn zero(&self) -> Duration {
        Duration::ZERO
    }
    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// What the store needs of a map.
trait Map: Clone + Default {
    fn set(&mut self, key: &[u8], value: Versioned);
    fn version(&self, key: &[u8]) -> Option<u64>;
    /// Sum of the lengths, in the order of the keys: the work of a snapshot.
    fn walk(&self) -> usize;
}

macro_rules! map {
    ($name:ident, $inner:ty, $empty:expr, $key:expr, $insert:ident, $walk:expr) => {
        #[derive(Clone)]
        struct $name($inner);
        impl Default for $name {
            fn default() -> Self {
                Self($empty)
            }
        }
        impl Map for $name {
            fn set(&mut self, key: &[u8], value: Versioned) {
                if let Some(present) = self.0.get_mut(key) {
                    *present = value;
                } else {
                    self.0.$insert($key(key), value);
                }
            }
            fn version(&self, key: &[u8]) -> Option<u64> {
                // As the store's answer to a reader, with the value.
                self.0.get(key).cloned().map(|found| black_box(found).version)
            }
            fn walk(&self) -> usize {
                #[allow(clippy::redundant_closure_call, reason = "the closure is the macro's argument")]
                $walk(&self.0)
            }
        }
    };
}

fn length((key, versioned): (&impl AsRef<[u8]>, &Versioned)) -> usize {
    black_box(key.as_ref().len() + versioned.value.len())
}

type RedBlack = rpds::RedBlackTreeMapSync<Box<[u8]>, Versioned>;
type HashTrie = rpds::HashTrieMapSync<Box<[u8]>, Versioned>;
// Its nodes clone their keys when they are copied: a shared key is cheaper.
type Ord = imbl::OrdMap<Arc<[u8]>, Versioned>;

map!(RpdsRedBlackTree, RedBlack, RedBlack::new_sync(), Box::from, insert_mut, |map: &RedBlack| map
    .iter()
    .map(length)
    .sum::<usize>());
map!(RpdsHashTrie, HashTrie, HashTrie::new_sync(), Box::from, insert_mut, |map: &HashTrie| {
    let mut sorted: Vec<_> = map.iter().collect();
    sorted.sort_unstable_by_key(|(key, _)| *key);
    sorted.into_iter().map(length).sum::<usize>()
});
map!(ImblOrdMap, Ord, Ord::new(), Arc::from, insert, |map: &Ord| map.iter().map(length).sum::<usize>());

impl Map for Store {
    fn set(&mut self, key: &[u8], value: Versioned) {
        self.apply(1, &Op::set(Bytes::copy_from_slice(key), value.value).into());
    }
    fn version(&self, key: &[u8]) -> Option<u64> {
        self.get(key).map(|found| black_box(found).version)
    }
    fn walk(&self) -> usize {
        self.iter().map(|found| black_box(found.bytes())).sum()
    }
}

fn filled<M: Map>() -> M {
    let mut map = M::default();
    for number in shuffled().take(keys()) {
        map.set(&key(number), versioned(0));
    }
    map
}

fn bench_map<M: Map>(criterion: &mut Criterion<CpuTime>, name: &str) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20);
    let keys: Vec<Vec<u8>> = (0..keys()).map(key).collect();
    bench_writes::<M>(&mut group, &keys);
    let map = filled::<M>();
    let mut order = shuffled();
    group.bench_function("get", |bencher| {
        bencher.iter(|| map.version(&keys[order.next().unwrap_or_default()]));
    });
    group.bench_function("walk all, in order", |bencher| bencher.iter(|| map.walk()));
    group.finish();
}

fn bench_writes<M: Map>(group: &mut BenchmarkGroup<'_, CpuTime>, keys: &[Vec<u8>]) {
    group.bench_function("insert all", |bencher| {
        bencher.iter_batched(|| (), |()| filled::<M>(), BatchSize::PerIteration);
    });
    let mut map = filled::<M>();
    let mut order = shuffled();
    group.bench_function("overwrite", |bencher| {
        bencher.iter(|| map.set(&keys[order.next().unwrap_or_default()], versioned(1)));
    });
    group.bench_function("overwrite, just captured", |bencher| {
        // A thousand writes after each capture: nothing is copied yet, each has its path to copy.
        let mut order = shuffled();
        bencher.iter_batched(
            || map.clone(),
            |mut map| {
                for number in order.by_ref().take(1_000) {
                    map.set(&keys[number], versioned(2));
                }
                map
            },
            BatchSize::PerIteration,
        );
    });
}

/// Capture, snapshot and restoration of the store itself.
fn bench_snapshot(criterion: &mut Criterion<CpuTime>) {
    let store = filled::<Store>();
    let pieces: Vec<Vec<u8>> = store.snapshot_pieces().collect();
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(20);
    group.bench_function("capture", |bencher| bencher.iter(|| store.clone()));
    group.bench_function("write", |bencher| {
        bencher.iter(|| store.snapshot_pieces().map(|piece| black_box(piece).len()).sum::<usize>());
    });
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            let mut reader = StoreReader::new();
            pieces.iter().try_for_each(|piece| reader.push(piece)).expect("the store wrote it");
            reader.finish().expect("the store wrote it")
        });
    });
    group.finish();
}

/// Resident memory of this process, bytes.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or_default() * 1024
}

fn print_memory<M: Map>(name: &str) {
    let before = resident_bytes();
    let mut map = filled::<M>();
    let filled = resident_bytes() - before;
    for number in shuffled().take(keys()) {
        map.set(&key(number), versioned(1));
    }
    let overwritten = resident_bytes() - before;
    // A capture is held while every key is overwritten: the worst case.
    let captured = map.clone();
    for number in 0..keys() {
        map.set(&key(number), versioned(2));
    }
    let both = resident_bytes() - before;
    drop(captured);
    println!(
        "{name}: {} bytes a key, {} once every key was overwritten, {} when a capture is held meanwhile",
        filled / keys(),
        overwritten / keys(),
        both / keys()
    );
}

/// Keys are overwritten in a random order while another thread writes snapshots of the store, as a
/// node does.
fn print_snapshots() {
    let before = resident_bytes();
    let mut store = filled::<Store>();
    let mebibytes = |bytes: usize| bytes / (1 << 20);
    println!("filled: {} MiB", mebibytes(resident_bytes() - before));
    let mut order = shuffled();
    for round in 1..=5 {
        let captured = store.clone();
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        let saving = std::thread::spawn(move || {
            for piece in captured.into_snapshot_pieces() {
                black_box(piece);
                std::thread::sleep(Duration::from_micros(500));
            }
            told.store(true, Ordering::Relaxed);
        });
        let (mut writes, mut most) = (0, 0);
        while !done.load(Ordering::Relaxed) {
            // About 25,000 a second.
            for number in order.by_ref().take(25) {
                store.set(&key(number), versioned(round));
            }
            writes += 25;
            most = most.max(resident_bytes() - before);
            std::thread::sleep(Duration::from_micros(900));
        }
        saving.join().expect("it does not panic");
        for number in order.by_ref().take(keys() / 4) {
            store.set(&key(number), versioned(round));
        }
        let now = mebibytes(resident_bytes() - before);
        println!("snapshot {round}: {} MiB at most, {now} MiB after it, {writes} writes", mebibytes(most));
    }
}

type Candidate = (&'static str, fn(&mut Criterion<CpuTime>, &str), fn(&str));

const CANDIDATES: [Candidate; 4] = [
    ("store", bench_map::<Store>, print_memory::<Store>),
    ("rpds RedBlackTreeMap", bench_map::<RpdsRedBlackTree>, print_memory::<RpdsRedBlackTree>),
    ("rpds HashTrieMap", bench_map::<RpdsHashTrie>, print_memory::<RpdsHashTrie>),
    ("imbl OrdMap", bench_map::<ImblOrdMap>, print_memory::<ImblOrdMap>),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("--snapshots") {
        return print_snapshots();
    }
    if first.as_deref() == Some("--memory") {
        // A process for each: what one frees, another would not have to ask for.
        let name = arguments.next().unwrap_or_default();
        let Some((name, _, print)) = CANDIDATES.iter().find(|candidate| candidate.0 == name) else {
            return eprintln!(
                "--memory needs one of: store, rpds RedBlackTreeMap, rpds HashTrieMap, imbl OrdMap"
            );
        };
        return print(name);
    }
    let mut criterion = Criterion::default().with_measurement(CpuTime).configure_from_args();
    for (name, bench, _) in CANDIDATES {
        bench(&mut criterion, name);
    }
    bench_snapshot(&mut criterion);
    criterion.final_summary();
}
