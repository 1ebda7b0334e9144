//! What retries cost those who need none: the same load twice, each time on a database of its own.
//! A tenth of its commands are drills, on streams of their own. The first time they go well, the
//! second time every attempt fails and is made again, as the schedule of the service says. The
//! breaker is off: it would suspend them, and there would be nothing to measure. That each attempt
//! fails is not logged, unless `--log-level` says so.

use std::{
    str::FromStr as _,
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection, postgres::PgConnectOptions,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{BenchError, figures::Figures, site::Site};
use crate::{
    config::{Config, Roles, SecretUrl},
    database::{self, Source},
    load::{Drills, Load, LoadError, Plan, Target, Until, WaitFor, Watch, Workload, open_accounts},
    run::{Running, start_roles},
    verify::verify,
};

/// How many commands in a thousand are drills.
const DRILLS: u32 = 100;
/// More attempts than any of them gets.
const ALWAYS: u32 = 1_000;
/// How many commands may wait for their turn, or their events for a view.
const BACKLOG: u64 = 5_000;
/// How often it is looked how far the service is.
const PACE: Duration = Duration::from_millis(40);

pub(super) async fn measure(site: &Site<'_>, figures: &mut Figures) -> Result<(), BenchError> {
    let normal = on_a_fresh_database(site, 0).await?;
    let retrying = on_a_fresh_database(site, ALWAYS).await?;
    figures.add("healthy_per_second_normal", normal.healthy_per_second, "/s", "");
    figures.add("healthy_per_second_while_retrying", retrying.healthy_per_second, "/s", "");
    let percent = retrying.healthy_per_second * 100.0 / normal.healthy_per_second.max(1e-6);
    figures.add("healthy_percent", percent, "%", "≥ 80");
    figures.add("drills_percent", retrying.drills_percent, "%", "10");
    figures.add("failed_attempts_per_second", retrying.failed_per_second, "/s", "");
    Ok(())
}

/// What was measured of one of the two loads, while it lasted.
struct Half {
    /// Commands of accounts, from the first one accepted until the last one ended.
    healthy_per_second: f64,
    /// The share of the drills in all commands.
    drills_percent: f64,
    /// Attempts of drills that failed.
    failed_per_second: f64,
}

async fn on_a_fresh_database(site: &Site<'_>, fails: u32) -> Result<Half, BenchError> {
    let database = Fresh::create(site.config.require_database()?).await?;
    let half = measure_on(site, &database, fails).await;
    let dropped = database.drop().await;
    let half = half?;
    dropped?;
    Ok(half)
}

async fn measure_on(site: &Site<'_>, fresh: &Fresh, fails: u32) -> Result<Half, BenchError> {
    let config = config(site.config, &fresh.url);
    let source = Source::postgres(fresh.url.as_str());
    let server = start_roles(&config).await?;
    let target = target_of(&server)?;
    let shape = site.shape();
    let drills = Drills { in_a_thousand: DRILLS, fails };
    let workload = Workload::new(site.args.seed, shape.accounts).with_drills(drills);
    open_accounts(&target, &workload).await?;
    let mut watch = Watch::new(&source, site.patience());
    watch.until(WaitFor::Visible, || true, |_| {}).await?;

    let mut database = database::connect(&fresh.url).await?;
    let since: OffsetDateTime =
        sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut database).await?;
    let (load, sending) = Load::start(Plan {
        target,
        workload,
        until: Until::Elapsed(Duration::from_secs(site.args.seconds)),
        connections: shape.connections,
        batch: shape.batch,
        wait: None,
        rate: None,
        max_unfinished: Some(BACKLOG),
        followers: None,
        answers: None,
    });
    let pacing = pace(&load, &mut watch);
    tokio::pin!(sending);
    let sent = tokio::select! {
        sent = &mut sending => sent,
        error = pacing => return Err(error.into()),
    };
    if let Some(words) = sent.first_refusal {
        return Err(LoadError::Answer(words).into());
    }
    let half = look(&mut database, since, site.patience()).await?;
    postpone(&mut database, &mut watch, site.patience()).await?;
    server.stop().await;
    let audit = verify(&source, None).await?;
    if audit.passed() { Ok(half) } else { Err(BenchError::Unsound(audit.to_text())) }
}

/// The service as it is configured, but for what the load needs.
fn config(config: &Config, url: &str) -> Config {
    let mut config = Config { roles: Roles::all(), ..config.clone() };
    config.database.url = SecretUrl::new(url);
    config.database.migrate_at_start = true;
    config.bank.fault_injection = true;
    config.breaker.threshold = 2.0;
    config
}

