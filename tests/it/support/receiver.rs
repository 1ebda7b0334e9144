//! A receiver of webhooks: a real HTTP server on loopback that answers what it is told to.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Response, StatusCode},
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::eventually;

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How one request is answered; when the list is used up: 200.
#[derive(Clone)]
pub enum Answer {
    Status(u16),
    /// 307 to this address.
    RedirectTo(String),
    /// Never.
    Hang,
    /// 500 with a body that does not end.
    Endless,
}

#[derive(Clone)]
pub struct Received {
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    inside: Arc<Mutex<(VecDeque<Answer>, Vec<Received>)>>,
}

impl Receiver {
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::start_on("127.0.0.1", answers).await
    }

    /// On another address of this machine: another host.
    pub async fn start_on(host: &str, answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = tokio::net::TcpListener::bind((host, 0)).await.expect("listen");
        let address = listener.local_addr().expect("address");
        let inside = Arc::new(Mutex::new((answers.into_iter().collect(), Vec::new())));
        let receiver = Self { address, inside };
        let router = Router::new().route("/hook", post(receive)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.inside.lock().expect("lock").1.clone()
    }

    /// Waits until so many requests have come.
    pub async fn until(&self, count: usize) -> Vec<Received> {
        eventually("requests arrive", async || {
            let received = self.received();
            (received.len() >= count).then_some(received)
        })
        .await
    }
}

async fn receive(State(it): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let answer = {
        let mut inside = it.inside.lock().expect("lock");
        inside.1.push(Received { headers, body });
        inside.0.pop_front()
    };
    let answered = |status| Response::builder().status(status);
    let response = match answer {
        None => answered(StatusCode::OK).body(Body::empty()),
        Some(Answer::Status(status)) => {
            answered(StatusCode::from_u16(status).expect("a status")).body(Body::from("no"))
        }
        Some(Answer::RedirectTo(place)) => {
            answered(StatusCode::TEMPORARY_REDIRECT).header("location", place).body(Body::empty())
        }
        Some(Answer::Hang) => std::future::pending().await,
        Some(Answer::Endless) => {
            let chunks = futures_util::stream::repeat_with(|| {
                Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 8_192]))
            });
            answered(StatusCode::INTERNAL_SERVER_ERROR).body(Body::from_stream(chunks))
        }
    };
    response.expect("a response")
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Condition, subject and state of each change.
    pub fn alerts(&self) -> Vec<(String, String, String)> {
        let json = self.json();
        let word = |alert: &Value, key: &str| alert[key].as_str().expect(key).to_owned();
        let alerts = json["data"]["alerts"].as_array().expect("alerts");
        alerts
            .iter()
            .map(|a| (word(a, "condition"), word(a, "subject"), word(a, "state")))
            .collect()
    }

    /// As a receiver checks it: HMAC (RFC 2104) written out.
    pub fn assert_signed(&self) {
        let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).expect("base64");
        let pad = |with: u8| {
            let mut block = [with; 64];
            block.iter_mut().zip(&key).for_each(|(byte, key)| *byte ^= key);
            block
        };
        let mut inner = Sha256::new();
        inner.update(pad(0x36));
        inner.update(format!("{}.{}.", self.id(), self.header("webhook-timestamp")));
        inner.update(&self.body);
        let mut outer = Sha256::new();
        outer.update(pad(0x5c));
        outer.update(inner.finalize());
        let signature = format!("v1,{}", STANDARD.encode(outer.finalize()));
        assert_eq!(self.header("webhook-signature"), signature);
        let sent_at: i64 = self.header("webhook-timestamp").parse().expect("seconds");
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        assert!((now - sent_at).abs() < 300, "sent at {sent_at}, received at {now}");
    }
}
