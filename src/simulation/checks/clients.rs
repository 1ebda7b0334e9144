//! What clients were told is so: accepted is accepted, refused is not there, what was answered
//! before something else was sent runs before it.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{
    super::{
        Evidence,
        client::{Fate, Sent},
    },
    Heard,
};

pub(super) fn check(evidence: &Evidence, heard: &Heard, violations: &mut Vec<String>) {
    let accepted: BTreeSet<Uuid> = evidence.commands.iter().map(|it| it.id).collect();
    violations.extend(heard.memory.complaints.iter().cloned());
    for (id, sent) in &heard.memory.sent {
        let is_there = accepted.contains(id);
        match sent.fate {
            Fate::Accepted(_) | Fate::Handed if !is_there => {
                violations.push(format!("{id} was answered ({:?}), and is lost", sent.fate));
            }
            Fate::Refused if is_there => {
                violations.push(format!("{id} was refused, and is there"));
            }
            _ => {}
        }
    }
    let is_known = |id: &Uuid| heard.memory.sent.contains_key(id) || heard.runs.contains(id);
    for id in accepted.iter().filter(|id| !is_known(id)) {
        violations.push(format!("{id} is there, and nobody sent it"));
    }
    replies(&accepted, heard, violations);
    order(evidence, &heard.memory.sent, violations);
}

/// Law 2: what has no log behind it comes out of the outbox at least once.
fn replies(accepted: &BTreeSet<Uuid>, heard: &Heard, violations: &mut Vec<String>) {
    let replied: BTreeSet<&str> = heard.replies.iter().map(String::as_str).collect();
    for (id, sent) in &heard.memory.sent {
        let due = sent.wants_reply && accepted.contains(id);
        if due && !replied.contains(id.to_string().as_str()) {
            violations.push(format!("{id} ended, and its sender was not told"));
        }
    }
    let dead: BTreeSet<&str> = heard.dead_letters.iter().map(String::as_str).collect();
    for id in &heard.memory.hopeless {
        if !dead.contains(id.to_string().as_str()) {
            violations.push(format!("message {id} can never be accepted, and is no dead letter"));
        }
    }
}

/// If B was sent after A was answered and both name one stream, A runs first.
fn order(evidence: &Evidence, sent: &BTreeMap<Uuid, Sent>, violations: &mut Vec<String>) {
    let mut runs: BTreeMap<Uuid, i64> = BTreeMap::new();
    for entry in &evidence.command_log {
        runs.entry(entry.command).or_insert(entry.offset);
    }
    // By stream: when each was sent, when its sender knew, and where it runs.
    let mut streams: BTreeMap<&str, Vec<(u64, u64, i64)>> = BTreeMap::new();
    for (id, sent) in sent {
        let (Fate::Accepted(answered), Some(offset)) = (sent.fate, runs.get(id)) else { continue };
        // Of the immediate lane those are in the log that somebody else had to finish.
        if !sent.delayed && sent.queued {
            streams.entry(&sent.stream).or_default().push((sent.first_at, answered, *offset));
        }
    }
    for (stream, commands) in streams {
        for (_, answered, runs_first) in &commands {
            let overtakes =
                |(sent, _, offset): &&(u64, u64, i64)| sent > answered && offset < runs_first;
            if let Some((.., offset)) = commands.iter().find(overtakes) {
                violations.push(format!(
                    "{stream}: entry {offset} was sent after entry {runs_first} was answered"
                ));
            }
        }
    }
}
