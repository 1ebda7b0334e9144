//! Work queues that are purged or deleted: law 1 says that nothing is lost. The intake and its dead
//! letters are left alone, because they hold what the database does not have yet.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use adjutant::{
    broker::GroupPartition,
    message::{GroupName, Partition},
    service::groups_of,
};
use lapin::options::{QueueDeleteOptions, QueuePurgeOptions};

use crate::{
    accounts,
    chaos::{PREFIX, error::ChaosError, fleet::PARTITIONS, random::Draw, services},
};

/// Purges the queues of a group, or of all, again and again: messages stay in them only for moments.
pub(crate) async fn purge(broker: &str, draw: &mut Draw) -> Result<String, ChaosError> {
    let (who, queues) = some_queues(draw)?;
    let length = draw.millis(300..1_500);
    let began = Instant::now();
    let messages = purge_while(broker, &queues, || began.elapsed() < length).await?;
    Ok(format!("{} queues {who} for {length:?}, {messages} messages", queues.len()))
}

/// Purges every work queue while the last commands are sent, until `last` is over: what is lost
/// then has nothing behind it that would show the gap, and only a look into the log finds it.
pub(in crate::chaos) async fn purge_to_the_end<T>(
    broker: &str,
    last: impl Future<Output = Result<T, ChaosError>>,
) -> Result<T, ChaosError> {
    let queues = queues_of(&groups()?);
    let is_over = AtomicBool::new(false);
    let last = async {
        // The purge has begun, and goes on for a moment.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let done = last.await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        is_over.store(true, Ordering::Relaxed);
        done
    };
    let purge = purge_while(broker, &queues, || !is_over.load(Ordering::Relaxed));
    let (done, purged) = tokio::join!(last, purge);
    purged.and(done)
}

/// Answers how many messages there were.
async fn purge_while(
    broker: &str,
    queues: &[String],
    goes_on: impl Fn() -> bool,
) -> Result<u32, ChaosError> {
    let connection = services::connect(broker).await?;
    let channel = connection.create_channel().await?;
    let mut messages = 0;
    while goes_on() {
        for queue in queues {
            messages +=
                channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await?;
        }
    }
    connection.close(200, "purged".into()).await?;
    Ok(messages)
}

/// Deletes them, one to three times: whoever needs one declares it again.
pub(crate) async fn delete(broker: &str, draw: &mut Draw) -> Result<String, ChaosError> {
    let (who, queues) = some_queues(draw)?;
    let connection = services::connect(broker).await?;
    let channel = connection.create_channel().await?;
    let mut messages = 0;
    let times = 1 + draw.below(3);
    for _ in 0..times {
        for queue in &queues {
            messages +=
                channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
        }
        tokio::time::sleep(draw.millis(100..500)).await;
    }
    connection.close(200, "deleted".into()).await?;
    Ok(format!("{} queues {who}, {times} times, {messages} messages", queues.len()))
}

fn some_queues(draw: &mut Draw) -> Result<(String, Vec<String>), ChaosError> {
    let groups = groups()?;
    let (who, groups) = match draw.one_of(&groups) {
        Some(group) if draw.happens(60) => (format!("of {group}"), vec![group.clone()]),
        _ => ("of every group".to_owned(), groups),
    };
    let queues = queues_of(&groups);
    Ok((who, queues))
}

fn queues_of(groups: &[GroupName]) -> Vec<String> {
    let partitions = || (0..i16::try_from(PARTITIONS).unwrap_or_default()).map(Partition);
    let of = |group: &GroupName| {
        partitions()
            .map(|partition| GroupPartition { group: group.clone(), partition })
            .map(|source| format!("{PREFIX}.{source}"))
            .collect::<Vec<_>>()
    };
    groups.iter().flat_map(of).collect()
}

/// Every group of the bank.
pub(in crate::chaos) fn groups() -> Result<Vec<GroupName>, ChaosError> {
    let service = accounts::service();
    let service = service.map_err(|error| ChaosError::Missing(error.to_string()))?;
    Ok(groups_of(&service))
}
