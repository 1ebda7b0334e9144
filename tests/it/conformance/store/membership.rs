//! Heartbeats by the store's clock.

use std::time::Duration;

use adjutant::{
    message::{GroupName, MemberId},
    store::{Heartbeat, Role},
};

use super::Open;
use crate::support::eventually;

const LONG: Duration = Duration::from_secs(60);

pub(super) fn beat(name: &str) -> Heartbeat {
    Heartbeat {
        id: MemberId::generate(),
        name: name.into(),
        release: "1.2.3".into(),
        roles: vec![Role::Relay, Role::CommandWorker],
        groups: vec![GroupName::commands(), GroupName::projection("v")],
        draining: false,
        stats: serde_json::json!({ "applied": 1 }),
    }
}

pub async fn a_member_is_live_while_it_beats(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let (mut first, second) = (beat("first"), beat("second"));
    let (now, live) = store.heartbeat(&first, LONG).await.expect("beat");
    assert_eq!(live.len(), 1);
    assert_eq!((live[0].id, live[0].name.as_str()), (first.id, "first"));
    assert_eq!((&live[0].roles, &live[0].groups), (&first.roles, &first.groups));
    assert_eq!((live[0].release.as_str(), live[0].draining), ("1.2.3", false));
    assert!(live[0].heartbeat_at <= now && live[0].started_at <= now);
    let started_at = live[0].started_at;
    let (_, live) = truth.other.heartbeat(&second, LONG).await.expect("beat");
    assert_eq!(live.iter().map(|m| m.id).collect::<Vec<_>>(), [first.id, second.id]);
    first.draining = true;
    first.stats = serde_json::json!({ "applied": 2 });
    let (_, live) = store.heartbeat(&first, LONG).await.expect("beat");
    assert!(live[0].draining && live[0].heartbeat_at > started_at);
    assert_eq!((&live[0].stats, live[0].started_at), (&first.stats, started_at));
    let short = Duration::from_millis(50);
    eventually("silence is noticed", async || {
        store.live_members(short).await.expect("live").is_empty().then_some(())
    })
    .await;
    assert_eq!(store.live_members(LONG).await.expect("live").len(), 2);
    store.notify_members().await.expect("a hint");
}

pub async fn a_member_that_leaves_is_gone(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let (first, second) = (beat("first"), beat("second"));
    store.heartbeat(&first, LONG).await.expect("beat");
    store.heartbeat(&second, LONG).await.expect("beat");
    store.leave(first.id).await.expect("leave");
    store.leave(first.id).await.expect("twice");
    let live = store.live_members(LONG).await.expect("live");
    assert_eq!(live.iter().map(|m| m.id).collect::<Vec<_>>(), [second.id]);
}
