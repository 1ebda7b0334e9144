//! Compares a client's record with the database: what was answered 202 (or 200) was accepted, and
//! has ended. Belongs to `every_command_one_outcome`.

use std::{collections::HashMap, path::Path};

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use uuid::Uuid;
use xxhash_rust::xxh64::xxh64;

use super::{Check, VerifyError};
use crate::database::{Connection, DatabaseError, Parameter, Question};

/// How many ids one query asks for.
const PAGE: usize = 5_000;

/// A line of the record; further fields are the client's own affair.
#[derive(Deserialize)]
struct Answer {
    id: Uuid,
    code: u16,
}

pub(super) async fn check(
    database: &mut Connection,
    path: &Path,
    check: &mut Check,
) -> Result<(), VerifyError> {
    let wrong = |line, reason: String| VerifyError::Answers {
        path: path.display().to_string(),
        line,
        reason,
    };
    let buckets = super::partitions(database).await?;
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
            ask(database, buckets, &page, check).await?;
            page.clear();
        }
    }
    ask(database, buckets, &page, check).await?;
    Ok(())
}

async fn ask(
    database: &mut Connection,
    buckets: u64,
    ids: &[Uuid],
    check: &mut Check,
) -> Result<(), DatabaseError> {
    let bucket = |id: &Uuid| xxh64(id.as_bytes(), 0) % buckets.max(1);
    let asked = ids.iter().map(|id| json!({ "bucket": bucket(id), "id": id })).collect();
    let question = Question::by_dialect(
        include_str!("queries/answered_commands.sql"),
        include_str!("queries/sqlite/answered_commands.sql"),
    );
    let mut rows = database.ask(question.with(Parameter::Json(asked)));
    let mut settled: HashMap<Uuid, bool> = HashMap::with_capacity(ids.len());
    while let Some(row) = rows.next().await? {
        settled.insert(row.uuid("id")?, row.boolean("settled")?);
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
