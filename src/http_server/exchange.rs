//! One request and its answer, where both hyper and the task of the connection reach them.
//!
//! hyper drives them as long as it has the connection. While they wait they can be taken out of its
//! hands, without either of them noticing.

use std::{
    convert::Infallible,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    http::{Method, Request, Response, StatusCode, Version, header, response},
};
use bytes::Bytes;
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    service::Service,
};

use super::{
    Server,
    long_wait::{LongWait, Received, Signs},
};

/// A handler at work. It does not panic.
pub(super) type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// What must be known of a request to go on with its connection after its answer.
pub(super) struct Asked {
    method: Method,
    version: Version,
    /// The client wants the connection to go on (RFC 9112, section 9.3).
    pub(super) keeps_alive: bool,
    signs: Arc<Signs>,
}

impl Asked {
    /// `None`: hyper must keep it, because the connection may become something else, or because the
    /// end of the request is not simple to tell.
    fn of(request: &Request<Incoming>) -> Option<Self> {
        let headers = request.headers();
        let odd = [header::UPGRADE, header::TRANSFER_ENCODING];
        if request.method() == Method::CONNECT || odd.iter().any(|it| headers.contains_key(it)) {
            return None;
        }
        let says = |word: &str| {
            let values = headers.get_all(header::CONNECTION).iter();
            let mut words =
                values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
            words.any(|said| said.trim().eq_ignore_ascii_case(word))
        };
        let version = request.version();
        Some(Self {
            method: request.method().clone(),
            version,
            keeps_alive: !says("close") && (version == Version::HTTP_11 || says("keep-alive")),
            signs: Arc::new(Signs::new(request.body().is_end_stream())),
        })
    }

    /// A head that makes hyper frame an answer as the head of this request did. Nothing that the
    /// client sent is in it but the method, which is a token.
    pub(super) fn stand_in(&self, closes: bool) -> String {
        let minor = u8::from(self.version == Version::HTTP_11);
        let connection = if self.keeps_alive && !closes { "keep-alive" } else { "close" };
        format!("{} / HTTP/1.{minor}\r\nconnection: {connection}\r\n\r\n", self.method)
    }

    /// Whether the answer's body waits, too, and hyper sends it in chunks (RFC 9112, section 6.3).
    fn streams(&self, head: &response::Parts, body: &Body) -> bool {
        let framed = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];
        self.signs.may_detach()
            && (self.version, head.version) == (Version::HTTP_11, Version::HTTP_11)
            && (&self.method, head.status) == (&Method::GET, StatusCode::OK)
            && body.size_hint().exact().is_none()
            && framed.iter().all(|name| !head.headers.contains_key(name))
    }
}

/// What was taken out of hyper's hands.
pub(super) enum Waiting {
    /// A handler that has not answered.
    Handler(Asked, Answer),
    /// The rest of an answer; the head and whole chunks of it are on the wire.
    Body(Asked, Body),
}

#[derive(Default)]
enum Stage {
    /// Nothing that could be taken.
    #[default]
    Idle,
    /// The handler is at work.
    Handling { asked: Option<Asked>, answer: Answer },
    /// The handler has answered while hyper did not have the connection.
    Answered { asked: Asked, response: Response<Body> },
    /// The answer is being sent.
    Sending { asked: Asked, body: Body, is_pending: bool },
}

#[derive(Default)]
pub(super) struct Exchange {
    stage: Mutex<Stage>,
}

impl Exchange {
    /// One whose next request is a stand-in, and has its answer already.
    pub(super) fn answered(asked: Asked, response: Response<Body>) -> Self {
        Self { stage: Mutex::new(Stage::Answered { asked, response }) }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits, if its wait is long. hyper must have written all that it has, and must be dropped
    /// then, because it would never hear of an end.
    pub(super) fn take_waiting(&self) -> Option<Waiting> {
        let mut stage = self.stage();
        match mem::take(&mut *stage) {
            Stage::Handling { asked: Some(asked), answer } if asked.signs.may_detach() => {
                Some(Waiting::Handler(asked, answer))
            }
            Stage::Sending { asked, body, is_pending: true } => Some(Waiting::Body(asked, body)),
            other => {
                *stage = other;
                None
            }
        }
    }

    fn poll_answer(
        self: &Arc<Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Response<Outgoing>, Infallible>> {
        let mut stage = self.stage();
        // No handler reaches this lock.
        if let Stage::Handling { answer, .. } = &mut *stage {
            let response = ready!(answer.as_mut().poll(context));
            if let Stage::Handling { asked, .. } = mem::take(&mut *stage) {
                return Poll::Ready(Ok(self.outgoing(&mut stage, asked, response)));
            }
        }
        match mem::take(&mut *stage) {
            Stage::Answered { asked, response } => {
                Poll::Ready(Ok(self.outgoing(&mut stage, Some(asked), response)))
            }
            other => {
                *stage = other;
                Poll::Pending
            }
        }
    }

    fn outgoing(
        self: &Arc<Self>,
        stage: &mut Stage,
        asked: Option<Asked>,
        response: Response<Body>,
    ) -> Response<Outgoing> {
        let (head, body) = response.into_parts();
        let body = match asked.filter(|asked| asked.streams(&head, &body)) {
            Some(asked) => {
                *stage = Stage::Sending { asked, body, is_pending: false };
                Outgoing::Held(self.clone())
            }
            None => Outgoing::Own(body),
        };
        Response::from_parts(head, body)
    }

    fn poll_body(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut stage = self.stage();
        let Stage::Sending { body, is_pending, .. } = &mut *stage else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
        *is_pending = frame.is_pending();
        if let Poll::Ready(None | Some(Err(_))) = &frame {
            *stage = Stage::Idle;
        }
        frame
    }
}

/// What hyper asks for answers.
pub(super) struct Requests {
    pub(super) server: Arc<Server>,
    pub(super) exchange: Arc<Exchange>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let mut stage = self.exchange.stage();
        if !matches!(*stage, Stage::Answered { .. }) {
            let asked = Asked::of(&request);
            let signs = asked.as_ref().map(|asked| asked.signs.clone());
            let mut request = request.map(|body| Received::new(body, signs.clone()));
            if let Some(signs) = signs {
                request.extensions_mut().insert(LongWait::of(signs));
            }
            let answer = self.server.answer(request);
            *stage = Stage::Handling { asked, answer };
        }
        Answering(self.exchange.clone())
    }
}

/// The answer, as hyper waits for it.
pub(super) struct Answering(Arc<Exchange>);

impl Future for Answering {
    type Output = Result<Response<Outgoing>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_answer(context)
    }
}

/// The body of an answer, as hyper sends it.
pub(super) enum Outgoing {
    Own(Body),
    /// It can be taken out of hyper's hands.
    Held(Arc<Exchange>),
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body).poll_frame(context),
            Self::Held(exchange) => exchange.poll_body(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Own(body) if body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Held(_) => SizeHint::default(),
        }
    }
}
