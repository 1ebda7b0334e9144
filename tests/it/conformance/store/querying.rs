//! What people ask, and reading logs.

use std::collections::BTreeSet;

use adjutant::{
    message::{
        CommandId, GroupName, LogId, Metadata, Offset, OutcomeStatus, Partition, RawJson, Version,
    },
    store::{CommandFilter, CommandProgress, CommandStatus, ForeignMessage, LogKind, StoreError},
};

use super::{
    Open,
    look::{self, appended},
};
use crate::support::commands::{add, command, stream};

pub async fn a_command_is_found_with_its_outcome(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let mut asked = add("a", 7);
    asked.metadata = Metadata {
        actor: Some("Zoë \"the\" actor".into()),
        correlation_id: Some("c".into()),
        ..Metadata::default()
    };
    asked.expected_version = Some(Version(0));
    asked.not_before = Some(store.now().await.expect("now"));
    store.accept(vec![asked.clone()]).await.expect("accept");
    assert!(store.command(CommandId::generate()).await.expect("query").is_none());
    let record = store.command(asked.id).await.expect("query").expect("is there");
    assert_eq!(record.payload.to_value(), serde_json::json!({ "amount": 7 }));
    assert_eq!((record.command_type, record.stream), (asked.command_type, asked.stream.clone()));
    assert_eq!((record.lane, record.metadata.clone()), (asked.lane, asked.metadata.clone()));
    assert_eq!(record.content_hash, asked.content_hash);
    assert_eq!(record.outcome, None);
    let micros = |time: time::OffsetDateTime| time.unix_timestamp_nanos() / 1_000;
    assert_eq!(record.not_before.map(micros), asked.not_before.map(micros));
    let mut commit = appended(store, "a", 1);
    commit.outcomes[0].command_id = asked.id;
    commit.outcomes[0].log_offset = Some(Offset(1));
    commit.events[0].command_id = asked.id;
    commit.events[0].metadata = asked.metadata.clone();
    store.commit_commands(commit.clone()).await.expect("commit");
    let record = store.command(asked.id).await.expect("query").expect("is there");
    assert_eq!(record.status(), CommandStatus::Ended(OutcomeStatus::Succeeded));
    let asked_for = [(record.partition, asked.id)];
    let outcomes = store.outcomes(&asked_for).await.expect("outcomes");
    assert_eq!(record.outcome.as_ref(), Some(&outcomes[0].1));
    let events = store.stream_events(&asked.stream, Version(0), 10).await.expect("events");
    assert_eq!((events[0].command_id, &events[0].metadata), (asked.id, &asked.metadata));
}

pub async fn how_far_commands_are_is_told_of_many_at_once(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let [accepted, ended, rejected] = ["a", "b", "c"].map(|counter| add(counter, 1));
    let mut later = add("d", 1);
    later.not_before = Some(store.now().await.expect("now") + time::Duration::days(1));
    let all = vec![accepted.clone(), ended.clone(), rejected.clone(), later.clone()];
    store.accept(all.clone()).await.expect("accept");
    let partition = |counter: &str| store.identity().partitions.of(&stream(counter));
    let unknown = CommandId::generate();
    let mut asked: Vec<_> =
        all.iter().map(|command| (partition(command.stream.id()), command.id)).collect();
    asked.push((Partition(0), unknown));
    // What must agree with the records, whatever has happened.
    let statuses = async || {
        let mut found = truth.other.statuses(&asked).await.expect("statuses");
        assert_eq!(found.len(), asked.len(), "one for each, those that there are not included");
        for (id, progress) in &found {
            let record = store.command(*id).await.expect("query");
            assert_eq!(record.map(|it| it.progress()).unwrap_or_default(), *progress);
        }
        found.sort_unstable_by_key(|(id, _)| asked.iter().position(|(_, asked)| asked == id));
        found.into_iter().map(|(_, progress)| progress).collect::<Vec<_>>()
    };
    let nothing = CommandProgress::default();
    let scheduled = CommandProgress { scheduled: true, ..nothing };
    assert_eq!(statuses().await, [nothing, nothing, nothing, scheduled, nothing]);

    let mut commit = appended(store, "b", 1);
    commit.outcomes[0].command_id = ended.id;
    commit.outcomes[0].attempts = 3;
    commit.events[0].command_id = ended.id;
    store.commit_commands(commit).await.expect("commit");
    let mut commit = look::rejected(store, "c", 0);
    commit.outcomes[0].command_id = rejected.id;
    store.commit_commands(commit).await.expect("commit");
    let is = |status, attempts| CommandProgress { ended: Some((status, attempts)), ..nothing };
    let succeeded = is(OutcomeStatus::Succeeded, 3);
    let rejected = is(OutcomeStatus::Rejected, 1);
    assert_eq!(statuses().await, [nothing, succeeded, rejected, scheduled, nothing]);
    assert!(store.statuses(&[]).await.expect("nothing").is_empty());
}

