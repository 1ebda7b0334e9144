//! What is asked: commands, views, streams, types, members, projections, caches.

use std::time::Duration;

use super::*;
use crate::{
    dead_letter::DeadLetterId,
    message::{Metadata, Offset, OutcomeStatus, Position, RawJson, Timestamp, Version},
    signals::Applied,
    store::{Generation, KeyName, KeyScope, ParkedKey, Replay, StoredStreamEvent, ViewRecord},
};

#[tokio::test]
async fn a_command_can_be_waited_for() {
    let api = Api::start().await;
    let id = id_of(&api.submit(&deposit(5)).await);
    let target = format!("/v1/commands/{id}?wait=10");
    let (answer, ()) = tokio::join!(api.get(&target), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        api.store.end(id, OutcomeStatus::Succeeded);
    });
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("succeeded")));
    let target = format!("/v1/commands/{}?wait=10", CommandId::generate());
    assert_eq!(api.get(&target).await.problem(), (404, "command_not_found".into()));
    for bad in ["no-uuid", &format!("{id}?wait=61"), &format!("{id}?wait=x"), &format!("{id}?w=1")]
    {
        let answer = api.get(&format!("/v1/commands/{bad}")).await;
        assert_eq!(answer.problem(), (400, "invalid_parameter".into()), "{bad}");
    }
}

