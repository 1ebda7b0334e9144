//! `POST /v1/commands` and `/v1/commands/batch`: every row of the contract's table.

use std::{sync::atomic::Ordering, time::Duration};

use super::*;
use crate::{
    ingress::{
        CommitSettings,
        testing::{POISON, Script},
    },
    message::OutcomeStatus,
    store::StoreError,
};

#[tokio::test]
async fn an_accepted_command_is_202_with_its_resource() {
    let api = Api::start().await;
    let answer = api.submit(&deposit(5)).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let id = id_of(&answer);
    assert_eq!(answer.header("location"), Some(format!("/v1/commands/{id}").as_str()));
    assert_eq!(answer.header("idempotent-replay"), None);
    let resource = answer.json();
    let accepted_at = resource["accepted_at"].clone();
    let expected = json!({
        "id": id, "type": "account.deposit", "stream": "account/acc-42", "lane": "queued",
        "status": "accepted", "attempts": 0, "accepted_at": accepted_at,
    });
    assert_eq!(resource, expected);
    assert_eq!(api.get(&format!("/v1/commands/{id}")).await.json(), expected);
}

#[tokio::test]
async fn a_command_for_later_is_scheduled() {
    let api = Api::start().await;
    let answer = api.submit(&with(deposit(5), "not_before", "2999-01-01T00:00:00Z")).await;
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("scheduled")));
    let answer = api.submit(&with(deposit(5), "not_before", "1999-01-01T00:00:00Z")).await;
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("accepted")));
}

#[tokio::test]
async fn prefer_wait_answers_200_with_the_outcome_if_it_ends_in_time() {
    let api = Api::start().await;
    for status in [OutcomeStatus::Succeeded, OutcomeStatus::Rejected] {
        let id = CommandId::generate();
        let command = with(deposit(5), "id", id.to_string());
        let prefer = [("Prefer", "wait=10")];
        let (answer, ()) = tokio::join!(api.submit_with(&prefer, &command), async {
            while !api.store.inside().commands.contains_key(&id) {
                tokio::task::yield_now().await;
            }
            api.store.end(id, status);
            api.signals.commands_ended(vec![id]);
        });
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("preference-applied"), Some("wait=10"));
        let resource = answer.json();
        assert_eq!(resource["status"], status.as_str());
        assert_eq!(resource["outcome"]["positions"], json!(["1:7"]));
        assert_eq!(resource["outcome"]["version"], 3);
        assert!(resource["completed_at"].is_string());
        if status == OutcomeStatus::Succeeded {
            assert_eq!(resource["outcome"]["reply"], json!({ "balance": 12 }));
        } else {
            let error = json!({ "code": "insufficient_funds", "message": "too little" });
            assert_eq!(resource["outcome"]["error"], error);
        }
    }
    let started = tokio::time::Instant::now();
    let answer = api.submit_with(&[("Prefer", "wait=1")], &deposit(5)).await;
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("accepted")));
    assert!(started.elapsed() >= Duration::from_secs(1));
    for bad in ["wait=61", "wait=x"] {
        let answer = api.submit_with(&[("Prefer", bad)], &deposit(5)).await;
        assert_eq!(answer.problem(), (400, "invalid_header".into()));
    }
}

#[tokio::test]
async fn a_repetition_is_a_replay_and_other_content_a_conflict() {
    let api = Api::start().await;
    let id = CommandId::generate();
    let command = with(deposit(5), "id", id.to_string());
    assert_eq!(api.submit(&command).await.status, 202);
    let again = api.submit(&command).await;
    assert_eq!((again.status, again.header("idempotent-replay")), (202, Some("true")));
    assert_eq!(again.json()["status"], "accepted");

    api.store.end(id, OutcomeStatus::Rejected);
    let ended = api.submit(&command).await;
    assert_eq!((ended.status, ended.header("idempotent-replay")), (200, Some("true")));
    assert_eq!(ended.json()["status"], "rejected");
    let ended = api.submit_with(&[("Prefer", "wait=5")], &command).await;
    assert_eq!((ended.status, ended.header("idempotent-replay")), (200, Some("true")));

    for other in [
        with(command.clone(), "payload", json!({ "amount": 6 })),
        with(command.clone(), "stream", "account/other"),
        with(command.clone(), "expected_version", 1),
        with(command.clone(), "not_before", "2999-01-01T00:00:00Z"),
    ] {
        let answer = api.submit(&other).await;
        assert_eq!(answer.problem(), (409, "id_conflict".into()), "{other}");
        assert_eq!(answer.json()["id"], id.to_string());
    }
    assert_eq!(api.store.inside().commands.len(), 1);
}

