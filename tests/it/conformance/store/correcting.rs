//! A dead command that a person retries with a corrected payload: what is executed is the newest
//! correction, what was accepted stays as it was.

use std::{sync::Arc, time::Duration};

use adjutant::{
    dead_letter::{DeadLetterId, DeadLetterState},
    execute::{Executor, ExecutorSettings, PerType, RetrySchedule, Run, RunEnd, StoreClock},
    message::{
        Attempt, Batch, CommandEnvelope, CommandId, GroupName, Offset, OutcomeStatus, Partition,
        RawJson, Route, decode_batch,
    },
    signals::Signals,
    store::{
        Acted, CommandEntry, DeadLetterDetails, DeadLetterFilter, Entry, LogKind, RetryRequest,
        Store,
    },
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Open, Truth, letters::by, look};
use crate::support::{commands::flaky, domain};

/// The only command of a store, and who executes it.
struct Case {
    truth: Truth,
    executor: Executor,
    id: CommandId,
    partition: Partition,
    accepted: Value,
}

impl Case {
    /// The command is accepted and dead: it cannot succeed as it is.
    async fn new(open: Open) -> Self {
        let truth = open(8).await;
        let store = truth.store.clone();
        let key = CommandId::generate().to_string();
        let command = flaky("flaky", "a", &key, 1_000, "fatal");
        let (id, partition) = (command.id, store.identity().partitions.of(&command.stream));
        let accepted = command.payload.to_value();
        store.accept(vec![command]).await.expect("accept");
        let settings = ExecutorSettings {
            retry: PerType::all(RetrySchedule::never()),
            ..ExecutorSettings::default()
        };
        let executor = Executor::new(
            domain::service().registry().clone(),
            store.clone(),
            Signals::default(),
            StoreClock::starting_at(store.now().await.expect("now")),
            settings,
            CancellationToken::new(),
        );
        let case = Self { truth, executor, id, partition, accepted };
        case.execute().await;
        assert_eq!(case.status().await, OutcomeStatus::Dead);
        case
    }

    fn store(&self) -> &Arc<dyn Store> {
        &self.truth.store
    }

    /// What was accepted, with something else in it.
    fn corrected(&self, fails: u32, amount: i64) -> RawJson {
        let mut payload = self.accepted.clone();
        payload["fails"] = json!(fails);
        payload["amount"] = json!(amount);
        RawJson::encode(&payload).expect("JSON")
    }

    /// The newest dead letter.
    async fn letter(&self) -> DeadLetterId {
        let page = self.store().dead_letters(&DeadLetterFilter::default(), None, 1).await;
        page.expect("list").items[0].id
    }

    async fn details(&self, letter: DeadLetterId) -> DeadLetterDetails {
        self.store().dead_letter(letter).await.expect("look").expect("is there")
    }

    async fn retry(&self, letter: DeadLetterId, payload: Option<RawJson>) -> Acted {
        let request = RetryRequest { id: letter, payload };
        let acted = self.store().retry_dead_commands(&[request], &by("ann")).await;
        acted.expect("retry").remove(0)
    }

    /// The executions that the log owes, in order.
    async fn logged(&self) -> Vec<CommandEntry> {
        let log =
            look::log(self.store(), LogKind::Commands).await.swap_remove(self.partition.index());
        let entries = log.into_iter().map(|entry| match entry {
            Entry::Command(entry) => entry,
            Entry::Event(_) => panic!("a command"),
        });
        entries.collect()
    }

    /// What the road brings of the newest of them.
    async fn told(&self) -> CommandEnvelope {
        let rows = look::outbox(self.store()).await;
        let mut rows = rows.iter().filter(|row| matches!(row.route, Route::Commands(_)));
        let last = rows.next_back().expect("a message");
        match decode_batch(&last.body, true).expect("a batch") {
            Batch::Commands(mut commands) => commands.pop().expect("a command"),
            Batch::Events(_) => panic!("commands"),
        }
    }

    /// Promotes what is due and executes what is new in the log.
    async fn execute(&self) {
        let store = self.store();
        store.promote_due(&look::all(store), Duration::ZERO, 100).await.expect("promote");
        let reached = store.checkpoints(&GroupName::commands()).await.expect("checkpoints");
        let reached: Offset = reached[self.partition.index()];
        let entries: Vec<CommandEntry> =
            self.logged().await.into_iter().filter(|entry| entry.offset > reached).collect();
        assert_eq!(entries.len(), 1, "one execution is owed");
        let run =
            Run { partition: self.partition, checkpoint: Some(reached), entries, crashed: None };
        let ended = self.executor.execute(vec![run]).await;
        assert!(matches!(ended[..], [RunEnd::Done]), "{ended:?}");
    }

