//! The immediate lane as a client sees it.

use super::*;
use crate::support::{
    http::id_of,
    lane::Lane,
    process::{ALL, Site},
};
use adjutant::{immediate::ImmediateSettings, store::Role};

struct Fixture {
    site: Site,
    api: Api,
    lane: Lane,
    _process: adjutant::service::Process,
}

async fn start(roles: &[Role], settings: ImmediateSettings) -> Fixture {
    let site = Site::new().await;
    let process = site.start_patient(roles).await;
    let lane = Lane::with(&site, &process, settings).await;
    let store = site.database.store().await;
    let api = Api::start_with_lane(
        domain::service(),
        store,
        process.signals(),
        IngressSettings::default(),
        Some(lane.processor.clone()),
    );
    Fixture { site, api, lane, _process: process }
}

fn immediate(command: Value) -> Value {
    with(command, "lane", "immediate")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_gets_the_outcome_and_who_does_not_gets_a_promise() {
    let it = start(&[Role::Ingress], ImmediateSettings::default()).await;
    let wait = [("Prefer", "wait=30")];
    let command = with(immediate(add("a", 5)), "id", CommandId::generate().to_string());
    let done = it.api.submit_with(&wait, &command).await;
    assert_eq!(done.status, 200, "{}", done.body);
    assert_eq!(done.header("preference-applied"), Some("wait=30"));
    assert_eq!(done.header("idempotent-replay"), None);
    let resource = done.json();
    assert_eq!(
        (&resource["lane"], &resource["status"], &resource["outcome"]["reply"]),
        (&json!("immediate"), &json!("succeeded"), &json!(5))
    );
    let stored = it.api.get(&format!("/v1/commands/{}", id_of(&done))).await.json();
    assert_eq!(stored, resource, "what was told is what is stored");

    for headers in [&wait[..], &[]] {
        let again = it.api.submit_with(headers, &command).await;
        assert_eq!((again.status, again.header("idempotent-replay")), (200, Some("true")));
        assert_eq!(again.json(), resource);
    }
    let queued = it.api.submit_with(&wait, &with(command.clone(), "lane", "queued")).await;
    assert_eq!((queued.status, queued.json()["lane"].clone()), (200, json!("immediate")));
    let other = with(command.clone(), "payload", json!({ "amount": 6 }));
    for headers in [&wait[..], &[]] {
        let refused = it.api.submit_with(headers, &other).await;
        assert_eq!(refused.problem(), (409, "id_conflict".to_owned()));
    }
    let over = it.api.submit_with(&wait, &immediate(add("a", domain::LIMIT))).await;
    assert_eq!((over.status, &over.json()["status"]), (200, &json!("rejected")));

    for prefer in [&[][..], &[("Prefer", "respond-async")], &[("Prefer", "wait=0")]] {
        let promise = it.api.submit_with(prefer, &immediate(add("b", 1))).await;
        assert_eq!(promise.status, 202, "{}", promise.body);
        assert_eq!(promise.json()["lane"], "immediate");
        let location = promise.header("location").expect("a place").to_owned();
        let ended = it.api.get(&format!("{location}?wait=30")).await.json();
        assert_eq!(ended["status"], "succeeded");
    }
    let lanes = it.api.get("/v1/lanes").await.json();
    let lane = &lanes["items"][1];
    assert_eq!((&lane["name"], &lane["executed"]), (&json!("immediate"), &json!(5)), "{lanes}");
    assert_eq!(lanes["items"][0]["waiting"], 0);
    let counted: i64 =
        lane["latency"].as_array().unwrap().iter().map(|it| it["count"].as_i64().unwrap()).sum();
    assert_eq!(counted, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_may_name_both_lanes() {
    let it = start(&ALL, ImmediateSettings::default()).await;
    let lines: Vec<_> = (0..20)
        .map(|n| if n % 2 == 0 { add("a", 1) } else { immediate(add("b", 1)) })
        .map(|command| command.to_string())
        .collect();
    let mut client = it.api.client().await;
    let headers = [("Content-Type", "application/x-ndjson")];
    let body = lines.join("\n");
    let answer = client.request("POST", "/v1/commands/batch", &headers, body.as_bytes()).await;
    let results = answer.lines();
    assert!(results.iter().all(|line| line["code"] == 202), "{}", answer.body);
    let ids: Vec<CommandId> =
        results.iter().map(|line| line["id"].as_str().unwrap().parse().unwrap()).collect();
    it.site.until_ended(&ids).await;
    it.site.until_applied().await;
    it.site.assert_lawful().await;
    let logged: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.command_log")
        .fetch_one(&it.site.database.pool().await)
        .await
        .expect("look");
    assert_eq!(logged, 10, "half of them went through the queue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_it_is_503_or_the_queue() {
    let none = ImmediateSettings { waiting_commands: 1, ..ImmediateSettings::default() };
    let it = start(&ALL, none).await;
    let key = CommandId::generate().to_string();
    let blocks = crate::support::commands::flaky("flaky", "a", &key, 1, "hang");
    let blocked = it.lane.execute(blocks);
    let (_, ()) = tokio::join!(blocked, async {
        crate::support::eventually("it is at it", async || (domain::tries(&key) > 0).then_some(()))
            .await;
        for headers in [&[("Prefer", "wait=5")][..], &[]] {
            let refused = it.api.submit_with(headers, &immediate(add("b", 1))).await;
            assert_eq!(refused.problem(), (503, "overloaded".to_owned()));
            let command = with(add("b", 1), "lane", "immediate-or-queued");
            let accepted = it.api.submit_with(headers, &command).await;
            assert!(matches!(accepted.status, 200 | 202), "{}", accepted.body);
            assert_eq!(accepted.json()["lane"], "queued", "{}", accepted.body);
        }
        domain::repair(&key);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_or_a_lane_that_is_none_is_refused() {
    let it = start(&[Role::Ingress], ImmediateSettings::default()).await;
    for wait in ["wait=soon", "wait=-1", "wait=61", "wait=1.5"] {
        let refused = it.api.submit_with(&[("Prefer", wait)], &immediate(add("a", 1))).await;
        assert_eq!(refused.problem(), (400, "invalid_header".to_owned()), "{wait}");
    }
    let refused = it.api.submit(&with(add("a", 1), "lane", "fast")).await;
    assert_eq!(refused.problem(), (400, "invalid_field".to_owned()));
    assert!(stored(&it.site.database).await.is_empty());
}
