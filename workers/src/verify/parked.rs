//! What views have not applied because a key is parked, or because a person discarded an event; and
//! that whatever is parked is accounted for. Belongs to `views_equal_fold`.
//!
//! Parked keys are work that people look at: they are few, and held in memory.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Check, accounts_fold::Event};
use crate::database::{Connection, DatabaseError, Question};

/// The state of a parked key that waits for a person, and what its dead letter is then; else it is
/// being retried.
const WAITS: i64 = 1;
const OPEN: i64 = 1;
const RETRYING: i64 = 2;

/// `parked_keys.scope` of a stream.
const STREAM: i64 = 1;

#[derive(Default)]
pub(super) struct Parked {
    /// How far each parked stream has been applied, by group and stream.
    cursors: HashMap<(String, String), i64>,
    /// Events that are never applied, by group, key, partition and offset.
    discarded: HashSet<(String, String, i64, i64)>,
    /// How many keys are parked, by group.
    pub(super) counts: BTreeMap<String, i64>,
}

impl Parked {
    pub(super) async fn read(
        database: &mut Connection,
        check: &mut Check,
    ) -> Result<Self, DatabaseError> {
        let mut parked = Self::default();
        parked.read_keys(database, check).await?;
        parked.read_discarded(database).await?;
        let lost = Question::plain(include_str!("queries/lost_references.sql"));
        let mut rows = database.ask(lost);
        while let Some(row) = rows.next().await? {
            let (group, key) = (row.text("group_name")?, row.text("key")?);
            let (partition, offset) = (row.integer("partition")?, row.integer("offset")?);
            check.found(|| {
                format!(
                    "{group}: {partition}:{offset} waits for {key}, but one of them is not there"
                )
            });
        }
        Ok(parked)
    }

    async fn read_keys(
        &mut self,
        database: &mut Connection,
        check: &mut Check,
    ) -> Result<(), DatabaseError> {
        let mut rows = database.ask(Question::plain(include_str!("queries/parked_keys.sql")));
        while let Some(row) = rows.next().await? {
            let (group, key) = (row.text("group_name")?.to_owned(), row.text("key")?.to_owned());
            let expected = if row.integer("state")? == WAITS { OPEN } else { RETRYING };
            if row.optional_integer("letter_state")? != Some(expected) {
                check.found(|| format!("{group}: {key} is parked without a dead letter to act on"));
            }
            *self.counts.entry(group.clone()).or_default() += 1;
            if row.integer("scope")? == STREAM {
                self.cursors.insert((group, key), row.integer("cursor")?);
            }
        }
        Ok(())
    }

    async fn read_discarded(&mut self, database: &mut Connection) -> Result<(), DatabaseError> {
        let discarded = Question::plain(include_str!("queries/discarded_events.sql"));
        let mut rows = database.ask(discarded);
        while let Some(row) = rows.next().await? {
            let (group, key) = (row.text("group_name")?.to_owned(), row.text("key")?.to_owned());
            let place = (row.integer("partition")?, row.integer("offset")?);
            self.discarded.insert((group, key, place.0, place.1));
        }
        Ok(())
    }

    /// Whether a view has not applied an event, and need not have.
    pub(super) fn holds(&self, view: &str, event: &Event) -> bool {
        if self.cursors.is_empty() && self.discarded.is_empty() {
            return false;
        }
        let (group, stream) = (format!("projection.{view}"), event.stream.clone());
        let discarded = (group.clone(), stream.clone(), event.partition, event.offset);
        self.cursors.get(&(group, stream)).is_some_and(|cursor| event.offset > *cursor)
            || self.discarded.contains(&discarded)
    }
}
