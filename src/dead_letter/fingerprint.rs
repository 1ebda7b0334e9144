//! Which failures have one cause: same type, same code, same message but for what varies in it.

use xxhash_rust::xxh64::xxh64;

/// How many bytes of a message count.
const MOST_BYTES: usize = 500;

/// The fingerprint of a failure: 16 hexadecimal digits of XXH64 over the type, the error's code and
/// its normalised message.
///
/// ```
/// use adjutant::dead_letter::fingerprint;
/// let one = fingerprint("account.deposit", "timed_out", "no answer from 10.0.0.7 after 31 ms");
/// let two = fingerprint("account.deposit", "timed_out", "no answer from 10.0.0.9 after 502 ms");
/// assert_eq!(one, two);
/// ```
pub fn fingerprint(type_name: &str, code: &str, message: &str) -> String {
    let text = format!("{type_name}\n{code}\n{}", normalised(message));
    format!("{:016x}", xxh64(text.as_bytes(), 0))
}

/// Words that hold a digit, and what stands in quotes, become `#`; white space becomes one space.
fn normalised(message: &str) -> String {
    let mut text = String::new();
    let mut quoted: Option<char> = None;
    for word in message.split_whitespace() {
        if text.len() >= MOST_BYTES {
            break;
        }
        if let Some(quote) = quoted {
            quoted = (!word.contains(quote)).then_some(quote);
            continue;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        let quote = word.chars().find(|letter| matches!(letter, '"' | '\'' | '`'));
        // An apostrophe within a word quotes nothing.
        let opens = quote.filter(|quote| {
            word.trim_start_matches(['(', '[', '{', ':', '=']).starts_with(*quote)
                || (*quote != '\'' && word.contains(*quote))
        });
        match opens {
            Some(quote) => {
                text.push('#');
                quoted = (word.matches(quote).count() % 2 == 1).then_some(quote);
            }
            None if word.bytes().any(|byte| byte.is_ascii_digit()) => text.push('#'),
            None => text.push_str(word),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_in_a_message_does_not_count() {
        let same = [
            ("row 17 is locked", "row 3 is  locked"),
            ("key `a b c` is taken", "key `d` is taken"),
            ("id 0190c7f2-aaaa-7bbb-8ccc-1234567890ab: gone", "id 5: gone"),
            ("stream \"account/acc-1\" ended", "stream \"account/x\" ended"),
        ];
        for (one, two) in same {
            assert_eq!(normalised(one), normalised(two));
        }
    }

    #[test]
    fn what_differs_in_cause_differs() {
        let deposit = fingerprint("account.deposit", "broken", "no answer");
        assert_ne!(deposit, fingerprint("account.withdraw", "broken", "no answer"));
        assert_ne!(deposit, fingerprint("account.deposit", "timed_out", "no answer"));
        assert_ne!(deposit, fingerprint("account.deposit", "broken", "no room"));
        assert_eq!(normalised("it doesn't work, isn't it"), "it doesn't work, isn't it");
    }

    /// Fingerprints are stored: they must not change between releases.
    #[test]
    fn a_fingerprint_never_changes() {
        let found = fingerprint("account.deposit", "timed_out", "no answer after 31 ms");
        assert_eq!(found, GOLDEN);
    }

    const GOLDEN: &str = "22d7782c4c8636e7";
}