pub async fn commands_are_found_by_many_ids(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let batch: Vec<_> = (0..20).map(|i| add(&format!("c{i}"), i + 1)).collect();
    store.accept(batch.clone()).await.expect("accept");
    let mut commit = look::rejected(store, "c3", 0);
    commit.outcomes[0].command_id = batch[3].id;
    store.commit_commands(commit).await.expect("commit");
    let mut ids: Vec<_> = batch.iter().step_by(3).map(|command| command.id).collect();
    ids.push(CommandId::generate());
    let mut found = truth.other.commands_with_ids(&ids).await.expect("commands");
    ids.pop();
    found.sort_unstable_by_key(|record| ids.iter().position(|id| *id == record.id));
    let mut expected = Vec::new();
    for id in &ids {
        expected.push(store.command(*id).await.expect("query").expect("is there"));
    }
    assert_eq!(found, expected);
    assert!(found[1].outcome.is_some());
    assert!(store.commands_with_ids(&[]).await.expect("nothing").is_empty());
}

pub async fn commands_are_listed_newest_first_by_filter_and_page(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let mut accepted = Vec::new();
    for i in 0..20 {
        let payload = serde_json::json!({ "amount": 1 });
        let name = if i % 4 == 0 { "counter.other" } else { "counter.add" };
        let counter = format!("c{}", i % 2);
        let command = command(CommandId::generate(), name, &counter, payload);
        accepted.push(command.id);
        store.accept(vec![command]).await.expect("accept");
    }
    accepted.reverse();
    let list = async |filter: CommandFilter, limit| {
        let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = store.commands(&filter, after.as_deref(), limit).await.expect("commands");
            assert!(page.items.len() <= limit as usize);
            found.extend(page.items.into_iter().map(|item| item.id));
            pages += 1;
            after = page.next;
            if after.is_none() {
                return (found, pages);
            }
        }
    };
    assert_eq!(list(CommandFilter::default(), 100).await, (accepted.clone(), 1));
    let (found, pages) = list(CommandFilter::default(), 6).await;
    assert_eq!(found, accepted);
    assert!(pages >= 4);
    let of_stream = CommandFilter { stream: Some(stream("c1")), ..CommandFilter::default() };
    let expected: Vec<_> = accepted.iter().copied().step_by(2).collect();
    assert_eq!(list(of_stream, 3).await.0, expected);
    let of_type =
        CommandFilter { command_type: Some("counter.other".into()), ..CommandFilter::default() };
    assert_eq!(list(of_type, 2).await.0.len(), 5);
    let ended = |status| CommandFilter { status: Some(status), ..CommandFilter::default() };
    let mut commit = look::rejected(store, "c0", 0);
    commit.outcomes[0].command_id = accepted[19];
    store.commit_commands(commit).await.expect("commit");
    let rejected = CommandStatus::Ended(OutcomeStatus::Rejected);
    assert_eq!(list(ended(rejected), 10).await.0, [accepted[19]]);
    assert_eq!(list(ended(CommandStatus::Accepted), 10).await.0.len(), 19);
    assert!(list(ended(CommandStatus::Scheduled), 10).await.0.is_empty());
    for nonsense in ["", "x", "1_x", "99999999999999999999999_x"] {
        let refused = store.commands(&CommandFilter::default(), Some(nonsense), 10).await;
        assert!(matches!(refused, Err(StoreError::Unstorable(_))), "{nonsense}");
    }
}

