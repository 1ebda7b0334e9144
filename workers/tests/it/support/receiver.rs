//! A receiver of callbacks: a small HTTP server that answers with the statuses it is given, then 200.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

use super::eventually;

/// What was received.
#[derive(Clone)]
pub struct Received {
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    pub async fn start(statuses: impl IntoIterator<Item = u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = Self { address, received: Arc::default() };
        let (at_work, mut statuses) = (receiver.clone(), VecDeque::from_iter(statuses));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                if let Some(received) = at_work.serve(connection, statuses.front().copied()).await {
                    statuses.pop_front();
                    at_work.received.lock().unwrap().push(received);
                }
            }
        });
        receiver
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until so many requests have come.
    pub async fn until(&self, count: usize) -> Vec<Received> {
        eventually("requests arrive", async || {
            let received = self.received();
            (received.len() >= count).then_some(received)
        })
        .await
    }

    /// One request a connection; `None`: it broke.
    async fn serve(&self, connection: TcpStream, status: Option<u16>) -> Option<Received> {
        let mut connection = BufReader::new(connection);
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            connection.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                if line.trim().is_empty() {
                    break;
                }
                continue;
            };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
        connection.read_exact(&mut body).await.ok()?;
        let status = status.unwrap_or(200);
        let answer =
            format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        connection.write_all(answer.as_bytes()).await.ok()?;
        connection.flush().await.ok()?;
        Some(Received { headers, body: serde_json::from_slice(&body).ok()? })
    }
}
