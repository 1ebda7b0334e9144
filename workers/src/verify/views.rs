//! `views_equal_fold`: the documents of both views are exactly what the events fold to: none
//! missing, none too many, each with its version, partition and last position.
//!
//! Three ordered streams of one snapshot are merged: events, balances, statements.

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Check,
    accounts_fold::{BalanceDocument, Event, Folded},
    damage::Damage,
    documents::{Document, Documents, Place},
    parked::Parked,
};
use crate::database::{Connection, DatabaseError, Question, Row, Rows, Snapshot};

pub(super) async fn check(
    snapshot: &mut Snapshot,
    damage: &Damage,
) -> Result<(Check, Parked), DatabaseError> {
    let mut check = Check::new("views_equal_fold");
    let parked = Parked::read(&mut snapshot.main, &mut check).await?;
    if damage.beyond_attribution {
        return Ok((check, parked)); // Too many holes to tell which streams are whole; `no_holes` says so.
    }
    let Snapshot { main, others: [second, third] } = snapshot;
    let balances = Question::plain(include_str!("queries/balances.sql"));
    let balances = Documents::read(second, balances).await?;
    let statements = Question::by_dialect(
        include_str!("queries/statements.sql"),
        include_str!("queries/sqlite/statements.sql"),
    );
    let statements = Documents::read(third, statements).await?;
    let mut events = Events::read(main).await?;
    let mut merge = Merge { balances, statements, damage, parked: &parked, check: &mut check };
    while let Some(first) = events.next.take() {
        merge.account(first, &mut events).await?;
    }
    merge.rest().await?;
    drop(merge);
    Ok((check, parked))
}

/// All events of accounts, stream by stream.
struct Events<'c> {
    rows: Rows<'c>,
    next: Option<Event>,
}

impl<'c> Events<'c> {
    async fn read(database: &'c mut Connection) -> Result<Self, DatabaseError> {
        let rows = database.ask(Question::plain(include_str!("queries/account_events.sql")));
        let mut events = Self { rows, next: None };
        events.advance().await?;
        Ok(events)
    }

    async fn advance(&mut self) -> Result<(), DatabaseError> {
        self.next = match self.rows.next().await? {
            Some(row) => Some(read_event(&row)?),
            None => None,
        };
        Ok(())
    }

    /// The next event, if it is of the same stream.
    async fn next_of(&mut self, stream: &str) -> Result<Option<Event>, DatabaseError> {
        self.advance().await?;
        Ok(self.next.take_if(|next| next.stream == stream))
    }
}

fn read_event(row: &Row) -> Result<Event, DatabaseError> {
    Ok(Event {
        partition: row.integer("partition")?,
        offset: row.integer("offset")?,
        stream: row.text("stream")?.to_owned(),
        version: row.integer("version")?,
        kind: row.text("type")?.to_owned(),
        schema_version: row.integer("schema_version")?,
        data: row.json("data")?,
        recorded_at: row.time("recorded_at")?,
    })
}

struct Merge<'a> {
    balances: Documents<'a>,
    statements: Documents<'a>,
    damage: &'a Damage,
    parked: &'a Parked,
    check: &'a mut Check,
}

