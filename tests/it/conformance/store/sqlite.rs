//! The two forms of the SQLite store, and what only they do.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use adjutant::{
    message::{GroupName, LogId, Offset, PartitionCount, Version},
    store::{
        Accepted, CheckpointMove, DecideAgain, Entering, Execution, Intake, LogKind, Members,
        Outbox, Store, StoreError,
        sqlite::{ClockSource, SqliteOpenError, SqliteSettings, SqliteStore},
    },
};
use time::OffsetDateTime;

use super::{
    Truth,
    look::{self, appended},
    membership,
};
use crate::support::{
    commands::{add, stream},
    sql::Sql,
};

/// A directory that goes away.
pub struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let name = format!("adjutant-{}", uuid::Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a temporary directory");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("store.sqlite")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

fn open(path: &Path) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(SqliteSettings::new(path)).expect("open"))
}

pub fn file(partitions: i64) -> Pin<Box<dyn Future<Output = Truth>>> {
    Box::pin(async move {
        let directory = Directory::new();
        let partitions = Some(PartitionCount::new(partitions).expect("count"));
        let settings = SqliteSettings { partitions, ..SqliteSettings::new(directory.file()) };
        let store = Arc::new(SqliteStore::open(settings).expect("open"));
        let sql = Sql::sqlite(store.clone());
        Truth { store: store.clone(), other: store, sql, _keeps: Box::new(directory) }
    })
}

pub fn memory(partitions: i64) -> Pin<Box<dyn Future<Output = Truth>>> {
    Box::pin(async move {
        let partitions = PartitionCount::new(partitions).expect("count");
        let store = SqliteStore::in_memory(partitions, ClockSource::system(), LogId::generate());
        let store = Arc::new(store.expect("open"));
        let sql = Sql::sqlite(store.clone());
        Truth { store: store.clone(), other: store, sql, _keeps: Box::new(()) }
    })
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let directory = Directory::new();
    let store: Arc<dyn Store> = open(&directory.file());
    let identity = store.identity();
    let command = add("a", 1);
    store.accept(vec![command.clone(), add("b", 2)]).await.expect("accept");
    let mut commit = appended(&store, "a", 1);
    commit.outcomes[0].command_id = command.id;
    commit.outcomes[0].log_offset = Some(Offset(1));
    let partition = commit.outcomes[0].partition;
    commit.checkpoints = vec![CheckpointMove {
        group: GroupName::commands(),
        partition,
        from: Offset(0),
        to: Offset(1),
    }];
    store.commit_commands(commit).await.expect("commit");
    let outbox: Vec<i64> = look::outbox(&store).await.iter().map(|row| row.id).collect();
    store.delete_outbox(&outbox).await.expect("delete");
    drop(store);
    let store: Arc<dyn Store> = open(&directory.file());
    assert_eq!(store.identity(), identity);
    let record = store.command(command.id).await.expect("query").expect("is there");
    assert!(record.outcome.is_some());
    assert_eq!(look::gapless(&store, LogKind::Commands).await, 2);
    let events = store.stream_events(&stream("a"), Version(0), 10).await.expect("events");
    assert_eq!(events.len(), 1);
    let checkpoints = store.checkpoints(&GroupName::commands()).await.expect("checkpoints");
    assert_eq!(checkpoints[partition.index()], Offset(1));
    let again = store.accept(vec![command]).await.expect("accept");
    assert!(matches!(again[0], Accepted::Occupied(_)));
    store.accept(vec![add("a", 3)]).await.expect("accept");
    let rows = look::outbox(&store).await;
    assert!(rows[0].id > outbox[outbox.len() - 1], "ids go on after a restart, too");
}

#[tokio::test]
async fn a_file_is_held_by_one_store_at_a_time() {
    let directory = Directory::new();
    let first = open(&directory.file());
    let second = SqliteStore::open(SqliteSettings::new(directory.file()));
    let Err(error @ SqliteOpenError::InUse { .. }) = second else { panic!("opened twice") };
    let text = error.to_string();
    assert!(text.contains("store.sqlite is in use") && text.contains("stop it"), "{text}");
    first.accept(vec![add("a", 1)]).await.expect("the first is not disturbed");
    drop(first);
    open(&directory.file());
}

