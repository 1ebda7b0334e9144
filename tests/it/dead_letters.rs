//! Dead letters over HTTP: what is shown, what is answered, and that each is acted on once.

use std::{sync::Arc, time::Duration};

use adjutant::{
    dead_letter::{DeadLetterId, DeadLetterKind, DeadLetterState},
    ingress::IngressSettings,
    message::{CommandId, Failure},
    signals::Signals,
    store::{DeadLetter, DeadLetters as _, Outbox as _, Store as _, postgres::PostgresStore},
};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    commands::{add, command},
    database::Database,
    domain, eventually,
    http::{Answer, Api},
    letters::{all_dead, dead, letter},
    process::{ALL, Site},
    sql::Sql,
};

struct Desk {
    store: Arc<PostgresStore>,
    sql: Sql,
    api: Api,
    _database: Database,
}

impl Desk {
    /// An API without workers: nothing is executed.
    async fn new() -> Self {
        let database = Database::migrated().await;
        let store = database.store().await;
        let sql = Sql::postgres(database.pool().await);
        Self { api: api(&store), store, sql, _database: database }
    }

    async fn post(&self, target: &str, body: &Value) -> Answer {
        post(&self.api, target, body).await
    }

    async fn state(&self, letter: &DeadLetter) -> DeadLetterState {
        self.store.dead_letter(letter.id).await.expect("look").expect("is there").letter.state
    }
}

fn api(store: &Arc<PostgresStore>) -> Api {
    Api::start(domain::service(), store.clone(), &Signals::default(), IngressSettings::default())
}

async fn post(api: &Api, target: &str, body: &Value) -> Answer {
    let headers = [("Content-Type", "application/json")];
    api.client().await.request("POST", target, &headers, body.to_string().as_bytes()).await
}

fn items(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["items"].as_array().expect("items").clone()
}

