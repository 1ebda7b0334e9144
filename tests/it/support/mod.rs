//! What the tests share.

pub mod commands;
pub mod database;
pub mod domain;
pub mod http;
pub mod lane;
pub mod letters;
pub mod messages;
#[allow(dead_code)]
pub mod private;
pub mod process;
pub mod proxy;
pub mod rabbit;
pub mod receiver;
pub mod sql;

use std::time::Duration;

/// How long a condition may take on a busy machine before a test fails.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `condition` gives a value; asks again every 20 ms.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for something that must happen by itself.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}
