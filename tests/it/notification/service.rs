//! Notification on PostgreSQL, by several processes at a time.

use std::time::Duration;

use adjutant::{
    observe::notify::{self, NotifyParts, NotifySettings},
    service::groups_of,
    store::{Intake, Role},
};
use tokio_util::sync::CancellationToken;

use super::{quick, start_on, told};
use crate::support::{
    commands::add,
    database::Database,
    domain, eventually,
    process::{ALL, Site},
    receiver::Receiver,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_that_see_the_same_tell_it_once() {
    let database = Database::migrated().await;
    let receiver = Receiver::start([]).await;
    let mut notifiers = Vec::new();
    for _ in 0..4 {
        notifiers.push(start_on(database.store().await, quick(&[&receiver])));
    }
    let set = |subjects: &[&'static str]| {
        notifiers.iter().for_each(|notifier| notifier.switch.set(Some(subjects)));
    };
    set(&["commands"]);
    receiver.until(1).await;
    // One of them sees it longer than the others.
    notifiers[1..].iter().for_each(|notifier| notifier.switch.set(Some(&[])));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(receiver.received().len(), 1, "it is not over while anybody sees it");
    set(&[]);
    receiver.until(2).await;
    set(&["last"]);
    let all: Vec<_> = receiver.until(3).await.iter().flat_map(|one| one.alerts()).collect();
    let expected =
        [told("commands", "firing"), told("commands", "resolved"), told("last", "firing")];
    assert_eq!(all, expected);
}

/// A crash after a change was found and before it was told: another process tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_before_it_sends_leaves_the_message_to_others() {
    let database = Database::migrated().await;
    let receiver = Receiver::start([]).await;
    let slow = NotifySettings { gather: Duration::from_secs(2), ..quick(&[&receiver]) };
    let dying = start_on(database.store().await, slow);
    dying.switch.set(Some(&["commands"]));
    let store = database.store().await;
    eventually("it is found", async || {
        use adjutant::store::Notices;
        (!store.firing_conditions().await.ok()?.is_empty()).then_some(())
    })
    .await;
    drop(dying);
    assert!(receiver.received().is_empty());
    // What the dead process saw is over for this one: it tells both.
    let _next = start_on(database.store().await, quick(&[&receiver]));
    let all = eventually("both are told", async || {
        let all: Vec<_> = receiver.received().iter().flat_map(|one| one.alerts()).collect();
        (all.len() == 2).then_some(all)
    })
    .await;
    assert_eq!(all, [told("commands", "firing"), told("commands", "resolved")]);
}

/// Every condition of the store, on a service that stands still, and then does not any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_conditions_of_a_service_fire_and_resolve() {
    let site = Site::new().await;
    let receiver = Receiver::start([]).await;
    let mut settings = quick(&[&receiver]);
    settings.lag_entries = 3;
    settings.outbox_age = Duration::from_millis(200);
    let store: std::sync::Arc<dyn adjutant::store::Store> = site.store.clone();
    let silent = Duration::from_secs(2);
    let sources = notify::of_the_store(&store, &groups_of(&domain::service()), silent, &settings);
    let words: Vec<_> = sources.iter().map(|source| source.condition()).collect();
    assert_eq!(words, ["dead_letters", "relay_stuck", "group_lag", "member_lost"]);
    let stop = CancellationToken::new();
    let parts = NotifyParts { store, sources, settings, stop };
    let _tasks = notify::start(parts).expect("start");
    let fired = async |condition: &str, subject: &str, state: &str| {
        let wanted = (condition.to_owned(), subject.to_owned(), state.to_owned());
        eventually(&format!("{wanted:?}"), async || {
            let mut all = receiver.received().into_iter().flat_map(|one| one.alerts());
            all.any(|alert| alert == wanted).then_some(())
        })
        .await;
    };

    let crashed = site.start(&[Role::ProjectionWorker]).await;
    let member = crashed.id().to_string();
    drop(crashed);
    fired("member_lost", &member, "firing").await;

    let ids: Vec<_> = (0..8).map(|i| add(&format!("c{i}"), 1)).collect();
    let asked: Vec<_> = ids.iter().map(|command| command.id).collect();
    site.store.accept(ids).await.expect("accept");
    fired("relay_stuck", "outbox", "firing").await;
    fired("group_lag", "commands", "firing").await;
    let pool = site.database.pool().await;
    let die = "INSERT INTO adjutant.dead_letters (partition, id, kind, group_name, generation, key,
                   type, command_id, error, fingerprint, attempts, died_at, state, state_at)
               VALUES (0, gen_random_uuid(), 2, 'projection.totals', 1, 'all', 'counter.added',
                   gen_random_uuid(), '{\"code\": \"overflow\", \"message\": \"too much\"}', 'f00d', 5,
                   clock_timestamp(), 1, clock_timestamp())";
    sqlx::query(die).execute(&pool).await.expect("a dead letter");
    fired("dead_letters", "f00d", "firing").await;

    let process = site.start(&ALL).await;
    site.until_ended(&asked).await;
    fired("relay_stuck", "outbox", "resolved").await;
    fired("group_lag", "commands", "resolved").await;
    let resolve = "UPDATE adjutant.dead_letters SET state = 3, state_at = clock_timestamp()";
    sqlx::query(resolve).execute(&pool).await.expect("resolve");
    fired("dead_letters", "f00d", "resolved").await;
    let long_ago = "UPDATE adjutant.members SET heartbeat_at = heartbeat_at - interval '11 minutes'
                     WHERE id::text = $1";
    sqlx::query(long_ago).bind(&member).execute(&pool).await.expect("long ago");
    fired("member_lost", &member, "resolved").await;
    process.stop(Duration::from_secs(10)).await;
}
