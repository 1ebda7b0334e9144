//! A server whose handlers wait until they are told to answer, and a client that sees every byte.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use bytes::Bytes;
use futures_util::stream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::super::{LongWait, ServerLimits, bind, serve};
use crate::observe::install_metrics;

/// How long anything may take to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// The size of a piece of `/flood`.
pub(super) const PIECE: usize = 64 << 10;

pub(super) type Pieces = mpsc::UnboundedSender<std::io::Result<&'static str>>;

pub(super) struct Site {
    pub(super) address: SocketAddr,
    pub(super) stop: CancellationToken,
    pub(super) join: JoinHandle<()>,
    /// What `/stream` sends.
    pub(super) pieces: Option<Pieces>,
    desk: Arc<Desk>,
    gauges: [&'static str; 2],
}

/// Where handlers wait.
struct Desk {
    /// How many answers were released.
    answers: Semaphore,
    waiting: AtomicUsize,
    pieces: Mutex<Option<mpsc::UnboundedReceiver<std::io::Result<&'static str>>>>,
    flooded: AtomicUsize,
}

/// A handler, or a body, that is there.
struct Present(Arc<Desk>);

impl Present {
    fn at(desk: &Arc<Desk>) -> Self {
        desk.waiting.fetch_add(1, Ordering::SeqCst);
        Self(desk.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Site {
    /// `gauges`: names of its own for open and for detached connections.
    pub(super) fn start(gauges: [&'static str; 2]) -> Self {
        Self::with(gauges, ServerLimits::default())
    }

    pub(super) fn with(gauges: [&'static str; 2], limits: ServerLimits) -> Self {
        let _ = install_metrics();
        let (pieces, received) = mpsc::unbounded_channel();
        let desk = Arc::new(Desk {
            answers: Semaphore::new(0),
            waiting: AtomicUsize::new(0),
            pieces: Mutex::new(Some(received)),
            flooded: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route("/wait/{way}/{answer}", any(wait))
            .route("/stream/{way}", get(pieces_of))
            .route("/flood", get(flood))
            .route("/read", post(read))
            .route("/quick", get(async || "quick"))
            .with_state(desk.clone());
        let limits = ServerLimits {
            connections_gauge: Some(gauges[0]),
            detached_gauge: Some(gauges[1]),
            ..limits
        };
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let join = tokio::spawn(serve(listener, router, limits, stop.clone()));
        Self { address, stop, join, pieces: Some(pieces), desk, gauges }
    }

    pub(super) async fn connect(&self) -> Raw {
        Raw { socket: TcpStream::connect(self.address).await.unwrap(), received: Vec::new() }
    }

    /// Lets one handler answer.
    pub(super) fn release(&self) {
        self.desk.answers.add_permits(1);
    }

    pub(super) fn send(&self, piece: &'static str) {
        self.pieces.as_ref().unwrap().send(Ok(piece)).unwrap();
    }

    pub(super) fn flooded(&self) -> usize {
        self.desk.flooded.load(Ordering::SeqCst)
    }

    pub(super) fn connections(&self) -> usize {
        gauge(self.gauges[0])
    }

    pub(super) fn detached(&self) -> usize {
        gauge(self.gauges[1])
    }

    /// Handlers and bodies that are there.
    pub(super) fn waiting(&self) -> usize {
        self.desk.waiting.load(Ordering::SeqCst)
    }

    pub(super) async fn until_detached(&self, detached: usize) {
        until(|| self.detached() == detached).await;
    }

    pub(super) async fn until_waiting(&self, waiting: usize) {
        until(|| self.waiting() == waiting).await;
    }

    /// It has stopped.
    pub(super) async fn ended(self) {
        tokio::time::timeout(PATIENCE, self.join).await.expect("it ends").unwrap();
    }
}

fn gauge(name: &str) -> usize {
    let shown = install_metrics().unwrap().render();
    let value = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse::<f64>().unwrap() as usize)
}

/// Waits until something holds.
pub(super) async fn until(mut holds: impl FnMut() -> bool) {
    let patience = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < patience, "it never came to be");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn begins(way: &str, long_wait: &LongWait) {
    if way == "long" {
        long_wait.begins();
    }
}

async fn wait(
    State(desk): State<Arc<Desk>>,
    Path((way, answer)): Path<(String, String)>,
    long_wait: LongWait,
) -> Response {
    let present = Present::at(&desk);
    begins(&way, &long_wait);
    desk.answers.acquire().await.unwrap().forget();
    drop(present);
    match answer.as_str() {
        "panic" => panic!("on purpose"),
        "none" => StatusCode::NO_CONTENT.into_response(),
        "unchanged" => (StatusCode::NOT_MODIFIED, [("etag", "\"7\"")]).into_response(),
        "closing" => ([("connection", "close")], "closing").into_response(),
        "stream" => body_of(&desk),
        _ => ([("x-answer", "yes"), ("set-cookie", "a=b")], "waited").into_response(),
    }
}

async fn read(State(desk): State<Arc<Desk>>, long_wait: LongWait, body: Bytes) -> Response {
    wait(State(desk), Path(("long".into(), "ok".into())), long_wait).await;
    body.into_response()
}

async fn pieces_of(
    State(desk): State<Arc<Desk>>,
    Path(way): Path<String>,
    method: Method,
    long_wait: LongWait,
) -> Response {
    assert_eq!(method, Method::GET);
    begins(&way, &long_wait);
    body_of(&desk)
}

fn body_of(desk: &Arc<Desk>) -> Response {
    let pieces = desk.pieces.lock().unwrap().take().unwrap();
    let present = Present::at(desk);
    let pieces = stream::unfold((pieces, present), async |(mut pieces, present)| {
        let piece = pieces.recv().await?;
        Some((piece, (pieces, present)))
    });
    Body::from_stream(pieces).into_response()
}

/// A little, and from the next release on as much as there is room for.
async fn flood(State(desk): State<Arc<Desk>>, long_wait: LongWait) -> Response {
    long_wait.begins();
    let present = Present::at(&desk);
    let pieces = stream::unfold((desk, present), async |(desk, present)| {
        let piece = match desk.flooded.fetch_add(1, Ordering::SeqCst) {
            0 => Bytes::from_static(b"first"),
            nth => {
                if nth == 1 {
                    desk.answers.acquire().await.unwrap().forget();
                }
                Bytes::from(vec![b'x'; PIECE])
            }
        };
        Some((Ok::<_, Infallible>(piece), (desk, present)))
    });
    Body::from_stream(pieces).into_response()
}

/// A client that sees every byte.
pub(super) struct Raw {
    pub(super) socket: TcpStream,
    received: Vec<u8>,
}

impl Raw {
    pub(super) async fn send(&mut self, text: &str) {
        // The server may have closed its side already; what it sent is still to be read.
        let _ = self.socket.write_all(text.as_bytes()).await;
    }

    pub(super) async fn get(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await;
    }

    /// Everything up to these words, and with them. The date is left out.
    pub(super) async fn upto(&mut self, words: &str) -> String {
        loop {
            let found =
                self.received.windows(words.len()).position(|found| found == words.as_bytes());
            if let Some(found) = found {
                let text = self.received.drain(..found + words.len()).collect();
                return without_date(String::from_utf8(text).unwrap());
            }
            let so_far = String::from_utf8_lossy(&self.received).into_owned();
            assert!(self.more().await, "no `{words}` in `{so_far}`");
        }
    }

    /// Everything up to the end of the connection.
    pub(super) async fn rest(&mut self) -> String {
        while self.more().await {}
        without_date(String::from_utf8(std::mem::take(&mut self.received)).unwrap())
    }

    async fn more(&mut self) -> bool {
        let read = self.socket.read_buf(&mut self.received);
        let read = tokio::time::timeout(PATIENCE, read).await.expect("something comes, or an end");
        read.is_ok_and(|read| read > 0)
    }
}

fn without_date(text: String) -> String {
    let mut lines: Vec<_> = text.split("\r\n").collect();
    lines.retain(|line| !line.starts_with("date: "));
    lines.join("\r\n")
}
