//! A second opinion on histories: the checker against stateright's tester, on small ones.

use bytes::Bytes;
use infinitystore::history::{Action, Effort, Recorder, Verdict, check};
use proptest::prelude::{ProptestConfig, prop, prop_assert_eq, proptest};
use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

/// A step of a history: a client begins an operation, or its operation is answered.
#[derive(Clone, Debug)]
struct Step {
    client: usize,
    /// `Some(value)`: a write (0 deletes); `None`: a read.
    write: Option<u8>,
    /// What a read is answered, if it is a read.
    read: u8,
}

/// Both verdicts on the same history: ours, then stateright's. A client that has an operation under
/// way is answered; one that has none begins one. What is under way at the end is of unknown
/// outcome.
fn verdicts(steps: &[Step]) -> (bool, bool) {
    let mut recorder = Recorder::new();
    let mut tester = LinearizabilityTester::new(Register(0_u8));
    let mut waiting: [Option<(infinitystore::history::OperationId, bool)>; 3] = [None; 3];
    let value = |number: u8| Bytes::from(vec![number]);
    for (now, step) in steps.iter().enumerate() {
        let (client, now) = (step.client, now as u64 + 1);
        match waiting[client].take() {
            None => {
                let (action, op) = match step.write {
                    Some(0) => (Action::Delete, RegisterOp::Write(0)),
                    Some(written) => (Action::Set(value(written)), RegisterOp::Write(written)),
                    None => (Action::Get, RegisterOp::Read),
                };
                let id = recorder.call(client as u64, "key", action, now);
                tester.on_invoke(client, op).expect("one at a time");
                waiting[client] = Some((id, step.write.is_none()));
            }
            Some((id, true)) => {
                recorder.got(id, now, (step.read > 0).then(|| value(step.read)));
                tester.on_return(client, RegisterRet::ReadOk(step.read)).expect("it was invoked");
            }
            Some((id, false)) => {
                recorder.done(id, now);
                tester.on_return(client, RegisterRet::WriteOk).expect("it was invoked");
            }
        }
    }
    // A read without an answer says nothing.
    for (id, read) in waiting.into_iter().flatten() {
        if read {
            recorder.failed(id);
        }
    }
    let verdict = check(&recorder.into_operations(), Effort::default()).verdict;
    (matches!(verdict, Verdict::Linearizable), tester.is_consistent())
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::strategy::Strategy;
    let step = (0_usize..3, prop::option::of(0_u8..3), 0_u8..3).prop_map(|(client, write, read)| Step {
        client,
        write,
        read,
    });
    prop::collection::vec(step, 0..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn the_checker_agrees_with_another_one(steps in steps()) {
        let (ours, theirs) = verdicts(&steps);
        prop_assert_eq!(ours, theirs);
    }
}

/// `writes` one after the other, then a read that is answered `read`.
fn read_after(writes: &[u8], read: u8) -> Vec<Step> {
    let mut steps = Vec::new();
    for &written in writes {
        steps.extend((0..2).map(|_| Step { client: 0, write: Some(written), read: 0 }));
    }
    steps.extend((0..2).map(|_| Step { client: 1, write: None, read }));
    steps
}

#[test]
fn planted_violations_are_found_by_both() {
    let mut swapped = read_after(&[1], 0);
    swapped.truncate(1);
    swapped.extend(read_after(&[], 1));
    swapped.extend(read_after(&[], 0));
    for (what, steps) in [
        ("a stale read", read_after(&[1, 2], 1)),
        ("a lost write", read_after(&[1], 0)),
        ("a deleted value that comes back", read_after(&[1, 0], 1)),
        ("a value that nobody wrote", read_after(&[1], 2)),
        ("a value that was seen, then not", swapped),
    ] {
        assert_eq!(verdicts(&steps), (false, false), "{what}");
    }
    assert_eq!(verdicts(&read_after(&[1, 2], 2)), (true, true));
}
