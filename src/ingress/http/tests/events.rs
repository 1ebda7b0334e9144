//! A raw client of server-sent events. Also used by `tests/it`.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// How long anything may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// An event as it arrived.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

impl Event {
    pub(crate) fn status(&self) -> &str {
        self.data["status"].as_str().unwrap()
    }
}

/// An answer whose body is read piece by piece.
pub(crate) struct EventStream {
    socket: TcpStream,
    pub(crate) status: u16,
    pub(crate) head: String,
    received: Vec<u8>,
    /// The body so far, without the frames of its chunks.
    text: String,
    /// The last chunk has come: the server ended the stream in order.
    pub(crate) is_complete: bool,
}

impl EventStream {
    /// Watches a command, having seen an event.
    pub(crate) async fn open(address: SocketAddr, id: impl ToString, seen: Option<&str>) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        Self::open_on(socket, id, seen).await
    }

    pub(crate) async fn open_on(
        mut socket: TcpStream,
        id: impl ToString,
        seen: Option<&str>,
    ) -> Self {
        let seen = seen.map(|seen| format!("Last-Event-ID: {seen}\r\n")).unwrap_or_default();
        let id = id.to_string();
        let request = format!("GET /v1/commands/{id}/watch HTTP/1.1\r\nHost: test\r\n{seen}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut received = Vec::new();
        let end = loop {
            if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(read(&mut socket, &mut received).await, "an answer");
        };
        let head: Vec<u8> = received.drain(..end).collect();
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { socket, status, head, received, text: String::new(), is_complete: false }
    }

    /// The next event; `None`: there are no more. Comments do not count as something that comes.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let next = tokio::time::timeout(PATIENCE, self.event()).await;
        next.expect("an event comes, or an end")
    }

    async fn event(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| {
                let line = block.lines().find_map(|line| line.strip_prefix(name))?;
                Some(line.strip_prefix(": ").unwrap().to_owned())
            };
            if let (Some(name), Some(id), Some(data)) = (field("event"), field("id"), field("data"))
            {
                return Some(Event { name, id, data: serde_json::from_str(&data).unwrap() });
            }
        }
    }

    /// The statuses that come until the end.
    pub(crate) async fn statuses(&mut self) -> Vec<String> {
        let mut statuses = Vec::new();
        while let Some(event) = self.next().await {
            statuses.push(event.status().to_owned());
        }
        statuses
    }

    /// The next lines up to an empty one: an event or a comment.
    pub(crate) async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                return Some(block);
            }
            if self.is_complete || !self.chunk().await {
                assert_eq!(self.text, "", "half an event");
                return None;
            }
        }
    }

    /// Takes a chunk (RFC 9112, section 7.1); `false`: the connection broke.
    async fn chunk(&mut self) -> bool {
        loop {
            let line = self.received.windows(2).position(|two| two == b"\r\n");
            if let Some(line) = line {
                let size = std::str::from_utf8(&self.received[..line]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                if self.received.len() >= line + 2 + size + 2 {
                    let data = &self.received[line + 2..line + 2 + size];
                    self.text.push_str(std::str::from_utf8(data).unwrap());
                    self.received.drain(..line + 2 + size + 2);
                    self.is_complete = size == 0;
                    return true;
                }
            }
            if !read(&mut self.socket, &mut self.received).await {
                self.text.clear();
                return false;
            }
        }
    }
}

/// Whether something came.
async fn read(socket: &mut TcpStream, received: &mut Vec<u8>) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    let read = tokio::time::timeout(PATIENCE, socket.read(&mut buffer)).await;
    match read.expect("something comes, or an end") {
        Ok(0) | Err(_) => false,
        Ok(n) => {
            received.extend_from_slice(&buffer[..n]);
            true
        }
    }
}
