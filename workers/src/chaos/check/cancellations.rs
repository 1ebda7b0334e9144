//! Cancelling: what was called off did nothing and was called off once, by whoever was told so; whoever
//! was told that it had ended finds that it had; a job called off what was there before it, and nothing
//! else.

use std::collections::{HashMap, HashSet};

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Violations,
    cancelled::{Cancelled, Job},
    failed::Failed,
    stored::{Outcome, Stored},
};
use crate::chaos::log::{CalledOffAll, CancelTold, Entry, Wishes};

pub(super) fn check(
    entries: &[Entry],
    wishes: &Wishes,
    stored: &Stored,
    failed: &Failed,
    cancelled: &Cancelled,
    violations: &mut Violations,
) {
    let asked: HashSet<(Uuid, &str)> =
        wishes.called_off.iter().map(|wish| (wish.command, wish.reason.as_str())).collect();
    let jobs = by_job(wishes, cancelled);
    for entry in entries {
        let id = entry.command.id;
        let (Some(record), Some(outcome)) = (stored.get(id), stored.outcome(id)) else { continue };
        if !outcome.is_cancelled() {
            continue;
        }
        let rows = cancelled.of(id);
        let in_words = || format!("{id}: {record:?}, called off by {rows:?}");
        if record.own_events + i64::from(outcome.events) > 0 || !record.says.reply.is_null() {
            violations.found("cancelled with an effect", in_words);
        }
        let fits = match (record.says.code.as_deref(), rows) {
            (Some("cancelled"), [row]) => match (&row.reason, row.job) {
                (_, Some(job)) => jobs.get(&job).is_some_and(|(job, wish)| {
                    wish.stream == record.stream && record.accepted_at <= job.created_at
                }),
                (Some(reason), None) => asked.contains(&(id, reason)),
                (None, None) => false,
            },
            (Some("expired"), []) => {
                entry.command.times.not_after.is_some_and(|it| it < outcome.completed_at)
            }
            _ => false,
        };
        if !fits {
            violations.found("cancelled without a cause", in_words);
        }
    }
    for (id, rows) in &cancelled.rows {
        if !stored.outcome(*id).is_some_and(Outcome::is_cancelled) {
            violations.found("called off and ended otherwise", || {
                format!("{id}: {:?}, called off by {rows:?}", stored.get(*id))
            });
        }
    }
    told(wishes, stored, failed, cancelled, violations);
    for (job, wish) in jobs.values() {
        check_job(job, wish, entries, stored, failed, cancelled, violations);
    }
    for wish in &wishes.called_off_all {
        if wish.job.is_some_and(|job| !jobs.contains_key(&job)) {
            violations.found("job lost", || format!("{wish:?}"));
        }
    }
}

/// Every job, with who asked for it.
fn by_job<'a>(
    wishes: &'a Wishes,
    cancelled: &'a Cancelled,
) -> HashMap<Uuid, (&'a Job, &'a CalledOffAll)> {
    let asked = |job: &Job| {
        let reason = job.reason.as_deref();
        wishes.called_off_all.iter().find(|wish| reason == Some(&wish.reason))
    };
    cancelled.jobs.iter().filter_map(|job| Some((job.id, (job, asked(job)?)))).collect()
}

fn told(
    wishes: &Wishes,
    stored: &Stored,
    failed: &Failed,
    cancelled: &Cancelled,
    violations: &mut Violations,
) {
    for wish in &wishes.called_off {
        let outcome = stored.outcome(wish.command);
        let is_cancelled = outcome.map(Outcome::is_cancelled);
        let is_so = match wish.told {
            CancelTold::Cancelled => {
                let own = |row: &super::cancelled::Cancellation| {
                    row.reason.as_ref() == Some(&wish.reason)
                };
                is_cancelled == Some(true) && cancelled.of(wish.command).iter().any(own)
            }
            CancelTold::AlreadyCancelled => is_cancelled == Some(true),
            // It may have been dead, and a person brought it back since.
            CancelTold::AlreadyEnded => {
                is_cancelled == Some(false) || failed.came_back(wish.command)
            }
            CancelTold::NotThere | CancelTold::Unknown => true,
        };
        if !is_so {
            violations.found("who called off was told something else", || {
                format!("{wish:?}: {outcome:?}, {:?}", cancelled.of(wish.command))
            });
        }
    }
}

/// It ended, counted what it did, and missed nothing that was known to be there.
fn check_job(
    job: &Job,
    wish: &CalledOffAll,
    entries: &[Entry],
    stored: &Stored,
    failed: &Failed,
    cancelled: &Cancelled,
    violations: &mut Violations,
) {
    let of_it = |row: &&super::cancelled::Cancellation| row.job == Some(job.id);
    let done = cancelled.rows.values().flatten().filter(of_it).count();
    let (Some(finished_at), 2) = (job.finished_at, job.state) else {
        return violations.found("job not done", || format!("{job:?}"));
    };
    if i64::try_from(done) != Ok(job.done) {
        violations.found("job counted wrong", || format!("{job:?}: {done} were called off"));
    }
    let was_there = |entry: &&Entry| {
        entry.command.stream() == wish.stream && entry.accepted.is_some_and(|it| it < wish.asked)
    };
    for entry in entries.iter().filter(was_there) {
        let id = entry.command.id;
        let ended_later = |at: OffsetDateTime| at > finished_at;
        let missed = stored.outcome(id).is_some_and(|outcome| ended_later(outcome.completed_at));
        // A dead one that was brought back had ended when the job came.
        if missed && !failed.came_back(id) {
            violations.found("missed by a job", || format!("{id}: {wish:?}, {job:?}"));
        }
    }
}
