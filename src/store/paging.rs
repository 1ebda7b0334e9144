//! How lists for people are paged: the same cursors and limits in every store.

use super::{CommandFilter, CommandRecord, Page, StoreError};
use crate::message::{CommandId, Timestamp};

/// How many commands a page of a filtered list looks at before it answers with what it has.
const SCAN_LIMIT: i64 = 5_000;
/// How many it reads at a time.
const SCAN_STEP: i64 = 500;

/// Where a page of commands ends: the newest that come after are older than this.
#[derive(Clone, Copy)]
pub(super) struct Cursor {
    pub(super) accepted_at: Timestamp,
    pub(super) id: CommandId,
}

impl Cursor {
    const START: Self = Self {
        accepted_at: time::macros::datetime!(9999-12-31 23:59:59 UTC),
        id: CommandId(uuid::Uuid::max()),
    };

    fn to_text(self) -> String {
        format!("{}_{}", self.accepted_at.unix_timestamp_nanos() / 1_000, self.id)
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        let parsed = text.split_once('_').and_then(|(micros, id)| {
            let nanos = micros.parse::<i128>().ok()?.checked_mul(1_000)?;
            let accepted_at = Timestamp::from_unix_timestamp_nanos(nanos).ok()?;
            Some(Self { accepted_at, id: id.parse().ok()? })
        });
        parsed.ok_or_else(|| StoreError::Unstorable(format!("`{text}` is no cursor of this list")))
    }
}

/// A page of commands in the making: asks for rows from [`Self::cursor`] on, [`Self::step`] at a
/// time, until [`Self::add`] answers with the page.
pub(super) struct CommandPage<'a> {
    filter: &'a CommandFilter,
    limit: i64,
    cursor: Cursor,
    items: Vec<CommandRecord>,
    scanned: i64,
}

impl<'a> CommandPage<'a> {
    pub(super) fn after(
        filter: &'a CommandFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Self, StoreError> {
        let cursor = after.map_or(Ok(Cursor::START), Cursor::parse)?;
        Ok(Self { filter, limit, cursor, items: Vec::new(), scanned: 0 })
    }

    pub(super) fn cursor(&self) -> Cursor {
        self.cursor
    }

    pub(super) fn step(&self) -> i64 {
        SCAN_STEP.min(self.limit.max(50))
    }

    /// Takes the next rows, newest first; the page, once it is complete.
    pub(super) fn add(&mut self, rows: Vec<CommandRecord>) -> Option<Page<CommandRecord>> {
        let read = rows.len() as i64;
        for record in rows {
            self.cursor = Cursor { accepted_at: record.accepted_at, id: record.id };
            if matches(self.filter, &record) {
                self.items.push(record);
                if self.items.len() as i64 == self.limit {
                    return Some(self.finish(false));
                }
            }
        }
        self.scanned += read;
        let at_end = read < self.step();
        (at_end || self.scanned >= SCAN_LIMIT).then(|| self.finish(at_end))
    }

    fn finish(&mut self, at_end: bool) -> Page<CommandRecord> {
        let next = (!at_end).then(|| self.cursor.to_text());
        Page { items: std::mem::take(&mut self.items), next }
    }
}

fn matches(filter: &CommandFilter, record: &CommandRecord) -> bool {
    filter.status.is_none_or(|status| status == record.status())
        && filter.command_type.as_ref().is_none_or(|name| *name == record.command_type)
}

/// The least text that is greater than every text with this prefix (`None`: there is none).
pub(super) fn end_of_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}
