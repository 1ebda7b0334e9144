//! Maintaining views: documents and checkpoints in one transaction.

use async_trait::async_trait;
use rusqlite::{Row, params};

use super::{
    SqliteStore, storable,
    transaction::{Transaction, column},
};
use crate::{
    message::RawJson,
    store::{
        CheckpointMove, DocumentRow, DocumentWrite, FoldDocuments, FoldRequest, Folded, LogKind,
        StoreError, ViewCommit, ViewDocuments, Views,
        stored::{as_of, as_of_json, raw},
    },
};

/// Served by the primary key.
const LOAD: &str = "
    SELECT key, version, value, as_of, parked FROM views WHERE view = ?1 AND key = ?2";

/// A document that only one partition may feed is not written by another.
const WRITE: &str = "
    INSERT INTO views AS v (view, key, partition, version, value, as_of, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT (view, key) DO UPDATE
       SET version = excluded.version, value = excluded.value, as_of = excluded.as_of,
           updated_at = excluded.updated_at, partition = excluded.partition
     WHERE excluded.partition IS NULL OR v.partition IS excluded.partition";

#[async_trait]
impl Views for SqliteStore {
    async fn load_documents(
        &self,
        view: &str,
        keys: &[String],
    ) -> Result<ViewDocuments, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (view, keys) = (view.to_owned(), keys.to_vec());
        self.engine.read(move |transaction| transaction.load_documents(&view, &keys)).await
    }

    async fn commit_view(&self, commit: ViewCommit) -> Result<(), StoreError> {
        let ViewCommit { view, documents, checkpoints, passed, parked } = commit;
        if planted!(ViewBeforeCheckpoint) {
            let name = view.clone();
            let documents = self.engine.write(move |it| it.commit_view(&name, &documents, &[]));
            documents.await?;
            let checkpoints = self.engine.write(move |it| it.commit_view(&view, &[], &checkpoints));
            return checkpoints.await;
        }
        let committed = self.engine.write(move |transaction| {
            transaction.pass_parked(&view, &passed)?;
            transaction.commit_view(&view, &documents, &checkpoints)?;
            transaction.park(&view, &parked)
        });
        committed.await
    }

    async fn fold_shared(
        &self,
        request: FoldRequest,
        fold: FoldDocuments<'_>,
    ) -> Result<(), StoreError> {
        let FoldRequest { view, keys, checkpoints, passed } = request;
        let loaded_view = view.clone();
        if planted!(SharedFoldUnlocked) {
            let rows = self.engine.read(move |it| it.load_documents(&loaded_view, &keys)).await?;
            let folded = fold(rows)?;
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            let written =
                self.engine.write(move |it| it.commit_folded(&view, &folded, &checkpoints));
            return written.await;
        }
        self.engine
            .converse(
                move |transaction| {
                    transaction.pass_parked(&loaded_view, &passed)?;
                    transaction.load_documents(&loaded_view, &keys)
                },
                fold,
                move |transaction, folded: Folded| {
                    transaction.commit_folded(&view, &folded, &checkpoints)
                },
            )
            .await
    }
}

impl Transaction<'_> {
    /// In the order of the keys.
    pub(super) fn load_documents(
        &self,
        view: &str,
        keys: &[String],
    ) -> Result<ViewDocuments, StoreError> {
        let load = |key: &String| {
            let found = self.first(LOAD, params![view, key], document)?;
            Ok(found.unwrap_or_else(|| DocumentRow::absent(key)))
        };
        keys.iter().map(load).collect()
    }

    fn commit_folded(
        &self,
        view: &str,
        folded: &Folded,
        checkpoints: &[CheckpointMove],
    ) -> Result<(), StoreError> {
        self.commit_view(view, &folded.documents, checkpoints)?;
        self.park(view, &folded.parked)?;
        self.refer(view, &folded.references)
    }

    pub(super) fn commit_view(
        &self,
        view: &str,
        documents: &[DocumentWrite],
        checkpoints: &[CheckpointMove],
    ) -> Result<(), StoreError> {
        for document in documents {
            let value = document.value.as_ref().map(RawJson::as_str);
            let written = self.execute(
                WRITE,
                params![
                    storable::text(view)?,
                    storable::text(&document.key)?,
                    document.partition.map(|partition| partition.0),
                    document.version,
                    storable::maybe_json(value)?,
                    as_of_json(&document.as_of),
                    self.now,
                ],
            )?;
            if written == 0 {
                return Err(StoreError::ScopeViolated(format!(
                    "a document of view {view} is fed by two partitions, but its projection \
                     declares scope Stream"
                )));
            }
        }
        self.move_checkpoints(LogKind::Events, checkpoints)
    }
}

pub(super) fn document(row: &Row<'_>) -> Result<DocumentRow, StoreError> {
    Ok(DocumentRow {
        key: column(row, 0)?,
        version: column(row, 1)?,
        value: raw(column(row, 2)?),
        as_of: as_of(&column::<String>(row, 3)?)?,
        parked: column(row, 4)?,
    })
}
