//! Gauges that somebody must read from time to time: queue depths and the aggregate cache.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{super::Process, backing::Readings};
use crate::message::GroupName;

/// How often they are read.
const EVERY: Duration = Duration::from_secs(10);

pub(super) fn start(
    process: &Process,
    readings: Option<Box<dyn Readings>>,
    groups: Vec<GroupName>,
    stop: CancellationToken,
) {
    let executor = process.executor().clone();
    tokio::spawn(async move {
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            let cache = executor.cache().stats();
            metrics::gauge!("adjutant_cache_entries").set(cache.entries as f64);
            metrics::gauge!("adjutant_cache_bytes").set(cache.bytes as f64);
            metrics::counter!("adjutant_cache_hits_total").absolute(cache.hits);
            metrics::counter!("adjutant_cache_misses_total").absolute(cache.misses);
            if let Some(readings) = &readings {
                readings.take(&groups).await;
            }
        }
    });
}
