//! Hints between processes by LISTEN and NOTIFY: one listener a process, and one notifier that
//! sends at most one notification per interval, because NOTIFY takes a lock of the whole instance
//! at commit. Nothing depends on a hint: polling is the guarantee.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use deadpool_postgres::Object;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{PostgresStore, errors, pool};
use crate::{
    signals::Signals,
    store::{HintParts, StoreError},
};

const CHANNEL: &str = "adjutant";
/// Somebody wrote to the outbox.
const OUTBOX: &str = "outbox";
/// Somebody joined, drains or left.
pub(super) const MEMBERS: &str = "members";
/// The shortest time between two notifications of one process.
const INTERVAL: Duration = Duration::from_millis(5);

pub(super) async fn notify(client: &Object, what: &str) -> Result<(), StoreError> {
    let statement = pool::prepare(client, "SELECT pg_notify('adjutant', $1)").await?;
    client.execute(&statement, &[&what]).await.map(|_| ()).map_err(errors::after_commit)
}

impl PostgresStore {
    /// Passes hints of other processes to `signals` and `members_changed`, and, while another
    /// process relays, those of this process to the others.
    pub(super) fn start_hints(self: Arc<Self>, parts: HintParts) -> Vec<JoinHandle<()>> {
        let HintParts { signals, members_changed, relay_elsewhere, stop } = parts;
        let listener = self.clone().listen(signals.clone(), members_changed, stop.clone());
        let notifier = self.tell_others(signals, relay_elsewhere, stop);
        vec![tokio::spawn(listener), tokio::spawn(notifier)]
    }

    async fn listen(
        self: Arc<Self>,
        signals: Signals,
        members_changed: Arc<Notify>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = self.listen_once(&signals, &members_changed) => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "no hints from other processes; polling goes on");
                    }
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    async fn listen_once(
        &self,
        signals: &Signals,
        members_changed: &Notify,
    ) -> Result<(), sqlx::Error> {
        let options = PgConnectOptions::from_str(&self.settings.url)?
            .ssl_mode(pool::Encryption::of(&self.settings.url).for_sqlx())
            .application_name("adjutant hints");
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        loop {
            match listener.recv().await?.payload() {
                OUTBOX => signals.outbox_written_elsewhere(),
                MEMBERS => members_changed.notify_one(),
                _ => {}
            }
        }
    }

    async fn tell_others(
        self: Arc<Self>,
        signals: Signals,
        relay_elsewhere: Arc<AtomicBool>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = signals.outbox_hint_for_others() => {}
            }
            if relay_elsewhere.load(Ordering::Relaxed)
                && let Ok(client) = self.hot().await
                && let Err(error) = notify(&client, OUTBOX).await
            {
                tracing::debug!(%error, "could not notify the relays; they poll");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
