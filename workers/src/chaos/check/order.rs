//! Order: what a client sent to a stream after it was told that something before was accepted ran
//! later. Each outcome names the stream's version, which counts what ran. The AMQP intake promises
//! no order between its messages, so only what came by HTTP is compared.

use std::collections::HashMap;

use super::{Violations, stored::Stored};
use crate::chaos::log::{Door, Entry};

pub(super) fn check(entries: &[Entry], stored: &Stored, violations: &mut Violations) {
    // Entries stand in the order in which they were first sent, and an account belongs to one
    // client, which has its answer before it sends again.
    let mut reached: HashMap<&str, (i64, &Entry)> = HashMap::new();
    for entry in entries.iter().filter(|entry| entry.door == Door::Http) {
        let Some(outcome) = stored.outcome(entry.command.id) else { continue };
        // A dead or cancelled command saw no version.
        if !matches!(outcome.status, 1 | 2) {
            continue;
        }
        let found_at = outcome.version - i64::from(outcome.events);
        let account = entry.command.account.as_str();
        if let Some((version, before)) = reached.get(account)
            && before.accepted.is_some_and(|accepted| accepted <= entry.sent)
            && found_at < *version
        {
            violations.found("order broken", || {
                format!(
                    "{} for {account} found version {found_at}, although {} was accepted before \
                     it was sent and left version {version}",
                    entry.command.id, before.command.id
                )
            });
        }
        let is_later = reached.get(account).is_none_or(|(version, _)| outcome.version >= *version);
        if entry.accepted.is_some() && is_later {
            reached.insert(account, (outcome.version, entry));
        }
    }
}
