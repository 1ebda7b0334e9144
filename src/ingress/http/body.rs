//! Reading request bodies from clients that may send too much, too slowly, or never to the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use crate::ingress::{Problem, ProblemCode};

/// How much of an oversized body is read and thrown away, so that a client that sends before it
/// listens gets to read the answer.
const DISCARDED: usize = 1 << 20;

/// How many bytes of bodies are in memory, over all connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct BodyMemory {
    used: Arc<AtomicUsize>,
    limit: usize,
}

impl BodyMemory {
    pub(super) fn new(limit: usize) -> Self {
        Self { used: Arc::default(), limit }
    }
}

/// A body that was read; its memory is given back when it is dropped.
pub(super) struct Received {
    pub(super) bytes: Bytes,
    _held: Held,
}

struct Held {
    memory: BodyMemory,
    bytes: usize,
}

impl Held {
    fn grow(&mut self, by: usize) -> Result<(), Problem> {
        self.bytes += by;
        let before = self.memory.used.fetch_add(by, Ordering::Relaxed);
        if before + by > self.memory.limit {
            let detail = "too many bodies are being received";
            return Err(Problem::new(ProblemCode::Overloaded, detail));
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a whole body of at most `limit` bytes.
pub(super) async fn read(
    memory: &BodyMemory,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    within: Duration,
) -> Result<Received, Problem> {
    let mut stream = body.into_data_stream();
    let reading = async {
        let declared = content_length(headers).unwrap_or(0);
        let result = if declared > limit {
            Err(too_large(limit))
        } else {
            collect(memory, &mut stream, limit).await
        };
        // A client that asked first (`Expect: 100-continue`) has sent nothing to throw away.
        let asked_first = headers.contains_key(header::EXPECT);
        if matches!(&result, Err(problem) if problem.status == 413) && !asked_first {
            discard(&mut stream).await;
        }
        result
    };
    tokio::time::timeout(within, reading).await.unwrap_or_else(|_| {
        let detail = format!("the body did not arrive within {} ms", within.as_millis());
        Err(Problem::new(ProblemCode::RequestTimeout, detail))
    })
}

async fn collect(
    memory: &BodyMemory,
    stream: &mut BodyDataStream,
    limit: usize,
) -> Result<Received, Problem> {
    let mut held = Held { memory: memory.clone(), bytes: 0 };
    let Some(first) = next(stream, &mut held, limit).await? else {
        return Ok(Received { bytes: Bytes::new(), _held: held });
    };
    let Some(second) = next(stream, &mut held, limit).await? else {
        // The usual case: it came in one piece and is not copied.
        return Ok(Received { bytes: first, _held: held });
    };
    let mut all = BytesMut::with_capacity(first.len() + second.len());
    all.extend_from_slice(&first);
    all.extend_from_slice(&second);
    while let Some(chunk) = next(stream, &mut held, limit).await? {
        all.extend_from_slice(&chunk);
    }
    Ok(Received { bytes: all.freeze(), _held: held })
}

async fn next(
    stream: &mut BodyDataStream,
    held: &mut Held,
    limit: usize,
) -> Result<Option<Bytes>, Problem> {
    let Some(chunk) = stream.next().await else { return Ok(None) };
    let chunk = chunk.map_err(|error| {
        Problem::new(ProblemCode::MalformedJson, format!("the body broke off: {error}"))
    })?;
    if held.bytes + chunk.len() > limit {
        return Err(too_large(limit));
    }
    held.grow(chunk.len())?;
    Ok(Some(chunk))
}

async fn discard(stream: &mut BodyDataStream) {
    let mut discarded = 0;
    while discarded < DISCARDED {
        match stream.next().await {
            Some(Ok(chunk)) => discarded += chunk.len(),
            _ => return,
        }
    }
}

pub(super) fn too_large(limit: usize) -> Problem {
    Problem::new(ProblemCode::TooLarge, format!("at most {limit} bytes are read here"))
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Refuses bodies that are not declared as `expected` (in UTF-8, not compressed).
pub(super) fn check_content_type(headers: &HeaderMap, expected: &str) -> Result<(), Problem> {
    let refuse = |found: &str| {
        let detail = format!("send `Content-Type: {expected}` in UTF-8, not compressed; {found}");
        Problem::new(ProblemCode::UnsupportedMediaType, detail)
    };
    let value = headers.get(header::CONTENT_TYPE).ok_or_else(|| refuse("there was none"))?;
    let text = value.to_str().map_err(|_| refuse("it is not readable"))?;
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    if !essence.eq_ignore_ascii_case(expected) {
        return Err(refuse(&format!("it was `{essence}`")));
    }
    let charset = parts.filter_map(|part| part.split_once('='));
    for (name, value) in charset {
        let utf8 = value.trim_matches('"').eq_ignore_ascii_case("utf-8");
        if name.eq_ignore_ascii_case("charset") && !utf8 {
            return Err(refuse(&format!("its charset was {value}")));
        }
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(refuse("it was compressed")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_in_utf8_is_read() {
        let check = |value: &str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]);
            check_content_type(&headers, "application/json").is_ok()
        };
        assert!(check("application/json"));
        assert!(check("Application/JSON; charset=UTF-8"));
        assert!(check("application/json;charset=\"utf-8\""));
        assert!(!check("application/json; charset=latin1"));
        assert!(!check("text/plain"));
        assert!(!check(""));
        assert!(check_content_type(&HeaderMap::new(), "application/json").is_err());
    }
}
