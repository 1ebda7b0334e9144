//! Looks at everything from time to time, reports what it sees, and logs what changed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{ConditionSource, NotifySettings, sources::MOST};
use crate::{
    message::RawJson,
    observe::names,
    store::{ConditionChange, ConditionReport, ConditionState, SeenCondition, Store, StoreError},
};

/// How long one source may take to look.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// The most changes in one message; more are counted.
const MOST_ALERTS: i32 = 50;

pub(super) struct Watch {
    pub(super) store: Arc<dyn Store>,
    pub(super) sources: Vec<Arc<dyn ConditionSource>>,
    pub(super) settings: NotifySettings,
    /// Names of the webhooks that are told.
    pub(super) webhooks: Vec<String>,
    pub(super) stop: CancellationToken,
}

impl Watch {
    pub(super) async fn run(self) {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(self.settings.every) => {}
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                done = self.round() => if let Err(error) = done {
                    tracing::warn!(%error, "conditions could not be reported");
                },
            }
        }
    }

    async fn round(&self) -> Result<(), StoreError> {
        let report = self.look().await;
        for change in self.store.report_conditions(&report).await? {
            log(&change);
        }
        let firing = self.store.firing_conditions().await?;
        let mut conditions: BTreeSet<&str> =
            self.sources.iter().map(|source| source.condition()).collect();
        for (condition, count) in &firing {
            conditions.remove(condition.as_str());
            set_firing(condition, *count);
        }
        for condition in conditions {
            set_firing(condition, 0);
        }
        Ok(())
    }

    async fn look(&self) -> ConditionReport {
        let mut report = ConditionReport {
            resolve_after: self.settings.resolve_after,
            remind_after: self.settings.remind_after,
            webhooks: self.webhooks.clone(),
            gather: self.settings.gather,
            apart: self.settings.apart,
            most_alerts: MOST_ALERTS,
            ..ConditionReport::default()
        };
        let mut known = BTreeSet::new();
        // One after the other: connections to the store are there for work.
        for source in &self.sources {
            let condition = source.condition();
            let looked = tokio::time::timeout(LOOK_LIMIT, source.look()).await;
            let seen = match looked.unwrap_or_else(|_| Err("no answer in time".into())) {
                Ok(seen) => seen,
                Err(error) => {
                    tracing::debug!(condition, error, "nobody knows whether it is there");
                    continue;
                }
            };
            report.looked_at.push(condition.to_owned());
            // One row a subject, and not more of them than a person would read.
            for seen in seen.into_iter().take(usize::try_from(MOST).unwrap_or_default()) {
                if known.insert((condition, seen.subject.clone())) {
                    report.seen.push(SeenCondition {
                        condition: condition.to_owned(),
                        subject: seen.subject,
                        summary: seen.summary,
                        detail: RawJson::from_trusted(seen.detail.to_string()),
                    });
                }
            }
        }
        report
    }
}

fn log(change: &ConditionChange) {
    let ConditionChange { condition, subject, summary, detail, .. } = change;
    match change.state {
        ConditionState::Firing if change.reminder => {
            tracing::warn!(%condition, %subject, detail = detail.as_str(), "still: {summary}");
        }
        ConditionState::Firing => {
            tracing::warn!(%condition, %subject, detail = detail.as_str(), "{summary}");
        }
        ConditionState::Resolved => {
            tracing::info!(%condition, %subject, "resolved: {summary}");
        }
    }
    count(condition, change.state.as_str(), "logged", 1);
}

pub(super) fn count(condition: &str, state: &'static str, result: &'static str, n: u64) {
    let condition = condition.to_owned();
    metrics::counter!(names::NOTIFICATIONS_TOTAL, "condition" => condition, "state" => state,
        "result" => result)
    .increment(n);
}

fn set_firing(condition: &str, count: i64) {
    metrics::gauge!(names::CONDITIONS_FIRING, "condition" => condition.to_owned())
        .set(count as f64);
}
