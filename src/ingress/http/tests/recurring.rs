//! Recurring commands over HTTP: every row of the contract.

use super::*;
use crate::{ingress::testing::Script, store::StoreError};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// What recurs, with one of its fields changed.
fn nightly() -> Value {
    json!({ "cron": "30 3 * * *", "time_zone": "Europe/Berlin", "command": deposit(5) })
}

async fn put_with(api: &Api, name: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let headers = [&[JSON], headers].concat();
    let target = format!("/v1/recurring/{name}");
    api.request("PUT", &target, &headers, body.to_string().as_bytes()).await
}

async fn put(api: &Api, name: &str, body: &Value) -> Answer {
    put_with(api, name, &[], body).await
}

async fn act(api: &Api, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    api.request(method, &format!("/v1/recurring/{target}"), headers, b"").await
}

/// The places that a problem names, with the rule of each.
fn places(answer: &Answer) -> Vec<(String, String)> {
    let text = |place: &Value, name: &str| place[name].as_str().unwrap().to_owned();
    let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|place| (text(place, "pointer"), text(place, "rule"))).collect()
}

#[tokio::test]
async fn a_recurring_command_is_made_shown_replaced_and_removed() {
    let api = Api::start().await;
    let made = put(&api, "nightly", &nightly()).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.header("location"), Some("/v1/recurring/nightly"));
    let first_tag = made.header("etag").unwrap().to_owned();
    let shown = made.json();
    assert_eq!((&shown["name"], &shown["revision"]), (&json!("nightly"), &json!(1)));
    assert_eq!((&shown["state"], &shown["missed_runs"]), (&json!("active"), &json!("skip")));
    assert_eq!((&shown["created_by"], &shown["runs"]), (&json!("anonymous"), &json!(0)));
    let command = json!({
        "type": "account.deposit", "stream": "account/acc-42", "payload": { "amount": 5 },
        "lane": "queued",
    });
    assert_eq!(shown["command"], command);
    let upcoming: Vec<_> =
        shown["upcoming"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!((upcoming.len(), upcoming[0]), (5, shown["next_due_at"].as_str().unwrap()));
    assert!(upcoming.is_sorted() && upcoming[0].contains(":30:00Z"), "{upcoming:?}");

    let one = api.get("/v1/recurring/nightly").await;
    assert_eq!((one.status, one.header("etag")), (200, Some(first_tag.as_str())));
    assert_eq!(one.json(), shown);
    let again = put(&api, "nightly", &nightly()).await;
    assert_eq!((again.status, again.json()), (200, shown.clone()), "the same again is no change");

    let other = put(&api, "nightly", &with(nightly(), "missed_runs", "all")).await;
    assert_eq!((other.status, &other.json()["revision"]), (200, &json!(2)));
    assert_ne!(other.header("etag"), Some(first_tag.as_str()));
    assert_eq!(other.json()["next_due_at"], shown["next_due_at"]);
    put(&api, "hourly", &with(nightly(), "cron", "@hourly")).await;

    let page = api.get("/v1/recurring?limit=1").await.json();
    assert_eq!((&page["items"][0]["name"], &page["next"]), (&json!("hourly"), &json!("hourly")));
    assert!(page["items"][0].get("upcoming").is_none());
    let page = api.get("/v1/recurring?limit=1&after=hourly").await.json();
    assert_eq!(page["items"][0]["name"], "nightly");

    let removed = act(&api, "DELETE", "nightly", &[]).await;
    assert_eq!((removed.status, &removed.json()["missed_runs"]), (200, &json!("all")));
    for (method, target) in [
        ("GET", "nightly"),
        ("DELETE", "nightly"),
        ("POST", "nightly/pause"),
        ("POST", "nightly/resume"),
    ] {
        let gone = act(&api, method, target, &[]).await;
        assert_eq!(gone.problem(), (404, "recurring_not_found".into()), "{method} {target}");
    }
}

#[tokio::test]
async fn a_paused_one_is_not_due_and_stays_paused_when_it_is_changed() {
    let api = Api::start().await;
    put(&api, "nightly", &nightly()).await;
    let paused = act(&api, "POST", "nightly/pause", &[]).await.json();
    assert_eq!((&paused["state"], &paused["next_due_at"]), (&json!("paused"), &Value::Null));
    assert_eq!((&paused["upcoming"], &paused["revision"]), (&json!([]), &json!(2)));
    let again = act(&api, "POST", "nightly/pause", &[]).await;
    assert_eq!((again.status, again.json()), (200, paused));
    let changed = put(&api, "nightly", &with(nightly(), "cron", "@hourly")).await.json();
    assert_eq!((&changed["state"], &changed["next_due_at"]), (&json!("paused"), &Value::Null));
    let resumed = act(&api, "POST", "nightly/resume", &[]).await.json();
    assert_eq!(resumed["state"], "active");
    assert!(resumed["next_due_at"].as_str().unwrap().ends_with(":00:00Z"), "{resumed}");
    let body = api.request("POST", "/v1/recurring/nightly/pause", &[JSON], b"{\"why\":1}").await;
    assert_eq!(body.problem(), (400, "invalid_field".into()));
}

