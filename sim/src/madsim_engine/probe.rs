//! Clients that each have keys of their own, so that they know what every answer has to be: they
//! ask one node after the other, with awkward text, new and old connections, several requests at
//! once, and both levels of reading.

use crate::madsim_engine::http::{Answer, Http, NoAnswer, Request};
use crate::madsim_engine::laws::{self, Told};
use crate::madsim_engine::text;
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::Shared;
use crate::record::violation::Violation;
use crate::schedule::MILLI;
use crate::schedule::{Stream, stream};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;

/// Between two questions, at most.
const PAUSE_MICROS: u64 = 800 * MILLI;
/// Streams of the seed are told apart by this.
const FIRST_STREAM: u64 = 1_000;

/// A key that no other client writes.
#[derive(Debug)]
struct Register {
    key: String,
    /// Everything that it was given, and whether it may have held that; `None`: nothing.
    versions: Vec<(Option<String>, bool)>,
    /// The first that it may hold now.
    at_least: usize,
    /// What each process has shown of it at the least.
    shown: BTreeMap<(usize, u32), usize>,
    /// The outcome of a write is not known: it may happen at any later time.
    is_uncertain: bool,
}

/// What is asked of a register.
#[derive(Clone, Debug)]
enum Step {
    Set(String),
    Delete,
    Get,
    GetLocal,
}

/// A client with a register.
pub(super) struct Prober {
    shared: Shared,
    rng: SmallRng,
    number: u64,
    registers: u64,
    register: Register,
    connection: Option<Http>,
    values: u64,
}

impl Register {
    fn new(key: String) -> Self {
        let (versions, shown) = (vec![(None, true)], BTreeMap::new());
        Self { key, versions, at_least: 0, shown, is_uncertain: false }
    }

    /// It may have held this, at one of these versions.
    fn find(&self, value: &Option<String>, from: usize, through: usize) -> Option<usize> {
        (from..=through).find(|&version| {
            let (known, is_possible) = &self.versions[version];
            *is_possible && known == value
        })
    }
}

impl Prober {
    /// The one of that number.
    pub(super) fn new(shared: Shared, number: u64) -> Self {
        let seed = shared.lock().schedule.seed;
        let rng = stream(seed, Stream::Schedule, FIRST_STREAM + number);
        let register = Register::new(String::new());
        let mut prober = Self { shared, rng, number, registers: 0, register, connection: None, values: 0 };
        prober.take_new_register();
        prober
    }

    fn take_new_register(&mut self) {
        self.registers += 1;
        let mut key = format!("own{}.{}{}", self.number, self.registers, text::awkward(&mut self.rng));
        if self.rng.random_bool(0.05) && self.shared.lock().schedule.settings.uncommitted_bytes_max == 0 {
            key.push_str(&"k".repeat(10_000));
        }
        self.register = Register::new(key);
    }

    /// Asks on until the faults end.
    pub(super) async fn run(mut self) {
        let slots = self.shared.lock().machines.len();
        let home = self.rng.random_range(0..slots);
        let sticky = self.rng.random();
        while !self.shared.lock().calm {
            sleep_until(now() + self.rng.random_range(0..PAUSE_MICROS)).await;
            // What comes then is not theirs to judge: a node that is joined by hand refuses them.
            if self.shared.lock().calm {
                return;
            }
            let slot = if sticky { home } else { self.rng.random_range(0..slots) };
            if !self.shared.lock().machines[slot].on {
                continue;
            }
            let steps = if self.rng.random_bool(0.2) { self.rng.random_range(2..=4) } else { 1 };
            let steps = (0..steps).map(|_| self.draw()).collect();
            self.ask(slot, steps).await;
        }
    }

