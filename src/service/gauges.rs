//! Gauges that somebody must read from time to time: queue depths and the aggregate cache.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::Process;
use crate::{
    broker::rabbitmq::RabbitBroker, message::GroupName, observe::names,
    store::postgres::PostgresStore,
};

/// How often they are read.
const EVERY: Duration = Duration::from_secs(10);

pub(super) fn start(
    process: &Process,
    broker: &RabbitBroker,
    groups: Vec<GroupName>,
    store: &Arc<PostgresStore>,
    stop: CancellationToken,
) {
    let (broker, store) = (broker.clone(), store.clone());
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
            match store.oldest_snapshot_age().await {
                Ok(seconds) => metrics::gauge!("adjutant_oldest_snapshot_seconds").set(seconds),
                Err(error) => {
                    tracing::debug!(%error, "the age of the oldest snapshot is not known");
                }
            }
            match broker.queue_depths(&groups).await {
                Ok(depths) => {
                    for (queue, messages, consumers) in depths {
                        let labels = [("queue", queue)];
                        metrics::gauge!(names::QUEUE_MESSAGES, &labels).set(f64::from(messages));
                        metrics::gauge!("adjutant_queue_consumers", &labels)
                            .set(f64::from(consumers));
                    }
                }
                Err(error) => tracing::debug!(%error, "the queues' depths are not known"),
            }
        }
    });
}
