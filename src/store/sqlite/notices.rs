//! Facts about the service, conditions, and messages to webhooks. There is a single writer: what one
//! report reads and writes is seen by the next.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Row, params};
use serde_json::{Value, json};
use time::{format_description::FormatItem, macros::format_description};
use uuid::Uuid;

use super::{
    SqliteStore,
    clock::from_micros,
    members, storable,
    transaction::{Transaction, column, id, time},
};
use crate::{
    chance,
    message::{GroupName, Partition, RawJson, Timestamp},
    store::{
        ClaimedNotification, ConditionChange, ConditionReport, ConditionState, DeadLetterCount,
        GroupLag, LogKind, Member, Notices, NotificationEnd, SeenCondition, StoreError,
        stored::{json_text, parse},
    },
};

/// Always six digits, as the other store writes it.
const TIME: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Served by dead_letters_open_by_cause.
const DEAD_LETTER_COUNTS: &str = "
    SELECT fingerprint, count(*), min(group_name), COALESCE(min(code), '')
      FROM (SELECT fingerprint, group_name, error ->> 'code' AS code FROM dead_letters
             WHERE state = 1 LIMIT 10000)
     GROUP BY fingerprint ORDER BY count(*) DESC, fingerprint LIMIT ?1";

/// Head, checkpoint, and when the first entry behind it was recorded. Served by the primary keys.
macro_rules! lag_of {
    ($log:literal) => {
        concat!(
            "SELECT h.head - h.reached,
                    (SELECT recorded_at FROM ",
            $log,
            " WHERE partition = ?2 AND \"offset\" > h.reached ORDER BY \"offset\" LIMIT 1)
               FROM (SELECT COALESCE((SELECT max(\"offset\") FROM ",
            $log,
            " WHERE partition = ?2), 0) AS head,
                            COALESCE((SELECT reached FROM checkpoints
                                       WHERE group_name = ?1 AND partition = ?2), 0) AS reached) AS h
              WHERE h.head > h.reached"
        )
    };
}

const COMMANDS_LAG: &str = lag_of!("command_log");
const EVENTS_LAG: &str = lag_of!("events");

/// The table holds a row a process: no index needed.
const LOST: &str = "
    SELECT id, name, release, roles, groups, draining, started_at, heartbeat_at, stats
      FROM members WHERE NOT draining AND heartbeat_at < ?1 AND heartbeat_at > ?2
     ORDER BY heartbeat_at DESC, id LIMIT ?3";

/// Served by the primary key.
const BEFORE: &str = "
    SELECT since, changed_at, told_at FROM conditions
     WHERE condition = ?1 AND subject = ?2 AND state = 1";

const WRITE: &str = "
    INSERT INTO conditions (condition, subject, state, summary, detail, since, seen_at, changed_at,
                            told_at)
    VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT (condition, subject) DO UPDATE
       SET state = 1, summary = excluded.summary, detail = excluded.detail, since = excluded.since,
           seen_at = excluded.seen_at, changed_at = excluded.changed_at, told_at = excluded.told_at";

/// The table holds a row a condition and subject: no index needed.
const ENDED: &str = "
    UPDATE conditions SET state = 2, changed_at = ?1, told_at = ?1
     WHERE state = 1 AND condition IN (SELECT value FROM json_each(?2)) AND seen_at < ?3
    RETURNING condition, subject, summary, detail, since";

/// Served by notifications_gathering.
const GATHERING: &str = "
    SELECT id, alerts, alert_count FROM notifications
     WHERE webhook = ?1 AND condition = ?2 AND state = 1";

const ADD: &str = "UPDATE notifications SET alerts = ?2, alert_count = ?3 WHERE id = ?1";

/// Served by notifications_of_webhook.
const LAST_DUE: &str = "
    SELECT max(due_at) FROM notifications
     WHERE webhook = ?1 AND condition = ?2 AND state <> 1 AND created_at > ?3";

const NEW: &str = "
    INSERT INTO notifications (id, webhook, condition, state, alerts, alert_count, created_at, due_at)
    VALUES (?1, ?2, ?3, 1, ?4, 1, ?5, ?6)";

const FIRING: &str = "
    SELECT condition, count(*) FROM conditions WHERE state = 1
     GROUP BY condition ORDER BY condition";

/// Served by notifications_of_webhook.
const TRIED: &str = "SELECT count(*) FROM notifications WHERE webhook = ?1 AND last_tried_at > ?2";

/// Served by notifications_of_webhook.
const CLAIM: &str = "
    UPDATE notifications
       SET state = 2, attempts = attempts + 1, last_tried_at = ?2, leased_until = ?3,
           first_tried_at = COALESCE(first_tried_at, ?2)
     WHERE id = (SELECT id FROM notifications
                  WHERE webhook = ?1 AND state IN (1, 2) AND due_at <= ?2
                    AND (leased_until IS NULL OR leased_until <= ?2)
                  ORDER BY due_at, id LIMIT 1)
    RETURNING id, condition, alerts, alert_count, attempts, first_tried_at";

/// Served by the primary key.
const END: &str = "
    UPDATE notifications
       SET state = ?3, error = ?4, leased_until = NULL, due_at = ?5, ended_at = ?6
     WHERE id = ?1 AND attempts = ?2 AND state = 2";

const MINUTE: i64 = 60 * 1_000_000;
const DAY: i64 = 24 * 60 * MINUTE;

#[async_trait]
impl Notices for SqliteStore {
    async fn dead_letter_counts(&self, limit: i64) -> Result<Vec<DeadLetterCount>, StoreError> {
        let count = |row: &Row<'_>| {
            Ok(DeadLetterCount {
                fingerprint: column(row, 0)?,
                count: column(row, 1)?,
                group: column(row, 2)?,
                code: column(row, 3)?,
            })
        };
        self.engine.read(move |it| it.all(DEAD_LETTER_COUNTS, [limit], count)).await
    }

    async fn group_lag(&self, group: &GroupName, log: LogKind) -> Result<GroupLag, StoreError> {
        let sql = match log {
            LogKind::Commands => COMMANDS_LAG,
            LogKind::Events => EVENTS_LAG,
        };
        let group = group.clone();
        let work = move |transaction: &Transaction<'_>| {
            let mut lag = GroupLag::default();
            for Partition(partition) in transaction.partitions.all() {
                let behind = transaction.first(sql, params![group.as_str(), partition], |row| {
                    Ok((column::<i64>(row, 0)?, column::<Option<i64>>(row, 1)?))
                })?;
                let Some((entries, oldest)) = behind else { continue };
                let age = oldest.map_or(0, |oldest| transaction.now.saturating_sub(oldest));
                lag.entries += entries;
                lag.oldest = lag.oldest.max(Duration::from_micros(age.max(0).unsigned_abs()));
            }
            Ok(lag)
        };
        self.engine.read(work).await
    }

    async fn lost_members(
        &self,
        silent: Duration,
        until: Duration,
        limit: i64,
    ) -> Result<Vec<Member>, StoreError> {
        let work = move |transaction: &Transaction<'_>| {
            let ago = |age| transaction.now.saturating_sub(micros(age));
            transaction.all(LOST, [ago(silent), ago(until), limit], members::member)
        };
        self.engine.read(work).await
    }

    async fn report_conditions(
        &self,
        report: &ConditionReport,
    ) -> Result<Vec<ConditionChange>, StoreError> {
        let report = report.clone();
        self.engine.write(move |transaction| write_report(transaction, &report)).await
    }

    async fn firing_conditions(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let work = |transaction: &Transaction<'_>| {
            transaction.all(FIRING, (), |row| Ok((column(row, 0)?, column(row, 1)?)))
        };
        self.engine.read(work).await
    }

    async fn claim_notification(
        &self,
        webhook: &str,
        per_minute: i32,
        lease: Duration,
    ) -> Result<Option<ClaimedNotification>, StoreError> {
        let webhook = webhook.to_owned();
        let work = move |transaction: &Transaction<'_>| {
            let now = transaction.now;
            let tried = transaction.number(TRIED, params![webhook, now.saturating_sub(MINUTE)])?;
            if tried >= i64::from(per_minute) {
                return Ok(None);
            }
            let lease = now.saturating_add(micros(lease));
            transaction.first(CLAIM, params![webhook, now, lease], |row| {
                Ok(ClaimedNotification {
                    id: id(row, 0)?,
                    condition: column(row, 1)?,
                    alerts: RawJson::from_trusted(column(row, 2)?),
                    alert_count: column(row, 3)?,
                    attempts: column(row, 4)?,
                    first_tried_at: time(row, 5)?,
                    now: from_micros(now)?,
                })
            })
        };
        self.engine.write(work).await
    }

    async fn end_notification(
        &self,
        id: Uuid,
        attempt: i32,
        end: NotificationEnd,
    ) -> Result<bool, StoreError> {
        let work = move |transaction: &Transaction<'_>| {
            let now = transaction.now;
            let (state, due, ended, error) = match &end {
                NotificationEnd::Again(after, error) => {
                    (2, now.saturating_add(micros(*after)), None, Some(error))
                }
                NotificationEnd::Sent => (3, now, Some(now), None),
                NotificationEnd::GivenUp(error) => (4, now, Some(now), Some(error)),
            };
            let error = storable::maybe_text(error.map(String::as_str))?;
            let changed = transaction
                .execute(END, params![id.as_bytes(), attempt, state, error, due, ended])?;
            Ok(changed == 1)
        };
        self.engine.write(work).await
    }
}

