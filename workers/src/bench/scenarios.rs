//! What is measured, a function each.

use adjutant::store::Role;
use sqlx::Executor;

use super::{
    BenchError, dead_letters,
    figures::Figures,
    immediate, retrying,
    site::{Shape, Site},
    watchers,
};
use crate::{
    cli::Scenario,
    config::Roles,
    database,
    load::{Measured, WaitFor},
};

pub(super) async fn measure(
    scenario: Scenario,
    site: &Site<'_>,
    figures: &mut Figures,
) -> Result<(), BenchError> {
    match scenario {
        Scenario::Intake => intake(site, 64, 1, "≥ 8,000", figures).await,
        Scenario::IntakeBatch => intake(site, 8, 500, "≥ 30,000", figures).await,
        Scenario::Sustained => sustained(site, figures).await,
        Scenario::Latency => latency(site, figures).await,
        Scenario::HotStream => hot_stream(site, figures).await,
        Scenario::TwoWorkers => two_workers(site, figures).await,
        Scenario::PinnedSnapshot => pinned_snapshot(site, figures).await,
        Scenario::DeadLetters => dead_letters::measure(site, figures).await,
        Scenario::Retrying => retrying::measure(site, figures).await,
        Scenario::Watchers => watchers::measure(site, figures).await,
        Scenario::ImmediateAsync => immediate::open::measure(site, figures).await,
        Scenario::ImmediateThroughput => immediate::throughput(site, figures).await,
        Scenario::ImmediateLatency => immediate::latency(site, figures).await,
        Scenario::ImmediateOneClient => immediate::one_client(site, figures).await,
    }
}

/// Only accepting; what was accepted is worked off afterwards, unmeasured.
async fn intake(
    site: &Site<'_>,
    connections: u32,
    batch: u32,
    promised: &'static str,
    figures: &mut Figures,
) -> Result<(), BenchError> {
    let shape = Shape { connections, batch, wait_for: WaitFor::Accepted, ..site.shape() };
    let at_work = site.start_ingress().await?;
    let measured = site.load(&at_work.target, shape).await?;
    at_work.stop().await;
    figures.add("accepted_per_second", measured.accepted_per_second, "/s", promised);
    figures.add("request_ms_p50", measured.submit_to_accepted.p50, "ms", "");
    figures.add("request_ms_p99", measured.submit_to_accepted.p99, "ms", "");
    figures.add("mean_batch", measured.batch_sizes.accepted.unwrap_or_default(), "", "");
    figures.add("cpu_seconds_per_1000", measured.cpu_per_thousand(), "s", "");
    let at_work = site.start_all().await?;
    site.drain().await?;
    at_work.stop().await;
    Ok(())
}

/// End to end at full load.
async fn sustained(site: &Site<'_>, figures: &mut Figures) -> Result<(), BenchError> {
    let at_work = site.start_all().await?;
    let measured = site.load(&at_work.target, site.shape()).await?;
    at_work.stop().await;
    figures.add("visible_per_second", measured.visible_per_second, "/s", "≥ 6,000 over 60 s");
    figures.add("cpu_seconds_per_1000", measured.cpu_per_thousand(), "s", "≤ 0.3");
    figures.add(
        "cpu_seconds_per_1000_bank_and_load",
        per_thousand(&measured, measured.cpu.bank),
        "s",
        "",
    );
    let postgresql = measured.cpu.postgresql.unwrap_or_default();
    figures.add("cpu_seconds_per_1000_postgresql", per_thousand(&measured, postgresql), "s", "");
    let rabbitmq = measured.cpu.rabbitmq.unwrap_or_default();
    figures.add("cpu_seconds_per_1000_rabbitmq", per_thousand(&measured, rabbitmq), "s", "");
    figures.add("rss_mb", measured.rss_mb, "MiB", "≤ 150");
    figures.add("rss_mb_growth", growth(&measured.rss_mb_by_second), "MiB", "flat");
    figures.add("submit_to_outcome_ms_p99", measured.submit_to_outcome.p99, "ms", "");
    figures.add("submit_to_visible_ms_p99", measured.submit_to_visible.p99, "ms", "");
    let entries = measured.all_entries();
    let by_road = entries.broker as f64 / (entries.broker + entries.log).max(1) as f64;
    figures.add("from_broker_percent", by_road * 100.0, "%", "≥ 95");
    batch_sizes(&measured, figures);
    Ok(())
}

