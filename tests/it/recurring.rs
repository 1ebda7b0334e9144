//! Recurring commands on a real store: when they are sent, how often, and what becomes of what was
//! missed.

use std::{sync::Arc, time::Duration};

use adjutant::{
    ingress::IngressSettings,
    message::{CommandId, Metadata, Partition, RawJson, Timestamp},
    recurring::{self, RecurringParts, RecurringSettings, Run, Schedule},
    signals::Signals,
    store::{
        CommandTemplate, DecidedRuns, MissedRuns, NextDue, Recurring, RecurringCommand,
        RecurringName, RecurringState, RecurringTerms, Store, postgres::PostgresStore,
    },
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::support::{
    commands::stream,
    database::Database,
    domain, eventually,
    http::Api,
    process::{ALL, Site},
};

const HOURLY: &str = "0 * * * *";
const EVERY_SECOND: &str = "* * * * * *";

/// A database, a store, and a way to look.
struct Place {
    database: Database,
    store: Arc<PostgresStore>,
    pool: sqlx::PgPool,
}

impl Place {
    async fn new() -> Self {
        Self::on(Database::with_partitions(4).await).await
    }

    async fn on(database: Database) -> Self {
        let (store, pool) = (database.store().await, database.pool().await);
        Self { database, store, pool }
    }

    /// Makes one that is due next at `due`.
    async fn make(&self, text: &str, cron: &str, policy: MissedRuns, due: Timestamp) {
        let made = self
            .store
            .put_recurring(
                &name(text),
                &terms(text, cron, policy),
                NextDue::At(Some(due)),
                None,
                "ann",
            )
            .await;
        made.expect("put").expect("there was none");
    }

    async fn look(&self, text: &str) -> RecurringCommand {
        self.store.recurring(&name(text)).await.expect("look").expect("is there")
    }

    /// The runs whose commands were accepted, in order, with how late each was.
    async fn sent(&self, text: &str) -> Vec<(Timestamp, f64)> {
        let rows: Vec<(uuid::Uuid, Value, Timestamp)> = sqlx::query_as(
            "SELECT id, metadata, accepted_at FROM adjutant.commands WHERE stream = $1",
        )
        .bind(format!("counter/{text}"))
        .fetch_all(&self.pool)
        .await
        .expect("look");
        let mut sent: Vec<_> = rows
            .into_iter()
            .map(|(id, metadata, accepted_at)| {
                let metadata: Metadata = serde_json::from_value(metadata).expect("metadata");
                let run = Run::of(&metadata).expect("a run");
                assert_eq!((run.name.as_str(), run.command_id()), (text, CommandId(id)));
                assert_eq!(metadata.actor.as_deref(), Some("clock"));
                (run.due_at, (accepted_at - run.due_at).as_seconds_f64())
            })
            .collect();
        sent.sort_by_key(|(due_at, _)| *due_at);
        sent
    }

    async fn until(
        &self,
        text: &str,
        what: &str,
        is_so: impl Fn(&RecurringCommand) -> bool,
    ) -> RecurringCommand {
        eventually(what, async || Some(self.look(text).await).filter(|it| is_so(it))).await
    }

    /// Fires, as the relay of partition 0 does, until dropped.
    async fn fire(&self, settings: RecurringSettings) -> Firing {
        let store = self.database.store().await;
        let (owned, partitions) = watch::channel(vec![Partition(0)]);
        let stop = CancellationToken::new();
        let registry = domain::service().registry().clone();
        let signals = Signals::default();
        let parts = RecurringParts { store, registry, signals, partitions, settings, stop };
        Firing { _owned: owned, _task: recurring::start(parts) }
    }
}

/// Somebody who fires.
struct Firing {
    _owned: watch::Sender<Vec<Partition>>,
    _task: AbortOnDropHandle<()>,
}

fn name(text: &str) -> RecurringName {
    text.parse().expect("a name")
}

fn terms(text: &str, cron: &str, missed_runs: MissedRuns) -> RecurringTerms {
    let schedule = Schedule::parse(cron, "UTC").expect("a schedule");
    RecurringTerms {
        cron: schedule.expression().to_owned(),
        time_zone: schedule.time_zone().to_owned(),
        missed_runs,
        command: CommandTemplate {
            command_type: "counter.add".into(),
            stream: stream(text),
            payload: RawJson::encode(&json!({ "amount": 1 })).expect("JSON"),
            metadata: Metadata { actor: Some("clock".into()), ..Metadata::default() },
            lane: adjutant::message::Lane::Queued,
            expected_version: None,
        },
        state: RecurringState::Active,
    }
}

/// Nothing is on time but what is sent at once.
fn strict() -> RecurringSettings {
    RecurringSettings { grace: Duration::from_millis(1), ..RecurringSettings::default() }
}

fn whole_hour(time: Timestamp) -> Timestamp {
    time.replace_time(time::Time::from_hms(time.hour(), 0, 0).expect("a time"))
}

async fn hours_ago(place: &Place, hours: i64) -> Timestamp {
    whole_hour(place.store.now().await.expect("now")) - time::Duration::hours(hours)
}

fn hours(from: Timestamp, to: Timestamp) -> i64 {
    (to - from).whole_hours()
}

/// By a whole service: sent when it is due, each run once, executed like any command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recurring_command_is_sent_when_it_is_due_and_executed() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let api = Api::start(
        domain::service(),
        site.database.store().await,
        process.signals(),
        IngressSettings::default(),
    );
    let body = json!({
        "cron": EVERY_SECOND,
        "command": {
            "type": "counter.add", "stream": "counter/tick", "payload": { "amount": 1 },
            "metadata": { "actor": "clock" },
        },
    });
    let mut client = api.client().await;
    let json = [("Content-Type", "application/json")];
    let made =
        client.request("PUT", "/v1/recurring/tick", &json, body.to_string().as_bytes()).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.json()["upcoming"].as_array().map(Vec::len), Some(5));
    let three = eventually("three runs", async || {
        let shown = api.get("/v1/recurring/tick").await.json();
        (shown["runs"].as_i64() >= Some(3)).then_some(shown)
    })
    .await;
    let last = three["last_command_id"].as_str().expect("a command").to_owned();
    let ended = api.get(&format!("/v1/commands/{last}?wait=30")).await.json();
    assert_eq!(ended["status"], "succeeded");
    let paused = client.request("POST", "/v1/recurring/tick/pause", &[], b"").await;
    assert_eq!((paused.status, &paused.json()["next_due_at"]), (200, &Value::Null));

    let place = Place::on(site.database).await;
    // Whatever was decided when it was paused is sent by now, or never.
    let sent = eventually("what was sent is settled", async || {
        let (sent, looked) = (place.sent("tick").await, place.look("tick").await);
        (looked.owed.is_empty() && sent.len() as i64 >= looked.runs).then_some(sent)
    })
    .await;
    for pair in sent.windows(2) {
        assert_eq!(pair[1].0 - pair[0].0, time::Duration::SECOND, "no second is left out");
    }
    assert!(sent.iter().all(|(_, late)| (0.0..30.0).contains(late)), "{sent:?}");
    process.stop(Duration::from_secs(10)).await;
}

