//! Callbacks: the statements of the PostgreSQL store. What it does by locks, the single writer does
//! by order.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Row, params};

use super::{
    SqliteStore,
    clock::from_micros,
    notices::micros,
    storable,
    transaction::{Transaction, column, id, partition, partition_numbers, time},
};
use crate::{
    chance,
    dead_letter::{DeadLetterId, DeadLetterKind, DeadLetterState},
    message::{CommandId, Partition, Timestamp, Version},
    store::{
        Acted, ActedBy, CALLBACKS, CallbackAction, CallbackBacklog, CallbackDetails, CallbackEnd,
        CallbackHost, Callbacks, ClaimedCallback, DeadCallback, MOST_COUNTED, NewOutcome,
        OwedCallback, PastOutcome, StoreError,
        stored::{failure, json_text},
    },
};

const OWE: &str = "
    INSERT INTO callbacks (partition, id, command_id, type, ended_after, url, host, owed_at, due_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)";

/// Served by callbacks_oldest.
const PARTITIONS: &str = "
    SELECT p.value FROM json_each(?1) AS p
     WHERE EXISTS (SELECT 1 FROM callbacks c WHERE c.partition = p.value AND c.state = 1)";

/// Served by callbacks_due, a look each.
const NEXT_HOST: &str = "
    SELECT host FROM callbacks WHERE partition = ?1 AND state = 1 AND host > ?2
     ORDER BY host LIMIT 1";
const IS_DUE: &str = "
    SELECT 1 FROM callbacks WHERE partition = ?1 AND state = 1 AND host = ?2 AND due_at <= ?3";

/// Served by callbacks_due.
const CLAIM: &str = "
    UPDATE callbacks SET attempts = attempts + 1, due_at = ?5
     WHERE id IN (SELECT id FROM callbacks
                   WHERE partition = ?1 AND state = 1 AND host = ?2 AND due_at <= ?3
                   ORDER BY due_at, id LIMIT ?4)
    RETURNING partition, id, command_id, type, ended_after, url, host, attempts,
              attempts - first_attempt + 1, owed_at, error";

/// Served by callbacks_oldest.
const CLAIM_AGED: &str = "
    UPDATE callbacks SET due_at = ?6
     WHERE id IN (SELECT id FROM callbacks
                   WHERE partition = ?1 AND state = 1 AND owed_at < ?3 AND due_at <= ?4
                     AND host IN (SELECT value FROM json_each(?2))
                   ORDER BY owed_at, id LIMIT ?5)
    RETURNING partition, id, command_id, type, ended_after, url, host, attempts,
              attempts - first_attempt + 1, owed_at, error";

/// Served by the primary key.
const IN_HAND: &str = "
    SELECT dead_letter_id, attempts, host, type, command_id FROM callbacks
     WHERE id = ?1 AND attempts = ?2 AND state = 1";
const GONE: &str = "DELETE FROM callbacks WHERE id = ?1";
const AGAIN: &str = "UPDATE callbacks SET error = ?2, due_at = ?3 WHERE id = ?1";
const DIED: &str = "UPDATE callbacks SET state = 2, error = ?2, dead_letter_id = ?3 WHERE id = ?1";

/// Served by the primary key.
const RESOLVED: &str =
    "UPDATE dead_letters SET state = 3, state_at = ?2 WHERE id = ?1 AND state = 2";

const BURY: &str = "
    INSERT INTO dead_letters (partition, id, kind, group_name, key, type, command_id, error,
                              fingerprint, attempts, died_at, state_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11)";

/// Served by the primary key.
const PAST_OUTCOME: &str = "
    SELECT attempts, version, error, completed_at, taken_back_at FROM past_outcomes
     WHERE partition = ?1 AND command_id = ?2 AND attempts >= ?3 ORDER BY attempts LIMIT 1";

/// Served by callbacks_of_dead_letter.
const RETRY: &str = "
    UPDATE callbacks SET state = 1, owed_at = ?2, due_at = ?2, first_attempt = attempts + 1
     WHERE dead_letter_id = ?1";
const DISCARD: &str = "DELETE FROM callbacks WHERE dead_letter_id = ?1";
const OF_LETTER: &str = "
    SELECT id, ended_after, owed_at, attempts, error FROM callbacks WHERE dead_letter_id = ?1";

/// Served by callbacks_oldest.
const BACKLOG: &str = "
    SELECT count(*), min(owed_at)
      FROM (SELECT owed_at FROM callbacks WHERE partition = ?1 AND state = 1
             ORDER BY owed_at LIMIT ?2)";