#[tokio::test]
async fn a_schedule_that_says_nothing_is_refused_with_what_to_write() {
    let api = Api::start().await;
    let refused = async |field: &str, text: &str, rule: &str, says: &str| {
        let answer = put(&api, "nightly", &with(nightly(), field, text)).await;
        assert_eq!(answer.problem(), (422, "invalid_schedule".into()), "{text}");
        assert_eq!(places(&answer), [(format!("/{field}"), rule.to_owned())], "{text}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(says), "{text}: {detail}");
    };
    refused("cron", "every day", "cron", "write five fields").await;
    refused("cron", "60 3 * * *", "cron", "`60` is no minute: write 0 to 59").await;
    refused("cron", "0 3 * * MONDAY", "cron", "`MONDAY` is no day of the week: write 0 to 7").await;
    refused("cron", "0 0 30 2 *", "fires", "no date fits").await;
    refused("time_zone", "Berlin", "time_zone", "such as `UTC` or `Europe/Berlin`").await;
    let both = with(with(nightly(), "cron", "60 * * * *"), "time_zone", "Berlin");
    let answer = put(&api, "nightly", &both).await;
    let expected =
        [("/cron", "cron"), ("/time_zone", "time_zone")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(places(&answer), expected, "both are told at once");
    assert_eq!(api.get("/v1/recurring/nightly").await.status, 404, "nothing was made");
}

#[tokio::test]
async fn the_command_is_checked_as_any_command_is() {
    let api = Api::start().await;
    let refused = async |command: Value| {
        let answer = put(&api, "nightly", &with(nightly(), "command", command)).await;
        let (status, code) = answer.problem();
        (status, code, places(&answer).into_iter().map(|(pointer, _)| pointer).collect::<Vec<_>>())
    };
    let broken = |status, code: &str, pointer: &str| (status, code.into(), vec![pointer.into()]);
    let kind = with(deposit(5), "type", "account.unheard_of");
    assert_eq!(refused(kind).await, broken(422, "unknown_command_type", "/command/type"));
    assert_eq!(refused(deposit(0)).await, broken(422, "rule_violation", "/command/payload/amount"));
    let stream = with(deposit(5), "stream", "order/1");
    assert_eq!(refused(stream).await, broken(422, "wrong_stream", "/command/stream"));
    let payload = with(deposit(5), "payload", json!({ "amount": "much" }));
    assert_eq!(refused(payload).await, broken(400, "invalid_payload", "/command/payload"));
    let version = with(deposit(5), "expected_version", -1);
    assert_eq!(refused(version).await, broken(422, "rule_violation", "/command/expected_version"));
    for lane in ["immediate", "immediate-or-queued"] {
        let lane = with(deposit(5), "lane", lane);
        assert_eq!(refused(lane).await, broken(422, "rule_violation", "/command/lane"));
    }
    for field in ["causation_id", "traceparent"] {
        let metadata = with(deposit(5), "metadata", json!({ field: "x" }));
        let pointer = format!("/command/metadata/{field}");
        assert_eq!(refused(metadata).await, broken(422, "rule_violation", &pointer));
    }
    for (field, value) in [
        ("id", json!(CommandId::generate())),
        ("not_before", json!("2026-01-01T00:00:00Z")),
        ("callback_url", json!("https://example.org")),
        ("colour", json!("red")),
    ] {
        let (status, code, _) = refused(with(deposit(5), field, value)).await;
        assert_eq!((status, code.as_str()), (400, "invalid_field"), "{field}");
    }
    assert_eq!(refused(json!(["account.deposit"])).await.1, "invalid_field");
    let detail = put(&api, "nightly", &with(nightly(), "command", deposit(0))).await.json();
    assert!(
        detail["detail"].as_str().unwrap().starts_with("/command/payload/amount: "),
        "{detail}"
    );
}

#[tokio::test]
async fn a_body_of_another_shape_is_refused() {
    let api = Api::start().await;
    let refused = async |body: &str, headers: &[(&str, &str)]| {
        api.request("PUT", "/v1/recurring/nightly", headers, body.as_bytes()).await.problem()
    };
    let good = nightly().to_string();
    assert_eq!(refused("", &[JSON]).await, (400, "malformed_json".into()));
    assert_eq!(refused("{", &[JSON]).await, (400, "malformed_json".into()));
    assert_eq!(refused("[]", &[JSON]).await, (400, "invalid_field".into()));
    assert_eq!(refused("{}", &[JSON]).await, (400, "invalid_field".into()));
    assert_eq!(refused(&good, &[("Content-Type", "text/plain")]).await.0, 415);
    for (field, value) in [
        ("cron", json!(5)),
        ("missed_runs", json!("sometimes")),
        ("missed_runs", json!(1)),
        ("colour", json!("red")),
        ("state", json!("paused")),
    ] {
        let body = with(nightly(), field, value).to_string();
        assert_eq!(refused(&body, &[JSON]).await, (400, "invalid_field".into()), "{field}");
    }
    for name in ["Nightly", "-x", "a%20b", "%C3%A4", &"x".repeat(101)] {
        let answer = put(&api, name, &nightly()).await;
        assert_eq!(answer.problem(), (400, "invalid_parameter".into()), "{name}");
    }
    assert_eq!(api.get("/v1/recurring?colour=red").await.problem().0, 400);
    assert_eq!(api.get("/v1/recurring?limit=0").await.problem().0, 400);
    assert_eq!(act(&api, "POST", "nightly", &[]).await.problem().0, 405);
}

#[tokio::test]
async fn what_somebody_else_has_changed_is_not_overwritten() {
    let api = Api::start().await;
    let absent = ("If-None-Match", "*");
    assert_eq!(put_with(&api, "a", &[("If-Match", "*")], &nightly()).await.status, 412);
    let made = put_with(&api, "a", &[absent], &nightly()).await;
    assert_eq!(made.status, 201);
    let tag = made.header("etag").unwrap().to_owned();
    let other = with(nightly(), "missed_runs", "once");
    let refused = put_with(&api, "a", &[absent], &other).await;
    assert_eq!(refused.problem(), (412, "precondition_failed".into()));
    assert!(refused.json()["detail"].as_str().unwrap().contains("anonymous"));
    assert_eq!(put_with(&api, "a", &[("If-Match", &tag)], &other).await.status, 200);
    for (method, target) in [("DELETE", "a"), ("POST", "a/pause"), ("POST", "a/resume")] {
        let refused = act(&api, method, target, &[("If-Match", &tag)]).await;
        assert_eq!(refused.problem(), (412, "precondition_failed".into()), "{method} {target}");
    }
    let several = format!("\"x\", {}", api.get("/v1/recurring/a").await.header("etag").unwrap());
    assert_eq!(act(&api, "POST", "a/pause", &[("If-Match", &several)]).await.status, 200);
    for bad in [&[("If-None-Match", "\"x\"")][..], &[absent, ("If-Match", "*")]] {
        assert_eq!(put_with(&api, "a", bad, &other).await.problem().1, "invalid_header");
    }

    // Without a condition the newest is changed, however often others come between, within limits.
    api.store.inside().lost_races = 4;
    assert_eq!(put(&api, "a", &nightly()).await.status, 200);
    api.store.inside().lost_races = 5;
    assert_eq!(put(&api, "a", &other).await.problem(), (409, "changed_meanwhile".into()));
}

#[tokio::test]
async fn only_operators_may_and_a_store_that_is_away_is_told() {
    let tokens = vec![
        token("shop", SECRET, &[AccessRole::Submit, AccessRole::Read]),
        token("ann", OTHER, &[AccessRole::Operate]),
    ];
    let api = Api::with(IngressSettings { tokens, ..IngressSettings::default() }).await;
    let shop = [("Authorization", "Bearer secret")];
    let ann = [("Authorization", "Bearer other")];
    assert_eq!(put_with(&api, "a", &shop, &nightly()).await.problem(), (403, "forbidden".into()));
    assert_eq!(put(&api, "a", &nightly()).await.problem(), (401, "unauthenticated".into()));
    let made = put_with(&api, "a", &ann, &nightly()).await;
    assert_eq!((made.status, &made.json()["created_by"]), (201, &json!("ann")));
    for (method, target) in
        [("GET", "/a"), ("GET", ""), ("DELETE", "/a"), ("POST", "/a/pause"), ("POST", "/a/resume")]
    {
        let target = format!("/v1/recurring{target}");
        assert_eq!(api.request(method, &target, &shop, b"").await.problem().0, 403, "{target}");
    }

    let other = with(nightly(), "missed_runs", "once");
    api.store.script([Script::Fail(StoreError::Unknown)]);
    let lost = put_with(&api, "a", &ann, &other).await;
    assert_eq!(lost.problem(), (503, "action_unknown".into()));
    api.store.script([Script::Fail(StoreError::Unstorable)]);
    assert_eq!(put_with(&api, "a", &ann, &other).await.problem(), (422, "unstorable".into()));
    api.store.inside().down = true;
    assert_eq!(put_with(&api, "a", &ann, &other).await.problem(), (503, "unavailable".into()));
    assert_eq!(api.request("GET", "/v1/recurring", &ann, b"").await.problem().0, 503);
}
