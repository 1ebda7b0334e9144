//! What goes wrong, and how often it did.

use std::collections::BTreeMap;

macro_rules! faults {
    ($($(#[$doc:meta])+ $fault:ident = $name:literal,)+) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])+ $fault,)+
        }

        impl Fault {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$fault),+];

            /// As tables name it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$fault => $name),+ }
            }
        }
    };
}

faults! {
    /// A process dies before a call of the store takes place.
    CrashBeforeCall = "crash before a store call",
    /// A process dies after a call of the store took place, before it hears of it.
    CrashAfterCall = "crash after a store call",
    /// A process dies at a call of the broker.
    CrashAtBroker = "crash at a broker call",
    /// A process dies while it waits for anything else.
    Crash = "crash at a random time",
    /// A process stands still, longer than its membership lasts or shorter.
    Pause = "process paused",
    /// A process is stopped in order and replaced.
    Replacement = "process replaced",
    /// A process cannot reach the store for a while.
    StoreCutOff = "store cut off",
    /// The store refuses a call; nothing took place.
    StoreUnavailable = "store unavailable",
    /// The store rolls a transaction back.
    StoreRolledBack = "transaction rolled back",
    /// A transaction took place, but its caller does not hear of it.
    CommitUnknown = "commit took place, reply lost",
    /// A transaction did not take place, and its caller does not know.
    CommitLost = "commit lost, reply lost",
    /// A process notices the broker's connection break.
    PublishFailed = "publish failed",
    /// A message is on the road, but its publisher does not hear of it.
    ConfirmLost = "confirm lost",
    /// The broker refuses a message.
    PublishRefused = "publish refused",
    /// A message is on the road twice.
    Duplicate = "message duplicated",
    /// A message arrives after those that were sent later.
    Delay = "message delayed",
    /// A message is confirmed and gets lost.
    MessageLost = "confirmed message lost",
    /// A message of another log lies in a queue.
    Foreign = "foreign message",
    /// A message in a queue cannot be read.
    Garbage = "damaged message",
    /// All queues of groups are gone, with what was in them.
    BrokerContentsLost = "broker contents lost",
    /// The broker cannot be reached for a while.
    BrokerOutage = "broker outage",
    /// A queue is deleted.
    QueueDeleted = "queue deleted",
    /// A queue is purged.
    QueuePurged = "queue purged",
    /// The channel of a queue's consumer is closed: what it held comes again.
    ChannelClosed = "channel closed",
    /// The store's clock jumps forward.
    ClockJump = "clock jump",
    /// A client sends again what it had an answer for.
    Repetition = "command repeated",
    /// A client that had no answer sends again, to another process.
    Resent = "command sent again",
    /// A client sends one id through both lanes at once.
    BothLanes = "command on both lanes at once",
    /// The immediate lane has no room; who may take the queue does.
    NoRoom = "immediate lane without room",
    /// Commands of a process that is gone, or seems so, are put into the queue.
    TakenOver = "held commands taken over",
    /// Commands that fell due for the immediate lane are claimed.
    Claimed = "due commands claimed",
}

/// How often each kind occurred.
pub type FaultCounts = BTreeMap<Fault, u64>;
