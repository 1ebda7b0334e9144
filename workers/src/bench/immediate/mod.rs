//! The immediate lane: clients that wait for their commands by HTTP, and (in a file of its own) many
//! commands that are open at once.

pub(super) mod open;

use adjutant::message::Lane;

use super::{
    BenchError,
    figures::Figures,
    site::{Shape, Site},
};
use crate::load::Measured;

/// 64 clients, each with one command at a time.
pub(super) async fn throughput(site: &Site<'_>, figures: &mut Figures) -> Result<(), BenchError> {
    let measured = measure(site, Shape { connections: 64, ..site.shape() }).await?;
    figures.add("executed_per_second", measured.accepted_per_second, "/s", "≥ 6,000");
    figures.add("visible_per_second", measured.visible_per_second, "/s", "");
    figures.add("mean_batch_executed", measured.batch_sizes.executed.unwrap_or_default(), "", "");
    figures.add("cpu_seconds_per_1000", measured.cpu_per_thousand(), "s", "");
    figures.add("rss_mb", measured.rss_mb, "MiB", "");
    all_figures_of(&measured, "", figures);
    Ok(())
}

/// Latency at a light load, counted from when each command was due.
pub(super) async fn latency(site: &Site<'_>, figures: &mut Figures) -> Result<(), BenchError> {
    let shape = Shape { rate: Some(500.0), connections: 64, ..site.shape() };
    let measured = measure(site, shape).await?;
    all_figures_of(&measured, "≤ 25", figures);
    Ok(())
}

/// One client, one command at a time.
pub(super) async fn one_client(site: &Site<'_>, figures: &mut Figures) -> Result<(), BenchError> {
    let measured = measure(site, Shape { connections: 1, ..site.shape() }).await?;
    figures.add("submit_to_outcome_ms_p50_alone", measured.submit_to_accepted.p50, "ms", "≤ 3");
    all_figures_of(&measured, "", figures);
    Ok(())
}

async fn measure(site: &Site<'_>, shape: Shape) -> Result<Measured, BenchError> {
    let at_work = site.start_all().await?;
    let shape = Shape { batch: 1, lane: Lane::Immediate, ..shape };
    let measured = site.load(&at_work.target, shape).await?;
    at_work.stop().await;
    Ok(measured)
}

/// An answer is an outcome here, if it came in time.
fn all_figures_of(measured: &Measured, promised_p99: &'static str, figures: &mut Figures) {
    let (sent, answered) = (&measured.sent, &measured.submit_to_accepted);
    figures.add("submit_to_outcome_ms_p50", answered.p50, "ms", "");
    figures.add("submit_to_outcome_ms_p99", answered.p99, "ms", promised_p99);
    figures.add("submit_to_outcome_ms_max", answered.max, "ms", "");
    let in_time = sent.ended as f64 * 100.0 / sent.accepted.max(1) as f64;
    figures.add("answered_with_outcome_percent", in_time, "%", "100");
    figures.add("samples", answered.samples as f64, "", "");
}
