//! How a handler says that its answer will be long in coming.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{extract::FromRequestParts, http::request::Parts};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// What is known of one request's wait. Each request has its own, so that whoever keeps a part of an
/// old request says nothing of the one in flight.
#[derive(Debug)]
pub(super) struct Signs {
    is_long: AtomicBool,
    /// Whether everything of the request that is on the wire was read.
    body_read: AtomicBool,
}

impl Signs {
    pub(super) fn new(body_read: bool) -> Self {
        Self { is_long: AtomicBool::new(false), body_read: AtomicBool::new(body_read) }
    }

    /// Whether a long wait has begun, and what follows on the wire is the next request's.
    pub(super) fn may_detach(&self) -> bool {
        self.is_long() && self.body_read.load(Ordering::Relaxed)
    }

    pub(super) fn is_long(&self) -> bool {
        self.is_long.load(Ordering::Relaxed)
    }
}

/// A handler's word that it waits. Extracted from the request; without a server that knows of it, as
/// in tests of a router alone, it does nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct LongWait(Option<Arc<Signs>>);

impl LongWait {
    pub(super) fn of(signs: Arc<Signs>) -> Self {
        Self(Some(signs))
    }

    /// The handler, or the body of its answer, now waits for something that may take seconds: what
    /// the connection holds for quick answers may be given back. It is no promise, and costs little
    /// where the wait turns out to be short.
    ///
    /// Let go of the request's headers and URI before: they are slices of the buffer that was read.
    pub(crate) fn begins(&self) {
        if let Some(signs) = &self.0 {
            signs.is_long.store(true, Ordering::Relaxed);
        }
    }

    /// Waits; if it takes longer than `quick`, it is a long wait from then on.
    pub(crate) async fn begins_after<F: Future>(&self, quick: Duration, wait: F) -> F::Output {
        let mut wait = pin!(wait);
        if let Ok(output) = tokio::time::timeout(quick, wait.as_mut()).await {
            return output;
        }
        self.begins();
        wait.await
    }
}

impl<S: Sync> FromRequestParts<S> for LongWait {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// A request's body, which says when it was read to its end.
pub(super) struct Received {
    body: Incoming,
    signs: Option<Arc<Signs>>,
}

impl Received {
    pub(super) fn new(body: Incoming, signs: Option<Arc<Signs>>) -> Self {
        Self { body, signs }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        // Only this end is taken for one: hyper tells it after it has read the whole message, while
        // the length of what has arrived says nothing of chunks and trailers.
        if frame.is_none()
            && let Some(signs) = &self.signs
        {
            signs.body_read.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
