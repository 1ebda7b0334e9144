//! What falls due for the immediate lane: one process claims it and holds it from then on, or it enters
//! the command log.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use adjutant::{
    message::{CommandId, Lane, MemberId, Timestamp},
    store::{ClaimedCommand, LogKind, NewCommand, Store, WhenDue},
};

use super::{
    Open,
    cancellation::{by, cancelled, place},
    look,
};
use crate::support::commands::add;

/// Nothing is promoted that the lanes may still claim.
const GRACE: Duration = Duration::from_hours(1);

/// A command for the lanes, due at once.
fn due(counter: &str) -> NewCommand {
    NewCommand { lane: Lane::Immediate, when_due: WhenDue::Lane, ..add(counter, 1) }
}

async fn accept(store: &Arc<dyn Store>, commands: &[NewCommand]) {
    store.accept(commands.to_vec()).await.expect("accept");
}

async fn claim(store: &Arc<dyn Store>, owner: MemberId, limit: i64) -> Vec<ClaimedCommand> {
    store.claim_due(&look::all(store), owner, limit).await.expect("claim")
}

async fn promote(store: &Arc<dyn Store>, grace: Duration) -> usize {
    store.promote_due(&look::all(store), grace, 1_000).await.expect("promote")
}

fn ids(claimed: &[ClaimedCommand]) -> Vec<CommandId> {
    claimed.iter().map(|claimed| claimed.command.id).collect()
}

async fn held(store: &Arc<dyn Store>, commands: &[NewCommand]) -> BTreeSet<CommandId> {
    let asked: Vec<_> =
        commands.iter().map(|command| (place(store, command), command.id)).collect();
    store.held(&asked).await.expect("held").into_iter().collect()
}

async fn is_scheduled(store: &Arc<dyn Store>, command: &NewCommand) -> bool {
    store.command(command.id).await.expect("query").expect("is there").scheduled
}

pub async fn what_is_due_for_the_lanes_is_claimed_as_it_was_accepted(open: Open) {
    let truth = open(1).await;
    let (store, owner) = (&truth.store, MemberId::generate());
    let now = store.now().await.expect("now");
    let ago = |seconds| Some(now - Duration::from_secs(seconds));
    let mut first = due("a");
    first.not_before = ago(20);
    first.not_after = Some(now + Duration::from_hours(1));
    first.callback_url = Some("https://example.org/told".into());
    first.metadata.actor = Some("ann".into());
    let second = NewCommand { not_before: ago(10), ..due("b") };
    let third = due("a");
    let all = [first, second, third];
    accept(store, &all).await;
    assert_eq!(look::gapless(store, LogKind::Commands).await, 0);
    assert!(is_scheduled(store, &all[0]).await);
    assert_eq!(promote(store, GRACE).await, 0, "they are left to the lanes");

    let mut claimed = claim(store, owner, 2).await;
    assert_eq!(ids(&claimed), [all[0].id, all[1].id], "no more than asked for");
    claimed.extend(claim(store, owner, 2).await);
    assert_eq!(ids(&claimed), [all[0].id, all[1].id, all[2].id], "in the order in which they came");
    for (ClaimedCommand { command, accepted_at }, sent) in claimed.iter().zip(&all) {
        let record = store.command(sent.id).await.expect("query").expect("is there");
        assert_eq!(*accepted_at, record.accepted_at);
        assert!(!record.scheduled);
        let value = |it: &NewCommand| it.payload.decode::<serde_json::Value>().expect("JSON");
        assert_eq!(value(command), value(sent));
        let micros = |time: Option<Timestamp>| time.map(|time| time.unix_timestamp_nanos() / 1_000);
        assert_eq!(
            (&command.command_type, &command.stream, &command.metadata, &command.callback_url),
            (&sent.command_type, &sent.stream, &sent.metadata, &sent.callback_url)
        );
        assert_eq!(
            (micros(command.not_before), micros(command.not_after), &command.content_hash),
            (micros(sent.not_before), micros(sent.not_after), &sent.content_hash)
        );
        assert_eq!((command.lane, command.held_by), (Lane::Immediate, Some(owner)));
    }
    assert_eq!(held(store, &all).await.len(), 3);
    assert!(claim(store, owner, 10).await.is_empty(), "once");
    assert_eq!(promote(store, Duration::ZERO).await, 0, "the queue does not have them, too");
    assert_eq!(look::gapless(store, LogKind::Commands).await, 0);
}