fn write_report(
    transaction: &Transaction<'_>,
    report: &ConditionReport,
) -> Result<Vec<ConditionChange>, StoreError> {
    let mut changes = Vec::new();
    for seen in &report.seen {
        changes.extend(write_seen(transaction, seen, report.remind_after)?);
    }
    let looked_at = json_text(&report.looked_at)?;
    let silent_since = transaction.now.saturating_sub(micros(report.resolve_after));
    let ended =
        transaction.all(ENDED, params![transaction.now, looked_at, silent_since], |row| {
            Ok(ConditionChange {
                condition: column(row, 0)?,
                subject: column(row, 1)?,
                state: ConditionState::Resolved,
                summary: column(row, 2)?,
                detail: RawJson::from_trusted(column(row, 3)?),
                since: time(row, 4)?,
                reminder: false,
            })
        })?;
    changes.extend(ended);
    for change in &changes {
        for webhook in &report.webhooks {
            tell(transaction, webhook, change, report)?;
        }
    }
    Ok(changes)
}

/// The change, if it is one.
fn write_seen(
    transaction: &Transaction<'_>,
    seen: &SeenCondition,
    remind_after: Option<Duration>,
) -> Result<Option<ConditionChange>, StoreError> {
    let now = transaction.now;
    let (condition, subject) = (storable::text(&seen.condition)?, storable::text(&seen.subject)?);
    let before: Option<[i64; 3]> = transaction.first(BEFORE, [condition, subject], |row| {
        Ok([column(row, 0)?, column(row, 1)?, column(row, 2)?])
    })?;
    let [since, changed_at, told_at] = before.unwrap_or([now; 3]);
    let remind =
        remind_after.is_some_and(|after| told_at <= now.saturating_sub(micros(after).max(1)));
    let is_change = before.is_none() || remind;
    let told_at = if is_change { now } else { told_at };
    transaction.execute(
        WRITE,
        params![
            condition,
            subject,
            storable::text(&seen.summary)?,
            storable::json(seen.detail.as_str())?,
            since,
            now,
            changed_at,
            told_at,
        ],
    )?;
    if !is_change {
        return Ok(None);
    }
    Ok(Some(ConditionChange {
        condition: seen.condition.clone(),
        subject: seen.subject.clone(),
        state: ConditionState::Firing,
        summary: seen.summary.clone(),
        detail: seen.detail.clone(),
        since: from_micros(since)?,
        reminder: before.is_some(),
    }))
}

