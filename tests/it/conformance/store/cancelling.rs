//! Callers that go away in the middle.

use std::{collections::BTreeSet, time::Duration};

use adjutant::store::{Accepted, DecideAgain, Entering, Entry, LoadedStream, LogKind};

use super::{
    Open,
    look::{self, appended},
};
use crate::support::{
    commands::{add, stream},
    soon,
};

pub async fn an_accept_whose_caller_went_away_is_whole_or_nothing(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    for polls in 1..40 {
        let batch = vec![add("a", 1), add("b", 1)];
        let mut accept = Box::pin(store.accept(batch));
        for _ in 0..polls {
            if futures_util::poll!(accept.as_mut()).is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    }
    let accepted = store.accept((0..8).map(|_| add("a", 1)).collect()).await.expect("accept");
    assert!(accepted.iter().all(|a| matches!(a, Accepted::New { .. })));
    let logged: BTreeSet<_> = look::log(store, LogKind::Commands)
        .await
        .concat()
        .iter()
        .map(|entry| match entry {
            Entry::Command(entry) => entry.command.id,
            Entry::Event(_) => panic!("an event in the command log"),
        })
        .collect();
    look::gapless(store, LogKind::Commands).await;
    assert_eq!(look::commands(store).await, logged.len(), "each command with its log entry");
    assert_eq!(logged.len() % 2, 0, "batches are whole");
}

pub async fn a_second_try_whose_caller_went_away_holds_nobody_up(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let streams = [(stream("hot"), 1)];
    let partitions = [store.identity().partitions.of(&streams[0].0)].into();
    let nothing = Entering::default();
    for polls in 1..30 {
        let decide: DecideAgain<'_> = Box::new(|loaded: Vec<LoadedStream>| {
            let version = loaded[0].events.last().map_or(0, |event| event.version.0);
            Ok(appended(store, "hot", version + 1))
        });
        let mut tried = Box::pin(store.commit_exclusively(&partitions, &streams, &nothing, decide));
        for _ in 0..polls {
            if futures_util::poll!(tried.as_mut()).is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        drop(tried);
        let other = appended(store, &format!("other{polls}"), 1);
        soon("the others go on", store.commit_commands(other)).await.expect("commit");
    }
    let events = look::gapless(store, LogKind::Events).await;
    let hot = store.load_streams(&streams).await.expect("load");
    assert_eq!(events, 29 + hot[0].events.len());
}
