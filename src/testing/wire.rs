//! The way to the wire and back that every message takes in production.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};

use super::diff;
use crate::{
    domain::{EncodedEvent, MessageSet},
    message::RawJson,
};

/// Several events, for [`Given::events`](super::Given::events) and the like: a list of the event
/// type, or a tuple of up to eight payloads of different types.
///
/// ```ignore
/// .then_events([Deposited { amount: 5 }.into(), Closed {}.into()])
/// .then_events((Deposited { amount: 5 }, Closed {}))
/// ```
pub trait EventList<E> {
    /// The events, in order.
    fn into_events(self) -> Vec<E>;
}

impl<E> EventList<E> for Vec<E> {
    fn into_events(self) -> Vec<E> {
        self
    }
}

impl<E, const N: usize> EventList<E> for [E; N] {
    fn into_events(self) -> Vec<E> {
        self.into()
    }
}

macro_rules! tuples_of_events {
    ($(($($part:ident),+))+) => {
        $(impl<Event, $($part: Into<Event>),+> EventList<Event> for ($($part,)+) {
            fn into_events(self) -> Vec<Event> {
                #[allow(non_snake_case)]
                let ($($part,)+) = self;
                vec![$($part.into()),+]
            }
        })+
    };
}

tuples_of_events! {
    (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, F) (A, B, C, D, E, F, G)
    (A, B, C, D, E, F, G, H)
}

/// `account.deposited`.
pub(super) fn wire_name<M: MessageSet>(aggregate: &str, message: &M) -> String {
    format!("{aggregate}.{}", message.kind().name)
}

/// Writes a message and reads it back; an error if it is another one then.
pub(super) fn survives<M: MessageSet>(
    aggregate: &str,
    message: &M,
) -> Result<EncodedEvent, String> {
    let kind = message.kind();
    let name = wire_name(aggregate, message);
    let data = message.encode().map_err(|error| format!("`{name}` cannot be encoded: {error}"))?;
    let back = M::decode(kind.name, kind.schema_version, &data).map_err(|error| {
        format!("`{name}` cannot be decoded again: {error}\nits JSON: {}", data.as_str())
    })?;
    let again = back.encode().map_err(|error| format!("`{name}` cannot be encoded: {error}"))?;
    let (first, second) = (data.to_value(), again.to_value());
    if first != second {
        let shown = diff::json(&first, &second);
        return Err(format!("`{name}` is another after encoding and decoding:\n{shown}"));
    }
    // A field that serde skips is not in the JSON; it shows in Debug.
    let (first, second) = (format!("{message:#?}"), format!("{back:#?}"));
    if sorted_lines(&first) != sorted_lines(&second) {
        let shown = diff::lines(&first, &second);
        return Err(format!("`{name}` is another after encoding and decoding:\n{shown}"));
    }
    Ok(EncodedEvent { event_type: name, schema_version: kind.schema_version, data })
}

/// A hash map in a message has no order; lines of `Debug` do, so they lose theirs.
fn sorted_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.sort_unstable();
    lines
}

/// Events as a test sees them: wire names and data.
pub(super) fn shown(events: &[EncodedEvent]) -> Value {
    events.iter().map(|event| json!({ event.event_type.as_str(): event.data.to_value() })).collect()
}

/// Where `data` holds what `jsonb` cannot.
pub(super) fn nul_pointers(data: &RawJson) -> Vec<String> {
    RawJson::nul_pointers(data.as_str(), &data.to_value())
}

/// Calls user code as a worker does: a panic of it is an answer.
pub(super) fn call<T>(what: &str, code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        format!("{what} panicked: {}", text.unwrap_or("(no message)"))
    })
}
