//! Commands that are called off: one by one, at times twice, and by a job.

use super::*;
use crate::chaos::{check::cancelled::Job, log::CalledOffAll};

const CANCELLED: Outcome = Outcome { status: 4, events: 0, attempts: 0, ..RUN };

impl Story {
    /// Sends a command and calls it off for a reason.
    fn calls_off(&self, told: CancelTold) -> Uuid {
        let id = self.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
        self.wishes(id, "mine", told);
        id
    }

    fn wishes(&self, id: Uuid, reason: &str, told: CancelTold) {
        let place = self.log.calls_off(id, reason);
        self.log.told_of_wish(place, told, "");
    }

    /// It is cancelled, for this reason, by this job.
    fn cancels(&mut self, id: Uuid, reason: &str, job: Option<Uuid>) {
        self.stores(id, &[CANCELLED]);
        self.record(id).says.code = Some("cancelled".into());
        self.cancelled.add(Cancellation { command: id, reason: Some(reason.into()), job });
    }
}

#[test]
fn who_was_told_cancelled_finds_it_cancelled_and_without_effect() {
    let mut story = Story::new();
    let id = story.calls_off(CancelTold::Cancelled);
    story.wishes(id, "another", CancelTold::AlreadyCancelled);
    story.cancels(id, "mine", None);
    assert_eq!(story.found(None), [""; 0]);
    story.record(id).own_events = 1;
    assert_eq!(story.found(None), ["cancelled with an effect"]);

    let mut story = Story::new();
    let id = story.calls_off(CancelTold::Cancelled);
    story.stores(id, &[RUN]);
    assert_eq!(story.found(None), ["who called off was told something else"]);
    let row = Cancellation { command: id, reason: Some("mine".into()), job: None };
    story.cancelled.add(row);
    assert_eq!(
        story.found(None),
        ["called off and ended otherwise", "who called off was told something else"]
    );
}

#[test]
fn of_two_at_once_one_is_told_done() {
    let mut story = Story::new();
    let id = story.calls_off(CancelTold::Cancelled);
    story.wishes(id, "another", CancelTold::Cancelled);
    story.cancels(id, "mine", None);
    assert_eq!(story.found(None), ["who called off was told something else"]);
    let row = Cancellation { command: id, reason: Some("another".into()), job: None };
    story.cancelled.add(row);
    assert_eq!(story.found(None), ["cancelled without a cause"], "twice");
}

#[test]
fn who_was_told_that_it_has_ended_finds_that_it_has() {
    let told = |told, cancelled| {
        let mut story = Story::new();
        let id = story.calls_off(told);
        if cancelled {
            story.cancels(id, "mine", None);
        } else {
            story.stores(id, &[RUN]);
        }
        story.found(None)
    };
    let wrong = ["who called off was told something else"];
    assert_eq!(told(CancelTold::AlreadyEnded, false), [""; 0]);
    assert_eq!(told(CancelTold::AlreadyEnded, true), wrong);
    assert_eq!(told(CancelTold::AlreadyCancelled, true), [""; 0], "an answer was lost");
    assert_eq!(told(CancelTold::AlreadyCancelled, false), wrong);
    assert_eq!(told(CancelTold::Unknown, false), [""; 0]);
    assert_eq!(told(CancelTold::Unknown, true), [""; 0]);
}

#[test]
fn nothing_is_cancelled_that_nobody_called_off() {
    let mut story = Story::new();
    let id = story.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
    story.cancels(id, "of nobody", None);
    assert_eq!(story.found(None), ["cancelled without a cause"]);

    let mut story = Story::new();
    let id = story.calls_off(CancelTold::Unknown);
    story.cancels(id, "mine", None);
    story.cancelled.rows.clear();
    assert_eq!(story.found(None), ["cancelled without a cause"], "it is not kept");
}

/// A job over everything that is made up, and how many it says that it cancelled.
fn with_job(story: &mut Story, done: i64) -> Uuid {
    let id = Uuid::now_v7();
    let reason = "all of it".to_owned();
    let stream = "account/acc-1".to_owned();
    let wish =
        CalledOffAll { asked: Instant::now(), stream, reason: reason.clone(), job: Some(id) };
    story.log.called_off_all(wish, "");
    story.cancelled.jobs.push(Job {
        id,
        reason: Some(reason),
        state: 2,
        done,
        created_at: NOON,
        finished_at: Some(NOON),
    });
    id
}

#[test]
fn a_job_cancels_what_was_there_and_counts_it() {
    let mut story = Story::new();
    let id = story.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
    let job = with_job(&mut story, 1);
    story.cancels(id, "all of it", Some(job));
    assert_eq!(story.found(None), [""; 0]);
    story.record(id).accepted_at += time::Duration::SECOND;
    assert_eq!(story.found(None), ["cancelled without a cause"], "it came later");
    story.record(id).accepted_at = NOON;
    story.cancelled.jobs[0].done = 2;
    assert_eq!(story.found(None), ["job counted wrong"]);
    story.cancelled.jobs[0].state = 1;
    assert_eq!(story.found(None), ["job not done"]);
    story.cancelled.jobs.clear();
    assert_eq!(story.found(None), ["cancelled without a cause", "job lost"]);

    let mut story = Story::new();
    let id = story.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
    with_job(&mut story, 0);
    let later = NOON + time::Duration::SECOND;
    story.stores(id, &[Outcome { completed_at: later, ..RUN }]);
    assert_eq!(story.found(None), ["missed by a job"]);
}
