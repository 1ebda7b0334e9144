//! The Prometheus recorder, without a server of its own: the API and the admin server show it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::names;

/// Buckets of durations: half a millisecond to a minute.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0,
    8.0, 16.0, 60.0,
];

/// Buckets of batch sizes.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0];

/// Why metrics cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Another recorder was installed before, by somebody else.
    #[error("another metrics recorder is installed in this process")]
    Taken,
    /// The buckets are not accepted.
    #[error("the metrics recorder cannot be built")]
    Build(#[from] BuildError),
}

/// Writes the metrics of this process. Cheap to clone.
#[derive(Clone)]
pub struct MetricsHandle {
    inner: PrometheusHandle,
}

impl MetricsHandle {
    /// All metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        self.inner.render()
    }
}

/// Installs the process's recorder and its upkeep (without which histograms grow without bound).
/// Calling it again returns the same handle. Call it before anything that keeps metrics is built.
pub fn install_metrics() -> Result<MetricsHandle, MetricsError> {
    static INSTALLED: Mutex<Option<MetricsHandle>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = installed.as_ref() {
        return Ok(handle.clone());
    }
    let mut builder = PrometheusBuilder::new().set_buckets(SECONDS)?;
    for name in names::COUNTING_HISTOGRAMS {
        builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), COUNTS)?;
    }
    let recorder = builder.build_recorder();
    let handle = MetricsHandle { inner: recorder.handle() };
    metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Taken)?;
    names::describe();
    keep_up(handle.clone());
    *installed = Some(handle.clone());
    Ok(handle)
}

/// A thread rather than a task, so that it outlives any runtime (tests have many).
fn keep_up(handle: MetricsHandle) {
    let upkeep = move || {
        loop {
            std::thread::sleep(Duration::from_secs(5));
            handle.inner.run_upkeep();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("metrics-upkeep".into()).spawn(upkeep) {
        tracing::error!(%error, "no thread for the upkeep of metrics: histograms will grow");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_described_and_bucketed() {
        let handle = install_metrics().unwrap();
        metrics::histogram!(names::INTAKE_BATCH_COMMANDS).record(3.0);
        metrics::histogram!(names::INTAKE_COMMIT_SECONDS).record(0.003);
        let text = install_metrics().unwrap().render();
        assert_eq!(text.is_empty(), handle.render().is_empty());
        assert!(text.contains("# TYPE adjutant_intake_batch_commands histogram"), "{text}");
        assert!(text.contains("adjutant_intake_batch_commands_bucket{le=\"4\"}"), "{text}");
        assert!(text.contains("adjutant_intake_commit_seconds_bucket{le=\"0.004\"}"), "{text}");
        assert!(text.contains("# HELP adjutant_intake_batch_commands Commands that"), "{text}");
    }
}
