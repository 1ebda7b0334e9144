//! Compares a client's record with the database: what was answered 202 (or 200) was accepted, and
//! has ended. Belongs to `every_command_one_outcome`.

use std::{collections::HashMap, path::Path};

use serde::Deserialize;
use sqlx::Row;
use tokio::io::{AsyncBufReadExt, BufReader};
use uuid::Uuid;
use xxhash_rust::xxh64::xxh64;

use super::{Check, VerifyError, snapshot::Snapshot};

/// How many ids one query asks for.
const PAGE: usize = 5_000;

/// A line of the record; further fields are the client's own affair.
#[derive(Deserialize)]
struct Answer {
    id: Uuid,
    code: u16,
}

pub(super) async fn check(
    snapshot: &mut Snapshot,
    path: &Path,
    check: &mut Check,
) -> Result<(), VerifyError> {
    let wrong = |line, reason: String| VerifyError::Answers {
        path: path.display().to_string(),
        line,
        reason,
    };
    let buckets = snapshot.number(include_str!("queries/partitions.sql")).await?;
    let file = tokio::fs::File::open(path).await.map_err(|error| wrong(0, error.to_string()))?;
    let mut lines = BufReader::new(file).lines();
    let mut page = Vec::with_capacity(PAGE);
    let mut number = 0;
    while let Some(line) =
        lines.next_line().await.map_err(|error| wrong(number, error.to_string()))?
    {
        number += 1;
        if line.trim().is_empty() {
            continue;
        }
        let answer: Answer =
            serde_json::from_str(&line).map_err(|error| wrong(number, error.to_string()))?;
        if matches!(answer.code, 200 | 202) {
            page.push(answer.id);
        }
        if page.len() == PAGE {
            ask(snapshot, buckets.unsigned_abs(), &page, check).await?;
            page.clear();
        }
    }
    ask(snapshot, buckets.unsigned_abs(), &page, check).await?;
    Ok(())
}

async fn ask(
    snapshot: &mut Snapshot,
    buckets: u64,
    ids: &[Uuid],
    check: &mut Check,
) -> sqlx::Result<()> {
    let bucket = |id: &Uuid| (xxh64(id.as_bytes(), 0) % buckets.max(1)) as i16;
    let rows = sqlx::query(include_str!("queries/answered_commands.sql"))
        .bind(ids.iter().map(bucket).collect::<Vec<i16>>())
        .bind(ids)
        .fetch_all(&mut snapshot.main)
        .await?;
    let mut settled: HashMap<Uuid, bool> = HashMap::with_capacity(rows.len());
    for row in rows {
        settled.insert(row.try_get("id")?, row.try_get("settled")?);
    }
    for id in ids {
        match settled.get(id) {
            Some(true) => {}
            Some(false) => {
                check.found(|| format!("command {id} was answered 202 and has no outcome"));
            }
            None => {
                check.found(|| format!("command {id} was answered 202 and is not there"));
            }
        }
    }
    Ok(())
}