    async fn status(&self) -> OutcomeStatus {
        let outcomes = self.store().outcomes(&[(self.partition, self.id)]).await.expect("outcomes");
        outcomes[0].1.status
    }

    /// The amounts that were added.
    async fn added(&self) -> Vec<Value> {
        let log =
            look::log(self.store(), LogKind::Events).await.swap_remove(self.partition.index());
        let data = log.into_iter().map(|entry| match entry {
            Entry::Event(entry) => entry.event.data.to_value()["amount"].clone(),
            Entry::Command(_) => panic!("an event"),
        });
        data.collect()
    }

    async fn assert_the_original_stays(&self) {
        let record = self.store().command(self.id).await.expect("look").expect("is there");
        assert_eq!(record.payload.to_value(), self.accepted);
    }
}

pub async fn a_corrected_payload_is_what_is_executed(open: Open) {
    let case = Case::new(open).await;
    let letter = case.letter().await;
    let corrected = case.corrected(0, 8);
    assert_eq!(case.retry(letter, Some(corrected.clone())).await, Acted::Done);
    // Whoever asks second changes nothing, whatever he brings.
    for payload in [None, Some(case.corrected(0, 9))] {
        let refused = case.retry(letter, payload).await;
        assert_eq!(refused, Acted::NotOpen(DeadLetterState::Retrying));
    }
    let edit = case.details(letter).await.edit.expect("an edit");
    assert_eq!((edit.edit, edit.payload.to_value()), (1, corrected.to_value()));

    let store = case.store();
    assert_eq!(
        store.promote_due(&look::all(store), Duration::ZERO, 100).await.expect("promote"),
        1
    );
    let logged = case.logged().await;
    let edits: Vec<i32> = logged.iter().map(|entry| entry.command.edit).collect();
    assert_eq!(edits, [0, 1], "a new entry, with the number of the edit");
    assert_eq!(logged[0].command.payload.to_value(), case.accepted, "the first one's is kept");
    for command in [&logged[1].command, &case.told().await] {
        assert_eq!((command.id, command.edit, command.attempt), (case.id, 1, Attempt(2)));
        assert_eq!(command.payload.to_value(), corrected.to_value());
    }
    case.execute().await;
    assert_eq!(case.status().await, OutcomeStatus::Succeeded);
    assert_eq!(case.added().await, [json!(8)]);
    case.assert_the_original_stays().await;
    assert_eq!(case.details(letter).await.letter.state, DeadLetterState::Resolved);
}

pub async fn corrections_are_numbered_and_the_newest_one_counts(open: Open) {
    let case = Case::new(open).await;
    let first = case.corrected(1_000, 2);
    assert_eq!(case.retry(case.letter().await, Some(first.clone())).await, Acted::Done);
    case.execute().await;
    assert_eq!(case.status().await, OutcomeStatus::Dead, "corrected, and not enough");
    // Without a payload: the newest one again.
    assert_eq!(case.retry(case.letter().await, None).await, Acted::Done);
    case.execute().await;
    assert_eq!(case.status().await, OutcomeStatus::Dead);
    let second = case.corrected(0, 3);
    let letter = case.letter().await;
    assert_eq!(case.retry(letter, Some(second.clone())).await, Acted::Done);
    let edit = case.details(letter).await.edit.expect("an edit");
    assert_eq!((edit.edit, edit.edited_by.as_str()), (2, "ann"));
    case.execute().await;
    assert_eq!(case.status().await, OutcomeStatus::Succeeded);
    assert_eq!(case.added().await, [json!(3)]);
    let logged = case.logged().await;
    let payloads = [&case.accepted, &first.to_value(), &first.to_value(), &second.to_value()];
    let expected: Vec<(i32, i32, &Value)> =
        [0, 1, 1, 2].into_iter().zip(1..).zip(payloads).map(|((e, a), p)| (e, a, p)).collect();
    let found: Vec<(i32, i32, Value)> = logged
        .iter()
        .map(|it| (it.command.edit, it.command.attempt.0, it.command.payload.to_value()))
        .collect();
    let found: Vec<(i32, i32, &Value)> = found.iter().map(|(e, a, p)| (*e, *a, p)).collect();
    assert_eq!(found, expected);
    case.assert_the_original_stays().await;
}
