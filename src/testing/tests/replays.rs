use proptest::prelude::*;

use super::{
    domain::{Forgetful, How, Lamp, LampCommand, LampEvent as BlinkerEvent, Misbehave, turn},
    failure, says,
};
use crate::{
    prelude::*,
    testing::{Replayable, commands, given, history, subject::Subject, wire},
};

fn turns() -> impl Strategy<Value = LampCommand> {
    (1_u8..=9).prop_map(|to| turn(to).into())
}

fn misbehaves(how: How) -> String {
    let bad = Just(LampCommand::from(Misbehave { how }));
    let commands = prop_oneof![3 => turns(), 1 => bad];
    failure(|| Replayable::<Lamp>::new().commands(commands).seed(7).no_golden_files().assert())
}

#[test]
fn an_aggregate_that_keeps_its_promises_passes() {
    Replayable::<Lamp>::new().commands(turns()).no_golden_files().assert();
}

#[test]
fn the_smallest_history_is_shown_with_the_seed() {
    let message = misbehaves(How::Panic);
    says(
        &message,
        &[
            "`lamp` cannot be replayed (seed 7; repeat with ADJUTANT_SEED=7)",
            "the smallest history found:\n  1. lamp.misbehave {\"how\":\"Panic\"}\n",
            "command 1: it is dead: handler_panicked: `decide` panicked: a bug",
        ],
    );
    assert!(!message.contains("  2. "), "{message}");
}

#[test]
fn what_given_when_then_refuses_is_found_in_histories_too() {
    says(&misbehaves(How::Random), &["command 1: `decide` is not pure"]);
    says(&misbehaves(How::ForgetInEvent), &["`lamp.forgetful` is another after"]);
    says(&misbehaves(How::Unreadable), &["`lamp.one_way` cannot be decoded again"]);
}

#[test]
fn a_decision_that_differs_after_a_snapshot_is_found() {
    let message = misbehaves(How::OnlyInMemory);
    says(&message, &["1. lamp.misbehave", "2. lamp.turn", "does not survive a snapshot"]);
}

#[test]
fn commands_from_the_json_schema_keep_their_rules() {
    let mut runner = super::super::generate::runner(1, 1);
    let strategy = commands::<Lamp>();
    let mut turns = 0;
    for _ in 0..500 {
        let command = strategy.new_tree(&mut runner).unwrap().current();
        assert!(crate::domain::MessageSet::violations(&command).is_empty());
        turns += u32::from(matches!(command, LampCommand::Turn(_)));
    }
    assert!((150..350).contains(&turns), "{turns} of 500 are of one of two types");
}

#[test]
fn the_same_seed_draws_the_same_histories() {
    assert_eq!(misbehaves(How::Panic), misbehaves(How::Panic));
}

/// Decides well, but its `evolve` asks what no snapshot holds.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Blinker {
    level: u8,
    #[serde(skip)]
    seen: u32,
}

impl Aggregate for Blinker {
    const TYPE: &'static str = "blinker";
    type Command = LampCommand;
    type Event = BlinkerEvent;
    type Error = NoError;
    type Reply = ();

    fn decide(&self, _: &LampCommand, _: &Context) -> Result<Decision<BlinkerEvent, ()>, NoError> {
        Ok(Decision::event(Forgetful { lost: 0 }))
    }

    fn evolve(&mut self, _: &BlinkerEvent) {
        self.seen += 1;
        if self.seen == 3 {
            self.level = 1;
        }
    }
}

#[test]
fn an_event_that_counts_only_without_a_snapshot_before_it_is_found() {
    let run = || Replayable::<Blinker>::new().commands(turns()).no_golden_files().assert();
    says(&failure(run), &["`blinker` cannot be replayed", "-   \"level\": ", "+   \"level\": "]);
}

/// The check of the cuts alone, which decisions run ahead of.
#[test]
fn every_cut_of_a_history_is_tried() {
    let event = wire::survives("blinker", &BlinkerEvent::from(Forgetful { lost: 0 })).unwrap();
    let replay = |count| {
        let events = vec![event.clone(); count];
        let mut decided = Subject::<Blinker>::new(given::stream_of::<Blinker>("1"));
        events.iter().for_each(|event| decided.fold(event).unwrap());
        history::replay_from_every_snapshot(&decided, &events)
    };
    replay(2).unwrap();
    let message = replay(3).unwrap_err();
    says(
        &message,
        &[
            "a snapshot at version 1 and the 2 events after it give another state than all 3",
            "-   \"level\": 1",
            "+   \"level\": 0",
        ],
    );
}

#[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
struct Picky {
    #[garde(custom(refuse))]
    value: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde prescribes the shape")]
fn refuse(_: &u64, (): &()) -> garde::Result {
    Err(garde::Error::new("is never right"))
}

crate::commands! { enum PickyCommand { Picky(Picky) = "picky" v1 } }

#[derive(Clone, Default, Serialize, Deserialize)]
struct Refuser;

impl Aggregate for Refuser {
    const TYPE: &'static str = "refuser";
    type Command = PickyCommand;
    type Event = BlinkerEvent;
    type Error = NoError;
    type Reply = ();

    fn decide(&self, _: &PickyCommand, _: &Context) -> Result<Decision<BlinkerEvent, ()>, NoError> {
        Ok(Decision::none())
    }

    fn evolve(&mut self, _: &BlinkerEvent) {}
}

#[test]
fn rules_that_no_generated_value_keeps_are_named() {
    let message = failure(|| Replayable::<Refuser>::new().no_golden_files().assert());
    says(
        &message,
        &["`refuser.picky` keeps its rules", "/value: is never right", "assert_replayable_with"],
    );
}
