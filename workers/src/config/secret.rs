//! URLs with passwords in them.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A URL whose password is never shown: `Debug`, `Display` and serialisation print `***` for it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its password, for whoever connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            // Perhaps a list of keywords with a password among them.
            return f.write_str(if self.0.is_empty() { "" } else { "***" });
        };
        let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
        write!(f, "{scheme}://")?;
        match rest.rsplit_once('@') {
            Some((user, place)) => {
                let name = user.split_once(':').map_or(user, |(name, _)| name);
                let password = if user.contains(':') { ":***" } else { "" };
                write!(f, "{name}{password}@{place}")?;
            }
            None => f.write_str(rest)?,
        }
        // A password may also be a parameter.
        if query.is_empty() { Ok(()) } else { f.write_str("?***") }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text of which nothing is ever shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// The text, for whoever uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "" } else { "***" })
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let shown = |url: &str| SecretUrl::new(url).to_string();
        assert_eq!(shown("postgres://me:s3@c:ret@db:5432/bank"), "postgres://me:***@db:5432/bank");
        assert_eq!(shown("amqp://localhost:5672/%2f"), "amqp://localhost:5672/%2f");
        assert_eq!(shown("postgres://me@db/bank?password=x"), "postgres://me@db/bank?***");
        assert_eq!(shown("host=db password=x"), "***");
        let debug = format!("{:?}", SecretUrl::new("amqp://a:b@c"));
        assert_eq!(debug, "\"amqp://a:***@c\"");
    }
}
