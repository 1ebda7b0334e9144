//! Many dead letters: how fast they are looked at, and how fast all of them are retried.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Uri;
use serde_json::{Value, json};
use sqlx::Executor as _;

use super::{BenchError, figures::Figures, site::Site};
use crate::{
    database,
    load::{Connection, LoadError, Target},
};

/// How many, at most: as many as five thousand for each second of the run.
const MOST: u64 = 100_000;
const A_SECOND: u64 = 5_000;
/// How many lines a batch request takes.
const LINES: u64 = 1_000;
/// How many pages of each kind are asked for.
const PAGES: u32 = 40;

pub(super) async fn measure(site: &Site<'_>, figures: &mut Figures) -> Result<(), BenchError> {
    let letters = MOST.min(site.args.seconds.saturating_mul(A_SECOND));
    let at_work = site.start_ingress().await?;
    bury(site, &at_work.target, letters).await?;
    figures.add("dead_letters", letters as f64, "", "100,000");
    let mut connection = Connection::new(&at_work.target);
    look(&mut connection, figures).await?;
    retry_all(&mut connection, letters, figures).await?;
    at_work.stop().await;
    // What was retried is executed, so that the audit finds an outcome for every command.
    let at_work = site.start_all().await?;
    let mut database = database::connect(site.config.require_database()?).await?;
    loop {
        let due = "SELECT count(*) FROM adjutant.schedule WHERE reason = 'dead_letter_retry'";
        let due: i64 = sqlx::query_scalar(due).fetch_one(&mut database).await?;
        if due == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    site.drain().await?;
    at_work.stop().await;
    Ok(())
}

/// Accepts commands, and makes dead letters of them.
async fn bury(site: &Site<'_>, target: &Target, letters: u64) -> Result<(), BenchError> {
    let mut connection = Connection::new(target);
    let uri = Uri::from_static("/v1/commands/batch");
    for batch in 0..letters.div_ceil(LINES) {
        let mut lines = Vec::new();
        for n in batch * LINES..letters.min((batch + 1) * LINES) {
            let command = json!({
                "type": "account.deposit",
                "stream": format!("account/dead-{}", n % 10_000),
                "payload": { "amount": 1 },
            });
            lines.extend_from_slice(command.to_string().as_bytes());
            lines.push(b'\n');
        }
        let answer = connection.post(&uri, "application/x-ndjson", Bytes::from(lines)).await;
        let answer = answer.map_err(LoadError::from)?;
        if !answer.status.is_success() {
            return Err(LoadError::Answer(answer.in_words()).into());
        }
    }
    let mut database = database::connect(site.config.require_database()?).await?;
    database.execute(include_str!("queries/bury.sql")).await?;
    database.execute("ANALYZE adjutant.dead_letters").await?;
    Ok(())
}

async fn look(connection: &mut Connection, figures: &mut Figures) -> Result<(), BenchError> {
    let deep = {
        // A page far behind the first one.
        let mut after = String::new();
        for _ in 0..20 {
            let page = get(connection, &format!("/v1/dead-letters?limit=500{after}")).await?;
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        format!("/v1/dead-letters?limit=50{after}")
    };
    let groups = get(connection, "/v1/dead-letters/groups").await?;
    let fingerprint = groups["items"][0]["fingerprint"].as_str().unwrap_or_default();
    let of_group = format!("/v1/dead-letters?error={fingerprint}");
    for (figure, path) in [
        ("list_ms_max", "/v1/dead-letters?limit=50"),
        ("list_500_ms_max", "/v1/dead-letters?limit=500"),
        ("list_far_behind_ms_max", &deep),
        ("list_any_state_ms_max", "/v1/dead-letters?state=any"),
        ("filter_type_ms_max", "/v1/dead-letters?type=account.deposit"),
        ("filter_type_of_none_ms_max", "/v1/dead-letters?type=account.close"),
        ("filter_key_ms_max", "/v1/dead-letters?key=account/dead-77"),
        ("filter_code_ms_max", "/v1/dead-letters?error=error_3"),
        ("filter_code_of_none_ms_max", "/v1/dead-letters?error=error_none&state=any"),
        ("filter_fingerprint_ms_max", &of_group),
        ("filter_kind_ms_max", "/v1/dead-letters?kind=parked_key"),
        ("filter_age_ms_max", "/v1/dead-letters?older_than=7d&group=commands"),
        ("groups_ms_max", "/v1/dead-letters/groups"),
        ("groups_of_code_ms_max", "/v1/dead-letters/groups?error=error_3"),
    ] {
        let mut slowest = Duration::ZERO;
        for _ in 0..PAGES {
            let asked = Instant::now();
            get(connection, path).await?;
            slowest = slowest.max(asked.elapsed());
        }
        figures.add(figure, slowest.as_secs_f64() * 1_000.0, "ms", "< 100");
    }
    Ok(())
}

async fn retry_all(
    connection: &mut Connection,
    letters: u64,
    figures: &mut Figures,
) -> Result<(), BenchError> {
    let body = json!({ "rate": 10_000, "canary": 0, "reason": "bench" }).to_string();
    let uri = Uri::from_static("/v1/dead-letters/retry");
    let asked = Instant::now();
    let answer = connection.post(&uri, "application/json", body.into()).await;
    let made = answer.map_err(LoadError::from)?;
    let made: Value =
        serde_json::from_slice(&made.body).map_err(|_| LoadError::Answer(made.in_words()))?;
    let path = format!("/v1/jobs/{}", made["id"].as_str().unwrap_or_default());
    let job = loop {
        let job = get(connection, &path).await?;
        if job["state"] != "running" {
            break job;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let seconds = asked.elapsed().as_secs_f64();
    if job["state"] != "done" || job["done"].as_u64() != Some(letters) {
        return Err(LoadError::Answer(format!("not all were retried: {job}")).into());
    }
    figures.add("retried_per_second", letters as f64 / seconds, "/s", "≥ 2,000");
    Ok(())
}

async fn get(connection: &mut Connection, path: &str) -> Result<Value, BenchError> {
    let answer = connection.get(path).await.map_err(LoadError::from)?;
    if !answer.status.is_success() {
        return Err(LoadError::Answer(format!("{path}: {}", answer.in_words())).into());
    }
    let read = serde_json::from_slice(&answer.body);
    read.map_err(|_| LoadError::Answer(format!("{path}: {}", answer.in_words())).into())
}
