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
    check_numbers(text)?;
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

/// The most digits that PostgreSQL's `numeric` has before and after the decimal point.
const MOST_DIGITS: i64 = 131_072;
const MOST_DECIMALS: i64 = 16_383;

/// Refuses numbers that `jsonb` cannot hold exactly. The text is valid JSON.
fn check_numbers(text: &str) -> Result<(), StoreError> {
    let is_number = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
    // Outside of strings these characters stand in numbers only, but for the `e` of words.
    for (place, part) in outside_of_strings(text) {
        for token in part.split(|c: char| !is_number(c)) {
            if token.len() > 4 && token.contains(|c: char| c.is_ascii_digit()) && is_too_wide(token)
            {
                let text = format!("the number {token:.40} near byte {place} has too many digits");
                return Err(StoreError::Unstorable(text));
            }
        }
    }
    Ok(())
}

fn is_too_wide(number: &str) -> bool {
    let (digits, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let Ok(exponent) = exponent.parse::<i64>() else { return true };
    let (whole, decimals) = (whole.len() as i64, decimals.len() as i64);
    whole.saturating_add(exponent) > MOST_DIGITS
        || decimals.saturating_sub(exponent) > MOST_DECIMALS
}

/// The parts between strings, with the place where each begins.
fn outside_of_strings(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = Some((0, text));
    std::iter::from_fn(move || {
        let (place, part) = rest.take()?;
        let Some(quote) = part.find('"') else { return Some((place, part)) };
        let mut escaped = false;
        let inside = part.get(quote + 1..).unwrap_or_default();
        let end = inside.find(|c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        if let Some(end) = end {
            let behind = quote + 1 + end + 1;
            rest = part.get(behind..).map(|behind_it| (place + behind, behind_it));
        }
        part.get(..quote).map(|before| (place, before))
    })
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
            r#"{"a":"\"1e-20000\"","1e-20000":1e-300,"b":true}"#,
        ] {
            assert!(json(good).is_ok(), "{good}");
        }
        for bad in [
            r#"{"a\"":500,"x":1e-20000}"#,
            "[-1.5E-16383]",
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
