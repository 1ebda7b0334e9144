//! The roles of a process, as people write them.

use adjutant::store::Role;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

/// One or several roles, each once, in a fixed order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Roles(Vec<Role>);

impl Roles {
    /// Every role.
    pub fn all() -> Self {
        Self(Role::ALL.to_vec())
    }

    /// The roles named in a list of words, where `all` is every one.
    pub fn named<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut roles = Vec::new();
        for word in words.into_iter().flat_map(|word| word.split(',')).map(str::trim) {
            match word {
                "" => {}
                "all" => roles.extend(Role::ALL),
                word => roles.push(word.parse::<Role>().map_err(|error| error.to_string())?),
            }
        }
        roles.sort_unstable();
        roles.dedup();
        if roles.is_empty() {
            Err("name at least one role, or all".into())
        } else {
            Ok(Self(roles))
        }
    }

    /// The roles.
    pub fn as_slice(&self) -> &[Role] {
        &self.0
    }

    /// Whether every role is among them.
    pub fn is_all(&self) -> bool {
        self.0 == Role::ALL
    }

    /// Whether it is among them.
    pub fn contains(&self, role: Role) -> bool {
        self.0.contains(&role)
    }
}

impl From<Role> for Roles {
    fn from(role: Role) -> Self {
        Self(vec![role])
    }
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Line(String),
            List(Vec<String>),
        }
        let words = match Written::deserialize(deserializer)? {
            Written::Line(line) => vec![line],
            Written::List(list) => list,
        };
        Self::named(words.iter().map(String::as_str)).map_err(D::Error::custom)
    }
}
