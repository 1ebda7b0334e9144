//! Maintaining views.

use adjutant::{
    message::{GroupName, Offset, Partition, Position, RawJson},
    store::{
        CheckpointMove, DocumentRow, DocumentWrite, Fence, FoldDocuments, FoldRequest, StoreError,
        ViewCommit,
    },
};

use super::{
    Open,
    look::{appended, assert_fenced, document},
};
use crate::support::commands::stream;

fn commit(documents: Vec<DocumentWrite>) -> ViewCommit {
    ViewCommit { view: "v".into(), documents, ..ViewCommit::default() }
}

pub async fn a_document_of_one_stream_that_two_partitions_feed_is_refused(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    store.commit_view(commit(vec![document("k", Partition(1), 1)])).await.expect("commit");
    let both = vec![document("j", Partition(2), 1), document("k", Partition(2), 2)];
    let refused = store.commit_view(commit(both)).await;
    assert!(matches!(refused, Err(StoreError::ScopeViolated(_))), "{refused:?}");
    let rows = store.load_documents("v", &["j".into(), "k".into()]).await.expect("load");
    assert_eq!((rows[0].version, rows[1].version), (0, 1), "its neighbour is not written either");
    let shared = DocumentWrite { partition: None, ..document("k", Partition(2), 2) };
    store.commit_view(commit(vec![shared])).await.expect("a shared document has many sources");
}

/// Law 3: a view and its checkpoint move together, or neither does.
pub async fn a_view_is_not_written_when_its_checkpoint_is_elsewhere(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    for version in 1..=3 {
        store.commit_commands(appended(store, "a", version)).await.expect("commit");
    }
    let partition = store.identity().partitions.of(&stream("a"));
    let group = GroupName::projection("v");
    let moved = |from, to| {
        let (from, to) = (Offset(from), Offset(to));
        vec![CheckpointMove { group: group.clone(), partition, from, to }]
    };
    let at = |version, from, to| ViewCommit {
        view: "v".into(),
        documents: vec![document("k", partition, version)],
        checkpoints: moved(from, to),
        ..ViewCommit::default()
    };
    store.commit_view(at(1, 0, 1)).await.expect("commit");
    for (from, to) in [(0, 1), (0, 2), (2, 3)] {
        assert_fenced(store.commit_view(at(9, from, to)).await, Fence::Checkpoint);
    }
    assert_fenced(store.commit_view(at(9, 1, 4)).await, Fence::NotInLog);
    let request = FoldRequest {
        view: "v".into(),
        keys: vec!["s".into()],
        checkpoints: moved(0, 2),
        ..FoldRequest::default()
    };
    let fold = |rows: Vec<DocumentRow>| {
        let write = |row: &DocumentRow| DocumentWrite {
            partition: None,
            ..document(&row.key, partition, 1)
        };
        Ok(rows.iter().map(write).collect::<Vec<_>>().into())
    };
    assert_fenced(store.fold_shared(request, Box::new(fold)).await, Fence::Checkpoint);
    let rows = store.load_documents("v", &["k".into(), "s".into()]).await.expect("load");
    assert_eq!((rows[0].version, rows[1].version), (1, 0), "nothing with a stale checkpoint");
    assert_eq!(store.checkpoints(&group).await.expect("checkpoints")[partition.index()], Offset(1));
    let request = FoldRequest {
        view: "v".into(),
        keys: vec!["s".into()],
        checkpoints: moved(1, 2),
        ..FoldRequest::default()
    };
    store.fold_shared(request, Box::new(fold)).await.expect("fold");
    assert_eq!(store.checkpoints(&group).await.expect("checkpoints")[partition.index()], Offset(2));
}

