//! The immediate lane: what was answered with an outcome, and order beside the queue. Times.

use super::*;
use crate::chaos::clients::{Lane, Way};

fn through(lane: Lane, kind: Kind) -> Command {
    let command = Command::new(kind, "acc-1", &mut Draw::of(1, "test", 0));
    Command { way: Way { lane, waits: 1, ..Way::QUEUED }, ..command }
}

fn answered(version: i64) -> Told {
    Told::Ended(Box::new(ended("succeeded", version)))
}

/// Executed without an entry in the log.
fn executed(story: &mut Story, id: Uuid, outcome: Outcome) {
    story.stores(id, &[outcome]);
    story.record(id).first_offset = None;
}

#[test]
fn what_was_answered_with_an_outcome_is_there_with_exactly_that_one() {
    let found = |change: fn(&mut Record)| {
        let mut story = Story::new();
        let command = through(Lane::Immediate, Kind::Deposit);
        let id = story.sends_this(command, Door::Http, &[unknown(), answered(1)]);
        executed(&mut story, id, RUN);
        change(story.record(id));
        story.found(None)
    };
    assert_eq!(found(|_| {}), [""; 0]);
    let other_reply = |record: &mut Record| record.says.reply = serde_json::json!(7);
    assert_eq!(found(other_reply), ["outcome replaced"]);
    let other_place = |record: &mut Record| record.says.positions = vec!["3:9".into()];
    assert_eq!(found(other_place), ["outcome replaced"]);
    let rejected = |record: &mut Record| record.outcomes = vec![Outcome { version: 1, ..REJECTED }];
    assert_eq!(found(rejected), ["outcome replaced", "wrong outcome"]);
    assert_eq!(found(|record| record.outcomes.clear()), ["not exactly one outcome"]);

    let story = Story::new();
    story.sends_this(through(Lane::Immediate, Kind::Deposit), Door::Http, &[answered(1)]);
    assert_eq!(story.found(None), ["accepted command lost"]);
}

#[test]
fn what_one_process_executes_keeps_its_order_and_lanes_do_not_wait_for_each_other() {
    let overtakes = |one: Lane, other: Lane| {
        let mut story = Story::new();
        let first = through(one, Kind::Deposit);
        let first = story.sends_this(first, Door::Http, &[Told::Accepted]);
        let second = through(other, Kind::Deposit);
        let second = story.sends_this(second, Door::Http, &[Told::Accepted]);
        story.stores(second, &[RUN]);
        story.stores(first, &[RUN]);
        for (id, lane) in [(first, one), (second, other)] {
            story.record(id).first_offset = (lane == Lane::Queued).then_some(1);
        }
        story.found(None)
    };
    assert_eq!(overtakes(Lane::Immediate, Lane::ImmediateOrQueued), ["order broken"]);
    assert_eq!(overtakes(Lane::Queued, Lane::Queued), ["order broken"]);
    assert_eq!(overtakes(Lane::Queued, Lane::Immediate), [""; 0]);
    assert_eq!(overtakes(Lane::Immediate, Lane::Queued), [""; 0]);
}

#[test]
fn what_was_seen_to_end_is_before_everything_that_is_sent_afterwards() {
    let mut story = Story::new();
    let first = through(Lane::Immediate, Kind::Deposit);
    let first = story.sends_this(first, Door::Http, &[answered(2)]);
    let second = story.sends(Kind::Deposit, Door::Amqp, &[Told::Accepted]);
    story.stores(second, &[RUN]);
    executed(&mut story, first, RUN);
    assert_eq!(story.found(None), ["decided on an old state"]);
}

#[test]
fn strict_drills_keep_their_order_across_lanes() {
    let mut story = Story::new();
    let first = story.sends(Kind::InOrder, Door::Http, &[Told::Accepted]);
    let second = through(Lane::Immediate, Kind::InOrder);
    let second = story.sends_this(second, Door::Http, &[Told::Accepted]);
    executed(&mut story, second, RUN);
    story.stores(first, &[RUN]);
    story.failed.drills.insert("acc-1".into(), 2);
    assert_eq!(story.found(None), ["order broken"]);
}

#[test]
fn nothing_is_started_before_or_after_its_time() {
    let seconds = time::Duration::seconds;
    let found = |not_before: Option<i64>, not_after: Option<i64>, code: Option<&str>| {
        let mut story = Story::new();
        let mut command = Command::new(Kind::Flaky, "acc-1", &mut Draw::of(1, "test", 0));
        command.amount = 1;
        command.times.not_before = not_before.map(|late| NOON + seconds(late));
        command.times.not_after = not_after.map(|early| NOON - seconds(early));
        let id = story.sends_this(command, Door::Http, &[Told::Accepted]);
        let attempt =
            Attempt { command: id, number: 1, code: Some("drill_fails".into()), failed_at: NOON };
        story.failed.attempts.insert(id, vec![attempt]);
        let outcome = match code {
            Some(_) => Outcome { status: 4, events: 0, ..RUN },
            None => Outcome { attempts: 2, ..RUN },
        };
        if code.is_none() {
            story.failed.drills.insert("acc-1".into(), 1);
        }
        story.stores(id, &[outcome]);
        story.record(id).says.code = code.map(str::to_owned);
        story.found(None)
    };
    assert_eq!(found(Some(0), Some(0), None), [""; 0]);
    assert_eq!(found(None, Some(10), None), [""; 0], "it was started in time, perhaps");
    assert_eq!(found(None, Some(16), None), ["started after its deadline"]);
    assert_eq!(found(Some(1), None, None), ["started before its time"]);
    let expired = Some("expired");
    assert_eq!(found(None, Some(3), expired), [""; 0]);
    assert_eq!(found(None, Some(-3), expired), ["cancelled without a cause"], "it had time left");
    assert_eq!(found(None, None, expired), ["cancelled without a cause"], "it had no deadline");
    assert_eq!(found(None, Some(60), expired), ["started after its deadline"], "its attempt was");
}
