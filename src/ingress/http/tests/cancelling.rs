//! Cancelling one command, and asking for all that match. What becomes of them is tested on real stores
//! (`tests/it/cancellation.rs`).

use super::{events::EventStream, *};
use crate::{ingress::testing::Script, message::OutcomeStatus, store::StoreError};

impl Api {
    async fn cancel(&self, id: CommandId, query: &str) -> Answer {
        self.request("DELETE", &format!("/v1/commands/{id}{query}"), &[], b"").await
    }

    async fn cancel_with(&self, id: CommandId, query: &str, body: &str) -> Answer {
        let headers = [("Content-Type", "application/json")];
        let target = format!("/v1/commands/{id}{query}");
        self.request("DELETE", &target, &headers, body.as_bytes()).await
    }

    async fn cancel_all(&self, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json")];
        let body = body.to_string();
        self.request("POST", "/v1/commands/cancel", &headers, body.as_bytes()).await
    }
}

fn why(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let command = answer.json();
    assert_eq!(command["status"], "cancelled");
    assert_eq!(command["outcome"]["error"]["code"], "cancelled");
    command["outcome"]["error"]["message"].clone()
}

#[tokio::test]
async fn a_command_is_cancelled_once() {
    let api = Api::start().await;
    let id = id_of(&api.submit(&deposit(5)).await);
    assert_eq!(
        why(&api.cancel(id, "?reason=sent%20twice").await),
        "called off by anonymous: sent twice"
    );
    let again = api.cancel(id, "").await;
    assert_eq!(again.problem(), (409, "already_cancelled".into()));
    assert_eq!(again.json()["id"], id.to_string());
    let shown = api.get(&format!("/v1/commands/{id}")).await.json();
    assert_eq!(shown["status"], "cancelled");
    let replayed = api.submit(&with(deposit(5), "id", id.to_string())).await;
    assert_eq!((replayed.status, &replayed.json()["status"]), (200, &json!("cancelled")));

    let id = id_of(&api.submit(&deposit(5)).await);
    assert_eq!(
        why(&api.cancel_with(id, "", r#"{"reason":"a mistake"}"#).await),
        "called off by anonymous: a mistake"
    );
    let id = id_of(&api.submit(&deposit(5)).await);
    assert_eq!(why(&api.cancel_with(id, "", "{}").await), "called off by anonymous");
}

#[tokio::test]
async fn what_cannot_be_cancelled_is_told_with_what_to_do_instead() {
    let api = Api::start().await;
    let nobody = api.cancel(CommandId::generate(), "").await;
    assert_eq!(nobody.problem(), (404, "command_not_found".into()));
    for (status, hint) in [
        (OutcomeStatus::Succeeded, "send a command that undoes it"),
        (OutcomeStatus::Rejected, "it did nothing"),
        (OutcomeStatus::Dead, "discard its dead letter"),
    ] {
        let id = id_of(&api.submit(&deposit(5)).await);
        api.store.end(id, status);
        let answer = api.cancel(id, "").await;
        assert_eq!(answer.problem(), (409, "already_ended".into()));
        assert!(answer.json()["detail"].as_str().unwrap().contains(hint), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_cancellation_that_is_not_well_formed_cancels_nothing() {
    let api = Api::start().await;
    let id = id_of(&api.submit(&deposit(5)).await);
    let long = format!("?reason={}", "x".repeat(1_001));
    for (query, body, problem) in [
        ("?why=because", "", (400, "invalid_parameter")),
        ("?reason=one", r#"{"reason":"two"}"#, (400, "invalid_parameter")),
        ("", r#"{"why":"because"}"#, (400, "invalid_field")),
        ("", "[]", (400, "invalid_field")),
        ("", "{", (400, "malformed_json")),
        (long.as_str(), "", (422, "rule_violation")),
        ("?reason=a%00b", "", (422, "text_with_nul")),
    ] {
        let answer = api.cancel_with(id, query, body).await;
        assert_eq!(answer.problem(), (problem.0, problem.1.to_owned()), "{query} {body}");
    }
    let answer = api.request("DELETE", "/v1/commands/nonsense", &[], b"").await;
    assert_eq!(answer.problem(), (400, "invalid_parameter".into()));
    assert_eq!(api.get(&format!("/v1/commands/{id}")).await.json()["status"], "accepted");
}

#[tokio::test]
async fn whoever_waits_in_the_same_process_hears_of_a_cancellation_at_once() {
    let api = Api::start().await;
    let id = id_of(&api.submit(&deposit(5)).await);
    let mut watching = EventStream::open(api.address, id, None).await;
    assert_eq!(watching.next().await.unwrap().status(), "accepted");
    let mut ended = api.signals.watch_ended();
    let target = format!("/v1/commands/{id}?wait=60");
    let (waiting, cancelled) = tokio::join!(api.get(&target), api.cancel(id, ""));
    assert_eq!(cancelled.status, 200);
    assert_eq!(waiting.json()["status"], "cancelled");
    assert_eq!(watching.next().await.unwrap().status(), "cancelled");
    assert!(watching.next().await.is_none(), "nothing comes after the end");
    assert_eq!(ended.try_recv().unwrap()[..], [id], "nobody has to look for it");
    assert_eq!(api.cancel(id, "").await.status, 409);
    assert!(ended.try_recv().is_err(), "it ended once");
}

#[tokio::test]
async fn a_lost_answer_to_a_cancellation_is_not_called_a_failure() {
    let api = Api::start().await;
    let id = id_of(&api.submit(&deposit(5)).await);
    api.store.script([Script::Fail(StoreError::Unknown)]);
    let answer = api.cancel(id, "").await;
    assert_eq!(answer.problem(), (503, "action_unknown".into()), "{}", answer.body);
    api.store.script([Script::Fail(StoreError::Transient)]);
    assert_eq!(api.cancel(id, "").await.problem(), (503, "unavailable".into()));
    assert_eq!(api.cancel(id, "").await.status, 200);
    api.store.inside().down = true;
    assert_eq!(api.cancel(id, "").await.problem(), (503, "unavailable".into()));
    assert_eq!(api.cancel_all(&json!({ "all": true })).await.problem().0, 503);
}

#[tokio::test]
async fn a_caller_cancels_at_its_rate() {
    let tokens = vec![TokenSettings {
        commands_per_second: Some(1),
        ..token("shop", SECRET, &[AccessRole::Submit])
    }];
    let api = Api::with(IngressSettings { tokens, ..IngressSettings::default() }).await;
    let target = format!("/v1/commands/{}", CommandId::generate());
    let headers = [("Authorization", "Bearer secret")];
    let mut client = Client::connect(api.address).await;
    // A burst of a thousand always fits.
    for _ in 0..1_000 {
        let answer = client.request("DELETE", &target, &headers, b"").await;
        if answer.problem() == (429, "rate_limited".into()) {
            panic!("the burst did not fit");
        }
    }
    let mut limited = false;
    for _ in 0..10 {
        let answer = client.request("DELETE", &target, &headers, b"").await;
        limited |= answer.problem() == (429, "rate_limited".into());
    }
    assert!(limited);
}

#[tokio::test]
async fn a_job_over_commands_says_which_ones() {
    let api = Api::start().await;
    for amount in 1..=3 {
        api.submit(&deposit(amount)).await;
    }
    let other = with(deposit(1), "stream", "account/other");
    let ended = id_of(&api.submit(&other).await);
    api.store.end(ended, OutcomeStatus::Succeeded);
    let made = api
        .cancel_all(&json!({
            "type": "account.deposit", "stream": "account/acc-42", "status": "accepted",
            "newer_than": "2h", "reason": "a mistake", "rate": 7,
        }))
        .await;
    assert_eq!(made.status, 202, "{}", made.body);
    let job = made.json();
    let location = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    assert_eq!(made.header("location"), Some(location.as_str()));
    assert_eq!((&job["action"], &job["state"]), (&json!("cancel"), &json!("running")));
    assert_eq!((&job["total"], &job["rate"]), (&json!(3), &json!(7)));
    assert_eq!((&job["who"], &job["reason"]), (&json!("anonymous"), &json!("a mistake")));
    assert_eq!(job["canary"], Value::Null);
    let filter = &job["filter"];
    assert_eq!(filter["type"], "account.deposit");
    assert_eq!(
        (&filter["stream"], &filter["status"]),
        (&json!("account/acc-42"), &json!("accepted"))
    );
    assert!(filter["accepted_after"].is_string() && filter.get("accepted_before").is_none());
    assert_eq!(api.cancel_all(&json!({ "all": true })).await.json()["total"], 3);

    for (body, problem, at) in [
        (json!({}), (422, "rule_violation"), "/all"),
        (json!({ "reason": "x" }), (422, "rule_violation"), "/all"),
        (json!({ "all": false }), (422, "rule_violation"), "/all"),
        (json!({ "all": true, "type": "account.deposit" }), (422, "rule_violation"), "/all"),
        (json!({ "status": "succeeded" }), (422, "rule_violation"), "/status"),
        (json!({ "status": "dead" }), (422, "rule_violation"), "/status"),
        (json!({ "all": true, "rate": 0 }), (422, "rule_violation"), "/rate"),
        (json!({ "all": true, "rate": 10_001 }), (422, "rule_violation"), "/rate"),
        (json!({ "all": true, "reason": "x".repeat(1_001) }), (422, "rule_violation"), "/reason"),
        (json!({ "status": "nonsense" }), (400, "invalid_parameter"), ""),
        (json!({ "stream": "nonsense" }), (400, "invalid_parameter"), ""),
        (json!({ "older_than": "2 hours" }), (400, "invalid_parameter"), ""),
        (json!({ "type": "a\0b" }), (422, "text_with_nul"), ""),
        (json!({ "colour": "red" }), (400, "invalid_field"), ""),
        (json!([]), (400, "invalid_field"), ""),
    ] {
        let answer = api.cancel_all(&body).await;
        assert_eq!(answer.problem(), (problem.0, problem.1.to_owned()), "{body}");
        if !at.is_empty() {
            assert_eq!(answer.json()["errors"][0]["pointer"], at, "{body}");
        }
    }
    let both = api.cancel_all(&json!({ "rate": 0 })).await.json();
    assert_eq!(both["errors"].as_array().unwrap().len(), 2, "all that is wrong at once: {both}");
}

#[tokio::test]
async fn a_deadline_is_shown() {
    let api = Api::start().await;
    let times = [("not_before", "2100-01-01T00:00:00Z"), ("not_after", "2100-01-02T00:00:00Z")];
    let command = times.iter().fold(deposit(5), |it, (name, time)| with(it, name, *time));
    let sent = api.submit(&command).await;
    let shown = api.get(&format!("/v1/commands/{}", id_of(&sent))).await.json();
    let plain = api.submit(&deposit(5)).await.json();
    for (name, time) in times {
        assert_eq!((&sent.json()[name], &shown[name]), (&json!(time), &json!(time)));
        assert_eq!(plain.get(name), None);
    }
}
