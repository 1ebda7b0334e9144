//! Writing is tested where the switch can be set without touching the process's environment.

use std::{fs, path::PathBuf};

use super::{
    super::golden::{self, Samples},
    domain::{LampCommand, Turn, Turned, name_it, turn},
    says,
};
use crate::{prelude::*, testing::history};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Burst {
    at: u8,
}

crate::events! {
    enum BulbEvent {
        Turned(Turned) = "turned" v2 upcast name_it,
        Burst(Burst) = "burst" v1,
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Bulb;

impl Aggregate for Bulb {
    const TYPE: &'static str = "bulb";
    type Command = LampCommand;
    type Event = BulbEvent;
    type Error = NoError;
    type Reply = ();

    fn decide(
        &self,
        command: &LampCommand,
        _: &Context,
    ) -> Result<Decision<BulbEvent, ()>, NoError> {
        let LampCommand::Turn(Turn { to, note }) = command else { return Ok(Decision::none()) };
        Ok(Decision::event(Turned { to: *to, note: note.clone(), id: String::new() }))
    }

    fn evolve(&mut self, _: &BulbEvent) {}
}

/// A directory of its own for each test.
fn directory(test: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("adjutant-{}-{test}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    directory
}

fn samples() -> Samples {
    let mut samples = Samples::default();
    samples.add(history::check::<Bulb>(&[turn(4).into(), turn(3).into()]).unwrap());
    samples
}

/// Written, with the old version put there by hand.
fn written(test: &str) -> PathBuf {
    let directory = directory(test);
    let v1 = directory.join("bulb.turned/v1.json");
    fs::create_dir_all(v1.parent().unwrap()).unwrap();
    fs::write(v1, r#"{"to":1,"note":"old"}"#).unwrap();
    golden::check::<Bulb>(&directory, &samples(), true).unwrap();
    directory
}

#[test]
fn missing_files_are_named_with_the_way_to_write_them() {
    let message = golden::check::<Bulb>(&directory("missing"), &samples(), false).unwrap_err();
    says(
        &message,
        &[
            "bulb.turned/v1.json is missing: bring it back from version control",
            "bulb.turned/v2.json is missing: run the test once with ADJUTANT_WRITE_GOLDEN=1",
            "bulb.burst/v1.json is missing",
        ],
    );
}

#[test]
fn what_is_written_is_read_from_then_on() {
    let directory = written("written");
    golden::check::<Bulb>(&directory, &Samples::default(), false).unwrap();
    let text = fs::read_to_string(directory.join("bulb.turned/v2.json")).unwrap();
    assert!(text.contains("\"to\": 3"), "{text}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_any_more_is_named() {
    let directory = written("undecodable");
    fs::write(directory.join("bulb.turned/v1.json"), r#"{"to":"high"}"#).unwrap();
    let message = golden::check::<Bulb>(&directory, &samples(), true).unwrap_err();
    says(&message, &["bulb.turned/v1.json cannot be read any more", "payload of `turned`"]);
    fs::write(directory.join("bulb.turned/v1.json"), "{").unwrap();
    let message = golden::check::<Bulb>(&directory, &samples(), true).unwrap_err();
    says(&message, &["bulb.turned/v1.json is no JSON"]);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_changed_shape_needs_a_new_schema_version() {
    let directory = written("shape");
    let old = r#"{"to":3,"note":"","id":"a","gone":1}"#;
    fs::write(directory.join("bulb.turned/v2.json"), old).unwrap();
    let message = golden::check::<Bulb>(&directory, &samples(), true).unwrap_err();
    says(&message, &["a new shape is a new schema version", "-   \"gone\": 1"]);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn files_of_events_that_nobody_declares_any_more_are_named() {
    let directory = written("forgotten");
    fs::create_dir_all(directory.join("bulb.dimmed")).unwrap();
    fs::write(directory.join("bulb.dimmed/v1.json"), "{}").unwrap();
    fs::write(directory.join("bulb.turned/v9.json"), "{}").unwrap();
    fs::create_dir_all(directory.join("door.opened")).unwrap();
    let message = golden::check::<Bulb>(&directory, &samples(), true).unwrap_err();
    says(
        &message,
        &[
            "bulb.dimmed/v1.json is an event that is not declared any more",
            "bulb.turned/v9.json is of a schema version above the declared v2",
        ],
    );
    fs::remove_dir_all(directory).unwrap();
}
