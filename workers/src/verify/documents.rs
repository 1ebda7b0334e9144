//! The documents of a view in order, one at a time.

use serde_json::Value;

use crate::database::{Connection, DatabaseError, Question, Row, Rows};

/// A document as it is stored.
pub(super) struct Document {
    pub(super) key: String,
    pub(super) partition: Option<i64>,
    pub(super) version: i64,
    pub(super) value: Value,
    pub(super) as_of: Value,
    account: String,
}

/// A place in the order of a view: account by account, then by key, where a longer number is a
/// larger one.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place<'a>(&'a str, usize, &'a str);

impl<'a> Place<'a> {
    pub(super) fn new(account: &'a str, key: &'a str) -> Self {
        Self(account, key.len(), key)
    }
}

impl Document {
    pub(super) fn place(&self) -> Place<'_> {
        Place::new(&self.account, &self.key)
    }

    /// Whose it is.
    pub(super) fn account(&self) -> &str {
        &self.account
    }

    fn read(row: &Row) -> Result<Self, DatabaseError> {
        Ok(Self {
            account: row.text("account")?.to_owned(),
            key: row.text("key")?.to_owned(),
            partition: row.optional_integer("partition")?,
            version: row.integer("version")?,
            value: row.json("value")?,
            as_of: row.json("as_of")?,
        })
    }
}

/// A view's documents, in the order of [`Place`].
pub(super) struct Documents<'c> {
    rows: Rows<'c>,
    next: Option<Document>,
}

impl<'c> Documents<'c> {
    pub(super) async fn read(
        connection: &'c mut Connection,
        question: Question,
    ) -> Result<Self, DatabaseError> {
        let mut documents = Self { rows: connection.ask(question), next: None };
        documents.advance().await?;
        Ok(documents)
    }

    /// Takes the next document if it stands at or before a place.
    pub(super) async fn take_until(
        &mut self,
        place: &Place<'_>,
    ) -> Result<Option<Document>, DatabaseError> {
        match &self.next {
            Some(next) if next.place() <= *place => self.take().await,
            _ => Ok(None),
        }
    }

    /// Takes the next document.
    pub(super) async fn take(&mut self) -> Result<Option<Document>, DatabaseError> {
        let taken = self.next.take();
        if taken.is_some() {
            self.advance().await?;
        }
        Ok(taken)
    }

    async fn advance(&mut self) -> Result<(), DatabaseError> {
        self.next = match self.rows.next().await? {
            Some(row) => Some(Document::read(&row)?),
            None => None,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_stand_account_by_account_and_by_number() {
        let order = [
            Place::new("acc-4", "acc-4/00000002"),
            Place::new("acc-4", "acc-4/00000010"),
            Place::new("acc-4", "acc-4/100000000"),
            Place::new("acc-4-1", "acc-4-1/00000001"),
        ];
        assert!(order.is_sorted());
    }
}
