use super::{BOTH, QUEUE, QUEUE_RAREST, RAREST, missing};
use crate::run::engine::Engine;
use std::collections::BTreeMap;

#[test]
fn what_was_not_met_is_named() {
    assert_eq!(missing(Engine::Queue, 299, &BTreeMap::new()).len(), 0, "too few seeds to tell");
    assert_eq!(missing(Engine::Queue, 300, &BTreeMap::new()).len(), BOTH.len() + QUEUE.len());
    let all = BOTH.len() + QUEUE.len() + RAREST.len() + QUEUE_RAREST.len();
    assert_eq!(missing(Engine::Queue, 5_000, &BTreeMap::new()).len(), all);
    let all = missing(Engine::Madsim, 5_000, &BTreeMap::new()).into_iter().map(|mark| (mark, 1)).collect();
    assert!(missing(Engine::Madsim, 5_000, &all).is_empty());
    // Some marks are of both engines' own.
    let own = super::QUEUE.iter().chain(&super::QUEUE_RAREST).copied();
    let own: Vec<&str> = own.filter(|mark| !all.contains_key(mark)).collect();
    assert!(own.len() > 50);
    assert_eq!(missing(Engine::Queue, 5_000, &all), own);
}
