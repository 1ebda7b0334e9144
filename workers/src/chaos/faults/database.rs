//! PostgreSQL: restarted without a goodbye, or every session ended.

use crate::chaos::{error::ChaosError, random::Draw, services::Postgres};

/// Stops it as a crash would, and starts it again: it recovers from its write-ahead log.
pub(super) async fn restart(postgres: &Postgres, draw: &mut Draw) -> Result<String, ChaosError> {
    postgres.stop_immediately().await?;
    let absence = draw.millis(0..1_000);
    tokio::time::sleep(absence).await;
    postgres.launch().await?;
    Ok(format!("away for {absence:?}"))
}

/// Ends every session of the service, and those that take their places, a few times.
pub(super) async fn terminate(postgres: &Postgres, draw: &mut Draw) -> Result<String, ChaosError> {
    let (times, mut ended) = (2 + draw.below(3), 0);
    for _ in 0..times {
        ended += postgres.terminate_backends().await?;
        tokio::time::sleep(draw.millis(100..400)).await;
    }
    Ok(format!("{ended} sessions, {times} times"))
}
