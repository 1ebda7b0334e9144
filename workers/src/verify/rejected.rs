//! `rejected_changed_nothing`: a command that did not succeed left no event behind.

use super::{Check, damage::Damage};
use crate::database::{Connection, DatabaseError, Question};

pub(super) async fn check(
    database: &mut Connection,
    damage: &mut Damage,
) -> Result<Check, DatabaseError> {
    let mut check = Check::new("rejected_changed_nothing");

    let sql = include_str!("queries/unvouched_events.sql");
    let mut rows = database.ask(Question::plain(sql));
    while let Some(row) = rows.next().await? {
        let (partition, offset) = (row.integer("partition")?, row.integer("offset")?);
        let (stream, version) = (row.text("stream")?, row.integer("version")?);
        let command = row.uuid("command_id")?;
        damage.unvouched_event(partition, offset, stream);
        let event = format!("event {partition}:{offset} (version {version} of {stream})");
        match row.optional_integer("succeeded")? {
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
    let mut rows = database.ask(Question::plain(sql));
    while let Some(row) = rows.next().await? {
        let (command, events) = (row.uuid("command_id")?, row.integer("events")?);
        check.found(|| {
            format!("command {command} did not succeed, yet its outcome counts {events} events")
        });
    }
    Ok(check)
}