/// Latency at light load.
async fn latency(site: &Site<'_>, figures: &mut Figures) -> Result<(), BenchError> {
    let at_work = site.start_all().await?;
    let shape = Shape { rate: Some(100.0), batch: 1, connections: 64, ..site.shape() };
    let measured = site.load(&at_work.target, shape).await?;
    at_work.stop().await;
    figures.add("submit_to_visible_ms_p50", measured.submit_to_visible.p50, "ms", "≤ 10");
    figures.add("submit_to_visible_ms_p99", measured.submit_to_visible.p99, "ms", "≤ 30");
    figures.add("submit_to_outcome_ms_p50", measured.submit_to_outcome.p50, "ms", "");
    figures.add("submit_to_accepted_ms_p50", measured.submit_to_accepted.p50, "ms", "");
    figures.add("samples", measured.submit_to_visible.samples as f64, "", "");
    Ok(())
}

/// Every command to one account.
async fn hot_stream(site: &Site<'_>, figures: &mut Figures) -> Result<(), BenchError> {
    let at_work = site.start_all().await?;
    let measured = site.load(&at_work.target, Shape { accounts: 1, ..site.shape() }).await?;
    at_work.stop().await;
    figures.add("visible_per_second", measured.visible_per_second, "/s", "≥ 1,500");
    batch_sizes(&measured, figures);
    Ok(())
}

/// The same load with one command worker, and with two.
async fn two_workers(site: &Site<'_>, figures: &mut Figures) -> Result<(), BenchError> {
    let one = site.start_all().await?;
    let with_one = site.load(&one.target, site.shape()).await?;
    one.stop().await;
    let two = site.start(&[Roles::all(), Role::CommandWorker.into()]).await?;
    let with_two = site.load(&two.target, site.shape()).await?;
    two.stop().await;
    figures.add("completed_per_second_with_one", with_one.completed_per_second, "/s", "");
    figures.add("completed_per_second_with_two", with_two.completed_per_second, "/s", "not slower");
    let ratio = with_two.completed_per_second / with_one.completed_per_second;
    figures.add("two_to_one_percent", ratio * 100.0, "%", "≥ 100");
    Ok(())
}

/// The same load without a pinned snapshot, and with one that is older than the load.
async fn pinned_snapshot(site: &Site<'_>, figures: &mut Figures) -> Result<(), BenchError> {
    let at_work = site.start_all().await?;
    let free = site.load(&at_work.target, site.shape()).await?;
    let mut pin = database::connect(site.config.require_database()?).await?;
    pin.execute("SET idle_in_transaction_session_timeout = 0").await?;
    pin.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    pin.execute("SELECT count(*) FROM adjutant.outbox").await?;
    let pinned = site.load(&at_work.target, site.shape()).await?;
    pin.execute("ROLLBACK").await?;
    at_work.stop().await;
    figures.add("visible_per_second_free", free.visible_per_second, "/s", "");
    figures.add("visible_per_second_pinned", pinned.visible_per_second, "/s", "");
    let loss = 1.0 - pinned.visible_per_second / free.visible_per_second;
    figures.add("loss_percent", loss * 100.0, "%", "≤ 20");
    Ok(())
}

fn batch_sizes(measured: &Measured, figures: &mut Figures) {
    let sizes = &measured.batch_sizes;
    figures.add("mean_batch_accepted", sizes.accepted.unwrap_or_default(), "", "");
    figures.add("mean_batch_executed", sizes.executed.unwrap_or_default(), "", "");
    figures.add("mean_batch_projected", sizes.projected.unwrap_or_default(), "", "");
}

fn per_thousand(measured: &Measured, seconds: f64) -> f64 {
    seconds * 1_000.0 / measured.sent.accepted.max(1) as f64
}

/// How much more memory the last quarter of a run took than its second one; the first one fills
/// caches.
fn growth(by_second: &[f64]) -> f64 {
    let quarter = by_second.len() / 4;
    if quarter == 0 {
        return 0.0;
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    mean(&by_second[by_second.len() - quarter..]) - mean(&by_second[quarter..2 * quarter])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_leaves_the_warm_up_out() {
        let flat: Vec<f64> = [10.0, 50.0, 60.0, 60.0, 61.0, 60.0, 61.0, 60.0].into();
        assert!((growth(&flat) - 0.5).abs() < 0.1, "{}", growth(&flat));
        assert!(growth(&[1.0]).abs() < f64::EPSILON);
    }
}
