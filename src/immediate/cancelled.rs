//! Commands that this process called off leave the room at once: whoever waits for them is told, and
//! does not wait for their turn.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;

use super::processor::Shared;

pub(super) async fn run(shared: Arc<Shared>) {
    let mut hints = shared.parts.signals.watch_cancelled();
    let hearing = async {
        loop {
            match hints.recv().await {
                Ok(ids) => shared.cancelled(&ids),
                // Those that were missed are found out when it is their turn.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    };
    let _: Option<()> = shared.parts.stop.run_until_cancelled(hearing).await;
}
