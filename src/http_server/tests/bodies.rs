//! Requests with bodies: detached when all of them was read, and not before.

use super::site::Site;

#[tokio::test]
async fn a_request_whose_body_was_read_is_detached() {
    let site = Site::start(["test_read", "test_read_detached"]);
    let mut client = site.connect().await;
    client.send("POST /read HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhe").await;
    client.send("lloGET /quick HTTP/1.1\r\nhost: test\r\n\r\n").await;
    site.until_detached(1).await;
    site.release();
    assert!(client.upto("hello").await.contains("content-length: 5\r\n"));
    client.upto("\r\n\r\nquick").await;
}

#[tokio::test]
async fn who_asks_before_it_sends_a_body_is_told_to_go_on() {
    let site = Site::start(["test_expect", "test_expect_detached"]);
    let mut client = site.connect().await;
    client
        .send("POST /read HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        .await;
    assert_eq!(client.upto("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("ok").await;
    site.until_detached(1).await;
    site.release();
    assert!(client.upto("\r\n\r\nok").await.starts_with("HTTP/1.1 200 OK\r\n"));
}

/// What is left of a body must never be taken for the next request.
#[tokio::test]
async fn a_body_that_nobody_read_is_no_request() {
    let site = Site::start(["test_unread", "test_unread_detached"]);
    let smuggled = "GET /quick HTTP/1.1\r\nhost: evil\r\n\r\n";
    let length = smuggled.len();
    for (framing, start, end) in [
        (format!("content-length: {length}"), String::new(), String::new()),
        (
            "transfer-encoding: chunked".to_owned(),
            format!("{length:x}\r\n"),
            "\r\n0\r\n\r\n".to_owned(),
        ),
    ] {
        let mut client = site.connect().await;
        client
            .send(&format!("POST /wait/long/ok HTTP/1.1\r\nhost: test\r\n{framing}\r\n\r\n"))
            .await;
        site.until_waiting(1).await;
        client.send(&format!("{start}{smuggled}{end}")).await;
        // Whoever is served now was sent later, and the connection is not detached yet.
        let mut other = site.connect().await;
        other.get("/quick").await;
        other.upto("\r\n\r\nquick").await;
        assert_eq!(site.detached(), 0, "{framing}");
        site.release();
        client.upto("\r\n\r\nwaited").await;
        client.send("GET /none HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await;
        let rest = client.rest().await;
        assert!(!rest.contains("quick"), "{framing}: {rest}");
    }
}

#[tokio::test]
async fn a_chunked_body_and_an_upgrade_are_left_to_hyper() {
    let site = Site::start(["test_left", "test_left_detached"]);
    for request in [
        "POST /read HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "GET /wait/long/ok HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: odd\r\n\r\n",
    ] {
        let mut client = site.connect().await;
        client.send(request).await;
        site.until_waiting(1).await;
        let mut other = site.connect().await;
        other.get("/quick").await;
        other.upto("\r\n\r\nquick").await;
        assert_eq!(site.detached(), 0, "{request}");
        site.release();
        assert!(client.upto("\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
}