#[async_trait]
impl Callbacks for SqliteStore {
    async fn partitions_with_callbacks(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<Partition>, StoreError> {
        let numbers = partition_numbers(partitions);
        self.engine.read(move |it| it.all(PARTITIONS, [numbers], |row| partition(row, 0))).await
    }

    async fn callback_hosts(
        &self,
        partition: Partition,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<CallbackHost>, StoreError> {
        // No host comes before the empty text, and none is it.
        let after = after.unwrap_or_default().to_owned();
        self.engine.read(move |it| hosts(it, partition, after, limit)).await
    }

    async fn claim_callbacks(
        &self,
        partition: Partition,
        hosts: &[(String, i64)],
        lease: Duration,
    ) -> Result<Vec<ClaimedCallback>, StoreError> {
        let hosts = hosts.to_vec();
        let work = move |it: &Transaction<'_>| {
            let until = it.now.saturating_add(micros(lease));
            let mut all = Vec::new();
            for (host, room) in &hosts {
                let asked = params![partition.0, host, it.now, room, until];
                all.extend(it.all(CLAIM, asked, |row| claimed(row, it.now))?);
            }
            Ok(all)
        };
        self.engine.write(work).await
    }

    async fn claim_aged_callbacks(
        &self,
        partition: Partition,
        hosts: &[String],
        age: Duration,
        limit: i64,
        lease: Duration,
    ) -> Result<Vec<ClaimedCallback>, StoreError> {
        let hosts = json_text(&hosts)?;
        let work = move |it: &Transaction<'_>| {
            let (before, until) =
                (it.now.saturating_sub(micros(age)), it.now.saturating_add(micros(lease)));
            let asked = params![partition.0, hosts, before, it.now, limit, until];
            it.all(CLAIM_AGED, asked, |row| claimed(row, it.now))
        };
        self.engine.write(work).await
    }

    async fn end_callback(
        &self,
        claimed: &ClaimedCallback,
        end: CallbackEnd,
    ) -> Result<bool, StoreError> {
        let claimed = claimed.clone();
        self.engine.write(move |it| it.end_callback(&claimed, &end)).await
    }

    async fn past_outcome(
        &self,
        partition: Partition,
        command: CommandId,
        attempts: i32,
    ) -> Result<Option<PastOutcome>, StoreError> {
        let read = |row: &Row<'_>| {
            Ok(PastOutcome {
                attempts: column(row, 0)?,
                version: Version(column(row, 1)?),
                error: failure(column::<Option<String>>(row, 2)?.as_deref())?,
                completed_at: time(row, 3)?,
                taken_back_at: time(row, 4)?,
            })
        };
        let asked = move |it: &Transaction<'_>| {
            it.first(PAST_OUTCOME, params![partition.0, command.0.as_bytes(), attempts], read)
        };
        self.engine.read(asked).await
    }

    async fn act_on_callback(
        &self,
        letter: DeadLetterId,
        action: CallbackAction,
        by: &ActedBy,
    ) -> Result<Acted, StoreError> {
        let by = by.clone();
        self.engine.write(move |it| it.act_on_callback(letter, action, &by)).await
    }

    async fn callback_backlog(
        &self,
        partitions: &[Partition],
    ) -> Result<CallbackBacklog, StoreError> {
        let partitions = partitions.to_vec();
        let work = move |it: &Transaction<'_>| {
            let mut backlog = CallbackBacklog::default();
            for partition in partitions {
                let found = it.first(BACKLOG, params![partition.0, MOST_COUNTED], |row| {
                    Ok((column::<i64>(row, 0)?, column::<Option<i64>>(row, 1)?))
                })?;
                let (pending, oldest) = found.unwrap_or_default();
                let age = oldest.map_or(0, |oldest| it.now.saturating_sub(oldest).max(0));
                backlog.pending += pending;
                backlog.oldest = backlog.oldest.max(Duration::from_micros(age.unsigned_abs()));
            }
            Ok(backlog)
        };
        self.engine.read(work).await
    }
}

fn hosts(
    transaction: &Transaction<'_>,
    partition: Partition,
    mut after: String,
    limit: i64,
) -> Result<Vec<CallbackHost>, StoreError> {
    let mut hosts = Vec::new();
    while (hosts.len() as i64) < limit {
        let next = transaction
            .first(NEXT_HOST, params![partition.0, after], |row| column::<String>(row, 0))?;
        let Some(host) = next else { break };
        let due = transaction.exists(IS_DUE, params![partition.0, host, transaction.now])?;
        after.clone_from(&host);
        hosts.push(CallbackHost { host, due });
    }
    Ok(hosts)
}

