//! A TCP proxy that fails like a network. Every process of the service reaches PostgreSQL and
//! RabbitMQ through proxies of its own.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::{error::ChaosError, ports::loopback};

/// What the proxy does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Passes everything on.
    Open,
    /// Closes every connection, and new ones at once.
    Drop,
    /// Passes everything on, but so much later, in each direction.
    Delay(Duration),
    /// Takes everything and passes nothing on. A connection that has lost bytes this way is reset
    /// when the mode ends, as the other side of a real one would do when it hears of it again.
    HalfOpen,
    /// Resets every connection, and new ones when the first bytes come.
    Reset,
}

/// How much one direction of a connection may hold back: chunks of at most [`CHUNK`] bytes.
const CHUNKS: usize = 64;
const CHUNK: usize = 16 * 1024;

/// Forwards to one address until dropped; then all connections end.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of the loopback.
    pub(super) async fn to(target: String) -> Result<Self, ChaosError> {
        let refused = || ChaosError::io("a proxy cannot listen");
        let listener = TcpListener::bind(loopback(0)).await.map_err(refused())?;
        let address = listener.local_addr().map_err(refused())?;
        let (mode, modes) = watch::channel(Mode::Open);
        let accepting = tokio::spawn(accept(listener, target.into(), modes));
        Ok(Self { address, mode, accepting })
    }

    /// Where clients connect.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Behaves so from now on.
    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: Arc<str>, modes: watch::Receiver<Mode>) {
    // Dropped with this task: all connections end with the proxy.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(serve(client, target.clone(), modes.clone()));
                }
                // Out of descriptors, for example: others will be closed.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// How a connection ends.
enum End {
    /// One side has said all that it had to say.
    Finished,
    /// At once, but in order (FIN).
    Closed,
    /// By a reset.
    Reset,
}

async fn serve(client: TcpStream, target: Arc<str>, mut modes: watch::Receiver<Mode>) {
    let mode = *modes.borrow_and_update();
    match mode {
        Mode::Drop => return,
        Mode::Reset => return reset_at_first_bytes(client).await,
        Mode::HalfOpen => return swallow(client, modes).await,
        Mode::Open | Mode::Delay(_) => {}
    }
    let Ok(server) = TcpStream::connect(&*target).await else { return };
    // A socket that refuses these options is gone already.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Each direction answers with its halves, so that the sockets can be reset as a whole.
    let end = {
        let requests = pass(&from_client, &to_server, modes.clone());
        let replies = pass(&from_server, &to_client, modes);
        tokio::select! { end = requests => end, end = replies => end }
    };
    if matches!(end, End::Reset) {
        let both = [from_client.reunite(to_client), from_server.reunite(to_server)];
        for socket in both.into_iter().flatten() {
            let _ = socket.set_zero_linger();
        }
    }
}

async fn reset_at_first_bytes(mut client: TcpStream) {
    let mut buffer = [0; 1];
    let first = tokio::time::timeout(Duration::from_secs(5), client.read(&mut buffer));
    let _ = first.await;
    let _ = client.set_zero_linger();
}

/// A connection that was made while nothing passed: it never reached anybody.
async fn swallow(mut client: TcpStream, mut modes: watch::Receiver<Mode>) {
    let mut buffer = vec![0; CHUNK];
    let vanish = async { while let Ok(1..) = client.read(&mut buffer).await {} };
    tokio::select! {
        () = vanish => {}
        _ = modes.wait_for(|mode| *mode != Mode::HalfOpen) => {}
    }
    let _ = client.set_zero_linger();
}

/// Passes one direction on. What is read waits in a channel until its time has come, so that a
/// delay does not make the road narrower.
async fn pass(from: &OwnedReadHalf, to: &OwnedWriteHalf, modes: watch::Receiver<Mode>) -> End {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let mut later_modes = modes.clone();
    let mut writing = pin!(write(to, receiver));
    let end = tokio::select! {
        end = read(from, sender, modes) => end,
        end = &mut writing => return end,
    };
    if matches!(end, End::Finished) {
        // What was read before still has its time to come.
        tokio::select! {
            _ = writing => {}
            _ = later_modes.wait_for(|mode| matches!(mode, Mode::Drop | Mode::Reset)) => {}
        }
    }
    end
}

