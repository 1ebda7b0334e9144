//! The figures, in the order in which they were measured, each beside what was promised.

use comfy_table::{Table, presets};
use serde_json::{Map, Value, json};

/// All figures of a run.
#[derive(Debug, Default)]
pub(super) struct Figures {
    scenarios: Vec<(String, Vec<Figure>)>,
    /// What takes more than a line.
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Figure {
    key: &'static str,
    value: f64,
    unit: &'static str,
    promised: &'static str,
}

impl Figures {
    /// The figures that follow belong to this scenario.
    pub(super) fn begin(&mut self, scenario: &str) {
        self.scenarios.push((scenario.to_owned(), Vec::new()));
    }

    /// A figure of the present scenario. The key names it in JSON, and is what people read, too.
    pub(super) fn add(
        &mut self,
        key: &'static str,
        value: f64,
        unit: &'static str,
        promised: &'static str,
    ) {
        if let Some((_, figures)) = self.scenarios.last_mut() {
            figures.push(Figure { key, value, unit, promised });
        }
    }

    /// A table of its own, which people see below the figures.
    pub(super) fn show<const N: usize>(&mut self, head: [&str; N], rows: Vec<[String; N]>) {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(head);
        table.add_rows(rows);
        self.tables.push(table);
    }

    pub(super) fn to_text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["scenario", "figure", "measured", "promised"]);
        for (scenario, figures) in &self.scenarios {
            for (n, figure) in figures.iter().enumerate() {
                let scenario = if n == 0 { scenario.as_str() } else { "" };
                let measured = format!("{} {}", shown(figure.value), figure.unit);
                let name = figure.key.replace('_', " ");
                table.add_row([scenario, name.as_str(), measured.trim(), figure.promised]);
            }
        }
        let tables = std::iter::once(&table).chain(&self.tables);
        tables.map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn to_json(&self, checks: &Value) -> Value {
        let scenarios: Map<String, Value> = self
            .scenarios
            .iter()
            .filter(|(_, figures)| !figures.is_empty())
            .map(|(scenario, figures)| {
                let figures: Map<String, Value> = figures
                    .iter()
                    .map(|figure| {
                        let value = (figure.value * 1_000.0).round() / 1_000.0;
                        (figure.key.to_owned(), json!(value))
                    })
                    .collect();
                (scenario.clone(), Value::Object(figures))
            })
            .collect();
        json!({ "checks": checks, "scenarios": scenarios })
    }
}

fn shown(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        some if some >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
