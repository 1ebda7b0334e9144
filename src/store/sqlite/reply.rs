//! Replies to commands that came by a message: only the store knows their positions, so it writes
//! the body.

use rusqlite::params;
use serde::Serialize;
use serde_json::value::RawValue;
use time::{format_description::FormatItem, macros::format_description};

use super::{storable, transaction::Transaction};
use crate::{
    message::{CommandId, Failure, Offset, Position, ReplyAddress, Version},
    store::{
        NewOutcome, StoreError,
        stored::{json_text, positions},
    },
};

const REPLY: &str = "
    INSERT INTO outbox (partition, route, queue, entries, correlation_id, content_type, body,
                        recorded_at)
    VALUES (?1, 3, ?2, 0, ?3, 'application/json', ?4, ?5)";

/// Always six digits, as the other store writes it.
const TIME: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

#[derive(Serialize)]
struct Body<'a> {
    id: CommandId,
    status: &'static str,
    attempts: i32,
    completed_at: String,
    outcome: BodyOutcome<'a>,
}

#[derive(Serialize)]
struct BodyOutcome<'a> {
    positions: Vec<Position>,
    version: Version,
    reply: Option<&'a RawValue>,
    error: Option<&'a Failure>,
}

/// Writes the outbox row of an outcome that somebody waits for.
pub(super) fn write(
    transaction: &Transaction<'_>,
    outcome: &NewOutcome,
    first: Option<Offset>,
    to: &ReplyAddress,
) -> Result<(), StoreError> {
    let unstorable = |error: serde_json::Error| StoreError::Unstorable(error.to_string());
    let reply = outcome.reply.as_ref().map(|reply| serde_json::from_str(reply.as_str()));
    let completed_at = transaction.time()?.format(TIME);
    let body = Body {
        id: outcome.command_id,
        status: outcome.status.as_str(),
        attempts: outcome.attempts,
        completed_at: completed_at.map_err(|error| StoreError::Internal(error.to_string()))?,
        outcome: BodyOutcome {
            positions: positions(
                outcome.partition,
                first.map(|offset| offset.0),
                i32::try_from(outcome.events).unwrap_or(i32::MAX),
            ),
            version: outcome.version,
            reply: reply.transpose().map_err(unstorable)?,
            error: outcome.error.as_ref(),
        },
    };
    transaction.execute(
        REPLY,
        params![
            outcome.partition.0,
            storable::text(&to.queue)?,
            storable::maybe_text(to.correlation_id.as_deref())?,
            json_text(&body)?.into_bytes(),
            transaction.now,
        ],
    )?;
    Ok(())
}
