//! Attempts, deaths, people, parked keys, strict drills.

use super::*;

const FAILS: &str = "drill_fails";
const FATAL: &str = "drill_fatal";

fn after(attempts: i32) -> Outcome {
    Outcome { attempts, ..RUN }
}

fn dead_after(attempts: i32) -> Outcome {
    Outcome { status: 3, attempts, ..REJECTED }
}

#[test]
fn failures_that_went_as_they_must_have_no_violation() {
    let mut story = Story::new();
    story.drills(Kind::Flaky, 2, &[FAILS, FAILS], after(3));
    story.drills(Kind::Flaky, 1, &[FAILS, "timed_out"], after(3));
    let exhausted = story.drills(Kind::Exhausted, 1_000, &[FAILS; 4], dead_after(4));
    story.letter(1, exhausted, 4, 4, &["discard"]);
    let fatal = story.drills(Kind::Fatal, 0, &[FATAL], after(2));
    story.came_back(fatal, 1);
    story.letter(1, fatal, 1, 3, &["retry_edited"]);
    let aborts = story.drills(Kind::Aborts, 0, &["crashed"], dead_after(1));
    story.letter(1, aborts, 1, 4, &["discard"]);
    let poisons = story.drills(Kind::Poisons, 0, &[], after(1));
    story.letter(2, poisons, 3, 3, &["retry"]);
    story.letter(2, poisons, 4, 4, &["discard"]);
    assert_eq!(story.found(None), [""; 0]);
}

#[test]
fn attempts_are_as_many_as_a_command_wanted() {
    let found = |kind, fails, codes: &[&str], outcome| {
        let mut story = Story::new();
        story.drills(kind, fails, codes, outcome);
        story.found(None)
    };
    assert_eq!(found(Kind::Flaky, 2, &[FAILS], after(2)), ["succeeded too early"]);
    assert_eq!(found(Kind::Flaky, 1, &[FAILS, FAILS], after(3)), ["failed for a wrong reason"]);
    assert_eq!(found(Kind::Flaky, 1, &[FAILS], after(3)), ["attempts with a gap"]);
    assert_eq!(found(Kind::Slow, 20, &["crashed"], after(2)), ["failed for a wrong reason"]);
}

#[test]
fn a_death_has_one_letter_and_only_what_must_die_does() {
    let mut story = Story::new();
    story.drills(Kind::Fatal, 0, &[FATAL], dead_after(1));
    assert_eq!(story.found(None), ["death without a dead letter", "did not die as it must"]);

    let mut story = Story::new();
    let id = story.drills(Kind::Fatal, 0, &[FATAL], dead_after(1));
    story.letter(1, id, 1, 4, &["discard"]);
    story.letter(1, id, 1, 4, &["discard"]);
    assert_eq!(story.found(None), ["dead letter of no death"]);

    let mut story = Story::new();
    let id = story.drills(Kind::Exhausted, 1_000, &[FAILS], dead_after(1));
    story.letter(1, id, 1, 4, &["discard"]);
    assert_eq!(story.found(None), ["did not die as it must"], "before its time");

    let mut story = Story::new();
    let id = story.drills(Kind::Slow, 20, &["crashed"], dead_after(1));
    story.letter(1, id, 1, 4, &["discard"]);
    assert_eq!(
        story.found(None),
        ["died without being meant to", "failed for a wrong reason", "wrong outcome"]
    );
}

#[test]
fn what_a_person_was_told_is_in_the_audit_once() {
    let found = |state, done: &[&str]| {
        let mut story = Story::new();
        let id = story.drills(Kind::Fatal, 0, &[FATAL], dead_after(1));
        story.letter(1, id, 1, state, done);
        story.found(None)
    };
    assert_eq!(found(4, &["discard"]), [""; 0]);
    assert_eq!(found(4, &["discard", "discard"]), ["dead letter not done with once"]);
    assert_eq!(found(1, &["discard"]), ["dead letter not done with once"], "still open");
    let neither = ["a person was told something else", "dead letter not done with once"];
    assert_eq!(found(4, &[]), neither);
    let mut story = Story::new();
    let id = story.drills(Kind::Fatal, 0, &[FATAL], dead_after(1));
    story.letter(1, id, 1, 4, &["discard"]);
    let Some(acted) = story.acted.first_mut() else { panic!("nobody acted") };
    acted.reason = "of somebody else".into();
    assert_eq!(story.found(None), ["a person was told something else"]);
}

#[test]
fn poison_is_parked_and_the_view_shows_the_rest() {
    let mut story = Story::new();
    story.drills(Kind::Poisons, 0, &[], after(1));
    assert_eq!(story.found(None), ["poison was not parked"]);

    let mut story = Story::new();
    let id = story.drills(Kind::InOrder, 0, &[], after(1));
    story.letter(2, id, 3, 4, &["discard"]);
    assert_eq!(story.found(None), ["parked without poison"]);

    let mut story = Story::new();
    story.drills(Kind::InOrder, 0, &[], after(1));
    story.failed.drills.insert("d-1".into(), 2);
    assert_eq!(story.found(None), ["the view of drills is wrong"]);
}

#[test]
fn strict_drills_run_as_they_stand_in_the_log() {
    let mut story = Story::new();
    let first = story.drills(Kind::InOrder, 0, &[], after(1));
    story.drills(Kind::InOrderFlaky, 1, &[FAILS], after(2));
    assert_eq!(story.found(None), [""; 0]);
    if let Some(record) = story.rows.get_mut(&first) {
        record.first_offset = Some(7);
    }
    assert_eq!(story.found(None), ["strict order broken"]);

    let mut story = Story::new();
    let first = story.sends(Kind::InOrder, Door::Http, &[Told::Accepted]);
    let second = story.sends(Kind::InOrder, Door::Http, &[Told::Accepted]);
    story.stores(second, &[RUN]);
    story.stores(first, &[RUN]);
    story.failed.drills.insert("acc-1".into(), 2);
    assert_eq!(story.found(None), ["order broken"]);
}
