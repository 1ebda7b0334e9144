//! Stopping while requests wait.

use std::time::Duration;

use super::{super::ServerLimits, site::Site};

#[tokio::test]
async fn who_waits_when_it_stops_is_answered_and_told_that_it_was_the_last_time() {
    let site = Site::start(["test_stop", "test_stop_detached"]);
    let mut client = site.connect().await;
    client.get("/wait/long/ok").await;
    client.get("/quick").await;
    site.until_detached(1).await;
    site.stop.cancel();
    site.release();
    let answer = client.rest().await;
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nwaited"), "{answer}");
    site.ended().await;
}

#[tokio::test]
async fn a_body_that_ends_when_it_stops_ends_in_order() {
    let mut site = Site::start(["test_stop_body", "test_stop_body_detached"]);
    let mut client = site.connect().await;
    client.get("/stream/long").await;
    site.send("one");
    client.upto("one\r\n").await;
    site.until_detached(1).await;
    site.stop.cancel();
    site.pieces = None;
    assert_eq!(client.rest().await, "0\r\n\r\n");
    site.ended().await;
}

#[tokio::test]
async fn who_never_ends_is_broken_off_after_the_drain_timeout() {
    let limits =
        ServerLimits { drain_timeout: Duration::from_millis(200), ..ServerLimits::default() };
    let site = Site::with(["test_drain", "test_drain_detached"], limits);
    let mut waiting = site.connect().await;
    waiting.get("/wait/long/ok").await;
    let mut streaming = site.connect().await;
    streaming.get("/stream/long").await;
    site.send("one");
    site.until_detached(2).await;
    site.stop.cancel();
    assert_eq!(waiting.rest().await, "");
    assert!(streaming.rest().await.ends_with("3\r\none\r\n"));
    site.until_waiting(0).await;
    site.ended().await;
}
