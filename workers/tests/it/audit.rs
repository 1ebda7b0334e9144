//! `bank verify` finds every kind of damage, and says which kind it is.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use adjutant::store::{
    Store,
    postgres::{PostgresSettings, PostgresStore},
    sqlite::{SqliteSettings, SqliteStore},
};
use bank::{
    database::Source,
    load::{WaitFor, Watch, Watermarks, batch_sizes, clock},
    verify::{Report, verify},
};

use crate::{history::History, support::any_store::AnyStore};

const OUTCOMES: &str = "every_command_one_outcome";
const VIEWS: &str = "views_equal_fold";
const HOLES: &str = "no_holes";
const REJECTED: &str = "rejected_changed_nothing";

/// Drops a constraint, so that what it forbids can be written.
const NO_OUTCOMES_KEY: &str = "ALTER TABLE adjutant.outcomes DROP CONSTRAINT outcomes_pkey;";
const NO_EVENTS_KEY: &str = "ALTER TABLE adjutant.events DROP CONSTRAINT events_pkey;";

/// Columns in the order in which the statements below give values.
const EVENT: &str = "(partition, \"offset\", stream, version, type, schema_version, data, metadata,
    command_id, recorded_at)";
const OUTCOME: &str = "(partition, command_id, status, first_offset, events, version, reply, error,
    attempts, completed_at)";
const VIEW: &str = "(view, key, partition, version, value, as_of, updated_at)";

/// An event of the rejected command number `$nth`, in partition, at offset, with version.
fn event_of_rejected(partition: &str, offset: &str, version: &str) -> String {
    format!(
        "INSERT INTO adjutant.events {EVENT}
         SELECT {partition}, {offset}, c.stream, {version}, 'account.deposited', 1,
                '{{\"amount\": 1, \"balance\": 1}}', NULL, c.id, clock_timestamp()
           FROM adjutant.commands c JOIN adjutant.outcomes o ON o.command_id = c.id
          WHERE o.status = 2 ORDER BY c.id LIMIT 1"
    )
}

const NEXT_OFFSET: &str =
    "(SELECT max(\"offset\") + 1 FROM adjutant.events e WHERE e.partition = c.partition)";
const NEXT_VERSION: &str =
    "(SELECT max(version) + 1 FROM adjutant.events e WHERE e.stream = c.stream)";

