//! Many commands are executed and cancelled at the same time: each ends in one of the two ways, and has
//! the effect of that one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use adjutant::{
    message::{CommandId, OutcomeStatus},
    store::{CancelAnswer, Entry, LogKind},
};

use super::{Open, cancellation::by, lane::Lane, look};
use crate::support::commands::{add, flaky, stream};

const COMMANDS: usize = 240;
const COUNTERS: usize = 6;

pub async fn of_cancelling_and_executing_exactly_one_wins(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    // Some fail twice and come back, some in strict order.
    let commands: Vec<_> = (0..COMMANDS)
        .map(|n| {
            let counter = format!("c{}", n % COUNTERS);
            let fails = if n % 7 == 0 { 2 } else { 0 };
            let key = CommandId::generate().to_string();
            match n % 3 {
                0 => add(&counter, 1),
                1 => flaky("flaky", &counter, &key, fails, "retryable"),
                _ => flaky("in_order", &counter, &key, fails, "retryable"),
            }
        })
        .collect();
    let ids: Vec<_> = commands.iter().map(|command| command.id).collect();
    store.accept(commands.clone()).await.expect("accept");
    let lane = Arc::new(Lane::on(store).await);
    lane.batch.store(5, Ordering::Relaxed);
    // Those that are executed last are cancelled first, one by one and in heaps, a third of all.
    let cancelling = {
        let (other, ids) = (truth.other.clone(), ids.clone());
        tokio::spawn(async move {
            let mut answers = BTreeMap::new();
            let wanted: Vec<_> = ids.iter().rev().copied().step_by(3).collect();
            for (n, heap) in wanted.chunks(4).enumerate() {
                let heap = if n % 2 == 0 { &heap[..1] } else { heap };
                let done = other.cancel_commands(heap, &by("ann")).await.expect("cancel");
                answers.extend(heap.iter().copied().zip(done));
            }
            answers
        })
    };
    while lane.go_on().await > 0 {}
    let answers = cancelling.await.expect("joined");
    let ends = lane.until_ended(&ids).await;

    let mut events: BTreeMap<CommandId, usize> = BTreeMap::new();
    for entry in look::log(store, LogKind::Events).await.concat() {
        let Entry::Event(entry) = entry else { panic!("an event") };
        *events.entry(entry.event.command_id).or_default() += 1;
    }
    let mut called_off = BTreeSet::new();
    for (id, outcome) in ids.iter().zip(&ends) {
        let own = events.remove(id).unwrap_or_default();
        let answer = answers.get(id);
        match outcome.status {
            OutcomeStatus::Cancelled => {
                assert_eq!((own, outcome.positions.len()), (0, 0), "{id} has an effect");
                assert!(matches!(answer, Some(CancelAnswer::Cancelled { .. })), "{answer:?}");
                called_off.insert(*id);
            }
            OutcomeStatus::Succeeded => {
                assert_eq!((own, outcome.positions.len()), (1, 1), "{id}");
                let too_late = CancelAnswer::AlreadyEnded(OutcomeStatus::Succeeded);
                assert!(answer.is_none_or(|answer| *answer == too_late), "{answer:?}");
            }
            other => panic!("{id} ended as {other:?}"),
        }
    }
    assert!(events.is_empty());
    assert!(!called_off.is_empty(), "some were cancelled in time");
    for counter in 0..COUNTERS {
        let stream = stream(&format!("c{counter}"));
        let asked = [(store.identity().partitions.of(&stream), stream)];
        let left = store.holds(&asked).await.expect("holds");
        assert!(left.is_empty(), "{left:?}");
    }
    println!("{} of {} cancellations came in time", called_off.len(), answers.len());
}
