//! Who fires, and when: on a store in memory, under a clock that only passes when nothing is done.

use std::{sync::Arc, time::Duration};

use time::macros::datetime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    message::{Lane, LogId, Metadata, PartitionCount, RawJson},
    recurring::RecurringSettings,
    signals::Signals,
    store::{
        CommandFilter, CommandTemplate, Intake as _, MissedRuns, NextDue, Queries as _,
        Recurring as _, RecurringState, RecurringTerms,
        sqlite::{ClockSource, SqliteStore},
    },
};

const START: Timestamp = datetime!(2026-01-01 12:00:00.25 UTC);

struct Service {
    store: Arc<SqliteStore>,
    owned: watch::Sender<Vec<Partition>>,
    stop: CancellationToken,
}

impl Service {
    /// Fires if partition 0 is among these.
    fn relaying(partitions: &[i16], settings: RecurringSettings) -> Self {
        let began = Instant::now();
        let clock = ClockSource::new(move || START + began.elapsed());
        let store = SqliteStore::in_memory(PartitionCount::DEFAULT, clock, LogId::generate());
        let store = Arc::new(store.unwrap());
        let (owned, partitions) =
            watch::channel(partitions.iter().copied().map(Partition).collect::<Vec<_>>());
        let stop = CancellationToken::new();
        let parts = RecurringParts {
            store: store.clone(),
            registry: Arc::default(),
            signals: Signals::default(),
            partitions,
            settings,
            stop: stop.clone(),
        };
        tokio::spawn(run(parts));
        Self { store, owned, stop }
    }

    async fn make(&self, cron: &str, due: Timestamp) {
        let terms = RecurringTerms {
            cron: cron.into(),
            time_zone: "UTC".into(),
            missed_runs: MissedRuns::Once,
            command: CommandTemplate {
                command_type: "counter.add".into(),
                stream: "counter/a".parse().unwrap(),
                payload: RawJson::from_trusted("{}".into()),
                metadata: Metadata::default(),
                lane: Lane::Queued,
                expected_version: None,
            },
            state: RecurringState::Active,
        };
        let name = "a".parse().unwrap();
        let made = self.store.put_recurring(&name, &terms, NextDue::At(Some(due)), None, "ann");
        made.await.unwrap().unwrap();
    }

    /// Which runs were sent, and how late each was.
    async fn sent(&self) -> Vec<(Timestamp, time::Duration)> {
        let page = self.store.commands(&CommandFilter::default(), None, 100).await.unwrap();
        let mut sent: Vec<_> = page
            .items
            .iter()
            .map(|command| {
                let run = Run::of(&command.metadata).unwrap();
                (run.due_at, command.accepted_at - run.due_at)
            })
            .collect();
        sent.sort_unstable();
        sent
    }
}

fn after(seconds: u64) -> Timestamp {
    datetime!(2026-01-01 12:00 UTC) + Duration::from_secs(seconds)
}

/// The poll is for what is new; what is known is waited for.
#[tokio::test(start_paused = true)]
async fn a_run_is_sent_at_its_time_and_not_when_it_is_looked_next() {
    let service = Service::relaying(&[0], RecurringSettings::default());
    service.make("*/5 * * * * *", after(5)).await;
    tokio::time::sleep(Duration::from_secs(17)).await;
    let sent = service.sent().await;
    assert_eq!(sent.iter().map(|(due, _)| *due).collect::<Vec<_>>(), [5, 10, 15].map(after));
    let latest = sent.iter().map(|(_, late)| *late).max().unwrap();
    assert!(latest <= Duration::from_millis(2), "{latest}");
}

#[tokio::test(start_paused = true)]
async fn only_whoever_relays_partition_0_fires() {
    let service = Service::relaying(&[1, 2, 3], RecurringSettings::default());
    service.make("*/5 * * * * *", after(5)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(service.sent().await.is_empty(), "it is another one's");
    service.owned.send_replace(vec![Partition(0)]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!service.sent().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn with_a_full_outbox_nothing_is_decided_and_the_policy_decides_afterwards() {
    let settings = RecurringSettings {
        outbox_limit: 1,
        grace: Duration::from_secs(3),
        ..RecurringSettings::default()
    };
    let service = Service::relaying(&[0], settings);
    let waiting = Run { name: "other".parse().unwrap(), due_at: after(0) };
    service.make("*/5 * * * * *", after(5)).await;
    let recurring = service.store.recurring(&"a".parse().unwrap()).await.unwrap().unwrap();
    let command = waiting.command(&recurring.terms.command, false).unwrap();
    service.store.accept(vec![command]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(service.sent().await.len(), 1, "only what fills the outbox");
    let partitions: Vec<_> = PartitionCount::DEFAULT.all().collect();
    let rows = crate::store::Outbox::read_outbox(&*service.store, &partitions, 0, &[], 10).await;
    let ids: Vec<_> = rows.unwrap().rows.iter().map(|row| row.id).collect();
    crate::store::Outbox::delete_outbox(&*service.store, &ids).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let recurring = service.store.recurring(&"a".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((recurring.runs, recurring.last_due_at), (1, Some(after(60))));
    assert_eq!(recurring.missed, 11, "one run stands for all");
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_it_is_told_to() {
    let service = Service::relaying(&[0], RecurringSettings::default());
    service.stop.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    service.make("*/5 * * * * *", after(5)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(service.sent().await.is_empty());
}
