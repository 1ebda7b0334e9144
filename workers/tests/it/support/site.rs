//! A database and a broker prefix of a test's own, and what all its processes have in common.

use adjutant::{
    message::{GroupName, PartitionCount},
    service::groups_of,
};
use serde_json::Value;
use sqlx::{Connection, PgConnection};

use super::{
    database::Database,
    eventually,
    process::{Launch, program, run},
    rabbit::{Road, amqp_url},
};

pub struct Site {
    pub database: Database,
    pub road: Road,
    pub partitions: PartitionCount,
}

impl Site {
    pub async fn new() -> Self {
        Self::with_partitions(4).await
    }

    pub async fn with_partitions(partitions: i64) -> Self {
        let partitions = PartitionCount::new(partitions).unwrap();
        let mut road = Road::new();
        // With the drills, whose queues are there if faults are injected.
        road.groups = groups_of(&bank::drill::service(false).unwrap());
        road.partitions = partitions;
        Self { database: Database::empty().await, road, partitions }
    }

    /// A process with these roles.
    pub fn launch(&self, roles: &str) -> Launch {
        Launch::new(roles)
            .env("ADJUTANT_DATABASE_URL", self.database.url())
            .env("ADJUTANT_AMQP_URL", amqp_url())
            .set("broker.prefix", &self.road.prefix)
            .set("database.partitions", self.partitions.get())
    }

    pub async fn look(&self) -> Look {
        Look(self.database.connect().await)
    }

    /// `bank verify --json`: its exit code and its verdict.
    pub async fn verify(&self, answers: Option<&std::path::Path>) -> (i32, Value) {
        verify(&self.database, answers).await
    }
}

/// `bank verify --json` of a database.
pub async fn verify(database: &Database, answers: Option<&std::path::Path>) -> (i32, Value) {
    let mut command = program();
    command.args(["verify", "--json", "--database-url", &database.url()]);
    if let Some(answers) = answers {
        command.arg("--answers").arg(answers);
    }
    let output = run(command).await;
    let printed = String::from_utf8(output.stdout).unwrap();
    let verdict = serde_json::from_str(&printed).unwrap_or_else(|_| {
        panic!("no verdict: {printed}{}", String::from_utf8_lossy(&output.stderr))
    });
    (output.status.code().expect("an exit code"), verdict)
}

/// A connection for looking at tables.
pub struct Look(PgConnection);

impl Look {
    pub async fn number(&mut self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.0).await.unwrap()
    }

    /// Commands that were accepted and have not ended.
    pub async fn unfinished(&mut self) -> i64 {
        // Outcomes first: both only grow, so that the difference is never too small.
        self.number(
            "WITH ended AS MATERIALIZED (SELECT count(*) AS n FROM adjutant.outcomes)
             SELECT (SELECT count(*) FROM adjutant.commands) - n FROM ended",
        )
        .await
    }

    pub async fn ended(&mut self) -> i64 {
        self.number("SELECT count(*) FROM adjutant.outcomes").await
    }

    /// Waits until every command has ended and every event is in every view.
    pub async fn until_quiet(&mut self) {
        eventually("every command ends and becomes visible", async || {
            let waiting = self.unfinished().await;
            let hidden = self
                .number(
                    "SELECT count(*) FROM
                       (SELECT partition, max(\"offset\") AS head FROM adjutant.events GROUP BY 1) e
                       CROSS JOIN (VALUES ('projection.balances'), ('projection.statements')) g(name)
                      WHERE e.head > COALESCE((SELECT max(c.reached) FROM adjutant.checkpoints c
                              WHERE c.group_name = g.name AND c.partition = e.partition), 0)",
                )
                .await;
            (waiting == 0 && hidden == 0).then_some(())
        })
        .await;
    }

    /// The attempts of a stream's commands that failed, and those of its commands that came into the
    /// log more than once or by another way than the first.
    pub async fn troubles(&mut self, stream: &str) -> String {
        sqlx::query_scalar(
            "SELECT concat(
               'attempts ', (SELECT jsonb_agg(to_jsonb(a)) FROM adjutant.attempts a
                   JOIN adjutant.commands c ON c.id = a.command_id WHERE c.stream = $1),
               ', entries ', (SELECT jsonb_agg(to_jsonb(l) || c.payload ORDER BY l.\"offset\")
                    FROM adjutant.command_log l
                    JOIN adjutant.commands c ON c.id = l.command_id
                   WHERE c.stream = $1
                     AND (l.attempt > 1 OR (SELECT count(*) FROM adjutant.command_log m
                                             WHERE m.command_id = l.command_id) > 1)))",
        )
        .bind(stream)
        .fetch_one(&mut self.0)
        .await
        .unwrap()
    }

    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    pub async fn close(self) {
        self.0.close().await.unwrap();
    }
}

/// The partitions of each group that a member owns, by group.
pub fn owned(member: &Value, group: &GroupName) -> Vec<i64> {
    let partitions = member["partitions"][group.as_str()].as_array();
    partitions.into_iter().flatten().filter_map(Value::as_i64).collect()
}
