//! Acting on dead letters when the store does not answer. What it answers otherwise is tested on
//! real stores (`tests/it/dead_letters.rs`).

use super::*;
use crate::{dead_letter::DeadLetterId, ingress::testing::Script, store::StoreError};

async fn post(api: &Api, target: &str) -> Answer {
    let headers = [("Content-Type", "application/json")];
    api.request("POST", target, &headers, br#"{"reason":"because"}"#).await
}

#[tokio::test]
async fn a_lost_answer_to_an_action_is_not_called_a_failure() {
    let api = Api::start().await;
    let id = DeadLetterId::generate();
    for action in ["retry", "discard"] {
        let target = format!("/v1/dead-letters/{id}/{action}");
        api.store.script([Script::Fail(StoreError::Unknown)]);
        let answer = post(&api, &target).await;
        assert_eq!(answer.problem(), (503, "action_unknown".into()), "{}", answer.body);
        assert_eq!(answer.header("retry-after"), Some("1"));
        api.store.script([Script::Fail(StoreError::Transient)]);
        assert_eq!(post(&api, &target).await.problem(), (503, "unavailable".into()));
        api.store.script([Script::Fail(StoreError::Unstorable)]);
        assert_eq!(post(&api, &target).await.problem(), (422, "unstorable".into()));
        assert_eq!(post(&api, &target).await.problem(), (404, "dead_letter_not_found".into()));
    }
}

#[tokio::test]
async fn questions_about_dead_letters_say_when_the_store_is_away() {
    let api = Api::start().await;
    api.store.inside().down = true;
    let id = DeadLetterId::generate();
    for target in [
        "/v1/dead-letters".to_owned(),
        "/v1/dead-letters?older_than=1h".to_owned(),
        "/v1/dead-letters/groups".to_owned(),
        format!("/v1/dead-letters/{id}"),
        "/v1/jobs".to_owned(),
        format!("/v1/jobs/{id}"),
    ] {
        assert_eq!(api.get(&target).await.problem(), (503, "unavailable".into()), "{target}");
    }
    assert_eq!(post(&api, &format!("/v1/dead-letters/{id}/retry")).await.problem().0, 503);
}
