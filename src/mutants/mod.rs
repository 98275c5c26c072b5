//! Classic bugs, one of which may be planted at a time, to measure what the simulator finds.
//!
//! Every place where one can be planted asks [`planted`], which is `false` for the compiler unless the feature `mutants` is on:
//! a normal build holds nothing of it. `sim mutants` builds itself with the feature, plants one after the other, and looks how
//! many seeds it takes until a check sees it. `docs/simulation.md` has the table.

#[cfg(feature = "mutants")]
use core::sync::atomic::{AtomicUsize, Ordering};

/// Declares the enumeration and what is known of each in one place, so that neither can be forgotten.
macro_rules! mutants {
    ($($variant:ident $name:literal $what:literal;)+) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(not(feature = "mutants"), expect(unreachable_pub, reason = "public with the feature only"))]
        #[cfg_attr(
            not(any(feature = "mutants", feature = "server")),
            expect(dead_code, reason = "some are in the log, which is not part of this build")
        )]
        pub enum Mutant {
            $(#[doc = $what] $variant,)+
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name, for the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What is wrong with it.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$variant => $what,)+ }
            }
        }
    };
}

mutants! {
    VoteBeforeDurable "vote-before-durable" "a vote is granted before it is durable";
    RepeatedGrant "repeated-grant" "a repeated grant is sent before the first is durable";
    RequestBeforeDurable "request-before-durable" "votes are asked for before term and own vote are durable";
    OwnVoteBeforeDurable "own-vote-before-durable" "a candidate counts its own vote before it is durable";
    VoteWithoutLog "vote-without-log" "votes are granted without comparing logs";
    IndexBeforeTerm "index-before-term" "logs are compared by last index before last term";
    VoteCleared "vote-cleared" "the vote is forgotten without a new term when a candidate gives up";
    SecondVote "second-vote" "who asks for pre-votes grants a vote whomever it has voted for";
    PreVoteCounted "pre-vote-counted" "a late grant of a pre-vote counts as a vote";
    LearnerRefusesVote "learner-refuses-vote" "who does not know yet that it is a voter refuses to vote";
    NoCheckQuorum "no-check-quorum" "a leader that hears no majority leads on";
    LeavingVoterIdle "leaving-voter-idle" "a voter whose removal is not committed does not stand for election";
    HalfIsMajority "half-is-majority" "half of an even number of voters is taken for a majority";
    PriorTermCommit "prior-term-commit" "entries of an earlier term are committed by counting (Raft figure 8)";
    LeaderUnsynced "leader-unsynced" "the leader counts its own entries before they are durable";
    LearnerCounted "learner-counted" "learners count for commitment";
    UncommittedKept "uncommitted-kept" "the leader does not take committed entries off what it owes";
    CommitUnclamped "commit-unclamped" "a follower takes over the commit index beyond what the append matched";
    AppliedBeforeCommit "applied-before-commit" "entries are applied before they are committed";
    EntrySkipped "entry-skipped" "a follower leaves out the first of several entries that are committed at once";
    LeaderTruncates "leader-truncates" "a leader truncates its own log where a follower rejects an append";
    AppendBeforeFsync "append-before-fsync" "an append is acknowledged before it is durable";
    OwnLastAcknowledged "own-last-acknowledged" "a follower acknowledges its own last index instead of the append's";
    MatchFromHint "match-from-hint" "the match index is set from the hint of a rejection";
    LateAnswer "late-answer" "answers to appends of an earlier term and session are counted";
    StaleAppend "stale-append" "the append of a leader of an earlier term is accepted";
    TruncateAlways "truncate-always" "every append truncates what follows it";
    NoTruncation "no-truncation" "conflicting entries are kept";
    PrevTermUnchecked "prev-term-unchecked" "an append is accepted without comparing the term of the entry before it";
    LateReceipt "late-receipt" "a receipt vouches for entries that were truncated while it was on its way";
    EntriesBeforeTerm "entries-before-term" "entries are durable one write before the term they belong to";
    PromotedEarly "promoted-early" "a learner that was heard of is promoted, whatever it has";
    MemberIdReused "member-id-reused" "a new member gets the id after the highest, which one may have had before";
    TwoChanges "two-changes" "a change of membership begins while another's joint state is not committed";
    EarlyChange "early-change" "a new leader goes on with changes before it has committed in its term";
    JointSkipped "joint-skipped" "the voters are exchanged at once, without a joint state";
    JointLeftEarly "joint-left-early" "the joint state is left before it is committed";
    UnionMajority "union-majority" "in the joint state a majority of the union decides";
    NoRollback "no-rollback" "a truncated configuration stays in force";
    StaleSnapshotMembership "stale-snapshot-membership" "a snapshot holds the membership of an earlier snapshot";
    SnapshotKeepsTail "snapshot-keeps-tail" "an installed snapshot keeps a log that contradicts it";
    NoSnapshotSent "no-snapshot-sent" "a leader whose log is compacted keeps probing instead of sending a snapshot";
    ShortChunkIsLast "short-chunk-is-last" "the last chunk of a snapshot is taken to be a short one";
    SavingForEver "saving-for-ever" "after a snapshot that failed no other is taken";
    TransferForEver "transfer-for-ever" "a transfer of leadership that fails does not end";
    ReadWithoutRound "read-without-round" "reads are answered without a round of heartbeats";
    RoundReused "round-reused" "rounds of reads are all numbered alike";
    StaleRejectionConfirms "stale-rejection-confirms" "who refuses an append of an earlier term confirms a round of the present one";
    LateReadJoins "late-read-joins" "a read joins a round that was sent before it came";
    ReadBeforeOwnCommit "read-before-own-commit" "a leader answers reads before it has committed in its term";
    UnmatchedReadAnswer "unmatched-read-answer" "the answer to an earlier question for a read index confirms later reads";
    ReadBeforeApplied "read-before-applied" "a confirmed read does not wait until its index is applied";
    AppliedTwice "applied-twice" "after a restart the last entry of the snapshot is applied again";
    ForwardAppliedTwice "forward-applied-twice" "a forwarded write that comes twice is proposed twice";
    RetriedUnproven "retried-unproven" "writes of the present term are proposed again as if they were lost";
    RetriedAfterSnapshot "retried-after-snapshot" "writes that an installed snapshot may contain are proposed again";
    ForwardRefusedLate "forward-refused-late" "a late copy of a forward is refused although the first may have been proposed";
    LevelIgnored "level-ignored" "a read that asks to be linearizable by name is answered locally";
    UnknownDenied "unknown-denied" "a client is told that a write of unknown outcome did not happen";
    ExitDenies "exit-denies" "a node that ends tells waiting clients that their writes did not happen";
    StorageErrorIgnored "storage-error-ignored" "the log's thread goes on after an error";
    TimerNotMoved "timer-not-moved" "an earlier deadline does not move the driver's timer";
    OldAddress "old-address" "the address in the membership is taken for newer than the one that a peer says it has";
    ReservedReads "reserved-reads" "a node that is about to join another cluster answers reads";
    FrameUnchecked "frame-unchecked" "frames are accepted whatever their checksum";
    BatchNotSynced "batch-not-synced" "batches of the log are not synced";
    FailedSyncRetried "failed-sync-retried" "a failed fsync is tried again, and believed";
    SegmentNotSynced "segment-not-synced" "a segment gets its name before its header is synced";
    DirectoryNotSynced "directory-not-synced" "new segments' names are not synced";
    SnapshotNameNotSynced "snapshot-name-not-synced" "new snapshots' names are not synced";
    MarkerBeforeSnapshot "marker-before-snapshot" "a snapshot is marked before it is synced";
    SegmentBeforeMarker "segment-before-marker" "segments are removed before the marker of their snapshot is durable";
    LogCutAtNewest "log-cut-at-newest" "segments are removed through the newest snapshot, not the one before it";
    TailNotSynced "tail-not-synced" "the tail of the log is trusted at a start without being synced";
    SegmentWithoutVote "segment-without-vote" "a new segment's header lacks term and vote";
    TornIsDamage "torn-is-damage" "a torn tail is taken for damage";
    DamageIsTorn "damage-is-torn" "damage is taken for a torn tail";
    AllMustCommit "all-must-commit" "an entry is committed only when every voter has it";
    NewLeaderIdle "new-leader-idle" "a new leader takes no writes for five seconds";
    TransferUntold "transfer-untold" "the target of a transfer of leadership is not told";
    LostNotResent "lost-not-resent" "writes that are proven lost are not sent again";
    PreVoteSkipped "pre-vote-skipped" "who hears no leader stands for election without asking first";
    StickinessSkipped "stickiness-skipped" "who hears a leader grants pre-votes, and votes";
    TimeoutsTenfold "timeouts-tenfold" "election timeouts are ten times as long";
    HeartbeatsRare "heartbeats-rare" "heartbeats come five times too seldom";
    FollowerReadsRefused "follower-reads-refused" "a leader refuses the questions of followers for a read index";
    RefusedWritesDropped "refused-writes-dropped" "writes that another node refused, since it does not lead, are not sent again";
    CommitUntold "commit-untold" "followers hear of commits with the next heartbeat";
    ResentForEver "resent-for-ever" "every heartbeat carries the last entry again";
    HeartbeatsDoubled "heartbeats-doubled" "heartbeats come twice as often";
    OverloadedEarly "overloaded-early" "a leader refuses writes as soon as one waits";
    WipedKeepsId "wiped-keeps-id" "a member that lost its disk comes back under the same id";
    HeardOnce "b-heard-once" "a follower remembers when it first heard its leader, not when it last did";
    TransferUnsaid "b-transfer-unsaid" "who stands for election because the leader asked for it does not say so";
    JointAsksIncoming "b-joint-asks-incoming" "in the joint state a candidate asks the incoming voters only";
    CampaignWhileInstalling "b-campaign-while-installing" "a node stands for election while a snapshot is about to replace its log";
    InflightBytesKept "b-inflight-bytes-kept" "acknowledged appends are not taken off the bytes in flight to a peer";
    HeartbeatNamesMatch "b-heartbeat-names-match" "a heartbeat names the last entry acknowledged, not the last one sent";
    RoundToldOnce "b-round-told-once" "a round of reads is told to each peer once, however often the message is lost";
    DeposedReadsLost "b-deposed-reads-lost" "a leader that steps down forgets the reads whose round was sent";
    QuestionPauseMillis "b-question-pause-millis" "after a refused question for a read index the next waits a thousand times too long";
    ReadIndexApplied "b-read-index-applied" "the read index is what the leader has applied, not what is committed";
    RemovedUntold "b-removed-untold" "a removed member is dropped as soon as its removal is committed, before it hears so";
    TransferToLearner "b-transfer-to-learner" "leadership is handed to learners too, which cannot take it";
    MembershipAtBoundary "b-membership-at-boundary" "the membership at an index leaves out the one that stands at that very index";
    MembershipDropped "b-membership-dropped" "compaction drops the membership in force where the log begins, if a later one follows";
    CommittedAtBoundary "b-committed-at-boundary" "a membership that is the last entry committed is reported as not committed";
    TransferNeverRewinds "b-snapshot-never-rewinds" "a snapshot that is being sent never goes back to a chunk that its receiver lacks";
    LaggardUncapped "b-laggard-uncapped" "what a laggard needs is kept in memory without a bound";
    WantedOnce "b-wanted-once" "a leader asks once for a snapshot that a peer needs, and never again";
    StallFromNewest "b-stall-from-newest" "whether the disk has stalled is judged by the newest write, not the oldest";
    UnsyncedKept "b-unsynced-kept" "a receipt for several writes takes the bytes of the last one only off what the disk owes";
    LeaderlessNextTerm "b-leaderless-next-term" "after a refusal nothing is forwarded to the leader of the next term either";
    SentNeverExpire "b-sent-never-expire" "once a write has expired, the deadlines of those sent are not looked at any more";
    LostStillCounted "b-lost-still-counted" "writes that were lost or given up still count as waiting";
    ExpiredReadsCounted "b-expired-reads-counted" "reads whose time is up still count as waiting";
    FirstTermBoundary "b-first-term-boundary" "a restarted leader refuses late forwards of the very term that it led before";
    OriginNotReset "b-origin-not-reset" "the forwards of an origin that restarted are taken for copies of its earlier life";
    RefusesProposed "b-refuses-proposed" "where part of a forward finds no room, what was proposed of it is refused too";
    GrowthKept "b-growth-kept" "what a snapshot covers is not taken off what the log has grown by";
    FullFollowerRefuses "b-full-follower-refuses" "a follower whose disk is full refuses writes that its leader would take";
    MissingDeleteCounts "b-missing-delete-counts" "deleting a key that does not exist takes a revision";
    LargeLeft "b-large-left" "a large value stays in its leaf when a small one takes its place";
    DeletedKeysWeigh "b-deleted-keys-weigh" "the length of a deleted key is not taken off the bytes of the store";
    AbandonedLeft "b-abandoned-left" "the file of an incoming snapshot that is abandoned stays on the disk";
    OldSnapshotsKept "b-old-snapshots-kept" "older snapshots are removed at a start only";
    SegmentBoundForgotten "b-segment-bound-forgotten" "a segment that was read at a start is taken to hold no more than its last batch";
    IdleUnwitnessed "b-idle-unwitnessed" "the witness of the last batch is written at the end of the process only";
    DamagedReaderKept "b-damaged-reader-kept" "a snapshot file that could not be read stays open, and is read again after it was replaced";
    IncarnationKept "b-incarnation-kept" "the starts of a node are not counted: each life has the incarnation of the first";
    RoomUntold "b-room-untold" "the replica is told that the disk is full, and not that it has room again";
    TemporariesKept "b-temporaries-kept" "unfinished snapshots of an earlier life are not removed at a start";
    TimerSameDeadline "c-timer-same-deadline" "a timer that went off early is not set again for the deadline that it had";
    LinkBackoffUncapped "c-link-backoff-uncapped" "the pause between two attempts to connect to a peer doubles without end";
    LinkTurnStuck "c-link-turn-stuck" "only the likeliest of a peer's addresses is ever tried";
    JoinFirstAddressOnly "c-join-first-address-only" "a node that is to join asks only the first of the addresses it was given";
    AnnounceOnce "c-announce-once" "a node whose new address could not be announced at once does not try again";
    RemovedLinkKept "c-removed-link-kept" "the connection to a removed member, its task and its queue are never given up";
    StopDoesNotWait "c-stop-does-not-wait" "a node that is asked to stop does not wait for the writes and the transfer that are under way";
    CommittedUnpublished "c-committed-unpublished" "after a start nobody who waits is told that the membership is committed";
    TurnEndUntold "c-turn-end-untold" "who waits for another join of the same name is not woken when it ends";
    AbsorbedRemembers "c-absorbed-remembers" "a node that moved to another cluster judges callers by the membership of its old one";
    ClientSlotLost "c-client-slot-lost" "the slot of a client that went away before its answer is never used again";
    DiskFullGaugeStuck "c-disk-full-gauge-stuck" "the gauge that says that the disk is full never goes back";
    ReadsOldCluster "c-reads-old-cluster" "the worker that reads snapshots goes on in the old cluster's directory after a move";
    ControlStarved "c-control-starved" "orders to the node (status, stop) wait for as long as something comes from peers or the disk";
    QueueBytesKept "c-queue-bytes-kept" "bytes queued for a peer are counted twice and given back once";
    RaftAcceptEnds "c-raft-accept-ends" "one failed accept ends the listener on the raft port";
    PlaceLeak "c-place-leak" "the last connection of each caller does not give its place back";
    WipedCountsAsAlive "c-wiped-counts-as-alive" "a member that lost its data, and answers at its address under the same id, is taken for alive";
    VoterUncommitted "c-voter-uncommitted" "a join is reported done before the change that makes the node a voter is committed";
    LearnerLeftBehind "c-learner-left-behind" "a learner that refused its place is not removed again";
    JoinsSerial "c-joins-serial" "a join begins only when the one before has ended";
    JoinDenied "c-join-denied" "a join that was passed on and not answered in time is reported as never begun";
    EmptyIsMissing "c-empty-is-missing" "a key whose value is the empty string is reported missing";
    GetKeyLimit "c-get-key-limit" "a key of the greatest length can be set and not read";
    AnsweringTimed "c-answering-timed" "a connection whose request is being worked on for longer than a head may take is closed";
    ConnectionKept "c-connection-kept" "connections that have ended stay in the list of open ones";
    AnswerRoomKept "c-answer-room-kept" "the room that a large answer is tried for is not given back";
    SilenceIsReady "c-silence-is-ready" "a node is ready although no quorum answers in time";
    FinishUnwoken "c-finish-unwoken" "idle connections are not woken when they are told to finish";
    FlushUntold "c-flush-untold" "who waits for an answer to leave is not woken when it has";
    SilentMillis "c-silent-millis" "the status says for how many milliseconds a member was silent, and calls them seconds";
    HandOverBelieved "c-hand-over-believed" "a leader that said that it hands over is asked nothing more in its term, though the transfer failed";
    SnapshotFailureKept "c-snapshot-failure-kept" "the status tells of a failed snapshot long after the next one succeeded";
    ReadOneEarly "c-read-one-early" "a read may be answered one entry too early, along with others";
    PromotionExact "c-promotion-exact" "a learner becomes a voter only at a moment when it has every single entry";
    QuestionAskedOnce "c-question-asked-once" "a follower's question for a read index that gets lost is not sent again";
    RecycledNoRoom "c-recycled-no-room" "a full disk stays full when a segment has been recycled for the next";
    TornKept "c-torn-kept" "torn tails that were set aside are never removed";
    ReservedTooShort "c-reserved-too-short" "a node promised to another cluster takes writes again long before the promise ends";
    MergedAcknowledgement "d-merged-acknowledgement" "an acknowledgement that waits for its write takes in later ones, which leave with it";
    EarlierLifeAnswers "d-earlier-life-answers" "a write of an earlier life of a node answers the client whose write has the same number in this one";
    InstalledBeforeDurable "d-installed-before-durable" "a snapshot is acknowledged as installed before it is durable";
    KnownAcknowledgesTail "d-known-acknowledges-tail" "who is offered a snapshot that it does not need acknowledges its whole log";
    SnapshotMembershipInForce "d-snapshot-membership-in-force" "a snapshot holds the membership in force, though that may stand behind its last entry";
    QuestionSticks "d-question-sticks" "a question for a read index stays with the leader of an earlier term";
    ChunkReadOnce "d-chunk-read-once" "a chunk of a snapshot that could not be read is not asked for again";
    WokenWhenEmpty "d-woken-when-empty" "a worker is woken only by the first job in an empty queue";
    IdleRoomUnseen "d-idle-room-unseen" "a storage that has nothing to write does not look whether a full disk has room again";
    ForwardPingPong "d-forward-ping-pong" "writes are forwarded again and again to a node that says that it leads no longer";
    ConnectionEndUntold "d-connection-end-untold" "a peer's connection that has ended is taken for alive a little longer";
    RefusedReadsReplace "d-refused-reads-replace" "reads that are to be asked again take the place of those that wait already";
    RefusedOneTooMany "d-refused-one-too-many" "the write after those that were refused is taken for refused too";
    SeparatorGoesLeft "d-separator-goes-left" "the first key of a leaf is looked for in the leaf before it";
    UpperHexRefused "d-upper-hex-refused" "percent-encoding in capital letters is refused";
    RemovedReadsWait "d-removed-reads-wait" "a removed node lets reads wait for a quorum instead of refusing them";
    ResizeLeaks "d-resize-leaks" "what a request held before it needed more memory is never given back";
    ExpiredBytesKept "d-expired-bytes-kept" "the bytes of writes that found no leader in time still count as waiting";
    OldGenerationKept "d-old-generation-kept" "the directories of its old cluster stay when a node has moved";
    RefusalKept "d-refusal-kept" "a refused connection whose client is gone counts as being refused for ever";
    SealedTooEarly "d-sealed-too-early" "a segment is sealed before the next one has its name";
    LifeForgotten "d-life-forgotten" "a recycled segment does not know its last life";
    DroppedSegmentStays "d-dropped-segment-stays" "the empty segment that the log was about to go on in stays when its tail is rewritten";
    TruncateKeepsFirst "d-truncate-keeps-first" "a start keeps the first entry of those that were truncated";
    SwitchBeforeLog "d-switch-before-log" "a node that moves takes up its new identity before the log for it is made";
    RepairedAgain "d-repaired-again" "a snapshot that was saved again since it could not be read is saved again and again";
    LeavingRenewed "d-leaving-renewed" "the time for which a removed member is still told so begins anew with each look";
    FirstLearnerOnly "d-first-learner-only" "only the first of several learners is looked at for promotion";
    CommittedNotRecalled "d-committed-not-recalled" "after a start callers that were removed before it are let in";
    RiskUnseen "d-risk-unseen" "voters that a new leader has not heard of yet count as answering when members are to leave";
    HttpAddressUnannounced "d-http-address-unannounced" "a member's new HTTP address is not written down if its raft address is the old one";
    JoiningKept "d-joining-kept" "a node whose join of another one failed counts as joining for ever";
    PromiseOutlives "d-promise-outlives" "a promise to another cluster is held against a third one after its time";
    LinkAddressCached "d-link-address-cached" "a link goes on with the addresses that its peer had when it began";
    LeaderGaugeStale "d-leader-gauge-stale" "the metrics name the last leader when none is known";
    ElectionsPrecandidates "d-elections-precandidates" "the elections that a node only asked about are counted too";
    LeaderByPosition "d-leader-by-position" "the status takes the leader's id for its position among the members";
    ReceivedCountedAgain "d-received-counted-again" "the bytes of an unfinished message are counted again with the next ones received";
    PeerGaugeKept "d-peer-gauge-kept" "the queue of a removed member stays in the metrics";
    RefusalStatusKept "d-refusal-status-kept" "the status says that a member refuses its snapshot after it has taken one";
}

/// The number of the one that is planted, from 1; 0 for none.
#[cfg(feature = "mutants")]
static PLANTED: AtomicUsize = AtomicUsize::new(0);

/// Plants a bug in the whole process, or none.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.store(mutant.map_or(0, |mutant| mutant as usize + 1), Ordering::SeqCst);
}

/// Whether this bug is planted.
#[cfg(feature = "mutants")]
#[must_use]
pub fn planted(mutant: Mutant) -> bool {
    PLANTED.load(Ordering::Relaxed) == mutant as usize + 1
}

/// Whether this bug is planted: never, without the feature.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) fn planted(_: Mutant) -> bool {
    false
}
