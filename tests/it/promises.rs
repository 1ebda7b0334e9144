//! Dispatching from Rust: a handle is a promise of its command's outcome, whoever executes it.

use std::time::Duration;

use adjutant::{
    immediate::{
        CommandHandle, DispatchError, Dispatcher, DispatcherParts, ImmediateSettings, NotSucceeded,
        Request,
    },
    ingress::Validator,
    message::{CommandId, Timestamp},
    store::{CommandStatus, Queries, Role},
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    domain::{self, Add, Counter, CounterCommand, CounterError, Flaky, LIMIT},
    eventually,
    lane::Lane,
    process::{ALL, Site},
    soon,
};

struct Fixture {
    site: Site,
    process: adjutant::service::Process,
    _lane: Lane,
    dispatcher: Dispatcher,
}

async fn start(roles: &[Role], max_waiters: usize) -> Fixture {
    let site = Site::new().await;
    let process = site.start_patient(roles).await;
    let lane = Lane::with(&site, &process, ImmediateSettings::default()).await;
    let dispatcher = dispatcher(&site, &process, &lane, max_waiters).await;
    Fixture { site, process, _lane: lane, dispatcher }
}

async fn dispatcher(
    site: &Site,
    process: &adjutant::service::Process,
    lane: &Lane,
    max_waiters: usize,
) -> Dispatcher {
    Dispatcher::start(DispatcherParts {
        store: site.database.store().await,
        signals: process.signals().clone(),
        validator: Validator::new(domain::service().registry().clone()).with_immediate_lane(true),
        commit: lane.commit.clone(),
        processor: lane.processor.clone(),
        max_waiters,
        stop: CancellationToken::new(),
    })
}

fn add(counter: &str, amount: i64) -> Request<Counter> {
    Request::new(counter, CounterCommand::Add(Add { amount }))
}

