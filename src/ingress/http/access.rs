//! Who may call: bearer tokens (RFC 6750) with roles, known only by their hashes.

use std::marker::PhantomData;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use sha2::{Digest as _, Sha256};

use super::{App, StartError, rate::RateLimit};
use crate::ingress::{AccessRole, IngressSettings, Problem, ProblemCode, TokenSettings};

/// The name of whoever calls without a token, where that is allowed.
const ANONYMOUS: &str = "anonymous";

/// The callers that are known.
pub(super) struct Access {
    tokens: Vec<KnownToken>,
    anonymous: Caller,
}

struct KnownToken {
    sha256: [u8; 32],
    caller: Caller,
}

/// Somebody who calls.
pub(super) struct Caller {
    pub(super) name: String,
    roles: Vec<AccessRole>,
    rate: Option<RateLimit>,
}

impl Caller {
    /// Takes this many commands from the caller's rate.
    pub(super) fn take(&self, commands: usize) -> Result<(), Problem> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.take(commands).map_err(|seconds| {
            let detail =
                format!("`{}` may send {} commands a second", self.name, rate.per_second());
            Problem { retry_after: Some(seconds), ..Problem::new(ProblemCode::RateLimited, detail) }
        })
    }
}

impl Access {
    /// Reads the tokens, and refuses to serve everyone by accident.
    pub(super) fn new(settings: &IngressSettings) -> Result<Self, StartError> {
        check_exposure(settings)?;
        let tokens = settings.tokens.iter().map(KnownToken::new).collect::<Result<_, _>>()?;
        let anonymous = Caller {
            name: ANONYMOUS.into(),
            roles: vec![AccessRole::Submit, AccessRole::Read, AccessRole::Operate],
            rate: settings.anonymous_commands_per_second.map(RateLimit::new),
        };
        Ok(Self { tokens, anonymous })
    }

    /// The caller, if it may do what needs one of these roles.
    pub(super) fn authorize(
        &self,
        headers: &HeaderMap,
        needs: &[AccessRole],
    ) -> Result<&Caller, Problem> {
        if self.tokens.is_empty() {
            return Ok(&self.anonymous);
        }
        let token = bearer_token(headers).ok_or_else(|| {
            Problem::new(ProblemCode::Unauthenticated, "send `Authorization: Bearer …`")
        })?;
        let caller = self.caller_with(token).ok_or_else(|| {
            Problem::new(ProblemCode::Unauthenticated, "the bearer token is not known")
        })?;
        if needs.iter().any(|role| caller.roles.contains(role)) {
            return Ok(caller);
        }
        let roles: Vec<_> = needs.iter().map(|role| role.as_str()).collect();
        let detail = format!("`{}` needs the role {}", caller.name, roles.join(" or "));
        Err(Problem::new(ProblemCode::Forbidden, detail))
    }

    /// Compares with every token, so that the time tells nothing.
    fn caller_with(&self, token: &str) -> Option<&Caller> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = None;
        for known in &self.tokens {
            if same(&known.sha256, &hash) {
                found = Some(&known.caller);
            }
        }
        found
    }
}

impl KnownToken {
    fn new(settings: &TokenSettings) -> Result<Self, StartError> {
        let bad = |reason: &str| StartError::Token {
            name: settings.name.clone(),
            reason: reason.to_owned(),
        };
        if settings.name.is_empty() || settings.name == ANONYMOUS {
            return Err(bad("give it another name"));
        }
        if settings.roles.is_empty() {
            return Err(bad("it has no roles: use submit, read or operate"));
        }
        let sha256 = from_hex(&settings.sha256)
            .ok_or_else(|| bad("`sha256` must be 64 hex digits: `printf %s TOKEN | sha256sum`"))?;
        let caller = Caller {
            name: settings.name.clone(),
            roles: settings.roles.clone(),
            rate: settings.commands_per_second.map(RateLimit::new),
        };
        Ok(Self { sha256, caller })
    }
}

/// Without tokens, only this machine is served, unless somebody asked for more in so many words.
fn check_exposure(settings: &IngressSettings) -> Result<(), StartError> {
    match (settings.tokens.is_empty(), settings.allow_anonymous) {
        (false, true) => Err(StartError::TokensAndAnonymous),
        (true, false) if !settings.listen.ip().is_loopback() => {
            Err(StartError::Exposed { listen: settings.listen })
        }
        _ => Ok(()),
    }
}

