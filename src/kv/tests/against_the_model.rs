//! The store against the model.

use crate::codec::{FeatureLevel, Reader};
use crate::kv::tests::kit::{KEYS, any_changes_query, any_commands, any_query};
use crate::kv::tests::model::Model;
use crate::kv::{
    ChangesQuery, Command, Detail, KeyRange, Lease, LeaseId, Outcome, RangePage, RangeQuery, Revision, Store,
    StoreReader,
};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use proptest::option::weighted;
use proptest::prelude::{Just, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;

/// The term of the leader in all entries.
const TERM: u64 = 1;
/// A history of so many bytes holds all that these tests do.
const MUCH: u64 = 1 << 20;

fn encoded(command: &Command) -> Bytes {
    let mut bytes = Vec::new();
    command.encode(&mut bytes);
    bytes.into()
}

/// Rebuilds a store from its snapshot, cut at random places.
pub(super) fn rebuilt(store: &Store, cuts: &[proptest::sample::Index]) -> Store {
    let body: Vec<u8> = store.snapshot_pieces().flatten().collect();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    let mut reader = StoreReader::new();
    for pair in cuts.windows(2) {
        reader.push(&body[pair[0]..pair[1]]).unwrap();
    }
    reader.finish().unwrap()
}

/// All that can be asked of a store is as the model says.
fn check(
    store: &Store,
    model: &Model,
    query: &RangeQuery,
    changes: &ChangesQuery,
) -> Result<(), TestCaseError> {
    let keys = model.keys();
    prop_assert_eq!(store.revision().0, model.revision());
    prop_assert_eq!(store.compacted().0, model.compacted);
    prop_assert_eq!(store.settings(), &model.settings);
    prop_assert_eq!(store.len(), keys.len());
    prop_assert_eq!(store.bytes(), keys.values().map(|found| found.bytes() as u64).sum::<u64>());
    prop_assert!(store.history_bytes() <= model.settings.history_bytes);
    prop_assert_eq!(store.answers_forgotten_below().0, model.forgotten.map_or(0, |newest| newest + 1));
    prop_assert_eq!(store.answers_bytes(), model.answers.iter().map(|(.., bytes)| bytes).sum::<u64>());
    prop_assert!(store.iter().eq(keys.values().cloned()));
    for key in KEYS {
        prop_assert_eq!(store.get(key), keys.get(key).cloned());
    }
    for at in 0..=model.revision() + 2 {
        let all = RangeQuery {
            at: Some(Revision(at)),
            delimiter: None,
            detail: Detail::Values,
            ..RangeQuery::of(KeyRange::all())
        };
        prop_assert_eq!(store.range(&all), model.range(&all));
        let some = RangeQuery { at: Some(Revision(at)), ..query.clone() };
        prop_assert_eq!(store.range(&some), model.range(&some), "{:?}", some);
        let changes = ChangesQuery { from: Revision(at), ..changes.clone() };
        prop_assert_eq!(store.changes(&changes), model.changes(&changes), "{:?}", changes);
    }
    let now = RangeQuery { at: None, ..query.clone() };
    prop_assert_eq!(store.range(&now), model.range(&now));
    check_pages(store, query)?;
    check_leases(store, model)
}

/// The pages of a query, one after the other, are the whole.
fn check_pages(store: &Store, query: &RangeQuery) -> Result<(), TestCaseError> {
    let whole = RangeQuery { limit: 0, resume: None, ..query.clone() };
    let Ok(whole) = store.range(&whole) else { return Ok(()) };
    let mut all = RangePage { revision: whole.revision, count: whole.count, ..RangePage::default() };
    let mut resume = None;
    loop {
        let page = store.range(&RangeQuery { resume, ..query.clone() }).unwrap();
        prop_assert!(query.limit == 0 || page.kvs.len() + page.prefixes.len() <= query.limit);
        prop_assert_eq!(page.count, whole.count);
        all.kvs.extend(page.kvs);
        all.prefixes.extend(page.prefixes);
        resume = page.next;
        if resume.is_none() {
            break;
        }
    }
    prop_assert_eq!(all, whole);
    Ok(())
}

fn check_leases(store: &Store, model: &Model) -> Result<(), TestCaseError> {
    let keys_of = |id: u64| -> Vec<Vec<u8>> {
        let held = model.keys().values().filter(|found| found.lease == LeaseId(id));
        held.map(|found| found.key.to_vec()).collect()
    };
    let expected = model.leases.iter().map(|(id, (ttl_seconds, grant))| Lease {
        id: LeaseId(*id),
        ttl_seconds: *ttl_seconds,
        grant: *grant,
        keys: keys_of(*id).len() as u64,
    });
    prop_assert!(store.leases(LeaseId::NONE).eq(expected));
    prop_assert_eq!(store.lease_count(), model.leases.len());
    for id in 0..8 {
        let keys = keys_of(id);
        if id > 0 {
            prop_assert_eq!(&store.lease_keys(LeaseId(id), b"", usize::MAX), &keys);
            let next: Vec<Vec<u8>> = keys.iter().filter(|key| key[..] >= b"b"[..]).take(1).cloned().collect();
            prop_assert_eq!(store.lease_keys(LeaseId(id), b"b", 1), next);
        }
        prop_assert_eq!(store.lease(LeaseId(id)).is_some(), model.leases.contains_key(&id));
    }
    Ok(())
}

/// All that tells a state from another one, in words.
fn described(model: &Model) -> String {
    let from = usize::try_from(model.compacted).unwrap() + 1;
    let Model { settings, leases, last_grant, answers, answers_given, compacted, .. } = model;
    format!(
        "{:?} {:?} {:?} {:?}",
        model.keys(),
        model.events.get(from..),
        (model.revision(), compacted, settings, leases, last_grant, answers, answers_given),
        (model.undated, model.forgotten)
    )
}

proptest! {

    #[test]
    fn behaves_as_the_model(
        commands in any_commands(60),
        query in any_query(),
        changes in any_changes_query(),
        rebuild_every in 1..20usize,
        capture_every in 1..20usize,
        raised_at in weighted(0.9, prop_oneof![Just(0), 0..60usize]),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
    ) {
        let (mut store, mut twin, mut model) = (Store::new(), Store::new(), Model::default());
        let mut captures = Vec::new();
        let mut known: BTreeMap<u128, String> = BTreeMap::new();
        for (number, command) in commands.iter().enumerate() {
            if raised_at == Some(number) {
                prop_assert!(store.raise_level(FeatureLevel::NEWEST) && twin.raise_level(FeatureLevel::NEWEST));
                model.date_answers();
            }
            let bytes = encoded(command);
            if command.check().is_err() {
                prop_assert!(Command::decode(Reader::new(bytes)).is_err());
                continue;
            }
            let decoded = Command::decode(Reader::new(bytes.clone())).unwrap();
            prop_assert_eq!(&decoded, command);
            let outcome = store.apply(TERM, command);
            prop_assert_eq!(&outcome, &model.apply(TERM, command), "{:?}", command);
            let mut written = Vec::new();
            outcome.encode(&mut written);
            prop_assert_eq!(Outcome::decode(written.into()), Ok(outcome.clone()));
            prop_assert_eq!(twin.apply(TERM, &decoded), outcome);
            prop_assert_eq!(store.state_hash(), twin.state_hash());
            // How much history there is room for, the store decides.
            let compacted = store.compacted().0;
            prop_assert!(compacted >= model.compacted);
            prop_assert!(compacted == model.compacted || model.settings.history_bytes < MUCH);
            model.compacted = compacted;
            let described = described(&model);
            prop_assert_eq!(known.entry(store.state_hash()).or_insert(described.clone()), &described);
            check(&store, &model, &query, &changes)?;
            if number % rebuild_every == 0 {
                let again = rebuilt(&store, &cuts);
                prop_assert_eq!(again.state_hash(), store.state_hash());
                prop_assert_eq!(again.history_bytes(), store.history_bytes());
                // What follows has to work on it as well.
                store = again;
                check(&store, &model, &query, &changes)?;
            }
            if number % capture_every == 0 {
                captures.push((store.clone(), store.state_hash(), model.clone()));
            }
        }
        for (captured, hash, model) in captures {
            prop_assert_eq!(captured.state_hash(), hash);
            check(&captured, &model, &query, &changes)?;
            prop_assert_eq!(rebuilt(&captured, &cuts).state_hash(), hash);
        }
    }
}
