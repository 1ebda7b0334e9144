//! Printing: tables for people, JSON for programs. Results go to standard output, everything else to
//! standard error.

use std::io::{IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::failure::Failure;

/// How to print.
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// One value: as JSON on a line, or as `people` writes it.
    pub(crate) fn value(&self, value: &Value, people: impl FnOnce(&Value) -> String) {
        line(&if self.json { value.to_string() } else { people(value) });
    }

    /// Items: one JSON object a line, or rows of a table.
    pub(crate) fn rows(
        &self,
        header: &[&str],
        items: &[Value],
        row: impl Fn(&Value) -> Vec<String>,
    ) {
        if self.json {
            for item in items {
                line(&item.to_string());
            }
        } else if items.is_empty() {
            line("none");
        } else {
            line(&table(header, items.iter().map(row)));
        }
    }

    /// Why the task failed.
    pub(crate) fn failure(&self, failure: &Failure) {
        match failure {
            Failure::Answer { problem, .. } if self.json && !problem.is_null() => {
                note(&problem.to_string());
            }
            failure => note(&format!("adjutant: {failure}")),
        }
    }
}

/// A line of results. A reader that went away (`| head`) is no failure.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A line beside the results.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A table as wide as the terminal, without lines that get into the way of `grep`.
pub(crate) fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec()).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.trim_fmt()
}

/// Names and values, one a line.
pub(crate) fn pairs(pairs: Vec<(&str, String)>) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines = pairs
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name:width$}  {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A value as people write it: text without quotes, nothing for null.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
