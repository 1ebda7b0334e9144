//! Work queues that are purged or deleted: law 1 says that nothing is lost. The intake and its dead
//! letters are left alone, because they hold what the database does not have yet.

use std::time::Instant;

use adjutant::{
    broker::GroupPartition,
    message::{GroupName, Partition},
    service::groups_of,
    store::Role,
};
use lapin::{
    options::{QueueDeleteOptions, QueuePurgeOptions},
    types::ShortString,
};

use crate::{
    chaos::{
        PREFIX,
        error::ChaosError,
        fleet::{Fleet, PARTITIONS},
        proxy::Mode,
        random::Draw,
        services,
    },
    drill,
};

/// A work queue.
#[derive(Clone, Debug)]
pub(super) struct Queue(GroupPartition);

impl Queue {
    fn name(&self) -> ShortString {
        format!("{PREFIX}.{}", self.0).as_str().into()
    }

    /// Its name, the exchange that feeds it, and with which routing key.
    pub(super) fn binding(&self) -> (ShortString, ShortString, ShortString) {
        let is_commands = self.0.group == GroupName::commands();
        let exchange = if is_commands { "commands" } else { "events" };
        let key = format!("p{:02}", self.0.partition.0);
        (self.name(), format!("{PREFIX}.{exchange}").as_str().into(), key.as_str().into())
    }
}

/// Purges the queues of a group, or of all, again and again. Mostly messages stay in them only for
/// moments; half of the time the workers are cut off from the broker, so that there are some.
pub(super) async fn purge(
    broker: &str,
    fleet: &Fleet,
    draw: &mut Draw,
) -> Result<String, ChaosError> {
    let (who, queues) = some_queues(draw)?;
    let length = draw.millis(300..1_500);
    let workers = [Role::CommandWorker, Role::ProjectionWorker].map(|role| fleet.of(role)).concat();
    let cut_off = if draw.happens(50) { workers } else { Vec::new() };
    for slot in &cut_off {
        slot.broker.set(Mode::Drop);
    }
    let connection = services::connect(broker).await?;
    let channel = connection.create_channel().await?;
    let (began, mut messages) = (Instant::now(), 0);
    while began.elapsed() < length {
        for queue in &queues {
            messages += channel.queue_purge(queue.name(), QueuePurgeOptions::default()).await?;
        }
    }
    for slot in &cut_off {
        slot.broker.set(Mode::Open);
    }
    connection.close(200, "purged".into()).await?;
    let how = if cut_off.is_empty() { "" } else { " without their consumers" };
    Ok(format!("{} queues {who}{how} for {length:?}, {messages} messages", queues.len()))
}

/// Deletes them, one to three times: whoever needs one declares it again.
pub(super) async fn delete(broker: &str, draw: &mut Draw) -> Result<String, ChaosError> {
    let (who, queues) = some_queues(draw)?;
    let connection = services::connect(broker).await?;
    let channel = connection.create_channel().await?;
    let mut messages = 0;
    let times = 1 + draw.below(3);
    for _ in 0..times {
        for queue in &queues {
            messages += channel.queue_delete(queue.name(), QueueDeleteOptions::default()).await?;
        }
        tokio::time::sleep(draw.millis(100..500)).await;
    }
    connection.close(200, "deleted".into()).await?;
    Ok(format!("{} queues {who}, {times} times, {messages} messages", queues.len()))
}

/// The queues of a group, or of all, and whose they are.
pub(super) fn some_queues(draw: &mut Draw) -> Result<(String, Vec<Queue>), ChaosError> {
    let groups = groups()?;
    match draw.one_of(&groups) {
        Some(group) if draw.happens(60) => {
            Ok((format!("of {group}"), queues_of(std::slice::from_ref(group))))
        }
        _ => Ok(("of every group".to_owned(), queues_of(&groups))),
    }
}

/// All work queues.
pub(super) fn every_queue() -> Result<Vec<Queue>, ChaosError> {
    Ok(queues_of(&groups()?))
}

fn queues_of(groups: &[GroupName]) -> Vec<Queue> {
    let partitions = || (0..i16::try_from(PARTITIONS).unwrap_or_default()).map(Partition);
    let sources = groups.iter().flat_map(|group| {
        partitions().map(|partition| GroupPartition { group: group.clone(), partition })
    });
    sources.map(Queue).collect()
}

/// Every group of the bank with drills.
pub(in crate::chaos) fn groups() -> Result<Vec<GroupName>, ChaosError> {
    let service = drill::service(false);
    let service = service.map_err(|error| ChaosError::Missing(error.to_string()))?;
    Ok(groups_of(&service))
}
