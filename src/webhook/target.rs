//! The URL of a callback, which a caller chooses: what it may be.

use std::fmt;

use reqwest::Url;

use super::{is_public, resolve::literal};

/// The most characters of a callback's URL, as it is given and as it is kept.
pub const LONGEST_URL: usize = 2_048;

/// What a callback's URL may be besides `https` to a public address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetRules {
    /// `http`, too.
    pub allow_http: bool,
    /// This machine and private networks, too.
    pub allow_private: bool,
}

/// A rule that a callback's URL breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTarget {
    /// The rule's name.
    pub rule: &'static str,
    /// What it asks for.
    pub message: String,
}

impl InvalidTarget {
    fn new(rule: &'static str, message: impl Into<String>) -> Self {
        Self { rule, message: message.into() }
    }
}

/// Where a callback goes.
#[derive(Clone, PartialEq, Eq)]
pub struct CallbackTarget(Url);

impl CallbackTarget {
    /// Checks a URL; answers every rule that it breaks. Names are not looked up here: they are, and
    /// the addresses are checked, at each try to deliver.
    pub fn check(text: &str, rules: TargetRules) -> Result<Self, Vec<InvalidTarget>> {
        let length = text.chars().count();
        if length > LONGEST_URL {
            let message = format!("must have at most {LONGEST_URL} characters, has {length}");
            return Err(vec![InvalidTarget::new("length", message)]);
        }
        if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            let message = "must not hold white space or control characters";
            return Err(vec![InvalidTarget::new("url", message)]);
        }
        let url = Url::parse(text)
            .map_err(|error| vec![InvalidTarget::new("url", format!("must be a URL: {error}"))])?;
        let broken = Self::broken(&url, rules);
        if broken.is_empty() { Ok(Self(url)) } else { Err(broken) }
    }

    fn broken(url: &Url, rules: TargetRules) -> Vec<InvalidTarget> {
        let mut broken = Vec::new();
        let mut add = |rule, message: &str| broken.push(InvalidTarget::new(rule, message));
        match url.scheme() {
            "https" => {}
            "http" if rules.allow_http => {}
            "http" => add("https", "must begin with https://"),
            _ => add("scheme", "must begin with https:// or http://"),
        }
        if !url.username().is_empty() || url.password().is_some() {
            add("credentials", "must not hold a user or a password");
        }
        if url.fragment().is_some() {
            add("fragment", "must not have a fragment");
        }
        if url.port() == Some(0) {
            add("port", "must not name port 0");
        }
        if !rules.allow_private && is_plainly_private(url) {
            add("address", "must not name this machine or a private network");
        }
        if url.as_str().len() > LONGEST_URL {
            add("length", "is too long when it is written in ASCII");
        }
        broken
    }

    /// As it is kept.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Shows the host alone: the rest may be a secret.
impl fmt::Debug for CallbackTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.host_str().unwrap_or_default())
    }
}

/// What is no public address without being looked up: an address that is none, or a name that always
/// means this machine (RFC 6761).
fn is_plainly_private(url: &Url) -> bool {
    let name = url.host_str().unwrap_or_default().trim_end_matches('.');
    match literal(url) {
        Some(address) => !is_public(address),
        None => name == "localhost" || name.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: TargetRules = TargetRules { allow_http: false, allow_private: false };
    const LAX: TargetRules = TargetRules { allow_http: true, allow_private: true };

    fn broken(text: &str, rules: TargetRules) -> Vec<&'static str> {
        let check = CallbackTarget::check(text, rules);
        check.map_or_else(|broken| broken.iter().map(|it| it.rule).collect(), |_| Vec::new())
    }

    #[test]
    fn what_is_no_target_is_refused_by_rule() {
        for (text, rules) in [
            ("hooks.example", &["url"][..]),
            ("", &["url"]),
            ("https://", &["url"]),
            ("https://a b.example/", &["url"]),
            ("https://hooks.example/\0", &["url"]),
            (" https://hooks.example/", &["url"]),
            ("https://exa\nmple/", &["url"]),
            ("ftp://hooks.example/", &["scheme"]),
            ("file:///etc/passwd", &["scheme"]),
            ("http://hooks.example/", &["https"]),
            ("https://me@hooks.example/", &["credentials"]),
            ("https://:secret@hooks.example/", &["credentials"]),
            ("https://hooks.example/#x", &["fragment"]),
            ("https://hooks.example:0/", &["port"]),
            ("https://hooks.example:99999/", &["url"]),
            ("http://me@127.0.0.1/#", &["https", "credentials", "fragment", "address"]),
        ] {
            assert_eq!(broken(text, STRICT), rules, "{text:?}");
        }
        let path = |length: usize| format!("https://hooks.example/{}", "a".repeat(length - 22));
        assert_eq!(broken(&path(LONGEST_URL), STRICT), [""; 0]);
        assert_eq!(broken(&path(LONGEST_URL + 1), STRICT), ["length"]);
        let wide = format!("https://hooks.example/{}", "ä".repeat(1_000));
        assert_eq!(broken(&wide, STRICT), ["length"], "six characters each, in ASCII");
    }

    #[test]
    fn what_plainly_is_this_machine_or_its_network_is_refused_however_it_is_written() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "api.localhost",
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "2130706433",
            "017700000001",
            "127.0.0.1.",
            "１２７.0.0.1",
            "0",
            "10.1.2.3",
            "169.254.169.254",
            "192.168.0.1",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::10.0.0.1]",
            "[fe80::1]",
            "[fd00::1]",
        ] {
            let url = format!("https://{host}:8443/x");
            assert_eq!(broken(&url, STRICT), ["address"], "{url}");
            assert_eq!(broken(&url, LAX), [""; 0], "{url}");
        }
        for host in ["hooks.example", "8.8.8.8", "[2606:4700::1111]", "localhost.example"] {
            assert_eq!(broken(&format!("https://{host}/"), STRICT), [""; 0], "{host}");
        }
    }

    #[test]
    fn it_is_kept_as_a_parser_writes_it() {
        let target = CallbackTarget::check("HTTPS://Hooks.Example:443/ä?b=1", STRICT).unwrap();
        assert_eq!(target.as_str(), "https://hooks.example/%C3%A4?b=1");
        assert_eq!(format!("{target:?}"), "hooks.example");
    }
}
