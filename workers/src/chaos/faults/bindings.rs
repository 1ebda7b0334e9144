//! Queues that are not bound any more: what is published is confirmed and never arrives, and their
//! consumers notice nothing.

use std::time::Duration;

use lapin::{
    Channel, Connection, ErrorKind,
    options::QueueBindOptions,
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::FieldTable,
};

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
    let mut channel = connection.create_channel().await?;
    for queue in queues {
        let (name, exchange, key) = queue.binding();
        let unbound = channel.queue_unbind(name, exchange, key, FieldTable::default()).await;
        channel = unless_gone(unbound, channel, &connection).await?;
    }
    let done = meanwhile.await;
    for queue in queues {
        let (name, exchange, key) = queue.binding();
        let options = QueueBindOptions::default();
        let bound = channel.queue_bind(name, exchange, key, options, FieldTable::default()).await;
        channel = unless_gone(bound, channel, &connection).await?;
    }
    connection.close(200, "done".into()).await?;
    done
}

/// A queue that another fault took away has no bindings, and gets them with its next declaration. The
/// broker closes the channel on which it is named.
async fn unless_gone(
    done: lapin::Result<()>,
    channel: Channel,
    connection: &Connection,
) -> Result<Channel, ChaosError> {
    match done {
        Ok(()) => Ok(channel),
        Err(error) if is_gone(&error) => Ok(connection.create_channel().await?),
        Err(error) => Err(error.into()),
    }
}

fn is_gone(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    matches!(error.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND))
}
