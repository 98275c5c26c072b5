use super::Clock;

#[test]
fn a_clock_shows_a_time_when_it_says_it_will() {
    for drift in [-50_000, -100, 0, 100, 50_000] {
        let mut clock = Clock::new(drift, 12_345);
        clock.jump(1_000_000);
        for now in [0, 1, 999, 1_000_000, 29_999_999] {
            let later = clock.read(now).plus(777_777);
            let at = clock.when(later, now);
            assert!(clock.read(at) >= later);
            assert!(at == now || clock.read(at - 1) < later);
        }
    }
}
