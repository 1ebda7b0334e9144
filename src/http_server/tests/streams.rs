//! Bodies that wait while nobody has their connection.

use std::{io, time::Duration};

use tokio::net::TcpSocket;

use super::{
    super::ServerLimits,
    site::{PIECE, Site, until},
};

const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn each_piece_is_a_chunk_at_once_and_the_connection_goes_on_after_the_last() {
    let mut site = Site::start(["test_chunks", "test_chunks_detached"]);
    let mut client = site.connect().await;
    client.get("/stream/long").await;
    site.send("first");
    assert_eq!(client.upto("first\r\n").await, format!("{HEAD}5\r\nfirst\r\n"));
    site.until_detached(1).await;
    // Sent while it waits, and answered after it.
    client.get("/quick").await;
    site.send("a piece of 26 characters..");
    assert_eq!(client.upto("..\r\n").await, "1A\r\na piece of 26 characters..\r\n");
    site.send("");
    site.send("last");
    assert_eq!(client.upto("last\r\n").await, "4\r\nlast\r\n");
    site.pieces = None;
    let rest = client.upto("quick").await;
    assert!(rest.starts_with("0\r\n\r\nHTTP/1.1 200 OK\r\n"), "{rest}");
    site.until_waiting(0).await;
    site.until_detached(0).await;
    client.get("/quick").await;
    client.upto("\r\n\r\nquick").await;
}

#[tokio::test]
async fn a_body_that_comes_after_a_wait_is_sent_in_chunks_too() {
    let mut site = Site::start(["test_after", "test_after_detached"]);
    let mut client = site.connect().await;
    client.send("GET /wait/long/stream HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await;
    site.until_detached(1).await;
    site.release();
    site.send("one");
    let first = client.upto("one\r\n").await;
    assert!(first.ends_with("transfer-encoding: chunked\r\n\r\n3\r\none\r\n"), "{first}");
    site.until_detached(1).await;
    site.send("two");
    site.pieces = None;
    assert_eq!(client.rest().await, "3\r\ntwo\r\n0\r\n\r\n");
    until(|| site.connections() == 0).await;
}

#[tokio::test]
async fn an_old_client_gets_a_body_that_ends_with_the_connection() {
    let mut site = Site::start(["test_old", "test_old_detached"]);
    let mut client = site.connect().await;
    client.send("GET /stream/long HTTP/1.0\r\n\r\n").await;
    site.send("one");
    assert_eq!(client.upto("one").await, "HTTP/1.0 200 OK\r\n\r\none");
    site.send("two");
    site.pieces = None;
    assert_eq!(client.rest().await, "two");
}

#[tokio::test]
async fn a_body_that_fails_is_broken_off_without_an_end() {
    let site = Site::start(["test_failing", "test_failing_detached"]);
    let mut client = site.connect().await;
    client.get("/stream/long").await;
    site.send("one");
    client.upto("one\r\n").await;
    site.until_detached(1).await;
    site.pieces.as_ref().unwrap().send(Err(io::Error::other("on purpose"))).unwrap();
    assert_eq!(client.rest().await, "");
    until(|| site.connections() == 0 && site.waiting() == 0).await;
}

#[tokio::test]
async fn who_goes_away_takes_the_body_along() {
    let site = Site::start(["test_left_body", "test_left_body_detached"]);
    let mut client = site.connect().await;
    client.get("/stream/long").await;
    site.send("one");
    client.upto("one\r\n").await;
    site.until_detached(1).await;
    drop(client);
    until(|| site.connections() == 0 && site.waiting() == 0 && site.detached() == 0).await;
}

#[tokio::test]
async fn a_body_is_asked_for_what_there_is_room_for_and_who_takes_nothing_is_dropped() {
    let limits =
        ServerLimits { write_timeout: Duration::from_millis(300), ..ServerLimits::default() };
    let site = Site::with(["test_slow", "test_slow_detached"], limits);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = site.connect().await;
    client.socket = socket.connect(site.address).await.unwrap();
    client.get("/flood").await;
    client.upto("first\r\n").await;
    site.until_detached(1).await;
    assert_eq!(site.flooded(), 2, "one sent, one asked for");
    site.release();
    until(|| site.connections() == 0 && site.waiting() == 0).await;
    // What the kernel holds for a socket, and one piece.
    assert!(site.flooded() * PIECE < 32 << 20, "{}", site.flooded());
    assert_eq!(site.detached(), 0);
}
