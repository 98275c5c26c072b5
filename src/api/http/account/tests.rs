use crate::api::http::account::{Accounts, Resource};
use crate::raft::Time;
use crate::runtime::door::Caller;
use std::num::NonZeroU32;
use std::sync::Arc;

const SECOND: u64 = 1_000_000;

#[test]
fn an_account_is_forgotten_when_nobody_uses_it_and_its_bucket_is_full() {
    let mut accounts = Accounts::default();
    let caller = Caller::of("[2001:db8:1:1::1]:1");
    let rate = NonZeroU32::new(2).expect("two");
    let account = accounts.of(&caller);
    assert!(Arc::ptr_eq(&account, &accounts.of(&caller)));
    assert!(account.take_request(Time::new(SECOND), rate).is_ok());
    drop(account);
    accounts.forget_unused(Time::new(SECOND));
    assert_eq!((accounts.by_caller.len(), accounts.by_site.len()), (1, 1), "a caller that calls again");
    let account = accounts.of(&caller);
    accounts.forget_unused(Time::new(10 * SECOND));
    assert!(Arc::ptr_eq(&account, &accounts.of(&caller)));
    drop(account);
    accounts.forget_unused(Time::new(10 * SECOND));
    // The site's account is one that its callers' accounts use.
    accounts.forget_unused(Time::new(10 * SECOND));
    assert_eq!((accounts.by_caller.len(), accounts.by_site.len()), (0, 0));
}

/// A host with a site has 65,536 networks of its own.
#[test]
fn the_networks_of_a_site_share_its_bucket_and_its_bytes() {
    let mut accounts = Accounts::default();
    let rate = NonZeroU32::new(1).expect("one");
    let now = Time::new(SECOND);
    let of = |accounts: &mut Accounts, network: u32| {
        accounts.of(&Caller::of(&format!("[2001:db8:1:{network:x}::1]:1")))
    };
    let at_once = (0..100).filter(|network| of(&mut accounts, *network).take_request(now, rate) == Ok(now));
    assert_eq!(at_once.count(), 4);
    let other = accounts.of(&Caller::of("[2001:db8:2:1::1]:1"));
    assert_eq!(other.take_request(now, rate), Ok(now), "another site");
    let (one, another) = (of(&mut accounts, 1), of(&mut accounts, 2));
    let (of, other) = (Resource::Memory, Resource::Questions);
    assert_eq!([one.add(of, 10), another.add(of, 5), one.add(of, 1)], [0, 10, 15]);
    assert_eq!([one.add(other, 7), another.add(other, 1)], [0, 7], "of each budget by itself");
    one.take_off(of, 11);
    assert_eq!(another.add(of, 1), 5);
}
