//! Gauges that somebody must read from time to time: queue depths and the aggregate cache.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Process, backing::Gauges};
use crate::{message::GroupName, observe::names};

/// How often they are read.
const EVERY: Duration = Duration::from_secs(10);

pub(super) fn start(
    process: &Process,
    gauges: Gauges,
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
            gauges.read(&groups).await;
        }
    });
}

impl Gauges {
    async fn read(&self, groups: &[GroupName]) {
        match self {
            #[cfg(all(feature = "postgres", feature = "rabbitmq"))]
            Self::Services(store, broker) => {
                match store.oldest_snapshot_age().await {
                    Ok(seconds) => metrics::gauge!("adjutant_oldest_snapshot_seconds").set(seconds),
                    Err(error) => {
                        tracing::debug!(%error, "the age of the oldest snapshot is not known");
                    }
                }
                match broker.queue_depths(groups).await {
                    Ok(depths) => show(depths),
                    Err(error) => tracing::debug!(%error, "the queues' depths are not known"),
                }
            }
            #[cfg(feature = "embedded")]
            Self::Embedded => {} // The broker in the process keeps its own gauges.
        }
    }
}

fn show(depths: Vec<(String, u32, u32)>) {
    for (queue, messages, consumers) in depths {
        let labels = [("queue", queue)];
        metrics::gauge!(names::QUEUE_MESSAGES, &labels).set(f64::from(messages));
        metrics::gauge!("adjutant_queue_consumers", &labels).set(f64::from(consumers));
    }
}