/// Two that both think it is theirs: each due time has one command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_fire_a_run_it_is_one_command() {
    let place = Place::new().await;
    let now = place.store.now().await.expect("now");
    let first = now.replace_nanosecond(0).expect("a time") - Duration::from_secs(20);
    place.make("tick", EVERY_SECOND, MissedRuns::All, first).await;
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(place.fire(RecurringSettings::default()).await);
    }
    place.until("tick", "many runs", |it| it.runs >= 25).await;
    drop(all);
    let (sent, looked) = (place.sent("tick").await, place.look("tick").await);
    assert_eq!(sent[0].0, first);
    for pair in sent.windows(2) {
        assert_eq!(pair[1].0 - pair[0].0, time::Duration::SECOND, "each second once");
    }
    assert_eq!(looked.missed, 0);
    assert!(sent.len() as i64 >= looked.runs, "{} {}", sent.len(), looked.runs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missed_runs_are_left_out_sent_once_or_made_up_for_as_the_policy_says() {
    let place = Place::new().await;
    let first = hours_ago(&place, 10).await;
    for policy in MissedRuns::ALL {
        place.make(policy.as_str(), HOURLY, policy, first).await;
    }
    let _firing = place.fire(strict()).await;
    let is_over = |it: &RecurringCommand| {
        it.owed.is_empty() && it.next_due_at > Some(first + Duration::from_secs(10 * 3_600))
    };

    let skip = place.until("skip", "it is decided", is_over).await;
    let next = skip.next_due_at.expect("it goes on");
    assert_eq!((skip.runs, skip.missed), (0, hours(first, next)));
    assert!(place.sent("skip").await.is_empty());

    let once = place.until("once", "it is sent", |it| is_over(it) && it.runs > 0).await;
    let (next, last) = (once.next_due_at.expect("it goes on"), once.last_due_at.expect("it ran"));
    assert_eq!((once.runs, once.missed), (1, hours(first, next) - 1));
    assert_eq!(next - last, time::Duration::HOUR, "the newest stands for all");
    let sent: Vec<_> = place.sent("once").await.into_iter().map(|(due, _)| due).collect();
    assert_eq!(sent, [last]);

    let all = place.until("all", "they are sent", |it| is_over(it) && it.runs > 0).await;
    let next = all.next_due_at.expect("it goes on");
    assert_eq!((all.runs, all.missed), (hours(first, next), 0));
    let sent: Vec<_> = place.sent("all").await.into_iter().map(|(due, _)| due).collect();
    let expected: Vec<_> =
        (0..hours(first, next)).map(|hour| first + time::Duration::hours(hour)).collect();
    assert_eq!(sent, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_missed_runs_the_newest_are_made_up_for_and_the_rest_is_counted() {
    let place = Place::new().await;
    let first = hours_ago(&place, 30).await;
    place.make("all", HOURLY, MissedRuns::All, first).await;
    let settings = RecurringSettings { most_at_once: 5, ..strict() };
    let _firing = place.fire(settings).await;
    let all = place.until("all", "they are sent", |it| it.runs > 0).await;
    let next = all.next_due_at.expect("it goes on");
    assert_eq!((all.runs, all.missed), (5, hours(first, next) - 5));
    let sent: Vec<_> = place.sent("all").await.into_iter().map(|(due, _)| due).collect();
    let newest: Vec<_> = (1..=5).rev().map(|hour| next - time::Duration::hours(hour)).collect();
    assert_eq!(sent, newest);
}

/// A process that vanished between two of its transactions leaves what is owed to the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_is_sent_once_though_whoever_decided_it_is_gone() {
    let place = Place::new().await;
    let first = hours_ago(&place, 3).await;
    place.make("nightly", HOURLY, MissedRuns::Skip, first).await;
    // It decided, and vanished. By the policy alone nothing would be sent.
    let decided = DecidedRuns {
        turn: place.look("nightly").await.turn,
        owed: vec![first],
        missed: 0,
        next_due_at: Some(first + time::Duration::DAY),
    };
    assert_eq!(place.store.decide_runs(&[decided]).await.expect("decide"), [true]);
    let firing = place.fire(strict()).await;
    let settled = place.until("nightly", "it is sent", |it| it.runs == 1).await;
    assert_eq!((settled.last_due_at, settled.owed.len()), (Some(first), 0));
    let sent: Vec<_> = place.sent("nightly").await.into_iter().map(|(due, _)| due).collect();
    assert_eq!(sent, [first]);
    drop(firing);

    // It had accepted the command, and vanished before it settled.
    sqlx::query("UPDATE adjutant.recurring SET owed = ARRAY[last_due_at], turn = turn + 1")
        .execute(&place.pool)
        .await
        .expect("owe again");
    let _firing = place.fire(strict()).await;
    place.until("nightly", "it is settled", |it| it.runs == 2).await;
    assert_eq!(place.sent("nightly").await.len(), 1, "it is the same command");
}

/// One that this process cannot read holds nobody up, however many there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recurring_commands_that_cannot_be_read_here_hold_no_other_up() {
    let place = Place::new().await;
    for n in 0..40 {
        place
            .make(&format!("lost-{n}"), HOURLY, MissedRuns::Once, hours_ago(&place, 5).await)
            .await;
    }
    sqlx::query("UPDATE adjutant.recurring SET time_zone = 'Mars/Olympus_Mons'")
        .execute(&place.pool)
        .await
        .expect("a zone of another database");
    place.make("mine", HOURLY, MissedRuns::Once, hours_ago(&place, 1).await).await;
    let _firing = place.fire(strict()).await;
    place.until("mine", "it is sent", |it| it.runs == 1).await;
    let lost = place.look("lost-0").await;
    assert_eq!((lost.runs, lost.missed, lost.turn.turn), (0, 0, 1), "it waits as it was");
}

/// Pausing, resuming and changing by HTTP, on a real store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_falls_due_while_it_is_paused_is_not_made_up_for() {
    let place = Place::new().await;
    let api = Api::start(
        domain::service(),
        place.database.store().await,
        &Signals::default(),
        IngressSettings::default(),
    );
    let first = hours_ago(&place, 4).await;
    place.make("hourly", HOURLY, MissedRuns::All, first).await;
    let mut client = api.client().await;
    let paused = client.request("POST", "/v1/recurring/hourly/pause", &[], b"").await;
    assert_eq!((paused.status, &paused.json()["state"]), (200, &json!("paused")));
    // One that has waited for less long is sent; this one was passed by.
    let firing = place.fire(strict()).await;
    place.make("other", HOURLY, MissedRuns::Once, first + time::Duration::HOUR).await;
    place.until("other", "it is sent", |it| it.runs == 1).await;
    let hourly = place.look("hourly").await;
    assert_eq!((hourly.runs, hourly.missed, hourly.owed.len()), (0, 0, 0), "it is paused");
    let resumed = client.request("POST", "/v1/recurring/hourly/resume", &[], b"").await;
    let resumed = resumed.json();
    assert_eq!(resumed["state"], "active");
    let now = place.store.now().await.expect("now");
    let next = place.look("hourly").await.next_due_at.expect("it goes on");
    assert!(next > now - Duration::from_secs(60) && next <= now + Duration::from_secs(3_600));

    // Another schedule counts from now on; another payload leaves the due time as it is.
    let body = |cron: &str, amount: i64| {
        let command = json!({ "type": "counter.add", "stream": "counter/hourly", "payload": { "amount": amount } });
        json!({ "cron": cron, "missed_runs": "all", "command": command }).to_string()
    };
    let headers = [("Content-Type", "application/json")];
    let put = client
        .request("PUT", "/v1/recurring/hourly", &headers, body("0 0 1 1 *", 1).as_bytes())
        .await;
    assert_eq!(put.status, 200, "{}", put.body);
    let new_year = place.look("hourly").await.next_due_at.expect("it goes on");
    assert_eq!((new_year.ordinal(), new_year.hour()), (1, 0));
    let put = client
        .request("PUT", "/v1/recurring/hourly", &headers, body("0 0 1 1 *", 2).as_bytes())
        .await;
    assert_eq!((put.status, &put.json()["revision"]), (200, &json!(5)));
    assert_eq!(place.look("hourly").await.next_due_at, Some(new_year));
    let again = client
        .request("PUT", "/v1/recurring/hourly", &headers, body("0 0 1 1 *", 2).as_bytes())
        .await;
    assert_eq!(again.json(), put.json(), "the same again changes nothing");
    drop(firing);
    assert!(place.sent("hourly").await.is_empty());
}
