//! `every_command_one_outcome`: each accepted command ended exactly once, nothing ended that was
//! not accepted, and outcomes and events name each other. What is dead has a dead letter, and what
//! waits has something to wait for.

use super::{Check, damage::Damage};
use crate::database::{Connection, DatabaseError, Question, Row};

type Words = Result<String, DatabaseError>;

/// A query for what must not be, and how to say what it found.
type Suspicion = (Question, fn(&Row) -> Words);

pub(super) async fn check(
    database: &mut Connection,
    damage: &Damage,
) -> Result<Check, DatabaseError> {
    let mut check = Check::new("every_command_one_outcome");
    let unfinished = Question::by_dialect(
        include_str!("queries/commands_without_outcome.sql"),
        include_str!("queries/sqlite/commands_without_outcome.sql"),
    );
    let strangers = Question::by_dialect(
        include_str!("queries/log_entries_without_command.sql"),
        include_str!("queries/sqlite/log_entries_without_command.sql"),
    );
    let letterless = Question::by_dialect(
        include_str!("queries/dead_without_letter.sql"),
        include_str!("queries/sqlite/dead_without_letter.sql"),
    );
    let plain = Question::plain;
    let suspicions: [Suspicion; 8] = [
        (unfinished, without_outcome),
        (plain(include_str!("queries/doubled_outcomes.sql")), doubled),
        (plain(include_str!("queries/outcomes_without_command.sql")), without_command),
        (strangers, entry_without_command),
        (plain(include_str!("queries/wrong_positions.sql")), wrong_positions),
        (letterless, dead_without_letter),
        (plain(include_str!("queries/idle_waiting.sql")), idle_waiting),
        (plain(include_str!("queries/ended_holds.sql")), ended_holds),
    ];
    for (question, in_words) in suspicions {
        let mut rows = database.ask(question);
        while let Some(row) = rows.next().await? {
            let words = in_words(&row)?;
            check.found(|| words);
        }
    }
    for orphan in &damage.orphans {
        check.found(|| orphan.clone());
    }
    Ok(check)
}

fn without_outcome(row: &Row) -> Words {
    let (id, kind, stream) = (row.uuid("id")?, row.text("type")?, row.text("stream")?);
    Ok(format!("command {id} ({kind} for {stream}) was accepted and has no outcome"))
}

fn doubled(row: &Row) -> Words {
    let (id, outcomes) = (row.uuid("command_id")?, row.integer("outcomes")?);
    Ok(format!("command {id} has {outcomes} outcomes"))
}

fn without_command(row: &Row) -> Words {
    let (id, partition) = (row.uuid("command_id")?, row.integer("partition")?);
    Ok(match row.optional_integer("command_partition")? {
        None => format!("outcome of {id} in partition {partition}: no such command was accepted"),
        Some(proper) => {
            format!("outcome of {id} is in partition {partition}, its command in {proper}")
        }
    })
}

fn entry_without_command(row: &Row) -> Words {
    let (partition, offset) = (row.integer("partition")?, row.integer("offset")?);
    let id = row.uuid("command_id")?;
    Ok(format!("command log {partition}:{offset} names {id}, which was not accepted there"))
}

fn dead_without_letter(row: &Row) -> Words {
    let (id, partition) = (row.uuid("command_id")?, row.integer("partition")?);
    let old =
        " (nor a failed attempt: it may have died before there were any, in a file of migration 1)";
    let old = if row.boolean("may_be_old")? { old } else { "" };
    Ok(format!("command {id} in partition {partition} is dead, and no dead letter says so{old}"))
}

fn idle_waiting(row: &Row) -> Words {
    let (id, stream) = (row.uuid("command_id")?, row.text("stream")?);
    let first = row.integer("first_offset")?;
    Ok(format!("command {id} of {stream} ({first}) waits, but nothing stands before it"))
}

fn ended_holds(row: &Row) -> Words {
    let (id, stream) = (row.uuid("command_id")?, row.text("stream")?);
    let first = row.integer("first_offset")?;
    Ok(format!("command {id} ({first}) has ended and still holds {stream}"))
}

fn wrong_positions(row: &Row) -> Words {
    let (id, partition) = (row.uuid("command_id")?, row.integer("partition")?);
    let (claimed, own) = (row.integer("events")?, row.integer("own_events")?);
    let (first, foreign) = (row.optional_integer("first_offset")?, row.integer("foreign_events")?);
    let from = first.map_or_else(|| "nowhere".to_owned(), |first| format!("{partition}:{first}"));
    Ok(format!(
        "outcome of {id} claims {claimed} events from {from} on; the log has {own} of its own \
         and {foreign} of others there, or their version differs"
    ))
}
