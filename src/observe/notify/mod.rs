//! Notification: people are told of what is wrong, and once when it is over, by log, metric and
//! webhooks.
//!
//! Every process that accepts or relays looks at the whole service; the store decides which report
//! found a change, and holds the messages of it from then on (`conditions` and `notifications`). So
//! a change is told once however many processes look, and at least once whatever happens to the
//! process that found it, under one id. See `docs/operations/notification.md`.

#[cfg(feature = "webhooks")]
mod body;
mod condition;
#[cfg(feature = "webhooks")]
mod deliver;
mod settings;
mod sources;
mod watch;

pub use condition::{ConditionSource, Seen};
pub use settings::NotifySettings;
#[cfg(feature = "webhooks")]
pub use settings::{NotifyWebhook, WebhookKind};
pub use sources::{OpenBreakers, of_the_store};

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::store::Store;

/// What notification works with.
pub struct NotifyParts {
    /// Where conditions and messages are kept.
    pub store: Arc<dyn Store>,
    /// Who looks for what: [`of_the_store`], and what a process adds.
    pub sources: Vec<Arc<dyn ConditionSource>>,
    /// When and where.
    pub settings: NotifySettings,
    /// Ends it. What was not sent is sent by another process.
    pub stop: CancellationToken,
}

/// Webhooks cannot be sent to: the system lacks something.
#[derive(Debug, thiserror::Error)]
#[error("webhooks cannot be sent: {0}")]
pub struct NoWebhooks(pub String);

/// Starts the tasks: one that looks, and one for each webhook.
pub fn start(parts: NotifyParts) -> Result<Vec<AbortOnDropHandle<()>>, NoWebhooks> {
    let NotifyParts { store, sources, settings, stop } = parts;
    let mut tasks = Vec::new();
    #[cfg(feature = "webhooks")]
    let webhooks: Vec<String> = {
        if !settings.webhooks.is_empty() {
            let client = {
                // Operators say where these go: an intranet is as good.
                let reach = crate::webhook::Reach::Anywhere;
                crate::webhook::WebhookClient::new(settings.limits, reach)
            };
            let client = client.map_err(NoWebhooks)?;
            for webhook in &settings.webhooks {
                let delivery = deliver::Delivery {
                    store: store.clone(),
                    client: client.clone(),
                    webhook: webhook.clone(),
                    settings: settings.clone(),
                    stop: stop.clone(),
                };
                tasks.push(AbortOnDropHandle::new(tokio::spawn(delivery.run())));
            }
        }
        settings.webhooks.iter().map(|webhook| webhook.endpoint.name().to_owned()).collect()
    };
    #[cfg(not(feature = "webhooks"))]
    let webhooks = Vec::new();
    let watch = watch::Watch { store, sources, settings, webhooks, stop };
    tasks.push(AbortOnDropHandle::new(tokio::spawn(watch.run())));
    Ok(tasks)
}
