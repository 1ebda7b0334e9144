//! `views_equal_fold`: the documents of both views are exactly what the events fold to: none
//! missing, none too many, each with its version, partition and last position.
//!
//! Three ordered streams of one snapshot are merged: events, balances, statements.

use futures_util::{TryStreamExt, stream::BoxStream};
use serde_json::{Value, json};
use sqlx::{Row, postgres::PgRow};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Check,
    accounts_fold::{Event, Folded},
    damage::Damage,
    documents::{Document, Documents, Place},
    snapshot::Snapshot,
};

pub(super) async fn check(snapshot: &mut Snapshot, damage: &Damage) -> sqlx::Result<Check> {
    let mut check = Check::new("views_equal_fold");
    if damage.beyond_attribution {
        return Ok(check); // Too many holes to tell which streams are whole; `no_holes` says so.
    }
    let (mut first, mut second) = (snapshot.another().await?, snapshot.another().await?);
    let balances = Documents::read(&mut first, include_str!("queries/balances.sql")).await?;
    let statements = Documents::read(&mut second, include_str!("queries/statements.sql")).await?;
    let mut events = Events::read(snapshot).await?;
    let mut merge = Merge { balances, statements, damage, check: &mut check };
    while let Some(first) = events.next.take() {
        merge.account(first, &mut events).await?;
    }
    merge.rest().await?;
    drop(merge);
    Ok(check)
}

/// All events of accounts, stream by stream.
struct Events<'c> {
    rows: BoxStream<'c, sqlx::Result<PgRow>>,
    next: Option<Event>,
}

impl<'c> Events<'c> {
    async fn read(snapshot: &'c mut Snapshot) -> sqlx::Result<Self> {
        let rows =
            sqlx::query(include_str!("queries/account_events.sql")).fetch(&mut snapshot.main);
        let mut events = Self { rows, next: None };
        events.advance().await?;
        Ok(events)
    }

    async fn advance(&mut self) -> sqlx::Result<()> {
        self.next = match self.rows.try_next().await? {
            Some(row) => Some(read_event(&row)?),
            None => None,
        };
        Ok(())
    }

    /// The next event, if it is of the same stream.
    async fn next_of(&mut self, stream: &str) -> sqlx::Result<Option<Event>> {
        self.advance().await?;
        Ok(self.next.take_if(|next| next.stream == stream))
    }
}

fn read_event(row: &PgRow) -> sqlx::Result<Event> {
    Ok(Event {
        partition: row.try_get("partition")?,
        offset: row.try_get("offset")?,
        stream: row.try_get("stream")?,
        version: row.try_get("version")?,
        kind: row.try_get("type")?,
        schema_version: row.try_get("schema_version")?,
        data: row.try_get("data")?,
        recorded_at: row.try_get("recorded_at")?,
    })
}

struct Merge<'a> {
    balances: Documents<'a>,
    statements: Documents<'a>,
    damage: &'a Damage,
    check: &'a mut Check,
}

impl Merge<'_> {
    /// Folds all events of one account, the first of which was taken already.
    async fn account(&mut self, first: Event, events: &mut Events<'_>) -> sqlx::Result<()> {
        let mut folded = Folded::new();
        let mut changes = 0;
        let mut event = first;
        let last = loop {
            changes += 1;
            match folded.fold(&event) {
                Ok(entry) => self.statement(&event, entry.document()).await?,
                Err(reason) => {
                    self.report(event.account(), || {
                        format!("version {} of {}: {reason}", event.version, event.stream)
                    });
                    self.statement(&event, Value::Null).await?;
                }
            }
            match events.next_of(&event.stream).await? {
                Some(next) => event = next,
                None => break event,
            }
        };
        self.balance(&last, changes, folded.balance_document()).await
    }

    async fn statement(&mut self, event: &Event, mut value: Value) -> sqlx::Result<()> {
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

    async fn balance(&mut self, last: &Event, changes: i64, value: Value) -> sqlx::Result<()> {
        let found = self.find("balances", last.account(), last.account()).await?;
        if let Some(document) = found {
            self.compare("balances", &document, last, changes, &value);
        }
        Ok(())
    }

    /// The document of this key. What stands before it belongs to nothing.
    async fn find(
        &mut self,
        view: &str,
        account: &str,
        key: &str,
    ) -> sqlx::Result<Option<Document>> {
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
    async fn rest(&mut self) -> sqlx::Result<()> {
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
