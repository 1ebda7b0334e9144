use std::marker::PhantomData;

use serde_json::json;

use super::{
    domain::{Lamp, LampEvent, Turned, turned},
    failure, says,
};
use crate::{
    prelude::*,
    testing::{GivenView, START},
};

/// How a projection behaves.
pub(super) trait Behaviour: Default + Send + Sync + 'static {
    const SCOPE: Scope = Scope::Stream;
    fn key(event: &EventRecord) -> String {
        event.stream.id().to_owned()
    }
    fn apply(view: &mut Option<Level>, turned: &Turned, event: &EventRecord) {
        let turns = view.as_ref().map_or(0, |view| view.turns);
        let at = event.recorded_at.unix_timestamp();
        let position = event.position.to_string();
        *view = Some(Level { level: turned.to, turns: turns + 1, at, position, unsaved: 0 });
    }
}

#[derive(Default)]
pub(super) struct Levels<B>(PhantomData<B>);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Level {
    level: u8,
    turns: u32,
    at: i64,
    position: String,
    #[serde(skip)]
    unsaved: u8,
}

impl<B: Behaviour> Projection for Levels<B> {
    const NAME: &'static str = "levels";
    const SCOPE: Scope = B::SCOPE;
    type View = Level;

    fn events(&self) -> EventSelection {
        EventSelection::named(["lamp.turned"])
    }
    fn keys(&self, event: &EventRecord) -> Vec<String> {
        vec![B::key(event)]
    }
    fn apply(
        &self,
        _: &str,
        view: &mut Option<Level>,
        event: &EventRecord,
    ) -> Result<(), ProjectionError> {
        match event.get() {
            Some(LampEvent::Turned(turned)) if turned.to > 9 => {
                Err(ProjectionError::fatal("a lamp goes up to 9"))
            }
            Some(LampEvent::Turned(turned)) => {
                B::apply(view, turned, event);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[derive(Default)]
pub(super) struct Good;
impl Behaviour for Good {
    fn apply(view: &mut Option<Level>, turned: &Turned, event: &EventRecord) {
        match turned.to {
            0 => *view = None,
            _ => Plain::apply(view, turned, event),
        }
    }
}
#[derive(Default)]
struct Plain;
impl Behaviour for Plain {}

fn level(level: u8, turns: u32, position: &str) -> Level {
    let (at, position) = (START.unix_timestamp(), position.to_owned());
    Level { level, turns, at, position, unsaved: 0 }
}

#[test]
fn what_holds_passes_in_a_chain() {
    GivenView::<Levels<Good>>::nothing()
        .partition(3)
        .when::<Lamp>("hall", (turned(4), turned(5)))
        .then_document("hall", &level(5, 2, "3:2"))
        .then_version("hall", 2)
        .then_no_document("attic")
        .when::<Lamp>("hall", (super::domain::Forgetful { lost: 0 },))
        .then_unchanged()
        .when::<Lamp>("hall", (turned(0),))
        .then_no_document("hall")
        .then_version("hall", 3)
        .when::<Lamp>("cellar", (turned(0),))
        .then_unchanged();
}

#[test]
fn time_offset_and_version_may_be_chosen() {
    GivenView::<Levels<Good>>::document("hall", &level(1, 1, "3:1"))
        .partition(3)
        .offset::<Lamp>("hall", 17)
        .version::<Lamp>("hall", 2)
        .at(START + time::Duration::SECOND)
        .when::<Lamp>("hall", (turned(4),))
        .then_document("hall", &Level { at: START.unix_timestamp() + 1, ..level(4, 2, "3:17") })
        .and()
        .when_stored::<Lamp>("hall", "turned", 1, &json!({ "to": 7, "note": "" }))
        .then_version("hall", 3);
}

#[test]
fn another_document_a_missing_one_and_one_too_many_are_shown() {
    let given =
        || GivenView::<Levels<Good>>::nothing().partition(3).when::<Lamp>("hall", (turned(4),));
    let other = failure(|| given().then_document("hall", &level(5, 1, "3:1")));
    says(&other, &["view `levels`: `hall` is another", "-   \"level\": 5,", "+   \"level\": 4,"]);
    let missing = failure(|| given().then_document("attic", &level(5, 1, "3:1")));
    says(&missing, &["has no document `attic`", "all documents", "\"hall\""]);
    says(&failure(|| given().then_no_document("hall")), &["must not have a document `hall`"]);
    says(&failure(|| given().then_keys(["attic"])), &["- attic", "+ hall"]);
    says(&failure(|| given().then_unchanged()), &["had to stay as it was", "+     \"version\": 1"]);
    says(&failure(|| given().then_version("hall", 2)), &["- 2", "+ 1"]);
    says(&failure(|| given().then_stopped("9")), &["had to stop", "applied lamp.turned"]);
}

#[test]
fn an_event_that_is_not_selected_is_named_where_a_document_is_missed() {
    let given = GivenView::<Levels<Good>>::nothing();
    let message = failure(|| {
        let forgetful = super::domain::Forgetful { lost: 0 };
        given.when::<Lamp>("hall", (forgetful,)).then_document("hall", &level(1, 1, ""))
    });
    says(&message, &["does not select `lamp.forgetful`"]);
}

#[test]
fn an_event_that_cannot_be_applied_stops_the_view_and_only_that_is_left_to_assert() {
    let given = || GivenView::<Levels<Good>>::nothing().partition(3);
    given().when::<Lamp>("hall", (turned(10),)).then_stopped("a lamp goes up to 9");
    let given = || given().when::<Lamp>("hall", (turned(10),));
    let message = failure(|| given().then_unchanged());
    says(&message, &["view `levels` stops at the event at 3:1: a lamp goes up to 9"]);
    says(&failure(|| given().then_stopped("8")), &["another reason", "- 8", "+ the event at"]);
}

#[derive(Default)]
struct OneKey;
impl Behaviour for OneKey {
    fn key(_: &EventRecord) -> String {
        "all".into()
    }
}

#[test]
fn a_document_of_scope_stream_is_fed_by_one_stream() {
    let given = || GivenView::<Levels<OneKey>>::nothing().partition(1);
    let given = || given().after::<Lamp>("hall", (turned(1),)).partition(2);
    given().when::<Lamp>("attic", (turned(1),)).then_stopped("fed by two partitions");
    given()
        .partition(1)
        .when::<Lamp>("attic", (turned(1),))
        .then_stopped("two streams, lamp/hall and lamp/attic");
}

#[derive(Default)]
struct LastOne;
impl Behaviour for LastOne {
    const SCOPE: Scope = Scope::Shared;
    fn key(_: &EventRecord) -> String {
        "all".into()
    }
}

#[test]
fn a_shared_document_that_depends_on_the_order_of_partitions_fails_at_once() {
    let given = GivenView::<Levels<LastOne>>::nothing().partition(1);
    let given = given.after::<Lamp>("hall", (turned(1),)).partition(2);
    let message = failure(|| given.when::<Lamp>("attic", (turned(2),)));
    says(
        &message,
        &["in another order the documents differ", "-     \"level\": 2,", "+     \"level\": 1,"],
    );
}

#[derive(Default)]
struct LongKey;
impl Behaviour for LongKey {
    fn key(event: &EventRecord) -> String {
        "x".repeat(usize::try_from(event.version.0).unwrap() * 256)
    }
}

#[test]
fn keys_have_1_to_512_bytes() {
    GivenView::<Levels<LongKey>>::nothing()
        .after::<Lamp>("hall", (turned(1), turned(2)))
        .when::<Lamp>("hall", (turned(1),))
        .then_stopped("it must have 1 to 512 bytes");
    let empty = failure(|| GivenView::<Levels<Good>>::document("", &level(1, 1, "1:1")));
    says(&empty, &["given: the document ``", "1 to 512 bytes"]);
}

#[derive(Default)]
struct Unsaved;
impl Behaviour for Unsaved {
    fn apply(view: &mut Option<Level>, turned: &Turned, _: &EventRecord) {
        let mut next = view.clone().unwrap_or_default();
        next.level += next.unsaved;
        next.unsaved = turned.to;
        *view = Some(next);
    }
}

#[test]
fn a_document_that_depends_on_batches_fails_at_once() {
    let given = GivenView::<Levels<Unsaved>>::nothing();
    let message = failure(|| given.when::<Lamp>("hall", (turned(3), turned(4))));
    says(
        &message,
        &["depend on how their events are batched", "-     \"level\": 0,", "+     \"level\": 3,"],
    );
}