/// Adds a change to the message that gathers, or begins one.
fn tell(
    transaction: &Transaction<'_>,
    webhook: &str,
    change: &ConditionChange,
    report: &ConditionReport,
) -> Result<(), StoreError> {
    let now = transaction.now;
    let alert = alert(change, transaction.time()?)?;
    let gathering = transaction.first(GATHERING, [webhook, &change.condition], |row| {
        Ok((id(row, 0)?, column::<String>(row, 1)?, column::<i32>(row, 2)?))
    })?;
    if let Some((id, alerts, count)) = gathering {
        let mut alerts: Vec<Value> = parse(&alerts)?;
        if count < report.most_alerts {
            alerts.push(alert);
        }
        transaction.execute(ADD, params![id.as_bytes(), json_text(&alerts)?, count + 1])?;
        return Ok(());
    }
    let recently = now.saturating_sub(DAY);
    let asked = params![webhook, change.condition, recently];
    let last: Option<i64> = transaction.first(LAST_DUE, asked, |row| column(row, 0))?.flatten();
    let apart = last.map_or(0, |last| last.saturating_add(micros(report.apart)));
    let due = now.saturating_add(micros(report.gather)).max(apart);
    let id = chance::random_id();
    let alerts = json_text(&[alert])?;
    let new = params![id.as_bytes(), webhook, change.condition, alerts, now, due];
    transaction.execute(NEW, new)?;
    Ok(())
}

fn alert(change: &ConditionChange, now: Timestamp) -> Result<Value, StoreError> {
    let text = |time: Timestamp| {
        time.format(TIME).map_err(|error| StoreError::Internal(error.to_string()))
    };
    let detail: Value = parse(change.detail.as_str())?;
    Ok(json!({
        "condition": change.condition,
        "subject": change.subject,
        "state": change.state.as_str(),
        "summary": change.summary,
        "detail": detail,
        "reminder": change.reminder,
        "since": text(change.since)?,
        "at": text(now)?,
    }))
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
