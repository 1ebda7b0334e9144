//! The RabbitMQ node: stopped, killed, out of memory.

use crate::chaos::{error::ChaosError, random::Draw, services::Rabbit};

/// What the watermark is by default.
const WATERMARK: &str = "0.4";

/// The application stops and starts; the node's process goes on.
pub(super) async fn restart(rabbit: &Rabbit, draw: &mut Draw) -> Result<String, ChaosError> {
    rabbit.control(&["stop_app"]).await?;
    let absence = draw.millis(0..1_000);
    tokio::time::sleep(absence).await;
    rabbit.control(&["start_app"]).await?;
    rabbit.until_it_answers().await?;
    Ok(format!("stopped for {absence:?}"))
}

/// SIGKILL to the node and all its helpers, then a new start with what is on the disk.
pub(super) async fn kill(rabbit: &Rabbit, draw: &mut Draw) -> Result<String, ChaosError> {
    rabbit.kill();
    let absence = draw.millis(0..1_000);
    tokio::time::sleep(absence).await;
    rabbit.launch().await?;
    Ok(format!("away for {absence:?}"))
}

/// With a watermark that is always passed, every connection that publishes is blocked.
pub(super) async fn alarm(rabbit: &Rabbit, draw: &mut Draw) -> Result<String, ChaosError> {
    rabbit.control(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await?;
    let length = draw.millis(500..3_000);
    tokio::time::sleep(length).await;
    rabbit.control(&["set_vm_memory_high_watermark", WATERMARK]).await?;
    Ok(format!("publishers blocked for {length:?}"))
}

/// It runs, and takes what is published.
pub(super) async fn heal(rabbit: &Rabbit) -> Result<(), ChaosError> {
    if rabbit.runs() {
        rabbit.control(&["start_app"]).await?;
    } else {
        rabbit.launch().await?;
    }
    rabbit.control(&["set_vm_memory_high_watermark", WATERMARK]).await?;
    rabbit.until_it_answers().await
}
