//! Handlers that wait while nobody has their connection.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::site::{Site, until};

const LAST: &str = "GET /quick HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn an_answer_is_the_same_bytes_whether_its_request_was_detached_or_not() {
    let site = Site::start(["test_same", "test_same_detached"]);
    for (head, answer) in [
        ("GET {} HTTP/1.1\r\nhost: test\r\n", "ok"),
        ("GET {} HTTP/1.1\r\nhost: test\r\nConnection: Keep-Alive, Close\r\n", "ok"),
        ("GET {} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nconnection: keep-alive\r\n", "ok"),
        ("GET {} HTTP/1.0\r\n", "ok"),
        ("GET {} HTTP/1.0\r\nconnection: keep-alive\r\n", "ok"),
        ("GET {} HTTP/1.0\r\nconnection: keep-alive\r\nconnection: close\r\n", "ok"),
        ("HEAD {} HTTP/1.1\r\nhost: test\r\n", "ok"),
        ("HEAD {} HTTP/1.0\r\n", "ok"),
        ("DELETE {} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n", "ok"),
        ("ODD {} HTTP/1.1\r\nhost: test\r\n", "ok"),
        ("GET {} HTTP/1.1\r\nhost: test\r\n", "none"),
        ("GET {} HTTP/1.1\r\nhost: test\r\n", "unchanged"),
        ("GET {} HTTP/1.1\r\nhost: test\r\n", "closing"),
        ("GET {} HTTP/1.1\r\nhost: test\r\n", "panic"),
    ] {
        let mut answers = Vec::new();
        for (way, detached) in [("short", 0), ("long", 1)] {
            let mut client = site.connect().await;
            let head = head.replace("{}", &format!("/wait/{way}/{answer}"));
            client.send(&format!("{head}\r\n{LAST}")).await;
            site.until_waiting(1).await;
            site.until_detached(detached).await;
            site.release();
            answers.push(client.rest().await);
        }
        assert_eq!(answers[0], answers[1], "{head}");
        assert!(answers[0].starts_with("HTTP/1."), "{answers:?}");
    }
}

#[tokio::test]
async fn after_its_answer_a_connection_goes_on() {
    let site = Site::start(["test_on", "test_on_detached"]);
    let mut client = site.connect().await;
    for _ in 0..3 {
        client.get("/wait/long/ok").await;
        site.until_detached(1).await;
        site.release();
        let answer = client.upto("waited").await;
        assert_eq!(
            answer,
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\nx-answer: yes\r\n\
             set-cookie: a=b\r\ncontent-length: 6\r\n\r\nwaited"
        );
        client.get("/quick").await;
        client.upto("\r\n\r\nquick").await;
        site.until_detached(0).await;
        assert_eq!(site.connections(), 1);
    }
}

#[tokio::test]
async fn requests_that_are_sent_meanwhile_are_answered_in_order() {
    let site = Site::start(["test_order", "test_order_detached"]);
    let mut client = site.connect().await;
    client.get("/wait/long/ok").await;
    site.until_detached(1).await;
    client.get("/quick").await;
    client.get("/wait/long/none").await;
    client.send(LAST).await;
    site.release();
    let first = client.upto("quick").await;
    assert!(first.contains("\r\n\r\nwaitedHTTP/1.1 200 OK\r\n"), "{first}");
    site.until_waiting(1).await;
    site.until_detached(1).await;
    site.release();
    let rest = client.rest().await;
    assert!(rest.starts_with("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n"), "{rest}");
    assert!(rest.ends_with("\r\n\r\nquick"), "{rest}");
}

#[tokio::test]
async fn more_than_is_read_ahead_waits_and_is_answered() {
    const MORE: usize = 20_000;
    let site = Site::start(["test_more", "test_more_detached"]);
    let mut client = site.connect().await;
    client.get("/wait/long/ok").await;
    site.until_detached(1).await;
    let (mut reading, mut writing) = client.socket.into_split();
    let sending = tokio::spawn(async move {
        let many = "GET /quick HTTP/1.1\r\nhost: test\r\n\r\n".repeat(MORE);
        writing.write_all(many.as_bytes()).await.unwrap();
        writing.write_all(LAST.as_bytes()).await.unwrap();
        writing
    });
    site.release();
    let mut answers = String::new();
    reading.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("\r\n\r\nwaited").count(), 1);
    assert_eq!(answers.matches("\r\n\r\nquick").count(), MORE + 1);
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn who_goes_away_takes_the_handler_along() {
    let site = Site::start(["test_gone", "test_gone_detached"]);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = site.connect().await;
        client.get("/wait/long/ok").await;
        clients.push(client);
    }
    site.until_detached(3).await;
    // One ends in order, one with a request that is not answered any more, one is reset.
    clients[1].get("/quick").await;
    clients[2].socket.set_zero_linger().unwrap();
    drop(clients);
    site.until_waiting(0).await;
    until(|| site.connections() == 0 && site.detached() == 0).await;
}

#[tokio::test]
async fn a_panic_of_a_detached_handler_is_a_500_and_the_connection_goes_on() {
    let site = Site::start(["test_panic", "test_panic_detached"]);
    let mut client = site.connect().await;
    client.get("/wait/long/panic").await;
    site.until_detached(1).await;
    site.release();
    let answer = client.upto("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{answer}");
    client.get("/quick").await;
    client.upto("\r\n\r\nquick").await;
}