pub async fn nothing_is_claimed_that_is_not_due_or_not_for_the_lanes(open: Open) {
    let truth = open(8).await;
    let (store, owner) = (&truth.store, MemberId::generate());
    let now = store.now().await.expect("now");
    let later = NewCommand { not_before: Some(now + Duration::from_hours(1)), ..due("a") };
    let for_the_log = NewCommand { when_due: WhenDue::Log, ..later.clone() };
    let for_the_log = NewCommand { id: CommandId::generate(), ..for_the_log };
    let is_due = due("a");
    accept(store, &[later.clone(), for_the_log.clone(), is_due.clone()]).await;
    truth
        .sql
        .run(format!(
            "UPDATE {} SET due_at = {} WHERE reason = 'not_before'",
            truth.sql.table("schedule"),
            truth.sql.time(now - Duration::from_hours(1))
        ))
        .await
        .expect("it falls due");
    let elsewhere: Vec<_> = look::all(store)
        .into_iter()
        .filter(|partition| *partition != place(store, &is_due))
        .collect();
    assert!(store.claim_due(&elsewhere, owner, 10).await.expect("claim").is_empty());
    assert_eq!(ids(&claim(store, owner, 10).await), [is_due.id]);
    assert!(is_scheduled(store, &later).await && is_scheduled(store, &for_the_log).await);
    assert_eq!(promote(store, GRACE).await, 1, "that of the log does not wait for a lane");
    assert!(is_scheduled(store, &later).await && !is_scheduled(store, &for_the_log).await);
}

pub async fn what_no_lane_claims_in_time_enters_the_log(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let now = store.now().await.expect("now");
    let long = NewCommand { not_before: Some(now + Duration::from_millis(1)), ..due("a") };
    let fresh = due("a");
    accept(store, &[long.clone(), fresh.clone()]).await;
    truth
        .sql
        .run(format!(
            "UPDATE {} SET due_at = {} WHERE command_id = {}",
            truth.sql.table("schedule"),
            truth.sql.time(now - GRACE - Duration::from_secs(1)),
            truth.sql.id(long.id.0)
        ))
        .await
        .expect("it was due long ago");
    assert_eq!(promote(store, GRACE).await, 1);
    assert_eq!(look::gapless(store, LogKind::Commands).await, 1);
    assert!(!is_scheduled(store, &long).await && is_scheduled(store, &fresh).await);
    assert_eq!(ids(&claim(store, MemberId::generate(), 10).await), [fresh.id]);
    assert_eq!(held(store, &[long, fresh.clone()]).await, BTreeSet::from([fresh.id]));
}

pub async fn many_who_claim_at_once_share_what_is_due(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let all: Vec<_> = (0..200).map(|n| due(&format!("c{}", n % 20))).collect();
    accept(store, &all).await;
    let claiming = (0..6).map(|n| {
        let store = if n % 2 == 0 { truth.store.clone() } else { truth.other.clone() };
        tokio::spawn(async move {
            let owner = MemberId::generate();
            let mut mine = Vec::new();
            loop {
                let some = claim(&store, owner, 15).await;
                if some.is_empty() {
                    return mine;
                }
                mine.extend(ids(&some));
            }
        })
    });
    let mut claimed = Vec::new();
    for mine in futures_util::future::join_all(claiming).await {
        claimed.extend(mine.expect("joined"));
    }
    // Who finds nothing may have come while others held the rest.
    claimed.extend(ids(&claim(store, MemberId::generate(), 1_000).await));
    assert_eq!(claimed.len(), all.len(), "each once");
    let sent: BTreeSet<_> = all.iter().map(|command| command.id).collect();
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), sent);
    assert_eq!(held(store, &all).await, sent);
}

pub async fn what_is_cancelled_and_claimed_at_once_is_held_by_nobody(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let all: Vec<_> = (0..120).map(|n| due(&format!("c{}", n % 12))).collect();
    accept(store, &all).await;
    let cancelling = {
        let (other, ids) = (truth.other.clone(), all.iter().map(|it| it.id).collect::<Vec<_>>());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for some in ids.chunks(3) {
                answers.extend(other.cancel_commands(some, &by("ann")).await.expect("cancel"));
            }
            answers
        })
    };
    let owner = MemberId::generate();
    while !cancelling.is_finished() {
        claim(store, owner, 5).await;
        tokio::task::yield_now().await;
    }
    let answers = cancelling.await.expect("joined");
    assert!(answers.iter().all(|answer| *answer == cancelled()), "{answers:?}");
    assert!(claim(store, owner, 1_000).await.is_empty());
    assert!(held(store, &all).await.is_empty());
    assert_eq!(promote(store, Duration::ZERO).await, 0);
    assert_eq!(look::gapless(store, LogKind::Commands).await, 0);
}

/// As a cancellation that comes between: the row is there, and there is nothing to run.
pub async fn an_orphan_is_claimed_by_nobody(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let (gone, there) = (due("a"), due("b"));
    accept(store, &[gone.clone(), there.clone()]).await;
    truth
        .sql
        .run(format!(
            "DELETE FROM {} WHERE id = {}",
            truth.sql.table("commands"),
            truth.sql.id(gone.id.0)
        ))
        .await
        .expect("its command is gone");
    let owner = MemberId::generate();
    assert_eq!(ids(&claim(store, owner, 10).await), [there.id]);
    assert_eq!(held(store, &[gone, there.clone()]).await, BTreeSet::from([there.id]));
    assert_eq!(promote(store, Duration::ZERO).await, 0, "its row is gone");
}
