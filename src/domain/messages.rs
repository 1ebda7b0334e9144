//! Wire names: which message types an aggregate has, what they are called outside of Rust, and in
//! which schema version they are written.

use std::fmt::Debug;

use serde::de::DeserializeOwned;

use super::{RuleViolation, rules};
use crate::message::RawJson;

/// Turns a payload of an older schema version into the newest one. Gets the version it was
/// written in and the value.
pub type Upcast = fn(i16, serde_json::Value) -> Result<serde_json::Value, String>;

/// One message type, as it is known outside of Rust.
#[derive(Clone, Copy)]
pub struct MessageKind {
    /// The name after the dot: `deposit` in `account.deposit`.
    pub name: &'static str,
    /// The schema version that this release writes, counted from 1.
    pub schema_version: i16,
    /// Reads older schema versions; without one they are refused.
    pub upcast: Option<Upcast>,
    /// The JSON Schema (2020-12) of the payload.
    pub json_schema: fn() -> serde_json::Value,
    /// Whether later strict commands of a stream wait while one of this type is being retried or is
    /// dead. Every process must say the same; events have no order of their own.
    pub strict: bool,
}

/// Why a stored or received payload is not what its type says.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No message of this name is declared here.
    #[error("message type `{0}` is not known to this service")]
    UnknownType(String),
    /// Written by a newer release.
    #[error("schema version {found} of `{name}` is newer than {newest}, the newest known here")]
    FutureVersion {
        /// The message's name.
        name: &'static str,
        /// The version that was found.
        found: i16,
        /// The newest version known here.
        newest: i16,
    },
    /// An older version, and no upcast is declared, or it failed.
    #[error("schema version {found} of `{name}` cannot be upcast: {reason}")]
    Upcast {
        /// The message's name.
        name: &'static str,
        /// The version that was found.
        found: i16,
        /// What is wrong.
        reason: String,
    },
    /// The JSON does not have the fields of the type.
    #[error("payload of `{name}` does not fit: {source}")]
    Payload {
        /// The message's name.
        name: &'static str,
        /// What serde says.
        source: serde_json::Error,
    },
}

/// The commands or the events of an aggregate: an enum whose variants each hold one payload type.
/// Implemented by [`commands!`](crate::commands) and [`events!`](crate::events).
pub trait MessageSet: Clone + Debug + Send + Sync + Sized + 'static {
    /// Every message type, in the order of declaration.
    const KINDS: &'static [MessageKind];

    /// Which of [`Self::KINDS`] this is.
    fn kind(&self) -> &'static MessageKind;

    /// Reads a payload by its name (without the aggregate type), upcasting older versions.
    fn decode(name: &str, schema_version: i16, payload: &RawJson) -> Result<Self, DecodeError>;

    /// Writes the payload in the newest version.
    fn encode(&self) -> Result<RawJson, serde_json::Error>;

    /// Every rule the payload breaks (commands only; events have no rules).
    fn violations(&self) -> Vec<RuleViolation>;
}

#[doc(hidden)]
pub fn decode_payload<T: DeserializeOwned>(
    kind: &'static MessageKind,
    schema_version: i16,
    payload: &RawJson,
) -> Result<T, DecodeError> {
    let name = kind.name;
    let unfit = |source| DecodeError::Payload { name, source };
    if schema_version == kind.schema_version {
        return payload.decode().map_err(unfit);
    }
    if schema_version > kind.schema_version {
        let newest = kind.schema_version;
        return Err(DecodeError::FutureVersion { name, found: schema_version, newest });
    }
    let failed = |reason| DecodeError::Upcast { name, found: schema_version, reason };
    let upcast = kind.upcast.ok_or_else(|| failed("no upcast is declared for it".into()))?;
    let value = upcast(schema_version, payload.decode().map_err(unfit)?).map_err(failed)?;
    serde_json::from_value(value).map_err(unfit)
}

#[doc(hidden)]
pub fn payload_violations<T: garde::Validate<Context = ()>>(payload: &T) -> Vec<RuleViolation> {
    rules::violations(payload)
}

#[doc(hidden)]
pub fn json_schema<T: schemars::JsonSchema>() -> serde_json::Value {
    schemars::schema_for!(T).to_value()
}

/// Declares the commands of an aggregate.
///
/// Each variant holds a payload type and names its wire name and schema version; an upcast for
/// older versions may follow. Payload types derive `Serialize`, `Deserialize`,
/// `garde::Validate` and `schemars::JsonSchema`.
///
/// `strict` behind the version keeps the order of a stream when a command fails: while a strict one
/// is being retried, is set aside or is dead, later strict ones of the same stream wait behind it.
/// Without it a later command may overtake one that is being retried.
///
/// ```
/// use adjutant::prelude::*;
///
/// #[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// pub struct Deposit {
///     #[garde(range(min = 1))]
///     amount: i64,
/// }
///
/// #[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// pub struct Withdraw {
///     #[garde(range(min = 1))]
///     amount: i64,
/// }
///
/// adjutant::commands! {
///     pub enum AccountCommand {
///         Deposit(Deposit) = "deposit" v1,
///         Withdraw(Withdraw) = "withdraw" v1 strict,
///     }
/// }
/// ```
#[macro_export]
macro_rules! commands {
    ($($body:tt)*) => { $crate::message_set!(@violations (payload_violations) $($body)*); };
}

