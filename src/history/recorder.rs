//! Writing a history down while it happens.

use crate::history::operation::{Kind, Operation};
use alloc::vec::Vec;
use bytes::Bytes;

/// What a client is about to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Set the key to this value. Values that are never written twice make for a sharper and faster
    /// check.
    Set(Bytes),
    /// Remove the key.
    Delete,
    /// Read the key.
    Get,
}

/// An operation that was called in a [`Recorder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(usize);

/// Collects the operations of a run.
///
/// Call [`Recorder::call`] just before a request is sent, and one of the others when it has ended.
/// An operation that never ends has an unknown outcome. Clients on threads of their own may each
/// have a recorder, if they share a clock: see [`Recorder::merge`].
///
/// ```
/// use infinitystore::history::{Action, Effort, Recorder, Verdict, check};
///
/// let mut recorder = Recorder::new();
/// let set = recorder.call(1, "key", Action::Set("new".into()), 10);
/// let get = recorder.call(2, "key", Action::Get, 12);
/// recorder.got(get, 15, Some("new".into()));
/// recorder.done(set, 20);
/// let report = check(&recorder.into_operations(), Effort::default());
/// assert_eq!(report.verdict, Verdict::Linearizable);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    /// In the order of their calls; `None`: failed for sure.
    operations: Vec<Option<Operation>>,
}

impl Recorder {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client is about to send a request, at the time `call`.
    pub fn call(&mut self, client: u64, key: impl Into<Bytes>, action: Action, call: u64) -> OperationId {
        let kind = match action {
            Action::Set(value) => Kind::Set(value),
            Action::Delete => Kind::Delete,
            Action::Get => Kind::Get(None),
        };
        self.operations.push(Some(Operation {
            client,
            key: key.into(),
            kind,
            call,
            ret: None,
            revision: None,
        }));
        OperationId(self.operations.len() - 1)
    }

    /// A set or a delete was acknowledged.
    ///
    /// # Panics
    /// If it had ended before, or is a get.
    pub fn done(&mut self, id: OperationId, ret: u64) {
        let operation = self.end(id, ret);
        assert!(!matches!(operation.kind, Kind::Get(_)), "a get ends with what it got");
    }

    /// A set was acknowledged, and said which revision it made.
    ///
    /// # Panics
    /// If it had ended before, or is no set.
    pub fn done_at_revision(&mut self, id: OperationId, ret: u64, revision: u64) {
        let operation = self.end(id, ret);
        assert!(matches!(operation.kind, Kind::Set(_)), "only a set makes a revision of its own for sure");
        operation.revision = Some(revision);
    }

    /// A get was answered; `None`: the key does not exist.
    ///
    /// # Panics
    /// If it had ended before, or is no get.
    pub fn got(&mut self, id: OperationId, ret: u64, value: Option<Bytes>) {
        let operation = self.end(id, ret);
        assert!(matches!(operation.kind, Kind::Get(_)), "only a get gets something");
        operation.kind = Kind::Get(value);
    }

    /// A get was answered with a value and its mod_revision.
    ///
    /// # Panics
    /// If it had ended before, or is no get.
    pub fn got_at_revision(&mut self, id: OperationId, ret: u64, value: Bytes, revision: u64) {
        self.got(id, ret, Some(value));
        let operation = self.operations[id.0].as_mut().expect("it was ended just now, and not by failing");
        operation.revision = Some(revision);
    }

    /// The operation did not happen and never will: it is left out. Not for time-outs.
    ///
    /// # Panics
    /// If it had ended before.
    pub fn failed(&mut self, id: OperationId) {
        let operation = self.operations[id.0].take();
        assert!(operation.is_some_and(|operation| operation.ret.is_none()), "the operation had ended before");
    }

    /// Takes in the operations of another recorder, whose times are of the same clock. Ids of
    /// `other` lose their meaning.
    pub fn merge(&mut self, other: Self) {
        self.operations.extend(other.operations);
    }

    /// The history; what has not ended has an unknown outcome.
    #[must_use]
    pub fn into_operations(self) -> Vec<Operation> {
        self.operations.into_iter().flatten().collect()
    }

    fn end(&mut self, id: OperationId, ret: u64) -> &mut Operation {
        let operation = self.operations[id.0].as_mut().expect("the operation had not ended before");
        assert!(operation.ret.is_none(), "the operation had ended before");
        assert!(operation.call <= ret, "the clock of the history went back");
        operation.ret = Some(ret);
        operation
    }
}
