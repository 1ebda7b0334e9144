//! The clients: they send commands as HTTP callers and as AMQP senders do, repeat what they have no
//! answer for, and remember what they were told. What they remember is what the checks believe.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Fault, Scenario,
    world::{Door, World, rfc3339},
};
use crate::{
    broker::{Confirmation, local::LocalMessage},
    ingress::{Answer, Origin, Refusal, Validator},
    message::CommandId,
};

/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a caller without an answer sends again.
const ATTEMPTS: u32 = 4;

pub(super) const INTAKE: &str = "adjutant.intake";
pub(super) const REPLIES: &str = "simulation.replies";

/// What a client knows of a command that it sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) stream: String,
    /// When it was sent first, among all that clients did.
    pub(super) first_at: u64,
    pub(super) fate: Fate,
    /// It waits for its time.
    pub(super) delayed: bool,
    /// A reply was asked for.
    pub(super) wants_reply: bool,
}

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Accepted, heard at this moment.
    Accepted(u64),
    /// The broker took it: it will be accepted.
    Handed,
    /// Nothing was accepted.
    Refused,
    /// Nobody answered.
    Unknown,
}

/// All that clients know.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) sent: BTreeMap<Uuid, Sent>,
    /// Messages that can never be accepted, by `message-id`.
    pub(super) hopeless: Vec<Uuid>,
    /// What no client may ever be told.
    pub(super) complaints: Vec<String>,
}

pub(super) struct Clients {
    pub(super) world: Arc<World>,
    pub(super) scenario: Arc<Mutex<Box<dyn Scenario>>>,
    pub(super) validator: Validator,
    pub(super) memory: Arc<Mutex<Memory>>,
}

impl Clients {
    /// One client sends so many commands, one after the other.
    pub(super) async fn run(self: Arc<Self>, commands: usize) {
        for _ in 0..commands {
            let pause = {
                let mut dice = self.world.dice();
                if dice.happens(2_500) { Duration::ZERO } else { dice.millis(0, 1_200) }
            };
            tokio::time::sleep(pause).await;
            let (draft, by_road) = self.draw();
            if by_road {
                self.send_by_road(draft).await;
            } else {
                self.send(draft).await;
            }
        }
    }

    fn draw(&self) -> (Value, bool) {
        let mut dice = self.world.dice();
        let mut scenario = self.scenario.lock().unwrap_or_else(PoisonError::into_inner);
        let mut draft = scenario.command(&mut dice);
        draft["id"] = json!(CommandId::generate());
        if dice.happens(1_000) {
            let wait = if dice.happens(8_000) {
                dice.millis(10, 5_000)
            } else {
                Duration::from_mins(1 + dice.below(240))
            };
            draft["not_before"] = json!(rfc3339(self.world.clock.now() + wait));
        }
        (draft, dice.happens(1_500))
    }

    fn remember(&self, draft: &Value, wants_reply: bool) -> Uuid {
        let text = |field: &str| draft[field].as_str().unwrap_or_default().to_owned();
        let id = text("id").parse().unwrap_or_default();
        let sent = Sent {
            stream: text("stream"),
            first_at: self.world.next_moment(),
            fate: Fate::Unknown,
            delayed: draft.get("not_before").is_some(),
            wants_reply,
        };
        self.memory().sent.insert(id, sent);
        id
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, id: Uuid, fate: Fate) {
        self.world.remark(format_args!("client: {id} {fate:?}"));
        if let Some(sent) = self.memory().sent.get_mut(&id) {
            sent.fate = fate;
        }
    }

