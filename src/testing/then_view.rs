//! What became of a view.

use serde_json::Value;

use super::{
    EventList, GivenView,
    diff::{self, fail},
    view::{Rows, shown},
};
use crate::{
    domain::{Aggregate, Projection},
    message::RawJson,
};

/// What became of a view: each assertion panics at the caller's line if it does not hold, and may
/// be followed by others, and by more events.
pub struct ThenView<P: Projection> {
    given: GivenView<P>,
    events: Vec<String>,
    before: Rows,
    stopped: Option<String>,
}

impl<P: Projection> ThenView<P> {
    pub(super) fn new(
        given: GivenView<P>,
        events: Vec<String>,
        before: Rows,
        stopped: Option<String>,
    ) -> Self {
        Self { given, events, before, stopped }
    }

    /// This document is there, compared as JSON.
    #[track_caller]
    pub fn then_document(self, key: &str, view: &P::View) -> Self {
        let this = self.must_have_applied();
        let expected = match RawJson::encode(view) {
            Ok(expected) => expected.to_value(),
            Err(error) => fail(&format!("expected: the document cannot be encoded: {error}")),
        };
        match this.value(key) {
            Some(actual) if actual == expected => this,
            Some(actual) => {
                let diff = diff::json(&expected, &actual);
                fail(&format!("view `{}`: `{key}` is another:\n{diff}", P::NAME))
            }
            None => fail(&format!(
                "view `{}` has no document `{key}`, which had to be\n{}{}",
                P::NAME,
                diff::pretty(&expected),
                this.what_there_is()
            )),
        }
    }

    /// No such document is there: never was, or was deleted.
    #[track_caller]
    pub fn then_no_document(self, key: &str) -> Self {
        let this = self.must_have_applied();
        if let Some(actual) = this.value(key) {
            let shown = diff::pretty(&actual);
            fail(&format!("view `{}` must not have a document `{key}`:\n{shown}", P::NAME));
        }
        this
    }

    /// These are the keys of all documents.
    #[track_caller]
    pub fn then_keys<K: Into<String>>(self, keys: impl IntoIterator<Item = K>) -> Self {
        let this = self.must_have_applied();
        let mut expected: Vec<String> = keys.into_iter().map(Into::into).collect();
        expected.sort_unstable();
        let rows = this.given.view().rows.iter();
        let actual: Vec<&str> =
            rows.filter(|(_, row)| row.value.is_some()).map(|(key, _)| key.as_str()).collect();
        if actual != expected {
            let diff = diff::lines(&expected.join("\n"), &actual.join("\n"));
            fail(&format!("view `{}` has other documents:\n{diff}", P::NAME));
        }
        this
    }

    /// No document was changed by the last events, not even to the same value.
    #[track_caller]
    pub fn then_unchanged(self) -> Self {
        let this = self.must_have_applied();
        let rows = &this.given.view().rows;
        if *rows != this.before {
            let versions = |rows: &Rows| -> Value {
                let shown = |row: &super::view::Row| {
                    let value = row.value.as_ref().map(RawJson::to_value);
                    serde_json::json!({ "version": row.version, "view": value })
                };
                rows.iter().map(|(key, row)| (key.clone(), shown(row))).collect()
            };
            let diff = diff::json(&versions(&this.before), &versions(rows));
            fail(&format!("view `{}` had to stay as it was:\n{diff}", P::NAME));
        }
        this
    }

    /// The document's version: how often it was changed. A deletion is a change.
    #[track_caller]
    pub fn then_version(self, key: &str, version: i64) -> Self {
        let this = self.must_have_applied();
        let actual = this.given.view().rows.get(key).map_or(0, |row| row.version);
        if actual != version {
            let diff = diff::lines(&version.to_string(), &actual.to_string());
            fail(&format!("view `{}`: `{key}` has another version:\n{diff}", P::NAME));
        }
        this
    }

    /// The projection stops at one of the events, with a reason that contains this. Of that
    /// batch, nothing is applied.
    #[track_caller]
    pub fn then_stopped(mut self, reason: &str) -> Self {
        match self.stopped.take() {
            Some(actual) if actual.contains(reason) => self,
            Some(actual) => {
                let diff = diff::lines(reason, &actual);
                fail(&format!("view `{}` stops for another reason:\n{diff}", P::NAME))
            }
            None => fail(&format!(
                "view `{}` had to stop with `{reason}`, but it applied {}",
                P::NAME,
                self.events.join(", ")
            )),
        }
    }

    /// The next events; see [`GivenView::when`].
    #[track_caller]
    pub fn when<A: Aggregate>(self, id: &str, events: impl EventList<A::Event>) -> ThenView<P> {
        self.applied().when::<A>(id, events)
    }

    /// The view as it is now, for another time, partition or metadata.
    #[track_caller]
    pub fn and(self) -> GivenView<P> {
        self.applied()
    }

    #[track_caller]
    pub(super) fn applied(self) -> GivenView<P> {
        self.must_have_applied().given
    }

    #[track_caller]
    fn must_have_applied(self) -> Self {
        if let Some(reason) = &self.stopped {
            fail(&format!("view `{}` stops at {reason}", P::NAME));
        }
        self
    }

    fn value(&self, key: &str) -> Option<Value> {
        let row = self.given.view().rows.get(key)?;
        row.value.as_ref().map(RawJson::to_value)
    }

    /// For whoever misses a document: which ones there are, and which events it does not want.
    fn what_there_is(&self) -> String {
        let view = self.given.view();
        let mut text = format!("\nall documents: {}", diff::pretty(&shown(&view.rows)));
        for name in self.events.iter().filter(|name| !view.wants(name)) {
            text.push_str("\nthe projection does not select `");
            text.push_str(name);
            text.push('`');
        }
        text
    }
}
