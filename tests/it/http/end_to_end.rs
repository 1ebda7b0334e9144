//! From a request to a view and back.

use std::time::Duration;

use super::*;
use crate::support::{
    eventually,
    http::{EventStream, id_of},
    process::{ALL, Site},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_goes_from_http_to_a_view_and_back() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let store = site.database.store().await;
    let api = Api::start(domain::service(), store, process.signals(), IngressSettings::default());
    let wait = [("Prefer", "wait=30")];

    let id = CommandId::generate();
    let command = with(add("a", 5), "id", id.to_string());
    let done = api.submit_with(&wait, &command).await;
    assert_eq!(done.status, 200, "{}", done.body);
    let resource = done.json();
    assert_eq!(
        (&resource["status"], &resource["outcome"]["reply"]),
        (&json!("succeeded"), &json!(5))
    );
    assert_eq!(resource["outcome"]["version"], 1);
    let at = resource["outcome"]["positions"][0].as_str().expect("a position").to_owned();

    let document = api.get(&format!("/v1/views/counters/a?at={at}&wait=30")).await;
    assert_eq!(document.status, 200, "{}", document.body);
    assert_eq!(document.json()["value"], json!({ "amount": 5, "count": 1 }));
    assert_eq!(document.json()["as_of"], json!([at]));
    assert_eq!(document.header("etag"), Some("\"1\""));
    let total = api.get(&format!("/v1/views/totals/all?at={at}&wait=30")).await;
    assert_eq!(total.json()["value"], json!({ "amount": 5, "count": 1 }));

    let events = api.get("/v1/streams/counter/a").await.json();
    assert_eq!(events["items"][0]["data"], json!({ "amount": 5, "total": 5 }));
    assert_eq!(events["items"][0]["position"], at);
    assert_eq!(events["items"][0]["command_id"], id.to_string());
    assert!(events["items"][0]["metadata"]["traceparent"].is_string());

    let again = api.submit(&command).await;
    assert_eq!((again.status, again.header("idempotent-replay")), (200, Some("true")));
    let mut first = resource.clone();
    first["accepted_at"] = again.json()["accepted_at"].clone();
    assert_eq!(again.json(), first);

    let over = api.submit_with(&wait, &add("a", domain::LIMIT)).await;
    assert_eq!((over.status, &over.json()["status"]), (200, &json!("rejected")));
    assert_eq!(over.json()["outcome"]["error"]["code"], "over_limit");
    let wrong = api.submit_with(&wait, &with(add("a", 1), "expected_version", 7)).await;
    assert_eq!(wrong.json()["outcome"]["error"]["code"], "version_conflict");
    let right = api.submit_with(&wait, &with(add("a", 1), "expected_version", 1)).await;
    assert_eq!(right.json()["status"], "succeeded");

    let rejected = api.get("/v1/commands?status=rejected&stream=counter/a").await.json();
    let rejected: Vec<_> =
        rejected["items"].as_array().expect("items").iter().map(|c| &c["id"]).cloned().collect();
    assert_eq!(rejected, [wrong.json()["id"].clone(), over.json()["id"].clone()], "newest first");
    let page = api.get("/v1/commands?limit=2").await.json();
    let cursor = page["next"].as_str().expect("a cursor");
    let next = api.get(&format!("/v1/commands?limit=500&after={cursor}")).await.json();
    assert_eq!(next["items"].as_array().expect("items").len(), 2);
    let odd = api.get("/v1/commands?after=no-cursor").await;
    assert_eq!(odd.problem(), (400, "invalid_parameter".into()));

    let members = api.get("/v1/members").await.json();
    assert_eq!(members["items"].as_array().expect("items").len(), 1);
    let projections = api.get("/v1/projections").await.json();
    assert_eq!(projections["items"][0]["partitions"].as_array().expect("partitions").len(), 4);
    process.stop(Duration::from_secs(10)).await;
    site.assert_lawful().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_written_by_another_process_ends_a_long_poll() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    // An ingress with signals of its own: no hint reaches it.
    let api = api_on(&site.database, IngressSettings::default()).await;
    let answer = api.submit_with(&[("Prefer", "wait=30")], &add("a", 1)).await;
    assert_eq!(answer.json()["status"], "succeeded");
    let id = id_of(&api.submit(&add("a", 1)).await);
    let answer = api.get(&format!("/v1/commands/{id}?wait=30")).await;
    assert_eq!(answer.json()["status"], "succeeded");
    let at = answer.json()["outcome"]["positions"][0].as_str().expect("a position").to_owned();
    assert_eq!(api.get(&format!("/v1/views/counters/a?at={at}&wait=30")).await.status, 200);
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_watched_until_it_ends_at_whichever_process() {
    let site = Site::new().await;
    // Ingresses with signals of their own: no hint reaches them.
    let apis = [
        api_on(&site.database, IngressSettings::default()).await,
        api_on(&site.database, IngressSettings::default()).await,
    ];
    let due = time::OffsetDateTime::now_utc() + Duration::from_secs(3);
    let due = due.format(&time::format_description::well_known::Rfc3339).expect("a time");
    let id = id_of(&apis[0].submit(&with(add("a", 5), "not_before", due)).await);
    let mut watches = Vec::new();
    for api in &apis {
        let mut watch = EventStream::open(api.address, id, None).await;
        assert_eq!(watch.next().await.expect("an event").status(), "scheduled");
        watches.push(watch);
    }
    let process = site.start(&ALL).await;
    let mut ends = Vec::new();
    for watch in &mut watches {
        let mut statuses = Vec::new();
        while let Some(event) = watch.next().await {
            statuses.push(event.status().to_owned());
            ends.push(event);
        }
        assert!(watch.is_complete);
        // Between the two it was accepted, for as long as it took to execute it.
        let last = statuses.pop();
        assert_eq!(last.as_deref(), Some("succeeded"));
        assert!(statuses.is_empty() || statuses == ["accepted"], "{statuses:?}");
    }
    let end = ends.last().expect("an end");
    assert_eq!(end.data, apis[1].get(&format!("/v1/commands/{id}")).await.json());
    for api in &apis {
        assert_eq!(EventStream::open(api.address, id, Some(&end.id)).await.status, 204);
    }
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_at_two_processes_at_once_is_accepted_once() {
    let database = Database::migrated().await;
    let apis = [
        api_on(&database, IngressSettings::default()).await,
        api_on(&database, IngressSettings::default()).await,
    ];
    for round in 0..10 {
        let command = with(add("a", 1), "id", CommandId::generate().to_string());
        let other = with(command.clone(), "payload", json!({ "amount": 2 }));
        let both = (0..40).map(|n| {
            let command = if n % 4 < 2 { &command } else { &other };
            apis[n % 2].submit(command)
        });
        let answers = join_all(both).await;
        let new = answers
            .iter()
            .filter(|a| a.status == 202 && a.header("idempotent-replay").is_none())
            .count();
        assert_eq!(new, 1, "round {round}");
        assert_eq!(answers.iter().filter(|a| a.status == 202).count(), 20);
        assert_eq!(answers.iter().filter(|a| a.status == 409).count(), 20);
    }
    assert_eq!(stored(&database).await.len(), 10);
    let entries: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.command_log")
        .fetch_one(&database.pool().await)
        .await
        .expect("look");
    assert_eq!(entries, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_share_few_commits() {
    let database = Database::migrated().await;
    let api = api_on(&database, IngressSettings::default()).await;
    let until = Instant::now() + Duration::from_secs(3);
    let answers = load(&api, until).await;
    assert!(answers.values().all(|status| *status == 202));
    let commits: i64 =
        sqlx::query_scalar("SELECT count(DISTINCT xmin::text) FROM adjutant.commands")
            .fetch_one(&database.pool().await)
            .await
            .expect("look");
    println!("{} commands in {commits} commits", answers.len());
    assert!((commits as usize) * 2 < answers.len(), "{commits} commits for {}", answers.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_refused_while_the_outbox_is_full_and_accepted_when_it_has_room() {
    let site = Site::new().await;
    let settings = IngressSettings { outbox_limit: 20, ..IngressSettings::default() };
    let api = api_on(&site.database, settings).await;
    let refused = eventually("the outbox fills up", async || {
        let answer = api.submit(&add("a", 1)).await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    assert_eq!(refused.problem(), (503, "outbox_full".into()));
    let process = site.start(&ALL).await;
    eventually("there is room again", async || {
        (api.submit(&add("a", 1)).await.status == 202).then_some(())
    })
    .await;
    process.stop(Duration::from_secs(10)).await;
}
