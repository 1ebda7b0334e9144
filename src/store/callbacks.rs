//! Callbacks: ends of commands that somebody is to be told of by a POST. A row is written with the
//! outcome, claimed for a while by whoever delivers it, and gone when it was delivered.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Acted, ActedBy, PastOutcome, StoreError};
use crate::{
    dead_letter::DeadLetterId,
    message::{CommandId, Failure, Partition, Timestamp},
};

/// Where a command's end is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedCallback {
    /// The URL, as a parser writes it.
    pub url: String,
    /// The command's wire name.
    pub command_type: String,
}

/// A host that is owed callbacks in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackHost {
    /// Its name or address, without the port.
    pub host: String,
    /// Whether one of them is due.
    pub due: bool,
}

/// A callback that this process has in hand.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimedCallback {
    /// Its partition: the command's.
    pub partition: Partition,
    /// Its id, the same at each try: `webhook-id`.
    pub id: Uuid,
    /// The command.
    pub command_id: CommandId,
    /// Its wire name.
    pub command_type: String,
    /// Which of the command's ends this is: the outcome's attempts.
    pub ended_after: i32,
    /// Where it goes.
    pub url: String,
    /// The host that limits and breakers go by.
    pub host: String,
    /// Which try this is, from 1, over all.
    pub attempts: i32,
    /// Which try it is since it is owed.
    pub tries: i32,
    /// Since when it is owed: the command's end, or a person's retry.
    pub owed_at: Timestamp,
    /// The store's time.
    pub now: Timestamp,
    /// What the last try before failed with.
    pub error: Option<String>,
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq)]
pub enum CallbackEnd {
    /// It arrived.
    Delivered,
    /// It did not; it is due again after this long.
    Again(Duration, String),
    /// It did not, and a person must look at it.
    Dead(DeadCallback),
}

/// What a callback that never arrived leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadCallback {
    /// The dead letter.
    pub letter: DeadLetterId,
    /// Why.
    pub error: Failure,
    /// The fingerprint of it.
    pub fingerprint: String,
}

/// How many callbacks wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallbackBacklog {
    /// How many are not delivered yet, counted up to [`MOST_COUNTED`] a partition.
    pub pending: i64,
    /// Since when the oldest of them is owed.
    pub oldest: Duration,
}

/// How far the callbacks of a partition are counted.
pub const MOST_COUNTED: i64 = 20_000;

/// What a person asks for of a dead callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackAction {
    /// Deliver it.
    Retry,
    /// Give it up.
    Discard,
}

/// Callbacks. Those of one partition at a time, so that a partition can live on one machine.
#[async_trait]
pub trait Callbacks: Send + Sync {
    /// Those of these partitions in which callbacks wait, due or not.
    async fn partitions_with_callbacks(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<Partition>, StoreError>;

    /// Hosts that are owed callbacks, in order, those behind `after`; at most `limit`.
    async fn callback_hosts(
        &self,
        partition: Partition,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<CallbackHost>, StoreError>;

    /// Takes callbacks that are due in hand: of each host at most so many, the longest due first.
    /// They are due again, for anybody, when the lease ends first.
    async fn claim_callbacks(
        &self,
        partition: Partition,
        hosts: &[(String, i64)],
        lease: Duration,
    ) -> Result<Vec<ClaimedCallback>, StoreError>;

    /// Takes callbacks of these hosts in hand that are owed for longer than `age` and that nobody
    /// else has; this counts as no try.
    async fn claim_aged_callbacks(
        &self,
        partition: Partition,
        hosts: &[String],
        age: Duration,
        limit: i64,
        lease: Duration,
    ) -> Result<Vec<ClaimedCallback>, StoreError>;

    /// Says how a try ended. One that arrived is gone; one that is dead leaves a dead letter; both
    /// resolve the dead letter that a person retried. `false`: the lease had ended, and somebody
    /// else has taken over.
    async fn end_callback(
        &self,
        claimed: &ClaimedCallback,
        end: CallbackEnd,
    ) -> Result<bool, StoreError>;

    /// The outcome `dead` that a command had after so many attempts (or the next one after), if a
    /// retry took it back.
    async fn past_outcome(
        &self,
        partition: Partition,
        command: CommandId,
        attempts: i32,
    ) -> Result<Option<PastOutcome>, StoreError>;

    /// Does with a dead callback what a person asks for: compare-and-set on its dead letter. Of
    /// however many that ask, one is answered with [`Acted::Done`].
    async fn act_on_callback(
        &self,
        letter: DeadLetterId,
        action: CallbackAction,
        by: &ActedBy,
    ) -> Result<Acted, StoreError>;

    /// What waits in these partitions.
    async fn callback_backlog(
        &self,
        partitions: &[Partition],
    ) -> Result<CallbackBacklog, StoreError>;
}
