//! `GET /v1/commands/{id}/watch`.

use std::time::Duration;

use tokio::net::TcpSocket;

use super::{events::EventStream, *};
use crate::message::{OutcomeStatus, RawJson};

/// Waits until something holds.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(tokio::time::Instant::now() < patience, "it never came to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A number that `/metrics` shows.
async fn metric(api: &Api, name: &str) -> f64 {
    let shown = api.get("/metrics").await.body;
    let line = shown.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

const WATCHING: &str = "adjutant_watchers{kind=\"status\"}";
const WAITING: &str = "adjutant_watchers{kind=\"outcome\"}";
const DETACHED: &str = "adjutant_http_detached";

impl Api {
    async fn submitted(&self) -> CommandId {
        id_of(&self.submit(&deposit(5)).await)
    }

    /// A command that is not due yet.
    async fn scheduled(&self) -> CommandId {
        id_of(&self.submit(&with(deposit(5), "not_before", "2999-01-01T00:00:00Z")).await)
    }

    async fn watch(&self, id: CommandId, seen: Option<&str>) -> EventStream {
        EventStream::open(self.address, id, seen).await
    }

    fn is_due(&self, id: CommandId) {
        self.store.inside().commands.get_mut(&id).unwrap().scheduled = false;
    }

    /// Ends a command and says so, as an executor of this process does.
    fn ends(&self, id: CommandId, status: OutcomeStatus) {
        self.store.end(id, status);
        self.signals.commands_ended(vec![id]);
    }
}

#[tokio::test]
async fn each_status_is_seen_once_in_order_and_the_stream_is_closed_after_the_last() {
    let api = Api::start().await;
    let id = api.scheduled().await;
    let mut watch = api.watch(id, None).await;
    assert_eq!(watch.status, 200);
    for header in
        ["content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"]
    {
        assert!(watch.head.contains(header), "{header}: {}", watch.head);
    }
    let first = watch.next().await.unwrap();
    assert_eq!((first.name.as_str(), first.status()), ("status", "scheduled"));
    api.is_due(id);
    let second = watch.next().await.unwrap();
    assert_eq!(second.status(), "accepted");
    // Something else than its status changes, and is read: nothing is told.
    let read = api.store.inside().records_asked.len();
    api.store.inside().failed_attempts.insert(id, 1);
    until(async || api.store.inside().records_asked.len() > read).await;
    api.ends(id, OutcomeStatus::Rejected);
    let last = watch.next().await.unwrap();
    assert_eq!(last.status(), "rejected");
    assert_eq!(last.data, api.get(&format!("/v1/commands/{id}")).await.json(), "the resource");
    assert!(watch.next().await.is_none() && watch.is_complete);
    let ids = [first.id, second.id, last.id];
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
    until(async || metric(&api, WATCHING).await == 0.0).await;
}

#[tokio::test]
async fn the_first_piece_says_when_to_come_back() {
    let api = Api::start().await;
    let id = api.submitted().await;
    let first = api.watch(id, None).await.block().await.unwrap();
    assert!(first.starts_with("retry: 2000\nevent: status\nid: accepted-0\ndata: {"), "{first}");
    let resumed = api.watch(id, Some("accepted-0")).await.block().await.unwrap();
    assert_eq!(resumed, "retry: 2000\n:\n\n");
}

#[tokio::test]
async fn who_comes_back_to_another_process_is_told_only_what_is_new() {
    let api = Api::start().await;
    let other = Api::beside(&api).await;
    let id = api.scheduled().await;
    let seen = api.watch(id, None).await.next().await.unwrap().id;
    let mut same = other.watch(id, Some(&seen)).await;
    api.is_due(id);
    let accepted = same.next().await.unwrap();
    assert_eq!(accepted.status(), "accepted");
    drop(same);
    // What happened meanwhile is told at once: the newest only.
    api.ends(id, OutcomeStatus::Succeeded);
    let mut late = api.watch(id, Some(&accepted.id)).await;
    let end = late.next().await.unwrap();
    assert_eq!((end.status(), late.next().await.is_none()), ("succeeded", true));
    // Who has seen the end is told not to come back.
    for process in [&api, &other] {
        let over = process.watch(id, Some(&end.id)).await;
        assert_eq!(over.status, 204);
        assert!(over.head.contains("cache-control: no-store"), "{}", over.head);
    }
    // An id of nobody's is as none.
    assert_eq!(other.watch(id, Some("odd")).await.statuses().await, ["succeeded"]);
}

#[tokio::test]
async fn what_ended_before_is_one_event() {
    let api = Api::start().await;
    let id = api.submitted().await;
    api.store.end(id, OutcomeStatus::Dead);
    assert_eq!(api.watch(id, None).await.statuses().await, ["dead"]);
    assert!(api.store.inside().statuses_asked.is_empty(), "nothing is left to be asked");
}

#[tokio::test]
async fn a_dead_command_that_is_tried_again_goes_on_for_who_had_seen_its_death() {
    let api = Api::start().await;
    let id = api.submitted().await;
    api.store.end(id, OutcomeStatus::Dead);
    let death = api.watch(id, None).await.next().await.unwrap();
    api.store.inside().commands.get_mut(&id).unwrap().outcome = None;
    let mut watch = api.watch(id, Some(&death.id)).await;
    assert_eq!(watch.next().await.unwrap().status(), "accepted");
    api.ends(id, OutcomeStatus::Succeeded);
    assert_eq!(watch.statuses().await, ["succeeded"]);
}

#[tokio::test]
async fn what_cannot_be_watched_is_a_problem() {
    let tokens = vec![token("ops", OTHER, &[AccessRole::Read, AccessRole::Operate])];
    let closed = Api::with(IngressSettings { tokens, ..IngressSettings::default() }).await;
    let api = Api::start().await;
    let target = format!("/v1/commands/{}/watch", CommandId::generate());
    assert_eq!(api.get(&target).await.problem(), (404, "command_not_found".into()));
    assert_eq!(closed.get(&target).await.problem(), (401, "unauthenticated".into()));
    let operator = [("Authorization", "Bearer other")];
    let refused = closed.request("GET", &target, &operator, b"").await;
    assert_eq!(refused.problem(), (403, "forbidden".into()));
    for bad in ["/v1/commands/odd/watch", &format!("{target}?wait=1")] {
        assert_eq!(api.get(bad).await.problem(), (400, "invalid_parameter".into()), "{bad}");
    }
    assert_eq!(api.request("POST", &target, &[], b"").await.problem().0, 405);
}

#[tokio::test]
async fn no_more_watch_than_may_and_who_leaves_makes_room() {
    let api = Api::with(IngressSettings { max_waiters: 1, ..IngressSettings::default() }).await;
    let id = api.submitted().await;
    let mut first = api.watch(id, None).await;
    assert_eq!(first.next().await.unwrap().status(), "accepted");
    let target = format!("/v1/commands/{id}/watch");
    let refused = api.get(&target).await;
    assert_eq!(refused.problem(), (503, "overloaded".into()));
    assert!(refused.header("retry-after").is_some());
    // A long-poll beside it is answered at once.
    let polled = api.get(&format!("/v1/commands/{id}?wait=60")).await;
    assert_eq!(polled.json()["status"], "accepted");
    drop(first);
    until(async || api.watch(id, None).await.status == 200).await;
}

#[tokio::test]
async fn stopping_ends_streams_at_once_and_in_order() {
    let api = Api::start().await;
    let id = api.submitted().await;
    let mut watch = api.watch(id, None).await;
    assert_eq!(watch.next().await.unwrap().status(), "accepted");
    api.stop.cancel();
    assert!(watch.next().await.is_none() && watch.is_complete, "not broken off");
    tokio::time::timeout(Duration::from_secs(2), api.join).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn who_takes_nothing_holds_nobody_up_and_is_dropped() {
    let settings = IngressSettings { write_timeout_ms: 300, ..IngressSettings::default() };
    let api = Api::with(settings).await;
    let id = api.submitted().await;
    let mut good = api.watch(id, None).await;
    // A socket that holds little of an answer that is large.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let socket = socket.connect(api.address).await.unwrap();
    let mut slow = EventStream::open_on(socket, id, None).await;
    assert_eq!(good.next().await.unwrap().status(), "accepted");
    assert_eq!(slow.next().await.unwrap().status(), "accepted");
    until(async || metric(&api, DETACHED).await == 2.0).await;
    api.store.inside().reply = Some(RawJson::from_trusted(format!("\"{}\"", "x".repeat(32 << 20))));
    api.ends(id, OutcomeStatus::Succeeded);
    assert_eq!(good.statuses().await, ["succeeded"], "while the other takes nothing");
    assert!(good.is_complete);
    until(async || metric(&api, "adjutant_http_stalled_total").await >= 1.0).await;
    assert!(slow.next().await.is_none() && !slow.is_complete, "it was broken off");
}

/// A long-poll, an event stream, a read of one's own writes and a submission that waits.
#[tokio::test]
async fn whoever_waits_long_is_detached_and_who_leaves_is_not_waited_for() {
    let api = Api::start().await;
    let id = api.submitted().await;
    let mut clients = Vec::new();
    for target in [
        format!("/v1/commands/{id}?wait=60"),
        format!("/v1/commands/{id}/watch"),
        "/v1/views/balances/a?at=3:1000&wait=60".to_owned(),
    ] {
        let mut client = Client::connect(api.address).await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await;
        clients.push(client);
    }
    let body = deposit(6).to_string();
    let mut client = Client::connect(api.address).await;
    let head = format!(
        "POST /v1/commands HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         Prefer: wait=60\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.send((head + &body).as_bytes()).await;
    clients.push(client);
    until(async || metric(&api, DETACHED).await == 4.0).await;
    assert_eq!((metric(&api, WAITING).await, metric(&api, WATCHING).await), (2.0, 1.0));
    drop(clients);
    until(async || metric(&api, DETACHED).await == 0.0).await;
    assert_eq!((metric(&api, WAITING).await, metric(&api, WATCHING).await), (0.0, 0.0));
}

#[tokio::test]
async fn after_a_long_poll_its_connection_goes_on() {
    let api = Api::start().await;
    let id = api.submitted().await;
    let mut client = Client::connect(api.address).await;
    let target = format!("/v1/commands/{id}?wait=60");
    let poll = async {
        let polled = client.request("GET", &target, &[], b"").await;
        (polled.status, polled.json()["status"].clone())
    };
    let end = async {
        until(async || metric(&api, DETACHED).await == 1.0).await;
        api.ends(id, OutcomeStatus::Succeeded);
    };
    let (polled, ()) = tokio::join!(poll, end);
    assert_eq!(polled, (200, json!("succeeded")));
    let again = client.request("GET", &target, &[], b"").await;
    assert_eq!(again.json()["status"], "succeeded");
    assert_eq!(metric(&api, DETACHED).await, 0.0);
}

#[tokio::test]
async fn a_hundred_watchers_ask_no_more_than_one() {
    let api = Api::start().await;
    let mut commands = Vec::new();
    for amount in 1..=100 {
        commands.push(id_of(&api.submit(&deposit(amount)).await));
    }
    let mut watches = Vec::new();
    for id in &commands {
        let mut watch = api.watch(*id, None).await;
        assert_eq!(watch.next().await.unwrap().status(), "accepted");
        watches.push(watch);
    }
    let asked = async || {
        let before = api.store.inside().statuses_asked.len();
        until(async || api.store.inside().statuses_asked.len() >= before + 8).await;
        api.store.inside().statuses_asked[before + 1..].to_vec()
    };
    let about = asked().await;
    assert!(about.iter().all(|about| *about == 100), "all in one: {about:?}");
    watches.truncate(1);
    until(async || api.store.inside().statuses_asked.last() == Some(&1)).await;
    let about = asked().await;
    assert!(about.iter().all(|about| *about == 1), "{about:?}");
    // Nothing had changed, so no command was read again.
    assert!(api.store.inside().records_asked.is_empty());
    api.ends(commands[0], OutcomeStatus::Succeeded);
    assert_eq!(watches[0].statuses().await, ["succeeded"]);
    assert_eq!(api.store.inside().records_asked, [1]);
}
