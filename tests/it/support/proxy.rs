//! A TCP proxy that can fail like a network: for RabbitMQ, PostgreSQL or anything else.

use std::net::SocketAddr;

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

/// Forwards to `target` until dropped; then all connections end.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    reset: watch::Sender<u64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of the loopback.
    pub async fn to(target: impl Into<String>) -> Self {
        Self::listening_on(SocketAddr::from(([127, 0, 0, 1], 0)), target).await
    }

    /// Listens on an address that somebody knows already.
    pub async fn listening_on(address: SocketAddr, target: impl Into<String>) -> Self {
        let target = target.into();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Open);
        let (reset, resets) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, modes, resets) = (target.clone(), modes.clone(), resets.clone());
                tokio::spawn(serve(client, target, modes, resets));
            }
        });
        Self { address, mode, reset, accepting }
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
        // Either side ending ends both, as a reset would.
        tokio::select! {
            () = copy(from_client, to_server, modes.clone()) => {}
            () = copy(from_server, to_client, modes.clone()) => {}
        }
    };
    tokio::select! {
        () = forward => {}
        _ = resets.changed() => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut modes: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if modes.wait_for(|mode| *mode == Mode::Open).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
