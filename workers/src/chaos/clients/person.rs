//! People who look after dead letters: they correct, retry or discard commands that died, and have
//! parked keys replayed or go on without what failed. Two of them, so that they come to the same
//! letter at times; each acts once, whoever asks how often. They go on until the run has settled.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::Uri;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

use super::Sender;
use crate::chaos::{
    error::ChaosError,
    log::{Acted, Log},
    random::Draw,
};

/// How many they are.
const PEOPLE: usize = 2;
/// Their numbers among the clients begin here.
const FIRST_CLIENT: usize = 3_000;
/// How often a person without an answer asks again.
const ATTEMPTS: u32 = 8;
/// How long a person without an answer waits for one.
const ANSWER: Duration = Duration::from_secs(3);

/// People at work until they are told to stop.
pub(crate) struct People {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    in_haste: Arc<AtomicBool>,
}

impl People {
    /// They begin.
    pub(crate) fn start(
        seed: u64,
        apis: &[SocketAddr],
        log: &Arc<Log>,
    ) -> Result<Self, ChaosError> {
        let (stop, stopped) = watch::channel(false);
        let in_haste = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for number in 0..PEOPLE {
            let draw = Draw::of(seed, "person", number as u64);
            let sender = Sender::new(FIRST_CLIENT + number, apis, log.clone(), draw)?;
            let (name, in_haste) = (format!("person {number}"), in_haste.clone());
            let person = Person { sender, name, in_haste, actions: 0 };
            tasks.spawn(person.work(stopped.clone()));
        }
        Ok(Self { stop, tasks, in_haste })
    }

    /// Nothing new comes: they do not wait, and do not try what cannot go well.
    pub(crate) fn come_to_an_end(&self) {
        self.in_haste.store(true, Ordering::Relaxed);
    }

    /// Tells them to stop; each comes to an end with the letter that it has in hand.
    pub(crate) async fn stop(mut self) -> Result<(), ChaosError> {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}

struct Person {
    sender: Sender,
    name: String,
    in_haste: Arc<AtomicBool>,
    actions: u64,
}

/// A letter, as the list shows it.
#[derive(Deserialize)]
struct Letter {
    id: Uuid,
    kind: String,
    error: Failure,
}

#[derive(Deserialize)]
struct Failure {
    code: String,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Letter>,
}

/// What a person does: the last part of the path, and what is sent besides the reason.
struct Decision {
    word: &'static str,
    payload: Option<Value>,
}

impl Person {
    async fn work(mut self, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            for letter in self.open_letters().await {
                if *stopped.borrow() {
                    return;
                }
                let decision = self.decide(&letter);
                self.act(&letter, &decision).await;
            }
            let most = if self.is_in_haste() { 100 } else { 1_500 };
            let pause = self.sender.draw.millis(20..most);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        }
    }

    fn is_in_haste(&self) -> bool {
        self.in_haste.load(Ordering::Relaxed)
    }

    /// Some open letters, in any order; none if nobody answers.
    async fn open_letters(&mut self) -> Vec<Letter> {
        let path = "/v1/dead-letters?limit=30";
        let Some(answer) = self.sender.get(path, ANSWER).await else { return Vec::new() };
        if !answer.status.is_success() {
            self.sender.turn_to_another();
            return Vec::new();
        }
        match serde_json::from_slice::<Page>(&answer.body) {
            Ok(Page { mut items }) => {
                self.sender.draw.shuffle(&mut items);
                items
            }
            Err(error) => {
                let words = answer.in_words();
                self.sender.log.violated(format!("a list of dead letters: {error}: {words}"));
                Vec::new()
            }
        }
    }

    fn decide(&mut self, letter: &Letter) -> Decision {
        let (dice, in_haste) = (self.sender.draw.below(100), self.is_in_haste());
        let plain = |word| Decision { word, payload: None };
        if letter.kind != "command" {
            // What poisons the view stays poisonous.
            return plain(if dice < 25 && !in_haste { "retry" } else { "discard" });
        }
        match dice {
            // It would abort three more processes.
            0..15 if !in_haste && letter.error.code != "crashed" => plain("retry"),
            0..30 => plain("discard"),
            _ => Decision { word: "retry", payload: Some(json!({})) },
        }
    }

    /// Asks until there is an answer. Asked again after none, somebody was first: perhaps oneself.
    async fn act(&mut self, letter: &Letter, decision: &Decision) {
        self.actions += 1;
        let path = format!("/v1/dead-letters/{}/{}", letter.id, decision.word);
        let Ok(uri) = path.parse::<Uri>() else { return };
        let mut acted = Acted {
            letter: letter.id,
            action: decision.word,
            reason: format!("{}, action {}", self.name, self.actions),
            done: false,
            taken: false,
        };
        let mut body = json!({ "reason": acted.reason });
        if let Some(payload) = &decision.payload {
            body["payload"] = payload.clone();
        }
        for _ in 0..ATTEMPTS {
            let answer = self.sender.post_to(&uri, &body).await;
            let (status, words) = match &answer {
                Ok(answer) => (answer.status.as_u16(), answer.in_words()),
                Err(error) => (503, error.to_string()),
            };
            acted.done = matches!(status, 200 | 202);
            acted.taken = status == 409;
            self.sender.log.acts(&acted, &words);
            match status {
                200 | 202 | 409 => return,
                429 | 500.. => {}
                // It was listed, and what is asked is in order.
                _ => return self.sender.log.violated(format!("{path}: {body}: {words}")),
            }
            self.sender.turn_to_another();
            tokio::time::sleep(self.sender.draw.millis(30..400)).await;
        }
    }
}