impl Merge<'_> {
    /// Folds all events of one account, the first of which was taken already.
    async fn account(
        &mut self,
        first: Event,
        events: &mut Events<'_>,
    ) -> Result<(), DatabaseError> {
        let (mut folded, mut balance) = (Folded::new(), BalanceDocument::new());
        let (mut event, mut last) = (first, None);
        loop {
            let entry = match folded.fold(&event) {
                Ok(entry) => entry.document(),
                Err(reason) => {
                    self.report(event.account(), || {
                        format!("version {} of {}: {reason}", event.version, event.stream)
                    });
                    Value::Null
                }
            };
            if !self.parked.holds("statements", &event) {
                self.statement(&event, entry).await?;
            }
            let is_applied = !self.parked.holds("balances", &event);
            if is_applied {
                balance.apply(&event, &folded);
            }
            let next = events.next_of(&event.stream).await?;
            let is_last = next.is_none();
            let done = next.map(|next| std::mem::replace(&mut event, next));
            if is_applied {
                last = done;
            }
            if is_last {
                let last = if is_applied { Some(event) } else { last };
                return self.balance(last.as_ref(), &balance).await;
            }
        }
    }

    async fn statement(&mut self, event: &Event, mut value: Value) -> Result<(), DatabaseError> {
        let key = format!("{}/{:08}", event.account(), event.version);
        let found = self.find("statements", event.account(), &key).await?;
        let Some(mut document) = found else { return Ok(()) };
        let at = document.value.as_object_mut().and_then(|value| value.remove("at"));
        if !is_time(at.as_ref(), event.recorded_at) {
            let shown = at.unwrap_or_default();
            self.report(event.account(), || {
                format!(
                    "statements/{key}: at {shown}, the event was recorded {}",
                    event.recorded_at
                )
            });
        }
        if value.is_null() {
            value.clone_from(&document.value); // The event was reported; its document follows it.
        }
        self.compare("statements", &document, event, 1, &value);
        Ok(())
    }

    /// `last` is the last event that was applied, if any was.
    async fn balance(
        &mut self,
        last: Option<&Event>,
        expected: &BalanceDocument,
    ) -> Result<(), DatabaseError> {
        let Some(last) = last else { return Ok(()) };
        let found = self.find("balances", last.account(), last.account()).await?;
        if let Some(document) = found {
            self.compare("balances", &document, last, expected.changes, &expected.value());
        }
        Ok(())
    }

    /// The document of this key. What stands before it belongs to nothing.
    async fn find(
        &mut self,
        view: &str,
        account: &str,
        key: &str,
    ) -> Result<Option<Document>, DatabaseError> {
        let place = Place::new(account, key);
        loop {
            let documents =
                if view == "balances" { &mut self.balances } else { &mut self.statements };
            match documents.take_until(&place).await? {
                Some(document) if document.place() == place => return Ok(Some(document)),
                Some(document) => self.superfluous(view, &document),
                None => {
                    self.report(account, || format!("{view}/{key} is missing"));
                    return Ok(None);
                }
            }
        }
    }

    fn compare(
        &mut self,
        view: &str,
        document: &Document,
        last: &Event,
        version: i64,
        value: &Value,
    ) {
        let key = &document.key;
        if document.value != *value {
            self.report(last.account(), || {
                format!("{view}/{key} is {}, the events say {value}", document.value)
            });
        }
        if document.version != version {
            self.report(last.account(), || {
                format!(
                    "{view}/{key} has version {}, but changed {version} times",
                    document.version
                )
            });
        }
        let as_of = json!({ last.partition.to_string(): last.offset });
        if document.partition != Some(last.partition) || document.as_of != as_of {
            self.report(last.account(), || {
                format!(
                    "{view}/{key} is as of {} (partition {:?}), its last event is {}:{}",
                    document.as_of, document.partition, last.partition, last.offset
                )
            });
        }
    }

    /// Documents behind the last event.
    async fn rest(&mut self) -> Result<(), DatabaseError> {
        while let Some(document) = self.balances.take().await? {
            self.superfluous("balances", &document);
        }
        while let Some(document) = self.statements.take().await? {
            self.superfluous("statements", &document);
        }
        Ok(())
    }

    fn superfluous(&mut self, view: &str, document: &Document) {
        self.report(document.account(), || format!("{view}/{} belongs to no event", document.key));
    }

    /// A finding, unless another check has found out that the stream is damaged.
    fn report(&mut self, account: &str, words: impl FnOnce() -> String) {
        if !self.damage.hides_account(account) {
            self.check.found(words);
        }
    }
}

fn is_time(written: Option<&Value>, recorded_at: OffsetDateTime) -> bool {
    let parsed = written.and_then(Value::as_str).map(|text| OffsetDateTime::parse(text, &Rfc3339));
    matches!(parsed, Some(Ok(time)) if time == recorded_at)
}
