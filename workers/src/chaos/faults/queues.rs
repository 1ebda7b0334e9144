//! Work queues that are purged or deleted: law 1 says that nothing is lost. The intake and its dead
//! letters are left alone, because they hold what the database does not have yet.

use adjutant::{
    broker::GroupPartition,
    message::{GroupName, Partition},
    service::groups_of,
};
use lapin::{
    Channel,
    options::{QueueDeleteOptions, QueuePurgeOptions},
};

use crate::{
    accounts,
    chaos::{PREFIX, error::ChaosError, fleet::PARTITIONS, random::Draw, services},
};

/// Purges the queues of a group, or of all.
pub(super) async fn purge(broker: &str, draw: &mut Draw) -> Result<String, ChaosError> {
    let (who, queues) = some_queues(draw)?;
    let connection = services::connect(broker).await?;
    let channel = connection.create_channel().await?;
    let mut messages = 0;
    for queue in &queues {
        messages +=
            channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await?;
    }
    goodbye(channel, "purged").await?;
    connection.close(200, "done".into()).await?;
    Ok(format!("{} queues {who}, {messages} messages", queues.len()))
}

/// Deletes them.
pub(super) async fn delete(broker: &str, draw: &mut Draw) -> Result<String, ChaosError> {
    let (who, queues) = some_queues(draw)?;
    let connection = services::connect(broker).await?;
    let channel = connection.create_channel().await?;
    let mut messages = 0;
    for queue in &queues {
        messages +=
            channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
    }
    goodbye(channel, "deleted").await?;
    connection.close(200, "done".into()).await?;
    Ok(format!("{} queues {who}, {messages} messages", queues.len()))
}

async fn goodbye(channel: Channel, words: &str) -> Result<(), ChaosError> {
    Ok(channel.close(200, words.into()).await?)
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