fn flaky(counter: &str, fails: u32, how: &str) -> Request<Counter> {
    let key = CommandId::generate().to_string();
    let flaky = Flaky { key, fails, how: how.to_owned(), amount: 1 };
    Request::new(counter, CounterCommand::Flaky(flaky))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_gives_the_typed_reply_or_the_typed_error() {
    let it = start(&ALL, 100).await;
    let handle = it.dispatcher.dispatch(add("a", 5)).await.expect("accepted");
    assert!(it.site.store.command(handle.id()).await.expect("command").is_some(), "durable");
    assert_eq!(soon("it ends", handle.outcome()).await.expect("succeeded"), 5);
    let over = it.dispatcher.dispatch(add("a", LIMIT)).await.expect("accepted");
    match soon("it ends", over.outcome()).await {
        Err(NotSucceeded::Rejected { error: Some(CounterError::OverLimit), failure }) => {
            assert_eq!(failure.code, "over_limit");
        }
        other => panic!("{other:?}"),
    }
    let fatal = it.dispatcher.dispatch(flaky("a", 9, "fatal")).await.expect("accepted");
    match soon("it ends", fatal.outcome()).await {
        Err(NotSucceeded::Dead(failure)) => assert_eq!(failure.code, "impossible"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_hears_of_a_command_that_others_finish() {
    let it = start(&ALL, 100).await;
    let queued = it.dispatcher.dispatch_queued(add("a", 5)).await.expect("accepted");
    assert_eq!(soon("it ends", queued.outcome()).await.expect("succeeded"), 5);
    let retried = it.dispatcher.dispatch(flaky("b", 2, "retryable")).await.expect("accepted");
    assert_eq!(soon("it ends", retried.outcome()).await.expect("succeeded"), 1);
    let late = Timestamp::now_utc() + Duration::from_millis(300);
    let delayed = it.dispatcher.dispatch_at(late, add("c", 5)).await.expect("accepted");
    assert_eq!(delayed.status().await.expect("status"), CommandStatus::Scheduled);
    assert_eq!(soon("it ends", delayed.outcome()).await.expect("succeeded"), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_did_not_send_a_command_may_have_its_handle() {
    let it = start(&ALL, 100).await;
    let sent = it.dispatcher.dispatch(add("a", 5)).await.expect("accepted");
    let other = it.site.start(&[Role::Ingress]).await;
    let lane = Lane::of(&it.site, &other).await;
    let dispatcher = dispatcher(&it.site, &other, &lane, 100).await;
    let handle: CommandHandle<Counter> = dispatcher.handle(sent.id());
    assert_eq!(soon("it ends", handle.outcome()).await.expect("succeeded"), 5);
    let nobody: CommandHandle<Counter> = dispatcher.handle(CommandId::generate());
    assert!(nobody.status().await.is_err());
    assert!(matches!(nobody.outcome().await, Err(NotSucceeded::Ask(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_handle_cancels_nothing_and_a_callback_is_called() {
    let it = start(&ALL, 100).await;
    let dropped = it.dispatcher.dispatch(add("a", 1)).await.expect("accepted");
    let id = dropped.id();
    drop(dropped);
    it.site.until_ended(&[id]).await;
    let (tell, told) = tokio::sync::oneshot::channel();
    let handle = it.dispatcher.dispatch(add("a", 1)).await.expect("accepted");
    handle.on_complete(move |outcome| {
        let _ = tell.send(outcome.expect("succeeded"));
    });
    assert_eq!(soon("it is called", told).await.expect("called"), 2);
    drop(it.process);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_to_wait_a_handle_asks_by_itself() {
    let it = start(&ALL, 0).await;
    let handle = it.dispatcher.dispatch_queued(add("a", 5)).await.expect("accepted");
    assert_eq!(soon("it ends", handle.outcome()).await.expect("succeeded"), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_valid_is_refused_before_anything_is_stored() {
    let it = start(&[Role::Ingress], 100).await;
    let refused = it.dispatcher.dispatch(add("a", 0)).await;
    let Err(DispatchError::Invalid(problem)) = refused else { panic!("it was accepted") };
    assert_eq!(problem.errors[0].pointer, "/payload/amount");
    let Err(DispatchError::Invalid(_)) = it.dispatcher.dispatch(add("a b", 1)).await else {
        panic!("it was accepted")
    };
    let pool = it.site.database.pool().await;
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.commands")
        .fetch_one(&pool)
        .await
        .expect("count");
    assert_eq!(stored, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_cancelled_once_in_either_lane_and_whoever_waits_hears_it_at_once() {
    let it = start(&ALL, 100).await;
    let late = Timestamp::now_utc() + Duration::from_secs(3_600);
    let delayed = it.dispatcher.dispatch_at(late, add("a", 5)).await.expect("accepted");
    // A handler that hangs keeps the next one of its stream from being started.
    let key = CommandId::generate().to_string();
    let flaky = Flaky { key: key.clone(), fails: 1, how: "hang".to_owned(), amount: 1 };
    let blocks = Request::<Counter>::new("b", CounterCommand::Flaky(flaky));
    let blocks = it.dispatcher.dispatch(blocks).await.expect("accepted");
    eventually("it is at it", async || (domain::tries(&key) > 0).then_some(())).await;
    let held = it.dispatcher.dispatch(add("b", 5)).await.expect("accepted");
    for handle in [delayed, held] {
        // Whoever calls it off knows its id only, as by HTTP.
        let other = it.dispatcher.handle::<Counter>(handle.id());
        let hears = tokio::spawn(handle.outcome());
        assert!(other.cancel("ada", Some("sent twice")).await.expect("cancelled"));
        assert!(!other.cancel("ada", None).await.expect("it has ended"));
        // The one before it hangs still.
        match soon("it is told", hears).await.expect("no panic") {
            Err(NotSucceeded::Cancelled(failure)) => assert_eq!(failure.code, "cancelled"),
            other => panic!("{other:?}"),
        }
    }
    domain::repair(&key);
    soon("it ends", blocks.raw_outcome()).await.expect("it ends");
}

/// Whoever has a dispatcher still does not keep a server from stopping, and hears that it stops.
#[cfg(all(feature = "embedded", feature = "http"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stops_at_once_though_a_dispatcher_and_a_handle_are_kept() {
    use adjutant::service::{Backing, EmbeddedSettings, Server, ServerSettings};
    let directory = std::env::temp_dir().join(format!("adjutant-{}", CommandId::generate()));
    let mut settings =
        ServerSettings::on(Backing::Embedded(EmbeddedSettings::new(directory.clone())));
    settings.ingress.listen = ([127, 0, 0, 1], 0).into();
    settings.admin_listen = None;
    let server = Server::start(domain::service(), settings).await.expect("start");
    let dispatcher = server.dispatcher().expect("role ingress").clone();
    let late = Timestamp::now_utc() + Duration::from_secs(3_600);
    let waits = dispatcher.dispatch_at(late, add("a", 5)).await.expect("accepted");
    let done = dispatcher.dispatch(add("a", 5)).await.expect("accepted");
    assert_eq!(soon("it ends", done.outcome()).await.expect("succeeded"), 5);
    let hears = tokio::spawn(waits.outcome());
    let began = tokio::time::Instant::now();
    server.stop(Duration::from_secs(60)).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let told = soon("it is told", hears).await.expect("no panic");
    assert!(matches!(told, Err(NotSucceeded::Ask(_))), "{told:?}");
    let refused = dispatcher.dispatch(add("a", 5)).await;
    assert!(matches!(refused, Err(DispatchError::Refused(_))));
    std::fs::remove_dir_all(directory).expect("remove");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executing_waits_and_a_handle_of_what_goes_on_is_given_back() {
    let it = start(&ALL, 100).await;
    let wait = Duration::from_secs(30);
    let handle = it.dispatcher.execute(add("a", 5), wait).await.expect("accepted");
    assert!(matches!(handle.status().await.expect("status"), CommandStatus::Ended(_)));
    let handle = it.dispatcher.execute(flaky("b", 1, "retryable"), wait).await.expect("accepted");
    eventually("it has ended", async || {
        matches!(handle.status().await, Ok(CommandStatus::Ended(_))).then_some(())
    })
    .await;
    assert_eq!(soon("it ends", handle.outcome()).await.expect("succeeded"), 1);
}
