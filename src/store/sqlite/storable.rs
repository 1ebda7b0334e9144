//! What may be stored: the same values that PostgreSQL takes, so that a domain which was tried on
//! this store does not fail on the other one.

use serde::de::IgnoredAny;

use crate::store::StoreError;

/// A text that is to stand in a column.
pub(super) fn text(text: &str) -> Result<&str, StoreError> {
    if text.contains('\0') {
        return Err(StoreError::Unstorable("a text contains U+0000".into()));
    }
    Ok(text)
}

pub(super) fn maybe_text(value: Option<&str>) -> Result<Option<&str>, StoreError> {
    value.map(text).transpose()
}

/// A JSON text: valid, and every escape in it names a character that can be stored.
pub(super) fn json(text: &str) -> Result<&str, StoreError> {
    serde_json::from_str::<IgnoredAny>(text)
        .map_err(|error| StoreError::Unstorable(format!("not JSON: {error}")))?;
    // Escapes are rare; most texts end here.
    if text.contains("\\u") {
        check_escapes(text)?;
    }
    Ok(text)
}

pub(super) fn maybe_json(text: Option<&str>) -> Result<Option<&str>, StoreError> {
    text.map(json).transpose()
}

/// Refuses `\u0000` and halves of surrogate pairs. The text is valid JSON: a backslash stands only
/// inside a string, and `u` is followed by four digits.
fn check_escapes(text: &str) -> Result<(), StoreError> {
    let refuse = |what: &str| Err(StoreError::Unstorable(format!("JSON text contains {what}")));
    let mut rest = text;
    let mut high_before = false;
    while let Some(at) = rest.find('\\') {
        let adjacent = at == 0;
        let escape = &rest[at..];
        let unit = escape
            .strip_prefix("\\u")
            .and_then(|digits| digits.get(..4))
            .and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let is_low = matches!(unit, Some(0xDC00..=0xDFFF));
        if high_before != is_low || (high_before && !adjacent) {
            return refuse("half of a surrogate pair");
        }
        if unit == Some(0) {
            return refuse("\\u0000");
        }
        high_before = matches!(unit, Some(0xD800..=0xDBFF));
        rest = escape.get(if unit.is_some() { 6 } else { 2 }..).unwrap_or_default();
    }
    if high_before { refuse("half of a surrogate pair") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_postgresql_refuses_is_refused() {
        for good in [
            "{}",
            "1",
            r#""\\u0000""#,
            r#""\u00e4 \n \\ \" \ud83d\ude00!""#,
            r#""\ud83d\ude00\ud83d\ude00""#,
            r#"{"a":"\\\\u0000","b":[1.5e300,null]}"#,
        ] {
            assert!(json(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "{",
            "{} {}",
            r#""\u0000""#,
            r#""\\\u0000""#,
            r#"{"\u0000":1}"#,
            r#""\ud83d""#,
            r#""\ude00""#,
            r#""\ud83d \ude00""#,
            r#""\ud83d\ud83d\ude00""#,
            r#""\ud83d\n\ude00""#,
            r#""\ud83d\u0041""#,
            r#""x\u0041\ude00""#,
        ] {
            assert!(matches!(json(bad), Err(StoreError::Unstorable(_))), "{bad}");
        }
        assert!(text("ä").is_ok());
        assert!(text("a\0").is_err());
    }
}