    /// Every kind of question once, of a member that has to serve. What went wrong, if it did.
    pub(super) async fn examine(&mut self, slot: usize, other: usize) -> Result<(), String> {
        self.take_new_register();
        self.connection = None;
        let (first, second) = (self.next_value(), self.next_value());
        self.must(slot, vec![Step::Get]).await?;
        self.must(slot, vec![Step::Set(first)]).await?;
        self.must(slot, vec![Step::GetLocal]).await?;
        self.must(other, vec![Step::Get]).await?;
        self.must(other, vec![Step::Get, Step::Set(second), Step::GetLocal, Step::Get]).await?;
        self.must(slot, vec![Step::Get]).await?;
        self.must(slot, vec![Step::Delete, Step::Get, Step::Delete]).await?;
        self.must(other, vec![Step::Get, Step::Set(String::new()), Step::Get]).await?;
        // No write may be larger than what may be appended and not committed.
        let settings = self.shared.lock().schedule.settings.clone();
        let most = if settings.uncommitted_bytes_max > 0 { 4_000 } else { 66_000 };
        // Nor does one fit into a snapshot that has to arrive in time, chunk by chunk, where those
        // are tiny.
        let bytes = most.min(50 * settings.snapshot_chunk_bytes);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let large = format!("{}{}", "v".repeat(bytes), text::awkward(&mut self.rng));
        self.must(slot, vec![Step::Set(large), Step::GetLocal]).await?;
        self.must(other, vec![Step::Get, Step::Delete]).await
    }

    async fn must(&mut self, slot: usize, steps: Vec<Step>) -> Result<(), String> {
        let is_certain = {
            let world = self.shared.lock();
            world.is_quick() && !world.limits.may_leave_out_writes()
        };
        let mut why = String::new();
        for _ in 0..if is_certain { 1 } else { 6 } {
            match self.ask(slot, steps.clone()).await {
                Some(wrong) => why = wrong,
                None => return Ok(()),
            }
        }
        Err(format!("machine {slot} {why}"))
    }

    fn draw(&mut self) -> Step {
        match self.rng.random_range(0..10) {
            0..4 => Step::Set(self.next_value()),
            4 => Step::Delete,
            5..8 => Step::Get,
            _ => Step::GetLocal,
        }
    }

    fn next_value(&mut self) -> String {
        self.values += 1;
        text::value(&mut self.rng, self.values)
    }

    /// Asks for all of `steps` at once on one connection; says what was not answered as it has to
    /// be where all is well.
    async fn ask(&mut self, slot: usize, steps: Vec<Step>) -> Option<String> {
        let timeout = self.shared.lock().schedule.settings.client_timeout_micros;
        let give_up = now() + (timeout * 5 / 4 + 100 * MILLI) * steps.len() as u64;
        if self.rng.random_bool(0.3) || !self.connection.as_ref().is_some_and(|it| it.is_usable(slot)) {
            self.connection = None;
            let due = self.shared.lock().due(slot);
            self.connection = Http::open(&self.shared, slot, give_up).await;
            if self.connection.is_none() {
                self.shared.lock().served(due, Some("no connection could be made"));
                return Some("takes no connection".to_owned());
            }
        }
        let mut connection = self.connection.take()?;
        let (due, asked) = (self.shared.lock().due(slot), now());
        let due = due.filter(|_| connection.is_to_present_process());
        let mut waiting = Vec::new();
        for step in steps {
            let request = self.request(&step);
            let version = self.register.versions.len() - 1;
            if connection.send(&request, give_up).await.is_err() {
                self.shared.lock().served(due, Some("the connection broke"));
                self.take_new_register();
                return Some("broke the connection".to_owned());
            }
            waiting.push((step, version));
        }
        let mut failed = None;
        let life = connection.life;
        let count = waiting.len();
        for (step, version) in waiting {
            let answer = connection.receive(give_up).await;
            let late = answer.as_ref().err() == Some(&NoAnswer::Late);
            match self.judge(&step, (slot, life), version, answer) {
                None => self.shared.lock().served(due, None),
                Some(why) => {
                    self.shared.lock().served(due, Some(&why));
                    if late && count == 1 {
                        self.shared.lock().judge_lateness((slot, life), asked, &why);
                    }
                    if why.starts_with("no answer") {
                        self.take_new_register();
                        return Some(why);
                    }
                    failed = Some(why);
                }
            }
        }
        self.connection = Some(connection);
        if self.register.is_uncertain {
            self.take_new_register();
        }
        failed
    }