fn delete_event(which: &str) -> String {
    format!(
        "DELETE FROM adjutant.events WHERE (partition, \"offset\") =
         (SELECT partition, \"offset\" FROM adjutant.events WHERE {which} LIMIT 1)"
    )
}

/// Each damage, and the one check that must fail.
fn damages() -> Vec<(&'static str, String)> {
    let head = "\"offset\" = (SELECT max(\"offset\") FROM adjutant.events x WHERE x.partition = events.partition)";
    let one = "command_id = (SELECT command_id FROM adjutant.outcomes WHERE status = 1 ORDER BY 1 LIMIT 1)";
    let double = |partition: &str| {
        format!(
            "INSERT INTO adjutant.outcomes {OUTCOME} SELECT {partition}, command_id, status, first_offset,
             events, version, reply, error, attempts, completed_at FROM adjutant.outcomes"
        )
    };
    vec![
        (HOLES, delete_event("stream = 'account/acc-4' AND version = 1")),
        (HOLES, delete_event("stream = 'account/acc-4' AND version = 3")),
        (HOLES, delete_event("stream = 'account/z' AND version = 5")),
        (HOLES, delete_event(head)),
        (HOLES, delete_event(&format!("{head} AND version = 5"))),
        (HOLES, "DELETE FROM adjutant.events WHERE stream = 'account/a'".into()),
        (HOLES, "DELETE FROM adjutant.events".into()),
        (HOLES, "DELETE FROM adjutant.command_log WHERE \"offset\" = 1".into()),
        (HOLES, "DELETE FROM adjutant.command_log AS l WHERE \"offset\" = (SELECT max(\"offset\") FROM adjutant.command_log x WHERE x.partition = l.partition)".into()),
        (HOLES, "UPDATE adjutant.checkpoints SET reached = reached + 1 WHERE group_name = 'projection.balances' AND partition = (SELECT min(partition) FROM adjutant.checkpoints)".into()),
        (HOLES, "UPDATE adjutant.checkpoints SET reached = reached + 1 WHERE group_name = 'commands' AND partition = (SELECT min(partition) FROM adjutant.checkpoints)".into()),
        (HOLES, format!("{NO_EVENTS_KEY} ALTER TABLE adjutant.events DROP CONSTRAINT events_partition_stream_version_key; INSERT INTO adjutant.events SELECT * FROM adjutant.events WHERE stream = 'account/a' AND version = 5")),
        (OUTCOMES, double("((partition + 1) % 8)") + " WHERE " + one),
        (OUTCOMES, double("((partition + 3) % 8)") + " WHERE status = 2 LIMIT 1"),
        (OUTCOMES, double("100") + " WHERE " + one),
        (OUTCOMES, format!("{NO_OUTCOMES_KEY} {} WHERE {one}", double("partition"))),
        (OUTCOMES, format!("{NO_OUTCOMES_KEY} {} WHERE status = 2 LIMIT 1", double("partition"))),
        (OUTCOMES, format!("DELETE FROM adjutant.outcomes WHERE {one}")),
        (OUTCOMES, "DELETE FROM adjutant.outcomes WHERE status = 2".into()),
        (OUTCOMES, format!("DELETE FROM adjutant.commands WHERE id = (SELECT command_id FROM adjutant.outcomes WHERE {one})")),
        (OUTCOMES, format!("UPDATE adjutant.outcomes SET version = version + 1 WHERE {one}")),
        (OUTCOMES, format!("UPDATE adjutant.outcomes SET first_offset = NULL WHERE {one}")),
        (OUTCOMES, format!("UPDATE adjutant.outcomes SET events = 0, first_offset = NULL WHERE {one}")),
        (OUTCOMES, "UPDATE adjutant.outcomes SET events = 2 WHERE first_offset = 1 AND partition = 5".into()),
        (OUTCOMES, format!("INSERT INTO adjutant.outcomes {OUTCOME} VALUES (0, gen_random_uuid(), 2, NULL, 0, 0, NULL, NULL, 1, clock_timestamp())")),
        (OUTCOMES, "UPDATE adjutant.command_log SET command_id = gen_random_uuid() WHERE \"offset\" = 1 AND partition = 5".into()),
        (OUTCOMES, format!("INSERT INTO adjutant.events {EVENT} SELECT 5, max(\"offset\") + 1, 'account/acc-42', max(version) + 1, 'account.closed', 1, '{{}}', NULL, gen_random_uuid(), clock_timestamp() FROM adjutant.events WHERE partition = 5")),
        (VIEWS, "UPDATE adjutant.views SET value = jsonb_set(value, '{balance}', '1') WHERE view = 'balances' AND key = 'acc-4-1'".into()),
        (VIEWS, "UPDATE adjutant.views SET value = jsonb_set(value, '{owner}', '\"Eve\"') WHERE view = 'balances' AND key = 'Z'".into()),
        (VIEWS, "UPDATE adjutant.views SET version = version + 1 WHERE view = 'balances' AND key = 'a'".into()),
        (VIEWS, "UPDATE adjutant.views SET as_of = '{\"5\": 1}' WHERE view = 'balances' AND key = 'acc-42'".into()),
        (VIEWS, "UPDATE adjutant.views SET partition = NULL WHERE view = 'balances' AND key = 'acc-42'".into()),
        (VIEWS, "UPDATE adjutant.views SET value = NULL WHERE view = 'balances' AND key = 'z'".into()),
        (VIEWS, "UPDATE adjutant.views SET key = 'zz' WHERE view = 'balances' AND key = 'z'".into()),
        (VIEWS, "DELETE FROM adjutant.views WHERE view = 'balances' AND key = 'a'".into()),
        (VIEWS, "UPDATE adjutant.views SET value = jsonb_set(value, '{amount}', '1') WHERE view = 'statements' AND key = 'acc-4/00000003'".into()),
        (VIEWS, "UPDATE adjutant.views SET value = jsonb_set(value, '{at}', '\"2020-01-01T00:00:00Z\"') WHERE view = 'statements' AND key = 'z/00000002'".into()),
        (VIEWS, "DELETE FROM adjutant.views WHERE view = 'statements' AND key = 'Z/00000005'".into()),
        (VIEWS, format!("INSERT INTO adjutant.views {VIEW} SELECT view, 'acc-4/00000006', partition, version, value, as_of, updated_at FROM adjutant.views WHERE key = 'acc-4/00000005'")),
        (VIEWS, format!("INSERT INTO adjutant.views {VIEW} SELECT view, 'nobody', partition, version, value, as_of, updated_at FROM adjutant.views WHERE key = 'z'")),
        (VIEWS, "UPDATE adjutant.events SET data = '{\"amount\": 99, \"balance\": 100}' WHERE stream = 'account/z' AND version = 2".into()),
        (REJECTED, event_of_rejected("c.partition", NEXT_OFFSET, NEXT_VERSION)),
        (REJECTED, event_of_rejected("c.partition", NEXT_OFFSET, "77")),
        (REJECTED, event_of_rejected("c.partition", "1000000", NEXT_VERSION)),
        (REJECTED, event_of_rejected("c.partition", "1000000", "1000000")),
        (REJECTED, event_of_rejected("((c.partition + 1) % 8)", "1000000", "1")),
        (REJECTED, event_of_rejected("c.partition", "0", NEXT_VERSION)),
        (REJECTED, event_of_rejected("c.partition", NEXT_OFFSET, "1").replace("status = 2", "status = 2 AND c.stream = 'account/nobody'").replace("(SELECT max", "(SELECT COALESCE(max").replace("+ 1 FROM", ", 0) + 1 FROM")),
        (REJECTED, "UPDATE adjutant.outcomes SET events = 1 WHERE status = 2".into()),
        (REJECTED, format!("UPDATE adjutant.outcomes SET status = 2 WHERE {one}")),
        (REJECTED, format!("UPDATE adjutant.outcomes SET status = 4 WHERE {one}")),
        (OUTCOMES, "UPDATE adjutant.outcomes SET status = 3 WHERE status = 2".into()),
    ]
}

fn failed(report: &Report) -> Vec<&'static str> {
    report.checks.iter().filter(|check| !check.passed()).map(|check| check.name).collect()
}

