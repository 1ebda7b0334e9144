//! Facts about the service, conditions, and messages to webhooks.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{PostgresStore, columns::Jsonb, errors, members, pool};
use crate::{
    message::{GroupName, RawJson},
    store::{
        ClaimedNotification, ConditionChange, ConditionReport, ConditionState, DeadLetterCount,
        GroupLag, LogKind, Member, Notices, NotificationEnd, StoreError,
    },
};

/// Served by dead_letters_open_by_cause.
const DEAD_LETTER_COUNTS: &str = "
    SELECT o.fingerprint, count(*), min(o.group_name), COALESCE(min(o.code), '')
      FROM (SELECT fingerprint, group_name, error->>'code' AS code FROM adjutant.dead_letters
             WHERE state = 1 LIMIT 10000) AS o
     GROUP BY o.fingerprint ORDER BY count(*) DESC, o.fingerprint LIMIT $1";

macro_rules! lag_of {
    ($log:literal) => {
        concat!(
            "SELECT COALESCE(sum(h.head - h.reached), 0)::bigint,
                    COALESCE(max(EXTRACT(EPOCH FROM clock_timestamp() - n.recorded_at) * 1000), 0)::bigint
               FROM generate_series(0, $2::integer - 1) AS p
              CROSS JOIN LATERAL (
                    SELECT COALESCE((SELECT l.\"offset\" FROM ",
            $log,
            " l WHERE l.partition = p ORDER BY l.\"offset\" DESC LIMIT 1), 0) AS head,
                           COALESCE((SELECT c.reached FROM adjutant.checkpoints c
                                      WHERE c.group_name = $1 AND c.partition = p
                                      ORDER BY c.previous DESC LIMIT 1), 0) AS reached OFFSET 0) AS h
               LEFT JOIN LATERAL (
                    SELECT l.recorded_at FROM ",
            $log,
            " l WHERE l.partition = p AND l.\"offset\" > h.reached
                     ORDER BY l.\"offset\" LIMIT 1) AS n ON true
              WHERE h.head > h.reached"
        )
    };
}

/// Served by command_log_pkey and checkpoints_pkey.
const COMMANDS_LAG: &str = lag_of!("adjutant.command_log");
/// Served by events_pkey and checkpoints_pkey.
const EVENTS_LAG: &str = lag_of!("adjutant.events");

/// The table holds a row a process: no index needed.
const LOST: &str = "
    SELECT id, name, release, roles, groups, draining, started_at, heartbeat_at, stats
      FROM adjutant.members
     WHERE NOT draining
       AND heartbeat_at < clock_timestamp() - $1::bigint * interval '1 millisecond'
       AND heartbeat_at > clock_timestamp() - $2::bigint * interval '1 millisecond'
     ORDER BY heartbeat_at DESC, id LIMIT $3";

const REPORT: &str = "
    SELECT o_condition, o_subject, o_state, o_summary, o_detail::text, o_since, o_reminder
      FROM adjutant.report_conditions($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// The table holds a row a condition and subject: no index needed.
const FIRING: &str = "
    SELECT condition, count(*) FROM adjutant.conditions WHERE state = 1
     GROUP BY condition ORDER BY condition";

const CLAIM: &str = "
    SELECT o_id, o_condition, o_alerts::text, o_alert_count, o_attempts, o_first_tried_at, o_now
      FROM adjutant.claim_notification($1, $2, $3)";

/// Served by notifications_pkey.
const END: &str = "
    UPDATE adjutant.notifications
       SET state = $3::smallint, error = $4, leased_until = NULL,
           due_at = clock_timestamp() + $5::bigint * interval '1 millisecond',
           ended_at = CASE WHEN $3::smallint = 2 THEN NULL ELSE clock_timestamp() END
     WHERE id = $1 AND attempts = $2 AND state = 2";

#[async_trait]
impl Notices for PostgresStore {
    async fn dead_letter_counts(&self, limit: i64) -> Result<Vec<DeadLetterCount>, StoreError> {
        let client = self.hot().await?;
        let counts = pool::prepare(&client, DEAD_LETTER_COUNTS).await?;
        let rows = client.query(&counts, &[&limit]).await.map_err(errors::before_commit)?;
        let count = |row: &Row| DeadLetterCount {
            fingerprint: row.get(0),
            count: row.get(1),
            group: row.get(2),
            code: row.get(3),
        };
        Ok(rows.iter().map(count).collect())
    }

    async fn group_lag(&self, group: &GroupName, log: LogKind) -> Result<GroupLag, StoreError> {
        let sql = match log {
            LogKind::Commands => COMMANDS_LAG,
            LogKind::Events => EVENTS_LAG,
        };
        let client = self.hot().await?;
        let lag = pool::prepare(&client, sql).await?;
        let count = i32::from(self.partitions().get());
        let row = client.query_one(&lag, &[&group.as_str(), &count]).await;
        let row = row.map_err(errors::before_commit)?;
        let oldest = Duration::from_millis(row.get::<_, i64>(1).max(0).unsigned_abs());
        Ok(GroupLag { entries: row.get(0), oldest })
    }

    async fn lost_members(
        &self,
        silent: Duration,
        until: Duration,
        limit: i64,
    ) -> Result<Vec<Member>, StoreError> {
        let client = self.hot().await?;
        let lost = pool::prepare(&client, LOST).await?;
        let rows = client.query(&lost, &[&millis(silent), &millis(until), &limit]).await;
        Ok(rows.map_err(errors::before_commit)?.iter().map(members::member).collect())
    }

    async fn report_conditions(
        &self,
        report: &ConditionReport,
    ) -> Result<Vec<ConditionChange>, StoreError> {
        let client = self.hot().await?;
        let statement = pool::prepare(&client, REPORT).await?;
        let seen = &report.seen;
        let rows = client
            .query(
                &statement,
                &[
                    &seen.iter().map(|s| s.condition.as_str()).collect::<Vec<_>>(),
                    &seen.iter().map(|s| s.subject.as_str()).collect::<Vec<_>>(),
                    &seen.iter().map(|s| s.summary.as_str()).collect::<Vec<_>>(),
                    &seen.iter().map(|s| Jsonb(s.detail.as_str())).collect::<Vec<_>>(),
                    &report.looked_at,
                    &millis(report.resolve_after),
                    &report.remind_after.map_or(0, millis),
                    &report.webhooks,
                    &millis(report.gather),
                    &millis(report.apart),
                    &report.most_alerts,
                ],
            )
            .await
            .map_err(errors::after_commit)?;
        rows.iter().map(change).collect()
    }

    async fn firing_conditions(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let client = self.hot().await?;
        let firing = pool::prepare(&client, FIRING).await?;
        let rows = client.query(&firing, &[]).await.map_err(errors::before_commit)?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn claim_notification(
        &self,
        webhook: &str,
        per_minute: i32,
        lease: Duration,
    ) -> Result<Option<ClaimedNotification>, StoreError> {
        let client = self.hot().await?;
        let claim = pool::prepare(&client, CLAIM).await?;
        let row = client.query_opt(&claim, &[&webhook, &per_minute, &millis(lease)]).await;
        Ok(row.map_err(errors::after_commit)?.map(|row| ClaimedNotification {
            id: row.get(0),
            condition: row.get(1),
            alerts: RawJson::from_trusted(row.get(2)),
            alert_count: row.get(3),
            attempts: row.get(4),
            first_tried_at: row.get(5),
            now: row.get(6),
        }))
    }

    async fn end_notification(
        &self,
        id: Uuid,
        attempt: i32,
        end: NotificationEnd,
    ) -> Result<bool, StoreError> {
        let (state, after, error) = match end {
            NotificationEnd::Again(after, error) => (2_i16, millis(after), Some(error)),
            NotificationEnd::Sent => (3, 0, None),
            NotificationEnd::GivenUp(error) => (4, 0, Some(error)),
        };
        let client = self.hot().await?;
        let statement = pool::prepare(&client, END).await?;
        let ended = client.execute(&statement, &[&id, &attempt, &state, &error, &after]).await;
        Ok(ended.map_err(errors::after_commit)? == 1)
    }
}

fn change(row: &Row) -> Result<ConditionChange, StoreError> {
    Ok(ConditionChange {
        condition: row.get(0),
        subject: row.get(1),
        state: match row.get::<_, i16>(2) {
            1 => ConditionState::Firing,
            2 => ConditionState::Resolved,
            other => return Err(StoreError::Corrupt(format!("conditions.state {other}"))),
        },
        summary: row.get(3),
        detail: RawJson::from_trusted(row.get(4)),
        since: row.get(5),
        reminder: row.get(6),
    })
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
