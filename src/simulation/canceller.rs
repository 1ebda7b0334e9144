//! Somebody who calls commands off while they are queued, wait, or are retried, and believes what he is
//! told.

use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::{
    Fault,
    store::SimulatedStore,
    world::{Gate, World},
};
use crate::{
    message::CommandId,
    store::{
        CancelAnswer, Cancellation, CancelledBy, CommandFilter, CommandStatus, Queries, StoreError,
    },
};

/// Among how many commands he chooses.
const PAGE: i64 = 20;
/// How many he calls off at a time, at most.
const AT_ONCE: u64 = 3;
/// How often he asks again without an answer.
const ATTEMPTS: u32 = 5;

/// What he was told.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) command: Uuid,
    pub(super) who: String,
    pub(super) answer: CancelAnswer,
}

pub(super) type Heard = Arc<Mutex<Vec<Told>>>;

pub(super) struct Canceller {
    pub(super) world: Arc<World>,
    pub(super) name: String,
    pub(super) heard: Heard,
}

impl Canceller {
    /// Works until aborted, or until nothing goes wrong any more.
    pub(super) async fn work(self) {
        while self.world.is_armed() {
            let pause = self.world.dice().millis(2_000, 20_000);
            tokio::time::sleep(pause).await;
            // By another process each time; when it dies, he does not know what it did.
            let gate = Arc::new(Gate::new(self.name.clone()));
            let store = SimulatedStore { world: self.world.clone(), gate: gate.clone() };
            tokio::select! {
                biased;
                () = gate.died() => {}
                () = self.look(&store) => {}
            }
        }
    }

    async fn look(&self, store: &SimulatedStore) {
        let status = {
            let mut dice = self.world.dice();
            // Most are queued; those that wait or come back are rarer, and say more.
            match dice.below(100) {
                0..20 => CommandStatus::Accepted,
                20..35 => CommandStatus::Scheduled,
                35..60 => CommandStatus::Waiting,
                _ => CommandStatus::Retrying,
            }
        };
        let filter = CommandFilter { status: Some(status), ..CommandFilter::default() };
        let Ok(page) = store.commands(&filter, None, PAGE).await else { return };
        let mut commands: Vec<CommandId> = Vec::new();
        {
            let mut dice = self.world.dice();
            for _ in 0..=dice.below(AT_ONCE) {
                let picked = dice.pick(&page.items).map(|record| record.id);
                commands.extend(picked.filter(|id| !commands.contains(id)));
            }
        }
        if !commands.is_empty() {
            self.cancel(store, &commands).await;
        }
    }

    async fn cancel(&self, store: &SimulatedStore, commands: &[CommandId]) {
        let by =
            CancelledBy { who: self.name.clone(), reason: Some("simulated".into()), job: None };
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                let pause = self.world.dice().millis(0, 1_000);
                tokio::time::sleep(pause).await;
            }
            match store.cancel_commands(commands, &by).await {
                Ok(answers) => {
                    self.world.remark(format_args!("{}: {commands:?} {answers:?}", self.name));
                    let told = commands.iter().zip(answers).map(|(command, answer)| Told {
                        command: command.0,
                        who: self.name.clone(),
                        answer,
                    });
                    self.heard.lock().unwrap_or_else(PoisonError::into_inner).extend(told);
                    return;
                }
                // It may have taken place: asked again, somebody was first, perhaps oneself.
                Err(StoreError::Unknown(_)) => {
                    if self.world.is_armed() {
                        self.world.count(Fault::Resent);
                    }
                }
                Err(_) => {}
            }
        }
    }
}