fn ids(answer: &Answer) -> Vec<String> {
    items(answer).iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_looked_at() {
    let desk = Desk::new().await;
    let buried = dead(&desk.store, &desk.sql, add("a", 7)).await;
    desk.sql.attempt(&buried, 1).await;
    let mut others: Vec<_> = (0..6)
        .map(|n| letter(&desk.store, "b", Failure::new("timed_out", format!("after {n} ms"))))
        .collect();
    for old in &mut others[..3] {
        old.died_at -= time::Duration::hours(3);
    }
    others[5].state = DeadLetterState::Discarded;
    desk.sql.bury(&others).await;
    let id = |letter: &DeadLetter| letter.id.to_string();
    let of = |letters: &[DeadLetter]| letters.iter().rev().map(id).collect::<Vec<_>>();

    let mut all = of(&others[..5]);
    all.push(id(&buried));
    assert_eq!(ids(&desk.api.get("/v1/dead-letters").await), all, "open ones, newest first");
    let page = desk.api.get("/v1/dead-letters?limit=4").await;
    let next = page.json()["next"].as_str().expect("a cursor").to_owned();
    assert_eq!(ids(&page), all[..4]);
    let rest = desk.api.get(&format!("/v1/dead-letters?limit=4&after={next}")).await;
    assert_eq!((ids(&rest), rest.json()["next"].clone()), (all[4..].to_vec(), Value::Null));
    for (query, expected) in [
        ("error=timed_out".to_owned(), of(&others[..5])),
        (format!("error={}", others[0].fingerprint), of(&others[..5])),
        ("key=counter/a".to_owned(), vec![id(&buried)]),
        ("stream=counter/a".to_owned(), vec![id(&buried)]),
        ("type=counter.add&kind=command&group=commands&error=broken".to_owned(), vec![id(&buried)]),
        ("older_than=2h".to_owned(), of(&others[..3])),
        ("newer_than=120m&error=timed_out".to_owned(), of(&others[3..5])),
        ("state=discarded".to_owned(), of(&others[5..])),
        ("kind=parked_key".to_owned(), vec![]),
        ("type=counter.other&state=any".to_owned(), vec![]),
    ] {
        let found = desk.api.get(&format!("/v1/dead-letters?{query}")).await;
        assert_eq!(ids(&found), expected, "{query}");
    }

    let groups = desk.api.get("/v1/dead-letters/groups").await;
    let groups = items(&groups);
    assert_eq!(groups.len(), 2, "{groups:?}");
    assert_eq!((&groups[0]["count"], &groups[1]["count"]), (&json!(5), &json!(1)));
    assert_eq!(groups[0]["example"]["id"], id(&others[4]));
    assert_eq!(groups[0]["example"]["error"]["code"], "timed_out");
    let groups = items(&desk.api.get("/v1/dead-letters/groups?error=broken").await);
    assert_eq!((groups.len(), &groups[0]["fingerprint"]), (1, &json!(buried.fingerprint)));

    let shown = desk.api.get(&format!("/v1/dead-letters/{}", buried.id)).await.json();
    assert_eq!(shown["payload"], json!({ "amount": 7 }));
    assert_eq!((&shown["state"], &shown["kind"]), (&json!("open"), &json!("command")));
    assert_eq!(shown["position"], format!("{}:1", buried.partition));
    assert_eq!(shown["attempt_history"][0]["error"]["message"], "no answer");
    assert_eq!((&shown["edit"], &shown["audit"]), (&Value::Null, &json!([])));
    assert_eq!(shown["command"]["status"], "dead");

    for bad in [
        "/v1/dead-letters?after=nonsense",
        "/v1/dead-letters?limit=0",
        "/v1/dead-letters?limit=501",
        "/v1/dead-letters?colour=red",
        "/v1/dead-letters?state=dead",
        "/v1/dead-letters?kind=saga",
        "/v1/dead-letters?older_than=3",
        "/v1/dead-letters?newer_than=1w",
        "/v1/dead-letters?key=a&stream=b",
        "/v1/dead-letters/groups?limit=3",
        "/v1/dead-letters/7",
        "/v1/jobs/7",
        "/v1/jobs?after=nonsense",
        "/v1/jobs?state=running",
    ] {
        assert_eq!(desk.api.get(bad).await.problem(), (400, "invalid_parameter".into()), "{bad}");
    }
    let nul = desk.api.get("/v1/dead-letters?type=a%00b").await.problem();
    assert_eq!(nul, (422, "text_with_nul".into()));
    let unknown = DeadLetterId::generate();
    let none = desk.api.get(&format!("/v1/dead-letters/{unknown}")).await.problem();
    assert_eq!(none, (404, "dead_letter_not_found".into()));
    let none = desk.api.get(&format!("/v1/jobs/{unknown}")).await.problem();
    assert_eq!(none, (404, "job_not_found".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_acted_on_once_and_bad_input_changes_nothing() {
    let desk = Desk::new().await;
    let buried = dead(&desk.store, &desk.sql, add("a", 7)).await;
    let retry = format!("/v1/dead-letters/{}/retry", buried.id);
    let discard = format!("/v1/dead-letters/{}/discard", buried.id);

    // A correction that does not validate names every place, and nothing is done.
    let broken = desk.post(&retry, &json!({ "payload": { "amount": 0 } })).await;
    assert_eq!(broken.problem(), (422, "rule_violation".into()), "{}", broken.body);
    assert_eq!(broken.json()["errors"][0]["pointer"], "/payload/amount");
    let nul = desk.post(&retry, &json!({ "payload": { "amount": 1, "a\0": "b\0" } })).await;
    assert_eq!(nul.problem().0, 400, "an unknown field of the payload: {}", nul.body);
    for (body, expected) in [
        (json!({ "payload": { "amount": "7" } }), (400, "invalid_payload")),
        (json!({ "payload": [] }), (400, "invalid_payload")),
        (json!({ "payload": { "amount": 1 }, "colour": "red" }), (400, "invalid_field")),
        (json!({ "reason": 7 }), (400, "invalid_field")),
        (json!({ "reason": "x".repeat(1_001) }), (422, "rule_violation")),
        (json!({ "reason": "a\0b" }), (422, "text_with_nul")),
        (json!([]), (400, "invalid_field")),
    ] {
        let answer = desk.post(&retry, &body).await;
        assert_eq!(answer.problem(), (expected.0, expected.1.into()), "{body}: {}", answer.body);
    }
    let raw = async |content_type: &str, body: &[u8]| {
        let headers = [("Content-Type", content_type)];
        desk.api.client().await.request("POST", &retry, &headers, body).await.problem()
    };
    assert_eq!(raw("application/json", b"{").await, (400, "malformed_json".into()));
    assert_eq!(raw("text/plain", b"{}").await, (415, "unsupported_media_type".into()));
    assert_eq!(raw("application/json", &vec![b' '; 300 << 10]).await.0, 413);
    for (body, code) in
        [(json!({}), "rule_violation"), (json!({ "reason": "  " }), "rule_violation")]
    {
        let answer = desk.post(&discard, &body).await;
        assert_eq!(answer.problem(), (422, code.into()), "{body}");
        assert_eq!(answer.json()["errors"][0]["pointer"], "/reason");
    }
    let headers = [("Content-Type", "application/json")];
    let empty = desk.api.client().await.request("POST", &discard, &headers, b"").await;
    assert_eq!(empty.problem(), (422, "rule_violation".into()));
    assert_eq!(desk.api.get(&retry).await.status, 405);
    let unknown = DeadLetterId::generate();
    for (target, body) in [
        (format!("/v1/dead-letters/{unknown}/retry"), json!({})),
        (format!("/v1/dead-letters/{unknown}/retry"), json!({ "payload": { "amount": 1 } })),
        (format!("/v1/dead-letters/{unknown}/discard"), json!({ "reason": "because" })),
    ] {
        let answer = desk.post(&target, &body).await;
        assert_eq!(answer.problem(), (404, "dead_letter_not_found".into()));
    }
    assert_eq!(desk.post("/v1/dead-letters/7/retry", &json!({})).await.status, 400);
    let untouched = desk.store.dead_letter(buried.id).await.expect("look").expect("is there");
    assert_eq!(untouched.letter, buried);
    assert!(untouched.audit.is_empty() && untouched.edit.is_none());

    // Corrected and retried; then once is all.
    let body = json!({ "payload": { "amount": 8 }, "reason": "a typo" });
    let done = desk.post(&retry, &body).await;
    assert_eq!((done.status, &done.json()["state"]), (202, &json!("retrying")), "{}", done.body);
    let location = format!("/v1/commands/{}", buried.command_id);
    assert_eq!(done.header("location"), Some(location.as_str()));
    let taken = (409, "already_retried".to_owned());
    assert_eq!(desk.post(&retry, &json!({})).await.problem(), taken);
    assert_eq!(desk.post(&retry, &body).await.problem(), taken);
    assert_eq!(desk.post(&discard, &json!({ "reason": "no" })).await.problem(), taken);
    desk.sql.set_state(&buried, DeadLetterState::Resolved).await;
    assert_eq!(desk.post(&retry, &json!({})).await.problem(), taken);
    let shown = desk.api.get(&format!("/v1/dead-letters/{}", buried.id)).await.json();
    assert_eq!(shown["payload"], json!({ "amount": 7 }), "the original");
    assert_eq!(shown["edit"]["payload"], json!({ "amount": 8 }));
    assert_eq!(
        (&shown["edit"]["edit"], &shown["edit"]["edited_by"]),
        (&json!(1), &json!("anonymous"))
    );
    assert_eq!(shown["past_outcomes"][0]["error"]["code"], "broken");
    let audit = shown["audit"].as_array().expect("audit");
    assert_eq!((audit.len(), &audit[0]["action"]), (1, &json!("retry_edited")));
    assert_eq!((&audit[0]["who"], &audit[0]["reason"]), (&json!("anonymous"), &json!("a typo")));

    let other = dead(&desk.store, &desk.sql, add("b", 7)).await;
    let (retry, discard) = (
        format!("/v1/dead-letters/{}/retry", other.id),
        format!("/v1/dead-letters/{}/discard", other.id),
    );
    let done = desk.post(&discard, &json!({ "reason": "paid by hand" })).await;
    assert_eq!((done.status, &done.json()["state"]), (200, &json!("discarded")), "{}", done.body);
    let taken = (409, "already_discarded".to_owned());
    assert_eq!(desk.post(&discard, &json!({ "reason": "again" })).await.problem(), taken);
    assert_eq!(desk.post(&retry, &json!({ "payload": { "amount": 1 } })).await.problem(), taken);

    // What cannot be acted on.
    let alone = letter(&desk.store, "c", Failure::new("broken", "no"));
    let mut parked = letter(&desk.store, "d", Failure::new("broken", "no"));
    parked.kind = DeadLetterKind::ParkedKey;
    let mut of_unknown_type = letter(&desk.store, "e", Failure::new("broken", "no"));
    of_unknown_type.type_name = "counter.gone".into();
    desk.sql.bury(&[alone.clone(), parked.clone(), of_unknown_type.clone()]).await;
    let of = |letter: &DeadLetter, action| format!("/v1/dead-letters/{}/{action}", letter.id);
    let answer = desk.post(&of(&alone, "retry"), &json!({})).await;
    assert_eq!(answer.problem(), (409, "nothing_to_retry".into()));
    let edited = json!({ "payload": { "amount": 1 } });
    assert_eq!(desk.post(&of(&parked, "retry"), &edited).await.problem().0, 422);
    let answer = desk.post(&of(&of_unknown_type, "retry"), &edited).await;
    assert_eq!(answer.problem(), (422, "unknown_command_type".into()));
    for letter in [&alone, &parked, &of_unknown_type] {
        assert_eq!(desk.state(letter).await, DeadLetterState::Open);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_retries_through_two_processes_are_one_execution() {
    let site = Site::new().await;
    let sql = Sql::postgres(site.database.pool().await);
    let buried = dead(&site.store, &sql, add("a", 7)).await;
    let apis = [api(&site.database.store().await), api(&site.database.store().await)];
    let target = format!("/v1/dead-letters/{}/retry", buried.id);
    let empty = json!({});
    let answers = join_all((0..50).map(|n| post(&apis[n % 2], &target, &empty))).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(202), count(409)), (1, 49), "{}", answers[0].body);
    let details = site.store.dead_letter(buried.id).await.expect("look").expect("is there");
    assert_eq!(details.audit.len(), 1);
    let process = site.start(&ALL).await;
    site.until_ended(&[buried.command_id]).await;
    let command = apis[0].get(&format!("/v1/commands/{}", buried.command_id)).await.json();
    assert_eq!(command["status"], "succeeded", "{command}");
    site.until_applied().await;
    process.stop(Duration::from_secs(10)).await;
    let entries: i64 =
        sqlx::query_scalar("SELECT count(*) FROM adjutant.command_log WHERE command_id = $1")
            .bind(buried.command_id.0)
            .fetch_one(&site.database.pool().await)
            .await
            .expect("look");
    assert_eq!(entries, 2, "one new entry");
    site.assert_lawful().await;
}

fn job(answer: &Answer) -> (String, Value) {
    assert_eq!(answer.status, 202, "{}", answer.body);
    let job = answer.json();
    let target = format!("/v1/jobs/{}", job["id"].as_str().expect("an id"));
    assert_eq!(answer.header("location"), Some(target.as_str()));
    (target, job)
}

async fn ended(api: &Api, target: &str) -> Value {
    eventually("the job ends", async || {
        let job = api.get(target).await.json();
        (job["state"] != "running").then_some(job)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_retries_all_that_match_and_were_there() {
    let site = Site::new().await;
    let sql = Sql::postgres(site.database.pool().await);
    let commands = (0..120).map(|n| add(&format!("c{}", n % 9), 1)).collect();
    let letters = all_dead(&site.store, &sql, commands).await;
    let elsewhere = dead(&site.store, &sql, add("elsewhere", 1)).await;
    sql.set_state(&elsewhere, DeadLetterState::Discarded).await;
    let api = api(&site.store);
    for (target, body, expected) in [
        ("retry", json!({ "rate": 0 }), (422, "rule_violation")),
        ("retry", json!({ "rate": 10_001 }), (422, "rule_violation")),
        ("retry", json!({ "canary": 501 }), (422, "rule_violation")),
        ("retry", json!({ "max_failed_share": 1.5 }), (422, "rule_violation")),
        ("retry", json!({ "state": "any" }), (400, "invalid_parameter")),
        ("retry", json!({ "kind": "saga" }), (400, "invalid_parameter")),
        ("retry", json!({ "colour": "red" }), (400, "invalid_field")),
        ("retry", json!({ "limit": 5 }), (400, "invalid_field")),
        ("retry", json!([]), (400, "invalid_field")),
        ("retry", json!(null), (400, "invalid_field")),
        ("discard", json!({}), (422, "rule_violation")),
        ("discard", json!({ "reason": "x", "canary": 5 }), (400, "invalid_field")),
    ] {
        let answer = post(&api, &format!("/v1/dead-letters/{target}"), &body).await;
        assert_eq!(answer.problem(), (expected.0, expected.1.into()), "{body}: {}", answer.body);
    }
    let two = json!({ "rate": 0, "canary": -1, "max_failed_share": 2 });
    let answer = post(&api, "/v1/dead-letters/retry", &two).await;
    assert_eq!(answer.json()["errors"].as_array().map(Vec::len), Some(3), "all at once");
    let empty = api.client().await.request("POST", "/v1/dead-letters/retry", &[], b"").await;
    assert_eq!(empty.problem(), (400, "malformed_json".into()), "not everything by accident");
    assert!(items(&api.get("/v1/jobs").await).is_empty(), "nothing was made");

    let body = json!({ "type": "counter.add", "rate": 10_000, "reason": "it is mended" });
    let answer = post(&api, "/v1/dead-letters/retry", &body).await;
    let (target, made) = job(&answer);
    assert_eq!((&made["total"], &made["state"]), (&json!(120), &json!("running")));
    // Nothing executes yet: the first five are sent, and waited for.
    eventually("the canary is sent", async || {
        (api.get(&target).await.json()["canary"]["sent"] == 5).then_some(())
    })
    .await;
    assert_eq!(api.get(&target).await.json()["done"], 5);
    let late = dead(&site.store, &sql, add("late", 1)).await;
    let process = site.start(&ALL).await;
    let done = ended(&api, &target).await;
    assert_eq!(
        (&done["state"], &done["done"], &done["failed"]),
        (&json!("done"), &json!(120), &json!(0)),
        "{done}"
    );
    assert_eq!((&done["canary"]["died_again"], &done["who"]), (&json!(0), &json!("anonymous")));
    assert!(done["finished_at"].is_string());
    let commands: Vec<CommandId> = letters.iter().map(|letter| letter.command_id).collect();
    site.until_ended(&commands).await;
    let succeeded = api.get("/v1/commands?status=succeeded&limit=500").await;
    assert_eq!(items(&succeeded).len(), 120);
    let open = ids(&api.get("/v1/dead-letters").await);
    assert_eq!(open, [late.id.to_string()], "it came later");
    assert_eq!(ids(&api.get("/v1/jobs").await).len(), 1);
    let cancel = api.client().await.request("DELETE", &target, &[], b"").await;
    assert_eq!(cancel.problem(), (409, "job_ended".into()));
    let audit: Vec<(String, i64)> = sqlx::query_as(
        "SELECT reason, count(DISTINCT dead_letter_id) FROM adjutant.dead_letter_audit
          WHERE action = 'retry' AND job_id IS NOT NULL GROUP BY 1 HAVING count(*) = 120",
    )
    .fetch_all(&site.database.pool().await)
    .await
    .expect("look");
    assert_eq!(audit, [("it is mended".to_owned(), 120)]);

    let body = json!({ "reason": "too late", "stream": "counter/late" });
    let (target, _) = job(&post(&api, "/v1/dead-letters/discard", &body).await);
    let done = ended(&api, &target).await;
    assert_eq!((&done["done"], &done["canary"]), (&json!(1), &Value::Null));
    assert!(ids(&api.get("/v1/dead-letters").await).is_empty());
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_stops_when_its_first_letters_die_again() {
    let site = Site::new().await;
    let sql = Sql::postgres(site.database.pool().await);
    let poison = |n| {
        let payload = json!({ "how": "unstorable" });
        command(CommandId::generate(), "counter.misbehave", &format!("c{n}"), payload)
    };
    all_dead(&site.store, &sql, (0..30).map(poison).collect()).await;
    let api = api(&site.store);
    let process = site.start(&ALL).await;
    let body = json!({ "canary": 3, "rate": 10_000 });
    let (target, _) = job(&post(&api, "/v1/dead-letters/retry", &body).await);
    let stopped = ended(&api, &target).await;
    assert_eq!((&stopped["state"], &stopped["done"]), (&json!("stopped"), &json!(3)), "{stopped}");
    assert!(stopped["note"].as_str().is_some_and(|note| note.contains("died again")), "{stopped}");
    assert!(stopped["canary"]["died_again"].as_i64().is_some_and(|died| died >= 2), "{stopped}");
    let open: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM adjutant.dead_letters d WHERE state = 1 AND NOT EXISTS (
            SELECT 1 FROM adjutant.dead_letter_audit a WHERE a.dead_letter_id = d.id)",
    )
    .fetch_one(&site.database.pool().await)
    .await
    .expect("look");
    assert!(open >= 27, "the others were left alone: {open}");
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_leaves_the_rest_alone() {
    let desk = Desk::new().await;
    let commands = (0..60).map(|n| add(&format!("c{n}"), 1)).collect();
    all_dead(&desk.store, &desk.sql, commands).await;
    let body = json!({ "canary": 0, "rate": 2 });
    let (target, _) = job(&desk.post("/v1/dead-letters/retry", &body).await);
    eventually("it has begun", async || {
        (desk.api.get(&target).await.json()["done"].as_i64()? > 0).then_some(())
    })
    .await;
    let cancelled = desk.api.client().await.request("DELETE", &target, &[], b"").await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    let done = cancelled.json()["done"].as_i64().expect("a count");
    assert!(done < 60);
    let again = desk.api.client().await.request("DELETE", &target, &[], b"").await;
    assert_eq!(again.problem(), (409, "job_ended".into()));
    let open = items(&desk.api.get("/v1/dead-letters?limit=500").await).len() as i64;
    assert_eq!(open, 60 - done, "what it did is what it says");
    let partitions: Vec<_> = desk.store.identity().partitions.all().collect();
    let due = desk.store.promote_due(&partitions, Duration::ZERO, 100).await;
    assert_eq!(due.expect("promote") as i64, done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_on_in_another_process_when_its_own_is_gone() {
    let desk = Desk::new().await;
    let commands = (0..200).map(|n| add(&format!("c{n}"), 1)).collect();
    let letters = all_dead(&desk.store, &desk.sql, commands).await;
    let first = api(&desk._database.store().await);
    drop(desk.api);
    let body = json!({ "canary": 0, "rate": 40 });
    let (target, _) = job(&post(&first, "/v1/dead-letters/retry", &body).await);
    eventually("it has begun", async || {
        (first.get(&target).await.json()["done"].as_i64()? > 0).then_some(())
    })
    .await;
    drop(first);
    let second = api(&desk._database.store().await);
    let before = second.get(&target).await.json();
    assert!(before["state"] == "running" && before["done"].as_i64() < Some(200), "{before}");
    // Its owner has been silent for long.
    let silent = "UPDATE adjutant.dead_letter_jobs SET heartbeat_at = heartbeat_at - interval '1 minute', rate = 10000";
    desk.sql.run(silent).await.expect("silence");
    let done = ended(&second, &target).await;
    assert_eq!(
        (&done["state"], &done["done"], &done["failed"]),
        (&json!("done"), &json!(200), &json!(0)),
        "{done}"
    );
    for letter in &letters {
        let details = desk.store.dead_letter(letter.id).await.expect("look").expect("is there");
        assert_eq!(details.audit.len(), 1, "none is retried twice");
    }
    let partitions: Vec<_> = desk.store.identity().partitions.all().collect();
    assert_eq!(
        desk.store.promote_due(&partitions, Duration::ZERO, 1_000).await.expect("promote"),
        200
    );
}
