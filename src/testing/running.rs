//! The whole service in memory: every role, the real executor and projections, with a clock that the
//! test moves.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::json;

use super::START;
use crate::{
    broker::local::{LocalBroker, LocalSettings},
    domain::{Aggregate, MessageSet, Projection, Service},
    ingress::{Origin, Problem, Validator},
    message::{CommandId, GroupName, LogId, Outcome, Partition, PartitionCount, Timestamp},
    service::{Process, ProcessParts, ProcessSettings, groups_of},
    store::{
        Intake, Logs, NewCommand, Outbox, Queries, Role, Store,
        sqlite::{ClockSource, SqliteStore},
    },
    worker::MembershipSettings,
};

/// How long [`RunningService::until_idle`] waits, in real time, before it fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than any test's virtual time: the only member must not count as gone when days pass.
const CENTURIES: Duration = Duration::from_hours(500 * 365 * 24);

/// A service at work in the test's own memory: commands are accepted, relayed, executed and
/// projected by the code that runs in production, on SQLite in memory and the in-process broker.
/// Time begins at [`START`] and passes only by [`advance`](Self::advance).
///
/// Its methods panic when they fail: they are part of a test.
///
/// ```
/// # use adjutant::{prelude::*, testing::RunningService};
/// # #[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
/// # struct Add { #[garde(range(min = 1))] amount: i64 }
/// # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
/// # struct Added { amount: i64 }
/// # adjutant::commands! { enum CounterCommand { Add(Add) = "add" v1 } }
/// # adjutant::events! { enum CounterEvent { Added(Added) = "added" v1 } }
/// # #[derive(Clone, Default, Serialize, Deserialize)]
/// # struct Counter { total: i64 }
/// # impl Aggregate for Counter {
/// #     const TYPE: &'static str = "counter";
/// #     type Command = CounterCommand;
/// #     type Event = CounterEvent;
/// #     type Error = Never;
/// #     type Reply = i64;
/// #     fn decide(&self, command: &CounterCommand, _: &Context)
/// #         -> Result<Decision<CounterEvent, i64>, Never> {
/// #         let CounterCommand::Add(add) = command;
/// #         Ok(Decision::event(Added { amount: add.amount }).reply(self.total + add.amount))
/// #     }
/// #     fn evolve(&mut self, event: &CounterEvent) {
/// #         let CounterEvent::Added(added) = event;
/// #         self.total += added.amount;
/// #     }
/// # }
/// # #[derive(Debug)] enum Never {}
/// # impl std::fmt::Display for Never {
/// #     fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) }
/// # }
/// # impl DomainError for Never { fn code(&self) -> &str { "never" } }
/// # struct Totals;
/// # impl Projection for Totals {
/// #     const NAME: &'static str = "totals";
/// #     const SCOPE: Scope = Scope::Stream;
/// #     type View = i64;
/// #     fn events(&self) -> EventSelection { EventSelection::of::<Counter>() }
/// #     fn keys(&self, event: &EventRecord) -> Vec<String> { vec![event.stream.id().to_owned()] }
/// #     fn apply(&self, _: &str, total: &mut Option<i64>, event: &EventRecord)
/// #         -> Result<(), ProjectionError> {
/// #         if let Some(CounterEvent::Added(added)) = event.get() {
/// #             *total.get_or_insert_default() += added.amount;
/// #         }
/// #         Ok(())
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service = Service::builder().aggregate::<Counter>().projection(Totals).build()?;
/// let running = RunningService::start(service).await;
/// running.send::<Counter>("visits", Add { amount: 2 }).await;
/// let tomorrow = running.now() + std::time::Duration::from_secs(24 * 3_600);
/// running.send_at::<Counter>("visits", Add { amount: 40 }, tomorrow).await;
/// running.until_idle().await;
/// assert_eq!(running.view::<Totals>("visits").await, Some(2));
///
/// running.advance(std::time::Duration::from_secs(24 * 3_600));
/// running.until_idle().await;
/// assert_eq!(running.view::<Totals>("visits").await, Some(42));
/// # Ok(())
/// # }
/// ```
pub struct RunningService {
    store: Arc<SqliteStore>,
    process: Process,
    validator: Validator,
    groups: Vec<GroupName>,
    clock: Arc<Mutex<Timestamp>>,
}

