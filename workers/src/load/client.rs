//! One keep-alive HTTP/1.1 connection to the API. It is made again when it breaks.

use std::{net::ToSocketAddrs, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode, Uri,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::LoadError;

/// RFC 7240.
const PREFER: HeaderName = HeaderName::from_static("prefer");
/// How long an answer may take; long-polls are shorter than this.
const PATIENCE: Duration = Duration::from_secs(75);

/// Why a request has no answer. Whether it was executed is unknown: send it again, with the same
/// id.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    /// The request cannot be written.
    #[error("not a request: {0}")]
    Request(String),
    /// No answer in time.
    #[error("no answer within {PATIENCE:?}")]
    Timeout,
}

/// Where the API is, and who asks.
#[derive(Clone, Debug)]
pub struct Target(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: HeaderValue,
    address: String,
    authorization: Option<HeaderValue>,
}

impl Target {
    /// Reads `http://host:port`.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, LoadError> {
        let wrong = || LoadError::Address(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if uri.scheme_str() != Some("http") || !matches!(uri.path(), "" | "/") {
            return Err(wrong());
        }
        let authorization = token.map(|token| HeaderValue::from_str(&format!("Bearer {token}")));
        Ok(Self(Arc::new(Inner {
            host: HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?,
            address: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)),
            authorization: authorization.transpose().map_err(|_| wrong())?,
        })))
    }
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
    /// When to come again.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// Whether nothing was accepted and the same request may succeed later.
    pub fn is_temporary(&self) -> bool {
        self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// The body, shortened, for messages.
    pub fn in_words(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        format!("{} {}", self.status, body.chars().take(300).collect::<String>())
    }
}

/// A connection, made when it is first needed.
#[derive(Debug)]
pub struct Connection {
    target: Target,
    /// `Prefer`, with everything that is sent.
    prefer: Option<HeaderValue>,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// A connection to there, not made yet.
    pub fn new(target: &Target) -> Self {
        Self { target: target.clone(), prefer: None, sender: None }
    }

    /// What is sent waits for its end, up to so many seconds: `Prefer: wait=N`.
    #[must_use]
    pub fn that_waits(self, seconds: u32) -> Self {
        let prefer = HeaderValue::from_str(&format!("wait={seconds}"));
        Self { prefer: prefer.ok(), ..self }
    }

    /// What is sent from now on has this preference, or none.
    pub fn prefers(&mut self, preference: Option<HeaderValue>) {
        self.prefer = preference;
    }

    /// Asks for a resource.
    pub async fn get(&mut self, path: &str) -> Result<Answer, ClientError> {
        self.send(Method::GET, &uri_of(path)?, None, Bytes::new()).await
    }

    /// Asks for the end of a resource.
    pub async fn delete(&mut self, path: &str) -> Result<Answer, ClientError> {
        self.send(Method::DELETE, &uri_of(path)?, None, Bytes::new()).await
    }

    /// Sends a body.
    pub async fn post(
        &mut self,
        uri: &Uri,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        self.send(Method::POST, uri, Some(HeaderValue::from_static(content_type)), body).await
    }

    async fn send(
        &mut self,
        method: Method,
        uri: &Uri,
        content_type: Option<HeaderValue>,
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let answered =
            tokio::time::timeout(PATIENCE, self.exchange(method, uri, content_type, body));
        let result = answered.await.unwrap_or(Err(ClientError::Timeout));
        if result.is_err() {
            self.sender = None;
        }
        result
    }

    async fn exchange(
        &mut self,
        method: Method,
        uri: &Uri,
        content_type: Option<HeaderValue>,
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.target.0.host.clone());
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
        if let Some(prefer) = &self.prefer {
            headers.insert(PREFER, prefer.clone());
        }
        if let Some(authorization) = &self.target.0.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => connect(&self.target.0.address).await?,
        };
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok().map(Duration::from_secs));
        let body = response.into_body().collect().await?.to_bytes();
        self.sender = Some(sender);
        Ok(Answer { status, body, retry_after })
    }
}

fn uri_of(path: &str) -> Result<Uri, ClientError> {
    path.parse().map_err(|error| ClientError::Request(format!("{path}: {error}")))
}

async fn connect(address: &str) -> Result<SendRequest<Full<Bytes>>, ClientError> {
    let stream = match address.to_socket_addrs() {
        // A numeric address, or one from the hosts file: the usual case, without a thread.
        Ok(mut addresses) => match addresses.next() {
            Some(address) => TcpStream::connect(address).await,
            None => Err(std::io::ErrorKind::AddrNotAvailable.into()),
        },
        Err(error) => Err(error),
    };
    let stream = stream.map_err(ClientError::Connect)?;
    stream.set_nodelay(true).map_err(ClientError::Connect)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Errors of the connection show themselves in the requests that it carried.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_addresses_are_taken() {
        assert!(Target::new("http://127.0.0.1:8080", None).is_ok());
        assert!(Target::new("http://localhost:8080/", Some("secret")).is_ok());
        for wrong in ["https://host", "host:80", "http://host/v1", ""] {
            assert!(Target::new(wrong, None).is_err(), "{wrong}");
        }
    }
}
