//! What was expected and what there is, line by line.

use std::fmt::Write as _;

use serde_json::Value;

/// Ends the test at the user's line. A closure would hide that line: match, and call this.
#[track_caller]
#[allow(clippy::panic, reason = "an assertion that fails ends its test")]
pub(super) fn fail(message: &str) -> ! {
    panic!("{message}")
}

/// JSON as people read it.
pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

/// Both values with the lines in which they differ marked.
pub(super) fn json(expected: &Value, actual: &Value) -> String {
    lines(&pretty(expected), &pretty(actual))
}

/// Both texts: `-` before lines that only `expected` has, `+` before those of `actual` alone.
pub(super) fn lines(expected: &str, actual: &str) -> String {
    let expected: Vec<&str> = expected.lines().collect();
    let actual: Vec<&str> = actual.lines().collect();
    let common = common_suffixes(&expected, &actual);
    let mut text = String::from("- expected\n+ actual\n");
    let (mut left, mut right) = (0, 0);
    // Writing to a String cannot fail.
    while left < expected.len() || right < actual.len() {
        let same = left < expected.len() && right < actual.len() && expected[left] == actual[right];
        if same {
            let _ = writeln!(text, "  {}", expected[left]);
            (left, right) = (left + 1, right + 1);
        } else if right == actual.len()
            || (left < expected.len() && common[left + 1][right] >= common[left][right + 1])
        {
            let _ = writeln!(text, "- {}", expected[left]);
            left += 1;
        } else {
            let _ = writeln!(text, "+ {}", actual[right]);
            right += 1;
        }
    }
    text
}

/// For each pair of places, how many lines the rests have in common (their longest common
/// subsequence). Texts of thousands of lines are compared by place only.
fn common_suffixes(expected: &[&str], actual: &[&str]) -> Vec<Vec<u32>> {
    const MOST: usize = 4_000_000;
    let mut common = vec![vec![0; actual.len() + 1]; expected.len() + 1];
    if expected.len().saturating_mul(actual.len()) > MOST {
        return common;
    }
    for left in (0..expected.len()).rev() {
        for right in (0..actual.len()).rev() {
            common[left][right] = if expected[left] == actual[right] {
                common[left + 1][right + 1] + 1
            } else {
                common[left + 1][right].max(common[left][right + 1])
            };
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn lines_that_differ_are_marked_and_the_others_stay() {
        let found = lines("a\nb\nc\nd", "a\nc\nx\nd");
        assert_eq!(found, "- expected\n+ actual\n  a\n- b\n  c\n+ x\n  d\n");
    }
}