impl RunningService {
    /// Starts every role, with the usual number of partitions.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub async fn start(service: Service) -> Self {
        let clock = Arc::new(Mutex::new(START));
        let partitions = PartitionCount::DEFAULT;
        let store = SqliteStore::in_memory(partitions, source(&clock), LogId::generate());
        let store = Arc::new(expect("a store in memory", store));
        let process = Process::start(ProcessParts {
            service: service.clone(),
            store: store.clone(),
            broker: Arc::new(LocalBroker::new(LocalSettings::default(), partitions)),
            roles: Role::ALL.to_vec(),
            name: "test".into(),
            settings: ProcessSettings {
                membership: MembershipSettings { ttl: CENTURIES, ..Default::default() },
                ..Default::default()
            },
        });
        Self {
            process: expect("the service starts", process.await),
            validator: Validator::new(service.registry().clone()),
            groups: groups_of(&service),
            store,
            clock,
        }
    }

    /// The service's time.
    pub fn now(&self) -> Timestamp {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets time pass, at once. What falls due meanwhile is done by the next
    /// [`until_idle`](Self::until_idle).
    pub fn advance(&self, by: Duration) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) += by;
        self.process.clock().observe(self.now());
    }

    /// Sends a command to `{aggregate type}/{id}`; returns when it is accepted.
    ///
    /// # Panics
    ///
    /// If it is refused; [`try_send`](Self::try_send) answers why.
    #[track_caller]
    pub fn send<A: Aggregate>(
        &self,
        id: &str,
        command: impl Into<A::Command>,
    ) -> impl Future<Output = CommandId> {
        self.send_or_fail(self.checked::<A>(id, &command.into(), None))
    }

    /// Sends a command that is executed at that time.
    ///
    /// # Panics
    ///
    /// If it is refused.
    #[track_caller]
    pub fn send_at<A: Aggregate>(
        &self,
        id: &str,
        command: impl Into<A::Command>,
        not_before: Timestamp,
    ) -> impl Future<Output = CommandId> {
        self.send_or_fail(self.checked::<A>(id, &command.into(), Some(not_before)))
    }

    /// Sends a command, or answers what a client would be answered instead.
    pub async fn try_send<A: Aggregate>(
        &self,
        id: &str,
        command: impl Into<A::Command>,
    ) -> Result<CommandId, Box<Problem>> {
        let command = self.checked::<A>(id, &command.into(), None)?;
        Ok(self.accept(command).await)
    }

    #[track_caller]
    fn send_or_fail(
        &self,
        command: Result<NewCommand, Box<Problem>>,
    ) -> impl Future<Output = CommandId> {
        let command = expect("the command is accepted", command.map_err(|problem| problem.detail));
        self.accept(command)
    }

    fn checked<A: Aggregate>(
        &self,
        id: &str,
        command: &A::Command,
        not_before: Option<Timestamp>,
    ) -> Result<NewCommand, Box<Problem>> {
        let payload = expect("the command can be encoded", command.encode());
        let mut draft = json!({
            "id": CommandId::generate(),
            "type": format!("{}.{}", A::TYPE, command.kind().name),
            "stream": format!("{}/{id}", A::TYPE),
            "payload": payload.to_value(),
        });
        if let Some(time) = not_before {
            let format = &time::format_description::well_known::Rfc3339;
            draft["not_before"] = json!(expect("a time of RFC 3339", time.format(format)));
        }
        self.validator.check_value(&draft, &Origin::default()).map_err(Box::new)
    }

    async fn accept(&self, command: NewCommand) -> CommandId {
        let id = command.id;
        expect("the command is stored", self.store.accept(vec![command]).await);
        self.process.signals().outbox_written();
        id
    }

    /// Waits until everything that is due by now is executed and visible.
    ///
    /// # Panics
    ///
    /// If that is not so within 30 seconds of real time, with how far each group came.
    pub async fn until_idle(&self) {
        let began = Instant::now();
        while let Some(rest) = self.rest().await {
            assert!(began.elapsed() < PATIENCE, "the service is not idle: {rest}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What is left to do, in words.
    async fn rest(&self) -> Option<String> {
        let partitions: Vec<Partition> = self.store.identity().partitions.all().collect();
        let due = expect(
            "the schedule is read",
            self.store.promote_due(&partitions, Duration::ZERO, 1_000).await,
        );
        if due > 0 {
            self.process.signals().outbox_written();
            return Some(format!("{due} commands fell due"));
        }
        // The commands first: what they cause is then in the events' heads.
        for group in &self.groups {
            let heads = expect("the heads are read", self.store.heads().await);
            let checkpoints = expect("checkpoints", self.store.checkpoints(group).await);
            let heads = if *group == GroupName::commands() { heads.commands } else { heads.events };
            if heads != checkpoints {
                return Some(format!("{group} is at {checkpoints:?} of {heads:?}"));
            }
        }
        None
    }

    /// How a command ended; `None` if it has not.
    pub async fn outcome(&self, id: CommandId) -> Option<Outcome> {
        let record = expect("the command is read", self.store.command(id).await);
        record.and_then(|record| record.outcome)
    }

    /// A document of a view; `None` if there is none.
    pub async fn view<P: Projection>(&self, key: &str) -> Option<P::View> {
        let record = expect("the view is read", self.store.view(P::NAME, key).await)?;
        let value = record.value?;
        Some(expect("the document is one of the view", serde_json::from_str(value.as_str())))
    }

    /// Ends it in order. Dropping it ends it, too, as a crash would.
    pub async fn stop(self) {
        self.process.stop(Duration::from_secs(5)).await;
    }
}

fn source(clock: &Arc<Mutex<Timestamp>>) -> ClockSource {
    let clock = clock.clone();
    ClockSource::new(move || *clock.lock().unwrap_or_else(PoisonError::into_inner))
}

#[track_caller]
#[allow(clippy::panic, reason = "part of a test")]
fn expect<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}
