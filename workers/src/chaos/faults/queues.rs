//! Work queues that are purged or deleted: law 1 says that nothing is lost. The intake and its dead
//! letters are left alone, because they hold what the database does not have yet.

use std::time::Instant;

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
    let connection = services::connect(broker).await?;
    let channel = connection.create_channel().await?;
    let (began, mut messages) = (Instant::now(), 0);
    while began.elapsed() < length {
        for queue in &queues {
            messages +=
                channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await?;
        }
    }
    connection.close(200, "purged".into()).await?;
    Ok(format!("{} queues {who} for {length:?}, {messages} messages", queues.len()))
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
    let queues = groups.iter().flat_map(|group| {
        let partitions = (0..i16::try_from(PARTITIONS).unwrap_or_default()).map(Partition);
        partitions.map(|partition| {
            let source = GroupPartition { group: group.clone(), partition };
            format!("{PREFIX}.{source}")
        })
    });
    Ok((who, queues.collect()))
}

/// Every group of the bank.
pub(in crate::chaos) fn groups() -> Result<Vec<GroupName>, ChaosError> {
    let service = accounts::service();
    let service = service.map_err(|error| ChaosError::Missing(error.to_string()))?;
    Ok(groups_of(&service))
}
