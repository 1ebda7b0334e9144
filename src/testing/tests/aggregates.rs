use serde_json::json;

use super::{
    domain::{Dark, How, Lamp, Misbehave, Turn, Turned, turn, turned},
    failure, lines_of_failures, says,
    views::{Good, Levels},
};
use crate::{
    message::{CommandId, Metadata},
    testing::{Given, GivenView, Replayable, START, drawn_id},
};

fn misbehaves(how: How) -> String {
    failure(|| Given::<Lamp>::nothing().when(Misbehave { how }))
}

#[test]
fn what_holds_passes_in_a_chain() {
    Given::<Lamp>::events((turned(3),))
        .when(turn(5))
        .then_events([turned(5).into()])
        .then_reply(3)
        .then_version(2)
        .when(turn(5))
        .then_rejected("already")
        .then_error(Dark::Already(5))
        .then_rejected_with(|error| matches!(error, Dark::Already(5)))
        .then_version(2)
        .and()
        .after(turn(6))
        .when(turn(0))
        .then_invalid(["/to"])
        .when(Turn { to: 7, note: "a\0b".into() })
        .then_invalid(["/note"]);
}

#[test]
fn another_event_is_shown_line_by_line_with_wire_names() {
    let message = failure(|| Given::<Lamp>::nothing().when(turn(5)).then_events((turned(4),)));
    says(
        &message,
        &[
            "`lamp.turn` on lamp/1 brought about other events",
            "- expected\n+ actual\n",
            "\"lamp.turned\": {",
            "\n-       \"to\": 4\n+       \"to\": 5\n",
        ],
    );
}

