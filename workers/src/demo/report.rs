//! What a demo found: a table for people, one JSON object for programs.

use std::fmt::Write;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::{
    cli::DemoArgs,
    load::{Measured, Percentiles},
    verify::Report,
};

pub(super) struct DemoReport<'a> {
    pub(super) args: &'a DemoArgs,
    pub(super) measured: &'a Measured,
    pub(super) audit: &'a Report,
}

impl DemoReport<'_> {
    /// Whether every check passed and every command was accepted.
    pub(super) fn went_well(&self) -> bool {
        self.audit.passed() && self.measured.sent.accepted == self.args.commands
    }

    pub(super) fn to_text(&self) -> String {
        let measured = self.measured;
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["", "result"]);
        for (what, result) in self.rows() {
            table.add_row([what.to_owned(), result]);
        }
        let mut text = format!("{table}\n{}", self.audit.to_text());
        if let Some(refusal) = &measured.sent.first_refusal {
            let refused = measured.sent.refused;
            let _ = write!(text, "\n{refused} commands were refused, the first with: {refusal}");
        }
        text
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let measured = self.measured;
        let per_second = |rate: f64| format!("{rate:.0}/s");
        let sizes = &measured.batch_sizes;
        let size = |size: Option<f64>| size.map_or("–".to_owned(), |size| format!("{size:.1}"));
        let sources = measured.all_entries();
        let cpu = &measured.cpu;
        // A part that is not there, or runs elsewhere, is left out.
        let part = |seconds: Option<f64>, name: &str| {
            seconds.map_or(String::new(), |seconds| format!(", {seconds:.1} s {name}"))
        };
        vec![
            (
                "commands",
                format!(
                    "{} ({} must be rejected)",
                    measured.sent.accepted, measured.sent.must_be_rejected
                ),
            ),
            ("accepted", per_second(measured.accepted_per_second)),
            ("completed", per_second(measured.completed_per_second)),
            ("visible", per_second(measured.visible_per_second)),
            ("submit → accepted", in_words(&measured.submit_to_accepted)),
            ("submit → outcome", in_words(&measured.submit_to_outcome)),
            ("submit → visible", in_words(&measured.submit_to_visible)),
            (
                "mean batch",
                format!(
                    "{} accepted, {} executed, {} events projected together",
                    size(sizes.accepted),
                    size(sizes.executed),
                    size(sizes.projected)
                ),
            ),
            (
                "by the road",
                format!("{} from the broker, {} from the log", sources.broker, sources.log),
            ),
            ("requests repeated", measured.sent.repeated.to_string()),
            (
                "CPU",
                format!(
                    "{:.1} s bank{}{}: {:.2} s per 1,000 commands",
                    cpu.bank,
                    part(cpu.postgresql, "PostgreSQL"),
                    part(cpu.rabbitmq, "RabbitMQ"),
                    measured.cpu_per_thousand()
                ),
            ),
            ("memory", format!("{:.0} MiB", measured.rss_mb)),
        ]
    }

    pub(super) fn to_json(&self) -> Value {
        let measured = self.measured;
        let sources = measured.all_entries();
        json!({
            "checks": self.audit.verdicts(),
            "commands": measured.sent.accepted,
            "accepted_per_second": rounded(measured.accepted_per_second),
            "completed_per_second": rounded(measured.completed_per_second),
            "visible_per_second": rounded(measured.visible_per_second),
            "submit_to_accepted_ms": measured.submit_to_accepted,
            "submit_to_outcome_ms": measured.submit_to_outcome,
            "submit_to_visible_ms": measured.submit_to_visible,
            "rss_mb": rounded(measured.rss_mb),
            "cpu_seconds": rounded(measured.cpu.bank),
            "cpu_seconds_all": rounded(measured.cpu.all()),
            "cpu_seconds_by_part": measured.cpu,
            "from_broker": sources.broker,
            "from_log": sources.log,
            "entries": measured.entries,
            "events": measured.events,
            "must_be_rejected": measured.sent.must_be_rejected,
            "refused": measured.sent.refused,
            "requests_repeated": measured.sent.repeated,
            "lost_from_sight": measured.lost_from_sight,
            "batch_sizes": measured.batch_sizes,
            "seed": self.args.seed,
        })
    }
}

fn in_words(percentiles: &Percentiles) -> String {
    if percentiles.samples == 0 {
        return "–".to_owned();
    }
    format!(
        "p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms ({} measured)",
        percentiles.p50, percentiles.p95, percentiles.p99, percentiles.samples
    )
}

fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}