#[tokio::test]
async fn commands_are_listed_newest_first_and_filtered() {
    let api = Api::start().await;
    let one = id_of(&api.submit(&deposit(1)).await);
    let two = id_of(&api.submit(&with(deposit(2), "stream", "account/b")).await);
    api.store.end(one, OutcomeStatus::Rejected);
    let ids = async |query: &str| -> Vec<CommandId> {
        let answer = api.get(&format!("/v1/commands{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let items = answer.json()["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["id"].as_str().unwrap().parse().unwrap()).collect()
    };
    assert_eq!(ids("").await, [two, one]);
    assert_eq!(ids("?limit=1&after=cursor").await, [two]);
    assert_eq!(ids("?status=rejected").await, [one]);
    assert_eq!(ids("?status=accepted&type=account.deposit").await, [two]);
    for (status, waiting, failed_attempts) in [("waiting", true, 0), ("retrying", false, 2)] {
        {
            let mut inside = api.store.inside();
            let record = inside.commands.get_mut(&two).unwrap();
            (record.waiting, record.failed_attempts) = (waiting, failed_attempts);
        }
        assert_eq!(ids(&format!("?status={status}")).await, [two]);
        assert_eq!(ids("?status=accepted").await, []);
    }
    assert_eq!(ids("?stream=account/b").await, [two]);
    assert_eq!(ids("?stream=account%2Fnone").await, []);
    for (query, code) in [
        ("limit=0", "invalid_parameter"),
        ("limit=501", "invalid_parameter"),
        ("limit=x", "invalid_parameter"),
        ("status=odd", "invalid_parameter"),
        ("stream=odd", "invalid_parameter"),
        ("unknown=1", "invalid_parameter"),
        ("type=%00", "text_with_nul"),
    ] {
        let answer = api.get(&format!("/v1/commands?{query}")).await;
        assert_eq!(answer.problem().1, code, "{query}");
    }
}

fn parked_key(stream: &str) -> ParkedKey {
    ParkedKey {
        name: KeyName {
            group: GroupName::projection("balances"),
            generation: Generation::FIRST,
            scope: KeyScope::Stream,
            key: stream.into(),
        },
        failed: Position { partition: Partition(1), offset: Offset(4) },
        cursor: 3,
        cursor_version: Version(1),
        replay: Some(Replay::Retry),
        dead_letter: DeadLetterId(uuid::Uuid::nil()),
        attempts: 3,
        parked_at: Timestamp::UNIX_EPOCH,
        begun: 0,
    }
}

fn put_document(api: &Api, key: &str, version: i64) {
    let record = ViewRecord {
        key: key.into(),
        version,
        value: Some(RawJson::from_trusted(r#"{"balance":1.50}"#.into())),
        as_of: vec![Position { partition: Partition(1), offset: Offset(7) }],
        parked: None,
    };
    api.store.inside().views.insert(("balances".into(), key.into()), record);
}

#[tokio::test]
async fn a_document_comes_with_its_etag() {
    let api = Api::start().await;
    put_document(&api, "acc-42", 12);
    let answer = api.get("/v1/views/balances/acc-42").await;
    assert_eq!((answer.status, answer.header("etag")), (200, Some("\"12\"")));
    // The value as it is stored, digit for digit.
    let expected = r#"{"key":"acc-42","version":12,"value":{"balance":1.50},"as_of":["1:7"]}"#;
    assert_eq!(answer.body, expected);
    let if_none_match = async |value: &str| {
        api.request("GET", "/v1/views/balances/acc-42", &[("If-None-Match", value)], b"").await
    };
    for same in ["\"12\"", "W/\"12\"", "\"1\", \"12\"", "*"] {
        let answer = if_none_match(same).await;
        assert_eq!((answer.status, answer.header("etag")), (304, Some("\"12\"")), "{same}");
    }
    assert_eq!(if_none_match("\"11\"").await.status, 200);
    let head = api.request("HEAD", "/v1/views/balances/acc-42", &[], b"").await;
    assert_eq!((head.status, head.header("etag")), (200, Some("\"12\"")));
}

#[tokio::test]
async fn keys_may_hold_slashes_and_absent_ones_are_404() {
    let api = Api::start().await;
    put_document(&api, "acc-42/00000012", 1);
    for key in ["acc-42/00000012", "acc-42%2F00000012"] {
        assert_eq!(api.get(&format!("/v1/views/balances/{key}")).await.status, 200, "{key}");
    }
    let problem = async |target: &str| api.get(target).await.problem();
    assert_eq!(problem("/v1/views/balances/none").await, (404, "document_not_found".into()));
    assert_eq!(problem("/v1/views/none/acc-42").await, (404, "unknown_view".into()));
    assert_eq!(problem("/v1/views/none").await, (404, "unknown_view".into()));
    assert_eq!(problem("/v1/views/balances/a%00").await, (422, "text_with_nul".into()));
    assert_eq!(problem("/v1/views/balances/a%ff").await, (400, "invalid_parameter".into()));
    assert_eq!(problem("/v1/views/balances/a?wait=1").await, (400, "invalid_parameter".into()));
}

#[tokio::test]
async fn a_view_can_be_read_at_a_position() {
    let api = Api::start().await;
    put_document(&api, "a", 1);
    let group = GroupName::projection("balances");
    api.store.inside().checkpoints.insert(group.clone(), vec![Offset(6); 8]);
    let at = async |query: &str| api.get(&format!("/v1/views/balances/a?{query}")).await;
    assert_eq!(at("at=1:6").await.status, 200);
    assert_eq!(at("at=1:7").await.problem(), (504, "not_applied".into()));
    let started = tokio::time::Instant::now();
    assert_eq!(at("at=1:7&wait=1").await.problem(), (504, "not_applied".into()));
    assert!(started.elapsed() >= Duration::from_secs(1));
    let (answer, ()) = tokio::join!(at("at=1:7&wait=10"), async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let moved = Applied { group, partition: Partition(1), offset: Offset(7) };
        api.signals.checkpoints_moved(vec![moved]);
    });
    assert_eq!(answer.status, 200);
    let group = GroupName::projection("balances");
    api.store.inside().checkpoints.insert(group, vec![Offset(7); 8]);
    api.store.inside().parked.push(parked_key("account/a"));
    assert_eq!(at("at=1:4").await.problem(), (504, "parked".into()));
    assert_eq!(at("at=1:7&wait=10").await.problem(), (504, "parked".into()), "without waiting");
    assert_eq!(at("at=1:3").await.status, 200, "before the event that failed");
    assert_eq!(at("").await.status, 200, "as far as it goes");
    for bad in ["at=7", "at=9:1", "at=-1:1", "at=1:7&wait=99"] {
        assert_eq!(at(bad).await.problem(), (400, "invalid_parameter".into()), "{bad}");
    }
}

#[tokio::test]
async fn documents_are_paged_by_key() {
    let api = Api::start().await;
    for key in ["a/1", "a/2", "a/3", "b/1"] {
        put_document(&api, key, 1);
    }
    let page = async |query: &str| {
        let answer = api.get(&format!("/v1/views/balances{query}")).await.json();
        let items = answer["items"].as_array().unwrap().clone();
        let keys: Vec<_> = items.iter().map(|i| i["key"].as_str().unwrap().to_owned()).collect();
        (keys.join(" "), answer["next"].as_str().map(str::to_owned))
    };
    assert_eq!(page("").await, ("a/1 a/2 a/3 b/1".into(), None));
    assert_eq!(page("?prefix=a/&limit=2").await, ("a/1 a/2".into(), Some("a/2".into())));
    assert_eq!(page("?prefix=a/&limit=2&after=a%2F2").await, ("a/3".into(), None));
    assert_eq!(page("?limit=4").await.1, None);
}

#[tokio::test]
async fn a_stream_shows_its_events() {
    let api = Api::start().await;
    for version in 1..=3 {
        let event = StoredStreamEvent {
            version: Version(version),
            offset: Offset(version + 10),
            event_type: "account.deposited".into(),
            schema_version: 1,
            data: RawJson::from_trusted(r#"{"amount":5}"#.into()),
            command_id: CommandId::generate(),
            metadata: Metadata { actor: Some("me".into()), ..Metadata::default() },
            recorded_at: Timestamp::UNIX_EPOCH,
        };
        api.store.inside().events.push(("account/acc-42".parse().unwrap(), event));
    }
    let answer = api.get("/v1/streams/account/acc-42?limit=2").await.json();
    assert_eq!(answer["next"], "2");
    assert_eq!(answer["items"][0]["version"], 1);
    assert_eq!(answer["items"][0]["position"], "5:11");
    assert_eq!(answer["items"][0]["type"], "account.deposited");
    assert_eq!(answer["items"][0]["data"], json!({ "amount": 5 }));
    assert_eq!(answer["items"][0]["metadata"], json!({ "actor": "me" }));
    assert_eq!(answer["items"][0]["recorded_at"], "1970-01-01T00:00:00Z");
    let answer = api.get("/v1/streams/account/acc-42?limit=2&after=2").await.json();
    assert_eq!((answer["items"].as_array().unwrap().len(), &answer["next"]), (1, &json!(null)));
    let empty = api.get("/v1/streams/account/none").await;
    assert_eq!((empty.status, empty.body.as_str()), (200, r#"{"items":[],"next":null}"#));
    assert_eq!(api.get("/v1/streams/order/1").await.problem(), (404, "unknown_aggregate".into()));
    for bad in ["a%20b", "a?after=-1", "a?after=x", "a?limit=0"] {
        let answer = api.get(&format!("/v1/streams/account/{bad}")).await;
        assert_eq!(answer.problem(), (400, "invalid_parameter".into()), "{bad}");
    }
}

#[tokio::test]
async fn types_come_with_their_schemas() {
    let api = Api::start().await;
    let items = api.get("/v1/types").await.json()["items"].clone();
    assert_eq!(items[0]["name"], "account.deposit");
    assert_eq!((&items[0]["kind"], &items[1]["kind"]), (&json!("command"), &json!("event")));
    let one = api.get("/v1/types/account.deposit").await.json();
    assert_eq!(one["json_schema"]["properties"]["amount"]["type"], "integer");
    assert_eq!(api.get("/v1/types/none").await.problem(), (404, "unknown_type".into()));
}

#[tokio::test]
async fn operators_see_members_projections_and_caches() {
    let api = Api::start().await;
    let members = api.get("/v1/members").await.json();
    assert_eq!(members["items"][0]["roles"], json!(["ingress", "command-worker"]));
    assert_eq!(members["items"][0]["partitions"], json!({ "commands": [3] }));
    assert_eq!(members["items"][0]["release"], "0.1.0");
    api.store.inside().checkpoints.insert(GroupName::projection("balances"), vec![Offset(6); 8]);
    let projections = api.get("/v1/projections").await.json();
    assert_eq!(projections["items"][0]["name"], "balances");
    assert_eq!(projections["items"][0]["state"], "running");
    let progress = json!({
        "partition": 7, "checkpoint": 6, "head": 9, "lag": 3, "lag_seconds": 60.0,
    });
    assert_eq!(projections["items"][0]["partitions"][7], progress);
    assert_eq!(projections["items"][0]["parked"], json!({ "count": 0, "keys": [] }));
    api.store.inside().parked.push(parked_key("account/a"));
    let projections = api.get("/v1/projections").await.json();
    let parked = json!({ "count": 1, "keys": [{
        "scope": "stream", "key": "account/a", "failed_at": "1:4", "state": "replaying",
        "attempts": 3, "parked_at": "1970-01-01T00:00:00Z",
        "dead_letter": "00000000-0000-0000-0000-000000000000",
    }] });
    assert_eq!(projections["items"][0]["parked"], parked);
    assert_eq!(projections["items"][0]["suspended_in"], json!([]));
    api.store.inside().member_stats = json!({ "suspended": { "projection.balances": "open" } });
    let projections = api.get("/v1/projections").await.json();
    assert_eq!(projections["items"][0]["state"], "suspended");
    let suspended = json!([{
        "member": "00000000-0000-0000-0000-000000000000", "process": "host:1", "breaker": "open",
    }]);
    assert_eq!(projections["items"][0]["suspended_in"], suspended);
    let cache = api.get("/v1/cache").await.json();
    assert_eq!(
        (&cache["items"][0]["name"], &cache["items"][0]["hits"]),
        (&json!("aggregates"), &json!(3))
    );
}
