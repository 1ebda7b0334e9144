//! The view `statements`: one document an entry, by account id and stream version
//! (`acc-42/00000012`), so that no document grows and a prefix lists an account's statement.

use adjutant::prelude::*;
use time::format_description::well_known::Rfc3339;

use super::{Account, AccountEvent};

/// Maintains the view.
#[derive(Default)]
pub struct Statements;

/// What an entry of a statement says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// The account was opened.
    Opened,
    /// Money came in.
    Deposited,
    /// Money went out.
    Withdrawn,
    /// The account was closed.
    Closed,
}

/// A document of the view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What happened.
    pub kind: EntryKind,
    /// How much was moved, in cents (0: nothing).
    pub amount: i64,
    /// The balance afterwards.
    pub balance: i64,
    /// When, by the store's clock (RFC 3339).
    pub at: String,
}

impl Projection for Statements {
    const NAME: &'static str = "statements";
    const SCOPE: Scope = Scope::Stream;
    type View = Entry;

    fn events(&self) -> EventSelection {
        EventSelection::of::<Account>()
    }

    fn keys(&self, event: &EventRecord) -> Vec<String> {
        vec![format!("{}/{:08}", event.stream.id(), event.version.0)]
    }

    fn apply(
        &self,
        key: &str,
        view: &mut Option<Entry>,
        event: &EventRecord,
    ) -> Result<(), ProjectionError> {
        let Some(happened) = event.get::<AccountEvent>() else { return Ok(()) };
        let (kind, amount, balance) = match happened {
            AccountEvent::Opened(_) => (EntryKind::Opened, 0, 0),
            AccountEvent::Deposited(entry) => (EntryKind::Deposited, entry.amount, entry.balance),
            AccountEvent::Withdrawn(entry) => (EntryKind::Withdrawn, entry.amount, entry.balance),
            AccountEvent::Closed(_) => (EntryKind::Closed, 0, 0),
        };
        let at = event.recorded_at.format(&Rfc3339);
        let at = at.map_err(|error| ProjectionError::fatal(format!("time of {key}: {error}")))?;
        *view = Some(Entry { kind, amount, balance, at });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use adjutant::testing::{GivenView, START};

    use super::*;
    use crate::accounts::{Closed, Deposited, Opened, Withdrawn};

    fn entry(kind: EntryKind, amount: i64, balance: i64, at: &str) -> Entry {
        Entry { kind, amount, balance, at: at.into() }
    }

    #[test]
    fn each_event_is_an_entry_of_its_own_with_its_time() {
        let opened = Opened { owner: "Ada".into() };
        let (midnight, later) = ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        GivenView::<Statements>::nothing()
            .when::<Account>("acc-42", (opened, Deposited { amount: 500, balance: 500 }))
            .then_document("acc-42/00000001", &entry(EntryKind::Opened, 0, 0, midnight))
            .then_document("acc-42/00000002", &entry(EntryKind::Deposited, 500, 500, midnight))
            .and()
            .at(START + time::Duration::HOUR)
            .when::<Account>("acc-42", (Withdrawn { amount: 500, balance: 0 }, Closed {}))
            .then_document("acc-42/00000003", &entry(EntryKind::Withdrawn, 500, 0, later))
            .then_document("acc-42/00000004", &entry(EntryKind::Closed, 0, 0, later))
            .then_version("acc-42/00000004", 1);
    }
}
