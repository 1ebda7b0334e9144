//! The rest of an answer, in chunks (RFC 9112, section 7.1), without hyper.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::{Buf, Bytes, buf::Chain};
use hyper::body::Body as _;
use tokio::io::AsyncWrite as _;

use super::wire::Wire;

/// Size, data and line break: the data is not copied, because many may be sent the same.
type Chunk = Chain<Chain<Bytes, Bytes>, Bytes>;

/// Why the rest could not be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsent {
    #[error("the client is gone")]
    Gone,
    #[error(transparent)]
    Wire(#[from] io::Error),
    #[error(transparent)]
    Body(axum::Error),
}

/// A body on its way. It is asked for its next piece when the one before is written.
pub(super) struct Rest {
    body: Body,
    /// What is being written.
    chunk: Option<Chunk>,
    /// That is the last chunk.
    is_last: bool,
}

impl Rest {
    pub(super) fn new(body: Body) -> Self {
        Self { body, chunk: None, is_last: false }
    }

    /// Sends to the end. What the client sends meanwhile is read ahead.
    pub(super) fn poll_send(
        &mut self,
        wire: &mut Wire,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Unsent>> {
        let sent = self.poll_chunks(wire, context);
        if sent.is_pending() && wire.poll_gone(context).is_ready() {
            return Poll::Ready(Err(Unsent::Gone));
        }
        sent
    }

    fn poll_chunks(
        &mut self,
        wire: &mut Wire,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Unsent>> {
        loop {
            if let Some(chunk) = &mut self.chunk {
                ready!(poll_write_all(wire, chunk, context))?;
                self.chunk = None;
            }
            if self.is_last {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    // An empty chunk would be the last one; trailers nobody has asked for.
                    let data = frame.into_data().ok().filter(|data| !data.is_empty());
                    self.chunk = data.map(chunk);
                }
                Some(Err(error)) => return Poll::Ready(Err(Unsent::Body(error))),
                None => {
                    self.chunk = Some(chunk(Bytes::new()));
                    self.is_last = true;
                }
            }
        }
    }
}

fn chunk(data: Bytes) -> Chunk {
    let size = Bytes::from(format!("{:X}\r\n", data.len()));
    size.chain(data).chain(Bytes::from_static(b"\r\n"))
}

fn poll_write_all(
    wire: &mut Wire,
    bytes: &mut impl Buf,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while bytes.has_remaining() {
        let mut slices = [IoSlice::new(&[]); 3];
        let filled = bytes.chunks_vectored(&mut slices);
        let written = ready!(Pin::new(&mut *wire).poll_write_vectored(context, &slices[..filled]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        bytes.advance(written);
    }
    Pin::new(wire).poll_flush(context)
}