/// A process that was killed must not own partitions until its silence is noticed.
#[tokio::test]
async fn whoever_opens_a_file_is_its_only_member() {
    let directory = Directory::new();
    let ttl = Duration::from_secs(3_600);
    let killed = open(&directory.file());
    killed.heartbeat(&membership::beat("killed"), ttl).await.expect("heartbeat");
    drop(killed);
    let store = open(&directory.file());
    assert_eq!(store.live_members(ttl).await.expect("members"), []);
    let (_, live) = store.heartbeat(&membership::beat("next"), ttl).await.expect("heartbeat");
    assert_eq!(live.len(), 1, "{live:?}");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_refused_with_what_to_do() {
    let directory = Directory::new();
    let path = directory.file();
    let refused = |settings: SqliteSettings| match SqliteStore::open(settings) {
        Ok(_) => panic!("opened"),
        Err(error) => error.to_string(),
    };
    let three = Some(PartitionCount::new(3).expect("count"));
    let with_three = || SqliteSettings { partitions: three, ..SqliteSettings::new(&path) };
    drop(SqliteStore::open(with_three()).expect("open"));
    assert_eq!(open(&path).identity().partitions.get(), 3, "whoever does not ask takes what is");
    let four = SqliteSettings { partitions: PartitionCount::new(4).ok(), ..with_three() };
    let text = refused(four);
    assert!(text.contains("initialised with 3 partitions; 4 were asked for"), "{text}");
    // Another release wrote it. The version is at byte 60 of the file's header.
    let bytes = std::fs::read(&path).expect("read");
    let ours = u32::from_be_bytes(bytes[60..64].try_into().expect("4 bytes"));
    let set_version = |version: u32| {
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[60..64].copy_from_slice(&version.to_be_bytes());
        std::fs::write(&path, bytes).expect("write");
    };
    set_version(99);
    let text = refused(with_three());
    assert!(text.contains("schema 99") && text.contains("newer release"), "{text}");
    set_version(ours);
    drop(open(&path));
    // Another program's: its application id is at byte 68.
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[68..72].copy_from_slice(&[0; 4]);
    std::fs::write(&path, bytes).expect("write");
    let text = refused(with_three());
    assert!(text.contains("another program"), "{text}");
    std::fs::write(&path, "no database at all, but a text of some length".repeat(50))
        .expect("write");
    let text = refused(with_three());
    assert!(text.contains("store.sqlite cannot be opened"), "{text}");
    let text = refused(SqliteSettings::new(path.join("below/a/file")));
    assert!(text.contains("cannot be opened"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_a_commit() {
    let directory = Directory::new();
    let store = open(&directory.file());
    let before = store.commits();
    // While one caller holds the writer, the others queue.
    let streams = [(stream("hot"), 1)];
    let callers = std::sync::Mutex::new(Vec::new());
    let decide: DecideAgain<'_> = Box::new(|_| {
        let accepts = (0..100).map(|i| {
            let store = store.clone();
            tokio::spawn(async move { store.accept(vec![add(&format!("c{i}"), 1)]).await })
        });
        callers.lock().expect("lock").extend(accepts);
        std::thread::sleep(Duration::from_millis(200));
        let dynamic: Arc<dyn Store> = store.clone();
        Ok(appended(&dynamic, "hot", 1))
    });
    store
        .commit_exclusively(&[].into(), &streams, &Entering::default(), decide)
        .await
        .expect("commit");
    for caller in callers.into_inner().expect("lock") {
        caller.await.expect("task").expect("accept");
    }
    let commits = store.commits() - before;
    assert!(commits <= 20, "{commits} commits for 101 callers");
    assert!(commits >= 1);
    let store: Arc<dyn Store> = store;
    assert_eq!(look::gapless(&store, LogKind::Commands).await, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_caller_does_not_hurt_those_who_share_its_commit() {
    let directory = Directory::new();
    let store = open(&directory.file());
    let callers: Vec<_> = (0..200)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut batch = vec![add("a", 1), add("b", 1)];
                if i % 3 == 0 {
                    batch[1].payload = look::unstorable();
                }
                (i, store.accept(batch).await)
            })
        })
        .collect();
    for caller in callers {
        match caller.await.expect("task") {
            (i, Ok(_)) => assert_ne!(i % 3, 0),
            (i, Err(StoreError::Unstorable(_))) => assert_eq!(i % 3, 0),
            (i, Err(error)) => panic!("{i}: {error}"),
        }
    }
    let store: Arc<dyn Store> = store;
    assert_eq!(look::gapless(&store, LogKind::Commands).await, 2 * 133);
    assert_eq!(look::commands(&store).await, 2 * 133);
}