/// Tells the operator who may call, where that is everyone.
pub(super) fn tell_exposure(settings: &IngressSettings) {
    if !settings.tokens.is_empty() {
        return;
    }
    if settings.allow_anonymous {
        tracing::warn!(listen = %settings.listen, "no tokens are configured: everyone who reaches this address may do everything (allow_anonymous)");
    } else {
        tracing::info!(listen = %settings.listen, "no tokens are configured: only this machine is served");
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let difference = one.iter().zip(other).fold(0, |bits, (a, b)| bits | (a ^ b));
    std::hint::black_box(difference) == 0
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.trim().as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |d: u8| char::from(d).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

/// A group of roles of which a call needs one.
pub(super) trait Needs {
    const ROLES: &'static [AccessRole];
}

/// Sending commands and asking for their status.
pub(super) struct ToSubmit;
/// Reading views and streams.
pub(super) struct ToRead;
/// Operating.
pub(super) struct ToOperate;
/// Learning what types there are: whoever sends or reads them.
pub(super) struct ToKnowTypes;

impl Needs for ToSubmit {
    const ROLES: &'static [AccessRole] = &[AccessRole::Submit];
}
impl Needs for ToRead {
    const ROLES: &'static [AccessRole] = &[AccessRole::Read];
}
impl Needs for ToOperate {
    const ROLES: &'static [AccessRole] = &[AccessRole::Operate];
}
impl Needs for ToKnowTypes {
    const ROLES: &'static [AccessRole] = &[AccessRole::Submit, AccessRole::Read];
}

/// Proof that the caller may do what needs `N`; a handler's first argument.
pub(super) struct Allowed<N>(PhantomData<N>);

impl<N: Needs> FromRequestParts<App> for Allowed<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        app.access.authorize(&parts.headers, N::ROLES).map(|_| Self(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, sha256: &str) -> TokenSettings {
        TokenSettings {
            name: name.into(),
            sha256: sha256.into(),
            roles: vec![AccessRole::Submit],
            commands_per_second: None,
        }
    }

    /// SHA-256 of `secret`.
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn nothing_is_exposed_by_accident() {
        let open = |listen: &str, allow_anonymous, tokens| {
            let listen = listen.parse().unwrap();
            let settings =
                IngressSettings { listen, allow_anonymous, tokens, ..IngressSettings::default() };
            Access::new(&settings).map(drop)
        };
        assert!(open("127.0.0.1:0", false, vec![]).is_ok());
        assert!(open("[::1]:0", false, vec![]).is_ok());
        assert!(open("0.0.0.0:0", true, vec![]).is_ok());
        assert!(open("0.0.0.0:0", false, vec![token("a", SECRET)]).is_ok());
        let refused = open("0.0.0.0:0", false, vec![]).unwrap_err().to_string();
        assert!(refused.contains("allow_anonymous") && refused.contains("tokens"), "{refused}");
        assert!(open("0.0.0.0:0", true, vec![token("a", SECRET)]).is_err());
        assert!(open("127.0.0.1:0", false, vec![token("a", "secret")]).is_err());
        assert!(open("127.0.0.1:0", false, vec![token("", SECRET)]).is_err());
    }

    #[test]
    fn tokens_are_found_by_their_hash_and_checked_for_their_role() {
        let settings =
            IngressSettings { tokens: vec![token("a", SECRET)], ..IngressSettings::default() };
        let access = Access::new(&settings).unwrap();
        let call = |value: &str, role| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            access
                .authorize(&headers, &[role])
                .map(|caller| caller.name.clone())
                .map_err(|p| p.status)
        };
        assert_eq!(call("Bearer secret", AccessRole::Submit), Ok("a".into()));
        assert_eq!(call("bearer  secret", AccessRole::Submit), Ok("a".into()));
        assert_eq!(call("Bearer secret", AccessRole::Operate), Err(403));
        assert_eq!(call("Bearer Secret", AccessRole::Submit), Err(401));
        assert_eq!(call("Basic secret", AccessRole::Submit), Err(401));
        assert_eq!(access.authorize(&HeaderMap::new(), &[]).map(drop).unwrap_err().status, 401);
    }
}
