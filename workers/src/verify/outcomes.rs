//! `every_command_one_outcome`: each accepted command ended exactly once, nothing ended that was
//! not accepted, and outcomes and events name each other.

use futures_util::TryStreamExt;
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{Check, damage::Damage, snapshot::Snapshot};

/// A query for what must not be, and how to say what it found.
type Question = (&'static str, fn(&PgRow) -> sqlx::Result<String>);

pub(super) async fn check(snapshot: &mut Snapshot, damage: &Damage) -> sqlx::Result<Check> {
    let mut check = Check::new("every_command_one_outcome");
    let questions: [Question; 5] = [
        (include_str!("queries/commands_without_outcome.sql"), without_outcome),
        (include_str!("queries/doubled_outcomes.sql"), doubled),
        (include_str!("queries/outcomes_without_command.sql"), without_command),
        (include_str!("queries/log_entries_without_command.sql"), entry_without_command),
        (include_str!("queries/wrong_positions.sql"), wrong_positions),
    ];
    for (sql, in_words) in questions {
        let mut rows = sqlx::query(sql).fetch(&mut snapshot.main);
        while let Some(row) = rows.try_next().await? {
            let words = in_words(&row)?;
            check.found(|| words);
        }
    }
    for orphan in &damage.orphans {
        check.found(|| orphan.clone());
    }
    Ok(check)
}

fn without_outcome(row: &PgRow) -> sqlx::Result<String> {
    let (id, kind): (Uuid, &str) = (row.try_get("id")?, row.try_get("type")?);
    let stream: &str = row.try_get("stream")?;
    Ok(format!("command {id} ({kind} for {stream}) was accepted and has no outcome"))
}

fn doubled(row: &PgRow) -> sqlx::Result<String> {
    let (id, outcomes): (Uuid, i64) = (row.try_get("command_id")?, row.try_get("outcomes")?);
    Ok(format!("command {id} has {outcomes} outcomes"))
}

fn without_command(row: &PgRow) -> sqlx::Result<String> {
    let (id, partition): (Uuid, i16) = (row.try_get("command_id")?, row.try_get("partition")?);
    Ok(match row.try_get::<Option<i16>, _>("command_partition")? {
        None => format!("outcome of {id} in partition {partition}: no such command was accepted"),
        Some(proper) => {
            format!("outcome of {id} is in partition {partition}, its command in {proper}")
        }
    })
}

fn entry_without_command(row: &PgRow) -> sqlx::Result<String> {
    let (partition, offset): (i16, i64) = (row.try_get("partition")?, row.try_get("offset")?);
    let id: Uuid = row.try_get("command_id")?;
    Ok(format!("command log {partition}:{offset} names {id}, which was not accepted there"))
}

fn wrong_positions(row: &PgRow) -> sqlx::Result<String> {
    let (id, partition): (Uuid, i16) = (row.try_get("command_id")?, row.try_get("partition")?);
    let (claimed, own): (i32, i64) = (row.try_get("events")?, row.try_get("own_events")?);
    let first: Option<i64> = row.try_get("first_offset")?;
    let foreign: i64 = row.try_get("foreign_events")?;
    let from = first.map_or_else(|| "nowhere".to_owned(), |first| format!("{partition}:{first}"));
    Ok(format!(
        "outcome of {id} claims {claimed} events from {from} on; the log has {own} of its own \
         and {foreign} of others there, or their version differs"
    ))
}
