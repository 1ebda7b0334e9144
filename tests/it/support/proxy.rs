//! A TCP proxy that can fail like a network: for RabbitMQ, PostgreSQL or anything else.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// What the proxy does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Passes everything on.
    Open,
    /// Accepts connections and passes nothing on: like a stopped (SIGSTOP) server.
    Paused,
    /// Refuses: new connections are closed at once.
    Down,
}

/// What happens to certain bytes on their way. They are looked for within what arrives at a time.
#[derive(Default)]
struct Tampering {
    /// A request with these bytes is passed on, its reply is not: the connection is cut instead.
    reply_lost_after: &'static [u8],
    /// How many more replies are lost.
    replies_to_lose: AtomicUsize,
    replies_lost: AtomicUsize,
    /// In replies, these bytes become those (as many).
    replaced: Option<(&'static [u8], &'static [u8])>,
}

impl Tampering {
    /// Whether the reply to this request is lost.
    fn loses_reply(&self, request: &[u8]) -> bool {
        let needle = self.reply_lost_after;
        if needle.is_empty() || !request.windows(needle.len()).any(|bytes| bytes == needle) {
            return false;
        }
        let less = |left: usize| left.checked_sub(1);
        let lost = self.replies_to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        lost.is_ok()
    }

    fn replace(&self, reply: &mut [u8]) {
        let Some((from, to)) = self.replaced else { return };
        assert_eq!(from.len(), to.len());
        let places: Vec<usize> = reply
            .windows(from.len())
            .enumerate()
            .filter_map(|(place, bytes)| (bytes == from).then_some(place))
            .collect();
        for place in places {
            reply[place..place + to.len()].copy_from_slice(to);
        }
    }
}

/// Forwards to `target` until dropped; then all connections end.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    reset: watch::Sender<u64>,
    tampering: Arc<Tampering>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of the loopback.
    pub async fn to(target: impl Into<String>) -> Self {
        Self::listening_on(SocketAddr::from(([127, 0, 0, 1], 0)), target).await
    }

    /// Listens on an address that somebody knows already.
    pub async fn listening_on(address: SocketAddr, target: impl Into<String>) -> Self {
        Self::start(address, target.into(), Tampering::default()).await
    }

    /// A proxy that can lose the replies to requests with these bytes ([`Self::lose_replies`]).
    pub async fn losing_replies(target: impl Into<String>, after: &'static [u8]) -> Self {
        let tampering = Tampering { reply_lost_after: after, ..Tampering::default() };
        Self::start(SocketAddr::from(([127, 0, 0, 1], 0)), target.into(), tampering).await
    }

    /// A proxy that replaces bytes of replies by others of the same length.
    pub async fn replacing(
        target: impl Into<String>,
        from: &'static [u8],
        to: &'static [u8],
    ) -> Self {
        let tampering = Tampering { replaced: Some((from, to)), ..Tampering::default() };
        Self::start(SocketAddr::from(([127, 0, 0, 1], 0)), target.into(), tampering).await
    }

    async fn start(address: SocketAddr, target: String, tampering: Tampering) -> Self {
        let tampering = Arc::new(tampering);
        let shared = tampering.clone();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Open);
        let (reset, resets) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, modes, resets) = (target.clone(), modes.clone(), resets.clone());
                tokio::spawn(serve(client, target, modes, resets, shared.clone()));
            }
        });
        Self { address, mode, reset, tampering, accepting }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing passes, in either direction, but connections stay.
    pub fn pause(&self) {
        self.mode.send_replace(Mode::Paused);
    }

    /// Ends [`Self::pause`] or [`Self::down`].
    pub fn resume(&self) {
        self.mode.send_replace(Mode::Open);
    }

    /// The next so many replies are lost, each with its connection.
    pub fn lose_replies(&self, count: usize) {
        self.tampering.replies_to_lose.store(count, Ordering::SeqCst);
    }

    /// How many replies were lost.
    pub fn replies_lost(&self) -> usize {
        self.tampering.replies_lost.load(Ordering::SeqCst)
    }

    /// Cuts every connection and refuses new ones.
    pub fn down(&self) {
        self.mode.send_replace(Mode::Down);
        self.drop_connections();
    }

    /// Cuts every connection; new ones are served.
    pub fn drop_connections(&self) {
        self.reset.send_modify(|count| *count += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.drop_connections();
    }
}

async fn serve(
    client: TcpStream,
    target: String,
    modes: watch::Receiver<Mode>,
    mut resets: watch::Receiver<u64>,
    tampering: Arc<Tampering>,
) {
    resets.mark_unchanged();
    let forward = async {
        if *modes.borrow() == Mode::Down {
            return;
        }
        let mut waiting = modes.clone();
        if waiting.wait_for(|mode| *mode == Mode::Open).await.is_err() {
            return;
        }
        let Ok(server) = TcpStream::connect(&target).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let (lose, _) = watch::channel(false);
        // Either side ending ends both, as a reset would.
        tokio::select! {
            () = requests(from_client, to_server, modes.clone(), &tampering, &lose) => {}
            () = replies(from_server, to_client, modes.clone(), &tampering, &lose) => {}
        }
    };
    tokio::select! {
        () = forward => {}
        _ = resets.changed() => {}
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    tampering: &Tampering,
    lose: &watch::Sender<bool>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if modes.wait_for(|mode| *mode == Mode::Open).await.is_err() {
            return;
        }
        if tampering.loses_reply(&buffer[..read]) {
            lose.send_replace(true);
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    tampering: &Tampering,
    lose: &watch::Sender<bool>,
) {
    let losing = lose.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    let mut withheld = Vec::new();
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if modes.wait_for(|mode| *mode == Mode::Open).await.is_err() {
            return;
        }
        let reply = &mut buffer[..read];
        if *losing.borrow() {
            withheld.extend_from_slice(reply);
            let says = |tag: &[u8]| withheld.windows(tag.len()).any(|bytes| bytes == tag);
            if says(b"COMMIT\0") {
                tampering.replies_lost.fetch_add(1, Ordering::SeqCst);
                return;
            }
            if !says(b"ROLLBACK\0") {
                continue;
            }
            // It did not take place, and that may be known: another one's reply will be lost.
            tampering.replies_to_lose.fetch_add(1, Ordering::SeqCst);
            lose.send_replace(false);
            if to.write_all(&withheld).await.is_err() {
                return;
            }
            withheld.clear();
            continue;
        }
        tampering.replace(reply);
        if to.write_all(reply).await.is_err() {
            return;
        }
    }
}