#[tokio::test]
async fn each_damage_fails_exactly_its_own_check() {
    damaged(&AnyStore::postgres().await).await;
}

#[tokio::test]
async fn each_damage_of_a_file_fails_exactly_its_own_check() {
    damaged(&AnyStore::file()).await;
}

async fn damaged(original: &AnyStore) {
    History::write(original).await;
    let untouched = verify(&original.source(), None).await.unwrap();
    assert!(untouched.passed(), "{}", untouched.to_text());
    assert_eq!((untouched.counts.commands, untouched.counts.events), (37, 30));

    let mut wrong = String::new();
    for (check, sql) in damages() {
        let store = original.copy().await;
        assert!(store.run(&sql).await > 0, "changes nothing: {sql}");
        let report = verify(&store.source(), None).await.unwrap();
        if failed(&report) != [check] {
            writeln!(wrong, "\n{sql}\nshould fail {check} alone:\n{}", report.to_text()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Before migration 2 dead commands had neither letters nor attempts. Broken by forgiving whatever has
/// no letter.
#[tokio::test]
async fn what_died_before_there_were_dead_letters_needs_none() {
    let store = AnyStore::postgres().await;
    History::write(&store).await;
    assert!(store.run("UPDATE adjutant.outcomes SET status = 3 WHERE status = 2").await > 0);
    let now = "UPDATE adjutant._sqlx_migrations SET installed_on = clock_timestamp()
                WHERE version = 2";
    assert_eq!(store.run(now).await, 1);
    let report = verify(&store.source(), None).await.unwrap();
    assert!(report.passed(), "{}", report.to_text());
    // Who died after it, or has a failed attempt on record, had a letter.
    let later = "UPDATE adjutant.outcomes SET completed_at = clock_timestamp() WHERE command_id =
                 (SELECT command_id FROM adjutant.outcomes WHERE status = 3 ORDER BY 1 LIMIT 1)";
    let attempt = "INSERT INTO adjutant.attempts (partition, command_id, attempt, error, failed_at)
                   SELECT partition, command_id, 1, '{}', completed_at FROM adjutant.outcomes
                    WHERE status = 3 ORDER BY 2 LIMIT 1";
    for sql in [later, attempt] {
        let store = store.copy().await;
        assert_eq!(store.run(sql).await, 1);
        let report = verify(&store.source(), None).await.unwrap();
        assert_eq!(failed(&report), [OUTCOMES], "{sql}\n{}", report.to_text());
        let check = report.checks.iter().find(|check| check.name == OUTCOMES);
        assert_eq!(check.map(|check| check.found), Some(1), "{}", report.to_text());
    }
}

/// A stream of each view is parked, and one event of another is discarded.
fn parking() -> Vec<String> {
    let park = |view: &str, stream: &str, version: i64| {
        format!(
            "INSERT INTO adjutant.parked_keys (group_name, generation, scope, key, partition,
                    failed_offset, cursor, cursor_version, state, dead_letter_id, attempts, parked_at)
             SELECT 'projection.{view}', 1, 1, stream, partition, \"offset\", \"offset\" - 1,
                    version - 1, 1, gen_random_uuid(), 3, clock_timestamp()
               FROM adjutant.events WHERE stream = '{stream}' AND version = {version}"
        )
    };
    let letter = "(partition, id, kind, group_name, generation, key, type, command_id, \"offset\",
                   error, fingerprint, attempts, died_at, state, state_at)";
    vec![
        park("statements", "account/z", 4),
        "DELETE FROM adjutant.views WHERE key IN ('z/00000004', 'z/00000005')".into(),
        park("balances", "account/acc-4", 1),
        "DELETE FROM adjutant.views WHERE view = 'balances' AND key = 'acc-4'".into(),
        format!(
            "INSERT INTO adjutant.dead_letters {letter}
             SELECT partition, dead_letter_id, 2, group_name, 1, key, 'account.deposited',
                    gen_random_uuid(), failed_offset, '{{}}', 'f', 3, clock_timestamp(), 1,
                    clock_timestamp() FROM adjutant.parked_keys"
        ),
        format!(
            "INSERT INTO adjutant.dead_letters {letter}
             SELECT partition, gen_random_uuid(), 2, 'projection.statements', 1, stream, type,
                    command_id, \"offset\", '{{}}', 'f', 3, clock_timestamp(), 4, clock_timestamp()
               FROM adjutant.events WHERE stream = 'account/a' AND version = 2"
        ),
        "DELETE FROM adjutant.views WHERE key = 'a/00000002'".into(),
    ]
}

/// The view of a parked key is the fold up to its cursor, and what is parked is accounted for.
#[tokio::test]
async fn a_parked_key_is_judged_by_its_cursor() {
    for original in [AnyStore::postgres().await, AnyStore::file()] {
        History::write(&original).await;
        for sql in parking() {
            assert!(original.run(&sql).await > 0, "changes nothing: {sql}");
        }
        let report = verify(&original.source(), None).await.unwrap();
        assert!(report.passed(), "{}", report.to_text());
        assert!(report.to_text().contains("1 keys are parked in projection.balances"));
        for sql in [
            "UPDATE adjutant.parked_keys SET cursor = cursor + 1000",
            "UPDATE adjutant.parked_keys SET state = 2",
            "DELETE FROM adjutant.parked_keys WHERE scope = 1",
            "DELETE FROM adjutant.dead_letters WHERE state = 1",
            "DELETE FROM adjutant.dead_letters WHERE state = 4",
            "UPDATE adjutant.dead_letters SET state = 3 WHERE state = 1",
            "INSERT INTO adjutant.parked_references (group_name, generation, key, partition, \"offset\")
             VALUES ('projection.balances', 1, 'acc-4', 5, 1)",
            "UPDATE adjutant.views SET key = 'z/00000004' WHERE key = 'z/00000003'",
        ] {
            let store = original.copy().await;
            assert!(store.run(sql).await > 0, "changes nothing: {sql}");
            let report = verify(&store.source(), None).await.unwrap();
            assert_eq!(failed(&report), [VIEWS], "{sql}:\n{}", report.to_text());
        }
    }
}

#[tokio::test]
async fn what_retention_removed_is_not_missed_and_holes_are_still_seen() {
    let store = AnyStore::postgres().await;
    retained(store).await;
    retained(AnyStore::file()).await;
}

async fn retained(original: AnyStore) {
    History::write(&original).await;
    let before = verify(&original.source(), None).await.unwrap().counts;
    keep_house(&original).await;
    let report = verify(&original.source(), None).await.unwrap();
    assert!(report.passed(), "{}", report.to_text());
    assert!(report.counts.commands < before.commands, "{}", report.to_text());
    assert!(report.counts.outcomes < before.outcomes, "{}", report.to_text());
    assert_eq!(report.counts.events, before.events, "events stay");

    let from_later = "UPDATE adjutant.retention SET command_log_from = command_log_from - 1
                       WHERE command_log_from > 1";
    let newest = "DELETE FROM adjutant.command_log AS l WHERE \"offset\" = (SELECT max(\"offset\")
                    FROM adjutant.command_log x WHERE x.partition = l.partition)";
    let stranger = format!(
        "INSERT INTO adjutant.events {EVENT} SELECT 5, max(\"offset\") + 1, 'account/acc-42', max(version) + 1,
         'account.closed', 1, '{{}}', NULL, gen_random_uuid(),
         (SELECT max(outcomes_before) FROM adjutant.retention) FROM adjutant.events WHERE partition = 5"
    );
    let damages = [(HOLES, from_later), (HOLES, newest), (OUTCOMES, stranger.as_str())];
    for (check, sql) in damages {
        let store = original.copy().await;
        assert!(store.run(sql).await > 0, "changes nothing: {sql}");
        let report = verify(&store.source(), None).await.unwrap();
        assert_eq!(failed(&report), [check], "{sql}\n{}", report.to_text());
    }
}

/// Removes all that has ended by now.
async fn keep_house(store: &AnyStore) {
    let store: Arc<dyn Store> = match store.source() {
        Source::Postgres(url) => {
            let settings = PostgresSettings::new(url.expose());
            Arc::new(PostgresStore::connect(settings).await.unwrap())
        }
        Source::Sqlite(path) => Arc::new(SqliteStore::open(SqliteSettings::new(path)).unwrap()),
    };
    let mut entries = 0;
    for partition in store.identity().partitions.all() {
        entries += store.remove_log_entries(partition, Duration::ZERO, 1_000).await.unwrap();
    }
    assert!(entries > 0);
    store.remove_ended_commands(Duration::ZERO, None, 1_000).await.unwrap();
}

#[tokio::test]
async fn a_command_that_was_answered_202_must_have_its_outcome() {
    for store in [AnyStore::postgres().await, AnyStore::file()] {
        let ids = History::write(&store).await;
        answered(&store.source(), &ids).await;
    }
}

#[tokio::test]
async fn a_command_whose_time_has_not_come_needs_no_outcome() {
    for store in [AnyStore::postgres().await, AnyStore::file()] {
        let id = History::schedule(&store).await;
        let path = std::env::temp_dir().join(format!("answers-{id}.ndjson"));
        std::fs::write(&path, format!("{{\"id\":\"{id}\",\"code\":202}}\n")).unwrap();
        let early = verify(&store.source(), Some(&path)).await.unwrap();
        assert!(early.passed(), "{}", early.to_text());
        assert_eq!(early.counts.scheduled, 1);

        store.run("UPDATE adjutant.schedule SET due_at = clock_timestamp()").await;
        let late = verify(&store.source(), Some(&path)).await.unwrap();
        assert_eq!(failed(&late), [OUTCOMES]);
        assert!(late.to_text().contains("was accepted and has no outcome"), "{}", late.to_text());
        assert!(late.to_text().contains("was answered 202 and has no outcome"));
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn a_load_sees_how_far_a_file_is() {
    let store = AnyStore::file();
    let before = clock(&store.source()).await.unwrap();
    History::write(&store).await;
    let mut watch = Watch::new(&store.source(), Duration::from_secs(10));
    let everything =
        Watermarks { commands: 37, executed: 37, events: 30, balances: 30, statements: 30 };
    assert_eq!(watch.look().await.unwrap(), everything);
    let reached = watch.until(WaitFor::Visible, || true, |_| {}).await.unwrap();
    assert!(reached.visible.is_some());

    // Each row has a time of its own here. What a view's transactions took is not in a file.
    let sizes = batch_sizes(&store.source(), before).await.unwrap();
    assert!(sizes.accepted.is_some_and(|size| size >= 1.0), "{sizes:?}");
    assert!(sizes.executed.is_some_and(|size| size >= 1.0), "{sizes:?}");
    assert!(sizes.projected.is_none());
    let later = before + Duration::from_hours(1);
    assert!(batch_sizes(&store.source(), later).await.unwrap().accepted.is_none());
}

async fn answered(source: &Source, ids: &[uuid::Uuid]) {
    let path = std::env::temp_dir().join(format!("answers-{}.ndjson", uuid::Uuid::now_v7()));
    let answered = |id: &uuid::Uuid, code: u16| format!("{{\"id\":\"{id}\",\"code\":{code}}}\n");
    let mut record: String = ids.iter().map(|id| answered(id, 202)).collect();
    record.push_str(&answered(&uuid::Uuid::now_v7(), 503));
    std::fs::write(&path, &record).unwrap();
    let honest = verify(source, Some(&path)).await.unwrap();
    assert!(honest.passed(), "{}", honest.to_text());

    record.push_str(&answered(&uuid::Uuid::now_v7(), 202));
    std::fs::write(&path, &record).unwrap();
    let lost = verify(source, Some(&path)).await.unwrap();
    assert_eq!(failed(&lost), [OUTCOMES]);
    assert!(lost.to_text().contains("was answered 202 and is not there"));

    std::fs::write(&path, "{}\n").unwrap();
    let unreadable = verify(source, Some(&path)).await.unwrap_err().to_string();
    assert!(unreadable.contains("line 1"), "{unreadable}");
    std::fs::remove_file(&path).unwrap();
}
