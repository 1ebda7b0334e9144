//! W3C Trace Context, level 1: reading and making `traceparent`. Every command has one, so that logs
//! of ingress, relay, worker and projection can be joined.

/// Whether a text is a `traceparent` (section 3.2): version, trace id, parent id and flags in lower
/// case hex, ids not all zero. Versions after 00 may carry more fields.
pub(super) fn is_traceparent(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 55 || bytes.len() > 255 {
        return false;
    }
    let hex = |range: std::ops::Range<usize>| {
        bytes[range].iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
    };
    let zero = |range: std::ops::Range<usize>| bytes[range].iter().all(|&b| b == b'0');
    let dashes = [2, 35, 52].iter().all(|&at| bytes[at] == b'-');
    let fields = hex(0..2) && hex(3..35) && hex(36..52) && hex(53..55);
    let version_is_known = &bytes[0..2] == b"00";
    let end = bytes.len() == 55 || (!version_is_known && bytes[55] == b'-');
    let printable = bytes.iter().all(u8::is_ascii_graphic);
    dashes && fields && end && printable && &bytes[0..2] != b"ff" && !zero(3..35) && !zero(36..52)
}

/// The first span of a new trace: random ids, sampled.
pub(super) fn new_traceparent() -> String {
    let trace = crate::chance::random_id();
    let span = crate::chance::random_id().as_u128() as u64 | 1;
    format!("00-{}-{span:016x}-01", trace.simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_traceparents_are_taken() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        assert!(is_traceparent(&good.replacen("00", "01", 1)));
        assert!(is_traceparent(&format!("{}-more", good.replacen("00", "01", 1))));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473ö-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }

    #[test]
    fn a_new_trace_is_well_formed_and_new() {
        let (one, two) = (new_traceparent(), new_traceparent());
        assert!(is_traceparent(&one), "{one}");
        assert_ne!(one, two);
    }
}
