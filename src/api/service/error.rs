//! What can go wrong, with a code that stays.

use crate::kv::{BadCommand, Denial, KeyValue, ReadError, Refusal, Revision, SecurityRefusal};
use crate::node::{OrderCode, OrderError};
use crate::replica::ClientError;
use std::fmt;

/// Whether a write that failed has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// It has not, and will not.
    NotApplied,
    /// Nobody knows.
    Unknown,
}

impl WriteOutcome {
    /// Its name in answers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NotApplied => "not-applied",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceError {
    pub(crate) code: ErrorCode,
    /// What was wrong and what to do, in words.
    pub(crate) detail: String,
    /// What is known of the write; `None` for a read.
    pub(crate) outcome: Option<WriteOutcome>,
    /// What stands in the way, where a condition failed: the key as it is.
    pub(crate) present: Option<Box<KeyValue>>,
    /// The revision that the code is about: the first one that is there, the newest one, the
    /// store's when a condition failed.
    pub(crate) revision: Option<Revision>,
    /// The configuration as it is, where another one was expected.
    pub(crate) configuration: Option<u64>,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// What is wrong. The names stay what they are: programs look at them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum ErrorCode { $($(#[$doc])* $variant,)+ }

        impl ErrorCode {
            /// All of them.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name in answers.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

codes! {
    EmptyKey = "empty-key",
    KeyTooLarge = "key-too-large",
    ValueTooLarge = "value-too-large",
    CommandTooLarge = "command-too-large",
    EmptyRange = "empty-range",
    RevisionTooLarge = "revision-too-large",
    TooManySteps = "too-many-steps",
    TooDeep = "too-deep",
    PutTwice = "put-twice",
    PutIntoDeleted = "put-into-deleted",
    BadIdempotencyKey = "bad-idempotency-key",
    BadIdempotencySince = "bad-idempotency-since",
    IdempotencyKeyReused = "idempotency-key-reused",
    /// The command may have been done before, and the answer to it is forgotten.
    AnswerForgotten = "answer-forgotten",
    QuotaExceeded = "quota-exceeded",
    DiskFull = "disk-full",
    NoLease = "no-lease",
    LeaseExists = "lease-exists",
    Compacted = "compacted",
    FutureRevision = "future-revision",
    TooManyChanges = "too-many-changes",
    NotANumber = "not-a-number",
    Overflow = "overflow",
    ConditionFailed = "condition-failed",
    BadName = "bad-name",
    /// Another one holds the lock, or leads.
    Held = "held",
    /// The lease of the call holds nothing here.
    NotHolder = "not-holder",
    NoLeader = "no-leader",
    Overloaded = "overloaded",
    Stopping = "stopping",
    Removed = "removed",
    Joining = "joining",
    Starting = "starting",
    Refused = "refused",
    Stale = "stale",
    NoQuorum = "no-quorum",
    /// An order about the members makes no sense, whatever the members are.
    BadOrder = "bad-order",
    /// The node at that address has another name.
    WrongName = "wrong-name",
    /// A member that answers has that name.
    NameTaken = "name-taken",
    /// The node to add has data of its own, or is a member elsewhere.
    NodeHasData = "node-has-data",
    /// Nothing answers at the address of the node to add.
    NodeUnreachable = "node-unreachable",
    NoMember = "no-member",
    NoAlarm = "no-alarm",
    /// A member's id is another one's name.
    AmbiguousMember = "ambiguous-member",
    /// A change makes no sense for these members.
    BadChange = "bad-change",
    /// Another change of the members is under way.
    ChangePending = "change-pending",
    /// The members that answer would be no quorum of those that remain.
    WouldLoseQuorum = "would-lose-quorum",
    /// The member is no voter, does not answer, or lacks too much.
    CannotLead = "cannot-lead",
    OutcomeUnknown = "outcome-unknown",
    /// There are no credentials, or they are wrong, or count no more.
    Unauthenticated = "unauthenticated",
    /// The caller may not do this.
    Forbidden = "forbidden",
    /// Too many wrong credentials came from the address.
    TooManyAttempts = "too-many-attempts",
    BadPassword = "bad-password",
    NoUser = "no-user",
    UserExists = "user-exists",
    NoRole = "no-role",
    RoleExists = "role-exists",
    NoToken = "no-token",
    TokenExists = "token-exists",
    NoGrant = "no-grant",
    /// Nobody could administer the cluster any more.
    WouldLockOut = "would-lock-out",
    /// Nobody could administer the cluster, if authentication were enabled now.
    NoAdministrator = "no-administrator",
    BuiltIn = "built-in",
    SecurityFull = "security-full",
}

impl ServiceError {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            outcome: None,
            present: None,
            revision: None,
            configuration: None,
        }
    }

    /// This node stops.
    pub(crate) fn stopping() -> Self {
        Self::of_client(&ClientError::Stopping, false)
    }

    /// Marks an error of a write that changed nothing.
    #[must_use]
    pub(crate) fn not_applied(mut self) -> Self {
        self.outcome = Some(WriteOutcome::NotApplied);
        self
    }

