//! Queues that are not bound any more: what is published is confirmed and never arrives, and their
//! consumers notice nothing.

use std::time::Duration;

use lapin::{Channel, options::QueueBindOptions, types::FieldTable};

use super::queues::{Queue, every_queue, some_queues};
use crate::chaos::{error::ChaosError, random::Draw, services};

/// Takes the bindings of a group, or of all, away for a while.
pub(super) async fn unbind(broker: &str, draw: &mut Draw) -> Result<String, ChaosError> {
    let (who, queues) = some_queues(draw)?;
    let length = draw.millis(300..2_000);
    unbound_while(broker, &queues, async {
        tokio::time::sleep(length).await;
        Ok(())
    })
    .await?;
    Ok(format!("{} queues {who} for {length:?}", queues.len()))
}

/// Takes every binding away while the last commands are sent: what is lost then has nothing behind
/// it that would show the gap, and only a look into the log finds it.
pub(in crate::chaos) async fn unbound_to_the_end<T>(
    broker: &str,
    last: impl Future<Output = Result<T, ChaosError>>,
) -> Result<T, ChaosError> {
    let queues = every_queue()?;
    unbound_while(broker, &queues, async {
        let done = last.await;
        // What was accepted last is published by then.
        tokio::time::sleep(Duration::from_millis(500)).await;
        done
    })
    .await
}

async fn unbound_while<T>(
    broker: &str,
    queues: &[Queue],
    meanwhile: impl Future<Output = Result<T, ChaosError>>,
) -> Result<T, ChaosError> {
    let connection = services::connect(broker).await?;
    let channel = connection.create_channel().await?;
    for queue in queues {
        let (name, exchange, key) = queue.binding();
        channel.queue_unbind(name, exchange, key, FieldTable::default()).await?;
    }
    let done = meanwhile.await;
    bind(&channel, queues).await?;
    connection.close(200, "done".into()).await?;
    done
}

async fn bind(channel: &Channel, queues: &[Queue]) -> Result<(), ChaosError> {
    for queue in queues {
        let (name, exchange, key) = queue.binding();
        let options = QueueBindOptions::default();
        channel.queue_bind(name, exchange, key, options, FieldTable::default()).await?;
    }
    Ok(())
}
