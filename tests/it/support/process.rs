//! Processes within the test's own, on real services.

use std::{sync::Arc, time::Duration};

use adjutant::{
    broker::Broker,
    execute::{PerType, RetrySchedule},
    message::{CommandId, GroupName, PartitionCount},
    service::{Process, ProcessParts, ProcessSettings, groups_of},
    store::{Role, postgres::PostgresStore},
};

use super::{database::Database, domain, eventually, rabbit::Road};

/// A database and a prefix of a test's own.
pub struct Site {
    pub database: Database,
    pub road: Road,
    pub store: Arc<PostgresStore>,
}

impl Site {
    pub async fn new() -> Self {
        let database = Database::with_partitions(4).await;
        let store = database.store().await;
        let mut road = Road::new();
        road.groups = groups_of(&domain::service());
        road.partitions = PartitionCount::new(4).expect("count");
        Self { database, road, store }
    }

    /// A process with these roles and everything of its own: connections, caches, membership.
    pub async fn start(&self, roles: &[Role]) -> Process {
        self.start_with(roles, Arc::new(self.road.broker())).await
    }

    pub async fn start_with(&self, roles: &[Role], broker: Arc<dyn Broker>) -> Process {
        Process::start(self.parts(roles, broker).await).await.expect("start")
    }

    /// A process in which a handler may take as long as the test has it take.
    pub async fn start_patient(&self, roles: &[Role]) -> Process {
        let mut parts = self.parts(roles, Arc::new(self.road.broker())).await;
        parts.settings.executor.time_limit = PerType::all(Duration::from_mins(5));
        Process::start(parts).await.expect("start")
    }

    /// What a process starts with, for tests that change something of it.
    pub async fn parts(&self, roles: &[Role], broker: Arc<dyn Broker>) -> ProcessParts {
        ProcessParts {
            service: domain::service(),
            store: self.database.store().await,
            broker,
            roles: roles.to_vec(),
            name: "test".into(),
            settings: settings(),
        }
    }

    /// Waits until each of these commands has an outcome.
    pub async fn until_ended(&self, ids: &[CommandId]) {
        let pool = self.database.pool().await;
        let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.0).collect();
        eventually("every command has an outcome", async || {
            let ended: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM adjutant.outcomes WHERE command_id = ANY($1)",
            )
            .bind(&ids)
            .fetch_one(&pool)
            .await
            .ok()?;
            (ended == ids.len() as i64).then_some(())
        })
        .await;
    }

    /// Waits until every projection has applied the whole log.
    pub async fn until_applied(&self) {
        for projection in ["counters", "totals"] {
            let group = GroupName::projection(projection);
            eventually("every event is applied", async || {
                use adjutant::store::Logs;
                let heads = self.store.heads().await.ok()?;
                let checkpoints = self.store.checkpoints(&group).await.ok()?;
                (heads.events == checkpoints).then_some(())
            })
            .await;
        }
    }

    /// What must hold whatever happened: laws 3 and 4, and every view equals the fold.
    pub async fn assert_lawful(&self) {
        let pool = self.database.pool().await;
        let problems: Vec<(String, i64)> = sqlx::query_as(
            "SELECT 'command without outcome', count(*) FROM adjutant.commands c
              WHERE NOT EXISTS (SELECT 1 FROM adjutant.outcomes o WHERE o.command_id = c.id)
             UNION ALL
             SELECT 'outcomes of one command', count(*) FROM (SELECT command_id FROM adjutant.outcomes
              GROUP BY 1 HAVING count(*) > 1) AS d
             UNION ALL
             SELECT 'events without a succeeded command', count(*) FROM adjutant.events e
              WHERE NOT EXISTS (SELECT 1 FROM adjutant.outcomes o
                    WHERE o.command_id = e.command_id AND o.partition = e.partition AND o.status = 1)
             UNION ALL
             SELECT 'hole in the event log', count(*) FROM (SELECT partition FROM adjutant.events
              GROUP BY 1 HAVING max(\"offset\") <> count(*)) AS h
             UNION ALL
             SELECT 'hole in the command log', count(*) FROM (SELECT partition FROM adjutant.command_log
              GROUP BY 1 HAVING max(\"offset\") <> count(*)) AS h
             UNION ALL
             SELECT 'hole in a stream', count(*) FROM (SELECT stream FROM adjutant.events
              GROUP BY 1 HAVING max(version) <> count(*)) AS h
             UNION ALL
             SELECT 'stream out of log order', count(*) FROM (SELECT version - lag(version) OVER
              (PARTITION BY stream ORDER BY \"offset\") AS step FROM adjutant.events) AS s WHERE step <> 1
             UNION ALL
             SELECT 'counter view is not the fold', count(*) FROM
              (SELECT split_part(stream, '/', 2) AS key, sum((data->>'amount')::bigint) AS amount, count(*) AS n
                 FROM adjutant.events GROUP BY 1) AS f
              FULL JOIN (SELECT * FROM adjutant.views WHERE view = 'counters') v USING (key)
              WHERE (v.value->>'amount')::bigint IS DISTINCT FROM f.amount OR v.version IS DISTINCT FROM f.n
             UNION ALL
             SELECT 'total is not the fold', count(*) FROM
              (SELECT 'all' AS key, sum((data->>'amount')::bigint) AS amount, count(*) AS n
                 FROM adjutant.events HAVING count(*) > 0) AS f
              FULL JOIN (SELECT * FROM adjutant.views WHERE view = 'totals') v USING (key)
              WHERE (v.value->>'amount')::bigint IS DISTINCT FROM f.amount OR v.version IS DISTINCT FROM f.n",
        )
        .fetch_all(&pool)
        .await
        .expect("look");
        let found: Vec<_> = problems.into_iter().filter(|(_, n)| *n > 0).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

/// Retries within milliseconds; what misbehaves is dead at once.
pub fn settings() -> ProcessSettings {
    let soon = RetrySchedule::after([1, 5, 10].map(Duration::from_millis));
    let mut settings = ProcessSettings::default();
    settings.executor.retry = PerType::all(soon);
    let types = &mut settings.executor.retry.types;
    types.insert("counter.misbehave".to_owned(), RetrySchedule::never());
    settings
}

pub const ALL: [Role; 4] = Role::ALL;
