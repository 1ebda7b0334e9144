//! Retrying and discarding: who and what is looked up first (it never changes), then one function
//! call takes the command-log locks, does everything and commits.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::Row;
use uuid::Uuid;

use super::{PostgresStore, columns::Jsonb, dead_letters::state_of, errors, pool};
use crate::{
    dead_letter::{DeadLetterId, DeadLetterKind},
    message::CommandId,
    store::{Acted, ActedBy, RetryRequest, StoreError, dead_letters::check_size},
};

/// Served by dead_letters_newest.
const PLACES: &str =
    "SELECT id, partition, command_id, kind FROM adjutant.dead_letters WHERE id = ANY($1)";

const RETRY: &str = "
    SELECT r_result, r_state
      FROM adjutant.retry_dead_letters($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
     ORDER BY r_place";

const DISCARD: &str = "
    SELECT r_result, r_state
      FROM adjutant.discard_dead_letters($1, $2, $3, $4, $5, $6, $7, $8)
     ORDER BY r_place";

/// Where letters stand.
struct Places {
    /// Sorted: their command-log locks are taken in this order.
    logs: Vec<i16>,
    /// By letter; `None`: there is none.
    partitions: Vec<Option<i16>>,
    /// Of the letters' commands.
    buckets: Vec<Option<i16>>,
    /// Of the letters.
    kinds: Vec<Option<i16>>,
}

impl Places {
    /// What became of each letter.
    fn acted(&self, rows: &[Row]) -> Result<Vec<Acted>, StoreError> {
        rows.iter().zip(&self.kinds).map(|(row, kind)| acted(row, *kind)).collect()
    }
}

impl PostgresStore {
    pub(super) async fn retry_letters(
        &self,
        requests: &[RetryRequest],
        by: &ActedBy,
    ) -> Result<Vec<Acted>, StoreError> {
        check_size(requests.len())?;
        let ids: Vec<Uuid> = requests.iter().map(|request| request.id.0).collect();
        let places = self.places(&ids).await?;
        let payloads: Vec<_> = requests
            .iter()
            .map(|request| request.payload.as_ref().map(|payload| Jsonb(payload.as_str())))
            .collect();
        let transaction = self.transaction().await?;
        let retry = transaction.prepare(RETRY).await?;
        let step = by.job;
        let rows = transaction
            .run_with(
                &retry,
                &[
                    &places.logs,
                    &ids,
                    &places.partitions,
                    &places.buckets,
                    &payloads,
                    &by.who,
                    &by.reason,
                    &step.map(|step| step.id.0),
                    &step.map(|step| step.owner.0),
                    &step.map(|step| step.cursor.0),
                    &step.is_some_and(|step| step.canary),
                ],
            )
            .await?;
        places.acted(&rows)
    }

    pub(super) async fn discard_letters(
        &self,
        ids: &[DeadLetterId],
        by: &ActedBy,
    ) -> Result<Vec<Acted>, StoreError> {
        check_size(ids.len())?;
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let places = self.places(&ids).await?;
        let transaction = self.transaction().await?;
        let discard = transaction.prepare(DISCARD).await?;
        let step = by.job;
        let rows = transaction
            .run_with(
                &discard,
                &[
                    &places.logs,
                    &ids,
                    &places.partitions,
                    &by.who,
                    &by.reason,
                    &step.map(|step| step.id.0),
                    &step.map(|step| step.owner.0),
                    &step.map(|step| step.cursor.0),
                ],
            )
            .await?;
        places.acted(&rows)
    }

    /// What never changes of letters: their partitions, and their commands.
    async fn places(&self, ids: &[Uuid]) -> Result<Places, StoreError> {
        let client = self.hot().await?;
        let select = pool::prepare(&client, PLACES).await?;
        let rows = client.query(&select, &[&ids]).await.map_err(errors::before_commit)?;
        let place =
            |row: &Row| (row.get(0), (row.get(1), self.bucket(CommandId(row.get(2))), row.get(3)));
        let found: HashMap<Uuid, (i16, i16, i16)> = rows.iter().map(place).collect();
        let logs: BTreeSet<i16> = found.values().map(|(partition, ..)| *partition).collect();
        Ok(Places {
            logs: logs.into_iter().collect(),
            partitions: ids.iter().map(|id| found.get(id).map(|found| found.0)).collect(),
            buckets: ids.iter().map(|id| found.get(id).map(|found| found.1)).collect(),
            kinds: ids.iter().map(|id| found.get(id).map(|found| found.2)).collect(),
        })
    }
}

fn acted(row: &Row, kind: Option<i16>) -> Result<Acted, StoreError> {
    let is_callback = kind == Some(DeadLetterKind::Callback.code());
    Ok(match (row.get::<_, i16>(0), row.get::<_, Option<i16>>(1)) {
        (0, _) => Acted::Done,
        (1, _) => Acted::NotFound,
        (2, Some(state)) => Acted::NotOpen(state_of(state)?),
        // No command: it is another one's to do.
        (3, _) if is_callback => Acted::Callback,
        (3, _) => Acted::ParkedKey,
        (4, _) => Acted::NothingToRetry,
        (result, state) => {
            let text = format!("a dead letter was answered with {result}, {state:?}");
            return Err(StoreError::Internal(text));
        }
    })
}
