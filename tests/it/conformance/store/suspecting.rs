//! Owning partitions, and counting crashes.

use adjutant::{
    message::{GroupName, MemberId, Offset, Partition},
    store::Taken,
};

use super::Open;

const P: Partition = Partition(3);

pub async fn a_partition_that_was_not_released_is_taken_only_by_force(open: Open) {
    let truth = open(8).await;
    let (group, other) = (GroupName::commands(), GroupName::projection("counters"));
    let (first, second) = (MemberId::generate(), MemberId::generate());
    let take = async |member, by_force| {
        truth.store.take_partition(&group, P, member, by_force).await.expect("take")
    };
    assert_eq!(take(first, false).await, Taken::Released, "nobody had it");
    assert_eq!(take(first, false).await, Taken::Released, "it is its own");
    assert_eq!(take(second, false).await, Taken::Held);
    assert_eq!(take(second, true).await, Taken::Unreleased);
    assert_eq!(take(first, false).await, Taken::Held, "it is the second one's now");
    // Who does not own it releases nothing.
    truth.store.release_partition(&group, P, first).await.expect("release");
    assert_eq!(take(first, false).await, Taken::Held);
    truth.store.release_partition(&group, P, second).await.expect("release");
    assert_eq!(take(first, true).await, Taken::Released);
    let elsewhere = truth.store.take_partition(&other, P, second, false).await.expect("take");
    assert_eq!(elsewhere, Taken::Released, "of another group");
    let elsewhere = truth.store.take_partition(&group, Partition(4), second, false).await;
    assert_eq!(elsewhere.expect("take"), Taken::Released, "another partition");
}

pub async fn crashes_are_counted_by_entry_until_it_is_finished(open: Open) {
    let truth = open(8).await;
    let (store, group) = (&truth.store, GroupName::commands());
    let count = async |offset| store.begin_suspect(&group, P, Offset(offset)).await.expect("count");
    assert_eq!([count(7).await, count(7).await, count(7).await], [0, 1, 2]);
    assert_eq!(count(8).await, 0, "each has a count of its own");
    assert_eq!(count(7).await, 0, "the one before was finished and is forgotten");
    assert_eq!(count(8).await, 1);
    let other = GroupName::projection("counters");
    assert_eq!(store.begin_suspect(&other, P, Offset(8)).await.expect("count"), 0);
    store.end_suspects(&group, P).await.expect("end");
    assert_eq!(count(8).await, 0);
    assert_eq!(store.begin_suspect(&other, P, Offset(8)).await.expect("count"), 1);
    // A partition that is released well has none, either.
    let member = MemberId::generate();
    store.take_partition(&group, P, member, false).await.expect("take");
    assert_eq!(count(8).await, 1);
    store.release_partition(&group, P, member).await.expect("release");
    assert_eq!(count(8).await, 0);
}
