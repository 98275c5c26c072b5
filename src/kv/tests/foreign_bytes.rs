//! Bytes from outside: they are read as what they are, or refused.

use crate::codec::Reader;
use crate::kv::tests::kit::{any_commands, any_op};
use crate::kv::{Command, Outcome, Store, StoreReader};
use alloc::vec::Vec;
use proptest::collection::vec as any_vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
use proptest::sample::Index;

fn encoded(command: &Command) -> Vec<u8> {
    let mut bytes = Vec::new();
    command.encode(&mut bytes);
    bytes
}

fn body(store: &Store) -> Vec<u8> {
    store.snapshot_pieces().flatten().collect()
}

fn read(body: &[u8]) -> Option<Store> {
    let mut reader = StoreReader::new();
    reader.push(body).ok()?;
    reader.finish().ok()
}

/// What may happen to bytes: some are others, some are missing, some are there twice.
#[derive(Clone, Debug)]
enum Damage {
    Byte(Index, u8),
    Word(Index, u64),
    Cut(Index),
    Missing(Index, usize),
    Twice(Index, usize),
}

fn any_damage() -> impl Strategy<Value = Vec<Damage>> {
    let number = proptest::prop_oneof![0..4u64, any::<u64>(), (0..64u32).prop_map(|bit| 1 << bit)];
    let one = proptest::prop_oneof![
        4 => any::<(Index, u8)>().prop_map(|(at, byte)| Damage::Byte(at, byte)),
        2 => (any::<Index>(), number).prop_map(|(at, word)| Damage::Word(at, word)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => (any::<Index>(), 1..100usize).prop_map(|(at, length)| Damage::Missing(at, length)),
        1 => (any::<Index>(), 1..100usize).prop_map(|(at, length)| Damage::Twice(at, length)),
    ];
    any_vec(one, 1..5)
}

fn damaged(bytes: &[u8], damage: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for one in damage {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        match one {
            Damage::Byte(at, byte) => bytes[at.index(length)] = *byte,
            Damage::Word(at, word) => {
                let at = at.index(length);
                for (to, from) in bytes[at..].iter_mut().zip(word.to_le_bytes()) {
                    *to = from;
                }
            }
            Damage::Cut(at) => bytes.truncate(at.index(length)),
            Damage::Missing(at, count) => {
                let at = at.index(length);
                bytes.drain(at..length.min(at + count));
            }
            Damage::Twice(at, count) => {
                let at = at.index(length);
                let part = bytes[at..length.min(at + count)].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

proptest! {
    #[test]
    fn damaged_commands_are_refused_or_have_no_other_encoding(op in any_op(), damage in any_damage()) {
        let bytes = damaged(&encoded(&op.into()), &damage);
        if let Ok(command) = Command::decode(Reader::new(bytes.clone().into())) {
            prop_assert_eq!(command.check(), Ok(()));
            prop_assert_eq!(encoded(&command), bytes);
            // Whatever it is, it can be applied.
            Store::new().apply(1, &command);
        }
    }

    #[test]
    fn damaged_outcomes_never_panic(commands in any_commands(10), damage in any_damage()) {
        let mut store = Store::new();
        for command in commands {
            let outcome = store.apply(1, &command);
            let mut bytes = Vec::new();
            outcome.encode(&mut bytes);
            prop_assert_eq!(Outcome::decode(bytes.clone().into()), Ok(outcome));
            let _ = Outcome::decode(damaged(&bytes, &damage).into());
        }
    }

    #[test]
    fn a_snapshot_whose_bytes_were_changed_is_refused(
        commands in any_commands(40),
        damages in any_vec(any_damage(), 1..40),
    ) {
        let mut store = Store::new();
        commands.iter().filter(|command| command.check().is_ok()).for_each(|command| {
            store.apply(1, command);
        });
        let good = body(&store);
        prop_assert_eq!(read(&good).map(|again| body(&again)), Some(good.clone()));
        for damage in damages {
            let bad = damaged(&good, &damage);
            prop_assert!(read(&bad).is_none() || bad == good, "{:?}", damage);
        }
    }
}
