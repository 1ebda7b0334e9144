//! `bank verify --sqlite`: a file that is not ours is no verdict, and an audit changes nothing.

use std::path::Path;

use serde_json::Value;

use crate::{
    history::History,
    support::{
        any_store::AnyStore,
        file::File,
        process::{program, run},
    },
};

/// `bank verify --json --sqlite`: its exit code, its verdict, and what it complained of.
async fn verify(path: &Path) -> (Option<i32>, Value, String) {
    let mut command = program();
    command.args(["verify", "--json", "--sqlite"]).arg(path);
    let output = run(command).await;
    let verdict = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), verdict, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn a_file_is_audited_by_its_own_name_or_its_directorys() {
    let store = AnyStore::file();
    History::write(&store).await;
    let AnyStore::Sqlite(file) = &store else { unreachable!() };
    let before = std::fs::read(file.path()).unwrap();
    for path in [file.path().as_path(), file.directory()] {
        let (code, verdict, complaint) = verify(path).await;
        assert_eq!(code, Some(0), "{verdict} {complaint}");
        assert_eq!(verdict["counts"]["commands"], 37);
        assert_eq!(verdict["events_behind"], serde_json::json!({}));
    }
    assert!(std::fs::read(file.path()).unwrap() == before, "an audit changes nothing");

    let behind = "DELETE FROM adjutant.checkpoints WHERE group_name = 'projection.balances';
                  UPDATE adjutant.checkpoints SET reached = reached - 1 WHERE reached > 1";
    assert!(file.run(behind) > 0);
    let (code, verdict, _) = verify(&file.path()).await;
    assert_eq!(code, Some(0), "{verdict}");
    assert!(verdict["events_behind"]["projection.statements"].as_i64() > Some(0), "{verdict}");
}

/// Everything is still in the write-ahead log: of a service that runs, and of one that was killed.
#[tokio::test]
async fn a_file_is_audited_while_its_service_runs_and_after_its_death() {
    let store = AnyStore::file();
    let AnyStore::Sqlite(file) = &store else { unreachable!() };
    let service = file.connect();
    let reads = "BEGIN; SELECT count(*) FROM adjutant.commands";
    service.execute_batch(reads).unwrap();
    History::write(&store).await;
    let (code, verdict, complaint) = verify(&file.path()).await;
    assert_eq!(code, Some(0), "{verdict} {complaint}");
    assert_eq!(verdict["counts"]["commands"], 37);

    let dead = File::absent();
    let log = |file: &File| file.directory().join("adjutant.sqlite-wal");
    std::fs::copy(file.path(), dead.path()).unwrap();
    std::fs::copy(log(file), log(&dead)).unwrap();
    drop(service);
    let (code, verdict, complaint) = verify(&dead.path()).await;
    assert_eq!(code, Some(0), "{verdict} {complaint}");
    assert_eq!(verdict["counts"]["commands"], 37);
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_no_verdict() {
    let absent = File::absent();
    let (code, verdict, complaint) = verify(&absent.path()).await;
    assert_eq!((code, verdict), (Some(1), Value::Null));
    assert!(complaint.contains("cannot be audited"), "{complaint}");
    assert!(!absent.path().exists(), "nothing is created");

    std::fs::write(absent.path(), "words, not pages, and more than a few of them".repeat(100))
        .unwrap();
    let (code, _, complaint) = verify(&absent.path()).await;
    assert_eq!(code, Some(1));
    assert!(complaint.contains("not a database"), "{complaint}");

    std::fs::write(absent.path(), "").unwrap();
    let (code, _, complaint) = verify(&absent.path()).await;
    assert_eq!(code, Some(1));
    assert!(complaint.contains("no such table"), "{complaint}");
}

#[tokio::test]
async fn a_value_of_the_wrong_kind_is_no_verdict() {
    let store = AnyStore::file();
    History::write(&store).await;
    store.run("UPDATE adjutant.views SET value = '{' WHERE view = 'balances' AND key = 'a'").await;
    let AnyStore::Sqlite(file) = &store else { unreachable!() };
    let (code, _, complaint) = verify(&file.path()).await;
    assert_eq!(code, Some(1));
    assert!(complaint.contains("column `value` is no document"), "{complaint}");
}

#[tokio::test]
async fn a_file_and_a_url_are_too_many() {
    let mut command = program();
    command.args(["verify", "--sqlite", "a", "--database-url", "postgres://b/c"]);
    assert_eq!(run(command).await.status.code(), Some(2));
}