#[test]
fn a_failure_points_at_the_line_of_the_test() {
    let found = lines_of_failures(|| {
        let given = Given::<Lamp>::nothing;
        let _ = failure(|| given().when(turn(5)).then_no_events());
        let _ = failure(|| given().when(turn(5)).then_rejected("already"));
        let _ = failure(|| given().when(Misbehave { how: How::Random }));
        let _ = failure(|| given().after(turn(0)));
        let _ = failure(|| given().stream("no name"));
        let _ = failure(|| Replayable::<Lamp>::new().no_golden_files().assert());
        let _ = failure(|| GivenView::<Levels<Good>>::nothing().offset::<Lamp>("hall", 0));
    });
    let first = found[0].1;
    let expected: Vec<_> = (0..7).map(|nth| (file!().to_owned(), first + nth)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_missing_event_and_one_too_many_are_shown() {
    let given = || Given::<Lamp>::nothing().when(turn(5));
    let missing = failure(|| given().then_events((turned(5), turned(6))));
    says(&missing, &["\n-     \"lamp.turned\": {", "-       \"to\": 6"]);
    says(
        &failure(|| given().then_no_events()),
        &["\n+     \"lamp.turned\": {", "+       \"to\": 5"],
    );
}

#[test]
fn a_rejection_in_place_of_events_says_its_code_and_message() {
    let given = || Given::<Lamp>::events((turned(5),)).when(turn(5));
    let message = failure(|| given().then_events((turned(5),)));
    says(
        &message,
        &["had to succeed with these events", "but it was rejected: already: it is at 5"],
    );
    says(&failure(|| given().then_reply(5)), &["with the reply 5", "but it was rejected"]);
    says(&failure(|| given().then_invalid(["/to"])), &["invalid at /to", "but it was rejected"]);
}

#[test]
fn another_rejection_is_told_by_code_by_value_and_by_predicate() {
    let given = || Given::<Lamp>::events((turned(5),)).when(turn(5));
    says(&failure(|| given().then_rejected("broken")), &["- broken", "+ already", "it is at 5"]);
    says(&failure(|| given().then_error(Dark::Already(4))), &["-     4,", "+     5,"]);
    let predicate = failure(|| given().then_rejected_with(|error| *error == Dark::Broken));
    says(&predicate, &["another error", "already"]);
    let success = failure(|| Given::<Lamp>::nothing().when(turn(1)).then_rejected("already"));
    says(&success, &["had to be rejected with the code `already`", "succeeded", "lamp.turned"]);
}

#[test]
fn other_replies_versions_and_pointers_are_told() {
    let given = || Given::<Lamp>::events((turned(2),));
    says(&failure(|| given().when(turn(3)).then_reply(9)), &["- 9", "+ 2"]);
    says(&failure(|| given().when(turn(3)).then_version(7)), &["- 7", "+ 2"]);
    let pointers = failure(|| given().when(turn(0)).then_invalid(["/note"]));
    says(&pointers, &["- /note", "+ /to", "/to range: must be at least 1"]);
}

#[test]
fn a_command_that_breaks_its_rules_never_reaches_decide() {
    let message = failure(|| Given::<Lamp>::nothing().when(turn(0)).then_events((turned(0),)));
    says(&message, &["but it was refused as invalid", "/to range: must be at least 1"]);
}

#[test]
fn a_decision_that_differs_when_made_again_fails_at_once() {
    says(&misbehaves(How::Random), &["`decide` is not pure", "call ", "call "]);
}

#[test]
fn an_event_that_loses_a_field_on_the_way_fails_at_once() {
    let message = misbehaves(How::ForgetInEvent);
    says(
        &message,
        &["`lamp.forgetful` is another after", "-         lost: 7,", "+         lost: 0,"],
    );
    let given = failure(|| Given::<Lamp>::events((super::domain::Forgetful { lost: 1 },)));
    says(&given, &["given: the event `lamp.forgetful` is another"]);
}

#[test]
fn an_event_that_cannot_be_read_back_fails_at_once() {
    let message = misbehaves(How::Unreadable);
    says(&message, &["`lamp.one_way` cannot be decoded again", r#"{"number":"3"}"#]);
}

#[test]
fn a_state_that_a_snapshot_does_not_hold_fails_at_the_next_decision() {
    let message =
        failure(|| Given::<Lamp>::events((super::domain::Forgetful { lost: 0 },)).when(turn(1)));
    says(&message, &["the state does not survive a snapshot", "broken", "lamp.turned"]);
}

#[test]
fn a_panic_and_what_cannot_be_stored_are_dead_commands() {
    let given = Given::<Lamp>::nothing;
    given().when(Misbehave { how: How::Panic }).then_dead("handler_panicked");
    given().when(Misbehave { how: How::Nul }).then_dead("unstorable").then_version(0);
    let message = failure(|| given().when(Misbehave { how: How::Panic }).then_no_events());
    says(&message, &["but it is dead: handler_panicked: `decide` panicked: a bug"]);
}

#[test]
fn the_context_is_the_tests_to_choose() {
    let id = CommandId(uuid::Uuid::from_u128(42));
    let named = Turned { id: drawn_id(id, 0).to_string(), ..turned(4) };
    Given::<Lamp>::nothing()
        .stream("hall")
        .at(START + time::Duration::DAY)
        .metadata(Metadata { actor: Some("Ada".into()), ..Metadata::default() })
        .command_id(id)
        .expected_version(0)
        .when(turn(4))
        .then_events((named,))
        .and()
        .expected_version(0)
        .when(turn(5))
        .then_rejected("version_conflict");
}

#[test]
fn events_of_older_schema_versions_are_upcast() {
    Given::<Lamp>::nothing()
        .and_stored("turned", 1, &json!({ "to": 6, "note": "" }))
        .when(turn(6))
        .then_rejected("already");
    let message = failure(|| Given::<Lamp>::nothing().and_stored("turned", 3, &json!({})));
    says(&message, &["given: a stored event cannot be read", "newer than 2"]);
}

#[test]
fn what_is_given_by_commands_must_succeed() {
    let message = failure(|| Given::<Lamp>::nothing().after(turn(1)).after(turn(1)));
    says(&message, &["given: `lamp.turn` on lamp/1 had to succeed", "rejected: already"]);
}

/// Prints what a test costs; time is not asserted.
#[test]
fn a_given_when_then_is_cheap() {
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        Given::<Lamp>::events((turned(3),)).when(turn(5)).then_events((turned(5),)).then_reply(3);
    }
    println!("one given/when/then: {:?}", begun.elapsed() / 100);
}