#[tokio::test]
async fn concurrent_repetitions_are_accepted_once() {
    let api = Api::start().await;
    let command = with(deposit(5), "id", CommandId::generate().to_string());
    let other = with(command.clone(), "payload", json!({ "amount": 6 }));
    let both = (0..40).map(|n| api.submit(if n % 2 == 0 { &command } else { &other }));
    let answers = futures_util::future::join_all(both).await;
    let new = answers.iter().filter(|a| a.status == 202 && a.header("idempotent-replay").is_none());
    assert_eq!(new.count(), 1);
    assert_eq!(answers.iter().filter(|a| a.status == 202).count(), 20);
    assert_eq!(answers.iter().filter(|a| a.status == 409).count(), 20);
    assert_eq!(api.store.inside().commands.len(), 1);
}

#[tokio::test]
async fn an_idempotency_key_stands_for_an_id() {
    let api = Api::start().await;
    let key = [("Idempotency-Key", "order-1")];
    let first = api.submit_with(&key, &deposit(5)).await;
    let again = api.submit_with(&key, &deposit(5)).await;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(again.header("idempotent-replay"), Some("true"));
    assert_eq!(id_of(&first), id_of(&again));
    assert_eq!(id_of(&first).0.get_version_num(), 5);
    assert_eq!(api.submit_with(&key, &deposit(6)).await.problem().1, "id_conflict");
    let own = with(deposit(5), "id", id_of(&first).to_string());
    assert_eq!(api.submit_with(&key, &own).await.status, 202);
    let other = with(deposit(5), "id", CommandId::generate().to_string());
    let answer = api.submit_with(&key, &other).await;
    assert_eq!(answer.problem(), (400, "idempotency_key_mismatch".into()));
    let empty = api.submit_with(&[("Idempotency-Key", "")], &deposit(5)).await;
    assert_eq!(empty.problem(), (400, "invalid_header".into()));
}

#[tokio::test]
async fn bad_bodies_are_refused_with_what_is_wrong() {
    let api = Api::start().await;
    let post = async |body: &[u8]| {
        let headers = [("Content-Type", "application/json")];
        api.request("POST", "/v1/commands", &headers, body).await.problem()
    };
    let deep = format!(
        r#"{{"type":"account.deposit","stream":"account/a","payload":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    for body in [&b""[..], b"{", b"\xff\xfe", b"nonsense", deep.as_bytes()] {
        assert_eq!(post(body).await, (400, "malformed_json".into()));
    }
    for (command, expected) in [
        (with(deposit(5), "unknown", 1), (400, "invalid_field")),
        (with(deposit(5), "type", 1), (400, "invalid_field")),
        (with(deposit(5), "payload", json!({ "amount": "x" })), (400, "invalid_payload")),
        (with(deposit(5), "type", "account.unknown"), (422, "unknown_command_type")),
        (with(deposit(5), "stream", "order/1"), (422, "wrong_stream")),
        (with(deposit(5), "lane", "immediate"), (422, "not_available")),
        (with(deposit(5), "callback_url", "https://x"), (422, "callbacks_not_configured")),
        (with(deposit(5), "metadata", json!({ "actor": "\u{0}" })), (422, "text_with_nul")),
        (deposit(0), (422, "rule_violation")),
    ] {
        assert_eq!(api.submit(&command).await.problem(), (expected.0, expected.1.into()));
    }
    let broken = json!({ "amount": 0, "note": "much too long a note" });
    let answer = api.submit(&with(deposit(0), "payload", broken)).await.json();
    let pointers: Vec<_> =
        answer["errors"].as_array().unwrap().iter().map(|e| e["pointer"].clone()).collect();
    assert_eq!(pointers, ["/payload/amount", "/payload/note"]);
    assert!(api.store.inside().commands.is_empty());
}

