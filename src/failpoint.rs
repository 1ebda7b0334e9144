//! Places where a process can be made to abort, to see that nothing is lost between two steps.
//! Without the feature `failpoints` there are none, and the compiler sees nothing of them.
//!
//! `ADJUTANT_FAILPOINT=NAME` aborts the process when it comes there for the first time, `NAME:3` for
//! the third.

/// Aborts here, if the environment says so.
#[cfg(feature = "failpoints")]
macro_rules! failpoint {
    ($point:ident) => {
        $crate::failpoint::Failpoint::$point.pass()
    };
}
#[cfg(not(feature = "failpoints"))]
macro_rules! failpoint {
    ($point:ident) => {};
}

#[cfg(feature = "failpoints")]
pub use list::Failpoint;

#[cfg(feature = "failpoints")]
mod list {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    macro_rules! failpoints {
        ($($(#[doc = $story:literal])+ $point:ident = $name:literal,)+) => {
            /// A place between two steps.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum Failpoint {
                $($(#[doc = $story])+ $point,)+
            }

            impl Failpoint {
                /// All of them.
                pub const ALL: &[Self] = &[$(Self::$point),+];

                /// As the environment names it.
                pub fn name(self) -> &'static str {
                    match self { $(Self::$point => $name),+ }
                }

                /// What has happened there.
                pub fn story(self) -> &'static str {
                    match self { $(Self::$point => concat!($($story),+).trim_ascii()),+ }
                }
            }
        };
    }

    failpoints! {
        /// A command whose caller waits was checked; nothing else.
        ImmediateArrived = "immediate.arrived",
        /// A command that is answered at once has its place in the room; nothing is durable.
        ImmediateBeforeAccept = "immediate.before_accept",
        /// It is durable and held by this process; its caller knows nothing yet.
        ImmediateAccepted = "immediate.accepted",
        /// A caller's wait is over before its command was started; it is to be made durable.
        ImmediateWaitIsOver = "immediate.wait_is_over",
        /// It is durable now, and may run; its caller knows nothing yet.
        ImmediateMadeDurable = "immediate.made_durable",
        /// There was no room for it, and it was accepted into the queue; its caller knows nothing.
        ImmediateQueued = "immediate.queued",
        /// A durable command may run, and perhaps does; its caller is to be told that it is durable.
        ImmediateAcknowledging = "immediate.acknowledging",
        /// Commands were taken out of the room, to be executed.
        ImmediateTaken = "immediate.taken",
        /// They were decided; the transaction is to be sent.
        ExecutorDecided = "executor.decided",
        /// The transaction is open and holds the locks, and commands have entered; they are to be
        /// decided again.
        ExecutorUnderLock = "executor.under_lock",
        /// The transaction was committed; nothing else knows of it.
        ExecutorCommitted = "executor.committed",
        /// Their ends are known; no caller was told.
        ImmediateEnded = "immediate.ended",
        /// A strict command must take its place in the queue; it is not durable.
        ImmediateMustQueue = "immediate.must_queue",
        /// It has its place in the queue; its caller knows nothing.
        ImmediateTookPlace = "immediate.took_place",
        /// A caller is to be answered.
        ImmediateAnswering = "immediate.answering",
        /// Commands that fell due were claimed by this process; none of them has its place in the room.
        ImmediateClaimed = "immediate.claimed",
        /// Commands whose process is gone were found; the transaction that takes them over is open.
        TakeOverFound = "relay.take_over_found",
        /// They were taken over; nobody was told.
        TakeOverAfter = "relay.after_take_over",
    }

    struct Asked {
        name: String,
        left: AtomicU64,
    }

    impl Failpoint {
        /// Aborts, if it is this one's turn.
        pub(crate) fn pass(self) {
            static ASKED: OnceLock<Option<Asked>> = OnceLock::new();
            let asked = ASKED.get_or_init(|| {
                let text = std::env::var("ADJUTANT_FAILPOINT").ok()?;
                let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
                let left = AtomicU64::new(count.parse().unwrap_or(1));
                Some(Asked { name: name.to_owned(), left })
            });
            let Some(asked) = asked else { return };
            if asked.name == self.name() && asked.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                tracing::error!(failpoint = self.name(), "aborting, as told");
                std::process::abort();
            }
        }
    }
}
