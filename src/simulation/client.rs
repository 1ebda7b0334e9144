//! The clients: they send commands as HTTP callers and as AMQP senders do, repeat what they have no
//! answer for, and remember what they were told. What they remember is what the checks believe.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Dice, Fault, Scenario,
    world::{Door, World, rfc3339},
};
use crate::{
    broker::{Confirmation, local::LocalMessage},
    immediate::Executed,
    ingress::{Origin, Refusal, Validator},
    message::{CommandId, Lane, Outcome},
    store::NewCommand,
};

/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The lane of whoever names none.
const QUEUED: &str = "queued";
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
    /// It was sent through the queued lane, and never through another.
    pub(super) queued: bool,
    /// The incarnations that were asked to take it.
    pub(super) asked: BTreeSet<String>,
    /// How it ended, by those who executed it.
    pub(super) ended: Option<Outcome>,
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

/// How a command goes to a process.
#[derive(Clone, Copy, Debug)]
enum Way {
    Queued,
    /// Answered before it is executed.
    Dispatched,
    /// Its caller waits so long for its end.
    Executed(Duration),
}

pub(super) fn lane(dice: &mut Dice) -> &'static str {
    match dice.below(100) {
        0..45 => QUEUED,
        45..75 => "immediate",
        _ => "immediate-or-queued",
    }
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
        let mut left = commands;
        while left > 0 {
            left -= 1;
            let pause = {
                let mut dice = self.world.dice();
                if dice.happens(2_500) { Duration::ZERO } else { dice.millis(0, 1_200) }
            };
            tokio::time::sleep(pause).await;
            let (mut draft, by_road) = self.draw();
            if by_road {
                self.send_by_road(draft).await;
                continue;
            }
            let mut answered_by = self.send(&draft, None).await;
            // At times the like of it follows at once, where the answer came from.
            while left > 0 && answered_by.is_some() && self.world.dice().happens(2_500) {
                left -= 1;
                draft["id"] = json!(CommandId::generate());
                draft["lane"] = json!(lane(&mut self.world.dice()));
                answered_by = self.send(&draft, answered_by).await;
            }
        }
    }

    fn draw(&self) -> (Value, bool) {
        let mut dice = self.world.dice();
        let mut scenario = self.scenario.lock().unwrap_or_else(PoisonError::into_inner);
        let mut draft = scenario.command(&mut dice);
        draft["id"] = json!(CommandId::generate());
        draft["lane"] = json!(lane(&mut dice));
        if dice.happens(1_000) {
            let wait = if dice.happens(8_000) {
                dice.millis(10, 5_000)
            } else {
                Duration::from_mins(1 + dice.below(240))
            };
            draft["not_before"] = json!(rfc3339(self.world.clock.now() + wait));
        }
        if dice.happens(500) {
            let due = if draft.get("not_before").is_some() { 5_000 } else { 0 };
            let within = Duration::from_millis(due) + dice.millis(0, 3_000);
            draft["not_after"] = json!(rfc3339(self.world.clock.now() + within));
        } else if draft.get("not_before").is_none() && dice.happens(100) {
            // It was on its way for long.
            let late = Duration::from_secs(60 + dice.below(600));
            draft["not_after"] = json!(rfc3339(self.world.clock.now() - late));
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
            queued: text("lane") == QUEUED,
            asked: BTreeSet::new(),
            ended: None,
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

    /// As a caller of `POST /v1/commands` does, of `door` first if one is given. Answers where it was
    /// accepted.
    async fn send(&self, draft: &Value, mut door: Option<Door>) -> Option<Door> {
        let id = self.remember(draft, false);
        let Ok(command) = self.validator.check_value(draft, &Origin::default()) else {
            self.told(id, Fate::Refused);
            return None;
        };
        let mut was_unknown = false;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                let pause = self.world.dice().millis(0, 1_000);
                tokio::time::sleep(pause).await;
            }
            let Some(door) = door.take().or_else(|| self.door()) else { continue };
            match self.ask(&door, &command).await {
                Some(Ok(())) => {
                    self.told(id, Fate::Accepted(self.world.next_moment()));
                    self.repeat(&command).await;
                    return Some(door);
                }
                Some(Err(Refusal::Unstorable(_))) if !was_unknown => {
                    self.told(id, Fate::Refused);
                    return None;
                }
                Some(Err(Refusal::Conflict)) => {
                    let complaint = format!("{id} is told to be taken by other content");
                    self.memory().complaints.push(complaint);
                    return None;
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
                            return None;
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
        None
    }

    /// Some send again what was accepted; it must change nothing.
    async fn repeat(&self, command: &NewCommand) {
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

    /// Asks a process to take a command; at times another one, too, at the same time and through
    /// the other lane. `None`: nobody answers who could say that it was not accepted.
    async fn ask(&self, door: &Door, command: &NewCommand) -> Option<Result<(), Refusal>> {
        let is_immediate = command.lane == Lane::Immediate;
        if !is_immediate || !self.world.strikes(Fault::BothLanes, 500) {
            return self.ask_one(door, command).await;
        }
        let queued = NewCommand { lane: Lane::Queued, ..command.clone() };
        let other = self.door()?;
        let both = tokio::join!(self.ask_one(door, command), self.ask_one(&other, &queued));
        match both {
            (Some(Err(Refusal::Conflict)), _) | (_, Some(Err(Refusal::Conflict))) => {
                Some(Err(Refusal::Conflict))
            }
            (Some(Ok(())), _) | (_, Some(Ok(()))) => Some(Ok(())),
            (Some(Err(Refusal::Unknown(_))) | None, _) | (_, None) => None,
            (Some(Err(_)), Some(Err(refusal))) => Some(Err(refusal)),
        }
    }

    /// `None`: the process died, or nobody answers.
    async fn ask_one(&self, door: &Door, command: &NewCommand) -> Option<Result<(), Refusal>> {
        if let Some(sent) = self.memory().sent.get_mut(&command.id.0) {
            sent.asked.insert(door.gate.name.clone());
        }
        let (way, wait) = self.way(command);
        let answered = async {
            let answer = self.go(door, command, way).await;
            // What a paused process has to say arrives when it goes on.
            door.gate.pass().await;
            answer
        };
        tokio::select! {
            biased;
            () = door.gate.died() => None,
            answer = answered => Some(answer),
            () = tokio::time::sleep(wait + PATIENCE) => None,
        }
    }

    fn way(&self, command: &NewCommand) -> (Way, Duration) {
        if command.lane == Lane::Queued {
            return (Way::Queued, Duration::ZERO);
        }
        let mut dice = self.world.dice();
        let wait = match dice.below(10) {
            0..4 => return (Way::Dispatched, Duration::ZERO),
            4 => dice.millis(0, 2),
            5..7 => dice.millis(2, 40),
            _ => dice.millis(500, 6_000),
        };
        (Way::Executed(wait), wait)
    }

    async fn go(&self, door: &Door, command: &NewCommand, way: Way) -> Result<(), Refusal> {
        let (id, command) = (command.id.0, command.clone());
        let answer = match way {
            Way::Queued => return door.commit.accept(command).await.map(drop),
            Way::Dispatched => door.immediate.dispatch(command).await.map(drop),
            Way::Executed(wait) => match door.immediate.execute(command, wait).await {
                Ok(Executed::Ended(_, outcome)) => {
                    // Whoever has died or is paused has told nobody.
                    door.gate.pass().await;
                    self.world.remark(format_args!("client: {id} ended: {outcome:?}"));
                    if let Some(sent) = self.memory().sent.get_mut(&id) {
                        sent.ended = Some(*outcome);
                    }
                    Ok(())
                }
                Ok(Executed::Accepted(_, Lane::Queued)) => {
                    self.without_room();
                    Ok(())
                }
                Ok(Executed::Accepted(_, Lane::Immediate)) => Ok(()),
                Err(refusal) => Err(refusal),
            },
        };
        if answer == Err(Refusal::Overloaded) {
            self.without_room();
        }
        answer
    }

    fn without_room(&self) {
        if self.world.is_armed() {
            self.world.count(Fault::NoRoom);
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
