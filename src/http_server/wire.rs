//! The socket of a connection, with what was read ahead of its turn.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stall::Unstalled;

/// How much is read ahead at most while a request waits, in bytes: requests that are sent without
/// waiting for answers. More stays in the kernel.
pub(super) const MOST_AHEAD: usize = 4 << 10;
/// How much is read ahead at a time.
const PIECE: usize = 512;

pub(super) struct Wire {
    stream: Unstalled,
    /// What is read before anything of the socket.
    ahead: BytesMut,
    flushed: Flushed,
}

/// Whether everything was written that whoever has the wire had to write: after a write, the wire was
/// flushed. Whoever buffers flushes when the buffer is empty and not before.
#[derive(Clone)]
pub(super) struct Flushed(Arc<AtomicBool>);

impl Flushed {
    pub(super) fn holds(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, holds: bool) {
        self.0.store(holds, Ordering::Relaxed);
    }
}

impl Wire {
    pub(super) fn new(stream: Unstalled) -> Self {
        let flushed = Flushed(Arc::new(AtomicBool::new(true)));
        Self { stream, ahead: BytesMut::new(), flushed }
    }

    pub(super) fn flushed(&self) -> Flushed {
        self.flushed.clone()
    }

    /// Makes `bytes` what is read next.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let mut ahead = BytesMut::with_capacity(bytes.len() + self.ahead.len());
            ahead.extend_from_slice(bytes);
            ahead.extend_from_slice(&self.ahead);
            self.ahead = ahead;
        }
    }

    /// Ready when the client is gone; until then, what it sends is read ahead. A client that sends
    /// more than [`MOST_AHEAD`] is not noticed when it goes, until something is written to it.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.ahead.len() < MOST_AHEAD {
            let mut piece = [0; PIECE];
            let room = PIECE.min(MOST_AHEAD - self.ahead.len());
            let mut piece = ReadBuf::new(&mut piece[..room]);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece));
            if read.is_err() || piece.filled().is_empty() {
                return Poll::Ready(());
            }
            self.ahead.extend_from_slice(piece.filled());
        }
        Poll::Pending
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let taken = buffer.remaining().min(self.ahead.len());
        buffer.put_slice(&self.ahead[..taken]);
        self.ahead.advance(taken);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.flushed.set(false);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.flushed.set(false);
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.flushed.set(true);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    async fn wire() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = Unstalled::new(listener.accept().await.unwrap().0, Duration::from_secs(30));
        (Wire::new(stream), client)
    }

    #[tokio::test]
    async fn no_more_than_the_bound_is_read_ahead_and_nothing_is_lost() {
        let (mut wire, mut client) = wire().await;
        let sent: Vec<u8> = (0..10_000).map(|n| (n % 251) as u8).collect();
        client.write_all(&sent).await.unwrap();
        let full = async {
            while wire.ahead.len() < MOST_AHEAD {
                let poll = poll_fn(|context| Poll::Ready(wire.poll_gone(context))).await;
                assert!(poll.is_pending());
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), full).await.unwrap();
        drop(client);
        let poll = poll_fn(|context| Poll::Ready(wire.poll_gone(context))).await;
        assert!(poll.is_pending(), "nothing more is read");
        assert_eq!(wire.ahead.len(), MOST_AHEAD);
        wire.put_back(b"before");
        let mut read = Vec::new();
        wire.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, [b"before", sent.as_slice()].concat());
    }

    #[tokio::test]
    async fn it_is_flushed_when_a_flush_followed_the_last_write() {
        let (mut wire, _client) = wire().await;
        let flushed = wire.flushed();
        assert!(flushed.holds());
        wire.write_all(b"x").await.unwrap();
        assert!(!flushed.holds());
        wire.flush().await.unwrap();
        assert!(flushed.holds());
    }
}
