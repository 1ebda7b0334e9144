//! A lamp that works, and switches on it that break what production relies on.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::prelude::*;

#[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn {
    #[garde(range(min = 1, max = 9))]
    pub(super) to: u8,
    #[garde(skip)]
    #[serde(default)]
    pub(super) note: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
pub(super) struct Misbehave {
    #[garde(skip)]
    pub(super) how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(super) enum How {
    Random,
    Panic,
    ForgetInEvent,
    Unreadable,
    OnlyInMemory,
    Nul,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Turned {
    pub(super) to: u8,
    pub(super) note: String,
    pub(super) id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Forgetful {
    #[serde(skip)]
    pub(super) lost: u8,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct OneWay {
    #[serde(serialize_with = "as_text")]
    pub(super) number: u8,
}

fn as_text<S: serde::Serializer>(number: &u8, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

crate::commands! {
    pub(super) enum LampCommand {
        Turn(Turn) = "turn" v1,
        Misbehave(Misbehave) = "misbehave" v1,
    }
}

crate::events! {
    pub(super) enum LampEvent {
        Turned(Turned) = "turned" v2 upcast name_it,
        Forgetful(Forgetful) = "forgetful" v1,
        OneWay(OneWay) = "one_way" v1,
    }
}

/// v1 had no id.
pub(super) fn name_it(_: i16, mut data: serde_json::Value) -> Result<serde_json::Value, String> {
    data["id"] = "unknown".into();
    Ok(data)
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Lamp {
    level: u8,
    #[serde(skip)]
    broken: bool,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum Dark {
    #[error("it is at {0} already")]
    Already(u8),
    #[error("it is broken")]
    Broken,
}

impl DomainError for Dark {
    fn code(&self) -> &str {
        match self {
            Self::Already(_) => "already",
            Self::Broken => "broken",
        }
    }
}

pub(super) fn turned(to: u8) -> Turned {
    Turned { to, note: String::new(), id: "unknown".into() }
}

pub(super) fn turn(to: u8) -> Turn {
    Turn { to, note: String::new() }
}

impl Aggregate for Lamp {
    const TYPE: &'static str = "lamp";
    type Command = LampCommand;
    type Event = LampEvent;
    type Error = Dark;
    type Reply = u8;

    fn decide(
        &self,
        command: &LampCommand,
        context: &Context,
    ) -> Result<Decision<LampEvent, u8>, Dark> {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        if self.broken {
            return Err(Dark::Broken);
        }
        let turned = |to, note: &str| Turned {
            to,
            note: note.to_owned(),
            id: match &context.metadata().actor {
                Some(_) => context.new_id().to_string(),
                None => "unknown".into(),
            },
        };
        let how = match command {
            LampCommand::Turn(turn) if turn.to == self.level => {
                return Err(Dark::Already(turn.to));
            }
            LampCommand::Turn(turn) => {
                return Ok(Decision::event(turned(turn.to, &turn.note)).reply(self.level));
            }
            LampCommand::Misbehave(misbehave) => misbehave.how,
        };
        let event: LampEvent = match how {
            How::Random => {
                let calls = CALLS.fetch_add(1, Ordering::Relaxed);
                turned(1, &format!("call {calls}")).into()
            }
            How::Panic => panic!("a bug"),
            How::ForgetInEvent => Forgetful { lost: 7 }.into(),
            How::Unreadable => OneWay { number: 3 }.into(),
            How::OnlyInMemory => Forgetful { lost: 0 }.into(),
            How::Nul => turned(1, "\0").into(),
        };
        Ok(Decision::event(event).reply(0))
    }

    fn evolve(&mut self, event: &LampEvent) {
        match event {
            // What a snapshot does not hold, and `evolve` asks all the same.
            LampEvent::Turned(turned) if !self.broken => self.level = turned.to,
            LampEvent::Turned(_) | LampEvent::OneWay(_) => {}
            LampEvent::Forgetful(forgetful) => self.broken = forgetful.lost == 0,
        }
    }
}