#[tokio::test]
async fn what_is_not_json_or_too_large_is_refused() {
    let api = Api::start().await;
    let body = deposit(5).to_string();
    for headers in [
        &[][..],
        &[("Content-Type", "text/plain")],
        &[("Content-Type", "application/json; charset=latin1")],
        &[("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
    ] {
        let answer = api.request("POST", "/v1/commands", headers, body.as_bytes()).await;
        assert_eq!(answer.problem(), (415, "unsupported_media_type".into()));
    }
    let json = [("Content-Type", "application/json")];
    for size in [257 << 10, 900 << 10] {
        let answer = api.request("POST", "/v1/commands", &json, &vec![b' '; size]).await;
        assert_eq!(answer.problem(), (413, "too_large".into()));
    }
    let mut just_fits = body.into_bytes();
    just_fits.resize(256 << 10, b' ');
    assert_eq!(api.request("POST", "/v1/commands", &json, &just_fits).await.status, 202);

    // Chunked, so that its size is not announced.
    let mut client = Client::connect(api.address).await;
    client
        .send(b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    for _ in 0..33 {
        client.send(b"2000\r\n").await;
        client.send(&[b' '; 0x2000]).await;
        client.send(b"\r\n").await;
    }
    client.send(b"0\r\n\r\n").await;
    assert_eq!(client.answer("POST").await.unwrap().problem(), (413, "too_large".into()));
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_before_it_sends() {
    let api = Api::start().await;
    let mut client = Client::connect(api.address).await;
    client
        .send(b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(client.answer("POST").await.unwrap().problem(), (413, "too_large".into()));
}

#[tokio::test]
async fn nothing_is_accepted_when_there_is_no_room_or_no_store() {
    let api = Api::start().await;
    api.store.inside().down = true;
    let settings = CommitSettings { give_up_after_ms: 100, ..CommitSettings::default() };
    let quick = IngressSettings { commit: settings, ..IngressSettings::default() };
    let api = Api::with(quick.clone()).await;
    api.store.inside().down = true;
    assert_eq!(api.submit(&deposit(5)).await.problem(), (503, "unavailable".into()));
    assert_eq!(api.get(&format!("/v1/commands/{}", CommandId::generate())).await.problem().0, 503);
    api.store.inside().down = false;
    assert!(api.store.inside().commands.is_empty());
    assert_eq!(api.submit(&deposit(5)).await.status, 202);

    let full = MemoryStore::default();
    full.outbox_rows.store(100_000, Ordering::Relaxed);
    let api = Api::on(full, IngressSettings::default()).await;
    while api.submit(&deposit(5)).await.status == 202 {
        tokio::task::yield_now().await;
    }
    assert_eq!(api.submit(&deposit(5)).await.problem(), (503, "outbox_full".into()));
    assert_eq!(api.submit_batch(&deposit(5).to_string()).await.problem().0, 503);

    let slow = MemoryStore { accept_takes: Duration::from_millis(300), ..MemoryStore::default() };
    let commit = CommitSettings { waiting_commands: 2, ..CommitSettings::default() };
    let api = Api::on(slow, IngressSettings { commit, ..IngressSettings::default() }).await;
    let five =
        futures_util::future::join_all((1..=5).map(async |n| api.submit(&deposit(n)).await)).await;
    assert_eq!(five.iter().filter(|answer| answer.status == 202).count(), 2);
    let refused = five.iter().find(|answer| answer.status != 202).unwrap();
    assert_eq!(refused.problem(), (503, "overloaded".into()));
}

#[tokio::test]
async fn what_may_have_been_accepted_is_500_with_the_id() {
    let commit = CommitSettings { give_up_after_ms: 50, ..CommitSettings::default() };
    let api = Api::with(IngressSettings { commit, ..IngressSettings::default() }).await;
    api.store.script([Script::AcceptThenLose]);
    api.store.script(std::iter::repeat_n(Script::Fail(StoreError::Unavailable), 20));
    let answer = api.submit(&deposit(5)).await;
    assert_eq!((answer.status, &answer.json()["code"]), (500, &json!("acceptance_unknown")));
    api.store.inside().script.clear();
    let again = with(deposit(5), "id", answer.json()["id"].clone());
    let answer = api.submit(&again).await;
    assert_eq!((answer.status, answer.header("idempotent-replay")), (202, Some("true")));
}

#[tokio::test]
async fn a_client_that_goes_away_loses_nothing() {
    let slow = MemoryStore { accept_takes: Duration::from_millis(100), ..MemoryStore::default() };
    let api = Api::on(slow, IngressSettings::default()).await;
    let id = CommandId::generate();
    let body = with(deposit(5), "id", id.to_string()).to_string();
    let mut client = Client::connect(api.address).await;
    let head = format!(
        "POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.send(head.as_bytes()).await;
    client.send(body.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    drop(client);
    while !api.store.inside().commands.contains_key(&id) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_caller_that_is_too_fast_gets_429() {
    let mut caller = token("shop", SECRET, &[AccessRole::Submit]);
    caller.commands_per_second = Some(1);
    let settings = IngressSettings { tokens: vec![caller], ..IngressSettings::default() };
    let api = Api::with(settings).await;
    let bearer = [("Authorization", "Bearer secret"), ("Content-Type", "application/x-ndjson")];
    let lines = (0..1_000).map(|n| deposit(n + 1).to_string() + "\n").collect::<String>();
    let batch = api.request("POST", "/v1/commands/batch", &bearer, lines.as_bytes()).await;
    assert_eq!(batch.status, 200, "a burst of one batch passes");
    let answer = api.submit_with(&bearer[..1], &deposit(5)).await;
    assert_eq!(answer.problem(), (429, "rate_limited".into()));
}

#[tokio::test]
async fn a_batch_answers_every_line_in_order() {
    let api = Api::start().await;
    let id = CommandId::generate();
    let lines = [
        with(deposit(1), "id", id.to_string()).to_string(),
        "nonsense".into(),
        with(with(deposit(0), "id", id.to_string()), "stream", "account/b").to_string(),
        with(deposit(1), "id", id.to_string()).to_string(),
        with(deposit(2), "id", id.to_string()).to_string(),
        String::new(),
        deposit(9).to_string() + "\r",
    ];
    let answer = api.submit_batch(&(lines.join("\n") + "\n")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let results = answer.lines();
    let codes: Vec<_> = results.iter().map(|line| line["code"].as_u64().unwrap()).collect();
    assert_eq!(codes, [202, 400, 422, 202, 409, 400, 202]);
    assert_eq!(results[0], json!({ "id": id, "code": 202 }));
    assert_eq!(
        (&results[1]["id"], &results[1]["problem"]["code"]),
        (&json!(null), &json!("malformed_json"))
    );
    assert_eq!(
        (&results[2]["id"], &results[2]["problem"]["code"]),
        (&json!(id), &json!("rule_violation"))
    );
    assert_eq!(results[3], json!({ "id": id, "code": 202, "replay": true }));
    assert_eq!(results[4]["problem"]["code"], "id_conflict");
    assert_eq!(api.store.inside().commands.len(), 2);
}

#[tokio::test]
async fn a_batch_keeps_the_order_of_its_lines() {
    let api = Api::start().await;
    let lines: String = (1..=1_000).map(|n| deposit(n).to_string() + "\n").collect();
    let answer = api.submit_batch(&lines).await;
    let ids: Vec<CommandId> =
        answer.lines().iter().map(|l| l["id"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(api.store.inside().order, ids);
    assert_eq!(api.store.inside().batches, [1_000]);
}

#[tokio::test]
async fn one_line_that_cannot_be_stored_fails_alone() {
    let api = Api::start().await;
    let poison = with(deposit(1), "payload", json!({ "amount": 1, "note": POISON }));
    let lines = format!("{}\n{poison}\n{}", deposit(1), deposit(2));
    let codes: Vec<_> =
        api.submit_batch(&lines).await.lines().iter().map(|l| l["code"].clone()).collect();
    assert_eq!(codes, [202, 422, 202]);
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_refused_whole() {
    let api = Api::start().await;
    let many: String = (0..1_001).map(|n| deposit(n + 1).to_string() + "\n").collect();
    assert_eq!(api.submit_batch(&many).await.problem(), (413, "too_many_lines".into()));
    let long = format!("{}\n{}", deposit(1), " ".repeat((256 << 10) + 1));
    assert_eq!(api.submit_batch(&long).await.problem(), (413, "too_large".into()));
    let huge = (deposit(1).to_string() + &" ".repeat(200 << 10) + "\n").repeat(42);
    assert_eq!(api.submit_batch(&huge).await.problem(), (413, "too_large".into()));
    assert_eq!(api.submit_batch("").await.problem(), (400, "malformed_json".into()));
    let json = [("Content-Type", "application/json")];
    let answer = api.request("POST", "/v1/commands/batch", &json, b"{}").await;
    assert_eq!(answer.problem(), (415, "unsupported_media_type".into()));
    let key = [("Content-Type", "application/x-ndjson"), ("Idempotency-Key", "k")];
    let answer = api.request("POST", "/v1/commands/batch", &key, b"{}").await;
    assert_eq!(answer.problem(), (400, "invalid_header".into()));
    assert!(api.store.inside().commands.is_empty());
}

#[tokio::test]
async fn a_traceparent_is_carried_to_the_command() {
    let api = Api::start().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let id = id_of(&api.submit_with(&[("traceparent", trace)], &deposit(1)).await);
    let carried = api.store.inside().commands[&id].metadata.traceparent.clone();
    assert_eq!(carried.as_deref(), Some(trace));
}
