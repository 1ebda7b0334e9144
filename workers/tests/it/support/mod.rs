//! What the tests share.

pub mod any_store;
pub mod api;
pub mod database;
pub mod directory;
pub mod drills;
pub mod file;
pub mod in_process;
pub mod process;
pub mod receiver;
pub mod site;
pub mod traffic;

#[path = "../../../../tests/it/support/private.rs"]
#[allow(dead_code)]
pub mod private;
#[path = "../../../../tests/it/support/proxy.rs"]
#[allow(dead_code)]
pub mod proxy;
#[path = "../../../../tests/it/support/rabbit.rs"]
#[allow(dead_code)]
pub mod rabbit;

use std::time::Duration;

/// How long a condition may take on a busy machine before a test fails.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `condition` gives a value; asks again every 10 ms.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
