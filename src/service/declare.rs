//! Declares the topology when a process starts.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Broker, BrokerError},
    execute::RetryPolicy,
    message::GroupName,
};

/// How long the start waits for the broker's answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Declares the queues; if the broker cannot be reached now, goes on trying in the background.
pub(super) async fn at_start(
    broker: &Arc<dyn Broker>,
    groups: &[GroupName],
    stop: CancellationToken,
) -> Result<(), BrokerError> {
    match tokio::time::timeout(PATIENCE, broker.declare(groups)).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error @ BrokerError::Incompatible(_))) => return Err(error),
        Ok(Err(error @ BrokerError::Undeclared(_))) => {
            tracing::error!(%error, "the process goes on without a queue");
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the broker is not there yet; intake works without it");
        }
        Err(_) => tracing::warn!("the broker does not answer yet; intake works without it"),
    }
    let (broker, groups) = (broker.clone(), groups.to_vec());
    tokio::spawn(async move {
        let policy = RetryPolicy { initial: Duration::from_millis(250), ..RetryPolicy::forever() };
        let mut delays = policy.start();
        while let Some(delay) = delays.next_delay() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
            match broker.declare(&groups).await {
                Ok(()) => return,
                Err(error) if error.is_about_one() => {
                    tracing::error!(%error, "the broker does not fit");
                }
                Err(error) => tracing::debug!(%error, "the broker is not there yet"),
            }
        }
    });
    Ok(())
}
