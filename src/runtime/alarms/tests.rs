use super::{ALARMS_MAX, Alarms};

fn texts(alarms: &Alarms) -> Vec<(u64, String)> {
    alarms.list().into_iter().map(|alarm| (alarm.id, alarm.text)).collect()
}

#[test]
fn an_alarm_stands_until_it_is_acknowledged_and_its_number_is_given_once() {
    let alarms = Alarms::default();
    alarms.raise("damage", "one\nof two\tlines", false);
    alarms.raise("damage", "one\nof two\tlines", false);
    alarms.raise("damage", "two", false);
    assert_eq!(texts(&alarms), [(1, "one of two lines".to_owned()), (2, "two".to_owned())]);
    assert_eq!(alarms.acknowledge(2).map(|alarm| alarm.text), Some("two".to_owned()));
    assert_eq!(alarms.acknowledge(2), None);
    let lines = alarms.take_news().expect("it has changed");
    assert_eq!(alarms.take_news(), None);
    let later = Alarms::default();
    later.raise("repaired", "since the start", false);
    later.raise("damage", "one of two lines", false);
    later.restore(&lines);
    assert_eq!(texts(&later), [(1, "one of two lines".to_owned()), (3, "since the start".to_owned())]);
    assert!(later.take_news().is_some(), "what was raised since is to be written down");
}

#[test]
fn what_was_written_down_badly_is_passed_over_and_alarms_are_bounded() {
    let alarms = Alarms::default();
    alarms.restore(&["9".to_owned(), "x".to_owned(), "4\t0\tdamage\ttext".to_owned(), "5\t0".to_owned()]);
    assert_eq!(texts(&alarms), [(4, "text".to_owned())]);
    for number in 0..2 * ALARMS_MAX {
        alarms.raise("damage", &format!("{number} {}", "ä".repeat(400)), false);
    }
    let list = alarms.list();
    assert_eq!((list.len(), list[0].id), (ALARMS_MAX, 10 + ALARMS_MAX as u64));
    assert!(list.iter().all(|alarm| alarm.text.len() <= 512));
}
