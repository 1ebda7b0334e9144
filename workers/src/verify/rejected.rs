//! `rejected_changed_nothing`: a command that did not succeed left no event behind.

use futures_util::TryStreamExt;
use sqlx::Row;
use uuid::Uuid;

use super::{Check, damage::Damage, snapshot::Snapshot};

pub(super) async fn check(snapshot: &mut Snapshot, damage: &mut Damage) -> sqlx::Result<Check> {
    let mut check = Check::new("rejected_changed_nothing");

    let sql = include_str!("queries/unvouched_events.sql");
    let mut rows = sqlx::query(sql).fetch(&mut snapshot.main);
    while let Some(row) = rows.try_next().await? {
        let (partition, offset): (i16, i64) = (row.try_get("partition")?, row.try_get("offset")?);
        let (stream, version): (String, i64) = (row.try_get("stream")?, row.try_get("version")?);
        let command: Uuid = row.try_get("command_id")?;
        damage.unvouched_event(partition, offset, &stream);
        let event = format!("event {partition}:{offset} (version {version} of {stream})");
        match row.try_get::<Option<bool>, _>("succeeded")? {
            Some(_) => {
                check.found(|| format!("{event} is of command {command}, which did not succeed"));
            }
            None => {
                damage.orphans.push(format!("{event} is of {command}, which nobody accepted"));
            }
        }
    }
    drop(rows);

    let sql = include_str!("queries/failed_with_events.sql");
    let mut rows = sqlx::query(sql).fetch(&mut snapshot.main);
    while let Some(row) = rows.try_next().await? {
        let (command, events): (Uuid, i32) = (row.try_get("command_id")?, row.try_get("events")?);
        check.found(|| {
            format!("command {command} did not succeed, yet its outcome counts {events} events")
        });
    }
    Ok(check)
}
