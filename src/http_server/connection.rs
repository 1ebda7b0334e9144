//! The task of one connection: hyper has it while there is something to do, and nobody has it while
//! its request waits.
//!
//! hyper keeps buffers of 8 KiB each for reading and writing as long as it has a connection. A request
//! that says that it waits long ([`super::LongWait`]) is therefore taken out of hyper's hands, and
//! hyper is dropped. Its answer is written by a new one, to which a short head stands in for the
//! request; only the chunks of a body that itself waits are written here.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use axum::{body::Body, http::Response};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_util::sync::CancellationToken;

use super::{
    Counted, Server,
    chunks::Rest,
    exchange::{Answer, Exchange, Requests, Waiting},
    stall::Unstalled,
    wire::Wire,
};

impl Server {
    /// Serves one connection to its end; after `stop`, to the end of the request in flight, and not
    /// longer than the drain timeout.
    pub(super) async fn connection(self: Arc<Self>, stream: TcpStream, stop: CancellationToken) {
        let _counted = self.limits.connections_gauge.map(Counted::up);
        // Answers are small: do not wait to fill packets. Failing, they are only slower.
        let _ = stream.set_nodelay(true);
        // What follows hands it from one to the other, and has room for it at each of them.
        let wire = Box::new(Wire::new(Unstalled::new(stream, self.limits.write_timeout)));
        let overdue = async {
            stop.cancelled().await;
            Box::pin(tokio::time::sleep(self.limits.drain_timeout)).await;
        };
        tokio::select! {
            () = self.drive(wire, &stop) => {}
            () = overdue => {}
        }
    }

    async fn drive(self: &Arc<Self>, mut wire: Box<Wire>, stop: &CancellationToken) {
        let mut exchange = Arc::default();
        // In a box, because whoever waits has no need of the room.
        while let Some((detached, waiting)) = Box::pin(self.by_hyper(wire, exchange, stop)).await {
            wire = detached;
            let counted = self.limits.detached_gauge.map(Counted::up);
            exchange = match waiting {
                Waiting::Handler(asked, answer) => {
                    let Some(response) = answer_of(&mut wire, answer).await else { return };
                    wire.put_back(asked.stand_in(stop.is_cancelled()).as_bytes());
                    Arc::new(Exchange::answered(asked, response))
                }
                Waiting::Body(asked, body) => {
                    if !send_rest(&mut wire, body).await {
                        return;
                    }
                    if !asked.keeps_alive || stop.is_cancelled() {
                        // Failing, it is closed already.
                        let _ = wire.shutdown().await;
                        return;
                    }
                    Arc::default()
                }
            };
            drop(counted);
        }
    }

    /// Has hyper serve requests, until the connection has ended (`None`) or its request waits.
    async fn by_hyper(
        self: &Arc<Self>,
        wire: Box<Wire>,
        exchange: Arc<Exchange>,
        stop: &CancellationToken,
    ) -> Option<(Box<Wire>, Waiting)> {
        let flushed = wire.flushed();
        let requests = Requests { server: self.clone(), exchange: exchange.clone() };
        // It is large, and not needed while a request waits.
        let mut hyper = Box::new(self.http.serve_connection(TokioIo::new(wire), requests));
        let mut stopped = pin!(stop.cancelled());
        let mut told = false;
        let waiting = poll_fn(|context| {
            loop {
                if let Poll::Ready(ended) = Pin::new(&mut *hyper).poll(context) {
                    return Poll::Ready(Err(ended));
                }
                if flushed.holds()
                    && let Some(waiting) = exchange.take_waiting()
                {
                    return Poll::Ready(Ok(waiting));
                }
                // Told only after it has seen what was put back for it: it would take a connection
                // on which nothing has happened for idle, and close it.
                if told || stopped.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                told = true;
                Pin::new(&mut *hyper).graceful_shutdown();
            }
        });
        match waiting.await {
            Ok(waiting) => {
                let parts = hyper.into_parts();
                let mut wire = parts.io.into_inner();
                wire.put_back(&parts.read_buf);
                Some((wire, waiting))
            }
            Err(ended) => {
                if let Err(error) = ended {
                    // The client broke off, was too slow or sent something else than HTTP.
                    tracing::debug!(%error, "a connection ended");
                }
                None
            }
        }
    }
}

/// What the handler answers; `None`: the client is gone, and so is the handler then.
async fn answer_of(wire: &mut Wire, mut answer: Answer) -> Option<Response<Body>> {
    poll_fn(|context| {
        if let Poll::Ready(response) = answer.as_mut().poll(context) {
            return Poll::Ready(Some(response));
        }
        wire.poll_gone(context).map(|()| None)
    })
    .await
}

/// Sends the rest of an answer; `false`: it was broken off.
async fn send_rest(wire: &mut Wire, body: Body) -> bool {
    let mut rest = Rest::new(body);
    let sent = poll_fn(|context| rest.poll_send(wire, context)).await;
    if let Err(error) = &sent {
        tracing::debug!(%error, "an answer was broken off");
    }
    sent.is_ok()
}