impl Transaction<'_> {
    /// Writes down that somebody is to be told of an outcome.
    pub(super) fn owe_callback(
        &self,
        outcome: &NewOutcome,
        callback: &OwedCallback,
    ) -> Result<(), StoreError> {
        self.execute(
            OWE,
            params![
                outcome.partition.0,
                chance::random_id().as_bytes(),
                outcome.command_id.0.as_bytes(),
                storable::text(&callback.command_type)?,
                outcome.attempts,
                storable::text(&callback.url)?,
                host_of(&callback.url),
                self.now,
            ],
        )?;
        Ok(())
    }

    fn end_callback(
        &self,
        claimed: &ClaimedCallback,
        end: &CallbackEnd,
    ) -> Result<bool, StoreError> {
        let id = claimed.id.as_bytes();
        let in_hand = self.first(IN_HAND, params![id, claimed.attempts], |row| {
            column::<Option<[u8; 16]>>(row, 0)
        })?;
        let Some(letter) = in_hand else { return Ok(false) };
        match end {
            CallbackEnd::Delivered => {
                self.execute(GONE, [id])?;
            }
            CallbackEnd::Again(after, error) => {
                let due = self.now.saturating_add(micros(*after));
                self.execute(AGAIN, params![id, storable::text(error)?, due])?;
                return Ok(true);
            }
            CallbackEnd::Dead(dead) => self.bury_callback(claimed, dead)?,
        }
        self.execute(RESOLVED, params![letter, self.now])?;
        Ok(true)
    }

    fn bury_callback(
        &self,
        claimed: &ClaimedCallback,
        dead: &DeadCallback,
    ) -> Result<(), StoreError> {
        let (id, letter) = (claimed.id.as_bytes(), dead.letter.0.as_bytes());
        self.execute(DIED, params![id, storable::text(&dead.error.message)?, letter])?;
        self.execute(
            BURY,
            params![
                claimed.partition.0,
                letter,
                DeadLetterKind::Callback.code(),
                CALLBACKS,
                claimed.host,
                claimed.command_type,
                claimed.command_id.0.as_bytes(),
                json_text(&dead.error)?,
                dead.fingerprint,
                claimed.attempts,
                self.now,
            ],
        )?;
        Ok(())
    }

    fn act_on_callback(
        &self,
        letter_id: DeadLetterId,
        action: CallbackAction,
        by: &ActedBy,
    ) -> Result<Acted, StoreError> {
        let letter = self.letter(letter_id)?.filter(|it| it.kind == DeadLetterKind::Callback);
        let Some(letter) = letter else { return Ok(Acted::NotFound) };
        if letter.state != DeadLetterState::Open {
            return Ok(Acted::NotOpen(letter.state));
        }
        let id = letter_id.0.as_bytes();
        let (state, word) = match action {
            CallbackAction::Retry => {
                if self.execute(RETRY, params![id, self.now])? == 0 {
                    return Ok(Acted::NothingToRetry);
                }
                (DeadLetterState::Retrying, "retry")
            }
            CallbackAction::Discard => {
                self.execute(DISCARD, [id])?;
                (DeadLetterState::Discarded, "discard")
            }
        };
        self.set_state(&letter, state)?;
        self.audit(&letter, word, by)?;
        Ok(Acted::Done)
    }

    pub(super) fn callback_of(
        &self,
        letter: DeadLetterId,
    ) -> Result<Option<CallbackDetails>, StoreError> {
        self.first(OF_LETTER, [letter.0.as_bytes()], |row| {
            Ok(CallbackDetails {
                id: id(row, 0)?,
                ended_after: column(row, 1)?,
                owed_at: time(row, 2)?,
                attempts: column(row, 3)?,
                error: column(row, 4)?,
            })
        })
    }
}

fn claimed(row: &Row<'_>, now: i64) -> Result<ClaimedCallback, StoreError> {
    let now: Timestamp = from_micros(now)?;
    Ok(ClaimedCallback {
        partition: partition(row, 0)?,
        id: id(row, 1)?,
        command_id: CommandId(id(row, 2)?),
        command_type: column(row, 3)?,
        ended_after: column(row, 4)?,
        url: column(row, 5)?,
        host: column(row, 6)?,
        attempts: column(row, 7)?,
        tries: column(row, 8)?,
        owed_at: time(row, 9)?,
        now,
        error: column(row, 10)?,
    })
}

/// What limits go by: the host of a URL as parsers write it. PostgreSQL has it as a generated column.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let end = match rest.strip_prefix('[') {
        Some(inside) => inside.find(']').map(|at| at + 2),
        None => rest.find(['/', ':', '?', '#']),
    };
    match rest.get(..end.unwrap_or(rest.len())) {
        None | Some("") => "-",
        Some(host) => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_url_is_what_limits_go_by() {
        for (url, host) in [
            ("https://hooks.example/x?y=1", "hooks.example"),
            ("http://hooks.example:8443/", "hooks.example"),
            ("https://[2001:db8::1]:8443/x", "[2001:db8::1]"),
            ("https://192.0.2.1", "192.0.2.1"),
            ("nonsense", "-"),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
    }
}