async fn read(
    from: &OwnedReadHalf,
    sender: mpsc::Sender<(Instant, Vec<u8>)>,
    mut modes: watch::Receiver<Mode>,
) -> End {
    let mut buffer = vec![0; CHUNK];
    let mut lost = false;
    let mut last_due = Instant::now();
    loop {
        let mode = *modes.borrow_and_update();
        match mode {
            Mode::Drop => return End::Closed,
            Mode::Reset => return End::Reset,
            Mode::Open | Mode::Delay(_) if lost => return End::Reset,
            _ => {}
        }
        let read = tokio::select! {
            changed = modes.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return End::Closed,
            },
            readable = from.readable() => match readable {
                Ok(()) => from.try_read(&mut buffer),
                Err(_) => return End::Closed,
            },
        };
        let read = match read {
            Ok(0) if mode == Mode::HalfOpen => {
                // Nobody on the other side is told that this side has gone.
                lost = true;
                if modes.wait_for(|mode| *mode != Mode::HalfOpen).await.is_err() {
                    return End::Closed;
                }
                continue;
            }
            Ok(0) => return End::Finished,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return End::Closed,
        };
        let due = match mode {
            Mode::HalfOpen => {
                lost = true;
                continue;
            }
            Mode::Delay(delay) => Instant::now() + delay,
            _ => Instant::now(),
        };
        last_due = due.max(last_due);
        let chunk = buffer.get(..read).unwrap_or_default().to_vec();
        if sender.send((last_due, chunk)).await.is_err() {
            return End::Closed;
        }
    }
}

async fn write(to: &OwnedWriteHalf, mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>) -> End {
    while let Some((due, chunk)) = chunks.recv().await {
        tokio::time::sleep_until(due).await;
        let mut left = chunk.as_slice();
        while !left.is_empty() {
            if to.writable().await.is_err() {
                return End::Closed;
            }
            match to.try_write(left) {
                Ok(written) => left = left.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return End::Closed,
            }
        }
    }
    End::Closed
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// A server that sends back what it gets.
    async fn echo() -> String {
        let listener = TcpListener::bind(loopback(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address.to_string()
    }

    async fn ask(socket: &mut TcpStream, words: &[u8]) -> std::io::Result<Vec<u8>> {
        socket.write_all(words).await?;
        let mut answer = vec![0; words.len()];
        socket.read_exact(&mut answer).await?;
        Ok(answer)
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address()).await.unwrap()
    }

    #[tokio::test]
    async fn an_open_proxy_passes_everything_on_in_order() {
        let proxy = Proxy::to(echo().await).await.unwrap();
        let mut socket = connect(&proxy).await;
        let words: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut from, mut to) = socket.split();
        let mut answer = vec![0; words.len()];
        let (sent, read) = tokio::join!(to.write_all(&words), from.read_exact(&mut answer));
        sent.unwrap();
        read.unwrap();
        assert!(answer == words);
    }

    #[tokio::test]
    async fn a_delay_makes_both_ways_longer() {
        let proxy = Proxy::to(echo().await).await.unwrap();
        let mut socket = connect(&proxy).await;
        ask(&mut socket, b"quick").await.unwrap();
        proxy.set(Mode::Delay(Duration::from_millis(60)));
        let began = Instant::now();
        assert_eq!(ask(&mut socket, b"slow").await.unwrap(), b"slow");
        assert!(began.elapsed() >= Duration::from_millis(120), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn dropped_connections_end_in_order_and_new_ones_at_once() {
        let proxy = Proxy::to(echo().await).await.unwrap();
        let mut socket = connect(&proxy).await;
        ask(&mut socket, b"hello").await.unwrap();
        proxy.set(Mode::Drop);
        assert_eq!(socket.read(&mut [0; 8]).await.unwrap(), 0, "an end, no reset");
        let mut other = connect(&proxy).await;
        assert!(ask(&mut other, b"hello").await.is_err());
        proxy.set(Mode::Open);
        assert_eq!(ask(&mut connect(&proxy).await, b"again").await.unwrap(), b"again");
    }

    #[tokio::test]
    async fn a_reset_is_a_reset() {
        let proxy = Proxy::to(echo().await).await.unwrap();
        let mut socket = connect(&proxy).await;
        ask(&mut socket, b"hello").await.unwrap();
        proxy.set(Mode::Reset);
        let error = socket.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let error = ask(&mut connect(&proxy).await, b"hello").await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn bytes_vanish_and_the_connection_that_lost_some_is_reset_afterwards() {
        let proxy = Proxy::to(echo().await).await.unwrap();
        let (mut silent, mut talking) = (connect(&proxy).await, connect(&proxy).await);
        ask(&mut silent, b"hello").await.unwrap();
        ask(&mut talking, b"hello").await.unwrap();
        proxy.set(Mode::HalfOpen);
        talking.write_all(b"lost").await.unwrap();
        let answer = talking.read_u8();
        let waited = tokio::time::timeout(Duration::from_millis(100), answer).await;
        assert!(waited.is_err(), "nothing comes, not even an end");
        proxy.set(Mode::Open);
        let error = talking.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(ask(&mut silent, b"here").await.unwrap(), b"here", "it had lost nothing");
    }
}
