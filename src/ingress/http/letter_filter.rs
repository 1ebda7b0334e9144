//! Which dead letters: the words of query strings and bodies.

use std::time::Duration;

use super::{
    App,
    params::{invalid, no_nul},
    respond::store_problem,
};
use crate::{
    dead_letter::{DeadLetterKind, DeadLetterState},
    ingress::Problem,
    message::Timestamp,
    store::DeadLetterFilter,
};

/// What may be said, as it is said.
#[derive(Default)]
pub(super) struct FilterWords {
    pub(super) kind: Option<String>,
    pub(super) group: Option<String>,
    pub(super) type_name: Option<String>,
    pub(super) key: Option<String>,
    pub(super) error: Option<String>,
    pub(super) state: Option<String>,
    pub(super) older_than: Option<String>,
    pub(super) newer_than: Option<String>,
}

/// A struct with the fields of a filter and some more; unknown ones are refused.
macro_rules! with_filter {
    ($(#[$of_struct:meta])* $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$of_struct])*
        #[derive(Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name {
            /// Only `command`, `parked_key` or `callback`.
            kind: Option<String>,
            /// Only of this group: `commands`, `projection.NAME`, `callbacks`.
            group: Option<String>,
            /// Only of this command or event type.
            r#type: Option<String>,
            /// Only of this stream, parked key, or host of a callback.
            #[serde(alias = "stream")]
            key: Option<String>,
            /// Only with this error code, or (16 hexadecimal digits) fingerprint.
            error: Option<String>,
            /// Only in this state: `open` (unless told), `retrying`, `resolved`, `discarded`, `any`.
            state: Option<String>,
            /// Only those that died longer ago: `90s`, `15m`, `2h`, `7d`.
            older_than: Option<String>,
            /// Only those that died since: `90s`, `15m`, `2h`, `7d`.
            newer_than: Option<String>,
            $($(#[$of_field])* $field: $type,)*
        }

        impl $name {
            fn words(&mut self) -> $crate::ingress::http::letter_filter::FilterWords {
                $crate::ingress::http::letter_filter::FilterWords {
                    kind: self.kind.take(),
                    group: self.group.take(),
                    type_name: self.r#type.take(),
                    key: self.key.take(),
                    error: self.error.take(),
                    state: self.state.take(),
                    older_than: self.older_than.take(),
                    newer_than: self.newer_than.take(),
                }
            }
        }
    };
}
pub(super) use with_filter;

/// Reads the words. Ages are counted from now, by the store's clock.
pub(super) async fn read(app: &App, words: FilterWords) -> Result<DeadLetterFilter, Problem> {
    for (name, text) in [
        ("group", &words.group),
        ("type", &words.type_name),
        ("key", &words.key),
        ("error", &words.error),
    ] {
        no_nul(name, text.as_deref().unwrap_or_default())?;
    }
    let (died_before, died_after) = between(app, words.older_than, words.newer_than).await?;
    let kind = words.kind.as_deref().map(kind).transpose()?;
    let state = words.state.as_deref().map_or(Ok(Some(DeadLetterState::Open)), state)?;
    let (fingerprint, code) = match words.error {
        Some(error) if is_fingerprint(&error) => (Some(error), None),
        error => (None, error),
    };
    Ok(DeadLetterFilter {
        kind,
        group: words.group,
        type_name: words.type_name,
        key: words.key,
        code,
        fingerprint,
        state,
        died_before,
        died_after,
    })
}

/// The times before which and after which something must have happened that is older and newer than
/// these ages, by the store's clock.
pub(super) async fn between(
    app: &App,
    older_than: Option<String>,
    newer_than: Option<String>,
) -> Result<(Option<Timestamp>, Option<Timestamp>), Problem> {
    let (older, newer) = (age("older_than", older_than)?, age("newer_than", newer_than)?);
    if older.is_none() && newer.is_none() {
        return Ok((None, None));
    }
    let now = app.store.now().await.map_err(store_problem)?;
    let ago = |age: Duration| now.checked_sub(age.try_into().ok()?);
    // Nothing is older than time itself.
    Ok((older.map(|age| ago(age).unwrap_or(Timestamp::UNIX_EPOCH)), newer.and_then(ago)))
}

fn kind(word: &str) -> Result<DeadLetterKind, Problem> {
    DeadLetterKind::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| {
        invalid(format!("`kind`: `{word}` is none of command, parked_key, callback"))
    })
}

fn state(word: &str) -> Result<Option<DeadLetterState>, Problem> {
    if word == "any" {
        return Ok(None);
    }
    let states = [
        DeadLetterState::Open,
        DeadLetterState::Retrying,
        DeadLetterState::Resolved,
        DeadLetterState::Discarded,
    ];
    let found = states.into_iter().find(|state| state.as_str() == word);
    let wrong = || invalid(format!("`state`: `{word}` is no state of dead letters"));
    found.map(Some).ok_or_else(wrong)
}

fn is_fingerprint(error: &str) -> bool {
    error.len() == 16 && error.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A number and a unit: `90s`, `15m`, `2h`, `7d`.
fn age(name: &str, text: Option<String>) -> Result<Option<Duration>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || invalid(format!("`{name}`: `{text}` is no age; write 90s, 15m, 2h or 7d"));
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    // `unit` is one byte.
    let number = text.get(..text.len() - 1).unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(seconds).filter(|it| *it <= 100 * 366 * 86_400);
    seconds.map(|seconds| Some(Duration::from_secs(seconds))).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_a_number_and_a_unit() {
        let read = |text: &str| age("older_than", Some(text.to_owned()));
        for (text, seconds) in
            [("0s", 0), ("90s", 90), ("15m", 900), ("2h", 7_200), ("7d", 604_800)]
        {
            assert_eq!(read(text), Ok(Some(Duration::from_secs(seconds))), "{text}");
        }
        for text in [
            "",
            "s",
            "7",
            "-1s",
            "+1s",
            "1.5h",
            "1 h",
            "1w",
            "7ä",
            "99999999999999999999d",
            "999999d",
        ] {
            assert_eq!(read(text).unwrap_err().status, 400, "{text}");
        }
    }

    #[test]
    fn sixteen_hexadecimal_digits_are_a_fingerprint() {
        assert!(is_fingerprint("22d7782c4c8636e7"));
        assert!(!is_fingerprint("22D7782C4C8636E7") && !is_fingerprint("timed_out"));
    }
}