/// Declares the events of an aggregate; like [`commands!`](crate::commands), but payload types need
/// no rules. An event once written is never changed: a new shape is a new schema version with an
/// upcast from the older ones.
///
/// ```
/// use adjutant::prelude::*;
///
/// #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
/// pub struct Deposited { amount: i64, currency: String }
///
/// adjutant::events! {
///     pub enum AccountEvent {
///         Deposited(Deposited) = "deposited" v2 upcast add_currency,
///     }
/// }
///
/// fn add_currency(_from: i16, mut data: serde_json::Value) -> Result<serde_json::Value, String> {
///     data["currency"] = "EUR".into();
///     Ok(data)
/// }
/// ```
#[macro_export]
macro_rules! events {
    ($($body:tt)*) => { $crate::message_set!(@violations () $($body)*); };
}

#[doc(hidden)]
#[macro_export]
macro_rules! message_set {
    (@violations ($($check:ident)?)
        $(#[$meta:meta])* $vis:vis enum $set:ident {
            $($(#[$vmeta:meta])* $variant:ident($payload:ty) = $name:literal $version:ident $(strict $(($never:tt))?)? $(upcast $upcast:path)?),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        $vis enum $set {
            $($(#[$vmeta])* #[allow(missing_docs)] $variant($payload)),+
        }

        impl $crate::domain::MessageSet for $set {
            const KINDS: &'static [$crate::domain::MessageKind] = &[
                $($crate::domain::MessageKind {
                    name: $name,
                    schema_version: $crate::domain::__schema_version(stringify!($version)),
                    upcast: $crate::message_set!(@upcast $($upcast)?),
                    json_schema: $crate::domain::__json_schema::<$payload>,
                    strict: $crate::message_set!(@strict $(strict $($never)?)?),
                }),+
            ];

            fn kind(&self) -> &'static $crate::domain::MessageKind {
                let name = match self { $(Self::$variant(_) => $name),+ };
                $crate::domain::__kind_named(Self::KINDS, name)
            }

            fn decode(
                name: &str,
                schema_version: i16,
                payload: &$crate::message::RawJson,
            ) -> Result<Self, $crate::domain::DecodeError> {
                match name {
                    $($name => $crate::domain::__decode_payload(
                        $crate::domain::__kind_named(Self::KINDS, $name), schema_version, payload,
                    ).map(Self::$variant),)+
                    other => Err($crate::domain::DecodeError::UnknownType(other.to_owned())),
                }
            }

            fn encode(&self) -> Result<$crate::message::RawJson, $crate::serde_json::Error> {
                match self { $(Self::$variant(payload) => $crate::message::RawJson::encode(payload)),+ }
            }

            fn violations(&self) -> Vec<$crate::domain::RuleViolation> {
                $crate::message_set!(@check ($($check)?) self, $($variant),+)
            }
        }

        $(impl From<$payload> for $set {
            fn from(payload: $payload) -> Self { Self::$variant(payload) }
        })+
    };
    (@strict) => { false };
    (@strict strict) => { true };
    (@upcast) => { None };
    (@upcast $upcast:path) => { Some($upcast) };
    (@check () $self:ident, $($variant:ident),+) => { Vec::new() };
    (@check ($check:ident) $self:ident, $($variant:ident),+) => {
        match $self { $(Self::$variant(payload) => $crate::domain::__payload_violations(payload)),+ }
    };
}

/// Parses the `v2` of a declaration, at compile time.
#[doc(hidden)]
#[allow(clippy::panic)]
pub const fn schema_version(text: &str) -> i16 {
    let bytes = text.as_bytes();
    assert!(bytes.len() > 1 && bytes[0] == b'v', "a schema version is written v1, v2, …");
    let (mut value, mut at) = (0_i16, 1);
    while at < bytes.len() {
        assert!(bytes[at].is_ascii_digit(), "a schema version is written v1, v2, …");
        value = value * 10 + (bytes[at] - b'0') as i16;
        at += 1;
    }
    assert!(value > 0, "schema versions count from 1");
    value
}

/// The declaration with this name; the macro guarantees that it is there.
#[doc(hidden)]
pub fn kind_named(kinds: &'static [MessageKind], name: &str) -> &'static MessageKind {
    kinds.iter().find(|kind| kind.name == name).unwrap_or(&kinds[0])
}