    /// Of a write that may have happened, or may still happen.
    #[must_use]
    pub(crate) fn of_unknown_outcome(mut self) -> Self {
        self.outcome = Some(WriteOutcome::Unknown);
        self
    }

    /// Whether another node may be able to do the same, and a client asks it: the fault is not the
    /// request's own, and the cluster has decided nothing.
    pub(crate) const fn is_of_the_node(&self) -> bool {
        matches!(
            self.code,
            ErrorCode::NoLeader
                | ErrorCode::NoQuorum
                | ErrorCode::Overloaded
                | ErrorCode::DiskFull
                | ErrorCode::Stopping
                | ErrorCode::Removed
                | ErrorCode::Joining
                | ErrorCode::Starting
                | ErrorCode::Refused
                | ErrorCode::Stale
                | ErrorCode::OutcomeUnknown
        )
    }

    /// Whether the same may succeed soon, on this node.
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(self.code, ErrorCode::NoLeader | ErrorCode::NoQuorum | ErrorCode::Overloaded)
    }

    #[must_use]
    pub(crate) fn about(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }

    /// Of a request that the replica did not carry out. Of a read there is no outcome.
    pub(crate) fn of_client(error: &ClientError, is_write: bool) -> Self {
        let (code, remedy) = match error {
            ClientError::NoLeader | ClientError::NotLeader(_) => {
                (ErrorCode::NoLeader, "no majority of the nodes can be reached; try again soon")
            }
            ClientError::Overloaded => (ErrorCode::Overloaded, ""),
            ClientError::DiskFull => (ErrorCode::DiskFull, "make room on it"),
            ClientError::Stopping => (ErrorCode::Stopping, ""),
            ClientError::Removed => (ErrorCode::Removed, ""),
            ClientError::Reserved => (ErrorCode::Joining, "try again soon"),
            ClientError::Founding => (ErrorCode::Joining, ""),
            ClientError::Starting => (ErrorCode::Starting, ""),
            ClientError::Stale => (ErrorCode::Stale, ""),
            ClientError::Refused(_) => (ErrorCode::Refused, ""),
            ClientError::BadCommand(bad) => return bad.clone().into(),
            ClientError::CommandTooLarge { .. } => {
                (ErrorCode::CommandTooLarge, "change less with one command, or use smaller keys and values")
            }
            ClientError::Unknown => (
                ErrorCode::OutcomeUnknown,
                "read before writing again, or send it again with the same Idempotency-Key",
            ),
            ClientError::NoQuorum => (ErrorCode::NoQuorum, "try again, or read with level=local"),
            ClientError::Denied(denial) => (code_of(*denial), ""),
            // Of orders about the members; those come as `OrderError`.
            ClientError::ChangePending => (ErrorCode::ChangePending, ""),
            ClientError::OtherMembership(_) => (ErrorCode::ConditionFailed, ""),
            ClientError::QuorumAtRisk(_) => (ErrorCode::WouldLoseQuorum, ""),
            ClientError::BadChange(_) => (ErrorCode::BadChange, ""),
            ClientError::CannotLead => (ErrorCode::CannotLead, ""),
            ClientError::AnotherLeads(_) => (ErrorCode::CannotLead, "see who leads, and order it again"),
            ClientError::NotHandedOver => (ErrorCode::OutcomeUnknown, "see who leads"),
        };
        let detail = if remedy.is_empty() { error.to_string() } else { format!("{error}; {remedy}") };
        let outcome = is_write.then_some(match error {
            ClientError::Unknown | ClientError::NotHandedOver => WriteOutcome::Unknown,
            _ => WriteOutcome::NotApplied,
        });
        Self { outcome, ..Self::new(code, detail) }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl From<OrderError> for ServiceError {
    fn from(error: OrderError) -> Self {
        let code = match error.code {
            OrderCode::NoLeader => ErrorCode::NoLeader,
            OrderCode::BadRequest => ErrorCode::BadOrder,
            OrderCode::WrongName => ErrorCode::WrongName,
            OrderCode::NameTaken => ErrorCode::NameTaken,
            OrderCode::NodeHasData => ErrorCode::NodeHasData,
            OrderCode::NodeUnreachable => ErrorCode::NodeUnreachable,
            OrderCode::NoMember => ErrorCode::NoMember,
            OrderCode::Ambiguous => ErrorCode::AmbiguousMember,
            OrderCode::BadChange => ErrorCode::BadChange,
            OrderCode::ChangePending => ErrorCode::ChangePending,
            OrderCode::OtherMembership => ErrorCode::ConditionFailed,
            OrderCode::WouldLoseQuorum => ErrorCode::WouldLoseQuorum,
            OrderCode::CannotLead => ErrorCode::CannotLead,
            OrderCode::Unavailable => ErrorCode::Refused,
            OrderCode::Unknown => ErrorCode::OutcomeUnknown,
            OrderCode::Overloaded => ErrorCode::Overloaded,
            OrderCode::DiskFull => ErrorCode::DiskFull,
        };
        let outcome = match error.code {
            OrderCode::Unknown => WriteOutcome::Unknown,
            _ => WriteOutcome::NotApplied,
        };
        let configuration = error.configuration;
        Self { outcome: Some(outcome), configuration, ..Self::new(code, error.detail) }
    }
}

impl From<BadCommand> for ServiceError {
    fn from(bad: BadCommand) -> Self {
        let code = match bad {
            BadCommand::EmptyKey => ErrorCode::EmptyKey,
            BadCommand::LongKey(_) => ErrorCode::KeyTooLarge,
            BadCommand::LongValue(_) => ErrorCode::ValueTooLarge,
            BadCommand::Long(_) => ErrorCode::CommandTooLarge,
            BadCommand::EmptyRange => ErrorCode::EmptyRange,
            BadCommand::ManySteps(_) => ErrorCode::TooManySteps,
            BadCommand::Deep => ErrorCode::TooDeep,
            BadCommand::PutTwice => ErrorCode::PutTwice,
            BadCommand::PutIntoDeleted => ErrorCode::PutIntoDeleted,
            BadCommand::IdempotencyKey => ErrorCode::BadIdempotencyKey,
            BadCommand::Since => ErrorCode::BadIdempotencySince,
            BadCommand::SecurityName => ErrorCode::BadName,
            BadCommand::LongList(_) => ErrorCode::SecurityFull,
            BadCommand::PasswordHash => ErrorCode::BadPassword,
        };
        Self::new(code, bad.to_string()).not_applied()
    }
}

impl From<Refusal> for ServiceError {
    fn from(refusal: Refusal) -> Self {
        let (code, revision) = match refusal.clone() {
            Refusal::Quota { .. } => (ErrorCode::QuotaExceeded, None),
            Refusal::NoLease(_) => (ErrorCode::NoLease, None),
            Refusal::LeaseExists(_) => (ErrorCode::LeaseExists, None),
            Refusal::Compacted(oldest) => (ErrorCode::Compacted, Some(oldest)),
            Refusal::Future(newest) => (ErrorCode::FutureRevision, Some(newest)),
            Refusal::TooManyChanges { .. } => (ErrorCode::TooManyChanges, None),
            Refusal::TooManyLeases { .. } => (ErrorCode::QuotaExceeded, None),
            Refusal::NotANumber => (ErrorCode::NotANumber, None),
            Refusal::Overflow => (ErrorCode::Overflow, None),
            Refusal::KeyReused => (ErrorCode::IdempotencyKeyReused, None),
            Refusal::AnswerForgotten(why) => (ErrorCode::AnswerForgotten, Some(why.through)),
            Refusal::Denied { denial, .. } => (code_of(denial), None),
            Refusal::Security(refusal) => (code_of_refusal(refusal), None),
        };
        let mut error = Self::new(code, refusal.to_string()).not_applied();
        if let Refusal::Denied { maybe_done: true, .. } | Refusal::AnswerForgotten(_) = refusal {
            // What came under this name before may be the same, and have been done.
            error.outcome = Some(WriteOutcome::Unknown);
        }
        Self { revision, ..error }
    }
}

fn code_of(denial: Denial) -> ErrorCode {
    match denial {
        Denial::NoCredentials | Denial::Ended => ErrorCode::Unauthenticated,
        Denial::MayNotRead | Denial::MayNotWrite | Denial::AnothersLease | Denial::MayNotAdminister(_) => {
            ErrorCode::Forbidden
        }
    }
}

const fn code_of_refusal(refusal: SecurityRefusal) -> ErrorCode {
    match refusal {
        SecurityRefusal::NoUser => ErrorCode::NoUser,
        SecurityRefusal::UserExists => ErrorCode::UserExists,
        SecurityRefusal::NoRole => ErrorCode::NoRole,
        SecurityRefusal::RoleExists => ErrorCode::RoleExists,
        SecurityRefusal::NoToken => ErrorCode::NoToken,
        SecurityRefusal::TokenExists => ErrorCode::TokenExists,
        SecurityRefusal::NoGrant => ErrorCode::NoGrant,
        SecurityRefusal::WouldLockOut => ErrorCode::WouldLockOut,
        SecurityRefusal::NoAdministrator => ErrorCode::NoAdministrator,
        SecurityRefusal::BuiltIn => ErrorCode::BuiltIn,
        SecurityRefusal::Full => ErrorCode::SecurityFull,
    }
}

impl From<Denial> for ServiceError {
    fn from(denial: Denial) -> Self {
        Self::new(code_of(denial), denial.to_string())
    }
}

impl From<ReadError> for ServiceError {
    fn from(error: ReadError) -> Self {
        let (code, revision) = match error {
            ReadError::Compacted(oldest) => (ErrorCode::Compacted, oldest),
            ReadError::Future(newest) => (ErrorCode::FutureRevision, newest),
        };
        Self::new(code, error.to_string()).about(revision)
    }
}