/// A caller that does not decide must not hold the writer for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_decide_in_time_writes_nothing() {
    let directory = Directory::new();
    let settings = SqliteSettings {
        decide_within: Duration::from_millis(50),
        ..SqliteSettings::new(directory.file())
    };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(settings).expect("open"));
    let streams = [(stream("hot"), 1)];
    let slow: DecideAgain<'_> = Box::new(|_| {
        std::thread::sleep(Duration::from_millis(500));
        Ok(appended(&store, "hot", 1))
    });
    let nowhere = [].into();
    let nothing = Entering::default();
    let (tried, accepted) = tokio::join!(
        store.commit_exclusively(&nowhere, &streams, &nothing, slow),
        store.accept(vec![add("a", 1)]),
    );
    let Err(StoreError::Transient(text)) = tried else { panic!("{tried:?}") };
    assert!(text.contains("no decision within 50ms"), "{text}");
    accepted.expect("the others go on");
    assert_eq!(look::gapless(&store, LogKind::Events).await, 0);
}

/// A panic of the domain's code inside a transaction rolls it back and leaves the store sound.
#[tokio::test]
async fn a_decision_that_panics_in_memory_leaves_nothing() {
    let truth = memory(8).await;
    let store = truth.store.clone();
    let tried = tokio::spawn(async move {
        let decide: DecideAgain<'_> = Box::new(|_| panic!("told to"));
        store
            .commit_exclusively(&[].into(), &[(stream("a"), 1)], &Entering::default(), decide)
            .await
    });
    assert!(tried.await.expect_err("panicked").is_panic());
    let store = &truth.store;
    store.commit_commands(appended(store, "a", 1)).await.expect("commit");
    assert_eq!(look::gapless(store, LogKind::Events).await, 1);
}

/// Stored times and due times come from the injected clock alone.
#[tokio::test]
async fn a_run_under_an_injected_clock_repeats_exactly() {
    let run = async || {
        let micros = Arc::new(AtomicI64::new(1_000_000_000));
        let told = micros.clone();
        let clock = ClockSource::new(move || {
            let micros = i128::from(told.load(Ordering::Relaxed));
            OffsetDateTime::from_unix_timestamp_nanos(micros * 1_000).expect("a time")
        });
        let log_id = LogId(uuid::Uuid::from_u128(7));
        let store = SqliteStore::in_memory(PartitionCount::DEFAULT, clock, log_id).expect("open");
        assert_eq!(store.identity().log_id, log_id);
        let start = store.now().await.expect("now");
        let mut delayed = add("a", 1);
        delayed.id = adjutant::message::CommandId(uuid::Uuid::from_u128(1));
        delayed.not_before = Some(start + Duration::from_secs(3_600));
        store.accept(vec![delayed]).await.expect("accept");
        let all: Vec<_> = store.identity().partitions.all().collect();
        assert_eq!(store.promote_due(&all, Duration::ZERO, 10).await.expect("promote"), 0);
        micros.fetch_add(3_600_000_000, Ordering::Relaxed);
        assert_eq!(store.promote_due(&all, Duration::ZERO, 10).await.expect("promote"), 1);
        let store: Arc<dyn Store> = Arc::new(store);
        format!("{:?}{:?}", look::log(&store, LogKind::Commands).await, look::outbox(&store).await)
    };
    assert_eq!(run().await, run().await);
}
