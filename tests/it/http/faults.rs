//! A database that fails under load: answers stay true.

use std::time::Duration;

use adjutant::ingress::CommitSettings;

use super::*;
use crate::support::{eventually, proxy::Proxy};

/// What was answered must be true: a 202 is in the database, a 503 is not.
async fn assert_answers_are_true(database: &Database, answers: &HashMap<CommandId, u16>) {
    let stored = stored(database).await;
    for (id, status) in answers {
        match status {
            200 | 202 => assert!(stored.contains(id), "{id} was answered {status} and is lost"),
            503 => assert!(!stored.contains(id), "{id} was answered 503 and is stored"),
            500 => {}
            other => panic!("{id} was answered {other}"),
        }
    }
}

fn through(database: &Database, proxy: &Proxy) -> String {
    let (head, name) = database.url.rsplit_once('/').expect("a database");
    let user = head.rsplit_once('@').map_or("", |(user, _)| user);
    format!("{user}@{}/{name}", proxy.address())
}

fn address_of(database: &Database) -> String {
    let (head, _) = database.url.rsplit_once('/').expect("a database");
    head.rsplit_once('@').map_or(head, |(_, address)| address).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_stay_true_while_connections_to_the_database_break() {
    let database = Database::migrated().await;
    let proxy = Proxy::to(address_of(&database)).await;
    let store = database.store_through(&through(&database, &proxy)).await;
    let commit = CommitSettings { give_up_after_ms: 1_000, ..CommitSettings::default() };
    let settings = IngressSettings { commit, ..IngressSettings::default() };
    let api = Api::start(domain::service(), store, &Signals::default(), settings);
    let until = Instant::now() + Duration::from_secs(8);
    let (answers, ()) = tokio::join!(load(&api, until), async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            proxy.drop_connections();
        }
        proxy.down();
        tokio::time::sleep(Duration::from_secs(3)).await;
        proxy.resume();
    });
    let count = |status| answers.values().filter(|answer| **answer == status).count();
    println!("202: {}, 503: {}, 500: {}", count(202), count(503), count(500));
    assert!(count(202) > 100 && count(503) > 0);
    assert_answers_are_true(&database, &answers).await;

    // Whoever was told that it is not known learns it by sending the same again.
    let unknown: Vec<_> = answers.iter().filter(|(_, status)| **status == 500).collect();
    for (id, _) in unknown {
        let command = with(add("again", 1), "id", id.to_string());
        let answer = api.submit(&command).await;
        assert!(matches!(answer.status, 202 | 409), "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_database_holds_requests_up_and_loses_none() {
    let database = Database::migrated().await;
    let proxy = Proxy::to(address_of(&database)).await;
    let store = database.store_through(&through(&database, &proxy)).await;
    let api = Api::start(domain::service(), store, &Signals::default(), IngressSettings::default());
    let until = Instant::now() + Duration::from_secs(12);
    let (answers, ()) = tokio::join!(load(&api, until), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        proxy.pause();
        tokio::time::sleep(Duration::from_secs(8)).await;
        proxy.resume();
    });
    let count = |status| answers.values().filter(|answer| **answer == status).count();
    println!("202: {}, 503: {}, 500: {}", count(202), count(503), count(500));
    assert!(count(202) > 100);
    assert_answers_are_true(&database, &answers).await;
    eventually("commands are accepted again", async || {
        (api.submit(&add("a", 1)).await.status == 202).then_some(())
    })
    .await;
}
