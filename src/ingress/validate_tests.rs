use serde_json::json;

use super::*;
use crate::ingress::testing::bank;

fn check(json: &str) -> Result<NewCommand, Problem> {
    check_from(json, &Origin::default())
}

fn check_from(json: &str, origin: &Origin<'_>) -> Result<NewCommand, Problem> {
    Validator::new(bank().registry().clone()).check(json.as_bytes(), origin)
}

fn with(fields: &Value) -> Result<NewCommand, Problem> {
    check(&deposit_with(fields).to_string())
}

fn deposit_with(fields: &Value) -> Value {
    let mut command = json!({
        "type": "account.deposit", "stream": "account/acc-42", "payload": { "amount": 5 },
    });
    for (name, value) in fields.as_object().unwrap() {
        command[name] = value.clone();
    }
    command
}

fn refused(result: Result<NewCommand, Problem>) -> (u16, &'static str, Vec<String>) {
    let problem = result.expect_err("refused");
    let pointers = problem.errors.iter().map(|e| format!("{} {}", e.pointer, e.rule)).collect();
    (problem.status, problem.code.as_str(), pointers)
}

#[test]
fn a_command_needs_only_type_stream_and_payload() {
    let command = with(&json!({})).unwrap();
    assert_eq!(command.command_type, "account.deposit");
    assert_eq!(command.stream.as_str(), "account/acc-42");
    assert_eq!(command.payload.as_str(), r#"{"amount":5}"#);
    assert_eq!(command.id.0.get_version_num(), 7);
    assert!(trace::is_traceparent(command.metadata.traceparent.as_deref().unwrap()));
}

#[test]
fn every_field_is_carried() {
    let command = with(&json!({
        "id": "0190a0b0-0000-7000-8000-000000000001", "lane": "queued", "expected_version": 0,
        "not_before": "2026-01-01T00:00:00Z", "not_after": null,
        "metadata": { "correlation_id": "c", "causation_id": "b", "actor": "a",
                      "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" },
    }))
    .unwrap();
    assert_eq!(command.id.to_string(), "0190a0b0-0000-7000-8000-000000000001");
    assert_eq!(command.expected_version, Some(Version(0)));
    assert_eq!(command.not_before.unwrap().unix_timestamp(), 1_767_225_600);
    assert_eq!(command.metadata.actor.as_deref(), Some("a"));
    assert_eq!(command.metadata.trace_id(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
}

#[test]
fn what_is_no_json_is_malformed() {
    let deep = format!(
        r#"{{"type":"account.deposit","stream":"account/a","payload":{{"amount":1,"extra":{}{}}}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    let big = r#"{"type":"account.deposit","stream":"account/a","payload":{"amount":1e999}}"#;
    let surrogate =
        r#"{"type":"account.deposit","stream":"account/a","payload":{"amount":1,"note":"\ud800"}}"#;
    for json in ["", "{", "nonsense", "\u{feff}{}", &deep, big, surrogate] {
        let (status, code, _) = refused(check(json));
        assert_eq!((status, code), (400, "malformed_json"), "{json}");
    }
    assert!(check(&deep).unwrap_err().detail.contains("nested more than 127 levels"));
    assert!(check(big).unwrap_err().detail.contains("does not fit 64 bits"));
    let validator = Validator::new(bank().registry().clone());
    let problem = validator.check(b"{\"type\":\"\xff\"}", &Origin::default()).unwrap_err();
    assert_eq!(
        (problem.code.as_str(), problem.detail.as_str()),
        ("malformed_json", "not UTF-8: a wrong byte at 9")
    );
}

#[test]
fn unknown_fields_and_wrong_types_are_refused() {
    for fields in [
        json!({ "unknown": 1 }),
        json!({ "id": "no-uuid" }),
        json!({ "id": 7 }),
        json!({ "type": 1 }),
        json!({ "stream": ["account/a"] }),
        json!({ "lane": "fast" }),
        json!({ "expected_version": "1" }),
        json!({ "expected_version": 1.5 }),
        json!({ "expected_version": 1e30 }),
        json!({ "not_before": "tomorrow" }),
        json!({ "not_before": 12 }),
        json!({ "metadata": { "user": "x" } }),
        json!({ "metadata": { "actor": 1 } }),
        // Its fields in their order, without their names; and what is no object at all.
        json!({ "metadata": ["c", "b", "a", null] }),
        json!({ "metadata": [] }),
        json!({ "metadata": "a" }),
    ] {
        let (status, code, _) = refused(with(&fields));
        assert_eq!((status, code), (400, "invalid_field"), "{fields}");
    }
    let array = with(&json!({ "metadata": [] })).unwrap_err();
    assert!(array.detail.contains("expected metadata as a JSON object"), "{}", array.detail);
    assert!(with(&json!({ "metadata": null })).is_ok(), "as if it were not there");
    for json in [
        "[]",
        "null",
        "1",
        // The fields in their order, without their names.
        r#"[null,"account.deposit","account/a",{"amount":5},null,null,null,null,null,null]"#,
        r#"{"type":"account.deposit","stream":"account/a"}"#,
        r#"{"type":"account.deposit","type":"account.deposit","stream":"account/a","payload":{}}"#,
    ] {
        assert_eq!(refused(check(json)).1, "invalid_field", "{json}");
    }
    for payload in [
        json!(null),
        json!([]),
        json!({}),
        json!({ "amount": "5" }),
        json!({ "amount": 5.5 }),
        json!({ "amount": 5, "unknown": 1 }),
        json!({ "amount": 1e19 }),
    ] {
        let (status, code, pointers) = refused(with(&json!({ "payload": payload })));
        assert_eq!((status, code), (400, "invalid_payload"), "{payload}");
        assert_eq!(pointers, ["/payload type"]);
    }
}

#[test]
fn types_and_streams_must_be_known_and_fit() {
    for kind in ["account.unknown", "deposit", "account.deposited", "", "account.\u{0}"] {
        let (status, code, pointers) = refused(with(&json!({ "type": kind })));
        assert_eq!((status, code), (422, "unknown_command_type"), "{kind}");
        assert_eq!(pointers, ["/type known"]);
    }
    for stream in ["order/1", "account", "account/", "Account/1", "account/a b", ""] {
        let (status, code, _) = refused(with(&json!({ "stream": stream })));
        assert_eq!((status, code), (422, "wrong_stream"), "{stream}");
    }
}

#[test]
fn what_is_not_delivered_is_refused_not_ignored() {
    let (status, code, pointers) = refused(with(&json!({ "lane": "immediate" })));
    assert_eq!((status, code), (422, "not_available"));
    assert_eq!(pointers, ["/lane not_available"]);
}

#[test]
fn the_lane_is_the_one_that_is_there() {
    let registry = bank().registry().clone();
    let lane = |word: &str, there| {
        let json = json!({ "type": "account.deposit", "stream": "account/a", "lane": word,
                           "payload": { "amount": 5 } });
        let validator = Validator::new(registry.clone()).with_immediate_lane(there);
        validator.check_value(&json, &Origin::default()).unwrap()
    };
    for (word, there, expected, or_queued) in [
        ("queued", true, Lane::Queued, false),
        ("immediate", true, Lane::Immediate, false),
        ("immediate-or-queued", true, Lane::Immediate, true),
        ("immediate-or-queued", false, Lane::Queued, true),
    ] {
        let command = lane(word, there);
        assert_eq!((command.lane, command.or_queued), (expected, or_queued), "{word}");
        assert_eq!(command.content_hash, lane("queued", true).content_hash, "no part of it");
    }
}

#[test]
fn a_callback_is_refused_where_nobody_would_sign_it() {
    let refusal = refused(with(&json!({ "callback_url": "https://hooks.example/" })));
    let place = "/callback_url callbacks_not_configured".to_owned();
    assert_eq!(refusal, (422, "callbacks_not_configured", vec![place]));
    assert!(with(&json!({ "callback_url": null })).is_ok(), "null is none");
}

#[test]
fn a_callback_url_is_kept_as_parsers_write_it_and_is_no_part_of_the_content() {
    let validator = Validator::new(bank().registry().clone());
    let validator = validator.with_callbacks(Some(TargetRules::default()));
    let check = |fields: Value| {
        validator.check(deposit_with(&fields).to_string().as_bytes(), &Origin::default())
    };
    let plain = check(json!({})).unwrap();
    let one = check(json!({ "callback_url": "HTTPS://Hooks.Example/a?b" })).unwrap();
    assert_eq!(one.callback_url.as_deref(), Some("https://hooks.example/a?b"));
    assert_eq!((plain.callback_url, plain.content_hash), (None, one.content_hash));
    let broken = check(json!({
        "callback_url": "http://me@127.0.0.1/#x", "payload": { "amount": 0 },
    }));
    let (status, code, pointers) = refused(broken);
    assert_eq!((status, code), (422, "rule_violation"));
    let of_url = ["https", "credentials", "fragment", "address"];
    let mut expected: Vec<_> = of_url.iter().map(|rule| format!("/callback_url {rule}")).collect();
    expected.push("/payload/amount range".to_owned());
    assert_eq!(pointers, expected);
}

#[test]
fn a_deadline_before_the_start_is_refused() {
    let times = |after| json!({ "not_before": "2026-01-02T00:00:00Z", "not_after": after });
    let (status, code, pointers) = refused(with(&times("2026-01-01T23:59:59Z")));
    assert_eq!((status, code), (422, "rule_violation"));
    assert_eq!(pointers, ["/not_after order"]);
    assert!(with(&times("2026-01-02T00:00:00Z")).is_ok());
}

#[test]
fn all_broken_rules_come_at_once_with_pointers() {
    let (status, code, pointers) = refused(with(&json!({
        "payload": { "amount": 0, "note": "much too long a note" },
        "expected_version": -1,
        "metadata": { "actor": "", "correlation_id": "x".repeat(256), "traceparent": "00-1-2-3" },
    })));
    assert_eq!((status, code), (422, "rule_violation"));
    assert_eq!(
        pointers,
        [
            "/metadata/correlation_id length",
            "/metadata/actor length",
            "/metadata/traceparent traceparent",
            "/expected_version range",
            "/payload/amount range",
            "/payload/note length",
        ]
    );
    assert!(with(&json!({ "metadata": { "actor": "ä".repeat(255) } })).is_ok());
}

#[test]
fn u0000_is_refused_wherever_it_stands() {
    let (status, code, pointers) = refused(with(&json!({
        "stream": "account/a\u{0}",
        "metadata": { "actor": "\u{0}" },
        "payload": { "amount": 1, "note": "\u{0}", "extra": [{ "a/b\u{0}": "x" }, "y\u{0}"] },
    })));
    assert_eq!((status, code), (422, "text_with_nul"));
    assert_eq!(
        pointers,
        [
            "/stream no_nul",
            "/metadata/actor no_nul",
            "/payload/extra/0/a~1b\\u0000 no_nul",
            "/payload/extra/1 no_nul",
            "/payload/note no_nul",
        ]
    );
    // An escaped backslash before `u0000` is six harmless characters.
    assert!(with(&json!({ "payload": { "amount": 1, "note": "\\u0000" } })).is_ok());
}

#[test]
fn the_id_of_a_key_must_not_contradict_the_body() {
    let key = CommandId::generate();
    let origin = Origin { id: Some(key), ..Origin::default() };
    let body = |id: &str| {
        format!(r#"{{{id}"type":"account.deposit","stream":"account/a","payload":{{"amount":1}}}}"#)
    };
    assert_eq!(check_from(&body(""), &origin).unwrap().id, key);
    assert_eq!(check_from(&body(&format!(r#""id":"{key}","#)), &origin).unwrap().id, key);
    let other = body(&format!(r#""id":"{}","#, CommandId::generate()));
    assert_eq!(refused(check_from(&other, &origin)).1, "idempotency_key_mismatch");
}

#[test]
fn a_valid_traceparent_is_carried_and_another_replaced() {
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let body = r#"{"type":"account.deposit","stream":"account/a","payload":{"amount":1}}"#;
    let trace = |given| {
        let origin = Origin { traceparent: Some(given), ..Origin::default() };
        check_from(body, &origin).unwrap().metadata.traceparent.unwrap()
    };
    assert_eq!(trace(given), given);
    assert!(trace::is_traceparent(&trace("nonsense")));
}

#[test]
fn content_is_compared_by_meaning_not_by_spelling() {
    let hash = |json: &str| check(json).unwrap().content_hash;
    let one = hash(
        r#"{"type":"account.deposit","stream":"account/a","payload":{"amount":1,"note":"x"}}"#,
    );
    let same = hash(
        r#"{ "payload": { "note": "\u0078", "amount": 1 }, "stream":"account/a", "type":"account.deposit", "lane": "queued", "metadata": {"actor":"x"}}"#,
    );
    let other = hash(
        r#"{"type":"account.deposit","stream":"account/b","payload":{"amount":1,"note":"x"}}"#,
    );
    assert_eq!(one, same);
    assert_ne!(one, other);
}

#[test]
fn integers_beyond_double_precision_are_different_content() {
    let hash =
        |amount: i64| with(&json!({ "payload": { "amount": amount } })).unwrap().content_hash;
    assert_ne!(hash(9_007_199_254_740_992), hash(9_007_199_254_740_993));
    assert_eq!(hash(9_007_199_254_740_993), hash(9_007_199_254_740_993));
}