    /// As a caller of `POST /v1/commands` does.
    async fn send(&self, draft: Value) {
        let id = self.remember(&draft, false);
        let Ok(command) = self.validator.check_value(&draft, &Origin::default()) else {
            self.told(id, Fate::Refused);
            return;
        };
        let mut was_unknown = false;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                let pause = self.world.dice().millis(0, 1_000);
                tokio::time::sleep(pause).await;
            }
            let Some(door) = self.door() else { continue };
            match self.ask(&door, &command).await {
                Some(Ok(_)) => {
                    self.told(id, Fate::Accepted(self.world.next_moment()));
                    self.repeat(&command).await;
                    return;
                }
                Some(Err(Refusal::Unstorable(_))) if !was_unknown => {
                    self.told(id, Fate::Refused);
                    return;
                }
                Some(Err(Refusal::Conflict)) => {
                    let complaint = format!("{id} is told to be taken by other content");
                    self.memory().complaints.push(complaint);
                    return;
                }
                // Nothing was accepted, if an earlier attempt did not.
                Some(Err(
                    Refusal::Overloaded
                    | Refusal::OutboxFull
                    | Refusal::Stopping
                    | Refusal::Unavailable(_)
                    | Refusal::Internal(_),
                )) => {
                    if !was_unknown {
                        self.told(id, Fate::Refused);
                        let gives_up = self.world.dice().happens(5_000);
                        if gives_up {
                            return;
                        }
                    }
                }
                Some(Err(_)) | None => {
                    was_unknown = true;
                    self.told(id, Fate::Unknown);
                    if self.world.is_armed() {
                        self.world.count(Fault::Resent);
                    }
                }
            }
        }
    }

    /// Some send again what was accepted; it must change nothing.
    async fn repeat(&self, command: &crate::store::NewCommand) {
        if !self.world.strikes(Fault::Repetition, 500) {
            return;
        }
        let Some(door) = self.door() else { return };
        let again = self.ask(&door, command).await;
        self.world.remark(format_args!("client: {} again: {again:?}", command.id));
        if matches!(again, Some(Err(Refusal::Conflict))) {
            let complaint = format!("{} was accepted, and is then told to conflict", command.id);
            self.memory().complaints.push(complaint);
        }
    }

    fn door(&self) -> Option<Door> {
        let doors = self.world.doors().clone();
        self.world.dice().pick(&doors).cloned()
    }

    /// `None`: the process died, or nobody answers.
    async fn ask(&self, door: &Door, command: &crate::store::NewCommand) -> Option<Answer> {
        let answered = async {
            let answer = door.commit.accept(command.clone()).await;
            // What a paused process has to say arrives when it goes on.
            door.gate.pass().await;
            answer
        };
        tokio::select! {
            biased;
            () = door.gate.died() => None,
            answer = answered => Some(answer),
            () = tokio::time::sleep(PATIENCE) => None,
        }
    }

    /// As a sender by AMQP with publisher confirms does; some messages are hopeless.
    async fn send_by_road(&self, draft: Value) {
        let id = draft["id"].as_str().unwrap_or_default().to_owned();
        let damaged = self.world.dice().happens(1_000);
        let body = if damaged { "{\"type\": 1".to_owned() } else { draft.to_string() };
        // What breaks the rules is found out later, and told by a dead letter.
        let hopeless = self.validator.check(body.as_bytes(), &Origin::default()).is_err();
        if !hopeless {
            self.remember(&draft, true);
        }
        let uuid: Uuid = id.parse().unwrap_or_default();
        let message = LocalMessage {
            message_id: Some(id.clone()),
            content_type: Some("application/json".into()),
            reply_to: (!hopeless).then(|| REPLIES.to_owned()),
            correlation_id: Some(id),
            body: Bytes::from(body),
            ..LocalMessage::default()
        };
        for _ in 0..ATTEMPTS {
            let sent = self.world.broker.send(INTAKE, message.clone());
            if matches!(sent, Ok(Confirmation::Published)) {
                if hopeless {
                    self.memory().hopeless.push(uuid);
                } else {
                    self.told(uuid, Fate::Handed);
                }
                return;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        if !hopeless {
            self.told(uuid, Fate::Refused);
        }
    }
}
