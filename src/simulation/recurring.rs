//! Recurring commands in a history: some are set in the middle of it, and end when everything is
//! healed. Whatever became of those who fired them, every due time has had one run, or is counted as
//! missed; and what the runs caused is checked with everything else.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;
use uuid::Uuid;

use super::{Evidence, Scenario, client::lane, world::World};
use crate::{
    ingress::{Origin, Validator},
    message::{Metadata, Timestamp},
    recurring::Run,
    store::{
        CommandTemplate, MissedRuns, NextDue, Recurring as _, RecurringName, RecurringState,
        RecurringTerms, StoreError,
    },
};

/// When they are set, after the beginning.
const SET_AFTER: Duration = Duration::from_secs(5);
/// They are due every half minute, on the minute and between.
const CRON: &str = "*/30 * * * * *";
const EVERY: Duration = Duration::from_secs(30);
/// How many drafts are tried until one may be accepted again and again.
const DRAFTS: usize = 20;

/// What is known of one.
struct Known {
    name: RecurringName,
    first: Timestamp,
    /// Due times before this one were its own.
    end: Option<Timestamp>,
}

pub(super) struct Recurrences {
    pub(super) world: Arc<World>,
    pub(super) scenario: Arc<Mutex<Box<dyn Scenario>>>,
    pub(super) validator: Validator,
    known: Mutex<Vec<Known>>,
}

impl Recurrences {
    pub(super) fn new(
        world: Arc<World>,
        scenario: Arc<Mutex<Box<dyn Scenario>>>,
        validator: Validator,
    ) -> Self {
        Self { world, scenario, validator, known: Mutex::default() }
    }

    /// Sets one for each policy.
    pub(super) async fn set(self: Arc<Self>) -> Result<(), StoreError> {
        tokio::time::sleep(SET_AFTER).await;
        for missed_runs in MissedRuns::ALL {
            let Some(command) = self.draw() else { continue };
            let Ok(name) = missed_runs.as_str().parse::<RecurringName>() else { continue };
            let terms = RecurringTerms {
                cron: CRON.to_owned(),
                time_zone: "UTC".to_owned(),
                missed_runs,
                command,
                state: RecurringState::Active,
            };
            let now = self.world.clock.now();
            let first = due_after(now);
            let store = &self.world.store;
            store
                .put_recurring(&name, &terms, NextDue::At(Some(first)), None, "simulation")
                .await?;
            self.known().push(Known { name, first, end: None });
        }
        Ok(())
    }

    fn draw(&self) -> Option<CommandTemplate> {
        let mut dice = self.world.dice();
        let mut scenario = self.scenario.lock().unwrap_or_else(PoisonError::into_inner);
        (0..DRAFTS).find_map(|_| {
            let mut draft = scenario.command(&mut dice);
            draft["lane"] = json!(lane(&mut dice));
            let command = self.validator.check_value(&draft, &Origin::default()).ok()?;
            Some(CommandTemplate {
                command_type: command.command_type,
                stream: command.stream,
                payload: command.payload,
                metadata: Metadata { traceparent: None, ..command.metadata },
                lane: command.lane,
                expected_version: command.expected_version,
            })
        })
    }

    /// They are never due again; what was decided is still sent.
    pub(super) async fn end(&self) -> Result<(), StoreError> {
        let names: Vec<_> = self.known().iter().map(|known| known.name.clone()).collect();
        for name in names {
            // The store is in memory: nothing comes between these two.
            let Some(found) = self.world.store.recurring(&name).await? else { continue };
            let (terms, revision) = (&found.terms, Some(found.revision));
            let store = &self.world.store;
            store.put_recurring(&name, terms, NextDue::At(None), revision, "simulation").await?;
            let mut known = self.known();
            if let Some(known) = known.iter_mut().find(|known| known.name == name) {
                known.end = found.next_due_at;
            }
        }
        Ok(())
    }

    /// How many runs are decided and not sent.
    pub(super) async fn owed(&self) -> Result<usize, StoreError> {
        let all = self.world.store.all_recurring(None, 500).await?;
        Ok(all.items.iter().map(|recurring| recurring.owed.len()).sum())
    }

    /// The ids of all runs that there may be.
    pub(super) fn runs(&self) -> BTreeSet<Uuid> {
        let known = self.known();
        known.iter().flat_map(|known| known.runs().map(|run| run.command_id().0)).collect()
    }

    /// Every violation, as a sentence.
    pub(super) async fn check(&self, evidence: &Evidence) -> Result<Vec<String>, StoreError> {
        let accepted: BTreeSet<Uuid> = evidence.commands.iter().map(|it| it.id).collect();
        let all = self.world.store.all_recurring(None, 500).await?;
        let mut violations = Vec::new();
        for known in self.known().iter() {
            let name = &known.name;
            let Some(found) = all.items.iter().find(|found| found.name() == name) else {
                violations.push(format!("the recurring command {name} is lost"));
                continue;
            };
            let sent = known.runs().filter(|run| accepted.contains(&run.command_id().0)).count();
            let due = known.runs().count();
            if sent as i64 != found.runs {
                violations.push(format!("{name}: {sent} runs were sent, {} are told", found.runs));
            }
            if found.runs + found.missed != due as i64 {
                violations.push(format!(
                    "{name} was due {due} times: {} runs, {} missed",
                    found.runs, found.missed
                ));
            }
        }
        Ok(violations)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// One for each due time.
    fn runs(&self) -> impl Iterator<Item = Run> {
        let end = self.end.unwrap_or(self.first);
        let due = std::iter::successors(Some(self.first), |due| Some(*due + EVERY));
        due.take_while(move |due| *due < end).map(|due_at| Run { name: self.name.clone(), due_at })
    }
}

/// The next half minute. Every history begins on one.
fn due_after(now: Timestamp) -> Timestamp {
    let every = EVERY.as_secs() as i64;
    let next = (now.unix_timestamp().div_euclid(every) + 1) * every;
    Timestamp::from_unix_timestamp(next).unwrap_or(now)
}
