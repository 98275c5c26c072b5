use super::*;

/// Runs with one figure each.
fn vitals(amounts: impl Iterator<Item = u64>) -> Vitals {
    let runs = amounts.enumerate();
    Vitals(runs.map(|(seed, it)| (seed as u64, BTreeMap::from([("it".to_owned(), it)]))).collect())
}

/// Amounts that differ much from seed to seed.
fn spread(seed: u64) -> u64 {
    100 + seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 10_000
}

fn is_shifted(change: impl Fn(u64, u64) -> u64) -> bool {
    let usual = vitals((0..128).map(spread));
    !vitals((0..128).map(|seed| change(seed, spread(seed)))).shifts(&usual).is_empty()
}

#[test]
fn what_differs_by_luck_has_not_shifted() {
    assert!(!is_shifted(|_, amount| amount));
    // Now more, now less.
    assert!(!is_shifted(|seed, amount| if seed % 2 == 0 { amount * 13 / 10 } else { amount * 10 / 13 }));
    // One run in which much went wrong.
    assert!(!is_shifted(|seed, amount| if seed == 7 { amount * 1_000 } else { amount }));
    // Few runs in which a rare thing happened.
    let never = vitals((0..128).map(|_| 0));
    assert!(vitals((0..128).map(|seed| u64::from(seed % 20 == 0))).shifts(&never).is_empty());
}

#[test]
fn what_differs_in_most_runs_has_shifted() {
    assert!(is_shifted(|_, amount| amount * 21 / 20));
    assert!(is_shifted(|seed, amount| if seed % 3 == 0 { amount } else { amount * 3 / 2 }));
    let never = vitals((0..128).map(|_| 0));
    let often = vitals((0..128).map(|seed| u64::from(seed % 3 == 0)));
    let shifts = often.shifts(&never);
    assert_eq!(shifts.len(), 1);
    assert!(shifts[0].times > 1.0);
    assert!(never.shifts(&often)[0].times < 1.0);
}

#[test]
fn a_mean_time_counts_only_where_something_was_timed() {
    let named = |amounts: &mut dyn Iterator<Item = u64>| {
        let runs = amounts.enumerate();
        Vitals(runs.map(|(seed, it)| (seed as u64, BTreeMap::from([("it µs".to_owned(), it)]))).collect())
    };
    let usual = named(&mut (0..128).map(spread));
    let half = named(&mut (0..128).map(|seed| if seed % 2 == 0 { spread(seed) } else { 0 }));
    assert!(half.shifts(&usual).is_empty());
}

#[test]
fn what_is_written_is_read_again() {
    let mut written = vitals((0..5).map(spread));
    written.0.get_mut(&3).unwrap().insert("a: b".to_owned(), 7);
    let read = Vitals::parse(&written.to_text()).unwrap();
    assert_eq!(read.to_text(), written.to_text());
    assert!(Vitals::parse("seeds: 1 2\nit: 1").is_err());
    assert!(Vitals::parse("seeds: 1 2\nit: 1 x").is_err());
}

#[test]
fn the_figures_on_record_can_be_read() {
    for engine in [Engine::Queue, Engine::Madsim] {
        assert!(Vitals::recorded(engine).unwrap().is_complete(engine), "{engine}");
    }
}
