//! A raw HTTP/1.1 client: what a test sends is what goes over the wire. Also used by `tests/it`.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Status and code of a problem, which must be well-formed.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.body);
        let json = self.json();
        assert_eq!(json["status"], self.status);
        assert!(json["title"].is_string() && json["detail"].is_string());
        let code = json["code"].as_str().unwrap().to_owned();
        assert_eq!(json["type"], format!("urn:adjutant:problem:{code}"));
        assert_eq!(self.header("retry-after").is_some(), matches!(self.status, 429 | 503));
        (self.status, code)
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) fn on(stream: TcpStream) -> Self {
        Self { stream, received: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // The server may have closed its side already; its answer is still to be read.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Sends a request with these headers (`Content-Length` is added) and reads the answer.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.request_that_may_break(method, target, headers, body).await.expect("an answer")
    }

    /// The same; `None` if the server closed without an answer.
    pub(crate) async fn request_that_may_break(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Answer> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        if !body.is_empty() || method == "POST" {
            head.extend(["Content-Length: ", &body.len().to_string(), "\r\n"]);
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes).await;
        self.answer(method).await
    }

    /// Reads one answer; `None` if the server closed without one.
    pub(crate) async fn answer(&mut self, method: &str) -> Option<Answer> {
        let end = loop {
            if let Some(end) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await?;
        };
        let head: Vec<u8> = self.received.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: String::new() };
        let bodiless = method == "HEAD" || matches!(status, 100 | 204 | 304);
        let length: usize = match answer.header("content-length") {
            Some(length) if !bodiless => length.parse().unwrap(),
            _ => 0,
        };
        while self.received.len() < length {
            self.more().await?;
        }
        answer.body = String::from_utf8(self.received.drain(..length).collect()).unwrap();
        Some(answer)
    }

    async fn more(&mut self) -> Option<()> {
        let mut buffer = vec![0; 16 * 1024];
        match self.stream.read(&mut buffer).await {
            Ok(0) | Err(_) => None,
            Ok(n) => {
                self.received.extend_from_slice(&buffer[..n]);
                Some(())
            }
        }
    }
}
