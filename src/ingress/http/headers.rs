//! Request headers with a meaning of their own: `Prefer` (RFC 7240) and `Idempotency-Key`.

use std::time::Duration;

use axum::http::HeaderMap;
use uuid::Uuid;

use crate::{
    ingress::{Problem, ProblemCode},
    message::CommandId,
};

/// The longest time that a request may wait, in seconds.
pub(super) const MAX_WAIT: u64 = 60;

/// The namespace of ids that are made from idempotency keys. Never changes.
const KEY_NAMESPACE: Uuid = Uuid::from_u128(0x6d1f_6a0e_54c5_4f0b_9d3c_8a3f_1c7d_2b90);

/// `Prefer: wait=N`: how long the caller would like to wait for the outcome. Other preferences are
/// left alone, as RFC 7240 allows.
pub(super) fn preferred_wait(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    for value in headers.get_all("prefer") {
        let refuse = |what: &str| {
            let detail = format!("`Prefer: wait=N` takes whole seconds up to {MAX_WAIT}; {what}");
            Problem::new(ProblemCode::InvalidHeader, detail)
        };
        let text = value.to_str().map_err(|_| refuse("it is not readable"))?;
        for preference in text.split(',') {
            let token = preference.split(';').next().unwrap_or_default();
            let (name, value) = token.split_once('=').unwrap_or((token, ""));
            if name.trim().eq_ignore_ascii_case("wait") {
                let value = value.trim().trim_matches('"');
                let seconds = value.parse().ok().filter(|seconds| *seconds <= MAX_WAIT);
                let seconds = seconds.ok_or_else(|| refuse(&format!("it was `{value}`")))?;
                // The first one counts (section 2).
                return Ok(Some(Duration::from_secs(seconds)));
            }
        }
    }
    Ok(None)
}

/// The id that an `Idempotency-Key` stands for: the UUIDv5 (RFC 9562) of caller and key.
pub(super) fn id_of_key(headers: &HeaderMap, caller: &str) -> Result<Option<CommandId>, Problem> {
    let refuse = |what: &str| Problem::new(ProblemCode::InvalidHeader, what);
    let mut values = headers.get_all("idempotency-key").into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refuse("send one `Idempotency-Key`"));
    }
    let key = value.to_str().map_err(|_| refuse("an `Idempotency-Key` is visible ASCII"))?;
    if !(1..=255).contains(&key.len()) {
        return Err(refuse("an `Idempotency-Key` has 1 to 255 characters"));
    }
    // The length keeps (`a`, `bc`) and (`ab`, `c`) apart.
    let name = format!("{}:{caller}:{key}", caller.len());
    Ok(Some(CommandId(Uuid::new_v5(&KEY_NAMESPACE, name.as_bytes()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let pair =
            |value: &&str| (axum::http::HeaderName::from_static(name), value.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in values.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn prefer_is_read_as_rfc_7240_says() {
        let wait = |values: &[&str]| {
            let wait = preferred_wait(&headers("prefer", values));
            wait.map(|wait| wait.map(|wait| wait.as_secs())).map_err(|problem| problem.status)
        };
        assert_eq!(wait(&[]), Ok(None));
        assert_eq!(wait(&["wait=10"]), Ok(Some(10)));
        assert_eq!(wait(&["Wait=\"10\""]), Ok(Some(10)));
        assert_eq!(wait(&["respond-async, wait=5;x=y"]), Ok(Some(5)));
        assert_eq!(wait(&["return=minimal", "wait=60", "wait=1"]), Ok(Some(60)));
        assert_eq!(wait(&["return=minimal"]), Ok(None));
        for bad in ["wait=61", "wait", "wait=-1", "wait=1.5", "wait=x"] {
            assert_eq!(wait(&[bad]), Err(400), "{bad}");
        }
    }

    /// Golden: a client that repeats a key after an upgrade must get the same id.
    #[test]
    fn a_key_always_stands_for_the_same_id() {
        let id = |caller, key: &str| {
            id_of_key(&headers("idempotency-key", &[key]), caller).unwrap().unwrap().to_string()
        };
        assert_eq!(id("shop", "order-1"), "b7433e82-fea4-59dc-8742-0be227e58d0d");
        assert_ne!(id("shop", "order-1"), id("sho", "porder-1"));
        assert_ne!(id("shop", "order-1"), id("other", "order-1"));
    }

    #[test]
    fn bad_keys_are_refused() {
        assert_eq!(id_of_key(&HeaderMap::new(), "a"), Ok(None));
        let long = "x".repeat(256);
        for bad in [&["a", "b"][..], &[""], &[&long], &["ä"]] {
            let problem = id_of_key(&headers("idempotency-key", bad), "a").unwrap_err();
            assert_eq!(problem.code, ProblemCode::InvalidHeader, "{bad:?}");
        }
    }
}
