//! A batch on its way through the store: the same id twice, and who is told what.

use std::collections::HashMap;

use super::{Acceptance, Answer, Entry, Refusal};
use crate::{
    message::{CommandId, ContentHash},
    store::{Accepted, NewCommand},
};

/// The commands of several entries, each id once, and which answer belongs to whom.
pub(super) struct Batch {
    /// What the store gets: the first command of each id, in order of arrival.
    pub(super) commands: Vec<NewCommand>,
    /// For each entry its place in `commands` for each of its commands.
    waiting: Vec<(Entry, Vec<Claim>)>,
}

/// What one command of an entry waits for.
struct Claim {
    /// Whose fate it shares.
    index: usize,
    /// Its content, to be compared with what holds the id.
    hash: ContentHash,
    /// It brought the command (the others with its id found it there).
    first: bool,
}

impl Batch {
    /// Puts entries together; the second command with an id waits for the first one's answer.
    pub(super) fn of(entries: Vec<Entry>) -> Self {
        let mut commands = Vec::with_capacity(entries.iter().map(|e| e.commands.len()).sum());
        let mut seen: HashMap<CommandId, usize> = HashMap::with_capacity(commands.capacity());
        let waiting = entries
            .into_iter()
            .map(|mut entry| {
                let claims = std::mem::take(&mut entry.commands)
                    .into_iter()
                    .map(|command| {
                        let (next, hash) = (commands.len(), command.content_hash);
                        let index = *seen.entry(command.id).or_insert(next);
                        let first = index == next;
                        if first {
                            commands.push(command);
                        }
                        Claim { index, hash, first }
                    })
                    .collect();
                (entry, claims)
            })
            .collect();
        Self { commands, waiting }
    }

    /// Tells every entry what became of its commands.
    pub(super) fn answer(self, settled: &[Settled]) {
        for (entry, claims) in self.waiting {
            let answers = claims.iter().map(|claim| claim.answer(settled)).collect();
            // Nobody there any more: the caller went away, the command stays.
            let _ = entry.answer.send(answers);
        }
    }
}

/// What became of a command in the store.
pub(super) type Settled = Result<Holder, Refusal>;

/// The command that holds the id now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    pub(super) acceptance: Acceptance,
    pub(super) hash: ContentHash,
}

impl Holder {
    /// From the store's answer. After a lost reply, finding our own content under the id means that
    /// the lost commit took place.
    pub(super) fn of(command: &NewCommand, accepted: Accepted, after_lost_reply: bool) -> Self {
        let (accepted_at, hash, found) = match accepted {
            Accepted::New { accepted_at } => (accepted_at, command.content_hash, false),
            Accepted::Occupied(other) => (other.accepted_at, other.content_hash, true),
        };
        let replay = found && !(after_lost_reply && hash == command.content_hash);
        Self { acceptance: Acceptance { accepted_at, replay }, hash }
    }
}

impl Claim {
    fn answer(&self, settled: &[Settled]) -> Answer {
        let lost = || Err(Refusal::Internal("the store answered for fewer commands".into()));
        match settled.get(self.index).cloned().unwrap_or_else(lost)? {
            holder if holder.hash != self.hash => Err(Refusal::Conflict),
            holder => Ok(Acceptance {
                replay: holder.acceptance.replay || !self.first,
                ..holder.acceptance
            }),
        }
    }
}
