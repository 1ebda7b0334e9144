//! The HTTP API as a client sees it.

use std::time::Duration;

use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER},
};
use serde_json::Value;

use crate::failure::Failure;

/// Waits of the service are at most this many seconds; longer ones are repeated.
pub(crate) const LONGEST_WAIT: u64 = 30;

/// No client can be told to wait without a limit; this is one.
const FOR_EVER: Duration = Duration::from_hours(24 * 365);

/// A service.
#[derive(Clone)]
pub(crate) struct Api {
    base: String,
    client: reqwest::Client,
}

/// An answer that is neither a redirect nor a failure of the connection.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Api {
    pub(crate) fn new(url: &str, token: Option<&str>) -> Result<Self, Failure> {
        // Only fails when a provider was installed before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = url.trim_end_matches('/').to_owned();
        let parsed = reqwest::Url::parse(&base)
            .map_err(|error| Failure::Usage(format!("`{url}` is no URL: {error}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(Failure::Usage(format!("`{url}` must start with http:// or https://")));
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| Failure::Usage("the token is not visible ASCII".into()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let client = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(LONGEST_WAIT + 60))
            .build()
            .map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Self { base, client })
    }

    /// A request to a path whose parts are escaped here.
    pub(crate) fn request(
        &self,
        method: Method,
        parts: &[&str],
    ) -> Result<RequestBuilder, Failure> {
        let mut url = reqwest::Url::parse(&self.base)
            .map_err(|error| Failure::Usage(format!("`{}` is no URL: {error}", self.base)))?;
        url.path_segments_mut()
            .map_err(|()| Failure::Usage(format!("`{}` cannot be a base", self.base)))?
            .pop_if_empty()
            .push("v1")
            .extend(parts);
        Ok(self.client.request(method, url))
    }

    /// Sends, and returns whatever the service answers.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let failed = |error: reqwest::Error| self.unreachable(&error);
        let response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.text().await.map_err(failed)?;
        Ok(Answer { status, headers, body })
    }

    /// Sends, and returns a success whose body may come for as long as it likes.
    pub(crate) async fn open(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.timeout(FOR_EVER).send().await;
        let response = response.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.text().await.map_err(|error| self.unreachable(&error))?;
        let problem = serde_json::from_str(&body).unwrap_or(Value::Null);
        Err(Failure::Answer { status: status.as_u16(), problem })
    }

    /// Where the service should be.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The connection failed.
    pub(crate) fn unreachable(&self, error: &dyn std::error::Error) -> Failure {
        Failure::Unreachable { url: self.base.clone(), reason: innermost(error) }
    }

    /// Sends, and expects success with JSON.
    pub(crate) async fn json(&self, request: RequestBuilder) -> Result<Value, Failure> {
        self.send(request).await?.json()
    }

    /// A GET with these query parameters.
    pub(crate) async fn get(
        &self,
        parts: &[&str],
        query: &[(&str, String)],
    ) -> Result<Value, Failure> {
        self.json(self.request(Method::GET, parts)?.query(query)).await
    }

    /// Items of a list, page by page, at most `limit`.
    pub(crate) async fn list(
        &self,
        parts: &[&str],
        query: &[(&str, String)],
        limit: usize,
    ) -> Result<Vec<Value>, Failure> {
        self.pages(parts, query, None, limit).await
    }

    /// Items of a list after a version, page by page, at most `limit`.
    pub(crate) async fn list_after(
        &self,
        parts: &[&str],
        after: i64,
        limit: usize,
    ) -> Result<Vec<Value>, Failure> {
        self.pages(parts, &[], Some(after.to_string()), limit).await
    }

    async fn pages(
        &self,
        parts: &[&str],
        query: &[(&str, String)],
        mut after: Option<String>,
        limit: usize,
    ) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        while items.len() < limit {
            let mut query = query.to_vec();
            query.push(("limit", (limit - items.len()).min(500).to_string()));
            query.extend(after.take().map(|after| ("after", after)));
            let mut page = self.get(parts, &query).await?;
            if let Value::Array(found) = page["items"].take() {
                items.extend(found);
            }
            match page["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => break,
            }
        }
        Ok(items)
    }
}

impl Answer {
    /// The body of a success; everything else is a failure.
    pub(crate) fn json(&self) -> Result<Value, Failure> {
        let body = serde_json::from_str(&self.body).unwrap_or(Value::Null);
        if self.status.is_success() && !body.is_null() {
            Ok(body)
        } else {
            Err(Failure::Answer { status: self.status.as_u16(), problem: body })
        }
    }

    /// How long to wait before it is worth trying again, if it is.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
        matches!(self.status.as_u16(), 429 | 503).then(|| Duration::from_secs(seconds))
    }
}

/// The cause that says most: reqwest's own text names only the URL.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
