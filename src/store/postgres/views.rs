//! Maintaining views: documents and checkpoints in one transaction.

use std::collections::HashMap;

use async_trait::async_trait;
use tokio_postgres::{Row, types::ToSql};

use super::{
    PostgresStore,
    columns::{self, Jsonb, as_of_json},
    errors, pool,
    transaction::Params,
};
use crate::store::{
    CheckpointMove, DocumentRow, DocumentWrite, Fence, FoldDocuments, FoldRequest, StoreError,
    ViewCommit, ViewDocuments, Views,
};

/// A join, not `= ANY`: a generic plan would filter the whole view by it. Served by views_pkey.
const LOAD: &str = "
    SELECT v.key, v.version, v.value::text, v.as_of::text, v.parked
      FROM unnest($2::text[]) AS k(key)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.views d
                          WHERE d.view = $1 AND d.key = k.key OFFSET 0) AS v";

/// An absent row cannot be locked: it is inserted empty first, in key order.
const INSERT_EMPTY: &str = "
    INSERT INTO adjutant.views (view, key, partition, version, value, as_of, updated_at)
    SELECT $1, k, NULL, 0, NULL, '{}', clock_timestamp() FROM unnest($2::text[]) AS k ORDER BY k
    ON CONFLICT (view, key) DO NOTHING";

/// Locks in key order: the sorted keys drive a nested loop. Served by views_pkey.
pub(super) const LOCK: &str = "
    SELECT v.key, v.version, v.value::text, v.as_of::text, v.parked
      FROM (SELECT k FROM unnest($2::text[]) AS k ORDER BY k COLLATE \"C\") AS k(key)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.views d
                          WHERE d.view = $1 AND d.key = k.key FOR UPDATE) AS v";

pub(super) const COMMIT: &str =
    "SELECT adjutant.commit_view($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

#[async_trait]
impl Views for PostgresStore {
    async fn load_documents(
        &self,
        view: &str,
        keys: &[String],
    ) -> Result<ViewDocuments, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.hot().await?;
        let load = pool::prepare(&client, LOAD).await?;
        let rows = client.query(&load, &[&view, &keys]).await.map_err(errors::before_commit)?;
        in_order(keys, &rows)
    }

    async fn commit_view(&self, commit: ViewCommit) -> Result<(), StoreError> {
        let mut transaction = self.transaction().await?;
        let function = transaction.prepare(COMMIT).await?;
        let columns = ViewColumns::of(&commit.view, &commit.documents, &commit.checkpoints);
        if commit.passed.is_empty() && commit.parked.is_empty() {
            transaction.run_with(&function, &columns.params()).await?;
            return Ok(());
        }
        if !transaction.begin_passing(&commit.view, &commit.passed).await? {
            transaction.roll_back().await?;
            return Err(StoreError::Fenced(Fence::Parked));
        }
        transaction.park(&commit.view, &commit.parked).await?;
        transaction.commit_with(&function, &columns.params()).await?;
        Ok(())
    }

    async fn fold_shared(
        &self,
        request: FoldRequest,
        fold: FoldDocuments<'_>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.transaction().await?;
        let insert = transaction.prepare(INSERT_EMPTY).await?;
        let empty: Params<'_> = &[&request.view, &request.keys];
        if request.passed.is_empty() {
            transaction.begin_with(&insert, empty).await?;
        } else if transaction.begin_passing(&request.view, &request.passed).await? {
            transaction.query(&insert, empty).await?;
        } else {
            transaction.roll_back().await?;
            return Err(StoreError::Fenced(Fence::Parked));
        }
        let lock = transaction.prepare(LOCK).await?;
        let rows = transaction.query(&lock, &[&request.view, &request.keys]).await?;
        let folded = match in_order(&request.keys, &rows).and_then(fold) {
            Ok(folded) => folded,
            Err(error) => {
                transaction.roll_back().await?;
                return Err(error);
            }
        };
        transaction.park(&request.view, &folded.parked).await?;
        transaction.refer(&request.view, &folded.references).await?;
        let function = transaction.prepare(COMMIT).await?;
        let columns = ViewColumns::of(&request.view, &folded.documents, &request.checkpoints);
        transaction.commit_with(&function, &columns.params()).await?;
        Ok(())
    }
}

pub(super) fn in_order(keys: &[String], rows: &[Row]) -> Result<ViewDocuments, StoreError> {
    let mut found = rows
        .iter()
        .map(|row| {
            let document = DocumentRow {
                key: row.get(0),
                version: row.get(1),
                value: columns::raw(row.get(2)),
                as_of: columns::as_of(row.get(3))?,
                parked: row.get(4),
            };
            Ok((document.key.clone(), document))
        })
        .collect::<Result<HashMap<_, _>, StoreError>>()?;
    let found = |key: &String| found.remove(key).unwrap_or_else(|| DocumentRow::absent(key));
    Ok(keys.iter().map(found).collect())
}

pub(super) struct ViewColumns<'a> {
    view: &'a str,
    group: &'a str,
    keys: Vec<&'a str>,
    partitions: Vec<Option<i16>>,
    versions: Vec<i64>,
    values: Vec<Option<Jsonb<'a>>>,
    as_of: Vec<serde_json::Value>,
    checkpoint_partitions: Vec<i16>,
    checkpoint_from: Vec<i64>,
    checkpoint_to: Vec<i64>,
}

impl<'a> ViewColumns<'a> {
    pub(super) fn of(
        view: &'a str,
        documents: &'a [DocumentWrite],
        moves: &'a [CheckpointMove],
    ) -> Self {
        let as_of = |document: &DocumentWrite| {
            serde_json::from_str(&as_of_json(&document.as_of)).unwrap_or_default()
        };
        let value = |document: &'a DocumentWrite| {
            document.value.as_ref().map(|value| Jsonb(value.as_str()))
        };
        Self {
            view,
            group: moves.first().map_or("", |moved| moved.group.as_str()),
            keys: documents.iter().map(|d| d.key.as_str()).collect(),
            partitions: documents.iter().map(|d| d.partition.map(|p| p.0)).collect(),
            versions: documents.iter().map(|d| d.version).collect(),
            values: documents.iter().map(value).collect(),
            as_of: documents.iter().map(as_of).collect(),
            checkpoint_partitions: moves.iter().map(|m| m.partition.0).collect(),
            checkpoint_from: moves.iter().map(|m| m.from.0).collect(),
            checkpoint_to: moves.iter().map(|m| m.to.0).collect(),
        }
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 10] {
        [
            &self.view,
            &self.group,
            &self.keys,
            &self.partitions,
            &self.versions,
            &self.values,
            &self.as_of,
            &self.checkpoint_partitions,
            &self.checkpoint_from,
            &self.checkpoint_to,
        ]
    }
}