/// An absent row cannot be locked: broken by leaving out the empty insert.
pub async fn documents_that_many_fold_at_once_lose_no_update(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    for round in 0..10 {
        let keys = [format!("b{round}"), format!("a{round}")];
        let folders: Vec<_> = (0..6)
            .map(|folder| {
                let (store, keys) = (store.clone(), keys.to_vec());
                tokio::spawn(async move {
                    let request = FoldRequest {
                        view: "sum".into(),
                        keys: keys.clone(),
                        ..FoldRequest::default()
                    };
                    let position = Position { partition: Partition(folder), offset: Offset(1) };
                    let write = |row: DocumentRow| DocumentWrite {
                        version: row.version + 1,
                        value: Some(RawJson::encode(&(row.version + 1)).expect("json")),
                        as_of: [row.as_of, vec![position]].concat(),
                        partition: None,
                        key: row.key,
                    };
                    let fold: FoldDocuments<'_> = Box::new(|rows| {
                        // In the order of the request.
                        assert!(rows.iter().map(|row| &row.key).eq(keys.iter()));
                        Ok(rows.into_iter().map(write).collect::<Vec<_>>().into())
                    });
                    store.fold_shared(request, fold).await.expect("fold");
                })
            })
            .collect();
        for folder in folders {
            folder.await.expect("folder");
        }
        for row in store.load_documents("sum", &keys).await.expect("load") {
            assert_eq!(row.version, 6, "{row:?}");
            assert_eq!(row.as_of.len(), 6, "{row:?}");
            assert_eq!(row.value.expect("value").as_str(), "6");
        }
    }
}

pub async fn a_fold_that_fails_writes_nothing(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let request = || FoldRequest {
        view: "v".into(),
        keys: vec!["a".into(), "b".into()],
        ..FoldRequest::default()
    };
    let give_up: FoldDocuments<'_> = Box::new(|_| Err(StoreError::Corrupt("no".into())));
    let refused = store.fold_shared(request(), give_up).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    let bad: FoldDocuments<'_> = Box::new(|_| {
        let unstorable = Some(RawJson::from_trusted("\"\\u0000\"".into()));
        let second = DocumentWrite { value: unstorable, ..document("b", Partition(0), 1) };
        Ok(vec![document("a", Partition(0), 1), second].into())
    });
    let refused = store.fold_shared(request(), bad).await;
    assert!(matches!(refused, Err(StoreError::Unstorable(_))), "{refused:?}");
    assert!(store.view("v", "a").await.expect("view").is_none());
    let rows = store.load_documents("v", &["a".into()]).await.expect("load");
    assert_eq!(rows[0].version, 0);
    let nothing: FoldDocuments<'_> = Box::new(|_| Ok(Vec::new().into()));
    store.fold_shared(request(), nothing).await.expect("nothing is locked");
    assert!(store.views("v", "", None, 10).await.expect("views").is_empty());
}

pub async fn documents_are_loaded_in_the_order_of_their_keys(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let partition = Partition(3);
    let documents = vec![document("a", partition, 4), document("c", partition, 1)];
    store.commit_view(commit(documents)).await.expect("commit");
    let keys = ["c", "b", "a"].map(str::to_owned);
    let rows = store.load_documents("v", &keys).await.expect("load");
    let found: Vec<_> = rows.iter().map(|row| (row.key.as_str(), row.version)).collect();
    assert_eq!(found, [("c", 1), ("b", 0), ("a", 4)]);
    assert_eq!(rows[2].as_of, [Position { partition, offset: Offset(4) }]);
    assert!(rows[1].value.is_none() && rows[1].as_of.is_empty());
    assert!(store.load_documents("v", &[]).await.expect("load").is_empty());
    let other = store.load_documents("w", &keys).await.expect("load");
    assert!(other.iter().all(|row| row.version == 0), "of another view");
}

pub async fn views_are_listed_by_prefix_and_page(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let keys = ["Z", "a", "a/1", "a/2", "a/\u{10ffff}", "ab", "b", "ä"];
    let mut documents: Vec<_> = keys.iter().map(|key| document(key, Partition(0), 1)).collect();
    documents.push(DocumentWrite { value: None, ..document("a/3", Partition(0), 2) });
    store.commit_view(commit(documents)).await.expect("commit");
    let list = async |prefix: &str, after: Option<&str>, limit| {
        let rows = store.views("v", prefix, after, limit).await.expect("views");
        rows.into_iter().map(|row| row.key).collect::<Vec<_>>()
    };
    assert_eq!(list("", None, 100).await, keys, "by bytes, without the deleted one");
    assert_eq!(list("a/", None, 100).await, ["a/1", "a/2", "a/\u{10ffff}"]);
    assert_eq!(list("a", Some("a"), 2).await, ["a/1", "a/2"]);
    assert_eq!(list("a", Some("a/2"), 100).await, ["a/\u{10ffff}", "ab"]);
    assert!(list("b", Some("b"), 100).await.is_empty());
    let one = store.view("v", "a/2").await.expect("view").expect("is there");
    assert_eq!((one.version, one.value.expect("value").as_str()), (1, "1"));
    assert!(store.view("v", "a/3").await.expect("view").is_none(), "deleted");
}