    fn request(&mut self, step: &Step) -> Request {
        let key = self.register.key.clone();
        match step {
            Step::Set(value) => {
                self.register.versions.push((Some(value.clone()), true));
                text::set(&mut self.rng, &key, value)
            }
            Step::Delete => {
                self.register.versions.push((None, true));
                text::delete(&mut self.rng, &key)
            }
            Step::Get => text::get(&mut self.rng, &key, ""),
            Step::GetLocal => text::get(&mut self.rng, &key, "local"),
        }
    }

    /// Holds an answer against what is known. `Some`: it was refused, or did not come, and why.
    fn judge(
        &mut self,
        step: &Step,
        process: (usize, u32),
        version: usize,
        answer: Result<Answer, NoAnswer>,
    ) -> Option<String> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => return Some(format!("no answer: {why:?}")),
        };
        let is_write = matches!(step, Step::Set(_) | Step::Delete);
        let told = if is_write { laws::set(&answer) } else { laws::get(&self.register.key, &answer) };
        let told = match told {
            Ok(told) => told,
            Err(what) => {
                self.violate("answers are as documented", process, &what);
                return Some(what);
            }
        };
        match told {
            Told::Done => {
                self.register.at_least = self.register.at_least.max(version);
                let shown = self.register.shown.entry(process).or_default();
                *shown = (*shown).max(version);
                None
            }
            Told::Value(value) => {
                self.compare(matches!(step, Step::GetLocal), process, version, &value);
                None
            }
            Told::NotAppended(why) | Told::Unknown(why) | Told::Unavailable(why) => {
                if is_write && answer.header("infinitystore-outcome") == Some("unknown") {
                    self.register.is_uncertain = true;
                } else if is_write {
                    self.register.versions[version].1 = false;
                }
                let what = self.shared.lock().unjustified(process.0, &why);
                if let Some(what) = what {
                    self.violate("a refusal has its reason", process, &what);
                }
                Some(why)
            }
        }
    }

    /// A process answers a read: what it says was written, and not replaced before the read began,
    /// nor for this process before that.
    fn compare(&mut self, is_local: bool, process: (usize, u32), through: usize, value: &Option<String>) {
        let register = &mut self.register;
        let shown = register.shown.get(&process).copied().unwrap_or(0);
        let least = match (register.is_uncertain, is_local) {
            (true, _) => 0,
            (false, true) => shown,
            (false, false) => register.at_least,
        };
        if let Some(found) = register.find(value, least, through) {
            register.shown.insert(process, shown.max(found));
            if !is_local {
                register.at_least = register.at_least.max(found);
            }
            return;
        }
        let level = if is_local { "a local" } else { "a linearizable" };
        let versions: Vec<_> = register.versions.iter().map(|(it, _)| it.as_deref().map(brief)).collect();
        let (key, value) = (brief(&register.key), value.as_deref().map(brief));
        let what = format!(
            "{level} read of {key:?} finds {value:?}, of {versions:?} from {least} through {through}"
        );
        self.violate("a key of one's own", process, &what);
    }

    fn violate(&self, check: &'static str, (slot, _): (usize, u32), what: &str) {
        let what = format!("machine {slot} to prober {}: {what}", self.number);
        self.shared.lock().judge(Err(Violation { check, what }));
    }
}

fn brief(text: &str) -> String {
    if text.len() <= 60 {
        text.to_owned()
    } else {
        format!("{}… of {} bytes", text.chars().take(30).collect::<String>(), text.len())
    }
}
