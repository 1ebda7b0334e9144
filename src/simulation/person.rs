//! People who look after dead letters: they retry, correct or discard them, at times two of them the
//! same one, and believe what they are told. When everything is healed they go on until nothing is
//! left to decide.

use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::{
    Fault, Scenario,
    store::SimulatedStore,
    world::{Gate, World},
};
use crate::{
    dead_letter::{DeadLetterId, DeadLetterKind, DeadLetterState},
    message::RawJson,
    store::{
        Acted, ActedBy, DeadLetter, DeadLetterFilter, DeadLetters, ParkedKeys, Replay, ReplayAsked,
        RetryRequest, StoreError,
    },
};

/// How many they are.
pub(super) const PEOPLE: usize = 2;
/// How many letters a person looks at.
const PAGE: i64 = 20;
/// How often a person without an answer asks again.
const ATTEMPTS: u32 = 5;

/// What people were told: which letter, and who did it.
pub(super) type Done = Arc<Mutex<Vec<(Uuid, String)>>>;

pub(super) struct Person {
    pub(super) world: Arc<World>,
    pub(super) scenario: Arc<Mutex<Box<dyn Scenario>>>,
    pub(super) name: String,
    pub(super) done: Done,
}

/// What a person decides.
enum Decision {
    Retry,
    RetryEdited(String),
    Discard,
}

impl Person {
    /// Works until aborted.
    pub(super) async fn work(self) {
        loop {
            let pause = {
                let most = if self.world.is_armed() { 4_000 } else { 300 };
                self.world.dice().millis(50, most)
            };
            tokio::time::sleep(pause).await;
            // By another process each time; when it dies, the person does not know what it did.
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
        let filter =
            DeadLetterFilter { state: Some(DeadLetterState::Open), ..DeadLetterFilter::default() };
        let Ok(page) = store.dead_letters(&filter, None, PAGE).await else { return };
        let letter = self.world.dice().pick(&page.items).cloned();
        if let Some(letter) = letter {
            self.decide(store, &letter).await;
        }
    }

    async fn decide(&self, store: &SimulatedStore, letter: &DeadLetter) {
        let decision = self.decision(letter);
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                let pause = self.world.dice().millis(0, 1_000);
                tokio::time::sleep(pause).await;
            }
            match self.act(store, letter, &decision).await {
                Ok(done) => {
                    self.world.remark(format_args!("{}: {} {done}", self.name, letter.id));
                    if done {
                        let told = (letter.id.0, self.name.clone());
                        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(told);
                    }
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

    fn decision(&self, letter: &DeadLetter) -> Decision {
        let mut dice = self.world.dice();
        let scenario = self.scenario.lock().unwrap_or_else(PoisonError::into_inner);
        if letter.kind == DeadLetterKind::ParkedKey {
            // What poisons a view stays poisonous: in the end it is discarded.
            return if dice.happens(2_500) { Decision::Retry } else { Decision::Discard };
        }
        match dice.below(100) {
            0..25 => Decision::Retry,
            25..75 => match scenario.correct(&letter.type_name) {
                Some(payload) => Decision::RetryEdited(payload.to_string()),
                None => Decision::Discard,
            },
            _ => Decision::Discard,
        }
    }

    /// Whether it was done, by this call.
    async fn act(
        &self,
        store: &SimulatedStore,
        letter: &DeadLetter,
        decision: &Decision,
    ) -> Result<bool, StoreError> {
        let by = ActedBy { who: self.name.clone(), reason: Some("simulated".into()), job: None };
        if letter.kind == DeadLetterKind::ParkedKey {
            let replay = match decision {
                Decision::Discard => Replay::Discard,
                Decision::Retry | Decision::RetryEdited(_) => Replay::Retry,
            };
            let asked = store.ask_for_replay(letter.id, replay, &by);
            return Ok(asked.await? == ReplayAsked::Accepted);
        }
        let retry = |id: DeadLetterId, payload: Option<&String>| RetryRequest {
            id,
            payload: payload.map(|text| RawJson::from_trusted(text.clone())),
        };
        let acted = match decision {
            Decision::Retry => store.retry_dead_commands(&[retry(letter.id, None)], &by).await,
            Decision::RetryEdited(payload) => {
                store.retry_dead_commands(&[retry(letter.id, Some(payload))], &by).await
            }
            Decision::Discard => store.discard_dead_letters(&[letter.id], &by).await,
        };
        Ok(acted?.first() == Some(&Acted::Done))
    }
}
