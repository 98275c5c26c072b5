use crate::raft::Time;
use crate::runtime::door::{Caller, Episode, Full, Places};

#[test]
fn one_caller_cannot_take_all_places() {
    let mut places = Places::new(160, 100);
    let (greedy, modest) = (Caller::of("10.0.0.1:1"), Caller::of("10.0.0.2:1"));
    let taken = (0..1000).take_while(|_| places.take(&greedy).is_ok()).count();
    assert_eq!((taken, places.take(&greedy)), (100, Err(Full::Address)));
    // Many callers together can take all but the reserve. A caller with few still gets in.
    let crowd = Caller::of("10.0.0.3:1");
    let taken = (0..1000).take_while(|_| places.take(&crowd).is_ok()).count();
    assert_eq!((taken, places.take(&crowd)), (50, Err(Full::All)));
    assert_eq!((places.missing(&crowd), places.missing(&modest)), (1, 0));
    assert_eq!(places.take(&modest), Ok(()));
    assert_eq!((places.missing(&crowd), places.missing(&modest)), (2, 0));
    assert!(places.is_low());
    places.give_back(&modest);
    places.give_back(&greedy);
    assert_eq!((places.taken(), places.take(&greedy)), (149, Ok(())));
}

/// A site has 65,536 networks of the kind that one host gets.
#[test]
fn one_site_of_ipv6_cannot_take_all_places() {
    let mut places = Places::new(160, 100);
    let host = |number: usize| Caller::of(&format!("[2001:db8:1:{number:x}::1]:1"));
    let taken = (0..1000).take_while(|number| places.take(&host(*number)).is_ok()).count();
    assert_eq!((taken, places.take(&host(2000))), (100, Err(Full::Address)));
    assert_eq!(places.take(&Caller::of("[2001:db8:2:1::1]:1")), Ok(()));
    places.give_back(&host(7));
    assert_eq!(places.take(&host(2000)), Ok(()));
}

#[test]
fn the_busiest_is_the_caller_or_the_site_that_has_most() {
    let mut places = Places::new(160, 100);
    assert_eq!(places.busiest(), None);
    let host = Caller::of("10.0.0.1:1");
    let networks = [1, 2, 3].map(|number| Caller::of(&format!("[2001:db8:1:{number:x}::1]:1")));
    for caller in networks.iter().chain([&host, &host]) {
        assert_eq!(places.take(caller), Ok(()));
    }
    assert_eq!(places.busiest(), Some((&networks[0].group(), 3)));
    assert_eq!((places.of(&networks[2]), places.of(&host)), (3, 2));
    networks.iter().take(2).for_each(|caller| places.give_back(caller));
    assert_eq!(places.busiest(), Some((&host, 2)));
}

#[test]
fn a_caller_is_an_address_or_a_network_and_never_a_port() {
    let same = |one: &str, other: &str| assert_eq!(Caller::of(one), Caller::of(other));
    same("10.0.0.1:1", "10.0.0.1:2");
    same("10.0.0.1:1", "[::ffff:10.0.0.1]:2");
    same("[2001:db8::1]:1", "[2001:db8::ffff]:2");
    same("node-1:1", "node-1:2");
    for (one, other) in
        [("10.0.0.1:1", "10.0.0.2:1"), ("[2001:db8::1]:1", "[2001:db8:0:1::1]:1"), ("a:1", "b:1")]
    {
        assert_ne!(Caller::of(one), Caller::of(other));
    }
}

#[test]
fn an_episode_is_said_at_its_beginning_and_its_end() {
    let mut episode = Episode::default();
    let at = |seconds: u64| Time::new(seconds * 1_000_000);
    assert_eq!(episode.ended(at(100)), None);
    assert_eq!([episode.failed(at(100)), episode.failed(at(101))], [true, false]);
    assert_eq!((episode.ended(at(102)), episode.failed(at(103))), (None, false), "one success is no end");
    assert_eq!((episode.ended(at(113)), episode.ended(at(114))), (Some(3), None));
    assert!(episode.failed(at(115)));
}
