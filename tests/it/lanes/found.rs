//! What a history left in a database, without what must differ.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::support::process::Site;

/// Columns that are left out of the comparison, and why.
const EXCLUDED: [(&str, &str); 9] = [
    ("events.offset, outcomes.first_offset", "the order between streams is free in each lane"),
    ("events.recorded_at, outcomes.completed_at", "clocks"),
    ("commands.accepted_at", "clock"),
    ("commands.lane", "it is what differs"),
    (
        "commands.payload, content_hash",
        "what fails once is named by the run, so that it fails in each",
    ),
    ("commands.metadata, events.metadata", "none is sent; trace ids are made by the ingress"),
    (
        "outcomes.attempts of those that fail once",
        "the test's domain counts decisions, and one that is made again (a strict command that takes \
         the queue, a batch of which one does) is the second",
    ),
    ("views.as_of", "positions"),
    ("views.updated_at", "clock"),
];

/// Reads a struct from a row whose columns have the names of its fields.
macro_rules! from_row {
    ($row:ident { $($field:ident),+ }) => {
        impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for $row {
            fn from_row(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
                use sqlx::Row as _;
                let column = |name: &'static str| name.trim_start_matches("r#");
                Ok(Self { $($field: row.try_get(column(stringify!($field)))?),+ })
            }
        }
    };
}

#[derive(Debug, PartialEq, Eq)]
struct Event {
    stream: String,
    version: i64,
    r#type: String,
    schema_version: i16,
    data: String,
    command_id: Uuid,
}

from_row!(Event { stream, version, r#type, schema_version, data, command_id });

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    command_id: Uuid,
    r#type: String,
    stream: String,
    partition: i16,
    expected_version: Option<i64>,
    status: i16,
    version: i64,
    reply: Option<String>,
    error: Option<String>,
    events: i32,
}

from_row!(Outcome {
    command_id,
    r#type,
    stream,
    partition,
    expected_version,
    status,
    version,
    reply,
    error,
    events
});

#[derive(Debug, PartialEq, Eq)]
struct Document {
    view: String,
    key: String,
    version: i64,
    value: Option<String>,
}

from_row!(Document { view, key, version, value });

/// What is compared.
pub struct Found {
    events: BTreeMap<String, Vec<Event>>,
    outcomes: Vec<Outcome>,
    documents: Vec<Document>,
    attempts: BTreeMap<Uuid, i32>,
    /// How many entries the command log has.
    pub command_log: i64,
}

impl Found {
    pub async fn read(site: &Site) -> Self {
        let pool = site.database.pool().await;
        let all: Vec<Event> = sqlx::query_as(
            "SELECT stream, version, type, schema_version, data::text AS data, command_id
               FROM adjutant.events ORDER BY stream, version",
        )
        .fetch_all(&pool)
        .await
        .expect("events");
        let mut events: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        for event in all {
            events.entry(event.stream.clone()).or_default().push(event);
        }
        let outcomes = sqlx::query_as(
            "SELECT o.command_id, c.type, c.stream, o.partition, c.expected_version, o.status,
                    o.version, o.reply::text AS reply, o.error::text AS error, o.events
               FROM adjutant.outcomes o JOIN adjutant.commands c ON c.id = o.command_id
              ORDER BY o.command_id",
        );
        let documents = sqlx::query_as(
            "SELECT view, key, version, value::text AS value FROM adjutant.views ORDER BY view, key",
        );
        let attempts: Vec<(Uuid, i32)> =
            sqlx::query_as("SELECT command_id, attempts FROM adjutant.outcomes")
                .fetch_all(&pool)
                .await
                .expect("attempts");
        let log = sqlx::query_scalar("SELECT count(*) FROM adjutant.command_log");
        Self {
            events,
            outcomes: outcomes.fetch_all(&pool).await.expect("outcomes"),
            documents: documents.fetch_all(&pool).await.expect("views"),
            attempts: attempts.into_iter().collect(),
            command_log: log.fetch_one(&pool).await.expect("command log"),
        }
    }

    /// Compares, prints what was compared and what was not.
    pub fn assert_same(&self, other: &Self, failing: &BTreeSet<Uuid>) {
        assert_eq!(self.events.keys().collect::<Vec<_>>(), other.events.keys().collect::<Vec<_>>());
        for (stream, events) in &self.events {
            same(stream, events, &other.events[stream]);
        }
        same("outcomes", &self.outcomes, &other.outcomes);
        same("documents", &self.documents, &other.documents);
        let attempts = self.attempts.iter().filter(|(id, n)| other.attempts.get(id) != Some(n));
        let attempts: BTreeSet<Uuid> = attempts.map(|(id, _)| *id).collect();
        assert!(attempts.is_subset(failing), "{attempts:?}");
        let by_status = |status| self.outcomes.iter().filter(|it| it.status == status).count();
        println!(
            "the same: {} events of {} streams, {} outcomes ({} succeeded, {} rejected, {} dead), {} \
             documents; attempts differ for {} of {} that fail once; entries of the command log: {} and {}",
            self.events.values().map(Vec::len).sum::<usize>(),
            self.events.len(),
            self.outcomes.len(),
            by_status(1),
            by_status(2),
            by_status(3),
            self.documents.len(),
            attempts.len(),
            failing.len(),
            self.command_log,
            other.command_log,
        );
        println!("not compared:");
        for (columns, reason) in EXCLUDED {
            println!("  {columns}: {reason}");
        }
    }
}

/// Says which is the first that differs; ten thousand rows would not be read.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, ours: &[T], theirs: &[T]) {
    for (n, (our, their)) in ours.iter().zip(theirs).enumerate() {
        assert_eq!(our, their, "{what}, number {n}");
    }
    assert_eq!(ours.len(), theirs.len(), "{what}");
}
