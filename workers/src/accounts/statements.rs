//! The view `statements`: one document an entry, by account id and stream version
//! (`acc-42/00000012`), so that no document grows and a prefix lists an account's statement.

use adjutant::prelude::*;
use time::format_description::well_known::Rfc3339;

use super::{Account, AccountEvent};

/// Maintains the view.
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
        let at = at.map_err(|error| ProjectionError(format!("time of {key}: {error}")))?;
        *view = Some(Entry { kind, amount, balance, at });
        Ok(())
    }
}