fn target_of(server: &Running) -> Result<Target, BenchError> {
    let api = server.api().ok_or(BenchError::NoIngress)?;
    Ok(Target::new(&format!("http://{api}"), None)?)
}

/// Tells the load how far the service is: what waits in the log counts, retries as well, and what
/// waits for its time does not. Ends only with an error.
async fn pace(load: &Load, watch: &mut Watch) -> LoadError {
    loop {
        match watch.look().await {
            Ok(marks) => {
                let behind = (marks.commands - marks.executed) + (marks.events - marks.visible());
                load.finished(load.accepted().saturating_sub(behind.max(0).unsigned_abs()));
            }
            Err(error) => return error.into(),
        }
        tokio::time::sleep(PACE).await;
    }
}

/// The figures, when the last command of an account has ended.
async fn look(
    database: &mut PgConnection,
    since: OffsetDateTime,
    patience: Duration,
) -> Result<Half, BenchError> {
    let began = Instant::now();
    loop {
        let figures: (i64, i64, i64, f64, i64) =
            sqlx::query_as(include_str!("queries/retrying.sql"))
                .bind(since)
                .fetch_one(&mut *database)
                .await?;
        let (healthy, ended, drills, seconds, failed) = figures;
        if healthy == ended {
            let seconds = seconds.max(1e-6);
            return Ok(Half {
                healthy_per_second: ended as f64 / seconds,
                drills_percent: drills as f64 * 100.0 / (healthy + drills).max(1) as f64,
                failed_per_second: failed as f64 / seconds,
            });
        }
        if began.elapsed() > patience {
            let reached = format!("{ended} of {healthy} commands of accounts have ended");
            return Err(LoadError::Stuck { seconds: patience.as_secs(), reached }.into());
        }
        tokio::time::sleep(5 * PACE).await;
    }
}

/// Nothing is due any more for as long as it takes to stop and to look: nothing is left on the road,
/// and the audit knows what every command waits for.
async fn postpone(
    database: &mut PgConnection,
    watch: &mut Watch,
    patience: Duration,
) -> Result<(), BenchError> {
    let began = Instant::now();
    loop {
        // An attempt that fails just now has another one soon.
        let soon = sqlx::query(
            "UPDATE adjutant.schedule SET due_at = clock_timestamp() + interval '1 day'
              WHERE due_at < clock_timestamp() + interval '1 hour'",
        );
        let postponed = soon.execute(&mut *database).await?.rows_affected();
        let marks = watch.look().await.map_err(LoadError::from)?;
        let is_done = marks.executed >= marks.commands && marks.visible() >= marks.events;
        if postponed == 0 && is_done {
            return Ok(());
        }
        if began.elapsed() > patience {
            return Err(LoadError::Stuck {
                seconds: patience.as_secs(),
                reached: format!("{postponed} retries postponed, {marks:?}"),
            }
            .into());
        }
        tokio::time::sleep(PACE).await;
    }
}

/// A database of one load's own, on the server of the one that was given.
struct Fresh {
    server: PgConnectOptions,
    name: String,
    url: String,
}

impl Fresh {
    async fn create(beside: &str) -> Result<Self, BenchError> {
        let server = PgConnectOptions::from_str(beside)?.disable_statement_logging();
        let name = format!("adjutant_bench_{}", Uuid::now_v7().simple());
        let url = beside_it(beside, &name);
        let fresh = Self { server, name, url };
        fresh.execute(&format!("CREATE DATABASE {}", fresh.name)).await?;
        Ok(fresh)
    }

    async fn drop(self) -> Result<(), BenchError> {
        self.execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await
    }

    async fn execute(&self, statement: &str) -> Result<(), BenchError> {
        let mut connection = self.server.connect().await?;
        connection.execute(AssertSqlSafe(statement.to_owned())).await?;
        Ok(())
    }
}

/// The URL of another database on the same server.
fn beside_it(url: &str, name: &str) -> String {
    let (rest, query) =
        url.split_once('?').map_or((url, None), |(rest, query)| (rest, Some(query)));
    let authority = rest.find("://").map_or(0, |found| found + 3);
    let end = rest[authority..].find('/').map_or(rest.len(), |slash| authority + slash);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{name}{query}", &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_on_the_same_server() {
        for (url, other) in [
            ("postgres://root@127.0.0.1:5432/test", "postgres://root@127.0.0.1:5432/b"),
            ("postgres://u:p@db/test?sslmode=require", "postgres://u:p@db/b?sslmode=require"),
            ("postgres://db", "postgres://db/b"),
        ] {
            assert_eq!(beside_it(url, "b"), other);
        }
    }
}
