//! Bugs that can be switched on in a simulation, to see that it finds them. Each is a mistake that
//! somebody could make, at the place where it would be made. Without the feature `planted-bugs`
//! there are none: `planted!` is `false`, and the compiler removes what it guards.

/// Whether this bug is switched on, on this thread.
#[cfg(feature = "planted-bugs")]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::is_on($crate::planted::Bug::$bug)
    };
}
#[cfg(not(feature = "planted-bugs"))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

#[cfg(feature = "planted-bugs")]
pub use list::{Bug, Planted};
#[cfg(feature = "planted-bugs")]
pub(crate) use list::{is_on, taken};

#[cfg(feature = "planted-bugs")]
mod list {
    use std::{cell::Cell, collections::BTreeMap, marker::PhantomData, sync::OnceLock};

    macro_rules! bugs {
        ($($(#[doc = $story:literal])+ $bug:ident = $name:literal,)+) => {
            /// A bug that can be planted.
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
            pub enum Bug {
                $($(#[doc = $story])+ $bug,)+
            }

            impl Bug {
                /// All of them.
                pub const ALL: &[Self] = &[$(Self::$bug),+];

                /// A short name, for tables.
                pub fn name(self) -> &'static str {
                    match self { $(Self::$bug => $name),+ }
                }

                /// What is done wrong.
                pub fn story(self) -> &'static str {
                    match self { $(Self::$bug => concat!($($story),+).trim_ascii()),+ }
                }
            }
        };
    }

    bugs! {
        /// The AMQP intake acknowledges a message before its command is committed.
        IntakeAcksBeforeCommit = "ack before commit",
        /// A command is answered as accepted while its commit is still under way.
        AnswersBeforeCommit = "answer before commit",
        /// A lost reply to COMMIT is told to the caller as "nothing was accepted".
        UnknownMeansNo = "unknown means no",
        /// An id that was accepted before is accepted again.
        AcceptsAgain = "id not deduplicated",
        /// A checkpoint moves without a look at where it stands.
        CheckpointWithoutCompare = "checkpoint without compare",
        /// A second outcome replaces the first, with a second effect.
        OutcomeReplaced = "outcome replaced",
        /// Offsets are counted in memory, before it is known whether the transaction commits.
        OffsetBeforeCommit = "offset before commit",
        /// Events that were decided on an old state are appended after the newer ones.
        VersionRenumbered = "version renumbered",
        /// A decision without events is not compared with the stream's present version.
        EventlessUnfenced = "eventless decision unfenced",
        /// Documents commit before their checkpoint does.
        ViewBeforeCheckpoint = "view before checkpoint",
        /// A shared document is read in one transaction and written in another.
        SharedFoldUnlocked = "shared fold without lock",
        /// Documents are remembered although another process owned the partition meanwhile.
        MemoryOutlivesOwnership = "memory outlives ownership",
        /// An outbox row is deleted when it was sent, not when it was confirmed.
        DeletesBeforeConfirm = "row deleted before confirm",
        /// The outbox is read on from behind rows that did not fit into the page.
        BoundPassesRows = "read bound passes rows",
        /// A due command leaves the schedule before it is in the log, in a transaction of its own.
        DueCommandForgotten = "due command forgotten",
        /// A delayed command runs at once.
        DueTooEarly = "delay ignored",
        /// A delivery with a higher offset is applied without the entries before it.
        HoleSkipped = "hole skipped",
        /// Nobody looks into the log for what the road did not bring.
        RoadTrusted = "road trusted",
        /// Messages of another log are applied.
        ForeignApplied = "foreign message applied",
        /// Entries that were applied before are applied again.
        DuplicateApplied = "duplicate applied",
        /// A snapshot claims to hold one event more than it does.
        SnapshotAhead = "snapshot ahead of its state",
        /// A failed attempt is recorded, and the next one is not scheduled.
        RetryForgotten = "retry forgotten",
        /// Strict commands do not look at who holds their stream.
        StrictIgnored = "strict order ignored",
        /// What is released holds nobody any more, though it has not ended.
        ReleasedOvertaken = "released commands are overtaken",
        /// Whoever waits is not released.
        WaitingForgotten = "waiting command forgotten",
        /// A command is dead without a dead letter.
        DeathWithoutLetter = "death without a letter",
        /// A dead letter is acted on whatever its state.
        LetterActedOnTwice = "dead letter acted on twice",
        /// A corrected payload is kept, and the old one executed.
        EditIgnored = "edit ignored",
        /// A command that is called off gets no outcome: it runs anyway.
        CancelledRunsAnyway = "cancelled command runs",
        /// A command that is called off goes on holding its stream.
        CancelLeavesHold = "cancelled command holds",
        /// A command that has ended meanwhile is set aside nevertheless.
        EndedSetAside = "ended command set aside",
        /// A command is started although its `not_after` has passed.
        DeadlineIgnored = "deadline ignored",
        /// A key is unparked though events wait for it.
        UnparkedTooEarly = "unparked too early",
        /// A held command is finished without a look at whether it is still held.
        HeldNotFenced = "held command not fenced",
        /// A waiting caller's command is accepted in a transaction before the one that executes it.
        AcceptedNotInTransaction = "accepted in another transaction",
        /// What travels together is taken for recorded when the first of it was.
        RecordedByTheFirst = "recorded when the first was",
        /// What is due for the immediate lane leaves the schedule, and nobody holds it.
        ClaimHoldsNothing = "claimed and not held",
        /// Commands of a process that is gone leave its hands, and go nowhere.
        TakeOverForgets = "taken over and forgotten",
        /// A command for the immediate lane is answered while it is still being accepted.
        ImmediateAnsweredBeforeAccept = "lane answers before accept",
        /// A strict command runs at once, though others of the queue are before it.
        StrictOvertakesQueue = "strict overtakes queue",
        /// A stream is in two batches of the immediate lane at a time.
        StreamNotSerialised = "stream in two batches",
        /// Who finds no room in the immediate lane is queued under a new id.
        FallbackNewId = "fallback under a new id",
        /// A held command for whose end nobody waits here is not started.
        HeldForgotten = "held command forgotten",
        /// A command that has ended is still held.
        HeldAfterItsEnd = "held after its end",
        /// A lost reply to COMMIT is told to a caller of the immediate lane as "nothing was accepted".
        LaneUnknownMeansNo = "lane: unknown means no",
        /// A run of a recurring command is settled before it is sent.
        RunSettledUnsent = "run settled unsent",
        /// A run has another id each time that it is sent.
        RunWithNewId = "run with a new id",
    }

    thread_local! {
        static ON: Cell<Option<Bug>> = const { Cell::new(None) };
        static TAKEN: Cell<BTreeMap<(&'static str, i16), i64>> =
            const { Cell::new(BTreeMap::new()) };
    }

    /// For as long as it lives, its bug is on, on this thread.
    pub struct Planted(PhantomData<*const ()>);

    impl Planted {
        /// Switches a bug on.
        pub fn on(bug: Bug) -> Self {
            ON.set(Some(bug));
            TAKEN.take();
            Self(PhantomData)
        }
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            ON.set(None);
        }
    }

    /// Whether it is on: on this thread, or in this whole process.
    pub(crate) fn is_on(bug: Bug) -> bool {
        ON.get() == Some(bug) || of_process() == Some(bug)
    }

    /// The bug that the environment plants in this whole process, by its name with underscores:
    /// for runs of several processes. Read once.
    fn of_process() -> Option<Bug> {
        static OF_PROCESS: OnceLock<Option<Bug>> = OnceLock::new();
        *OF_PROCESS.get_or_init(|| {
            let name = std::env::var(VARIABLE).ok()?;
            Bug::ALL.iter().copied().find(|bug| bug.name().replace(' ', "_") == name)
        })
    }

    /// Names the bug of a whole process.
    const VARIABLE: &str = "ADJUTANT_TEST_PLANTED_BUG";

    /// For [`Bug::OffsetBeforeCommit`]: the head of a log, offsets included that were taken by
    /// transactions that did not commit. `n` more are taken. A new history (`head` 0 again) starts
    /// anew.
    pub(crate) fn taken(log: &'static str, partition: i16, head: i64, n: usize) -> i64 {
        let mut all = TAKEN.take();
        let counted = all.entry((log, partition)).or_default();
        let counted_head = if head == 0 { 0 } else { head.max(*counted) };
        *counted = counted_head + i64::try_from(n).unwrap_or_default();
        TAKEN.set(all);
        counted_head
    }
}
