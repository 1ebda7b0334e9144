//! What a process that vanished leaves behind: partitions that it did not release, and entries of
//! which one may have been the reason.

use async_trait::async_trait;

use super::StoreError;
use crate::message::{GroupName, MemberId, Offset, Partition};

/// How a partition was found by a loop that starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Its last owner had released it, or there was none. It is the caller's now.
    Released,
    /// Its last owner has not released it, and it was taken all the same: that one vanished, or has
    /// not ended yet. What it was at is suspect.
    Unreleased,
    /// Its last owner has not released it, and it was left alone.
    Held,
}

/// Owning partitions, and counting crashes.
#[async_trait]
pub trait Suspects: Send + Sync {
    /// Takes a partition of a group, whose loop starts; one that is held by another member only if
    /// `by_force`.
    async fn take_partition(
        &self,
        group: &GroupName,
        partition: Partition,
        member: MemberId,
        by_force: bool,
    ) -> Result<Taken, StoreError>;

    /// The loop ended well. Forgets the crash counts of the partition; does nothing if it is
    /// another member's by now.
    async fn release_partition(
        &self,
        group: &GroupName,
        partition: Partition,
        member: MemberId,
    ) -> Result<(), StoreError>;

    /// Counts a crash at this entry in advance, and forgets the counts of earlier entries, which
    /// are finished. Answers how often a process vanished at it before. Need not be on disk when it
    /// returns: it must outlive the process, not the machine.
    ///
    /// Offset 0 stands for all that the last owner was at: it answers how much is counted of the
    /// partition already, entries included.
    async fn begin_suspect(
        &self,
        group: &GroupName,
        partition: Partition,
        offset: Offset,
    ) -> Result<i32, StoreError>;

    /// Forgets the crash counts of a partition: nothing is suspect any more.
    async fn end_suspects(&self, group: &GroupName, partition: Partition)
    -> Result<(), StoreError>;
}
