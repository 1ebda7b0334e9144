//! A command's rules: garde's report as JSON pointers (RFC 6901) and rule names.

use std::{borrow::Cow, fmt::Display};

use garde::i18n::{I18n, IpKind, with_i18n};
use serde::Serialize;

pub use garde::Validate;

/// One rule that a payload breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleViolation {
    /// Where, within the payload (RFC 6901): `/amount`, `/lines/0/sku`; empty for the whole.
    pub pointer: String,
    /// Which rule: `range`, `length`, `pattern` …; `custom` for a rule of the user's own.
    pub rule: String,
    /// What is wrong, for people.
    pub message: String,
}

/// Every rule that `payload` breaks.
pub(crate) fn violations<T: Validate<Context = ()>>(payload: &T) -> Vec<RuleViolation> {
    let Err(report) = with_i18n(NamedRules, || payload.validate()) else {
        return Vec::new();
    };
    report
        .iter()
        .map(|(path, error)| {
            let message = error.message();
            let (rule, message) = message.split_once(SEPARATOR).unwrap_or(("custom", message));
            RuleViolation {
                pointer: pointer(path),
                rule: rule.to_owned(),
                message: message.to_owned(),
            }
        })
        .collect()
}

/// garde writes paths as lists of `(kind, component)` when it serialises them.
fn pointer(path: &garde::Path) -> String {
    let components: Vec<(serde_json::Value, String)> =
        serde_json::to_value(path).and_then(serde_json::from_value).unwrap_or_default();
    components
        .iter()
        .filter(|(_, component)| !component.is_empty())
        .fold(String::new(), |pointer, (_, component)| {
            pointer + "/" + &component.replace('~', "~0").replace('/', "~1")
        })
}

/// Stands between a rule's name and its message; no message of ours contains it.
const SEPARATOR: char = '\u{1f}';

/// Messages that carry the name of their rule, which garde's own do not.
struct NamedRules;

fn named(rule: &str, message: impl Display) -> Cow<'static, str> {
    format!("{rule}{SEPARATOR}{message}").into()
}

impl I18n for NamedRules {
    fn length_lower_than(&self, min: usize) -> Cow<'static, str> {
        named("length", format_args!("must have a length of at least {min}"))
    }
    fn length_greater_than(&self, max: usize) -> Cow<'static, str> {
        named("length", format_args!("must have a length of at most {max}"))
    }
    fn range_lower_than(&self, min: &dyn Display) -> Cow<'static, str> {
        named("range", format_args!("must be at least {min}"))
    }
    fn range_greater_than(&self, max: &dyn Display) -> Cow<'static, str> {
        named("range", format_args!("must be at most {max}"))
    }
    fn credit_card_invalid(&self, reason: garde::i18n::InvalidCreditCard) -> Cow<'static, str> {
        named("credit_card", format_args!("is no valid card number: {reason}"))
    }
    fn pattern_no_match(&self, pattern: &dyn Display) -> Cow<'static, str> {
        named("pattern", format_args!("must match the pattern {pattern}"))
    }
    fn contains_missing(&self, pattern: &dyn Display) -> Cow<'static, str> {
        named("contains", format_args!("must contain `{pattern}`"))
    }
    fn url_invalid(&self, reason: garde::i18n::InvalidUrl) -> Cow<'static, str> {
        named("url", format_args!("is no valid URL: {reason}"))
    }
    fn prefix_missing(&self, pattern: &dyn Display) -> Cow<'static, str> {
        named("prefix", format_args!("must start with `{pattern}`"))
    }
    fn suffix_missing(&self, pattern: &dyn Display) -> Cow<'static, str> {
        named("suffix", format_args!("must end with `{pattern}`"))
    }
    fn phone_number_invalid(&self, reason: garde::i18n::InvalidPhoneNumber) -> Cow<'static, str> {
        named("phone_number", format_args!("is no valid phone number: {reason}"))
    }
    fn ip_invalid(&self, kind: IpKind) -> Cow<'static, str> {
        named("ip", format_args!("must be a valid {kind} address"))
    }
    fn matches_field_mismatch(&self, field: &dyn Display) -> Cow<'static, str> {
        named("matches", format_args!("must be the same as `{field}`"))
    }
    fn email_invalid(&self, reason: garde::i18n::InvalidEmail) -> Cow<'static, str> {
        named("email", format_args!("is no valid e-mail address: {reason}"))
    }
    fn ascii_invalid(&self) -> Cow<'static, str> {
        named("ascii", "must be ASCII")
    }
    fn alphanumeric_invalid(&self) -> Cow<'static, str> {
        named("alphanumeric", "must be letters and digits only")
    }
    fn required_not_set(&self) -> Cow<'static, str> {
        named("required", "must be set")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Validate)]
    struct Line {
        #[garde(length(min = 1))]
        sku: String,
    }

    #[derive(Validate)]
    struct Order {
        #[garde(range(min = 1, max = 10))]
        amount: i64,
        #[garde(dive)]
        lines: Vec<Line>,
        #[garde(custom(no_holiday))]
        day: u8,
    }

    fn no_holiday(_: &u8, _: &()) -> garde::Result {
        Err(garde::Error::new("is a holiday"))
    }

    #[test]
    fn every_broken_rule_is_named_with_a_pointer() {
        let order = Order { amount: 0, lines: vec![Line { sku: String::new() }], day: 1 };
        let found: Vec<_> =
            violations(&order).into_iter().map(|v| (v.pointer, v.rule, v.message)).collect();
        let expected = [
            ("/amount", "range", "must be at least 1"),
            ("/day", "custom", "is a holiday"),
            ("/lines/0/sku", "length", "must have a length of at least 1"),
        ];
        assert_eq!(found, expected.map(|(p, r, m)| (p.to_owned(), r.to_owned(), m.to_owned())));
    }
}