pub async fn a_log_is_read_in_pages(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let batch: Vec<_> = (0..10).map(|i| add(&format!("c{i}"), i)).collect();
    store.accept(batch.clone()).await.expect("accept");
    let read = async |from, limit| {
        let page = store.read_log(LogKind::Commands, Partition(0), Offset(from), limit).await;
        page.expect("read").iter().map(|entry| entry.offset().0).collect::<Vec<_>>()
    };
    assert_eq!(read(1, 3).await, [1, 2, 3]);
    assert_eq!(read(9, 5).await, [9, 10]);
    assert!(read(11, 5).await.is_empty());
    let log = look::log(store, LogKind::Commands).await.concat();
    for (entry, command) in log.iter().zip(&batch) {
        let adjutant::store::Entry::Command(entry) = entry else { panic!("a command") };
        assert_eq!((entry.command.id, &entry.command.stream), (command.id, &command.stream));
        assert_eq!(entry.command.payload.to_value(), command.payload.to_value());
        assert_eq!(entry.command.metadata, command.metadata);
    }
}

pub async fn a_page_of_a_log_is_bounded_by_bytes(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let text = "x".repeat(1_500_000);
    for version in 1..=4 {
        let mut commit = appended(store, "a", version);
        commit.events[0].data = RawJson::encode(&text).expect("json");
        store.commit_commands(commit).await.expect("commit");
    }
    let read = async |from| {
        let page = store.read_log(LogKind::Events, Partition(0), Offset(from), 100).await;
        page.expect("read").iter().map(|entry| entry.offset().0).collect::<Vec<_>>()
    };
    assert_eq!(read(1).await, [1, 2, 3]);
    assert_eq!(read(4).await, [4]);
    assert_eq!(look::gapless(store, LogKind::Events).await, 4);
}

pub async fn the_events_of_a_stream_are_listed_after_a_version(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    for version in 1..=5 {
        store.commit_commands(appended(store, "a", version)).await.expect("commit");
        store.commit_commands(appended(store, "b", version)).await.expect("commit");
    }
    let list = async |after, limit| {
        let events = store.stream_events(&stream("a"), Version(after), limit).await;
        events.expect("events").iter().map(|event| event.version.0).collect::<Vec<_>>()
    };
    assert_eq!(list(0, 100).await, [1, 2, 3, 4, 5]);
    assert_eq!(list(2, 2).await, [3, 4]);
    assert!(list(5, 100).await.is_empty());
    let events = store.stream_events(&stream("a"), Version(4), 1).await.expect("events");
    assert_eq!(events[0].event_type, "counter.added");
    assert_eq!(events[0].data.to_value(), serde_json::json!({ "amount": 1, "total": 5 }));
    assert!(store.stream_events(&stream("c"), Version(0), 9).await.expect("events").is_empty());
}

pub async fn foreign_messages_are_counted(open: Open) {
    let truth = open(8).await;
    let foreign = |log_id| ForeignMessage {
        group: GroupName::commands(),
        partition: Partition(0),
        log_id,
        reason: "another log".into(),
        count: 2,
    };
    let messages = [foreign(Some(LogId::generate())), foreign(None), foreign(None)];
    truth.store.record_foreign(&messages).await.expect("record");
    truth.store.record_foreign(&messages).await.expect("again");
    truth.store.record_foreign(&[]).await.expect("nothing");
    let ids: BTreeSet<_> = [&truth.store, &truth.other].map(|store| store.identity().log_id).into();
    assert_eq!(ids.len(), 1, "one truth has one log id");
}
