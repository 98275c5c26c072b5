use crate::madsim_engine::world::{Shared, View};
use crate::schedule::Schedule;
use infinitystore::raft::{LogId, LogIndex, Term};
use madsim::runtime::Runtime;

fn view(life: u32, first: u64, last: u64) -> View {
    let last_applied = LogId { term: Term::new(3), index: LogIndex::new(last) };
    let first_applied = Some(LogIndex::new(first));
    View { life, term: Term::new(3), first_applied, last_applied, ..View::default() }
}

#[test]
fn a_process_that_loads_its_data_is_not_held_to_what_an_earlier_one_had_applied() {
    // Requests are sent at a time.
    Runtime::new().block_on(async {
        let shared = Shared::new(Schedule::generate(1), false);
        let mut world = shared.lock();
        world.machines[0].view = view(1, 100, 233);
        let before = world.sent(0, 1);
        assert_eq!((before.applied, before.term), (233, 3));
        let sent = world.sent(0, 3);
        assert_eq!((sent.applied, sent.term, world.had_applied(&sent)), (0, 0, 0));
        // It begins with less than what the earlier one had.
        world.machines[0].view = view(3, 230, 231);
        assert_eq!(world.had_applied(&sent), 230, "nobody is answered before that");
        let after = world.sent(0, 3);
        assert_eq!((after.applied, world.had_applied(&after)), (231, 231));
        assert_eq!(world.had_applied(&before), 233, "that process is gone");
    });
}
